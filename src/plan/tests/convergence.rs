//! Plans carried out in a model, from any state that runs and accidents can leave.
//!
//! No step may wait for what only a later step brings about; a plan ends with a cluster that needs no other;
//! and so does the plan that follows a run that was cut off anywhere.
//!
//! `PGHERD_STORIES` says how many stories are told; a few by default, since the tests of every day run them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

use super::{
    model::{Model, before_and_after, own_roles},
    world::{FIVE, ONE, SHARED, SYSTEM, World, steps, told},
};
use crate::{
    cluster::TlsStage,
    contract::MARKER,
    facts::{DataFact, Facts},
    inventory::{HostName, Role},
    plan::{Action, Plan, StepId},
    services::etcd::PatroniKeys,
};

/// Something that happened to a host since it was set up.
#[derive(Debug, Clone, Copy)]
enum Mishap {
    FileGone(Index),
    FileEdited(Index),
    PackageGone(Index),
    UnitStopped(Index),
    UnitFailed(Index),
    UnitDisabled(Index),
    CutOff(Index, &'static str),
    OtherPatroni,
    Reinstalled,
    /// A copy of the leader's data that never finished.
    HalfMade,
    /// A database of a bootstrap that failed.
    NeverStarted,
}

/// Where the databases are with their first bootstrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Age {
    Formed,
    /// Nothing in etcd, or only the lock, and what the seed says on each host.
    Forming {
        lock: Option<&'static str>,
        data: [u8; 3],
    },
}

/// A cluster, and what befell it.
#[derive(Debug, Clone)]
struct Story {
    layout: &'static str,
    bare: bool,
    stage: TlsStage,
    age: Age,
    leader: bool,
    roles: bool,
    all_stopped: bool,
    dcs_hidden: bool,
    moved: Vec<Index>,
    mishaps: Vec<(Index, Mishap)>,
    /// Which steps are not done before the run is cut off, in two runs.
    cuts: [u64; 2],
}

fn mishap() -> impl Strategy<Value = Mishap> {
    let at = any::<Index>;
    let effect = prop::sample::select(vec!["reload", "exchange", "restart"]);
    prop_oneof![
        1 => at().prop_map(Mishap::FileGone),
        1 => at().prop_map(Mishap::FileEdited),
        1 => at().prop_map(Mishap::PackageGone),
        2 => at().prop_map(Mishap::UnitStopped),
        1 => at().prop_map(Mishap::UnitFailed),
        1 => at().prop_map(Mishap::UnitDisabled),
        4 => (at(), effect).prop_map(|(at, effect)| Mishap::CutOff(at, effect)),
        1 => Just(Mishap::OtherPatroni),
        1 => Just(Mishap::Reinstalled),
        1 => Just(Mishap::HalfMade),
        1 => Just(Mishap::NeverStarted),
    ]
}

fn age() -> impl Strategy<Value = Age> {
    let lock = prop::sample::select(vec![None, Some(""), Some("98")]);
    prop_oneof![
        5 => Just(Age::Formed),
        1 => (lock, any::<[u8; 3]>()).prop_map(|(lock, data)| Age::Forming { lock, data }),
    ]
}

fn story() -> impl Strategy<Value = Story> {
    let rarely = || prop::bool::weighted(0.15);
    let stage = prop::sample::select(vec![
        TlsStage::Required,
        TlsStage::Required,
        TlsStage::Required,
        TlsStage::Used,
    ]);
    (
        (
            prop::sample::select(vec![FIVE, SHARED, ONE]),
            rarely(),
            stage,
            age(),
        ),
        (prop::bool::weighted(0.7), rarely(), rarely(), rarely()),
        prop::collection::vec(any::<Index>(), 0..3),
        prop::collection::vec((any::<Index>(), mishap()), 0..8),
        any::<[u64; 2]>(),
    )
        .prop_map(
            |(
                (layout, bare, stage, age),
                (leader, roles, all_stopped, dcs_hidden),
                moved,
                mishaps,
                cuts,
            )| {
                Story {
                    layout,
                    bare,
                    stage,
                    age,
                    leader,
                    roles: !roles,
                    all_stopped,
                    dcs_hidden,
                    moved,
                    mishaps,
                    cuts,
                }
            },
        )
}

