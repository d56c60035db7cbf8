//! What a person sees of a drill.

use super::{bars::screen_of, *};
use crate::event::Moment;

fn moment(t: f64, moment: Moment, on: Option<&str>) -> Stamped {
    let host = on.map(HostName::new);
    at(t, Event::DrillMoment { moment, host })
}

fn load(t: f64, refused: Option<f64>) -> Stamped {
    let (writes, reads) = if refused.is_some() {
        (0, 240)
    } else {
        (280, 250)
    };
    at(
        t,
        Event::Load {
            writes,
            reads,
            refused,
        },
    )
}

fn begins(t: f64, scenario: &'static str, run: usize, on: &str) -> Stamped {
    at(
        t,
        Event::DrillStarted {
            scenario,
            run,
            runs: 2,
            hosts: vec![host(on)],
        },
    )
}

/// The second run of a crash in which commits are lost.
fn drill() -> Vec<Stamped> {
    vec![
        at(
            0.5,
            Event::FactsRead {
                host: host("node1"),
            },
        ),
        begins(1.0, "crash-host", 2, "node1"),
        moment(1.5, Moment::Load, None),
        load(2.0, None),
        moment(4.0, Moment::HeldUp, Some("node1")),
        moment(7.0, Moment::Fault, Some("node1")),
        moment(7.4, Moment::Refused, None),
        load(9.0, Some(2.0)),
        moment(27.0, Moment::NewLeader, Some("node2")),
        moment(27.1, Moment::Accepted, None),
        load(28.0, None),
        moment(30.0, Moment::Repair, None),
        moment(38.0, Moment::Whole, None),
        moment(40.0, Moment::End, None),
        at(
            40.1,
            Event::DrillFinished {
                scenario: "crash-host",
                passed: false,
                write_outage: 20.0,
                read_outage: 0.2,
                acknowledged: 5414,
                missing: 1788,
            },
        ),
    ]
}

fn first(n: usize) -> Vec<Stamped> {
    drill().into_iter().take(n).collect()
}

#[test]
fn each_moment_has_its_line() {
    insta::assert_snapshot!(plain_of(0, drill()), @"
     1.0s  -        crash-host              breaks node1, run 2 of 2
     1.5s  -        drill                   writers and readers at work
     4.0s  node1    drill                   replication is held up
     7.0s  node1    drill                   broken now
     7.4s  -        drill                   writes are refused
    27.0s  node2    drill                   takes writes, on a new timeline
    27.1s  -        drill                   writes are accepted again
    30.0s  -        drill                   put right
    38.0s  -        drill                   whole again
    40.0s  -        drill                   writers and readers stopped
    40.1s  -        crash-host              not passed: no writes for 20.0 s, no reads for 0.2 s, 1788 of 5414 commits missing
    ");
    let verbose = plain_of(1, drill());
    let load: Vec<&str> = verbose.lines().filter(|it| it.contains("/s")).collect();
    insta::assert_snapshot!(load.join("\n"), @"
     2.0s  -        load                    280 writes/s, 250 reads/s
     9.0s  -        load                    0 writes/s, 240 reads/s, no write for 2.0 s
    28.0s  -        load                    280 writes/s, 250 reads/s
    ");
}

#[test]
fn a_change_of_leader_is_not_said_to_break_anything() {
    let events = vec![
        begins(1.0, "switchover", 1, "node1"),
        moment(4.0, Moment::Fault, Some("node1")),
        moment(5.2, Moment::NewLeader, Some("node2")),
        // The next drill of `all` does.
        begins(9.0, "kill-leader", 1, "node2"),
        moment(12.0, Moment::Fault, Some("node2")),
    ];
    insta::assert_snapshot!(plain_of(0, events.clone()), @"
     1.0s  -        switchover              moves the leader away from node1, run 1 of 2
     4.0s  node1    drill                   a change of leader is asked for
     5.2s  node2    drill                   takes writes, on a new timeline
     9.0s  -        kill-leader             breaks node2, run 1 of 2
    12.0s  node2    drill                   broken now
    ");
    let (term, _sinks) = screen_of(24, 80, 0, events.into_iter().take(3).collect());
    assert!(!term.contents().contains("broken"), "{}", term.contents());
}

#[test]
fn bars_show_what_was_done_to_whom_and_what_clients_get() {
    let (term, _sinks) = screen_of(24, 80, 0, first(4));
    insta::assert_snapshot!(term.contents(), @"
       1.5s  -        drill                   writers and readers at work
    · node1
    · node2
    · haproxy
      crash-host  2s  280 writes/s  250 reads/s
    ");
    let (term, _sinks) = screen_of(24, 80, 0, first(8));
    insta::assert_snapshot!(term.contents(), @"
       1.5s  -        drill                   writers and readers at work
       4.0s  node1    drill                   replication is held up
       7.0s  node1    drill                   broken now
       7.4s  -        drill                   writes are refused
    ✗ node1    broken now
    · node2
    · haproxy
      crash-host  9s  0 writes/s  240 reads/s  no write for 2.0 s
    ");
    let (term, _sinks) = screen_of(24, 80, 0, first(12));
    let board: Vec<String> = term
        .contents()
        .lines()
        .rev()
        .take(4)
        .map(str::to_owned)
        .collect();
    insta::assert_snapshot!(board.join("\n"), @"
      crash-host  30s  280 writes/s  250 reads/s
    · haproxy
    ✓ node2    takes writes, on a new timeline
    ✓ node1    put right
    ");
    let (term, _sinks) = screen_of(24, 80, 0, drill());
    let last = term.contents();
    assert!(!last.contains("writes/s"), "{last}");
}

#[test]
fn a_host_that_was_hurt_is_not_left_out_on_a_low_terminal() {
    let (term, _sinks) = screen_of(4, 80, 0, first(8));
    assert!(
        term.contents().contains("node1    broken now"),
        "{}",
        term.contents()
    );
}
