//! Checks that the installed programs are the running ones: an update replaces programs on disk, not in memory.

use std::{collections::BTreeMap, time::Duration};

use super::{Check, Prover, Settles};
use crate::{
    cluster::Node,
    error::{Code, Error, Result},
    inventory::{HostName, PatroniSource},
    remote::{Script, quote},
    services::postgres::patroni::Status,
};

const NAME: &str = "versions";

/// How long a host may take to report its versions.
const ANSWER: Duration = Duration::from_secs(10);

/// What is installed on one host.
#[derive(Debug, Default, PartialEq, Eq)]
struct Installed {
    /// As PostgreSQL numbers itself: 150020 for 15.20.
    postgres: Option<u32>,
    patroni: Option<String>,
    /// Running programs whose files have been replaced since they started.
    replaced: Vec<String>,
    /// Running programs whose file the host does not report.
    unseen: Vec<String>,
    /// Whether the host's report is complete.
    complete: bool,
}

pub(super) async fn look(prover: &Prover, survey: &BTreeMap<HostName, Result<Status>>) -> Check {
    let asked = prover.cluster.nodes.values().map(|node| async move {
        let installed = ask(prover, node).await;
        (node, installed)
    });
    let mut wrong = Vec::new();
    for (node, installed) in futures_util::future::join_all(asked).await {
        match installed {
            Ok(installed) => {
                let status = survey
                    .get(&node.name)
                    .and_then(|status| status.as_ref().ok());
                let restart = prover
                    .cluster
                    .inventory
                    .command(&format!("restart {}", node.name));
                wrong.extend(differences(node, status, &installed, &restart));
            }
            Err(error) => wrong.push(error.to_string()),
        }
    }
    Check::of(NAME, wrong, "the installed versions run".into()).settles(Settles::Never)
}

async fn ask(prover: &Prover, node: &Node) -> Result<Installed> {
    let postgres = node
        .postgresql
        .filter(|_| node.roles.iter().any(|role| role.keeps_database()))
        .map_or(String::new(), |major| {
            format!("/usr/lib/postgresql/{major}/bin/postgres")
        });
    let units: Vec<&str> = node
        .roles
        .iter()
        .map(|role| role.service())
        .filter(|service| service.runs_its_program)
        .map(|service| service.unit.name)
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
    let installed = read(&output.stdout);
    if installed.complete {
        return Ok(installed);
    }
    Err(Error::new(
        Code::AnswerUnusable,
        "the host does not say which versions are installed",
    )
    .on(&node.name)
    .cause(format!("the script ended with exit code {}", output.code)))
}

fn read(text: &str) -> Installed {
    let mut installed = Installed::default();
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("postgres", version)) => installed.postgres = number(version),
            Some(("patroni", version)) => installed.patroni = Some(upstream(version)),
            Some(("replaced", program)) => installed.replaced.push(program.to_owned()),
            Some(("unseen", program)) => installed.unseen.push(program.to_owned()),
            None if line == "end" => installed.complete = true,
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

/// What differs on a host. `restart` is the command that restarts its PostgreSQL.
fn differences(
    node: &Node,
    status: Option<&Status>,
    installed: &Installed,
    restart: &str,
) -> Vec<String> {
    let host = &node.name;
    let mut wrong = unknown(node, status, installed);
    let running = status
        .filter(|status| status.is_running())
        .and_then(|status| status.server_version);
    let replaced = |program: &str| installed.replaced.iter().any(|it| it == program);
    match (running, installed.postgres) {
        (Some(running), Some(there)) if running != there => wrong.push(format!(
            "{host} runs PostgreSQL {}, and {} is installed; restart it: {restart}",
            shown(running),
            shown(there)
        )),
        _ if replaced("PostgreSQL") => wrong.push(format!(
            "PostgreSQL on {host} runs a program that was replaced after it started; restart it: {restart}"
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
            "{unit} on {host} runs a program that was replaced after it started; restart it: systemctl restart {unit}"
        ));
    }
    wrong
}

/// What cannot be compared, because one side is unknown. Whether a member answers and runs is reported by
/// another check.
fn unknown(node: &Node, status: Option<&Status>, installed: &Installed) -> Vec<String> {
    let host = &node.name;
    let mut wrong = Vec::new();
    if node.roles.iter().any(|role| role.keeps_database()) {
        if installed.postgres.is_none() {
            wrong.push(format!(
                "the installed version of PostgreSQL on {host} is not known"
            ));
        }
        if installed.patroni.is_none() {
            wrong.push(format!(
                "the installed version of Patroni on {host} is not known"
            ));
        }
        if status.is_some_and(|it| it.is_running() && it.server_version.is_none()) {
            wrong.push(format!("{host} does not say which PostgreSQL it runs"));
        }
        if status.is_some_and(|it| it.patroni_version().is_none()) {
            wrong.push(format!("{host} does not say which Patroni it runs"));
        }
    }
    let unseen = installed.unseen.iter();
    wrong.extend(
        unseen.map(|program| format!("the file of the running {program} on {host} is not known")),
    );
    wrong
}

fn shown(number: u32) -> String {
    format!("{}.{}", number / 10_000, number % 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::world::{FIVE, cluster};

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
        let cluster = cluster("", FIVE);
        let node = &cluster.nodes[&HostName::new("node2")];
        differences(node, Some(&status), &read(text), "pgherd restart node2")
    }

    /// If one side is unknown, the two do not count as equal.
    #[test]
    fn what_is_not_known_is_said_and_does_not_hold() {
        let all = "postgres postgres (PostgreSQL) 15.20 (Debian)\npatroni 4.1.5\nend\n";
        for (running, patroni, text, says) in [
            (
                Some(150_020),
                "4.1.5",
                "patroni 4.1.5\n",
                "installed version of PostgreSQL",
            ),
            (
                Some(150_020),
                "4.1.5",
                "postgres PostgreSQL 15.20\n",
                "installed version of Patroni",
            ),
            (None, "4.1.5", all, "does not say which PostgreSQL it runs"),
            (Some(150_020), "", all, "does not say which Patroni it runs"),
            (
                Some(150_020),
                "4.1.5",
                format!("{all}unseen PostgreSQL\n").as_str(),
                "the file of the running PostgreSQL on node2",
            ),
        ] {
            let said = told(running, patroni, text);
            assert_eq!(said.len(), 1, "{said:?}");
            assert!(said[0].contains(says), "{said:?}");
        }
        assert!(read(all).complete && !read("patroni 4.1.5\n").complete);
    }

    /// If its package is not installed, and for a host without a database.
    #[test]
    fn the_probe_says_that_it_came_to_its_end() {
        for start in [
            "POSTGRES= UNITS=",
            "POSTGRES=/nonesuch DATA_DIR=/nonesuch PATRONI=venv UNITS=",
        ] {
            let output = std::process::Command::new("/bin/sh")
                .args(["-c", &format!("{start}\n{}", include_str!("versions.sh"))])
                .output()
                .expect("sh runs");
            assert!(
                read(&String::from_utf8_lossy(&output.stdout)).complete,
                "{output:?}"
            );
        }
    }

    #[test]
    fn what_runs_and_is_not_what_is_installed_is_named() {
        let there = "postgres postgres (PostgreSQL) 15.20 (Debian)\npatroni 4.1.5\n";
        assert!(told(Some(150_020), "4.1.5", there).is_empty());
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
