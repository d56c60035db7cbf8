//! The order of a walk, and what happens to the other steps when one fails.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::hosts::{Answer, Hosts, script, step, walk, walk_all, walk_at_once, walk_until};
use crate::{
    error::{Code, Kind},
    event::Event,
    event::Outcome::{Cancelled, Changed, Failed},
    inventory::HostName,
    plan::{Action, Step},
    remote::Script,
};

/// Every script succeeds, except on hosts whose name is an outcome.
fn by_name() -> Hosts {
    Hosts::new(|host, _| match host.split('-').next() {
        Some("fails") => Answer::Ends(3, "", "what it said"),
        Some("hangs") => Answer::Hangs,
        Some("breaks") => Answer::Breaks,
        _ => Answer::Ends(0, "", ""),
    })
}

#[tokio::test]
async fn a_step_waits_for_what_it_needs_and_for_nothing_else() {
    let steps = vec![
        script("first", &[]),
        script("second", &[0]),
        script("aside", &[]),
        script("last", &[1, 2]),
    ];
    let walked = walk(by_name(), steps).await;
    walked.result.as_ref().unwrap();
    assert!(walked.before("first ends", "second begins"));
    assert!(walked.before("second ends", "last begins"));
    assert!(walked.before("aside ends", "last begins"));
    assert!(walked.before("aside begins", "first ends"), "at once");
    assert_eq!(walked.outcomes(), [Changed; 4]);
}

/// Hosts that share cores: who is nearest to its end goes first, and what is light waits for nobody.
#[tokio::test]
async fn no_more_hosts_install_at_once_than_there_are_cores() {
    let install = |host, name, after: &[usize]| Step {
        name,
        ..script(host, after)
    };
    let steps = vec![
        install("node1", "install-packages", &[]),
        install("node1", "install-patroni", &[0]),
        install("node2", "install-packages", &[]),
        install("node2", "install-patroni", &[2]),
        install("etcd", "install-packages", &[]),
        install("light", "prepare", &[]),
    ];
    let walked = walk_at_once(by_name(), steps, 1).await;
    walked.result.as_ref().unwrap();
    assert!(walked.before("light begins", "etcd ends"), "at once");
    assert!(walked.before("etcd begins", "node1 ends"), "it is short");
    let heavy = walked.log.iter().filter(|it| it.starts_with("node"));
    assert_eq!(
        heavy.collect::<Vec<_>>(),
        [
            "node1 begins",
            "node1 ends",
            "node1 begins",
            "node1 ends",
            "node2 begins",
            "node2 ends",
            "node2 begins",
            "node2 ends",
        ]
    );
}

#[tokio::test]
async fn every_step_is_told_of_with_what_it_waits_for_before_the_first_begins() {
    let walked = walk(
        by_name(),
        vec![script("first", &[]), script("second", &[0])],
    )
    .await;
    let told: Vec<String> = walked
        .events
        .iter()
        .map_while(|stamped| match &stamped.event {
            Event::StepPlanned { host, after, .. } => Some(format!("{host} after {after:?}")),
            _ => None,
        })
        .collect();
    assert_eq!(told, ["first after []", "second after [0]"]);
}

#[tokio::test]
async fn what_depends_on_a_failure_never_starts_and_the_rest_goes_on() {
    let steps = vec![
        script("fails", &[]),
        script("needs-it", &[0]),
        script("needs-that", &[1]),
        script("aside", &[]),
        script("after-aside", &[3]),
    ];
    let walked = walk(by_name(), steps).await;
    assert_eq!(
        walked.outcomes(),
        [Failed, Cancelled, Cancelled, Changed, Changed]
    );
    assert!(!walked.log.iter().any(|entry| entry.starts_with("needs")));
    let error = walked.error();
    assert_eq!(error.kind(), Kind::Failed);
    assert_eq!(error.host(), Some(&HostName::new("fails")));
    assert_eq!(error.failed_step(), Some("try"));
    assert_eq!(error.what(), "exit code 3");
    assert_eq!(error.excerpts()[0].text, "what it said");
}

#[tokio::test]
async fn all_failures_are_told_sorted_by_host() {
    let hosts = ["fails-c", "fails-a", "fine", "fails-b"];
    let steps = hosts.iter().map(|host| script(host, &[])).collect();
    let walked = walk(by_name(), steps).await;
    let error = walked.error();
    assert_eq!(error.what(), "3 steps failed");
    let told: Vec<&str> = error
        .failures()
        .iter()
        .filter_map(|failure| failure.host())
        .map(HostName::as_str)
        .collect();
    assert_eq!(told, ["fails-a", "fails-b", "fails-c"]);
}

#[tokio::test]
async fn an_interruption_ends_the_walk_at_once_and_says_how_to_go_on() {
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.cancel();
    });
    let steps = vec![
        script("fine", &[]),
        script("hangs", &[0]),
        script("later", &[1]),
    ];
    let walked = walk_until(by_name(), steps, &cancel).await;
    assert_eq!(walked.outcomes(), [Changed, Cancelled, Cancelled]);
    let error = walked.error();
    assert_eq!(error.kind(), Kind::Interrupted);
    assert!(error.left_behind().unwrap().contains("will finish"));
    assert!(error.hints()[0].contains("run the same command again"));
    assert!(!walked.log.iter().any(|entry| entry.starts_with("later")));
}

#[tokio::test]
async fn nothing_starts_after_an_interruption() {
    let cancel = CancellationToken::new();
    cancel.cancel();
    let walked = walk_until(by_name(), vec![script("fine", &[])], &cancel).await;
    assert_eq!(walked.error().kind(), Kind::Interrupted);
    assert_eq!(walked.outcomes(), [Cancelled]);
    assert!(walked.log.is_empty(), "{:?}", walked.log);
}

