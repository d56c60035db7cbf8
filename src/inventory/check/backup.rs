//! Checks when backups are made, and where they are kept.

use indexmap::IndexMap;

use super::{
    super::{
        Backup, Host, HostName, Role,
        bounds::Limit,
        limits,
        placed::{Span, span_of},
        problem::{Problem, quoted},
        schema::{self, Number, Word},
    },
    Problems, bucket,
};

/// Parameters that pgherd sets itself while there are backups.
const OURS: [&str; 4] = [
    "archive_command",
    "archive_library",
    "archive_mode",
    "archive_timeout",
];

pub(super) fn check(
    problems: &mut Problems,
    document: &schema::Document,
    hosts: &IndexMap<HostName, Host>,
) -> Backup {
    let default = Backup::default();
    let place = place(document);
    if place.is_some() {
        neighbours(problems, document, hosts);
    }
    let Some(section) = &document.backup else {
        return default;
    };
    if place.is_none() && !hosts.is_empty() {
        problems.add(
            Problem::new(span_of(section), "there is no host to keep backups on")
                .label("needs a host with the role `backup`")
                .hint("add one, for example `backup: {roles: [backup]}` below `hosts`, or leave this out"),
        );
    }
    let written = &section.value;
    Backup {
        full: schedule(problems, written.full.as_ref()).unwrap_or(default.full),
        differential: schedule(problems, written.differential.as_ref())
            .unwrap_or(default.differential),
        incremental: schedule(problems, written.incremental.as_ref()),
        keep_full: within(
            problems,
            written.keep_full.as_ref(),
            limits::KEEP_FULL,
            "is no number of backups to keep",
        ),
        prove_within: within(
            problems,
            written.prove_within.as_ref(),
            limits::PROVE_WITHIN,
            "is no number of days in which a restore can be proven",
        ),
        s3: bucket::check(problems, document, written.s3.as_ref()),
        disk: disk(problems, written),
    }
}

/// Where a host is given the role.
fn place(document: &schema::Document) -> Option<Span> {
    let hosts = document.hosts.iter().flat_map(|hosts| hosts.value.values());
    let mut words = hosts
        .filter_map(|host| host.as_ref()?.roles.as_ref())
        .flat_map(|roles| &roles.value);
    let word = words.find(|word| word.value == Role::Backup.as_str());
    word.map(span_of)
}

/// What backups cannot share a host, or a cluster, with.
fn neighbours(
    problems: &mut Problems,
    document: &schema::Document,
    hosts: &IndexMap<HostName, Host>,
) {
    let Some(at) = place(document) else {
        return;
    };
    for host in hosts.values().filter(|it| it.roles.contains(&Role::Backup)) {
        let (with, why) = if host.roles.contains(&Role::Postgres) {
            (
                Role::Postgres,
                "a backup would be lost with the database that it is of",
            )
        } else if host.roles.contains(&Role::Etcd) {
            (
                Role::Etcd,
                "a backup keeps the disk busy, and etcd waits for it at every write",
            )
        } else {
            continue;
        };
        let what = format!(
            "backups are not kept on a host with the role `{}`",
            with.as_str()
        );
        problems.add(
            Problem::new(at.clone(), what)
                .label(why)
                .hint("give the role `backup` to a host of its own, or to one with `haproxy`"),
        );
    }
    let tls = document.tls.as_ref().and_then(|tls| tls.enabled);
    if !tls.unwrap_or(limits::TLS) {
        problems.add(
            Problem::new(at.clone(), "backups need TLS: `tls.enabled` is false")
                .label("its hosts know each other by certificates alone")
                .hint("leave `tls.enabled: false` out"),
        );
    }
    let parameters = document.postgresql.as_ref();
    let parameters = parameters.and_then(|it| it.parameters.as_ref());
    for name in parameters.into_iter().flat_map(IndexMap::keys) {
        if OURS.contains(&name.value.to_ascii_lowercase().as_str()) {
            let what = format!(
                "pgherd itself sets `{}` while there are backups",
                name.value
            );
            problems.add(
                Problem::new(span_of(name), what)
                    .label("leave it out")
                    .also(at.clone(), "the backups"),
            );
        }
    }
}

fn schedule(problems: &mut Problems, written: Option<&Word>) -> Option<String> {
    let word = written?;
    if limits::SCHEDULE.fits(&word.value) {
        return Some(word.value.clone());
    }
    problems.add(
        Problem::new(
            span_of(word),
            format!("{} does not say when", quoted(&word.value)),
        )
        .label(limits::SCHEDULE.wanted)
        .hint("`systemd-analyze calendar 'Sun 01:00'` explains an expression"),
    );
    None
}

/// Whether the host's disk holds the backups: one place is needed.
fn disk(problems: &mut Problems, written: &schema::Backup) -> bool {
    let in_bucket = written.s3.is_some();
    match &written.disk {
        Some(disk) if !disk.value && !in_bucket => {
            problems.add(
                Problem::new(span_of(disk), "there is no place for backups")
                    .label("neither the host's disk nor a bucket holds them")
                    .hint("name a bucket (`s3`), or leave this out"),
            );
            true
        }
        Some(disk) => disk.value,
        None => !in_bucket,
    }
}

/// A number within its bounds. `what` is wrong with another one.
fn within(problems: &mut Problems, written: Option<&Number>, limit: Limit<u32>, what: &str) -> u32 {
    let Limit { bounds, default } = limit;
    let Some(number) = written else {
        return default;
    };
    bounds.take(number.value).unwrap_or_else(|| {
        let what = format!("{} {what}", number.value);
        problems.add(Problem::new(span_of(number), what).label(bounds.to_string()));
        default
    })
}
