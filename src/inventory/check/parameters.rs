//! Checks PostgreSQL's parameters: that they exist, that their values fit, and that a user may set them.
//!
//! Nothing later would report such mistakes. Patroni 4.1.5 removes a parameter that it does not know and one
//! whose value it cannot read, clamps a value that is out of range, and drops from its file what belongs in the
//! DCS (`postgresql/validator.py`, `config.py`). Each time it only writes a line to its log, and the cluster
//! runs with other values than the inventory's.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::LazyLock,
};

use indexmap::IndexMap;

use super::{
    super::{
        PgVersion, keys,
        placed::{Span, span_of},
        problem::{Problem, alternatives, quoted},
        schema::Word,
        source::Source,
    },
    Problems,
};
use crate::quantity::{agree, count, whole};

mod shape;

use shape::Known;
pub(crate) use shape::{in_terms_of, memory_in_kib};

/// The parameters by name. A parameter has several entries if a major version changed it.
static KNOWN: LazyLock<BTreeMap<&str, Vec<Known>>> = LazyLock::new(|| {
    let mut known: BTreeMap<&str, Vec<Known>> = BTreeMap::new();
    let lines = include_str!("parameters/known.txt").lines();
    for (name, entry) in lines.filter_map(Known::parse) {
        known.entry(name).or_default().push(entry);
    }
    known
});

/// The names of all parameters that an inventory may set, of all versions.
pub(in crate::inventory) fn names() -> impl Iterator<Item = &'static str> {
    let mut names = KNOWN.keys().copied().collect::<Vec<_>>();
    names.retain(|name| setter(name).is_none());
    names.into_iter()
}

/// Checks all parameters; returns the valid ones by their lowercase names.
pub(super) fn check(
    problems: &mut Problems,
    source: &Source<'_>,
    version: PgVersion,
    written: Option<&IndexMap<Word, Word>>,
) -> BTreeMap<String, String> {
    let mut parameters = BTreeMap::new();
    let mut places: BTreeMap<String, Span> = BTreeMap::new();
    for (name, value) in written.into_iter().flatten() {
        let text = text(source, value);
        let checked = is_identifier(&name.value)
            .then(|| name.value.to_ascii_lowercase())
            .ok_or_else(|| not_a_name(name))
            .and_then(|lower| {
                ours_to_set(&lower, name)?;
                fits_the_file(&text, value)?;
                fits_the_parameter(&lower, name, &text, value, version)?;
                Ok(lower)
            });
        let Some(lower) = problems.keep(checked) else {
            continue;
        };
        match places.entry(lower.clone()) {
            Entry::Occupied(first) => problems.add(
                Problem::new(
                    span_of(name),
                    format!("the parameter `{lower}` is here twice"),
                )
                .label("PostgreSQL does not tell upper from lower case")
                .also(first.get().clone(), "the first one"),
            ),
            Entry::Vacant(place) => {
                place.insert(span_of(name));
                parameters.insert(lower, text);
            }
        }
    }
    problems.0.extend(no_connections_left(&parameters, &places));
    parameters
}

/// PostgreSQL does not start if all connections are reserved.
fn no_connections_left(
    parameters: &BTreeMap<String, String>,
    places: &BTreeMap<String, Span>,
) -> Option<Problem> {
    // The numbers are PostgreSQL's defaults.
    const KEPT: [(&str, f64); 2] = [
        ("superuser_reserved_connections", 3.0),
        ("reserved_connections", 0.0),
    ];
    let number = |name: &str, default| {
        let entry = KNOWN.get(name)?.first()?;
        parameters
            .get(name)
            .map_or(Some(default), |text| entry.shape.number(text))
    };
    let most = number("max_connections", 100.0)?;
    let kept = KEPT
        .iter()
        .map(|(name, default)| number(name, *default))
        .sum::<Option<f64>>()?;
    let at = KEPT
        .iter()
        .chain(&[("max_connections", 100.0)])
        .find_map(|(name, _)| places.get(*name))?;
    (kept >= most).then(|| {
        Problem::new(
            at.clone(),
            format!(
                "{} {} reserved, but `max_connections` is {most}",
                count(whole(kept), "connection"),
                agree(whole(kept), "is", "are")
            ),
        )
        .label("none would be left for clients, and PostgreSQL would not start")
    })
}