static SETTLED: LazyLock<Vec<(&str, World)>> = LazyLock::new(|| {
    [FIVE, SHARED, ONE]
        .map(|layout| (layout, World::settled(layout)))
        .into()
});

impl Story {
    fn model(&self) -> Model {
        if self.bare {
            let world = World::bare(self.layout);
            return Model::new(
                world,
                PatroniKeys::default(),
                Vec::new(),
                BTreeMap::default(),
            );
        }
        let settled = SETTLED.iter().find(|(layout, _)| *layout == self.layout);
        let mut world = settled.unwrap().1.clone();
        let mut keys = world.found.dcs.clone().unwrap();
        let members = world.found.etcd.clone();
        let mut roles = own_roles(&world);
        for (host, mishap) in &self.mishaps {
            let host = host.get(&world.hosts()).clone();
            befall(&mut world, &host, *mishap);
        }
        if !self.roles {
            roles.clear();
        }
        if !self.leader {
            keys.leader = None;
        }
        if let Age::Forming { lock, data } = self.age {
            forming(&mut world, &mut keys, lock, data);
            roles.clear();
        }
        if self.all_stopped {
            for host in world.hosts() {
                for role in world.cluster.nodes[&host].roles.clone() {
                    let unit = role.unit();
                    if world.facts(host.as_str()).units.contains_key(unit) {
                        world.stop(host.as_str(), unit);
                    }
                }
            }
        }
        let hosts = world.hosts();
        let moved: BTreeSet<&HostName> = self.moved.iter().map(|at| at.get(&hosts)).collect();
        if self.stage == TlsStage::Required {
            let moves: Vec<(String, String)> = moved
                .into_iter()
                .map(|host| (host.to_string(), elsewhere(&world, host)))
                .collect();
            let moves: Vec<(&str, &str)> = moves
                .iter()
                .map(|(a, b)| (a.as_str(), b.as_str()))
                .collect();
            world.moves(&moves);
        } else {
            world.speaks(self.stage);
        }
        world.found.dcs = (!self.dcs_hidden && has_quorum(&world)).then(|| keys.clone());
        world.found.etcd = if world.found.dcs.is_some() {
            members.clone()
        } else {
            Vec::new()
        };
        Model::new(world, keys, members, roles)
    }
}

fn elsewhere(world: &World, host: &HostName) -> String {
    let address = world.cluster.nodes[host].address.to_string();
    let last: u8 = address.rsplit('.').next().unwrap().parse().unwrap();
    format!("192.0.2.{}", last + 100)
}

fn has_quorum(world: &World) -> bool {
    let etcds: Vec<bool> = world
        .cluster
        .with_role(Role::Etcd)
        .map(|node| world.found.facts[&node.name].unit("etcd").is_active())
        .collect();
    etcds.iter().filter(|runs| **runs).count() > etcds.len() / 2
}

fn half_made() -> DataFact {
    DataFact {
        owner: "postgres".into(),
        entries: 11,
        version: Some(16),
        ..DataFact::default()
    }
}

fn never_started(system: &str) -> DataFact {
    DataFact {
        entries: 23,
        control: true,
        bases: 3,
        system_id: Some(system.into()),
        never_started: true,
        ..half_made()
    }
}

/// A first bootstrap that was cut off, or that failed.
fn forming(world: &mut World, keys: &mut PatroniKeys, lock: Option<&str>, data: [u8; 3]) {
    *keys = PatroniKeys {
        initialize: lock.map(Into::into),
        initialize_revision: lock.map(|_| "42".into()),
        ..PatroniKeys::default()
    };
    let nodes = world.cluster.with_role(Role::Postgres);
    let hosts: Vec<HostName> = nodes.map(|node| node.name.clone()).collect();
    let id = world.cluster.secrets.cluster_id.clone();
    for (host, data) in hosts.iter().zip(data) {
        let facts = world.facts(host.as_str());
        facts.in_recovery = None;
        facts.db_roles.clear();
        facts.data_marker = Some(id.clone());
        facts.data = Some(match data % 3 {
            0 => DataFact::default(),
            1 => half_made(),
            _ => never_started(&format!("9{data}")),
        });
    }
}

