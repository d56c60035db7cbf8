//! Two operators on one cluster, a lost workspace, and what a closed terminal leaves.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::support::{Lab, kill, output, prepared_image};

#[test]
fn two_operators_a_lost_workspace_and_a_terminal_that_closes() {
    let lab = Lab::new(
        "lease",
        &format!(
            "provider: {{ kind: docker, image: \"{}\" }}\npostgresql: {{ version: distro }}\nhosts:\n  \
             node1: {{ roles: [postgres, etcd, haproxy] }}\n  node2: {{ roles: [postgres] }}\n",
            prepared_image()
        ),
    );
    two_first_runs_make_one_cluster(&lab);
    let colleague = copied(&lab);
    a_second_operator_is_refused_until_the_first_has_died(&lab, colleague.path());
    lab.expect(0, &["drill", "--repair"]);
    a_run_elsewhere_that_gives_no_sign_of_life_is_waited_for(&lab, colleague.path());
    several_measure_at_once(&lab);
    psql_is_psql(&lab);
    a_terminal_that_closes_leaves_nothing(&lab);
    a_workspace_that_is_lost(&lab);
}

/// Two people with the same inventory begin at once, before there is a host with a lease.
fn two_first_runs_make_one_cluster(lab: &Lab) {
    let other = tempfile::tempdir().unwrap();
    fs::copy(lab.inventory(), other.path().join("pgherd.yaml")).unwrap();
    let begin = |folder: &Path, user: &str| {
        let mut command = lab.command(&["up", "--yes"]);
        command.current_dir(folder).env("USER", user);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let runs = [begin(lab.dir.path(), "alice"), begin(other.path(), "bob")];
    let said = runs.map(|run| run.wait_with_output().unwrap());
    let told = said
        .each_ref()
        .map(|said| String::from_utf8_lossy(&said.stderr).into_owned());
    let codes = said.each_ref().map(|said| said.status.code().unwrap());
    let (winner, loser) = match codes {
        [0, 1] => ("alice", 1),
        [1, 0] => ("bob", 0),
        codes => panic!("{codes:?}: {told:?}"),
    };
    println!("{}", told[loser]);
    for part in [
        "another run is at work",
        &format!("`up` by {winner}@"),
        "nothing was",
    ] {
        assert!(told[loser].contains(part), "{part}: {}", told[loser]);
    }
    let folders = [lab.dir.path(), other.path()];
    // The later one is told which run has the cluster, and has touched nothing.
    let again = expect(lab, folders[loser], 1, &["up", "--yes"]);
    assert!(again.contains(&lab.cluster_id()), "{again}");
    if winner == "bob" {
        fs::remove_dir_all(lab.dir.path().join(".pgherd")).unwrap();
        let all = other.path().join(".pgherd");
        output(Command::new("cp").arg("-a").arg(all).arg(lab.dir.path()));
    }
    lab.expect(0, &["verify"]);
}

/// The folder as a colleague has it.
fn copied(lab: &Lab) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    output(
        Command::new("cp")
            .arg("-a")
            .args([lab.inventory(), lab.dir.path().join(".pgherd")])
            .arg(copy.path()),
    );
    copy
}

/// Runs `pgherd` in another folder.
fn from(lab: &Lab, folder: &Path, words: &[&str]) -> Output {
    let mut command = lab.command(words);
    let output = command.current_dir(folder).output().unwrap();
    crate::support::schemas::check_if_json(words, &output.stdout);
    output
}

fn expect(lab: &Lab, folder: &Path, code: i32, words: &[&str]) -> String {
    let said = from(lab, folder, words);
    let stderr = String::from_utf8_lossy(&said.stderr).into_owned();
    assert_eq!(said.status.code(), Some(code), "{words:?}: {stderr}");
    stderr
}