/// The value for PostgreSQL: YAML's booleans become `on` and `off`; anything else stays as written, with all
/// digits.
fn text(source: &Source<'_>, value: &Word) -> String {
    let written_plain = source.slice(&span_of(value)) == value.value;
    match value.value.as_str() {
        "true" | "True" | "TRUE" if written_plain => "on".to_owned(),
        "false" | "False" | "FALSE" if written_plain => "off".to_owned(),
        other => other.to_owned(),
    }
}

/// A parameter's name, or an extension's with its prefix: `work_mem`, `pg_stat_statements.max`.
fn is_identifier(name: &str) -> bool {
    name.len() <= 128
        && name.split('.').all(|part| {
            part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        })
}

fn not_a_name(name: &Word) -> Problem {
    Problem::new(
        span_of(name),
        format!("{} is not the name of a parameter", quoted(&name.value)),
    )
    .label("letters, digits and `_`, a letter first")
}

/// Parameters that pgherd or Patroni sets, and what sets them.
const OURS: [(&str, &str); 19] = [
    ("cluster_name", "it is the inventory's `cluster`"),
    ("config_file", "Patroni keeps it in the data directory"),
    ("data_directory", "it is `postgresql.data_dir`"),
    (
        "hba_file",
        "Patroni writes it; `postgresql.allow` says who may come in",
    ),
    ("hot_standby", "Patroni keeps it on, as replicas need it"),
    ("ident_file", "Patroni writes it"),
    (
        "listen_addresses",
        "PostgreSQL listens on all, and `postgresql.allow` says who may come in",
    ),
    ("port", "it is `postgresql.port`"),
    (
        "primary_conninfo",
        "Patroni sets it on replicas, and changes it at every failover",
    ),
    (
        "primary_slot_name",
        "Patroni sets it on replicas, and changes it at every failover",
    ),
    ("promote_trigger_file", "Patroni promotes by itself"),
    (
        "recovery_min_apply_delay",
        "every replica would lag by it, and none be fit to take over",
    ),
    ("recovery_target", "replicas would stop there"),
    (
        "recovery_target_action",
        "replicas follow their leader without end",
    ),
    (
        "recovery_target_inclusive",
        "replicas follow their leader without end",
    ),
    (
        "recovery_target_timeline",
        "replicas must follow to a new leader's timeline",
    ),
    (
        "synchronous_standby_names",
        "Patroni keeps it for `patroni.synchronous`",
    ),
    (
        "unix_socket_directories",
        "Patroni and pgherd find the server at the distribution's place",
    ),
    ("wal_keep_segments", "PostgreSQL 13 made it `wal_keep_size`"),
];

/// Why the inventory must not set a parameter; `None` if it may.
fn setter(lower: &str) -> Option<&'static str> {
    OURS.iter()
        .find(|(ours, _)| *ours == lower)
        .map(|(_, reason)| *reason)
        .or_else(|| {
            lower
                .starts_with("recovery_target_")
                .then_some("replicas would stop there")
        })
        .or_else(|| {
            (lower == "ssl" || lower.starts_with("ssl_")).then_some("it belongs to `tls.enabled`")
        })
}

/// Refuses parameters that pgherd or Patroni sets.
fn ours_to_set(lower: &str, name: &Word) -> Result<(), Problem> {
    match setter(lower) {
        None => Ok(()),
        Some(reason) => Err(Problem::new(
            span_of(name),
            format!("the parameter `{lower}` is not the inventory's to set"),
        )
        .label(reason)),
    }
}

