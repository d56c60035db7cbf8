//! Properties of every plan, whatever the hosts are like.

use std::{collections::BTreeSet, sync::LazyLock};

use proptest::{prelude::*, sample::Index};

use super::world::{FIVE, ONE, SHARED, World, steps, told};
use crate::{
    cluster::TlsStage,
    contract::MARKER,
    inventory::{HostName, Role},
    plan::{Change, Plan, StepId},
    render::Kind,
};

/// Something that happened to a host since it was set up.
#[derive(Debug, Clone, Copy)]
enum Mishap {
    FileGone(Index),
    FileEdited(Index),
    FileOpened(Index),
    PackageGone(Index),
    UnitStopped(Index),
    UnitDisabled(Index),
    CutOff(Index, bool),
    OtherPatroni,
    RolesGone,
    Reinstalled,
}

fn mishap() -> impl Strategy<Value = Mishap> {
    let at = any::<Index>();
    prop_oneof![
        at.prop_map(Mishap::FileGone),
        any::<Index>().prop_map(Mishap::FileEdited),
        any::<Index>().prop_map(Mishap::FileOpened),
        any::<Index>().prop_map(Mishap::PackageGone),
        any::<Index>().prop_map(Mishap::UnitStopped),
        any::<Index>().prop_map(Mishap::UnitDisabled),
        any::<(Index, bool)>().prop_map(|(at, restart)| Mishap::CutOff(at, restart)),
        Just(Mishap::OtherPatroni),
        Just(Mishap::RolesGone),
        Just(Mishap::Reinstalled),
    ]
}

/// The layout, whether the hosts are bare, and whether TLS is being turned off.
type Beginning = (&'static str, bool, bool);

/// The beginnings of stories, rendered once.
static BEGINNINGS: LazyLock<Vec<(Beginning, World)>> = LazyLock::new(|| {
    let mut beginnings = Vec::new();
    for layout in [FIVE, SHARED, ONE] {
        for tls_off in [false, true] {
            for (bare, mut world) in [(true, World::bare(layout)), (false, World::settled(layout))]
            {
                if tls_off && bare {
                    world.wants("tls: { enabled: false }", layout);
                } else if tls_off {
                    world.speaks(TlsStage::Used);
                }
                beginnings.push(((layout, bare, tls_off), world));
            }
        }
    }
    beginnings
});

/// A cluster and its history.
#[derive(Debug, Clone)]
struct Story {
    layout: &'static str,
    bare: bool,
    dcs: bool,
    tls_off: bool,
    mishaps: Vec<(Index, Mishap)>,
}

impl Story {
    fn world(&self) -> World {
        let mut world = BEGINNINGS
            .iter()
            .find(|beginning| beginning.0 == (self.layout, self.bare, self.tls_off))
            .map(|beginning| beginning.1.clone())
            .unwrap();
        if self.bare {
            return world;
        }
        for (host, mishap) in &self.mishaps {
            let host = host.get(&world.hosts()).clone();
            befall(&mut world, &host, *mishap);
        }
        if !self.dcs {
            world.found.dcs = None;
        }
        world
    }
}

fn story() -> impl Strategy<Value = Story> {
    let layout = prop::sample::select(vec![FIVE, SHARED, ONE]);
    let mishaps = prop::collection::vec((any::<Index>(), mishap()), 0..8);
    let rest = (prop::bool::weighted(0.1), any::<bool>(), any::<bool>());
    (layout, rest, mishaps).prop_map(|(layout, (bare, dcs, tls_off), mishaps)| Story {
        layout,
        bare,
        dcs,
        tls_off,
        mishaps,
    })
}

fn befall(world: &mut World, host: &HostName, mishap: Mishap) {
    let name = host.as_str();
    let first = world.cluster.with_role(Role::Postgres).next().unwrap();
    let leads = first.name == *host;
    // A host without its mark belongs to no cluster; other tests cover that case.
    let paths: Vec<String> = world.files[host]
        .iter()
        .map(|file| file.path.clone())
        .filter(|path| path != MARKER)
        .collect();
    let units: Vec<&str> = world.cluster.nodes[host]
        .roles
        .iter()
        .map(|role| role.unit())
        .collect();
    // Also, a member of etcd would not be let in again, if there are others.
    let etcds = world.cluster.with_role(Role::Etcd).count();
    let votes = etcds > 1 && units.contains(&"etcd");
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
        Mishap::FileOpened(at) => {
            if let Some(file) = facts.files.get_mut(at.get(&paths)) {
                file.mode = 0o666;
            }
        }
        Mishap::PackageGone(at) => {
            let packages: Vec<String> = facts.packages.keys().cloned().collect();
            if !packages.is_empty() {
                facts.packages.remove(at.get(&packages));
            }
        }
        Mishap::UnitStopped(at) => {
            let unit = *at.get(&units);
            if facts.units.contains_key(unit) {
                world.stop(name, unit);
            }
        }
        Mishap::UnitDisabled(at) => {
            if let Some(unit) = facts.units.get_mut(*at.get(&units)) {
                unit.enabled = "disabled".into();
            }
        }
        Mishap::CutOff(at, restart) => {
            let effect = if restart { "restart" } else { "reload" };
            facts
                .pending
                .insert((*at.get(&units)).into(), effect.into());
        }
        Mishap::OtherPatroni => facts.patroni_stamp = Some("another".into()),
        Mishap::RolesGone => facts.db_roles.clear(),
        // A leader that is gone with its data stops a run, and so does a lone database.
        Mishap::Reinstalled if !leads && !votes => world.made_anew(name),
        Mishap::Reinstalled => {}
    }
}

