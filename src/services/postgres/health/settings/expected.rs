//! The settings that a member should have, and which spellings of a value are equal.

use std::collections::BTreeMap;

use super::Setting;
use crate::{
    cluster::{Cluster, Node},
    inventory::in_terms_of,
    render,
};

/// The values that Patroni passes on its command line, or writes, by default (4.1.5, `postgresql/config.py`,
/// `CMDLINE_OPTIONS`).
const PATRONIS: [(&str, &str); 10] = [
    ("max_connections", "100"),
    ("max_locks_per_transaction", "64"),
    ("max_prepared_transactions", "0"),
    ("max_replication_slots", "10"),
    ("max_wal_senders", "10"),
    ("max_worker_processes", "8"),
    ("track_commit_timestamp", "off"),
    ("wal_keep_size", "128MB"),
    ("wal_level", "replica"),
    ("wal_log_hints", "on"),
];

/// What Patroni sets by itself: names, addresses, and replication.
const PATRONIS_OWN: [&str; 14] = [
    "archive_cleanup_command",
    "cluster_name",
    "hba_file",
    "hot_standby",
    "ident_file",
    "listen_addresses",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "recovery_end_command",
    "recovery_min_apply_delay",
    "restore_command",
    "synchronous_standby_names",
];

/// What `initdb` writes into the file that Patroni keeps as `postgresql.base.conf`.
const INITDBS: [&str; 14] = [
    "autovacuum_worker_slots",
    "datestyle",
    "default_text_search_config",
    "dynamic_shared_memory_type",
    "lc_messages",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "log_timezone",
    "max_wal_size",
    "min_wal_size",
    "password_encryption",
    "shared_buffers",
    "timezone",
];

/// Values that PostgreSQL rewrites: case and blanks do not matter.
const REWRITTEN: [&str; 5] = [
    "client_encoding",
    "datestyle",
    "default_text_search_config",
    "log_timezone",
    "timezone",
];

pub(super) struct Expected {
    /// By lowercase name.
    values: BTreeMap<String, String>,
    data_dir: String,
}

impl Expected {
    pub(super) fn of(cluster: &Cluster, node: &Node) -> Self {
        let mut values: BTreeMap<String, String> = PATRONIS
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        for (name, value) in render::parameters(cluster, node) {
            if let Some(value) = value.as_str() {
                values.insert(name, value.to_owned());
            }
        }
        values.extend(cluster.dcs_parameters());
        Self {
            values,
            data_dir: cluster.inventory.postgresql.data_dir.clone(),
        }
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.values
            .get(&name.to_ascii_lowercase())
            .map(String::as_str)
    }

    /// Whether the source of a setting that nobody requested is known.
    pub(super) fn is_explained(&self, setting: &Setting) -> bool {
        let name = setting.name.to_ascii_lowercase();
        let own = PATRONIS_OWN.contains(&name.as_str()) || name.starts_with("recovery_target");
        match setting.source.as_str() {
            "default" | "override" | "client" | "session" => true,
            // The locale of the unit.
            "environment variable" => name.starts_with("lc_") || name == "client_encoding",
            "command line" => own,
            "configuration file" => {
                let is = |file: &str| setting.file == format!("{}/{file}", self.data_dir);
                (is("postgresql.conf") && own)
                    || (is("postgresql.base.conf") && INITDBS.contains(&name.as_str()))
            }
            _ => false,
        }
    }

    /// Settings that should exist and that the server does not know: a parameter of an extension whose library
    /// is not loaded is a placeholder, which `pg_settings` does not list.
    pub(super) fn absent(&self, running: &[Setting]) -> Vec<String> {
        let known = |name: &str| running.iter().any(|it| it.name.eq_ignore_ascii_case(name));
        self.values
            .keys()
            .filter(|name| !name.contains('.') && !known(name))
            .map(|name| format!("{name} is not known to this PostgreSQL"))
            .collect()
    }
}

/// Whether a server's value equals `wanted`.
pub(super) fn agree(setting: &Setting, wanted: &str) -> bool {
    let Setting {
        name,
        value,
        unit,
        kind,
        ..
    } = setting;
    if value == wanted {
        return true;
    }
    match kind.as_str() {
        "bool" => truth(value).is_some() && truth(value) == truth(wanted),
        "integer" | "real" => {
            let number = |text: &str| match octal(text) {
                Some(number) => Some(number),
                None => in_terms_of(text, unit),
            };
            match (number(value), number(wanted)) {
                // PostgreSQL rounds to whole units, from the next smaller unit.
                (Some(is), Some(should)) if kind == "integer" => {
                    let slack = if should.fract() == 0.0 { 0.0 } else { 1.0 };
                    (is - should).abs() <= slack
                }
                (Some(is), Some(should)) => (is - should).abs() <= 1e-5 * should.abs(),
                _ => false,
            }
        }
        "enum" => synonym(&value.to_ascii_lowercase()) == synonym(&wanted.to_ascii_lowercase()),
        _ => {
            let name = name.to_ascii_lowercase();
            let bare = |text: &str| text.to_ascii_lowercase().replace([' ', '\'', '-'], "");
            // `DateStyle` is shown with its order, which a setting may leave out.
            REWRITTEN.contains(&name.as_str()) && bare(value).starts_with(&bare(wanted))
        }
    }
}

/// A file mode, such as `0640`.
fn octal(text: &str) -> Option<f64> {
    let digits = text.trim().strip_prefix('0')?;
    let is_octal = !digits.is_empty() && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let number = is_octal.then(|| u32::from_str_radix(digits, 8).ok())?;
    number.map(f64::from)
}

fn truth(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" | "t" | "y" => Some(true),
        "off" | "false" | "no" | "0" | "f" | "n" => Some(false),
        _ => None,
    }
}

/// PostgreSQL's hidden names of values that it shows under another name.
fn synonym(word: &str) -> &str {
    match word {
        "true" | "yes" | "1" => "on",
        "false" | "no" | "0" => "off",
        "hot_standby" | "archive" => "replica",
        "debug" => "debug2",
        other => other,
    }
}
