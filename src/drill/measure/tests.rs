use super::*;
use crate::{drill::client_error::ClientError, inventory::HostName};

fn write(client: u32, from: f64, to: f64, timeline: u32) -> Attempt {
    Attempt {
        client,
        number: 0,
        kind: Kind::Write,
        from,
        to,
        refused: false,
        result: Ok(Some(timeline)),
    }
}

/// A writer's row with this number, answered at `to`.
fn numbered(client: u32, number: u64, to: f64) -> Attempt {
    Attempt {
        number,
        ..write(client, to - 0.1, to, 1)
    }
}

fn refused(client: u32, to: f64) -> Attempt {
    Attempt {
        client,
        number: 0,
        kind: Kind::Write,
        from: to - 0.01,
        to,
        refused: true,
        result: Err(ClientError::Closed),
    }
}

fn probe(member: &str, from: f64, seen: Seen, timeline: Option<u32>) -> Probe {
    Probe {
        member: HostName::new(member),
        from,
        to: from + 0.01,
        seen,
        timeline,
    }
}

/// Two writers; the fault at 1.0 interrupts the first one's connection until 4.0.
fn failover() -> Recording {
    Recording {
        attempts: vec![
            write(1, 0.0, 0.1, 1),
            write(2, 0.4, 0.5, 1),
            write(1, 0.8, 0.9, 1),
            write(2, 0.9, 1.1, 1),
            refused(2, 1.5),
            refused(2, 2.0),
            write(2, 2.9, 3.1, 2),
            write(2, 3.2, 3.3, 2),
            write(1, 3.9, 4.0, 2),
        ],
        probes: vec![
            probe("node1", 0.5, Seen::Leader, Some(1)),
            probe("node2", 0.5, Seen::Replica, None),
            probe("node1", 1.5, Seen::Down, None),
            probe("node2", 1.6, Seen::Replica, None),
            probe("node2", 3.0, Seen::Leader, Some(2)),
        ],
        length: 4.1,
    }
}

#[test]
fn an_outage_is_from_the_last_write_to_the_next() {
    let measured = measure(&failover(), 1.0, &Balance::default());
    assert!((measured.write_outage - 2.0).abs() < 1e-9);
    assert!((measured.worst_writer - 3.1).abs() < 1e-9);
    assert!((measured.write_baseline - 0.4).abs() < 1e-9);
    assert_eq!(
        measured.write_errors,
        BTreeMap::from([("closed".into(), 2)])
    );
    assert_eq!(measured.leader_before.as_deref(), Some("node1"));
    assert_eq!(measured.leader_after.as_deref(), Some("node2"));
    assert_eq!(
        (measured.timeline_before, measured.timeline_after),
        (Some(1), Some(2))
    );
    assert!((measured.new_leader.unwrap_or_default() - 2.01).abs() < 1e-9);
    assert_eq!(measured.two_leaders, []);
}

#[test]
fn what_clients_noticed_is_in_order() {
    let marks = marks(&failover(), 1.0);
    let told: Vec<(Moment, Option<&str>)> = marks
        .iter()
        .map(|mark| (mark.moment, mark.host.as_deref()))
        .collect();
    assert_eq!(
        told,
        [
            (Moment::Refused, None),
            (Moment::NewLeader, Some("node2")),
            (Moment::Accepted, None),
        ]
    );
    assert!((marks[0].t - 1.5).abs() < 1e-9);
}

#[test]
fn writes_that_never_come_back_are_an_outage_until_the_end() {
    let mut recording = failover();
    recording.attempts.truncate(4);
    recording.length = 60.0;
    let measured = measure(&recording, 1.0, &Balance::default());
    assert!((measured.write_outage - 58.9).abs() < 1e-9);
    assert_eq!(measured.write_gaps.last().map(|gap| gap.to), Some(60.0));
}

#[test]
fn a_leader_that_writes_after_its_successor_is_found() {
    let mut recording = failover();
    // Under way when the new leader began: no conflict can be proved.
    recording.attempts.push(write(3, 2.9, 3.2, 1));
    assert_eq!(conflicts(&recording), []);
    // Begun after that.
    recording
        .probes
        .push(probe("node1", 3.5, Seen::Leader, Some(1)));
    let found = conflicts(&recording);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].member.as_deref(), Some("node1"));
    assert_eq!((found[0].timeline, found[0].newer), (1, 2));
}

#[test]
fn two_members_on_one_timeline_are_two_leaders() {
    let mut recording = failover();
    recording
        .probes
        .push(probe("node3", 3.5, Seen::Leader, Some(2)));
    let found = conflicts(&recording);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].newer_member.as_deref(), Some("node2"));
}

#[test]
fn leadership_may_go_back_on_a_timeline_of_its_own() {
    let mut recording = failover();
    recording
        .probes
        .push(probe("node1", 5.0, Seen::Leader, Some(3)));
    recording.attempts.push(write(1, 5.1, 5.2, 3));
    assert_eq!(conflicts(&recording), []);
}

#[test]
fn samples_count_by_the_moment_of_the_answer() {
    let samples = samples(&failover());
    assert_eq!(samples.writes_ok.len(), 41);
    assert_eq!(samples.writes_ok.iter().sum::<u32>(), 7);
    assert_eq!(samples.writes_failed[15], 1);
    assert_eq!(samples.reads_ok.iter().sum::<u32>(), 0);
}

#[test]
fn bands_have_no_holes() {
    let bands = bands(&failover());
    let node2: Vec<(Seen, f64, f64)> = bands
        .iter()
        .filter(|band| band.member == "node2")
        .map(|band| (band.role, band.from, band.to))
        .collect();
    assert_eq!(node2, [(Seen::Replica, 0.0, 3.0), (Seen::Leader, 3.0, 4.1)]);
}

#[test]
fn what_is_missing_has_a_time() {
    let recording = Recording {
        attempts: vec![
            numbered(1, 1, 1.0),
            numbered(2, 1, 1.2),
            numbered(1, 2, 1.4),
            numbered(2, 2, 1.6),
            numbered(1, 3, 1.8),
        ],
        ..failover()
    };
    let lost = |missing_rows: Vec<Row>| {
        let balance = Balance {
            missing: missing_rows.len() as u64,
            missing_rows,
            ..Balance::default()
        };
        measure(&recording, 1.5, &balance)
    };
    assert_eq!(lost(Vec::new()).missing_span, None);
    let measured = lost(vec![(1, 2), (2, 1), (2, 2)]);
    assert_eq!(measured.missing_span, Some(Span { from: 1.2, to: 1.6 }));
    assert_eq!(measured.missing_rows, ["1/2", "2/1", "2/2"]);
    // All are counted, only a few are named.
    let many = lost((1..=1000).map(|number| (1, number)).collect());
    assert_eq!((many.missing, many.missing_rows.len()), (1000, NAMED));
}

#[test]
fn a_wait_is_only_that_within_a_hold() {
    let wait = |from, to| longest_wait(&failover(), Span { from, to });
    assert!((wait(0.9, 1.0) - 0.1).abs() < 1e-9);
    assert!((wait(0.2, 1.0) - 0.4).abs() < 1e-9);
    // No request was answered in this time.
    assert!((wait(1.2, 2.2) - 1.0).abs() < 1e-9);
}
