//! The description of a service.

use std::time::Duration;

use super::{
    Role,
    file::Entry,
    port::{Number, Port},
};

/// A service, as everything else asks for it: data that needs no other module.
///
/// [`Service::new`] has the defaults for whatever a service does not need; docs/contributing.md walks
/// through a new one.
pub struct Service {
    /// Its name in the inventory's `roles`.
    pub name: &'static str,
    /// As messages call it: `HAProxy`.
    pub title: &'static str,
    pub unit: Unit,
    /// What gives the role to hosts; `None` if the inventory does.
    pub follows: Option<Follows>,
    /// How many hosts have it.
    pub hosts: Hosts,
    /// Its place among services: what others need comes first, and has its files written first.
    pub rank: u8,
    /// Whether a host's names for the others must be there before anything else at boot.
    pub keeps_names: bool,
    /// What is installed for it.
    pub packages: &'static [Package],
    /// Packages that come along with those, whose versions are asked for as well.
    pub packages_along: &'static [&'static str],
    /// A package source that is added for it.
    pub source: Option<Source>,
    /// Its files, in the order in which they are written.
    pub files: &'static [Entry],
    /// Programs for people on the host.
    pub commands: &'static [Entry],
    /// The one of `files` that the unit is configured by. Where it is pgherd's, so is the unit.
    pub config: &'static str,
    /// The one of `files` that no other service of this name has, where `config` may be somebody else's.
    pub mark: Option<&'static str>,
    /// How files are judged before they replace good ones.
    pub checkers: &'static [Checker],
    /// The folders that pgherd makes for `files`; everybody may look into them.
    pub folders: &'static [&'static str],
    /// Where its certificates are; `None` for one that has none.
    pub tls: Option<&'static str>,
    pub data: Data,
    /// Files that the service writes outside of its data, and that go with it.
    pub writes: &'static [&'static str],
    /// Files beside `files` that change how it runs; what its package came with is nobody's.
    pub reads: &'static [&'static str],
    /// A unit that runs with its package's own config serves nobody.
    pub idle_by_default: bool,
    pub ports: &'static [Port],
    /// Whether its hosts connect to other members by their certificate.
    pub connects: bool,
    /// Whether clients come to it by HAProxy's names and addresses.
    pub faces_clients: bool,
    /// Whether its hosts have a vote, or can lead, so that nobody may leave without being let go.
    pub is_member: bool,
    /// Whether it only watches the cluster: a host that leaves is not a member because of it.
    pub watches: bool,
    /// Why it is refused to go on where a host has it and the inventory says otherwise.
    pub taken_off: &'static str,
    /// Whether the program that the unit's process has open is the service itself.
    pub runs_its_program: bool,
    /// The step that waits for the service after its unit was started, if there is one.
    pub wait: Option<Wait>,
    /// Whether `verify` looks which ports its unit listens on; not for one that is asked at all of them anyway.
    pub ports_looked_at: bool,
}

impl Service {
    /// A service of which only this is known.
    pub const fn new(name: &'static str, unit: Unit, config: &'static str) -> Self {
        Self {
            name,
            title: name,
            unit,
            follows: None,
            hosts: Hosts::Any,
            rank: 9,
            keeps_names: false,
            packages: &[],
            packages_along: &[],
            source: None,
            files: &[],
            commands: &[],
            config,
            mark: None,
            checkers: &[],
            folders: &[],
            tls: None,
            data: Data::Nothing,
            writes: &[],
            reads: &[],
            idle_by_default: false,
            ports: &[],
            connects: false,
            faces_clients: false,
            is_member: false,
            watches: false,
            taken_off: "it may still be used, and no run would update it",
            runs_its_program: true,
            wait: None,
            ports_looked_at: true,
        }
    }

    /// A program that shows metrics of its host: it comes and goes with the section `monitoring`.
    pub(super) const fn of_metrics(name: &'static str, unit: Unit, config: &'static str) -> Self {
        Self {
            follows: Some(Follows {
                role: None,
                when: When::Metrics,
                key: "monitoring",
            }),
            watches: true,
            rank: 6,
            taken_off: "no run would update it",
            ..Self::new(name, unit, config)
        }
    }

    /// The file by which a host shows that it has the service, where no data do.
    pub fn mark(&self) -> Option<&'static str> {
        match self.data {
            Data::Database | Data::Store => None,
            Data::Folder { .. } | Data::Kept { .. } | Data::Nothing => {
                Some(self.mark.unwrap_or(self.config))
            }
        }
    }

    /// Whether a service's files belong to this account, which its package makes.
    pub fn has_account(&self, name: &str) -> bool {
        let belongs = |entry: &Entry| entry.owner == name || entry.group == name;
        name != "root" && self.files.iter().any(belongs)
    }

    /// The port at which pgherd itself asks it something.
    pub fn asked(&self) -> Option<&'static Port> {
        self.ports.iter().find(|port| port.asked)
    }
}

/// A unit of systemd, and the names of the steps that concern it.
pub struct Unit {
    /// Without `.service`.
    pub name: &'static str,
    pub configure: &'static str,
    pub start: &'static str,
    pub reload: &'static str,
    pub restart: &'static str,
}

/// The [`Unit`] of a name.
macro_rules! unit {
    ($name:literal) => {
        $crate::services::service::Unit {
            name: $name,
            configure: concat!("configure-", $name),
            start: concat!("start-", $name),
            reload: concat!("reload-", $name),
            restart: concat!("restart-", $name),
        }
    };
}
pub(super) use unit;

/// How many hosts of a cluster have a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hosts {
    /// None as well.
    Any,
    One,
    /// One, or none.
    AtMostOne,
    OneOrMore,
    /// As many as a vote needs, and no more: one, three or five.
    Odd,
}

