mod bars;
mod drill;
mod summary;

use std::{
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use serde_json::Value;

use super::*;
use crate::{
    error::{Code, Error},
    event::{HostState, Outcome, Stream},
    secret::Secret,
};

fn host(name: &str) -> HostName {
    HostName::new(name)
}

fn hosts() -> Vec<HostName> {
    ["node1", "node2", "haproxy"].map(HostName::new).to_vec()
}

fn at(t: f64, event: Event) -> Stamped {
    Stamped { t, event }
}

fn state(t: f64, name: &str, state: HostState, detail: Option<&str>) -> Stamped {
    at(
        t,
        Event::Host {
            host: host(name),
            state,
            detail: detail.map(str::to_owned),
        },
    )
}

fn started(t: f64, step: usize, on: &str, name: &'static str) -> Stamped {
    at(
        t,
        Event::StepStarted {
            step,
            host: host(on),
            name,
        },
    )
}

fn output(t: f64, step: usize, on: &str, name: &'static str, line: &str) -> Stamped {
    at(
        t,
        Event::StepOutput {
            step,
            host: host(on),
            name,
            stream: if line.starts_with("E:") {
                Stream::Stderr
            } else {
                Stream::Stdout
            },
            line: line.to_owned(),
        },
    )
}

fn finished(
    t: f64,
    step: usize,
    on: &str,
    name: &'static str,
    outcome: Outcome,
    seconds: f64,
) -> Stamped {
    at(
        t,
        Event::StepFinished {
            step,
            host: host(on),
            name,
            outcome,
            seconds,
            error: (outcome == Outcome::Failed)
                .then(|| "apt-get exited with code 100\nand more".to_owned()),
            code: (outcome == Outcome::Failed).then_some(Code::ScriptFailed),
        },
    )
}

fn check(t: f64, check: &'static str, passed: bool, detail: &str) -> Stamped {
    at(
        t,
        Event::Check {
            check,
            passed,
            detail: detail.to_owned(),
        },
    )
}

/// A small run with everything in it; one step fails, and the password appears in its output.
fn run() -> Vec<Stamped> {
    vec![
        at(
            0.0,
            Event::RunStarted {
                verb: "up",
                cluster: "postgres".into(),
                version: "0.1.0",
                at: "2026-01-02T03:04:05Z".parse().expect("a timestamp"),
            },
        ),
        at(
            0.1,
            Event::Image {
                image: "pgherd-host:debian-12".into(),
                line: "building".into(),
            },
        ),
        at(
            0.2,
            Event::Image {
                image: "pgherd-host:debian-12".into(),
                line: "I: Retrieving \u{1b}[1msystemd\u{1b}[0m".into(),
            },
        ),
        at(
            1.0,
            Event::Resource {
                kind: "network".into(),
                id: "0123abcd".into(),
                name: "pgherd-postgres".into(),
                state: HostState::Created,
            },
        ),
        state(1.0, "node1", HostState::Creating, None),
        state(1.5, "node1", HostState::Created, Some("192.168.0.11")),
        state(1.6, "node1", HostState::Connecting, None),
        state(2.0, "node1", HostState::Connected, None),
        at(
            2.1,
            Event::FactsRead {
                host: host("node1"),
            },
        ),
        at(
            2.2,
            Event::Planned {
                steps: 4,
                changes: 3,
            },
        ),
        started(2.3, 0, "node1", "install-packages"),
        started(2.3, 1, "node2", "install-packages"),
        output(
            3.0,
            0,
            "node1",
            "install-packages",
            "Setting up postgresql-16 ...",
        ),
        output(
            3.1,
            1,
            "node2",
            "install-packages",
            "E: password is hunter2!",
        ),
        started(3.2, 2, "node1", "write-files"),
        output(3.3, 2, "node1", "write-files", "10%\r100%"),
        output(3.4, 0, "node1", "install-packages", "Processing triggers"),
        finished(3.5, 2, "node1", "write-files", Outcome::Done, 0.300_041_2),
        finished(10.4, 0, "node1", "install-packages", Outcome::Changed, 8.1),
        finished(72.0, 1, "node2", "install-packages", Outcome::Failed, 69.7),
        finished(72.0, 3, "haproxy", "start-unit", Outcome::Cancelled, 0.0),
        at(72.1, Event::VerifyStarted),
        check(72.2, "one-leader", true, "node1"),
        check(72.3, "replicas-streaming", false, "0 of 1"),
        at(73.1, Event::VerifyStarted),
        check(73.2, "one-leader", true, "node1"),
        check(73.3, "replicas-streaming", false, "0 of 1"),
        check(74.3, "replicas-streaming", true, "1 of 1"),
        at(
            75.0,
            Event::RunFinished {
                exit_code: 1,
                seconds: 75.04,
                error: Some("hunter2".into()),
                code: Some(Code::ScriptFailed),
            },
        ),
    ]
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8(bytes.clone()).expect("UTF-8")
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn terminal(verbose: u8) -> Terminal {
    let terminal = Terminal {
        verbose,
        ..Terminal::default()
    };
    terminal.conceal(&[Secret::new("hunter2")]);
    terminal
}

fn feed(sinks: &mut Sinks, events: Vec<Stamped>) {
    for event in events {
        sinks.event(event);
    }
    sinks.flush();
}

fn plain(verbose: u8) -> String {
    plain_of(verbose, run())
}

fn plain_of(verbose: u8, events: Vec<Stamped>) -> String {
    let buffer = Buffer::default();
    let terminal = terminal(verbose);
    let people = People::lines(&terminal, &hosts(), Pipe::new(buffer.clone()));
    let mut sinks = Sinks::new(terminal, None, None, Some(people));
    feed(&mut sinks, events);
    buffer.text()
}

#[test]
fn piped_there_is_a_line_for_each_result() {
    insta::assert_snapshot!(plain(0), @"
     0.1s  -        image                   pgherd-host:debian-12: building
     1.0s  -        network                 created pgherd-postgres (0123abcd)
     1.5s  node1    host                    created (192.168.0.11)
     2.0s  node1    host                    connected
     2.2s  -        plan                    4 steps, 3 changes
     3.5s  node1    write-files             done (0.3 s)
    10.4s  node1    install-packages        changed (8.1 s)
    72.0s  node2    install-packages        failed (1 m 10 s): apt-get exited with code 100
    72.2s  -        one-leader              passed (node1)
    74.3s  -        replicas-streaming      passed (1 of 1)
    ");
}

#[test]
fn verbose_there_is_a_line_for_each_start_too() {
    insta::assert_snapshot!(plain(1), @"
     0.0s  -        up                      postgres (pgherd 0.1.0)
     0.1s  -        image                   pgherd-host:debian-12: building
     1.0s  -        network                 created pgherd-postgres (0123abcd)
     1.0s  node1    host                    creating
     1.5s  node1    host                    created (192.168.0.11)
     1.6s  node1    host                    connecting
     2.0s  node1    host                    connected
     2.1s  node1    facts                   read
     2.2s  -        plan                    4 steps, 3 changes
     2.3s  node1    install-packages        started
     2.3s  node2    install-packages        started
     3.2s  node1    write-files             started
     3.5s  node1    write-files             done (0.3 s)
    10.4s  node1    install-packages        changed (8.1 s)
    72.0s  node2    install-packages        failed (1 m 10 s): apt-get exited with code 100
    72.0s  haproxy  start-unit              cancelled
    72.2s  -        one-leader              passed (node1)
    72.3s  -        replicas-streaming      not yet (0 of 1)
    74.3s  -        replicas-streaming      passed (1 of 1)
    ");
}

#[test]
fn very_verbose_there_is_the_output_of_the_hosts() {
    let text = plain(2);
    assert!(text.lines().all(|line| line == line.trim_end()));
    let output: Vec<&str> = text.lines().filter(|line| line.contains("| ")).collect();
    insta::assert_snapshot!(output.join("\n"), @"
    3.0s  node1    install-packages        | Setting up postgresql-16 ...
    3.1s  node2    install-packages        | E: password is ***!
    3.3s  node1    write-files             | 100%
    3.4s  node1    install-packages        | Processing triggers
    ");
    assert!(!text.contains('\u{1b}') && !text.contains("hunter2"));
}

#[test]
fn json_lines_parse_back_and_hold_no_secret() {
    let buffer = Buffer::default();
    let mut sinks = Sinks::new(terminal(0), None, Some(Pipe::new(buffer.clone())), None);
    feed(&mut sinks, run());
    let text = buffer.text();
    let events: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON object"))
        .collect();
    assert_eq!(events.len(), run().len());
    assert!(
        events
            .iter()
            .all(|e| e["t"].is_f64() && e["event"].is_string())
    );
    assert_eq!(events[0]["event"], "run_started");
    let step = events.iter().find(|e| e["event"] == "step_finished");
    insta::assert_json_snapshot!(step, @r#"
    {
      "t": 3.5,
      "event": "step_finished",
      "step": 2,
      "host": "node1",
      "name": "write-files",
      "outcome": "done",
      "seconds": 0.3
    }
    "#);
    assert!(!text.contains("hunter2"));
    assert!(text.contains(r#""line":"E: password is ***!""#), "{text}");
}

#[test]
fn the_run_log_keeps_events_and_each_hosts_output() {
    let folder = tempfile::tempdir().expect("a folder");
    let path: PathBuf = folder.path().join("runs/2026-01-02T03-04-05");
    let log = RunLog::create(&path).expect("a log");
    let mut sinks = Sinks::new(terminal(0), Some(log), None, None);
    feed(&mut sinks, run());
    let run_result = sinks.finish();
    assert_eq!(run_result.log.as_deref(), Some(path.as_path()));
    assert_eq!(run_result.log_trouble, None);

    let read = |name: &str| std::fs::read_to_string(path.join(name)).expect("a file");
    assert_eq!(read("events.jsonl").lines().count(), run().len());
    assert!(!read("events.jsonl").contains("hunter2"));
    insta::assert_snapshot!(read("node1.log"), @"
    # pgherd 0.1.0 up, cluster postgres, begun 2026-01-02T03:04:05Z
        1.000 == creating
        1.500 == created (192.168.0.11)
        1.600 == connecting
        2.000 == connected
        2.100 == facts read
        2.300 == install-packages
        3.000   Setting up postgresql-16 ...
        3.200 == write-files
        3.300   10%
        3.300   100%
        3.400 == install-packages, continued
        3.400   Processing triggers
        3.500 == write-files: done (0.3 s)
       10.400 == install-packages: changed (8.1 s)
    ");
    insta::assert_snapshot!(read("node2.log"), @"
    # pgherd 0.1.0 up, cluster postgres, begun 2026-01-02T03:04:05Z
        2.300 == install-packages
        3.100 ! E: password is ***!
       72.000 == install-packages: failed (1 m 10 s)
       72.000 ! apt-get exited with code 100
       72.000 ! and more
    ");
    // A host on which nothing ran has no log.
    assert!(!path.join("haproxy.log").exists());

    let mode = std::fs::metadata(path.join("node1.log"))
        .expect("a file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_run_is_put_on_a_page_with_its_error_and_without_its_secrets() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = RunLog::create(folder.path()).expect("a log");
    let mut sinks = Sinks::new(terminal(0), Some(log), None, None);
    feed(&mut sinks, run());
    let error = Error::new(Code::ScriptFailed, "exit code 100")
        .on(&host("node2"))
        .excerpt("stderr", "E: password is hunter2!");
    sinks.failure(crate::report::error_json(&error));
    let run = sinks.finish();
    assert_eq!(run.log_trouble, None);
    let page = run.page.expect("a page");
    assert_eq!(page, folder.path().join("report.html"));
    let page = std::fs::read_to_string(page).expect("the page");
    assert!(page.contains("E: password is ***!"), "{page}");
    assert!(!page.contains("hunter2"), "{page}");
    let events = std::fs::read_to_string(folder.path().join("events.jsonl")).expect("a file");
    assert!(!events.contains("hunter2"), "{events}");
}

#[test]
fn a_log_that_cannot_be_kept_is_an_error_with_its_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("a file");
    let error = RunLog::create(&file.join("runs")).expect_err("a file is no folder");
    assert!(error.what().contains("file/runs"), "{error}");
}

#[test]
fn a_reader_that_goes_away_does_not_stop_the_run() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }
    let terminal = terminal(0);
    let people = People::lines(&terminal, &hosts(), Pipe::new(Closed));
    let mut sinks = Sinks::new(terminal, None, Some(Pipe::new(Closed)), Some(people));
    feed(&mut sinks, run());
    feed(&mut sinks, run());
    assert_eq!(sinks.finish().failed, 2);
}

#[tokio::test]
async fn a_report_ends_though_senders_live_on() {
    use crate::{
        event::Events,
        report::{Options, Reporter},
    };
    let folder = tempfile::tempdir().expect("a folder");
    let (events, receiver) = Events::channel();
    let options = Options {
        terminal: terminal(0),
        run_log: Some(RunLog::create(folder.path()).expect("a log")),
        hosts: hosts(),
    };
    let report = Reporter::start(receiver, options);
    events.host(&host("node1"), HostState::Creating, None);
    events.host(&host("node1"), HostState::Created, None);
    let answer = report.aside(async { 42 }).await;
    assert_eq!(answer, 42);
    let run = report.conclude(None).await;
    assert_eq!(run.created, 1);
    // Nobody listens any more, which is no error.
    events.host(&host("node1"), HostState::Removed, None);
    let kept = std::fs::read_to_string(folder.path().join("events.jsonl")).expect("a file");
    assert_eq!(kept.lines().count(), 2);
}

#[tokio::test]
async fn a_report_that_is_given_up_is_complete_when_its_handle_is_gone() {
    use crate::{
        event::Events,
        report::{Options, Reporter},
    };
    let folder = tempfile::tempdir().expect("a folder");
    let (events, receiver) = Events::channel();
    let options = Options {
        terminal: terminal(0),
        run_log: Some(RunLog::create(folder.path()).expect("a log")),
        hosts: hosts(),
    };
    let report = Reporter::start(receiver, options);
    events.host(&host("node1"), HostState::Connected, None);
    drop(report);
    let kept = std::fs::read_to_string(folder.path().join("node1.log")).expect("a file");
    assert!(kept.contains("== connected"), "{kept}");
}
