//! The inventory: YAML in, validated desired state out.
//!
//! The only module that knows YAML. An inventory that leaves it has been checked as far as possible without
//! contacting a host.

// If somebody adds a kind of provider or of source, the compiler asks for the missing arms.
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use crate::{
    error::Result,
    services::{Number, Setting, When},
    shell::quote,
};
pub use crate::{host::HostName, services::Role};
use indexmap::IndexMap;
use ipnet::Ipv4Net;

mod backup;
mod bounds;
mod check;
mod choice;
mod json;
mod keys;
mod limits;
#[cfg(test)]
mod manual;
mod monitoring;
mod placed;
mod problem;
mod provider;
mod schema;
mod source;
mod ssh;
mod syntax;
mod types;

pub use backup::{Backup, Place, S3};
pub(crate) use check::{memory_in_kib, parameters::in_terms_of};
pub use json::json_schema;
pub use monitoring::{Email, Monitoring};
pub use provider::{
    Aws, AwsHost, Connect, CpuCredits, DataVolume, Docker, LoadBalancer, Provider, ProviderKind,
    Scheme,
};
pub use ssh::{Jump, Ssh};

/// The path of the inventory if the user names none.
pub const DEFAULT_PATH: &str = "pgherd.yaml";

/// The command line for `verb` on the inventory at this path, with these templates.
pub fn command(inventory: &Path, templates: Option<&Path>, verb: &str) -> String {
    typed(options(inventory, templates), verb)
}

/// The options that a command on the same cluster needs; `None` if the defaults suffice.
pub fn options(inventory: &Path, templates: Option<&Path>) -> Option<String> {
    let inventory = (inventory != Path::new(DEFAULT_PATH)).then_some(("-i", inventory));
    let templates = templates.map(|folder| ("--templates", folder));
    let options: Vec<String> = inventory
        .into_iter()
        .chain(templates)
        .map(|(option, path)| format!("{option} {}", quote(&path.display().to_string())))
        .collect();
    (!options.is_empty()).then(|| options.join(" "))
}

fn typed(options: Option<String>, verb: &str) -> String {
    match options {
        Some(options) => format!("pgherd {options} {verb}"),
        None => format!("pgherd {verb}"),
    }
}

/// A validated inventory.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// The file that it was read from. Relative paths in it are relative to this file's folder.
    pub path: PathBuf,
    /// Patroni's scope, and the prefix of every resource.
    pub cluster: String,
    pub provider: Provider,
    pub ssh: Ssh,
    pub postgresql: Postgresql,
    pub patroni: Patroni,
    pub haproxy: Haproxy,
    /// `None` if no pooler is in front of HAProxy.
    pub pgbouncer: Option<Pgbouncer>,
    pub backup: Backup,
    /// `None` if hosts show no metrics.
    pub monitoring: Option<Monitoring>,
    pub tls: Tls,
    pub secrets: SecretsSource,
    /// `None` if the secrets are on this machine alone.
    pub state: Option<State>,
    /// A file of PEM certificates that the hosts are to trust, for hosts behind an inspecting proxy.
    pub ca_bundle: Option<PathBuf>,
    /// In the inventory's order.
    pub hosts: IndexMap<HostName, Host>,
    /// The user's folder of templates, as given on the command line. Commands in hints repeat it.
    pub templates: Option<PathBuf>,
}

impl Inventory {
    /// Reads and checks the inventory at `path`.
    ///
    /// Every error is of kind `Input` and shows file, line and column. If a file has several mistakes,
    /// `Error::failures` has all that can be distinguished.
    ///
    /// The path `-` is standard input; then relative paths are relative to the current folder.
    pub fn load(path: &Path) -> Result<Self> {
        Self::parse(path, &source::read(path)?)
    }

    /// The text that it was read from, with its comments.
    pub fn text(&self) -> Result<String> {
        source::read(&self.path)
    }

    /// Where it was read from, for people on other machines.
    pub fn origin(&self) -> String {
        let path = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        match (source::is_stdin(&self.path), path.parent()) {
            (true, Some(folder)) => format!("<stdin> in {}", folder.display()),
            _ => path.to_string_lossy().into_owned(),
        }
    }