fn a_second_operator_is_refused_until_the_first_has_died(lab: &Lab, colleague: &Path) {
    let mut first = lab
        .command(&["drill", "stop-leader", "--yes", "--json", "--verbose"])
        .env("USER", "alice")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(first.stderr.take().unwrap()).lines();
    let broken = lines
        .map_while(Result::ok)
        .inspect(|line| println!("{line}"))
        .any(|line| line.contains("broken now"));
    assert!(broken, "the drill has come that far");

    for words in [
        &["up", "--yes"][..],
        &["switchover", "--yes"],
        &["down", "--yes"],
    ] {
        let refused = expect(lab, colleague, 1, words);
        println!("{refused}");
        for part in [
            "another run is at work",
            "`drill` by alice@",
            &first.id().to_string(),
        ] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
    }
    let watched = from(lab, colleague, &["status", "--json"]);
    assert!(watched.status.success(), "who only looks is not kept out");
    let told: serde_json::Value = serde_json::from_slice(&watched.stdout).unwrap();
    let work = &told["at_work"];
    assert_eq!(work["verb"], "drill", "{told}");
    assert_eq!(work["pid"], first.id(), "{told}");
    let planned = from(lab, colleague, &["plan"]);
    let planned = String::from_utf8_lossy(&planned.stderr).into_owned();
    assert!(
        planned.contains("a run is at work on the cluster: `drill` by alice@"),
        "{planned}"
    );

    // Its connections are cut as if its cable had been pulled, so the hosts do not notice its end.
    let folder = lab.dir.path().display().to_string();
    let masters = output(Command::new("pgrep").args(["-f", &format!("ssh.*{folder}")]));
    let masters: Vec<&str> = masters.lines().collect();
    assert!(!masters.is_empty());
    // A process that is about to end by itself may be gone.
    let tell = |name: &str| {
        let kill = Command::new("kill").arg(name).args(&masters).output();
        assert!(kill.is_ok());
    };
    tell("-STOP");
    kill(&mut first);
    let begin = Instant::now();
    let said = expect(lab, colleague, 0, &["up", "--yes"]);
    println!("{said}\n{:?} after the first was killed", begin.elapsed());
    tell("-KILL");
    assert!(!said.contains("waiting"), "it is known to be dead: {said}");
    assert!(begin.elapsed() < Duration::from_secs(60));
}

fn a_run_elsewhere_that_gives_no_sign_of_life_is_waited_for(lab: &Lab, colleague: &Path) {
    let holder =
        r#"{"pid":7,"verb":"up","since":"2026-11-26T12:00:00Z","by":"anna@laptop","run":"00"}"#;
    let script = format!(
        "exec 9<>/run/pgherd.lease; flock 9; printf '%s\\n%s\\n' '{holder}' $$ >/run/pgherd.lease; read -r -t 120 _"
    );
    let mut silent = Command::new("docker")
        .args(["exec", "-i", &lab.container("node1"), "bash", "-c", &script])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(7));
    let status = from(lab, colleague, &["status"]);
    let status = String::from_utf8_lossy(&status.stderr).into_owned();
    for part in [
        "`up` by anna@laptop, process 7, since 2026",
        "no sign of life for",
    ] {
        assert!(status.contains(part), "{part}: {status}");
    }
    let mut waiting = lab
        .command(&["up", "--yes"])
        .current_dir(colleague)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(waiting.stderr.take().unwrap()).lines();
    let mut lines = lines
        .map_while(Result::ok)
        .inspect(|line| println!("{line}"));
    let told = lines.find(|line| line.contains("waiting (up to "));
    let told = told.expect("it waits");
    let whose = "for the lease of `up` by anna@laptop, last seen ";
    assert!(told.contains("node1") && told.contains(whose), "{told}");
    drop(silent.stdin.take());
    let rest: Vec<String> = lines.collect();
    assert!(waiting.wait().unwrap().success(), "{rest:?}");
    silent.wait().unwrap();
}

