//! Pages as a browser reads them.

use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;
use scraper::{Html, Selector};
use serde_json::{Value, json};

use super::*;

/// A run of two hosts in which a step fails, from its log.
fn events() -> Vec<Value> {
    let planned = |step: usize, host: &str, name: &str, after: &[usize]| {
        json!({"t": 2.0, "event": "step_planned", "step": step, "host": host, "name": name,
               "why": format!("{name} is missing"), "after": after})
    };
    let started = |t: f64, step: usize, host: &str, name: &str| json!({"t": t, "event": "step_started", "step": step, "host": host, "name": name});
    let finished = |t: f64, step: usize, host: &str, name: &str, outcome: &str| {
        json!({"t": t, "event": "step_finished", "step": step, "host": host, "name": name,
               "outcome": outcome, "seconds": 1.0})
    };
    vec![
        json!({"t": 0.0, "event": "run_started", "verb": "up", "cluster": "postgres", "version": "0.1.0",
               "at": "2026-01-02T03:04:05Z"}),
        json!({"t": 0.1, "event": "resource", "kind": "network", "id": "0123", "name": "postgres-net", "state": "created"}),
        json!({"t": 0.1, "event": "host", "host": "node1", "state": "creating"}),
        json!({"t": 0.1, "event": "host", "host": "node2", "state": "creating"}),
        json!({"t": 1.0, "event": "host", "host": "node1", "state": "created", "detail": "192.168.0.11"}),
        json!({"t": 1.2, "event": "host", "host": "node2", "state": "created"}),
        json!({"t": 1.2, "event": "host", "host": "node1", "state": "connecting"}),
        json!({"t": 1.5, "event": "host", "host": "node1", "state": "connected"}),
        json!({"t": 1.8, "event": "facts_read", "host": "node1"}),
        json!({"t": 2.0, "event": "planned", "steps": 4, "changes": 3}),
        planned(0, "node1", "install-packages", &[]),
        planned(1, "node2", "install-packages", &[]),
        planned(2, "node1", "await-leader", &[0]),
        planned(3, "node2", "start-patroni", &[1, 2]),
        started(2.0, 0, "node1", "install-packages"),
        started(2.0, 1, "node2", "install-packages"),
        json!({"t": 3.0, "event": "step_output", "step": 0, "host": "node1", "name": "install-packages",
               "stream": "stdout", "line": "Reading package lists..."}),
        finished(9.0, 0, "node1", "install-packages", "changed"),
        started(9.0, 2, "node1", "await-leader"),
        finished(9.5, 1, "node2", "install-packages", "failed"),
        finished(12.0, 2, "node1", "await-leader", "done"),
        finished(12.0, 3, "node2", "start-patroni", "cancelled"),
        json!({"t": 12.0, "event": "software", "host": "node1", "os": "Debian GNU/Linux 12 (bookworm)",
               "packages": {"patroni": "4.1.5", "postgresql-15": "15.14-0+deb12u1"}}),
        json!({"t": 12.1, "event": "check", "check": "leader", "passed": true, "detail": "node1 leads"}),
        json!({"t": 12.2, "event": "check", "check": "units", "passed": false, "detail": "patroni on node2 is not active"}),
        json!({"t": 12.5, "event": "something_of_a_later_version", "fields": [1, 2]}),
        json!({"t": 12.5, "event": "run_finished", "exit_code": 1, "seconds": 12.5, "error": "node2: install-packages: exit code 100"}),
        json!({"t": 12.5, "event": "error", "kind": "failed", "exit_code": 1, "message": "exit code 100", "host": "node2",
               "step": "install-packages", "left": "the host is up", "hints": ["try again"],
               "excerpts": [{"title": "stderr", "text": "E: </pre><script>alert(1)</script> & \u{1b}[31m\"x\""}]}),
    ]
}

fn log(events: &[Value]) -> String {
    events.iter().map(|event| format!("{event}\n")).collect()
}

