//! The facts of a host, read in one round trip.
//!
//! [`probe`] makes the script, [`parse`] reads its answer. This module does nothing else.

// If somebody adds a kind of provider or of source, the compiler asks for the missing arms.
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    cluster::{
        INTERIM_REPLICATION_USER, INTERIM_REWIND_USER, MONITOR_USER, POOLER_USER, REPLICATION_USER,
        REWIND_USER, SUPERUSER,
    },
    holder::Tenant,
    inventory::{HostName, Inventory, Role},
    remote::{Script, quote},
    secret::{Content, Secret, never_shown},
    services::{self, Package, Service, When, etcd::LEAVES, pgbouncer::lookup},
    sql::{SESSION, connect, conninfo, literals},
};

mod answer;
mod belongings;
mod diagnosis;
mod disks;
mod distribution;
mod etcd_log;
mod knock;
mod metadata;
mod needs;
mod software;
mod upkeep;

pub use crate::contract::etcd_dir;
pub(crate) use answer::leased;
pub use answer::parse;
pub use belongings::{Belongings, Holding, MANIFEST_VERSION, Manifest, OwnCluster, Removal, Thing};
pub use diagnosis::{diagnosis, journal};
pub use disks::{DataMount, Disk, Disks};
pub use distribution::Os;
pub use etcd_log::EtcdIdentity;
pub(crate) use knock::{answering, knock};
pub use metadata::{FORGET_EXCEPTIONS, MetadataException, MetadataGuard, UNIT as METADATA_GUARD};
pub use needs::{Folder, Memory, Needs, Source, Space};
pub(crate) use needs::{dialled_ports, own_folders};
pub use upkeep::{Depth, INIT, POSTGRESQL, Process, Update, Upkeep, parse_upkeep, upkeep};
pub(crate) use upkeep::{REPLACED, boot};

/// The file in which a member notes whose sessions must still be ended: one name a line, in base64.
pub const OLD_SESSIONS: &str = "/run/pgherd/old-sessions";

const PROBE: &str = include_str!("probe.sh");
const LEASE: &str = include_str!("lease.sh");
/// A shell function: `never_started DIR`.
pub(crate) const NEVER_STARTED: &str = include_str!("never_started.sh");

never_shown!(FileFact, DbRole, Facts);

/// A file as it is on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFact {
    pub owner: String,
    pub group: String,
    pub mode: u32,
    /// Text that is not UTF-8 contains the replacement character, which no rendered file has.
    pub content: Content,
}

/// A systemd unit as it is on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnitFact {
    pub loaded: bool,
    /// `active`, `activating`, `failed`, `inactive`, …
    pub active: String,
    pub sub: String,
    /// `enabled`, `disabled`, `masked`, …
    pub enabled: String,
    pub restarts: u32,
    pub main_pid: u32,
}

impl UnitFact {
    pub fn is_active(&self) -> bool {
        matches!(self.active.as_str(), "active" | "reloading")
    }
    pub fn is_enabled(&self) -> bool {
        self.enabled == "enabled"
    }
}

/// PostgreSQL's data directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataFact {
    pub owner: String,
    pub entries: usize,
    /// The content of `PG_VERSION`.
    pub version: Option<u16>,
    /// From `pg_control`; also `None` if no installed package can read it.
    pub system_id: Option<String>,
    /// Whether there is a `pg_control`. `initdb` writes it early, and a copy of a leader last.
    pub control: bool,
    /// The number of databases; `initdb` makes three.
    pub bases: usize,
    /// A server has run on it. A server leaves `postmaster.opts`, which no copy contains.
    pub has_run: bool,
    /// `initdb` made it, and no server ever came up on it, so nothing was ever committed.
    pub never_started: bool,
    /// The time of its last checkpoint, as PostgreSQL prints it.
    pub checkpoint: Option<String>,
    /// Its highest timeline.
    pub timeline: Option<u32>,
    /// Whether its last server accepted writes, according to `pg_control`: then it has everything that it
    /// acknowledged.
    pub led: bool,
    /// The end of its known WAL, in bytes.
    pub position: Option<u64>,
}

