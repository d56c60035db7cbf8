//! What would stop an upgrade, and how the new database is made. Facts in, findings out.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    cluster::Cluster,
    contract::{new_version_dir, old_version_dir},
    error::{Code, Error},
    inventory::HostName,
    quantity::{bytes, count},
    remote::{Script, quote},
};

mod databases;

pub(crate) use databases::{Databases, look_at_databases};

const LOOK: &str = include_str!("look.sh");

/// KiB that must stay free.
const SPARE: u64 = 1024 * 1024;

/// Parameters by the first version that has them no more.
const GONE: &[(u16, &[&str])] = &[
    (
        14,
        &[
            "operator_precedence_warning",
            "vacuum_cleanup_index_scale_factor",
        ],
    ),
    (15, &["stats_temp_directory"]),
    (
        16,
        &[
            "force_parallel_mode",
            "promote_trigger_file",
            "vacuum_defer_cleanup_age",
        ],
    ),
    (
        17,
        &[
            "db_user_namespace",
            "old_snapshot_threshold",
            "trace_recovery_messages",
        ],
    ),
];

/// What a database's host says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Member {
    /// The version of the new version's package that apt would install.
    pub candidate: Option<String>,
    /// The one that is installed.
    pub installed: Option<String>,
    /// PostgreSQL's major version of the data.
    pub version: Option<u16>,
    /// KiB that are free beside the data, and KiB of the data.
    pub free: u64,
    pub here: u64,
    /// The folder that an earlier upgrade has left.
    pub kept: Option<String>,
    /// The data can be moved aside.
    pub movable: bool,
    /// The extensions that the new version has files of.
    pub has: BTreeSet<String>,
    /// The new version's packages with the old version's extensions, by extension.
    pub packages: BTreeMap<String, String>,
    /// Those of them that apt can install.
    pub offered: BTreeSet<String>,
    /// The names of the new version's parameters; empty if it is not installed.
    pub parameters: BTreeSet<String>,
}

impl Member {
    pub(crate) fn parse(text: &str) -> Self {
        let mut member = Self::default();
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let value = value.trim();
            if value.is_empty() {
                continue;
            }
            match key {
                "candidate" => member.candidate = Some(value.into()),
                "installed" => member.installed = Some(value.into()),
                "version" => member.version = value.parse().ok(),
                "free" => member.free = value.parse().unwrap_or_default(),
                "here" => member.here = value.parse().unwrap_or_default(),
                "kept" => member.kept = Some(value.into()),
                "movable" => member.movable = true,
                "has" => _ = member.has.insert(value.into()),
                "offered" => _ = member.offered.insert(value.into()),
                "parameter" => _ = member.parameters.insert(value.into()),
                "extension" => {
                    if let Some((extension, package)) = value.split_once(' ') {
                        member.packages.insert(extension.into(), package.into());
                    }
                }
                _ => {}
            }
        }
        member
    }
}

/// A script that a member is asked by.
pub(crate) fn look_at_member(cluster: &Cluster, from: u16, to: u16) -> Script {
    let data = &cluster.inventory.postgresql.data_dir;
    Script::probe(format!(
        "FROM={from} TO={to} DATA={} OLD={} NEW={}\n{LOOK}",
        quote(data.trim_end_matches('/')),
        quote(&old_version_dir(data)),
        quote(&new_version_dir(data)),
    ))
}

/// Everything that was seen before an upgrade.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub from: u16,
    pub to: u16,
    /// The member whose data is upgraded.
    pub host: HostName,
    pub members: BTreeMap<HostName, Member>,
    pub databases: Databases,
    /// The parameters of the inventory and of the DCS.
    pub configured: BTreeSet<String>,
}

/// How an upgrade is done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    /// The options of `initdb`, as the old database was made.
    pub initdb: Vec<String>,
    /// Options of the new server, while `pg_upgrade` starts it. What a standby must not have less of is recorded
    /// in the new database.
    pub server_options: String,
    /// The packages that each member lacks.
    pub packages: BTreeMap<HostName, Vec<String>>,
}

fn refused(what: String) -> Error {
    Error::new(Code::NotPossibleNow, what)
}