    /// Checks an inventory's text. Relative paths in it are relative to the folder of `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        // A byte-order mark is no mistake, but it would shift the columns of the first line.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let source = source::Source::new(path, text);
        let document = syntax::document(&source).map_err(|problem| source.error(vec![problem]))?;
        check::inventory(&source, &document).map_err(|problems| source.error(problems))
    }

    /// The command line for `verb` on the same cluster.
    pub fn command(&self, verb: &str) -> String {
        typed(self.options(), verb)
    }

    /// The options that a command on the same cluster needs.
    pub fn options(&self) -> Option<String> {
        options(&self.path, self.templates.as_deref())
    }

    /// The roles that its hosts may have: all roles but those that follow from a key which is not set.
    pub fn roles(&self) -> impl Iterator<Item = Role> {
        let follows = |role: &Role| role.service().follows.as_ref();
        let has = move |role: &Role| follows(role).is_none_or(|it| self.wants(it.when));
        Role::ALL.into_iter().filter(has)
    }

    /// The hosts with a role, in the inventory's order.
    pub fn with_role(&self, role: Role) -> impl Iterator<Item = &HostName> {
        self.hosts
            .iter()
            .filter(move |(_, host)| host.roles.contains(&role))
            .map(|(name, _)| name)
    }

    /// The port that a service listens on.
    pub fn port(&self, number: Number) -> u16 {
        match number {
            Number::Fixed(port) => port,
            Number::Set(Setting::Postgresql) => self.postgresql.port,
            Number::Set(Setting::HaproxyWrite) => self.haproxy.write_port,
            Number::Set(Setting::HaproxyRead) => self.haproxy.read_port,
            Number::Set(Setting::HaproxyStats) => self.haproxy.stats_port,
            Number::Set(Setting::Pgbouncer) => self
                .pgbouncer
                .as_ref()
                .map_or(limits::PGBOUNCER_PORT.default, |it| it.port),
        }
    }

    /// Whether something belongs to the cluster. For certificates: whether the finished cluster has it.
    pub fn wants(&self, when: When) -> bool {
        match when {
            When::Always => true,
            When::Tls => self.tls.enabled,
            When::CaBundle => self.ca_bundle.is_some(),
            When::PatroniFromPypi => self.patroni.source == PatroniSource::Pypi,
            When::PatroniFromDistro => self.patroni.source == PatroniSource::Distro,
            When::Pgdg => self.postgresql.source == PgSource::Pgdg,
            When::Ec2 => match self.provider {
                Provider::Aws(_) => true,
                Provider::Docker(_) | Provider::Existing => false,
            },
            When::Vip => self.haproxy.vip.is_some(),
            When::Backups => self.with_role(Role::Backup).next().is_some(),
            When::Bucket => self.wants(When::Backups) && self.backup.s3.is_some(),
            When::Pooling => self.pgbouncer.is_some(),
            When::Metrics => self.monitoring.is_some(),
            When::Monitoring => self.with_role(Role::Monitoring).next().is_some(),
        }
    }

    /// The instance profile of EC2 that opens the bucket with the backups, in place of an access key.
    pub fn bucket_profile(&self) -> Option<&str> {
        let bucket = self.backup.s3.as_ref();
        let bucket = bucket.filter(|_| self.wants(When::Bucket) && self.wants(When::Ec2))?;
        bucket.profile.as_deref()
    }

    /// The same, for the only host that gets it.
    pub fn profile_of(&self, host: &HostName) -> Option<&str> {
        let roles = &self.hosts.get(host)?.roles;
        self.bucket_profile()
            .filter(|_| roles.contains(&Role::Backup))
    }

    /// The databases that PgBouncer offers for reading too, as `NAME_read`.
    ///
    /// Its configuration has names of letters, digits, `_`, `-` and `.` alone, and of up to 63 bytes.
    pub(crate) fn pooled_for_reading(&self) -> impl Iterator<Item = &str> {
        const LONGEST: usize = 63 - "_read".len();
        let plain = |name: &&str| {
            name.len() <= LONGEST
                && name
                    .bytes()
                    .all(|it| it.is_ascii_alphanumeric() || b"_-.".contains(&it))
        };
        let ours = self.postgresql.databases.keys().map(String::as_str);
        std::iter::once("postgres").chain(ours).filter(plain)
    }

    /// The disk of its own that a host's data is to have.
    pub fn data_volume(&self, host: &HostName) -> Option<&DataVolume> {
        match &self.provider {
            Provider::Aws(settings) => settings.hosts.get(host)?.data_volume.as_ref(),
            Provider::Docker(_) | Provider::Existing => None,
        }
    }

    /// Where a data volume is mounted: the folder with the data directory. Patroni renames that directory, so
    /// it cannot be the mount point itself.
    pub fn mount_point(&self) -> &str {
        match self.postgresql.data_dir.rsplit_once('/') {
            None | Some(("", _)) => "/",
            Some((above, _)) => above,
        }
    }

    /// The folder beside the inventory in which pgherd keeps its own files.
    pub fn workspace_dir(&self) -> PathBuf {
        self.path
            .parent()
            .unwrap_or(Path::new("."))
            .join(".pgherd")
            .join(&self.cluster)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Sorted, no duplicates, never empty.
    pub roles: Vec<Role>,
    /// Required for `existing`; a fixed address otherwise.
    pub address: Option<Ipv4Addr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PgVersion {
    /// The version of the host's distribution.
    Distro,
    Major(u16),
}

impl PgVersion {
    /// The major versions that pgherd supports.
    ///
    /// 13 is left out: its community support ended in November 2025, and by default it hashes passwords with
    /// MD5, while pgherd needs SCRAM.
    pub const MAJORS: RangeInclusive<u16> = 14..=18;
}

/// Where PostgreSQL's packages come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PgSource {
    /// The host's own package sources.
    Distro,
    /// The PostgreSQL project's repository.
    Pgdg,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postgresql {
    pub version: PgVersion,
    pub source: PgSource,
    pub port: u16,
    pub data_dir: String,
    /// The networks from which clients may connect, in addition to the cluster's own hosts.
    pub allow: Vec<Ipv4Net>,
    /// Where the parameters come from that the inventory does not set.
    pub tuning: Tuning,
    /// PostgreSQL's parameters, as they appear in `postgresql.conf`, without quotes.
    pub parameters: BTreeMap<String, String>,
    /// The roles that applications log in with, in the inventory's order.
    pub users: IndexMap<String, User>,
    /// The databases by name, in the inventory's order.
    pub databases: IndexMap<String, Database>,
}

/// Where parameters come from that the inventory does not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tuning {
    /// The size of each host.
    Auto,
    /// PostgreSQL's own defaults.
    Defaults,
}