/// A crash of the leader's host, run twice: once without loss, once with a lost commit.
fn record() -> Value {
    let drill = |run: usize, outage: f64, missing: usize| {
        json!({
            "scenario": "crash-host", "run": run, "hosts": ["node1"], "begun": "2026-01-02T03:04:05Z",
            "route": "direct", "bound": 22.0,
            "measured": {
                "write_outage": outage, "read_outage": 0.2, "worst_writer": outage, "worst_reader": 0.2,
                "write_baseline": 0.02, "read_baseline": 0.01,
                "write_gaps": [{"from": 2.0, "to": 2.0 + outage}], "read_gaps": [],
                "write_errors": {"refused": 3, "read_only": 1}, "read_errors": {},
                "acknowledged": 120, "missing": missing, "unexpected": 1,
                "missing_rows": if missing > 0 { vec!["2/17"] } else { vec![] },
                "new_leader": outage - 0.2, "whole": 4.0, "leader_before": "node1", "leader_after": "node2",
                "timeline_before": 1, "timeline_after": 2, "two_leaders": [],
            },
            "failures": if missing > 0 { vec!["1 commit is missing"] } else { vec![] },
            "samples": {
                "step_ms": 1000,
                "writes_ok": [40, 41, 0, 0, 38, 40, 40, 40], "writes_failed": [0, 0, 2, 2, 0, 0, 0, 0],
                "reads_ok": [90, 90, 70, 90, 90, 90, 90, 90], "reads_failed": [0, 0, 1, 0, 0, 0, 0, 0],
            },
            "marks": [
                {"t": 0.0, "moment": "load"}, {"t": 2.0, "moment": "fault", "host": "node1"},
                {"t": 2.1, "moment": "refused"}, {"t": 3.8, "moment": "new_leader", "host": "node2"},
                {"t": 4.0, "moment": "accepted"}, {"t": 8.0, "moment": "end"},
            ],
            "bands": [
                {"member": "node1", "role": "leader", "from": 0.0, "to": 2.0},
                {"member": "node1", "role": "down", "from": 2.0, "to": 8.0},
                {"member": "node2", "role": "replica", "from": 0.0, "to": 3.8},
                {"member": "node2", "role": "leader", "from": 3.8, "to": 8.0},
            ],
        })
    };
    json!({
        "format": 1, "cluster": "postgres", "version": "0.1.0", "begun": "2026-01-02T03:04:05Z",
        "settings": {"ttl": 20, "loop_wait": 2, "retry_timeout": 5, "synchronous": false, "failsafe": true,
                     "tls": true, "members": 2, "etcd": 1},
        "limits": {"max_outage": 30.0, "max_lost": 0},
        "drills": [drill(1, 1.5, 0), drill(2, 2.0, 1)],
        "summaries": [{
            "scenario": "crash-host", "runs": 2, "passed": 1, "bound": 22.0,
            "write_outage": {"median": 1.75, "worst": 2.0}, "read_outage": {"median": 0.2, "worst": 0.2},
            "new_leader": {"median": 1.55, "worst": 1.8}, "whole": {"median": 4.0, "worst": 4.0},
            "acknowledged": 240, "missing": 1, "two_leaders": 0,
        }],
        "passed": false,
    })
}

/// A run's folder with these files.
fn folder(events: &str, drill: Option<&Value>) -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("2026-01-02T03-04-05Z");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(EVENTS), events).unwrap();
    fs::write(folder.join("node1.log"), "Reading package lists...").unwrap();
    if let Some(drill) = drill {
        fs::write(folder.join(record::FILE), drill.to_string()).unwrap();
    }
    (parent, folder)
}

fn page(events: &str, drill: Option<&Value>) -> String {
    let (_parent, folder) = folder(events, drill);
    KeptRun::read(&folder).unwrap().html()
}

/// Reads a page, and checks that it is valid and loads nothing.
fn parsed(page: &str) -> Html {
    let html = Html::parse_document(page);
    assert_eq!(html.errors, Vec::<String>::new(), "{page}");
    for word in ["url(", "@import", "@font-face", "//", "javascript:"] {
        let found = page.find(word).map(|at| &page[at.saturating_sub(60)..]);
        assert_eq!(found, None, "{word} in a page");
    }
    for element in html.select(&Selector::parse("*").unwrap()) {
        let name = element.value().name();
        let foreign = [
            "script", "link", "img", "iframe", "object", "embed", "use", "image", "form",
        ];
        assert!(!foreign.contains(&name), "<{name}> in a page");
        for (attribute, value) in element.value().attrs() {
            assert!(
                !attribute.starts_with("on") && attribute != "src",
                "{attribute} in <{name}>"
            );
            assert!(attribute != "href" || value.starts_with('#'), "{value}");
        }
    }
    html
}