impl DataFact {
    /// Whether `initdb` or a copy of a leader began here and never finished, so that nothing was ever
    /// committed.
    pub fn is_half_made(&self) -> bool {
        self.entries > 0 && (!self.control || self.bases < 3)
    }

    /// Whether it is an unfinished `initdb`, and not a database from which somebody, or a full disk, removed
    /// something.
    pub fn is_unfinished_bootstrap(&self) -> bool {
        self.is_half_made() && self.bases < 3 && !self.has_run
    }
}

/// The process that listens on one of the cluster's ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub port: u16,
    pub pid: Option<u32>,
    pub process: String,
    /// The systemd unit that the process runs in.
    pub unit: String,
}

impl Listener {
    /// The process in words, with its unit.
    pub fn who(&self) -> String {
        match (self.pid, self.unit.as_str()) {
            (Some(pid), "") => format!("{} (pid {pid})", self.process),
            (Some(pid), unit) => format!("{} (pid {pid}, {unit})", self.process),
            (None, _) => "a process that cannot be seen".to_owned(),
        }
    }
}

/// A requested role in the running database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DbRole {
    pub superuser: bool,
    pub replication: bool,
    pub login: bool,
    /// The stored form of its password. An attacker could use it to guess the password.
    pub verifier: Option<Secret>,
    /// The roles that it is a member of.
    pub member_of: BTreeSet<String>,
    /// Its password has expired.
    pub expired: bool,
    /// Its maximum number of connections, if there is one.
    pub connection_limit: Option<u32>,
    /// The parameters that are set for it in all databases.
    pub settings: BTreeSet<String>,
    /// It may not execute everything that `pg_rewind` needs; asked only for the role that runs it.
    pub lacks_functions: bool,
}

/// Everything that planning needs to know about a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    pub os: Os,
    /// The number of processor cores; 0 if unknown.
    pub cores: usize,
    /// Milliseconds since 1970 by the host's clock, read at the start of the probe.
    pub clock: Option<i64>,
    pub systemd: bool,
    /// A mark of the running system that no other host has.
    pub system: Option<String>,
    /// The versions of the installed packages among those that were asked for.
    pub packages: BTreeMap<String, String>,
    pub files: BTreeMap<String, FileFact>,
    pub units: BTreeMap<String, UnitFact>,
    /// Units that have not loaded their new config yet, with what they need: `reload` or `restart`.
    pub pending: BTreeMap<String, String>,
    /// The digest of the requirements that `/opt/patroni` was made from.
    pub patroni_stamp: Option<String>,
    pub data: Option<DataFact>,
    /// The id of the cluster for which pgherd made the data directory.
    pub data_marker: Option<String>,
    /// The paths of tablespaces, or the WAL, outside the data directory.
    pub data_outside: BTreeSet<String>,
    /// The data directory in Patroni's present config, whatever the inventory says.
    pub patroni_data_dir: Option<String>,
    /// A folder, other than the inventory's, in which Patroni has a database, and the id of its cluster; found
    /// by [`marked_data`].
    pub data_elsewhere: Option<(String, String)>,
    /// `initdb` or `pg_basebackup` is running now.
    pub data_at_work: bool,
    /// etcd has data of this cluster here.
    pub etcd_data: bool,
    /// The store and member that the data belongs to, according to etcd's log.
    pub etcd_identity: Option<EtcdIdentity>,
    pub listeners: Vec<Listener>,
    /// The roles in the running database; empty if none runs.
    pub db_roles: BTreeMap<String, DbRole>,
    /// The inventory's databases that exist, with their owners.
    pub databases: BTreeMap<String, String>,
    /// The databases whose schema `public` everybody can create something in, among the inventory's and those
    /// that every cluster has.
    pub open_public: BTreeSet<String>,
    /// Those of the same databases in which PgBouncer does not find users; asked only if there is a pooler.
    pub no_lookup: BTreeSet<String>,
    /// Roles whose password was changed here, and whose older sessions must still be ended.
    pub old_sessions: BTreeSet<String>,
    /// The host's watchdog, if it has one: whether Patroni has armed it, as a leader does.
    pub watchdog_armed: Option<bool>,
    /// Which users may talk to the metadata service; asked only on EC2.
    pub metadata_guard: MetadataGuard,
    pub metadata_exception: MetadataException,
    /// Where the data volume is.
    pub disks: Disks,
    /// The running database has no usable `postgres`: `no-login` or `gone`.
    pub superuser_lost: Option<String>,
    /// Whether the running database is a replica; `None` if none runs.
    pub in_recovery: Option<bool>,
    /// What the host has of everything that pgherd needs.
    pub needs: Needs,
    /// What on the host is pgherd's, and what is not.
    pub belongings: Belongings,
    /// The holder of the host's lease, if there is one.
    pub tenant: Option<Tenant>,
    /// What `down` must do with the packages that pgherd installed; asked only by `down`.
    pub removal: Removal,
}

