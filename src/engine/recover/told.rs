//! What one host has of the workspace.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    cluster::{
        Certificate, INTERIM_REPLICATION_USER, INTERIM_REWIND_USER, POOLER_USER, REPLICATION_USER,
        REWIND_USER, STATS_USER, SUPERUSER,
    },
    configs::{Mark, PatroniConfig, of_option, of_pooler, of_stats, of_vrrp},
    contract::{
        BACKUP_CONFIG, HAPROXY_CONFIG, KEEPALIVED_CONFIG, MARKER, PATRONI_CONFIG, POOLER_USERS,
        RESTORE_MARK, new_version_dir, old_version_dir,
    },
    inventory::Inventory,
    remote::{Script, quote},
    secret::{Content, Secret},
    services,
};

/// The first line of the answer, and the last.
const BEGIN: &str = "recovery version 1";
const END: &str = "recovery ends";

/// The passwords of the interim roles, which `secrets.yaml` does not have.
pub(super) const INTERIM_REPLICATION: &str = "interim replication";
pub(super) const INTERIM_REWIND: &str = "interim rewind";

/// The files of a host, and which of the folders exist that only an unfinished change has.
pub(super) struct Told {
    files: BTreeMap<String, Content>,
    there: BTreeSet<String>,
}

/// What has begun on a host and is known completely only to the lost workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfinished {
    /// A restore; the path is its mark.
    Restore(String),
    /// An upgrade; the path has the data of the new version.
    Upgrade(String),
    /// An upgrade that is not accepted; the path has the data of the old version.
    Kept(String),
}

/// The script that reads everything.
pub(super) fn script(inventory: &Inventory) -> Script {
    let data = &inventory.postgresql.data_dir;
    let words = |paths: &[String]| {
        let quoted: Vec<String> = paths.iter().map(|path| quote(path)).collect();
        quoted.join(" ")
    };
    let signs = [
        RESTORE_MARK.to_owned(),
        new_version_dir(data),
        old_version_dir(data),
    ];
    Script::probe(format!(
        "echo '{BEGIN}'\n\
         for f in {}; do [ ! -f \"$f\" ] || printf 'file %s %s\\n' \"$f\" \"$(base64 -w 0 <\"$f\")\"; done\n\
         for f in {}; do [ ! -e \"$f\" ] || printf 'there %s\\n' \"$f\"; done\n\
         echo '{END}'\n",
        words(&paths()),
        words(&signs),
    ))
}

/// The files that have something of the workspace.
pub(super) fn paths() -> Vec<String> {
    let mut paths: Vec<String> = [
        MARKER,
        PATRONI_CONFIG,
        HAPROXY_CONFIG,
        KEEPALIVED_CONFIG,
        POOLER_USERS,
        BACKUP_CONFIG,
    ]
    .map(str::to_owned)
    .into();
    let names = ["ca.crt", "server.crt", "server.key", "server.pem"];
    for folder in folders() {
        paths.extend(names.map(|name| format!("{folder}/{name}")));
    }
    paths
}

/// The folders with certificates.
fn folders() -> impl Iterator<Item = &'static str> {
    services::all().filter_map(|service| service.tls)
}

impl Told {
    /// Reads the script's answer; `None` if it is not complete.
    pub(super) fn parse(answer: &str) -> Option<Self> {
        let (_, answer) = answer.split_once(&format!("{BEGIN}\n"))?;
        let (answer, _) = answer.split_once(END)?;
        let mut told = Self {
            files: BTreeMap::new(),
            there: BTreeSet::new(),
        };
        for line in answer.lines() {
            if let Some(path) = line.strip_prefix("there ") {
                told.there.insert(path.to_owned());
            } else if let Some((path, text)) = line.strip_prefix("file ")?.split_once(' ') {
                let bytes = BASE64_STANDARD.decode(text).ok()?;
                let text = String::from_utf8_lossy(&bytes).into_owned();
                told.files.insert(path.to_owned(), text.into());
            }
        }
        Some(told)
    }