/// Everything that must succeed before a step.
fn before(plan: &Plan, id: StepId) -> BTreeSet<StepId> {
    let mut all = BTreeSet::new();
    let mut next = plan.steps[id].after.clone();
    while let Some(id) = next.pop() {
        if all.insert(id) {
            next.extend(&plan.steps[id].after);
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn steps_only_wait_for_earlier_ones(story in story()) {
        let world = story.world();
        let plan = world.plan();
        for (id, step) in plan.steps.iter().enumerate() {
            prop_assert!(step.after.iter().all(|before| *before < id), "{:#?}", steps(&plan));
            let mut once = step.after.clone();
            once.sort_unstable();
            once.dedup();
            prop_assert_eq!(&once, &step.after);
            prop_assert!(!step.why.is_empty());
        }
    }

    #[test]
    fn the_same_facts_give_the_same_plan(story in story()) {
        prop_assert_eq!(story.world().plan(), story.world().plan());
    }

    #[test]
    fn nothing_is_changed_twice_on_a_host(story in story()) {
        let world = story.world();
        let plan = world.plan();
        let mut seen = BTreeSet::new();
        for step in plan.steps.iter().filter(|step| step.changes_something()) {
            prop_assert!(seen.insert((step.host.clone(), step.name)), "{:#?}", steps(&plan));
        }
    }

    /// No unit starts, reloads or restarts before all that was planned for it on its host is there.
    #[test]
    fn units_wait_for_their_packages_and_files(story in story()) {
        let world = story.world();
        let plan = world.plan();
        for (id, step) in plan.steps.iter().enumerate() {
            let name = step.name.strip_suffix("-alone").unwrap_or(step.name);
            let Some((verb, unit)) = name.split_once('-') else { continue };
            if !matches!(verb, "start" | "reload" | "restart") || step.name == "restart-pending" {
                continue;
            }
            let before = before(&plan, id);
            for (other, needed) in plan.steps.iter().enumerate() {
                let concerns = matches!(needed.name, "prepare" | "install-python" | "install-packages")
                    || needed.name == format!("configure-{unit}")
                    || (unit == "patroni" && needed.name == "install-patroni");
                if needed.host == step.host && concerns {
                    prop_assert!(before.contains(&other), "{} of {:#?}", id, steps(&plan));
                }
            }
        }
    }

    /// No Patroni is touched while an etcd restarts, and no two members at the same time.
    #[test]
    fn patroni_waits_for_etcd(story in story()) {
        let world = story.world();
        let plan = world.plan();
        for (id, step) in plan.steps.iter().enumerate() {
            if !matches!(step.name, "start-patroni" | "restart-patroni" | "hand-over" | "patch-config") {
                continue;
            }
            let before = before(&plan, id);
            for (other, needed) in plan.steps.iter().enumerate() {
                if needed.name == "await-etcd" {
                    prop_assert!(before.contains(&other), "{} of {:#?}", id, steps(&plan));
                }
            }
        }
    }

    #[test]
    fn files_that_were_put_are_right(story in story()) {
        let mut world = story.world();
        let plan = world.plan();
        let mut put = Vec::new();
        for step in &plan.steps {
            for change in &step.changes {
                if let Change::File { path, .. } = change {
                    put.push((step.host.clone(), path.clone()));
                }
            }
        }
        for (host, path) in &put {
            world.put(host, path);
        }
        let again = world.up().map_err(|error| told(&error)).unwrap();
        let files: Vec<&Change> = again
            .steps
            .iter()
            .flat_map(|step| &step.changes)
            .filter(|change| matches!(change, Change::File { .. }))
            .collect();
        prop_assert!(files.is_empty(), "{files:?}");
        // All of them were: what is not named was right before.
        for (host, mine) in &world.files {
            for file in mine.iter().filter(|file| file.kind == Kind::Whole) {
                let there = &world.found.facts[host].files[&file.path];
                prop_assert_eq!(&there.content, &file.content);
                prop_assert_eq!((there.mode, there.owner.as_str()), (file.mode, file.owner));
            }
        }
    }
}