fn texts(html: &Html, selector: &str) -> Vec<String> {
    html.select(&Selector::parse(selector).unwrap())
        .map(|element| {
            let text: Vec<&str> = element.text().collect();
            text.concat()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect()
}

/// A page without its style sheet, which would be most of a snapshot.
fn bare(page: &str) -> String {
    let (before, rest) = page.split_once("<style>").unwrap();
    let (_, after) = rest.split_once("</style>").unwrap();
    let page = format!("{before}{after}");
    page.replace("><", ">\n<")
}

#[test]
fn a_run_is_on_one_page_with_every_step_and_no_foreign_thing() {
    let page = page(&log(&events()), None);
    let html = parsed(&page);
    assert_eq!(texts(&html, "h1"), ["postgres failed"]);
    let steps: BTreeSet<String> = texts(&html, "table.steps tbody tr").into_iter().collect();
    assert_eq!(
        steps.into_iter().collect::<Vec<_>>(),
        [
            "2.0 snode1install-packageschanged7.0 sinstall-packages is missing",
            "2.0 snode2install-packagesfailed7.5 sinstall-packages is missing",
            "9.0 snode1await-leaderdone3.0 sawait-leader is missing after install-packages",
            "node2start-patroninever ranstart-patroni is missing after install-packages, await-leader on node1",
        ]
    );
    // A bar for each: the network, two launches, a connection, facts, three steps.
    assert_eq!(texts(&html, "svg.bar").len(), 8);
    insta::assert_snapshot!(bare(&page));
}

#[test]
fn what_a_host_printed_is_shown_and_does_nothing() {
    let html = parsed(&page(&log(&events()), None));
    assert_eq!(
        texts(&html, ".failure pre"),
        ["E: </pre><script>alert(1)</script> & \"x\""]
    );
    assert_eq!(texts(&html, ".failure h3"), ["node2 install-packages"]);
    assert_eq!(texts(&html, ".hint"), ["try again"]);
}

#[test]
fn the_critical_path_is_marked_in_the_chart_and_listed() {
    let html = parsed(&page(&log(&events()), None));
    let listed = texts(&html, "table.path tbody tr td:nth-child(3)");
    assert_eq!(
        listed,
        [
            "pgherd itself",
            "make network postgres-net",
            "launch",
            "connect",
            "read facts",
            "pgherd itself",
            "install-packages",
            "await-leader",
            "pgherd itself"
        ]
    );
    assert_eq!(texts(&html, "svg.bar.critical").len(), 6);
}

#[test]
fn a_run_that_was_killed_has_its_page_too() {
    let mut text = log(&events()[..20]);
    text.push_str("{\"t\":9.6,\"event\":\"step_fini");
    let html = parsed(&page(&text, None));
    assert_eq!(texts(&html, "h1"), ["postgres never finished"]);
    // The step that was running, and the one that never began.
    assert_eq!(texts(&html, "svg.bar.cut-off").len(), 1);
    assert_eq!(texts(&html, "tr.not-run").len(), 1);
    parsed(&page("", None));
}

#[test]
fn without_the_whole_error_what_steps_said_is_shown() {
    let mut events = events();
    events.pop();
    events[19]["error"] = "node2: install-packages: exit code 100".into();
    let html = parsed(&page(&log(&events), None));
    assert_eq!(
        texts(&html, ".failure .what"),
        ["node2: install-packages: exit code 100"]
    );
}

#[test]
fn steps_of_a_second_plan_are_not_taken_for_those_of_the_first() {
    let mut again: Vec<Value> = events()[10..20].to_vec();
    for event in &mut again {
        event["t"] = (event["t"].as_f64().unwrap() + 20.0).into();
    }
    let history = replay::read(&(log(&events()[..21]) + &log(&again)));
    assert_eq!(history.steps().count(), 6);
    let last = critical::critical_path(&history).last().copied().unwrap();
    assert!((history.spans[last.span].begin - 29.0).abs() < 1e-9);
}

#[test]
fn hosts_that_moved_and_things_that_were_altered_are_counted() {
    let events = [
        json!({"t": 0.5, "event": "host", "host": "node1", "state": "moved", "detail": "10.0.0.9, not 10.0.0.1"}),
        json!({"t": 0.7, "event": "resource", "kind": "security group", "id": "sg-1", "name": "postgres-etcd", "state": "changed"}),
    ];
    let history = replay::read(&log(&events));
    assert_eq!((history.moved, history.altered), (1, 1));
    let names: Vec<&str> = history
        .spans
        .iter()
        .map(|span| span.name.as_str())
        .collect();
    assert_eq!(names, ["move", "change security group postgres-etcd"]);
}

#[test]
fn a_drill_is_on_one_page_with_what_clients_felt() {
    let events = [
        json!({"t": 0.0, "event": "run_started", "verb": "drill", "cluster": "postgres", "version": "0.1.0",
               "at": "2026-01-02T03:04:05Z"}),
        json!({"t": 90.0, "event": "run_finished", "exit_code": 3, "seconds": 90.0, "error": "1 drill was not passed"}),
    ];
    let page = page(&log(&events), Some(&record()));
    let html = parsed(&page);
    assert_eq!(texts(&html, "h1"), ["postgres not passed"]);
    assert_eq!(
        texts(&html, ".results tbody td"),
        [
            "crash-host",
            "1 of 2",
            "1",
            "1.8 s / 2.0 s",
            "22.0 s",
            "",
            "0.2 s / 0.2 s",
            "1.6 s / 1.8 s",
            "4.0 s / 4.0 s",
            "240"
        ]
    );
    // The run with the loss is shown; the other is folded.
    assert_eq!(
        texts(&html, "section > article.drill h3"),
        ["Run 2 of 2: node1 not passed"]
    );
    assert_eq!(
        texts(&html, "details article h3"),
        ["Run 1 of 2: node1 passed"]
    );
    assert_eq!(
        texts(&html, "section > article .marks li"),
        [
            "+0.0 s broken now (node1)",
            "+1.8 s takes writes, on a new timeline (node2)",
            "+2.0 s writes are accepted again"
        ]
    );
    assert_eq!(texts(&html, "section > article svg.band title").len(), 4);
    assert_eq!(texts(&html, "section > article rect.gap").len(), 1);
    insta::assert_snapshot!(bare(&page));
}

#[test]
fn what_a_hold_cost_is_marked_and_said() {
    let mut record = record();
    let drill = &mut record["drills"][1];
    drill["hold"] =
        json!({"from": 0.5, "to": 2.0, "behind": 2048, "limit": 1_048_576, "waited": 0.1});
    drill["measured"]["missing_span"] = json!({"from": 0.6, "to": 1.9});
    drill["marks"][0] = json!({"t": 0.5, "moment": "held_up", "host": "node1"});
    let html = parsed(&page(&log(&events()), Some(&record)));
    assert_eq!(
        texts(&html, "rect.held-up title"),
        ["replication is held up"]
    );
    assert_eq!(
        texts(&html, "section > article .marks li")[0],
        "−1.5 s replication is held up (node1)"
    );
    assert_eq!(
        texts(&html, "article.drill .numbers + p")[0],
        "Replication was held up for 1.5 s, until the best replica lacked 2.0 KiB (one that lacks more than \
          1.0 MiB does not take over); 1 commit acknowledged within 1.3 s is missing."
    );
}

#[test]
fn a_record_of_another_version_leaves_the_run_to_be_told() {
    let html = parsed(&page(&log(&events()), Some(&json!({"format": 99}))));
    assert_eq!(texts(&html, "table.steps").len(), 1);
}

#[test]
fn the_text_for_a_terminal_says_the_same() {
    let (_parent, folder) = folder(&log(&events()), None);
    let run = KeptRun::read(&folder).unwrap();
    insta::assert_snapshot!(run.text(&crate::report::Side::default()));
}

#[test]
fn a_page_is_its_owners_and_is_made_anew_only_when_it_is_old() {
    let (_parent, folder) = folder(&log(&events()), None);
    let run = KeptRun::read(&folder).unwrap();
    let path = run.page().unwrap();
    assert_eq!(path, folder.join(PAGE));
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    fs::write(&path, "kept").unwrap();
    run.page().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    fs::File::open(&path)
        .unwrap()
        .set_modified(hour_ago)
        .unwrap();
    run.page().unwrap();
    assert_ne!(fs::read_to_string(&path).unwrap(), "kept");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_part_of_a_log_in_any_order_makes_a_sound_page(
        lines in proptest::sample::subsequence(events(), 0..events().len()),
        swaps in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut lines = lines;
        if !lines.is_empty() {
            for (a, b) in swaps {
                let (a, b) = (a.index(lines.len()), b.index(lines.len()));
                lines.swap(a, b);
            }
        }
        let text = log(&lines);
        let cut = (0..=cut.index(text.len() + 1)).rev().find(|cut| text.is_char_boundary(*cut));
        parsed(&page(&text[..cut.unwrap_or(0)], None));
    }
}