fn befall(world: &mut World, host: &HostName, mishap: Mishap) {
    let name = host.as_str();
    let first = world.cluster.with_role(Role::Postgres).next().unwrap();
    let leads = first.name == *host;
    let roles = world.cluster.nodes[host].roles.clone();
    // Whoever lost the mark is a stranger, which is another story.
    let paths: Vec<String> = world.files[host]
        .iter()
        .map(|file| file.path.clone())
        .filter(|path| path != MARKER)
        .collect();
    let units: Vec<&str> = roles.iter().map(|role| role.unit()).collect();
    let id = world.cluster.secrets.cluster_id.clone();
    let follows = roles.contains(&Role::Postgres) && !leads;
    let facts = world.facts(name);
    match mishap {
        Mishap::FileGone(at) => {
            facts.files.remove(at.get(&paths));
        }
        Mishap::FileEdited(at) => {
            if let Some(file) = facts.files.get_mut(at.get(&paths)) {
                file.content.insert_str(0, "# by hand\n");
            }
        }
        Mishap::PackageGone(at) => {
            let packages: Vec<String> = facts.packages.keys().cloned().collect();
            if !packages.is_empty() {
                facts.packages.remove(at.get(&packages));
            }
        }
        Mishap::UnitStopped(at) | Mishap::UnitFailed(at) => {
            let unit = *at.get(&units);
            if facts.units.contains_key(unit) {
                world.stop(name, unit);
                if matches!(mishap, Mishap::UnitFailed(_)) {
                    world.unit(name, unit).active = "failed".into();
                }
            }
        }
        Mishap::UnitDisabled(at) => {
            if let Some(unit) = facts.units.get_mut(*at.get(&units)) {
                unit.enabled = "disabled".into();
            }
        }
        Mishap::CutOff(at, effect) => {
            facts
                .pending
                .insert((*at.get(&units)).into(), effect.into());
        }
        Mishap::OtherPatroni => facts.patroni_stamp = Some("another".into()),
        // An etcd that lost its data is not made anew by `up`.
        Mishap::Reinstalled if follows && !roles.contains(&Role::Etcd) => {
            *facts = Facts::bare(facts.os.clone());
        }
        Mishap::HalfMade | Mishap::NeverStarted if follows => {
            facts.data = Some(match mishap {
                Mishap::HalfMade => half_made(),
                _ => never_started("97"),
            });
            facts.data_marker = Some(id);
            facts.in_recovery = None;
            facts.db_roles.clear();
        }
        Mishap::Reinstalled | Mishap::HalfMade | Mishap::NeverStarted => {}
    }
}

/// The state in which all steps of `which` are done.
fn after(model: &Model, plan: &Plan, which: impl Fn(StepId) -> bool) -> Model {
    let mut model = model.clone();
    for (id, step) in plan.steps.iter().enumerate() {
        if which(id) {
            model.do_step(step);
        }
    }
    model
}

/// The first step that can only end well once one after it is done.
fn stuck(model: &Model, plan: &Plan) -> Option<StepId> {
    (0..plan.steps.len()).find(|id| {
        let step = &plan.steps[*id];
        if matches!(
            step.action,
            Action::Run(_) | Action::Wake | Action::TakeOver
        ) {
            return false;
        }
        let (before, later) = before_and_after(plan, *id);
        // Some wait, and what is not behind them gets done meanwhile; the others look once.
        let waits = matches!(
            step.action,
            Action::Await(_) | Action::UpdateEtcdMember { .. }
        );
        let state = if waits {
            after(model, plan, |other| !later.contains(&other))
        } else {
            after(model, plan, |other| before.contains(&other))
        };
        !state.can(step)
    })
}

