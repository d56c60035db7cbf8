//! A cluster whose secrets are shared: two machines, of which one dies in the middle of its runs.

use std::{fs, path::Path, process::Stdio, time::Instant};

use serde_json::Value;

use crate::support::{Lab, output, prepared_image};

#[test]
fn a_second_machine_goes_on_wherever_the_first_one_died() {
    let lab = Lab::new("shared", "");
    let place = lab.file("place");
    fs::create_dir(&place).unwrap();
    // The inventory has no recipients yet.
    let recipient = lab.json(&["--json", "state", "identity", "--new"])["recipient"].clone();
    let identity = lab.file(".config/pgherd/identity");
    lab.write_inventory(&format!(
        "provider: {{ kind: docker, image: \"{}\" }}\npostgresql: {{ version: distro }}\n\
         state: {{ directory: {}, identity: {}, recipients: [{}] }}\nhosts:\n  \
         node1: {{ roles: [postgres, etcd, haproxy] }}\n  node2: {{ roles: [postgres] }}\n",
        prepared_image(),
        place.display(),
        identity.display(),
        recipient.as_str().unwrap()
    ));
    let other = tempfile::tempdir().unwrap();
    fs::copy(lab.inventory(), other.path().join("pgherd.yaml")).unwrap();
    let second = Second {
        lab: &lab,
        folder: other.path(),
    };

    an_up_that_was_killed_is_completed(&lab, &second);
    a_rotation_that_was_killed_is_completed(&lab, &second);
    two_at_once_never_both_write(&lab, &second);
    a_place_that_is_away_stops_changes_and_no_questions(&lab, &place);
    a_removed_workspace_comes_back(&lab);
    the_second_machine_removes_it_all(&lab, &second, &place);
}

/// Another machine, with the inventory and the key, and at first nothing else.
struct Second<'a> {
    lab: &'a Lab,
    folder: &'a Path,
}

impl Second<'_> {
    fn command(&self, words: &[&str]) -> std::process::Command {
        let mut command = self.lab.command(words);
        command.current_dir(self.folder).env("USER", "bob");
        command
    }

    fn expect(&self, code: i32, words: &[&str]) -> String {
        let begin = Instant::now();
        let said = self.command(words).output().unwrap();
        let stderr = String::from_utf8_lossy(&said.stderr).into_owned();
        assert_eq!(said.status.code(), Some(code), "{words:?}: {stderr}");
        let seconds = begin.elapsed().as_secs_f64();
        println!("the second machine: {} ({seconds:.1} s)", words.join(" "));
        format!("{}{stderr}", String::from_utf8_lossy(&said.stdout))
    }

    fn has(&self, name: &str) -> Option<String> {
        let workspace = self.folder.join(".pgherd").join(&self.lab.name);
        fs::read_to_string(workspace.join(name)).ok()
    }
}

fn has(lab: &Lab, name: &str) -> Option<String> {
    fs::read_to_string(lab.workspace().join(name)).ok()
}

fn is_step(event: &Value, name: &str) -> bool {
    event["event"] == "step_started" && event["name"] == name
}

fn an_up_that_was_killed_is_completed(lab: &Lab, second: &Second) {
    assert!(lab.kill_up(|event| is_step(event, "start-patroni")));
    assert_eq!(second.has("secrets.yaml"), None);
    second.expect(0, &["up", "--yes"]);
    for name in ["secrets.yaml", "pki/ca.key", "id_ed25519"] {
        assert!(has(lab, name).is_some(), "{name}");
        assert_eq!(second.has(name), has(lab, name), "{name}");
    }
    lab.expect(0, &["verify"]);
    lab.expect(0, &["plan", "--check"]);
}

