use indicatif::InMemoryTerm;

use super::*;
use crate::report::{plain::Plain, terminal::Side};

/// Bars on a screen in memory, after the first `n` events of the run.
fn screen(rows: u16, columns: u16, verbose: u8, n: usize) -> (InMemoryTerm, Sinks) {
    let events = run().into_iter().take(n).collect();
    screen_of(rows, columns, verbose, events)
}

pub(super) fn screen_of(
    rows: u16,
    columns: u16,
    verbose: u8,
    events: Vec<Stamped>,
) -> (InMemoryTerm, Sinks) {
    let term = InMemoryTerm::new(rows, columns);
    let terminal = terminal(verbose);
    let side = Side {
        terminal: true,
        unicode: true,
        ..Side::default()
    };
    let live = Live::new(Board::new(&hosts()), Arc::new(term.clone()), side);
    let detail = Detail::of(verbose, true);
    let plain = Plain::new(detail, Paint::OFF, &hosts());
    let people = People::Bars(plain, Box::new(live));
    let mut sinks = Sinks::new(terminal, None, None, Some(people));
    feed(&mut sinks, events);
    sinks.draw();
    (term, sinks)
}

#[test]
fn bars_show_the_image_first() {
    let (term, _sinks) = screen(24, 80, 0, 3);
    insta::assert_snapshot!(term.contents(), @"
    ⠹ image pgherd-host:debian-12  0s  I: Retrieving systemd
    · node1
    · node2
    · haproxy
      up  0s
    ");
}

#[test]
fn bars_show_each_hosts_step_and_its_last_line() {
    let (term, _sinks) = screen(24, 80, 0, 17);
    insta::assert_snapshot!(term.contents(), @"
    ⠹ node1    install-packages +1     1s  100%
    ⠹ node2    install-packages        1s  E: password is ***!
    · haproxy
      ────────────────────────  0/4 steps  3s
    ");
}

#[test]
fn failures_stay_above_the_bars() {
    let (term, _sinks) = screen(24, 80, 0, 24);
    insta::assert_snapshot!(term.contents(), @"
      72.0s  node2    install-packages        failed (1 m 10 s): apt-get exited with
                                              code 100
    ✓ node1    install-packages, 2 steps done
    ✗ node2    install-packages failed
    · haproxy
      ━━━━━━━━━━━━━━━━━━━━━━━━  4/4 steps  1m12s  1 failed  verify 1/2  replicas-st…
    ");
}

#[test]
fn verbose_results_stay_above_the_bars_and_the_bars_go_at_the_end() {
    let (term, sinks) = screen(24, 80, 1, 100);
    sinks.finish();
    insta::assert_snapshot!(term.contents(), @"
     0.1s  -        image                   pgherd-host:debian-12: building
     1.0s  -        network                 created pgherd-postgres (0123abcd)
     1.5s  node1    host                    created (192.168.0.11)
     2.0s  node1    host                    connected
     2.2s  -        plan                    4 steps, 3 changes
     3.5s  node1    write-files             done (0.3 s)
    10.4s  node1    install-packages        changed (8.1 s)
    72.0s  node2    install-packages        failed (1 m 10 s): apt-get exited with
                                            code 100
    72.2s  -        one-leader              passed (node1)
    74.3s  -        replicas-streaming      passed (1 of 1)
    ");
}

#[test]
fn no_line_is_wider_than_a_narrow_terminal() {
    for columns in [3, 8, 20, 40, 59, 60] {
        let (term, mut sinks) = screen(24, columns, 0, 17);
        sinks.draw();
        let lines = term.contents().lines().count();
        assert_eq!(lines, 4, "{columns} columns:\n{}", term.contents());
    }
    let (term, _sinks) = screen(24, 24, 0, 17);
    insta::assert_snapshot!(term.contents(), @"
    ⠹ node1    install-pack…
    ⠹ node2    install-pack…
    · haproxy
      0/4 steps  3s
    ");
}

#[test]
fn a_low_terminal_shows_the_hosts_at_work() {
    let (term, mut sinks) = screen(4, 80, 0, 17);
    sinks.draw();
    insta::assert_snapshot!(term.contents(), @"
    ⠸ node1    install-packages +1     1s  100%
      and 2 hosts more
      ────────────────────────  0/4 steps  3s
    ");
}

#[test]
fn bars_step_aside_and_come_back() {
    let (term, mut sinks) = screen(24, 80, 0, 17);
    sinks.hide();
    assert_eq!(term.contents(), "");
    sinks.draw();
    assert_eq!(term.contents(), "");
    sinks.show();
    assert_eq!(term.contents().lines().count(), 4);
}