/// `postgresql.conf` cannot hold a line break or a NUL in a value, and Patroni escapes only quotes and
/// backslashes. The other control characters are useless there.
fn fits_the_file(text: &str, value: &Word) -> Result<(), Problem> {
    match text.chars().find(|c| c.is_control() && *c != '\t') {
        None => Ok(()),
        Some(c) => Err(Problem::new(
            span_of(value),
            format!(
                "a parameter's value cannot contain {}",
                match c {
                    '\n' => "a line break".to_owned(),
                    '\0' => "a NUL character".to_owned(),
                    c => format!("the control character U+{:04X}", u32::from(c)),
                }
            ),
        )
        .label("`postgresql.conf` has no way to write it")),
    }
}

/// Patroni's minimum values, for parameters that Patroni limits more than PostgreSQL does. Below them, Patroni
/// uses its own default (`ConfigHandler.CMDLINE_OPTIONS`).
const PATRONIS_LEAST: [(&str, f64); 6] = [
    ("max_connections", 25.0),
    ("max_locks_per_transaction", 32.0),
    ("max_replication_slots", 4.0),
    ("max_wal_senders", 3.0),
    ("max_worker_processes", 2.0),
    ("wal_keep_size", 16.0),
];

fn fits_the_parameter(
    lower: &str,
    name: &Word,
    text: &str,
    value: &Word,
    version: PgVersion,
) -> Result<(), Problem> {
    // Only an extension knows its parameters.
    if lower.contains('.') {
        return Ok(());
    }
    let Some(entries) = KNOWN.get(lower) else {
        return Err(
            Problem::new(span_of(name), format!("PostgreSQL has no parameter `{lower}`"))
                .did_you_mean(keys::nearest(lower, KNOWN.keys().copied()))
                .hint("Patroni would silently drop it; a parameter of an extension has its prefix, such as `auto_explain.log_min_duration`"),
        );
    };
    let mut applicable = entries
        .iter()
        .filter(|entry| match version {
            PgVersion::Major(major) => entry.versions.contains(&major),
            PgVersion::Distro => true,
        })
        .peekable();
    if applicable.peek().is_none() {
        return Err(not_in_this_version(lower, name, entries, version));
    }
    // It is enough if one entry accepts the value: with `distro`, the version is not known yet.
    let refusals: Option<Vec<String>> = applicable.map(|entry| entry.shape.refuse(text)).collect();
    let problem = |what: String| Problem::new(span_of(value), what);
    if let Some(reason) = refusals.and_then(|reasons| reasons.into_iter().next_back()) {
        return Err(problem(format!(
            "{} does not fit the parameter `{lower}`",
            quoted(text)
        ))
        .label(reason)
        .hint("Patroni would silently change or drop it"));
    }
    match (lower, text.to_ascii_lowercase().as_str()) {
        ("wal_level", "minimal") => {
            return Err(
                problem("`wal_level: minimal` leaves nothing to replicate".to_owned())
                    .label("`replica` or `logical`"),
            );
        }
        ("password_encryption", "md5") => {
            return Err(problem(
                "`pg_hba` asks for SCRAM; clients with MD5 passwords could not log in".to_owned(),
            )
            .label("only `scram-sha-256`"));
        }
        _ => {}
    }
    let least = PATRONIS_LEAST.iter().find(|(name, _)| *name == lower);
    if let Some((_, least)) = least
        && let Some(entry) = entries.first()
        && let Some(number) = entry.shape.number(text)
        && number < *least
    {
        return Err(problem(format!(
            "{} is too little for the parameter `{lower}`",
            quoted(text)
        ))
        .label(format!("at least {}", entry.shape.with_unit(*least)))
        .hint("below that, Patroni silently uses a default of its own"));
    }
    Ok(())
}