/// Each load has its own tables: none sees what another one does to its tables.
fn several_measure_at_once(lab: &Lab) {
    let left = "create table pgherd.drill_run_00000000000000aa (); \
                create table pgherd.drill_probe_run_00000000000000aa ()";
    lab.sql(left);
    let watch = lab
        .command(&["drill", "watch", "--for", "20s", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let tables = || {
        lab.sql(
            "select count(*) from pg_tables where schemaname = 'pgherd' and tablename ~ '^drill'",
        )
    };
    let begin = Instant::now();
    while tables() != "4" {
        assert!(begin.elapsed() < Duration::from_secs(15), "{}", tables());
    }
    lab.expect(0, &["verify"]);
    let replica = if lab.leader() == "node1" {
        "node2"
    } else {
        "node1"
    };
    let restart = lab.expect(0, &["restart", replica, "--yes"]);
    println!("{}", restart.stderr);
    lab.expect(0, &["verify"]);
    let watched = watch.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&watched.stdout).into_owned();
    assert!(watched.status.success(), "{told}");
    let record: serde_json::Value = serde_json::from_str(&told).unwrap();
    let measured = &record["drills"][0]["measured"];
    println!("{measured}");
    assert_eq!(measured["missing"], 0);
    assert!(measured["acknowledged"].as_u64() > Some(500), "{measured}");
    assert_eq!(measured["write_errors"], serde_json::json!({}));
    let read = measured["read_errors"].as_object().unwrap();
    assert!(
        read.keys().all(|kind| !kind.starts_with("sqlstate")),
        "{measured}"
    );
    assert_eq!(tables(), "0", "each has cleared its own, and what was left");
}

fn psql_is_psql(lab: &Lab) {
    let encrypted = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    assert_eq!(lab.sql(encrypted), "t", "from pgherd to PostgreSQL");
    let again = lab.expect(
        0,
        &[
            "psql",
            "--",
            "-Atq",
            "-c",
            "\\c postgres",
            "-c",
            "select 'again'",
        ],
    );
    assert!(again.stdout.contains("again"), "{}", again.stdout);
    let many = "copy (select i, md5(i::text) from generate_series(1, 200000) i) to stdout";
    assert_eq!(lab.sql(many).lines().count(), 200_000);

    // Ctrl-C in psql is a separate request, over another connection.
    let mut psql = sleeping(lab);
    let child = output(Command::new("pgrep").args(["-P", &psql.id().to_string(), "-x", "psql"]));
    signal("INT", &child);
    let said = psql.wait_with_output_of();
    assert!(
        said.contains("canceling statement due to user request"),
        "{said}"
    );
}

/// A `pgherd psql` in the middle of a statement.
fn sleeping(lab: &Lab) -> Child {
    // PostgreSQL continues a statement whose client has gone.
    let asleep = || -> u32 {
        let count = "select count(*) from pg_stat_activity where query = 'select pg_sleep(120)'";
        lab.sql(count).parse().unwrap()
    };
    let before = asleep();
    let psql = lab
        .command(&["psql", "--", "-Atqc", "select pg_sleep(120)"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while asleep() <= before {
        assert!(begin.elapsed() < Duration::from_secs(60), "it never slept");
    }
    psql
}

trait Said {
    fn wait_with_output_of(&mut self) -> String;
}

impl Said for Child {
    /// Everything that it wrote to stderr.
    fn wait_with_output_of(&mut self) -> String {
        let stderr = BufReader::new(self.stderr.take().unwrap()).lines();
        let said: Vec<String> = stderr.map_while(Result::ok).collect();
        self.wait().unwrap();
        said.join("\n")
    }
}

fn signal(name: &str, pid: &str) {
    output(Command::new("kill").args([&format!("-{name}"), pid]));
}

fn a_terminal_that_closes_leaves_nothing(lab: &Lab) {
    let password = lab.passwords().into_iter().next().unwrap();
    for (name, code) in [("HUP", 129), ("TERM", 143)] {
        // What a killed run left is empty, and is removed with the test.
        let before = sockets(lab);
        // The colleague's connections are not closed by this run.
        lab.expect(0, &["ssh", "--close"]);
        let others = clients(lab);
        let mut psql = sleeping(lab);
        let mut open = sockets(lab);
        open.retain(|folder| !before.contains(folder));
        assert!(!open.is_empty(), "it has a private folder");
        let found = Command::new("grep")
            .args(["-rlF", "--devices=skip", &password])
            .args(&open)
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "", "no file has it");
        signal(name, &psql.id().to_string());
        let begin = Instant::now();
        let status = psql.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(code), None));
        assert!(begin.elapsed() < Duration::from_secs(30));
        assert_eq!(sockets(lab), before, "{name}");
        lab.expect(0, &["ssh", "--close"]);
        let mut left = clients(lab);
        left.retain(|client| !others.contains(client));
        assert_eq!(left, [""; 0], "{name}");
    }
}