    fn file(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(|text| text.as_str())
    }

    /// The cluster that the host belongs to.
    pub(super) fn mark(&self) -> Option<Mark<'_>> {
        Mark::parse(self.file(MARKER)?).filter(Mark::is_pgherds)
    }

    /// What has begun here and has not ended.
    pub(super) fn unfinished(&self, data_dir: &str) -> Option<Unfinished> {
        let (new, old) = (new_version_dir(data_dir), old_version_dir(data_dir));
        if self.there.contains(RESTORE_MARK) {
            return Some(Unfinished::Restore(RESTORE_MARK.to_owned()));
        }
        if self.there.contains(&new) {
            return Some(Unfinished::Upgrade(new));
        }
        self.there.contains(&old).then_some(Unfinished::Kept(old))
    }

    /// The passwords that are here, by the names of `secrets.yaml`.
    pub(super) fn passwords(&self) -> Vec<(&'static str, Secret)> {
        let mut found = Vec::new();
        if let Some(patroni) = self.file(PATRONI_CONFIG).and_then(PatroniConfig::parse) {
            for purpose in ["superuser", "replication", "rewind"] {
                let Some((role, password)) = patroni.login(purpose) else {
                    continue;
                };
                let name = match role.as_str() {
                    SUPERUSER => "superuser",
                    REPLICATION_USER => "replication",
                    REWIND_USER => "rewind",
                    INTERIM_REPLICATION_USER => INTERIM_REPLICATION,
                    INTERIM_REWIND_USER => INTERIM_REWIND,
                    _ => continue,
                };
                found.push((name, password));
            }
            found.extend(patroni.rest_password().map(|it| ("rest_api", it)));
        }
        let haproxy = self.file(HAPROXY_CONFIG);
        let stats = haproxy.and_then(|it| of_stats(it, STATS_USER));
        found.extend(stats.map(|it| ("stats", it)));
        let vrrp = self.file(KEEPALIVED_CONFIG).and_then(of_vrrp);
        found.extend(vrrp.map(|it| ("vrrp", it)));
        let pooler = self.file(POOLER_USERS);
        let pooler = pooler.and_then(|it| of_pooler(it, POOLER_USER));
        found.extend(pooler.map(|it| ("pooler", it)));
        if let Some(backup) = self.file(BACKUP_CONFIG) {
            for (name, option) in [
                ("backup", "cipher-pass"),
                ("s3_key", "s3-key"),
                ("s3_secret", "s3-key-secret"),
            ] {
                // The bucket is the second repository if the disk has one too.
                let mut numbers = 1..=2;
                let value = numbers.find_map(|it| of_option(backup, &format!("repo{it}-{option}")));
                found.extend(value.map(|it| (name, it)));
            }
        }
        found
    }

    /// The authorities that the host trusts, PEM.
    pub(super) fn trusted(&self) -> Option<&str> {
        let all = folders().filter_map(|folder| self.file(&format!("{folder}/ca.crt")));
        all.max_by_key(|text| certificates(text).len())
    }

    /// The host's certificate.
    pub(super) fn certificate(&self) -> Option<Certificate> {
        folders().find_map(|folder| {
            let file = |name: &str| self.file(&format!("{folder}/{name}"));
            let apart = file("server.crt").zip(file("server.key"));
            // HAProxy has both in one file, the key last.
            let together = || {
                let text = file("server.pem")?;
                let key = text.find("PRIVATE KEY-----")?;
                Some(text.split_at(text[..key].rfind("-----BEGIN")?))
            };
            let (cert, key) = apart.or_else(together)?;
            let line = |text: &str| format!("{}\n", text.trim());
            Some(Certificate {
                cert: line(cert),
                key: Secret::new(line(key)),
            })
        })
    }
}

/// The certificates of a PEM text, without what is around them.
pub(super) fn certificates(pem: &str) -> BTreeSet<&str> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let parts = pem.split(BEGIN).skip(1);
    parts
        .filter_map(|part| part.split_once(END))
        .map(|(body, _)| body.trim())
        .collect()
}