impl Facts {
    /// The expected facts of a host that does not exist yet.
    pub fn bare(os: Os) -> Self {
        Self {
            os,
            cores: 2,
            systemd: true,
            disks: Disks {
                expected_blank: true,
                ..Disks::default()
            },
            ..Self::default()
        }
    }

    pub fn unit(&self, name: &str) -> UnitFact {
        self.units.get(name).cloned().unwrap_or_default()
    }
}

/// Whether everybody can create something in a database's schema `public`.
const OPEN_SCHEMA: &str = "\
    select 'open-public', current_database() from pg_namespace n, aclexplode(n.nspacl) a \
    where n.nspname = 'public' and a.grantee = 0 and a.grantor = n.nspowner and a.privilege_type = 'CREATE'";

/// The databases that are looked into: those that every cluster has, and the inventory's.
pub fn open_to_all(inventory: &Inventory) -> impl Iterator<Item = &str> {
    let ours = inventory.postgresql.databases.keys().map(String::as_str);
    // The template of new databases comes first.
    ["template1", "postgres"].into_iter().chain(ours)
}

/// What is asked in each of them.
fn in_each_database(inventory: &Inventory) -> String {
    match inventory.wants(When::Pooling) {
        true => format!("{OPEN_SCHEMA} union all {}", lookup::missing()),
        false => OPEN_SCHEMA.to_owned(),
    }
}

/// The query in each of them, in one session that connects to them in turn.
fn one_by_one(inventory: &Inventory, query: &str) -> String {
    let databases = open_to_all(inventory);
    let queries: Vec<String> = databases
        .map(|name| format!("{}\n{query};", connect(name)))
        .collect();
    queries.join("\n")
}

