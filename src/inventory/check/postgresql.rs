//! Checks PostgreSQL's version, data directory and clients.

use super::{
    super::{
        PgSource, PgVersion, Postgresql,
        bounds::{Bounds, Limit},
        limits,
        placed::span_of,
        problem::{Problem, quoted},
        schema::{self, Number, Word},
        source::Source,
    },
    Problems, accounts, net, one_of, parameters, ports,
};

pub(super) fn check(
    problems: &mut Problems,
    source: &Source<'_>,
    written: Option<&schema::Postgresql>,
) -> Postgresql {
    let none = schema::Postgresql::default();
    let written = written.unwrap_or(&none);
    let version = written
        .version
        .as_ref()
        .and_then(|word| problems.keep(version(word)))
        .unwrap_or(PgVersion::Major(limits::POSTGRESQL_MAJOR));
    let packages = written
        .source
        .as_ref()
        .and_then(|word| problems.keep(one_of(word)))
        .unwrap_or(limits::POSTGRESQL_SOURCE);
    if let (PgVersion::Distro, PgSource::Pgdg) = (version, packages)
        && let (Some(version), Some(packages)) = (&written.version, &written.source)
    {
        problems.add(
            Problem::new(
                span_of(packages),
                "`source: pgdg` and `version: distro` contradict each other",
            )
            .label("has every version: say which")
            .also(span_of(version), "takes what the distribution has")
            .hint("write `version: 16`, or leave `source` out"),
        );
    }
    Postgresql {
        version,
        source: packages,
        port: port(problems, written.port.as_ref()),
        data_dir: written
            .data_dir
            .as_ref()
            .and_then(|word| problems.keep(data_dir(word)))
            .unwrap_or_else(|| limits::DEFAULT_DATA_DIR.to_owned()),
        allow: match &written.allow {
            Some(list) => list
                .iter()
                .filter_map(|word| problems.keep(net::cidr(word)))
                .collect(),
            None => limits::allow(),
        },
        tuning: written
            .tuning
            .as_ref()
            .and_then(|word| problems.keep(one_of(word)))
            .unwrap_or(limits::TUNING),
        parameters: parameters::check(problems, source, version, written.parameters.as_ref()),
        users: accounts::users(problems, written.users.as_ref()),
        databases: accounts::databases(
            problems,
            written.users.as_ref(),
            written.databases.as_ref(),
        ),
    }
}

fn version(word: &Word) -> Result<PgVersion, Problem> {
    let (least, most) = PgVersion::MAJORS.into_inner();
    let value = word.value.as_str();
    if value == "distro" {
        return Ok(PgVersion::Distro);
    }
    if let Ok(major) = value.parse::<u16>()
        && PgVersion::MAJORS.contains(&major)
    {
        return Ok(PgVersion::Major(major));
    }
    let problem = Problem::new(
        span_of(word),
        format!(
            "{} is not a version of PostgreSQL that pgherd sets up",
            quoted(value)
        ),
    );
    let major = value
        .split('.')
        .next()
        .and_then(|major| major.parse::<u16>().ok());
    Err(match major {
        Some(major) if value.contains('.') && PgVersion::MAJORS.contains(&major) => problem.label(
            format!("the major version alone: `{major}`; the newest minor one is installed"),
        ),
        Some(major) if major < least => {
            problem.label("no longer maintained by the PostgreSQL project")
        }
        _ => problem,
    }
    .hint(format!(
        "valid here: {least} to {most}, or `distro` for what the hosts' distribution has"
    )))
}

/// PostgreSQL does not run as root, so it cannot use ports below 1024.
fn port(problems: &mut Problems, written: Option<&Number>) -> u16 {
    let Limit { bounds, default } = limits::POSTGRESQL_PORT;
    match written {
        Some(number) if (1..i64::from(bounds.least)).contains(&number.value) => {
            problems.add(
                Problem::new(
                    span_of(number),
                    format!("PostgreSQL cannot listen on port {}", number.value),
                )
                .label(format!("below {} only root can; {bounds}", bounds.least)),
            );
            default
        }
        _ => {
            let any = Bounds { least: 1, ..bounds };
            let limit = Limit {
                bounds: any,
                default,
            };
            ports::port(problems, written, limit)
        }
    }
}