/// The processes of `ssh` and `psql` that this test's runs have started.
fn clients(lab: &Lab) -> Vec<String> {
    let folder = lab.dir.path().display();
    let found = Command::new("pgrep")
        .args(["-af", &format!("(ssh|psql).*{folder}")])
        .output()
        .unwrap();
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    found.lines().map(str::to_owned).collect()
}

/// The private folders of runs that are alive, or have left them.
fn sockets(lab: &Lab) -> Vec<String> {
    let entries = fs::read_dir(lab.dir.path()).unwrap();
    let names = entries.map(|entry| entry.unwrap().path().display().to_string());
    names.filter(|name| name.contains("/pgherd-")).collect()
}

fn a_workspace_that_is_lost(lab: &Lab) {
    let id = lab.cluster_id();
    let bare = tempfile::tempdir().unwrap();
    fs::copy(lab.inventory(), bare.path().join("pgherd.yaml")).unwrap();
    let wanted = format!("--cluster-id {id}");
    for words in [
        &["status"][..],
        &["plan"],
        &["up", "--yes"],
        &["render", "--yes"],
        &["down", "--yes"],
    ] {
        let refused = expect(lab, bare.path(), 1, words);
        for part in [
            "are there, and its workspace is not",
            "node1",
            &wanted,
            "copy ",
            "recover",
        ] {
            assert!(refused.contains(part), "{words:?}, {part}: {refused}");
        }
        assert!(!refused.contains("make it"), "{refused}");
        assert!(
            !bare
                .path()
                .join(".pgherd")
                .join(&lab.name)
                .join("secrets.yaml")
                .exists()
        );
    }
    let refused = expect(
        lab,
        bare.path(),
        2,
        &["down", "--yes", "--cluster-id", "ffff"],
    );
    assert!(refused.contains(&id), "{refused}");
    // Another cluster's workspace: both ids are named.
    let own = bare.path().join(".pgherd").join(&lab.name);
    fs::create_dir_all(&own).unwrap();
    let secrets = fs::read_to_string(lab.workspace().join("secrets.yaml")).unwrap();
    fs::write(own.join("secrets.yaml"), secrets.replace(&id, "eeee1234")).unwrap();
    for words in [&["up", "--yes"][..], &["down", "--yes"]] {
        let refused = expect(lab, bare.path(), 1, words);
        for part in ["eeee1234", &id, "nothing was touched"] {
            assert!(refused.contains(part), "{words:?}, {part}: {refused}");
        }
    }
    lab.expect(0, &["verify"]);
    it_is_read_back(lab);
    expect(lab, bare.path(), 0, &["down", "--yes", "--cluster-id", &id]);
    assert_eq!(lab.leftovers(), "");
    assert!(
        own.join("secrets.yaml").exists(),
        "that is another cluster's"
    );
}

/// The engine lets a new key in, and the hosts have the rest.
fn it_is_read_back(lab: &Lab) {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(lab.inventory(), folder.path().join("pgherd.yaml")).unwrap();
    println!("{}", expect(lab, folder.path(), 0, &["recover"]));
    let secrets = |dir: &Path| {
        let own = dir.join(".pgherd").join(&lab.name);
        fs::read_to_string(own.join("secrets.yaml")).unwrap()
    };
    assert!(secrets(folder.path()) == secrets(lab.dir.path()));
    expect(lab, folder.path(), 0, &["plan", "--check"]);
    expect(lab, folder.path(), 0, &["verify"]);
}