impl Ground {
    /// How the upgrade is done.
    pub(crate) fn terms(&self) -> Terms {
        let it = &self.databases;
        let mut initdb = vec![
            "--username=postgres".to_owned(),
            "--auth-local=peer".to_owned(),
            "--auth-host=scram-sha-256".to_owned(),
            format!("--encoding={}", it.encoding),
            format!("--lc-collate={}", it.collate),
            format!("--lc-ctype={}", it.ctype),
        ];
        match it.provider.as_str() {
            "i" => initdb.extend([
                "--locale-provider=icu".to_owned(),
                format!("--icu-locale={}", it.locale),
            ]),
            "b" => initdb.extend([
                "--locale-provider=builtin".to_owned(),
                format!("--builtin-locale={}", it.locale),
            ]),
            _ if self.to >= 15 => initdb.push("--locale-provider=libc".to_owned()),
            _ => {}
        }
        match (it.checksums, self.to) {
            (true, _) => initdb.push("--data-checksums".to_owned()),
            // They are the default there.
            (false, 18..) => initdb.push("--no-data-checksums".to_owned()),
            (false, _) => {}
        }
        if it.wal_segment > 0 {
            initdb.push(format!("--wal-segsize={}", it.wal_segment));
        }
        let mut options = Vec::new();
        for name in [
            "max_connections",
            "max_worker_processes",
            "max_wal_senders",
            "max_prepared_transactions",
            "max_locks_per_transaction",
            "track_commit_timestamp",
            "shared_preload_libraries",
        ] {
            let value = it
                .settings
                .get(name)
                .map(String::as_str)
                .unwrap_or_default();
            let value: String = value.split(['"', ' ']).collect();
            if !value.is_empty() {
                options.push(format!("-c {name}={value}"));
            }
        }
        let packages = self.members.iter().map(|(host, member)| {
            let mut lacks = Vec::new();
            if member.installed.is_none() {
                lacks.push(format!("postgresql-{}", self.to));
            }
            for extension in it.extensions.keys() {
                match member.packages.get(extension) {
                    Some(package) if !member.has.contains(extension) => lacks.push(package.clone()),
                    _ => {}
                }
            }
            lacks.sort_unstable();
            lacks.dedup();
            (host.clone(), lacks)
        });
        Terms {
            initdb,
            server_options: options.join(" "),
            packages: packages.collect(),
        }
    }

    /// Everything that stops the upgrade.
    pub(crate) fn findings(&self) -> Vec<Error> {
        let mut findings = self.of_members();
        findings.extend(self.of_databases());
        findings.extend(self.of_parameters());
        findings
    }

    fn of_members(&self) -> Vec<Error> {
        let mut findings = Vec::new();
        let to = self.to;
        for (host, member) in &self.members {
            let on = |what: String| refused(what).on(host);
            if member.installed.is_none() && member.candidate.is_none() {
                findings.push(
                    on(format!("this host's package sources have no postgresql-{to}"))
                        .hint("add a source that has it; postgresql.source: pgdg takes the PostgreSQL project's own, by `pgherd up`")
                        .hint("or read the lists again: sudo apt-get update"),
                );
            }
            for extension in self.databases.extensions.keys() {
                let Some(package) = member.packages.get(extension) else {
                    // Its files came with no package: only the new version's own files tell.
                    if member.installed.is_some() && !member.has.contains(extension) {
                        findings.push(
                            on(format!("PostgreSQL {to} has no extension {extension} here"))
                                .hint("install its files for the new version, on every member"),
                        );
                    }
                    continue;
                };
                let has = member.has.contains(extension);
                let own = *package == format!("postgresql-{to}");
                if !has && !own && !member.offered.contains(package) {
                    findings.push(
                        on(format!(
                            "the extension {extension} needs {package}, which no package source of this host has"
                        ))
                        .hint("add a source that has it, or drop the extension"),
                    );
                } else if !has && own && member.installed.is_some() {
                    findings.push(
                        on(format!(
                            "PostgreSQL {to} has no extension {extension} any more"
                        ))
                        .hint("drop it before the upgrade"),
                    );
                }
            }
            if !member.movable {
                findings.push(
                    on("the data directory cannot be moved aside: it is a mount point, or its WAL is elsewhere".into())
                        .hint("put it below the mount point, with pg_wal in it"),
                );
            }
            if let Some(kept) = &member.kept {
                findings.push(
                    on(format!("{kept} is there, from an earlier upgrade"))
                        .hint("nothing of pgherd needs it: move it away"),
                );
            }
            if member.free < SPARE {
                findings.push(on(format!(
                    "only {} are free beside the data; the new version needs 1.0 GiB",
                    bytes(member.free * 1024)
                )));
            }
        }
        if self.keeper().is_none() {
            findings.push(self.no_room());
        }
        findings
    }

