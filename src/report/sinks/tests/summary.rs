use super::*;
use crate::report::summary::{Summary, summary_text};

fn tallied(events: Vec<Stamped>) -> Run {
    let mut sinks = Sinks::new(terminal(0), None, None, None);
    feed(&mut sinks, events);
    sinks.finish()
}

#[test]
fn the_summary_names_the_slowest_steps_and_the_endpoints() {
    let endpoints = [
        ("write", "psql -h 127.0.0.1 -p 5000 -U postgres".to_owned()),
        ("read", "psql -h 127.0.0.1 -p 5001 -U postgres".to_owned()),
    ];
    let summary = Summary {
        settled: "",
        endpoints: &endpoints,
    };
    let good: Vec<Stamped> = run()
        .into_iter()
        .filter(|stamped| {
            !matches!(
                stamped.event,
                Event::RunFinished { .. }
                    | Event::StepFinished {
                        outcome: Outcome::Failed | Outcome::Cancelled,
                        ..
                    }
            )
        })
        .collect();
    insta::assert_snapshot!(summary_text(&tallied(good), &summary, Paint::OFF), @"
    done in 1 m 14 s: 2 created, 1 changed, 1 unchanged
      slowest  node1  install-packages      8.1 s
               node1  write-files           0.3 s
      write    psql -h 127.0.0.1 -p 5000 -U postgres
      read     psql -h 127.0.0.1 -p 5001 -U postgres
    ");
}

#[test]
fn the_summary_of_a_failure_points_to_the_log() {
    let mut run = tallied(run());
    run.log = Some(".pgherd/postgres/runs/1".into());
    run.log_trouble = Some("no space left on device".into());
    insta::assert_snapshot!(summary_text(&run, &Summary::default(), Paint::OFF), @"
    failed after 1 m 15 s: 2 created, 1 changed, 1 unchanged, 1 failed, 1 not run
      slowest  node2  install-packages   1 m 10 s
               node1  install-packages      8.1 s
               node1  write-files           0.3 s
      log      .pgherd/postgres/runs/1
    warning: the run's log is incomplete: no space left on device
    ");
}

#[test]
fn a_run_without_change_is_summed_up_in_one_line() {
    let run = tallied(vec![
        state(0.2, "node1", HostState::Connected, None),
        // It existed already: `created` without `creating`.
        state(0.2, "node2", HostState::Created, None),
        finished(0.8, 0, "node1", "wait-for-leader", Outcome::Done, 0.1),
        at(
            0.9,
            Event::RunFinished {
                exit_code: 0,
                seconds: 0.91,
                error: None,
                code: None,
            },
        ),
    ]);
    assert!(run.nothing_changed());
    let summary = Summary {
        settled: "5 hosts are as the inventory says",
        endpoints: &[("write", "x".to_owned())],
    };
    assert_eq!(
        summary_text(&run, &summary, Paint::OFF),
        "nothing to do: 5 hosts are as the inventory says  (0.9 s)\n"
    );
}

#[test]
fn a_run_that_was_stopped_or_broken_is_never_done() {
    let ended = |exit_code| {
        let event = Event::RunFinished {
            exit_code,
            seconds: 0.9,
            error: None,
            code: None,
        };
        let run = tallied(vec![
            finished(0.8, 0, "node1", "probe", Outcome::Done, 0.05),
            at(0.9, event),
        ]);
        summary_text(&run, &Summary::default(), Paint::OFF)
    };
    assert_eq!(ended(130), "stopped after 0.9 s: 1 unchanged\n");
    assert_eq!(ended(3), "failed after 0.9 s: 1 unchanged\n");
}