impl Hosts {
    /// As an inventory's mistakes say it.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Any => "any number of hosts",
            Self::One => "exactly one host",
            Self::AtMostOne => "at most one host",
            Self::OneOrMore => "at least one host",
            Self::Odd => "one, three or five hosts",
        }
    }

    pub fn allow(self, count: usize) -> bool {
        match self {
            Self::Any => true,
            Self::One => count == 1,
            Self::AtMostOne => count < 2,
            Self::OneOrMore => count > 0,
            Self::Odd => matches!(count, 1 | 3 | 5),
        }
    }
}

/// A role that no inventory names: every host with another role has it while a key is set.
pub struct Follows {
    /// The other role; `None` for any.
    pub role: Option<Role>,
    pub when: When,
    /// The key that decides [`when`](Self::when), as messages name it: `haproxy.vip`.
    pub key: &'static str,
}

/// When something belongs to a cluster; `Inventory::wants` and `Cluster::wants` answer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Always,
    /// While hosts have certificates.
    Tls,
    /// If the inventory has a `ca_bundle`.
    CaBundle,
    /// If Patroni comes from PyPI.
    PatroniFromPypi,
    /// If Patroni comes from the distribution.
    PatroniFromDistro,
    /// If PostgreSQL comes from the PostgreSQL project's repository.
    Pgdg,
    /// On instances of EC2 that pgherd launches.
    Ec2,
    /// While an address moves between the front doors (`haproxy.vip`).
    Vip,
    /// While a host has the role `backup`.
    Backups,
    /// If a bucket holds the backups.
    Bucket,
    /// If clients share connections (`pgbouncer`).
    Pooling,
    /// If hosts show their metrics (`monitoring`).
    Metrics,
    /// While a host has the role `monitoring`.
    Monitoring,
}

/// What stands for PostgreSQL's major version at the end of a package's name.
const MAJOR: &str = "{major}";

/// A package that is installed for a service.
pub struct Package {
    /// `{major}` stands for PostgreSQL's major version on the host.
    pub name: &'static str,
    pub when: When,
    /// Whether it is what serves, so that its version is told.
    pub serves: bool,
    /// Whether it stands for all that is installed: where it is there, no source of packages is asked.
    pub stands_for_all: bool,
}

impl Package {
    /// One that only helps.
    pub const fn of(name: &'static str) -> Self {
        Self {
            name,
            when: When::Always,
            serves: false,
            stands_for_all: false,
        }
    }

    /// What serves, and stands for all others of its service.
    pub const fn serving(name: &'static str) -> Self {
        Self {
            serves: true,
            stands_for_all: true,
            ..Self::of(name)
        }
    }

    pub const fn when(self, when: When) -> Self {
        Self { when, ..self }
    }

    /// Whether it is the one of this name, for any major version.
    pub fn is(&self, name: &str) -> bool {
        match self.name.strip_suffix(MAJOR) {
            None => self.name == name,
            Some(before) => name
                .strip_prefix(before)
                .is_some_and(|major| major.parse::<u16>().is_ok()),
        }
    }

    /// Its name on a host with this major version of PostgreSQL; none where that is not known yet.
    pub fn on(&self, major: Option<u16>) -> Option<String> {
        match self.name.strip_suffix(MAJOR) {
            None => Some(self.name.to_owned()),
            Some(before) => major.map(|major| format!("{before}{major}")),
        }
    }

    /// The names under which it may be on a host.
    pub fn names(&self) -> Vec<String> {
        match self.name.strip_suffix(MAJOR) {
            None => vec![self.name.to_owned()],
            Some(before) => (13..=20).map(|major| format!("{before}{major}")).collect(),
        }
    }

    /// The same as a pattern of dpkg's.
    pub fn pattern(&self) -> String {
        self.name.replace(MAJOR, "[1-9][0-9]")
    }
}

/// A package source that is added to a host.
pub struct Source {
    pub when: When,
    /// The files that may name it.
    pub files: &'static [&'static str],
}

/// A command that says whether a file is good; `$CANDIDATE` stands for where it lies by then.
pub struct Checker {
    pub path: &'static str,
    pub command: &'static str,
    pub when: When,
}

/// The data that a service keeps on its host.
pub enum Data {
    Nothing,
    /// PostgreSQL's, in the inventory's `data_dir`.
    Database,
    /// etcd's, in a folder of the cluster's own.
    Store,
    /// In a folder that pgherd makes where there is none. `down` removes it if pgherd made it.
    Folder {
        path: &'static str,
        owner: &'static str,
        mode: u32,
    },
    /// The same for what outlives the cluster: it is removed only if somebody says so by name.
    Kept {
        path: &'static str,
        owner: &'static str,
        mode: u32,
    },
}

impl Data {
    /// The folder that pgherd makes for it, where that is the same in every cluster.
    pub fn folder(&self) -> Option<&'static str> {
        match self {
            Self::Folder { path, .. } | Self::Kept { path, .. } => Some(path),
            Self::Nothing | Self::Database | Self::Store => None,
        }
    }
}

/// A step that waits until a service is ready, by its own health ([`super::health`]).
pub struct Wait {
    /// The step's name.
    pub step: &'static str,
    pub why: &'static str,
    pub limit: Duration,
}

/// The service that pgherd asks at `port`. A port that the inventory chooses is HAProxy's.
pub fn asked_at(port: u16) -> Role {
    let fixed = Number::Fixed(port);
    let asks = |role: &Role| role.service().asked().is_some_and(|it| it.number == fixed);
    Role::ALL.into_iter().find(asks).unwrap_or(Role::Haproxy)
}

/// The service's role, by the name of its unit.
pub fn of_unit(unit: &str) -> Option<Role> {
    Role::ALL.into_iter().find(|role| role.unit() == unit)
}
