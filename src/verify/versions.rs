//! Whether what runs is what is installed: an update replaces programs on the disk, not in memory.

use std::{collections::BTreeMap, time::Duration};

use super::{Check, Prover, check};
use crate::{
    cluster::Node,
    error::Result,
    inventory::{HostName, PatroniSource, Role},
    patroni::Status,
    remote::{Script, quote},
};

pub(super) const NAME: &str = "versions";

/// How long a host may take to say what it has.
const ANSWER: Duration = Duration::from_secs(10);

/// What is installed on one host.
#[derive(Debug, Default, PartialEq, Eq)]
struct Installed {
    /// As PostgreSQL numbers itself: 150020 for 15.20.
    postgres: Option<u32>,
    patroni: Option<String>,
    /// Programs that run and whose files have been replaced since they started.
    replaced: Vec<String>,
}

pub(super) async fn look(prover: &Prover, survey: &BTreeMap<HostName, Result<Status>>) -> Check {
    let asked = prover.cluster.nodes.values().map(|node| async move {
        let installed = ask(prover, node).await;
        (&node.name, installed)
    });
    let mut wrong = Vec::new();
    for (host, installed) in futures_util::future::join_all(asked).await {
        match installed {
            Ok(installed) => {
                let status = survey.get(host).and_then(|status| status.as_ref().ok());
                wrong.extend(differences(host, status, &installed));
            }
            Err(error) => wrong.push(error.to_string()),
        }
    }
    check(NAME, wrong, "what runs is what is installed".into())
}

async fn ask(prover: &Prover, node: &Node) -> Result<Installed> {
    let postgres = node
        .postgresql
        .filter(|_| node.roles.contains(&Role::Postgres))
        .map_or(String::new(), |major| {
            format!("/usr/lib/postgresql/{major}/bin/postgres")
        });
    let units: Vec<&str> = node
        .roles
        .iter()
        .filter_map(|role| match role {
            // Patroni is a script: what its process has open is Python.
            Role::Postgres => None,
            Role::Etcd => Some("etcd"),
            Role::Haproxy => Some("haproxy"),
        })
        .collect();
    let inventory = &prover.cluster.inventory;
    let patroni = match inventory.patroni.source {
        PatroniSource::Pypi => "venv",
        PatroniSource::Distro => "package",
    };
    let script = Script::probe(format!(
        "POSTGRES={} DATA_DIR={} PATRONI={patroni} UNITS={}\n",
        quote(&postgres),
        quote(&inventory.postgresql.data_dir),
        quote(&units.join(" ")),
    ))
    .line(include_str!("versions.sh"));
    let silent = |_, _: &str| {};
    let output = prover
        .remote
        .run(&node.name, &script, ANSWER, &silent)
        .await?;
    Ok(read(&output.stdout))
}

fn read(text: &str) -> Installed {
    let mut installed = Installed::default();
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("postgres", version)) => installed.postgres = number(version),
            Some(("patroni", version)) => installed.patroni = Some(upstream(version)),
            Some(("replaced", program)) => installed.replaced.push(program.to_owned()),
            _ => {}
        }
    }
    installed
}

/// The number of `postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)`; a beta counts as `.0`.
fn number(version: &str) -> Option<u32> {
    let word = version
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let (major, minor) = word.split_once('.').unwrap_or((word, "0"));
    let digits = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_digit());
        text[..end.unwrap_or(text.len())].parse::<u32>().ok()
    };
    Some(digits(major)? * 10_000 + digits(minor).unwrap_or(0))
}

/// A package's version without its epoch and the distribution's part.
fn upstream(version: &str) -> String {
    let version = version.split_once(':').map_or(version, |(_, rest)| rest);
    let version = version.rsplit_once('-').map_or(version, |(rest, _)| rest);
    version.trim().to_owned()
}

fn differences(host: &HostName, status: Option<&Status>, installed: &Installed) -> Vec<String> {
    let mut wrong = Vec::new();
    let running = status
        .filter(|status| status.is_running())
        .and_then(|status| status.server_version);
    let replaced = |program: &str| installed.replaced.iter().any(|it| it == program);
    match (running, installed.postgres) {
        (Some(running), Some(there)) if running != there => wrong.push(format!(
            "{host} runs PostgreSQL {}, and {} is installed; restart it: pgherd restart {host}",
            shown(running),
            shown(there)
        )),
        _ if replaced("PostgreSQL") => wrong.push(format!(
            "PostgreSQL on {host} runs a program that has been replaced since it started; \
             restart it: pgherd restart {host}"
        )),
        _ => {}
    }
    let running = status.and_then(Status::patroni_version);
    if let (Some(running), Some(there)) = (running, &installed.patroni)
        && upstream(&running) != *there
    {
        wrong.push(format!(
            "{host} runs Patroni {running}, and {there} is installed; \
             restart its unit (patroni), the leader's after a switchover"
        ));
    }
    for unit in installed.replaced.iter().filter(|it| *it != "PostgreSQL") {
        wrong.push(format!(
            "{unit} on {host} runs a program that has been replaced since it started; \
             restart it: systemctl restart {unit}"
        ));
    }
    wrong
}

fn shown(number: u32) -> String {
    format!("{}.{}", number / 10_000, number % 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_postgresql_numbers_them() {
        for (text, expected) in [
            (
                "postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)",
                Some(150_020),
            ),
            ("postgres (PostgreSQL) 17.2", Some(170_002)),
            ("postgres (PostgreSQL) 18beta1", Some(180_000)),
            ("", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
        assert_eq!(upstream("3.0.2-1"), "3.0.2");
        assert_eq!(upstream("1:4.0.7-2~pgdg"), "4.0.7");
        assert_eq!(upstream("4.1.5"), "4.1.5");
    }

    fn told(running: Option<u32>, patroni: &str, text: &str) -> Vec<String> {
        let status: Status = serde_json::from_value(serde_json::json!({
            "state": "running", "server_version": running, "patroni": {"version": patroni},
        }))
        .unwrap();
        differences(&HostName::new("node2"), Some(&status), &read(text))
    }

    #[test]
    fn what_runs_and_is_not_what_is_installed_is_named() {
        let there = "postgres postgres (PostgreSQL) 15.20 (Debian)\npatroni 4.1.5\n";
        assert!(told(Some(150_020), "4.1.5", there).is_empty());
        assert!(
            told(None, "", there).is_empty(),
            "what is not known is not wrong"
        );
        let older = told(Some(150_019), "4.1.5", there);
        assert_eq!(older.len(), 1);
        assert!(
            older[0].contains("runs PostgreSQL 15.19, and 15.20 is installed")
                && older[0].contains("pgherd restart node2"),
            "{older:?}"
        );
        let patroni = told(Some(150_020), "4.1.4", there);
        assert!(
            patroni[0].contains("runs Patroni 4.1.4, and 4.1.5"),
            "{patroni:?}"
        );
        let replaced = format!("{there}replaced PostgreSQL\nreplaced etcd\n");
        let replaced = told(Some(150_020), "4.1.5", &replaced);
        assert_eq!(replaced.len(), 2, "{replaced:?}");
        assert!(
            replaced[1].contains("systemctl restart etcd"),
            "{replaced:?}"
        );
    }

    #[test]
    fn the_probe_is_a_valid_shell_script() {
        let status = std::process::Command::new("/bin/sh")
            .args(["-n", "-c", include_str!("versions.sh")])
            .status()
            .expect("sh runs");
        assert!(status.success());
    }
}
