//! Two people who begin at the same moment, again and again.

use std::{fs, path::Path, process::Stdio};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::support::{Lab, output, prepared_image, prepared_version};

const ROUNDS: u32 = 100;

/// What a round sets: a parameter that takes no restart, and that PostgreSQL shows in the same unit.
fn milliseconds(round: u32) -> u32 {
    10_001 + 2 * round
}

fn inventory(round: u32) -> String {
    format!(
        "provider: {{ kind: docker, image: {} }}\n\
         postgresql: {{ version: {}, parameters: {{ log_min_duration_statement: {}ms }} }}\n\
         hosts:\n  one: {{ roles: [postgres, etcd, haproxy] }}\n",
        prepared_image(),
        prepared_version(),
        milliseconds(round)
    )
}

/// How a run ended, and when it changed anything.
struct Run {
    code: i32,
    said: String,
    at_work: Option<(Timestamp, Timestamp)>,
}

fn read(run: std::process::Child) -> Run {
    let output = run.wait_with_output().unwrap();
    let events: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let begun = events.iter().find(|it| it["event"] == "run_started");
    let begun: Option<Timestamp> = begun.and_then(|it| it["at"].as_str()?.parse().ok());
    let steps = |name: &str| -> Vec<Timestamp> {
        let of = events.iter().filter(|it| it["event"] == name);
        of.filter_map(|it| Some(begun? + SignedDuration::from_secs_f64(it["t"].as_f64()?)))
            .collect()
    };
    let (first, last) = (steps("step_started"), steps("step_finished"));
    Run {
        code: output.status.code().unwrap(),
        said: String::from_utf8_lossy(&output.stderr).into_owned(),
        at_work: first.first().copied().zip(last.last().copied()),
    }
}

#[test]
fn soak_two_who_begin_at_once_never_both_change_the_cluster() {
    let lab = Lab::new("both", &inventory(0));
    lab.expect(0, &["up", "--yes"]);
    let other = tempfile::tempdir().unwrap();
    output(
        std::process::Command::new("cp")
            .arg("-a")
            .arg(lab.dir.path().join(".pgherd"))
            .arg(other.path()),
    );
    let begin = |folder: &Path| {
        let mut command = lab.command(&["up", "--yes", "--json"]);
        command.current_dir(folder).env("HOME", folder);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let (mut refused, mut one_after_the_other) = (0, 0);
    for round in 1..=ROUNDS {
        lab.write_inventory(&inventory(round));
        fs::copy(lab.inventory(), other.path().join("pgherd.yaml")).unwrap();
        // Who is a moment earlier is so in every other round.
        let mut folders = [lab.dir.path(), other.path()];
        folders.rotate_left((round % 2) as usize);
        let runs = folders.map(begin).map(read);
        for run in &runs {
            assert!(
                run.code == 0 || run.said.contains("another run is at work"),
                "round {round}: {}: {}",
                run.code,
                run.said
            );
        }
        refused += runs.iter().filter(|run| run.code != 0).count();
        assert!(
            runs.iter().any(|run| run.at_work.is_some()),
            "round {round}: nobody changed anything: {}{}",
            runs[0].said,
            runs[1].said
        );
        if let [Some(one), Some(other)] = runs.each_ref().map(|run| run.at_work) {
            assert!(
                one.1 <= other.0 || other.1 <= one.0,
                "round {round}: both at once: {one:?} {other:?}"
            );
            one_after_the_other += 1;
        }
        let shown = lab.sql("show log_min_duration_statement");
        assert_eq!(shown, format!("{}ms", milliseconds(round)), "round {round}");
    }
    println!(
        "{ROUNDS} rounds: {refused} runs were refused; both changed something, one after the other, in {one_after_the_other}"
    );
    lab.expect(0, &["plan", "--check"]);
    lab.expect(0, &["down", "--yes"]);
    assert_eq!(lab.leftovers(), "");
}