    fn no_room(&self) -> Error {
        let mut error = refused(
            "no member has room for a copy of its data: without one, there would be no way back"
                .into(),
        );
        for (host, member) in &self.members {
            error = error.cause(format!(
                "{host}: {} of data, {} free",
                bytes(member.here * 1024),
                bytes(member.free * 1024)
            ));
        }
        error.hint("free space on one replica, or give it a larger disk, for as long as the new version is not accepted")
    }

    /// The member that keeps the old version's data: the one with the most room, and not the upgraded one, whose
    /// data is shared by hard links. `None` if none has room.
    pub(crate) fn keeper(&self) -> Option<&HostName> {
        let alone = self.members.len() < 2;
        self.members
            .iter()
            .filter(|(name, _)| alone || **name != self.host)
            .filter(|(_, it)| it.free >= it.here + it.here / 10 + SPARE)
            .max_by_key(|(_, it)| it.free - it.here)
            .map(|(name, _)| name)
    }

    fn of_databases(&self) -> Vec<Error> {
        let it = &self.databases;
        let mut findings = Vec::new();
        if it.prepared > 0 {
            findings.push(
                refused(format!(
                    "{} would be lost: pg_upgrade refuses them",
                    count(usize::try_from(it.prepared).unwrap_or(usize::MAX), "prepared transaction")
                ))
                .hint("see them: select * from pg_prepared_xacts; then COMMIT PREPARED or ROLLBACK PREPARED"),
            );
        }
        if !it.slots.is_empty() {
            findings.push(
                refused(format!(
                    "logical replication slots: {}",
                    it.slots.join(", ")
                ))
                .cause("pgherd does not carry them over")
                .hint("end these subscriptions, drop the slots, and make them anew afterwards"),
            );
        }
        if !it.tablespaces.is_empty() {
            findings.push(
                refused(format!("tablespaces: {}", it.tablespaces.join(", ")))
                    .cause("their folders are not in the data directory, so that no old version of them can be kept")
                    .hint("move what is in them: alter table ... set tablespace pg_default; then drop them"),
            );
        }
        if !it.reg.is_empty() {
            let mut error = refused(
                "columns of a type that holds oids of the catalog, which change: pg_upgrade refuses them".into(),
            );
            for column in it.reg.iter().take(20) {
                error = error.cause(column.clone());
            }
            findings.push(error.hint(
                "drop these columns, or make them text: alter table ... alter column ... type text",
            ));
        }
        findings
    }

    /// Parameters that the new version does not have. Those with a dot belong to extensions.
    fn of_parameters(&self) -> Vec<Error> {
        let known = self.members.values().find(|it| !it.parameters.is_empty());
        let gone = GONE
            .iter()
            .filter(|(since, _)| self.from < *since && *since <= self.to);
        let gone: BTreeSet<&str> = gone.flat_map(|(_, names)| names.iter().copied()).collect();
        let strange: Vec<&str> = self
            .configured
            .iter()
            .map(String::as_str)
            .filter(|name| !name.contains('.'))
            .filter(|name| {
                gone.contains(name) || known.is_some_and(|it| !it.parameters.contains(*name))
            })
            .collect();
        if strange.is_empty() {
            return Vec::new();
        }
        vec![
            refused(format!(
                "PostgreSQL {} does not have these parameters: {}",
                self.to,
                strange.join(", ")
            ))
            .hint("take them out of postgresql.parameters in the inventory, and run `pgherd up`")
            .hint("or, if they are only in the DCS: patronictl edit-config on a member"),
        ]
    }
}

/// The names of the parameters that the inventory and the DCS set.
pub(crate) fn configured(cluster: &Cluster, dcs: Option<&Value>) -> BTreeSet<String> {
    let inventory = cluster.inventory.postgresql.parameters.keys().cloned();
    let dcs = dcs.and_then(|config| config["postgresql"]["parameters"].as_object());
    let dcs = dcs.into_iter().flatten().map(|(name, _)| name.clone());
    inventory.chain(dcs).collect()
}

#[cfg(test)]
mod tests;