fn a_rotation_that_was_killed_is_completed(lab: &Lab, second: &Second) {
    let before = has(lab, "secrets.yaml");
    let words = ["rotate", "secrets", "--yes", "--json"];
    let reached = lab.kill_run(&words, |event| {
        event["event"] == "stage" && event["stage"] == "return"
    });
    assert!(reached, "{}", lab.last_said());
    second.expect(0, &["rotate", "secrets", "--yes"]);
    second.expect(0, &["verify"]);
    assert_ne!(second.has("secrets.yaml"), before);
    assert_eq!(second.has("rotation.json"), None);
    // The first machine has what the second one made, without being asked.
    lab.expect(0, &["verify"]);
    assert_eq!(second.has("secrets.yaml"), has(lab, "secrets.yaml"));
    assert_eq!(has(lab, "rotation.json"), None);

    // The certificates the other way round.
    let reached = {
        let mut run = second.command(&["rotate", "certs", "--yes", "--json"]);
        kill_at(&mut run, |event| {
            event["event"] == "stage" && event["stage"] == "issue"
        })
    };
    assert!(reached);
    lab.expect(0, &["rotate", "certs", "--yes"]);
    second.expect(0, &["verify"]);
    assert_eq!(second.has("pki/ca.key"), has(lab, "pki/ca.key"));
}

fn kill_at(command: &mut std::process::Command, when: impl Fn(&Value) -> bool) -> bool {
    use std::io::{BufRead, BufReader};
    let command = command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut events = lines
        .map_while(Result::ok)
        .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
        .inspect(|event| crate::support::schemas::check_one(&["rotate"], event));
    let reached = events.any(|event| when(&event));
    crate::support::kill(&mut child);
    reached
}

fn two_at_once_never_both_write(lab: &Lab, second: &Second) {
    let generation = || lab.json(&["--json", "state"])["there"]["generation"].clone();
    let words = ["rotate", "secrets", "--yes"];
    for round in 0..2 {
        let before = generation().as_u64().unwrap();
        let mut runs = [lab.command(&words), second.command(&words)];
        runs.rotate_left(round % 2);
        let runs = runs.map(|mut command| {
            let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        });
        let said = runs.map(|run| run.wait_with_output().unwrap());
        let told = said
            .each_ref()
            .map(|it| String::from_utf8_lossy(&it.stderr).into_owned());
        let well = said.iter().filter(|it| it.status.success()).count();
        assert_eq!(well, 1, "{told:?}");
        let refused = told.iter().any(|it| {
            it.contains("another run is at work") || it.contains("another run has written")
        });
        assert!(refused, "{told:?}");
        assert!(generation().as_u64().unwrap() > before);
        lab.expect(0, &["verify"]);
        second.expect(0, &["verify"]);
        assert_eq!(second.has("secrets.yaml"), has(lab, "secrets.yaml"));
    }
}

fn a_place_that_is_away_stops_changes_and_no_questions(lab: &Lab, place: &Path) {
    let away = lab.file("away");
    fs::rename(place, &away).unwrap();
    let status = lab.expect(0, &["status"]);
    assert!(
        status.stderr.contains("cannot be reached"),
        "{}",
        status.stderr
    );
    let up = lab.expect(1, &["up", "--yes"]);
    for part in ["the shared state cannot be reached", "nothing was changed"] {
        assert!(up.stderr.contains(part), "{part}: {}", up.stderr);
    }
    fs::rename(&away, place).unwrap();
    lab.expect(0, &["up", "--yes"]);
}

fn a_removed_workspace_comes_back(lab: &Lab) {
    let secrets = has(lab, "secrets.yaml");
    fs::remove_dir_all(lab.file(".pgherd")).unwrap();
    let begin = Instant::now();
    lab.expect(0, &["status"]);
    println!("the workspace is back: {:?}", begin.elapsed());
    assert_eq!(has(lab, "secrets.yaml"), secrets);
    lab.expect(0, &["verify"]);
    lab.expect(0, &["plan", "--check"]);
}

fn the_second_machine_removes_it_all(lab: &Lab, second: &Second, place: &Path) {
    // Nothing at the place can be read without the key.
    let all = output(
        std::process::Command::new("grep")
            .args(["-rLF", "BEGIN AGE ENCRYPTED FILE"])
            .arg(place.join(&lab.name)),
    );
    assert_eq!(all.trim(), "", "a file that is not encrypted");
    second.expect(0, &["down", "--yes"]);
    assert_eq!(lab.leftovers(), "");
    assert_eq!(
        lab.json(&["--json", "state"])["there"]["cluster_id"],
        Value::Null
    );
    lab.expect(1, &["status"]);
    assert_eq!(has(lab, "secrets.yaml"), None);
}