/// Does some of a plan, as a run does that is cut off: nothing without what it needs.
fn cut_off(model: &Model, plan: &Plan, mut seed: u64) -> Model {
    let mut model = model.clone();
    let mut done = BTreeSet::new();
    for (id, step) in plan.steps.iter().enumerate() {
        // One of four is not done; `seed` is used up bit by bit, and then all are.
        let falls = seed & 3 == 3;
        seed >>= 2;
        let ready = step.after.iter().all(|before| done.contains(before));
        if ready && !falls && model.can(step) {
            model.do_step(step);
            done.insert(id);
        }
    }
    model
}

fn plan(model: &Model) -> Result<Plan, TestCaseError> {
    model
        .world
        .up()
        .map_err(|error| TestCaseError::fail(told(&error)))
}

/// Checks a plan, carries it out, and sees that nothing is left to do.
fn converges(model: &Model) -> Result<(), TestCaseError> {
    let first = plan(model)?;
    if let Some(id) = stuck(model, &first) {
        return Err(TestCaseError::fail(format!(
            "step {id} waits for ever: {:#?}",
            steps(&first)
        )));
    }
    let mut model = after(model, &first, |_| true);
    // Some things can only be seen once etcd answers, or a member leads.
    for _ in 0..3 {
        let next = plan(&model)?;
        if next.is_empty() {
            return Ok(());
        }
        if let Some(id) = stuck(&model, &next) {
            return Err(TestCaseError::fail(format!(
                "a second time, step {id}: {:#?}",
                steps(&next)
            )));
        }
        model = after(&model, &next, |_| true);
    }
    let left = steps(&plan(&model)?);
    Err(TestCaseError::fail(format!(
        "left to do: {left:#?}\nfirst: {:#?}",
        steps(&first)
    )))
}

fn holds(story: &Story) -> Result<(), TestCaseError> {
    let mut model = story.model();
    converges(&model)?;
    for seed in story.cuts {
        model = cut_off(&model, &plan(&model)?, seed);
        converges(&model)?;
    }
    Ok(())
}

/// How many stories are told unless somebody asks for more.
const FEW: u32 = 12;

fn stories() -> Option<u32> {
    std::env::var("PGHERD_STORIES").ok()?.parse().ok()
}

#[test]
fn every_plan_gets_there_and_so_does_the_one_after_a_cut() {
    let config = ProptestConfig {
        cases: stories().unwrap_or(FEW),
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    };
    // The same few every day; others whenever somebody asks for more.
    let mut runner = match stories() {
        None => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
        Some(_) => TestRunner::new(config),
    };
    if let Err(error) = runner.run(&story(), |story| holds(&story)) {
        panic!("{error}");
    }
}

/// The model itself must notice a step that waits for a later one.
#[test]
fn a_wait_for_a_later_step_is_noticed() {
    let mut world = World::settled(FIVE);
    let (keys, members) = (world.found.dcs.clone().unwrap(), world.found.etcd.clone());
    let roles = own_roles(&world);
    world.stop("node1", "patroni");
    world.stop("node2", "patroni");
    world.stop("node3", "patroni");
    let model = Model::new(world, keys, members, roles);
    let mut plan = model.world.plan();
    assert_eq!(stuck(&model, &plan), None);
    let wait = plan
        .steps
        .iter()
        .position(|step| step.name == "await-leader")
        .unwrap();
    assert!(
        wait > 0
            && model
                .world
                .found
                .dcs
                .as_ref()
                .unwrap()
                .initialize
                .as_deref()
                == Some(SYSTEM)
    );
    for start in 0..wait {
        plan.steps[start].after.push(wait);
        plan.steps[wait].after.retain(|before| *before != start);
    }
    assert_eq!(stuck_in_any_order(&model, &plan), Some(wait));
}

/// The same for a plan whose steps are not in their order.
fn stuck_in_any_order(model: &Model, plan: &Plan) -> Option<StepId> {
    let waits = |id: StepId, on: StepId| plan.steps[id].after.contains(&on);
    (0..plan.steps.len()).find(|id| {
        let step = &plan.steps[*id];
        let state = after(model, plan, |other| other != *id && !waits(other, *id));
        matches!(step.action, Action::Await(_)) && !state.can(step)
    })
}