#[tokio::test]
async fn a_connection_that_breaks_is_made_once_more() {
    let tries = AtomicUsize::new(0);
    let hosts = Hosts::new(move |_, _| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::Breaks,
        _ => Answer::Ends(0, "", ""),
    });
    let walked = walk(hosts, vec![script("node1", &[])]).await;
    assert_eq!(walked.outcomes(), [Changed]);
    assert_eq!(walked.said(), ["the connection broke; trying once more"]);
}

#[tokio::test]
async fn a_connection_that_breaks_again_is_an_error_and_no_journal_is_asked_for() {
    let step = Step {
        units: vec!["patroni"],
        ..script("breaks", &[])
    };
    let walked = walk(by_name(), vec![step]).await;
    assert_eq!(walked.error().code(), Code::SshConnectionLost);
    assert_eq!(walked.log, ["breaks begins", "breaks begins"]);
}

#[tokio::test]
async fn hints_of_a_script_are_hints_of_its_error() {
    let hosts = Hosts::new(|_, _| {
        Answer::Ends(
            65,
            "Reading package lists...\n",
            "E: no postgresql-16\npgherd-hint: write 'version: 15'\npgherd-hint: or take pgdg\n",
        )
    });
    let walked = walk(hosts, vec![script("node1", &[])]).await;
    let error = walked.error();
    assert_eq!(error.hints(), ["write 'version: 15'", "or take pgdg"]);
    let texts: Vec<&str> = error.excerpts().iter().map(|it| it.text.as_str()).collect();
    assert_eq!(texts, ["E: no postgresql-16", "Reading package lists..."]);
}

#[tokio::test]
async fn a_units_journal_tells_why_its_step_failed() {
    let hosts = Hosts::new(|_, script| {
        if script.contains("journalctl") {
            Answer::Ends(0, "ActiveState=failed\nFATAL: no such directory\n", "")
        } else {
            Answer::Ends(1, "", "Job for patroni.service failed.")
        }
    });
    let step = Step {
        units: vec!["patroni"],
        ..script("node1", &[])
    };
    let walked = walk(hosts, vec![step]).await;
    let error = walked.error();
    let journal = error.excerpts().last().unwrap();
    assert_eq!(journal.title, "patroni on node1");
    assert!(journal.text.contains("FATAL: no such directory"));
    assert!(
        error.hints()[0].contains("pgherd logs node1 patroni"),
        "{:?}",
        error.hints()
    );
}

#[tokio::test]
async fn a_full_filesystem_is_named_where_a_step_failed() {
    let hosts = Hosts::new(|_, script| {
        if script.contains("df -k") {
            Answer::Ends(
                0,
                "900000 0 65536 60000 /data\n900000 0 65536 60000 /data\n10 90000000 0 0 /\n",
                "",
            )
        } else {
            Answer::Ends(1, "", "patroni.service crashed")
        }
    });
    let walked = walk(hosts, vec![script("node1", &[])]).await;
    let error = walked.error();
    assert_eq!(
        error.causes(),
        ["the filesystem /data on node1 is full: 0 MiB free"]
    );
    assert!(
        error.hints()[0].contains("free space on node1"),
        "{:?}",
        error.hints()
    );
}

#[tokio::test]
async fn only_the_end_of_a_long_output_is_quoted() {
    let hosts = Hosts::new(|_, _| {
        let long: String = (1..=500).map(|line| format!("line {line}\n")).collect();
        Answer::Ends(1, "", long.leak())
    });
    let walked = walk(hosts, vec![script("node1", &[])]).await;
    let text = &walked.error().excerpts()[0].text;
    assert!(text.ends_with("line 500") && !text.contains("line 480\n"));
}

/// The steps of a plan, which differ in their names.
fn named(name: &'static str, host: &str, line: &str, after: &[usize]) -> Step {
    let action = Action::Run(Script::probe(line));
    Step {
        name,
        ..step(host, action, after)
    }
}

#[tokio::test]
async fn a_plan_that_is_added_takes_over_what_has_begun() {
    let first = vec![
        named("one", "a", "same", &[]),
        named("two", "a", "other", &[0]),
    ];
    let second = vec![
        named("one", "a", "same", &[]),
        named("one", "b", "same", &[]),
        named("two", "a", "changed", &[0]),
        named("three", "a", "new", &[0, 1]),
    ];
    let walked = walk_all(by_name(), vec![first, second]).await;
    walked.result.as_ref().unwrap();
    let told: Vec<String> = walked
        .events
        .iter()
        .filter_map(|stamped| match &stamped.event {
            Event::StepPlanned {
                step,
                host,
                name,
                after,
                ..
            } => Some(format!("{step} {host} {name} {after:?}")),
            _ => None,
        })
        .collect();
    assert_eq!(
        told,
        [
            "0 a one []",
            "1 a two [0]",
            "2 b one []",
            // The step does something else now, after what has begun is over.
            "3 a two [0, 1]",
            "4 a three [0, 2]",
        ]
    );
    assert_eq!(walked.outcomes(), [Changed; 5]);
}

#[tokio::test]
async fn what_has_begun_and_failed_takes_with_it_what_is_added_after_it() {
    let first = vec![named("one", "fails", "same", &[])];
    let second = vec![
        named("one", "fails", "same", &[]),
        named("two", "fails", "next", &[0]),
        named("two", "b", "aside", &[]),
    ];
    let walked = walk_all(by_name(), vec![first, second]).await;
    assert_eq!(walked.outcomes(), [Failed, Cancelled, Changed]);
    assert_eq!(walked.error().failed_step(), Some("one"));
}