/// The script that reads a host's facts.
///
/// It reads the contents of the files at `paths`. For files that are wholly pgherd's (`own`), it also asks what
/// is there instead.
pub fn probe(inventory: &Inventory, host: &HostName, paths: &[&str], own: &[&str]) -> Script {
    let roles = inventory
        .hosts
        .get(host)
        .map_or(&[][..], |host| &host.roles);
    let keeps_database = roles.iter().any(|role| role.keeps_database());
    let keeps_store = roles.iter().any(|role| role.keeps_store());
    // Units, data and marks are asked for regardless of the host's roles: a role that was taken off is still
    // there.
    let on_ec2 = inventory.wants(When::Ec2);
    let units: Vec<String> = services::all()
        .map(|service| service.unit.name)
        .chain(on_ec2.then_some(METADATA_GUARD))
        .map(|unit| format!("{unit}.service"))
        .collect();
    let data_dir = &inventory.postgresql.data_dir;
    let etcd = etcd_dir(&inventory.cluster);
    let mut folders = own_folders(paths);
    folders.extend(services::all().filter_map(|service| service.data.folder()));
    let archiving = inventory.backup.archiving();
    folders.push(&archiving);
    let mut paths = paths.to_vec();
    for mark in services::all().filter_map(Service::mark) {
        if !paths.contains(&mark) {
            paths.push(mark);
        }
    }
    paths.push(LEAVES);
    // Which address it keeps, also where no inventory says it any more.
    let follow = services::all().filter(|service| service.follows.is_some());
    paths.extend(follow.map(|service| service.config));
    paths.sort_unstable();
    paths.dedup();
    let mut takes = own.to_vec();
    let mut packages = vec!["ca-certificates".to_owned()];
    let mut ports = Vec::new();
    // The packages that stand for everything that a role installs.
    let mut wanted = Vec::new();
    let mut venv = false;
    for role in roles {
        let service = role.service();
        packages.extend(service.packages.iter().flat_map(Package::names));
        packages.extend(service.packages_along.iter().map(ToString::to_string));
        let signs = service.packages.iter();
        let signs = signs.filter(|it| it.stands_for_all && inventory.wants(it.when));
        wanted.extend(signs.map(Package::pattern));
        takes.extend(service.writes.iter().chain(service.reads));
        let listening = service.ports.iter();
        ports.extend(listening.map(|port| inventory.port(port.number).to_string()));
        venv |= *role == Role::Postgres && inventory.wants(When::PatroniFromPypi);
    }
    let users = inventory.postgresql.users.keys().map(String::as_str);
    let ours = [
        SUPERUSER,
        REPLICATION_USER,
        REWIND_USER,
        INTERIM_REPLICATION_USER,
        INTERIM_REWIND_USER,
        POOLER_USER,
        MONITOR_USER,
    ];
    // On other hosts, a running database is not the cluster's.
    let db_roles = if keeps_database {
        literals(ours.into_iter().chain(users))
    } else {
        String::new()
    };
    let databases = literals(inventory.postgresql.databases.keys().map(String::as_str));
    // Names of databases are each one word for the shell, whatever they contain.
    let connections: Vec<String> = open_to_all(inventory)
        .map(|name| quote(&conninfo(name)))
        .collect();
    let query = in_each_database(inventory);
    let yes = |it| if it { "yes" } else { "" };
    let script = Script::probe("")
        .line(format!("PACKAGES={}", quote(&packages.join(" "))))
        .line(format!("UNITS={}", quote(&units.join(" "))))
        .line(format!("PORTS={}", quote(&ports.join(" "))))
        .line(format!("FILES={}", quote(&paths.join(" "))))
        .line(format!("DATA_DIR={}", quote(data_dir)))
        .line(format!("ETCD_DIR={}", quote(&etcd)))
        .line(format!("NEEDS_DATA={}", yes(keeps_database)))
        .line(format!("NEEDS_ETCD={}", yes(keeps_store)))
        .line(format!("PG_PORT={}", inventory.postgresql.port))
        .line(format!("DB_ROLES={}", quote(&db_roles)))
        .line(format!("DATABASES={}", quote(&databases)))
        .line(NEVER_STARTED)
        .line(format!("CONNECTIONS={}", quote(&connections.join(" "))))
        .line(format!("SCHEMA={}", quote(&query)))
        .line(format!("SCHEMAS={}", quote(&one_by_one(inventory, &query))))
        .line(format!("OLD_SESSIONS={OLD_SESSIONS}"))
        .line(format!("PG_SESSION={}", quote(SESSION)))
        .line(format!("FOLDERS={}", quote(&folders.join(" "))))
        .line(format!("VENV={}", yes(venv)))
        .line(format!("PATHS={}", quote(&takes.join(" "))))
        .line(belongings::PROBE)
        .line(PROBE)
        .line(LEASE)
        .line(format!("WANTED={}", quote(&wanted.join(" "))))
        .line(needs::SCRIPT);
    let script = match (on_ec2, keeps_database) {
        (true, true) => disks::ask(metadata::ask(script), inventory),
        (true, false) => metadata::ask(script),
        (false, _) => script,
    };
    script.line("fact end")
}

/// The script that says for which cluster pgherd made the database in `dir`, if it did.
pub(crate) fn marked_data(dir: &str) -> Script {
    Script::probe("").line(format!(
        "d={}; [ ! -e \"$d/PG_VERSION\" ] || cat \"$d.pgherd\" 2>/dev/null",
        quote(dir)
    ))
}

/// The script that asks for the holder of the host's lease, and nothing else.
pub(crate) fn lease() -> Script {
    Script::probe("").line(LEASE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_is_a_valid_shell_script() {
        let status = std::process::Command::new("/bin/sh")
            .args(["-n", "-c", &format!("{PROBE}{}", needs::SCRIPT)])
            .status()
            .expect("sh runs");
        assert!(status.success());
    }
}