/// Folders of the system or of other programs. A data directory must not be one of them, nor inside or above
/// one.
pub(in crate::inventory) const SYSTEM: [&str; 14] = [
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/root", "/run", "/sbin",
    "/sys", "/tmp", "/usr",
];
/// Folders with mixed content; PostgreSQL may have a folder inside them.
pub(in crate::inventory) const SHARED: [&str; 12] = [
    "/home",
    "/media",
    "/mnt",
    "/opt",
    "/srv",
    "/var",
    "/var/backups",
    "/var/cache",
    "/var/lib",
    "/var/lib/postgresql",
    "/var/log",
    "/var/spool",
];
/// Folders that belong to other parts of pgherd on a host, or whose files are deleted regularly.
pub(in crate::inventory) const FOREIGN: [&str; 9] = [
    "/opt/patroni",
    "/var/cache/apt",
    "/var/lib/apt",
    "/var/lib/dpkg",
    "/var/lib/etcd",
    "/var/lib/haproxy",
    "/var/lock",
    "/var/run",
    "/var/tmp",
];

/// A folder for PostgreSQL alone, written in its canonical form.
fn data_dir(word: &Word) -> Result<String, Problem> {
    let value = word.value.as_str();
    let under = |folders: &[&str]| {
        folders.iter().any(|folder| {
            value
                .strip_prefix(folder)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    let label = if !value.starts_with('/') {
        "must be an absolute path"
    } else if value == "/" {
        "the root of the file system"
    } else if value.len() > 255 {
        "longer than 255 characters"
    } else if !value
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-'))
    {
        "letters, digits, `.`, `_`, `-` and `/` only"
    } else if value[1..]
        .split('/')
        .any(|part| matches!(part, "" | "." | ".."))
    {
        "without `.`, `..`, `//` and a slash at the end"
    } else if under(&SYSTEM) {
        "a folder of the system"
    } else if under(&FOREIGN) {
        "a folder of another program"
    } else if SHARED.contains(&value) {
        "holds other things too: name a folder in it"
    } else {
        return Ok(value.to_owned());
    };
    Err(Problem::new(
        span_of(word),
        format!("{} cannot be the data directory", quoted(value)),
    )
    .label(label)
    .hint("the default is `/data/patroni`; PostgreSQL needs a folder of its own"))
}

#[cfg(test)]
mod tests {
    use super::super::super::placed::Placed;

    use super::*;

    fn word(value: &str) -> Word {
        Placed::nowhere(value.to_owned())
    }

    #[test]
    fn a_folder_of_its_own_can_be_the_data_directory() {
        for folder in [
            "/data/patroni",
            "/pgdata",
            "/var/lib/postgresql/16/main",
            "/srv/pg",
            "/mnt/nvme-0/pg_16.data",
            "/usrdata",
        ] {
            assert!(data_dir(&word(folder)).is_ok(), "{folder}");
        }
    }

    #[test]
    fn a_folder_of_others_cannot() {
        for folder in [
            "",
            "/",
            "data",
            "~/data",
            "/data/",
            "/data//pg",
            "/data/../etc",
            "/data/./pg",
            "/etc",
            "/etc/pg",
            "/usr/local/pg",
            "/tmp/pg",
            "/var",
            "/var/lib",
            "/var/lib/postgresql",
            "/var/lib/etcd/pg",
            "/home",
            "/data/p g",
            "/data/pg'",
            "/data/päth",
            "/data/pg\n",
        ] {
            assert!(data_dir(&word(folder)).is_err(), "{folder:?}");
        }
    }

    #[test]
    fn versions_are_major_or_the_distributions() {
        assert_eq!(version(&word("16")).ok(), Some(PgVersion::Major(16)));
        assert_eq!(version(&word("distro")).ok(), Some(PgVersion::Distro));
        for wrong in ["16.4", "13", "19", "9.6", "-16", "latest", "", "99999"] {
            assert!(version(&word(wrong)).is_err(), "{wrong}");
        }
    }
}
