//! The history of a cluster before a plan is made for it.

use super::*;

/// Something that happened to a host since it was set up.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mishap {
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

/// How far the databases are in their first bootstrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    Formed,
    /// etcd is empty or has only the lock; the seed decides the state of each host.
    Forming {
        lock: Option<&'static str>,
        data: [u8; 3],
    },
}

/// A cluster and its history.
#[derive(Debug, Clone)]
pub(super) struct Story {
    pub(super) layout: &'static str,
    bare: bool,
    stage: TlsStage,
    age: Age,
    leader: bool,
    roles: bool,
    all_stopped: bool,
    dcs_hidden: bool,
    moved: Vec<Index>,
    mishaps: Vec<(Index, Mishap)>,
    /// Which steps two interrupted runs did not do.
    pub(super) cuts: [u64; 2],
}

pub(super) fn mishap() -> impl Strategy<Value = Mishap> {
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

pub(super) fn age() -> impl Strategy<Value = Age> {
    let lock = prop::sample::select(vec![None, Some(""), Some("98")]);
    prop_oneof![
        5 => Just(Age::Formed),
        1 => (lock, any::<[u8; 3]>()).prop_map(|(lock, data)| Age::Forming { lock, data }),
    ]
}

pub(super) fn story() -> impl Strategy<Value = Story> {
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

pub(super) static SETTLED: LazyLock<Vec<(&str, World)>> = LazyLock::new(|| {
    [FIVE, SHARED, ONE]
        .map(|layout| (layout, World::settled(layout)))
        .into()
});

impl Story {
    pub(super) fn model(&self) -> Model {
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

pub(super) fn elsewhere(world: &World, host: &HostName) -> String {
    let address = world.cluster.nodes[host].address.to_string();
    let last: u8 = address.rsplit('.').next().unwrap().parse().unwrap();
    format!("192.0.2.{}", last + 100)
}

pub(super) fn has_quorum(world: &World) -> bool {
    let etcds: Vec<bool> = world
        .cluster
        .with_role(Role::Etcd)
        .map(|node| world.found.facts[&node.name].unit("etcd").is_active())
        .collect();
    etcds.iter().filter(|runs| **runs).count() > etcds.len() / 2
}

pub(super) fn half_made() -> DataFact {
    DataFact {
        owner: "postgres".into(),
        entries: 11,
        version: Some(16),
        ..DataFact::default()
    }
}

pub(super) fn never_started(system: &str) -> DataFact {
    DataFact {
        entries: 23,
        control: true,
        bases: 3,
        system_id: Some(system.into()),
        never_started: true,
        ..half_made()
    }
}

/// A first bootstrap that was interrupted or failed.
pub(super) fn forming(
    world: &mut World,
    keys: &mut PatroniKeys,
    lock: Option<&str>,
    data: [u8; 3],
) {
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

pub(super) fn befall(world: &mut World, host: &HostName, mishap: Mishap) {
    let name = host.as_str();
    let first = world.cluster.with_role(Role::Postgres).next().unwrap();
    let leads = first.name == *host;
    let roles = world.cluster.nodes[host].roles.clone();
    // A host without its mark belongs to no cluster; other tests cover that case.
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
        // `up` does not create an etcd again that lost its data.
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