/// A role that an application logs in with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// The roles that it is a member of.
    pub roles: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// One of the inventory's users.
    pub owner: String,
}

impl Postgresql {
    /// The parameters that Patroni takes only from the DCS; in its file it ignores them.
    ///
    /// From its `ConfigHandler.CMDLINE_OPTIONS`, without those that Patroni sets itself.
    pub const DCS_PARAMETERS: [&str; 10] = [
        "max_connections",
        "max_locks_per_transaction",
        "max_prepared_transactions",
        "max_replication_slots",
        "max_wal_senders",
        "max_worker_processes",
        "track_commit_timestamp",
        "wal_keep_size",
        "wal_level",
        "wal_log_hints",
    ];

    /// What belongs in the DCS: at first through `bootstrap.dcs`, later through `PATCH /config`.
    pub fn dcs_parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parameters_where(|name| Self::DCS_PARAMETERS.contains(&name))
    }

    /// What belongs in each host's own Patroni file.
    pub fn local_parameters(&self) -> impl Iterator<Item = (&str, &str)> {
        self.parameters_where(|name| !Self::DCS_PARAMETERS.contains(&name))
    }

    fn parameters_where(&self, keep: impl Fn(&str) -> bool) -> impl Iterator<Item = (&str, &str)> {
        self.parameters
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(move |(name, _)| keep(name))
    }
}

/// Where Patroni comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatroniSource {
    /// PyPI, pinned with hashes, in a venv.
    Pypi,
    /// The host's distribution.
    Distro,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patroni {
    pub source: PatroniSource,
    /// Seconds.
    pub ttl: u32,
    /// Seconds.
    pub loop_wait: u32,
    /// Seconds.
    pub retry_timeout: u32,
    /// Bytes.
    pub maximum_lag_on_failover: u64,
    pub synchronous: bool,
    pub failsafe: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Haproxy {
    pub write_port: u16,
    pub read_port: u16,
    pub stats_port: u16,
    /// The maximum number of connections from one client address on each of the two ports; `None` for four
    /// fifths of PostgreSQL's maximum.
    pub connections_per_source: Option<u32>,
    /// The address that one of the front doors has at any time.
    pub vip: Option<Ipv4Addr>,
}

/// The default, if the inventory does not set it.
impl Default for Haproxy {
    fn default() -> Self {
        Self {
            write_port: limits::WRITE_PORT.default,
            read_port: limits::READ_PORT.default,
            stats_port: limits::STATS_PORT.default,
            connections_per_source: None,
            vip: None,
        }
    }
}

/// The pooler that clients can use instead of HAProxy's ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pgbouncer {
    pub port: u16,
    pub pool_mode: PoolMode,
    /// The maximum number of clients of one pooler.
    pub max_client_conn: u32,
    /// The maximum number of connections of one pooler to one database; `None` for a part of PostgreSQL's
    /// maximum.
    pub max_db_connections: Option<u32>,
}

/// For how long a client has a connection to PostgreSQL for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    Transaction,
    Session,
}

/// The source of passwords that pgherd does not make.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretsSource {
    /// The absolute path of a file with the same format as `secrets.yaml`.
    pub file: Option<PathBuf>,
}

/// Where the workspace's secrets are shared, and with whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Absolute, or relative to the current folder.
    pub directory: PathBuf,
    /// Public keys, each of which can be encrypted to.
    pub recipients: Vec<String>,
    /// The file with the user's private key; `None` if it is at one of the usual places.
    pub identity: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    pub enabled: bool,
}