fn not_in_this_version(lower: &str, name: &Word, entries: &[Known], version: PgVersion) -> Problem {
    let (least, most) = PgVersion::MAJORS.into_inner();
    let first = entries.iter().map(|entry| *entry.versions.start()).min();
    let last = entries.iter().map(|entry| *entry.versions.end()).max();
    let here = match version {
        PgVersion::Major(major) => format!("PostgreSQL {major}"),
        PgVersion::Distro => "PostgreSQL".to_owned(),
    };
    let problem = Problem::new(span_of(name), format!("{here} has no parameter `{lower}`"));
    match (first, last) {
        (Some(first), _) if first > least => problem.label(format!("there since version {first}")),
        (_, Some(last)) if last < most => problem.label(format!("gone since version {}", last + 1)),
        _ => problem,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::super::placed::Placed;

    use super::*;

    fn word(value: &str) -> Word {
        Placed::nowhere(value.to_owned())
    }

    fn judge(
        name: &str,
        value: &str,
        version: PgVersion,
    ) -> Result<BTreeMap<String, String>, Problem> {
        let mut problems = Problems::default();
        let written = IndexMap::from([(word(name), word(value))]);
        let source = Source::new(Path::new("x"), "");
        let parameters = check(&mut problems, &source, version, Some(&written));
        problems.0.pop().map_or(Ok(parameters), Err)
    }

    const PG16: PgVersion = PgVersion::Major(16);

    #[test]
    fn every_line_of_the_list_is_understood() {
        let lines = include_str!("parameters/known.txt")
            .lines()
            .filter(|line| !line.starts_with('#'));
        for line in lines {
            assert!(Known::parse(line).is_some(), "{line}");
        }
        assert!(KNOWN.len() > 350);
    }

    #[test]
    fn every_parameter_of_the_dcs_and_of_ours_is_in_the_list() {
        for name in super::super::super::Postgresql::DCS_PARAMETERS {
            assert!(KNOWN.contains_key(name), "{name}");
        }
        for (name, _) in PATRONIS_LEAST {
            assert!(KNOWN.contains_key(name), "{name}");
        }
    }

    #[test]
    fn values_pass_unchanged() {
        for (name, value) in [
            ("shared_buffers", "1GB"),
            ("Work_Mem", "64MB"),
            ("log_line_prefix", "%m [%p] '{{ \\ # ü: "),
            ("archive_command", "cp %p \"/a b/%f\" && echo 'x'"),
            ("pg_stat_statements.max", "anything"),
            ("random_page_cost", "1.1"),
            ("restore_command", "false"),
            ("max_connections", "100"),
            ("WAL_retrieve_retry_interval", "5s"),
            ("application_name", ""),
        ] {
            let parameters = judge(name, value, PG16).unwrap_or_else(|it| panic!("{name}: {it:?}"));
            assert_eq!(
                parameters.get(&name.to_lowercase()).map(String::as_str),
                Some(value)
            );
        }
    }

    #[test]
    fn what_patroni_would_drop_or_change_is_refused() {
        for (name, value) in [
            ("shared_bufers", "1GB"),
            ("work_mem", "64 megs"),
            ("work_mem", "1kB"),
            ("fsync", "maybe"),
            ("wal_level", "minimal"),
            ("wal_level", "archive"),
            ("max_connections", "20"),
            ("wal_keep_size", "8MB"),
            ("password_encryption", "md5"),
            ("listen_addresses", "*"),
            ("recovery_target_lsn", "0/0"),
            ("SSL_Cert_File", "/x"),
            ("bad-name", "1"),
            ("a..b", "1"),
            ("1st", "1"),
            ("log_line_prefix", "a\nb"),
            ("log_line_prefix", "a\0b"),
        ] {
            assert!(judge(name, value, PG16).is_err(), "{name}: {value}");
        }
    }

    #[test]
    fn a_parameter_of_another_version_is_refused_with_that_version() {
        let label = |name, version| {
            judge(name, "on", version)
                .expect_err("not in this version")
                .label
                .unwrap_or_default()
        };
        assert_eq!(label("io_method", PG16), "there since version 18");
        assert_eq!(label("force_parallel_mode", PG16), "gone since version 16");
        assert!(judge("io_method", "worker", PgVersion::Distro).is_ok());
    }
}
