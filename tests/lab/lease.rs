//! Two operators on one cluster, a workspace that is lost, and what a terminal that closes leaves.

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
    lab.expect(0, &["up", "--yes"]);
    let colleague = copied(&lab);
    a_second_operator_is_refused_until_the_first_has_died(&lab, colleague.path());
    lab.expect(0, &["drill", "--repair"]);
    psql_is_psql(&lab);
    a_terminal_that_closes_leaves_nothing(&lab);
    a_workspace_that_is_lost(&lab);
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
    command.current_dir(folder).output().unwrap()
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
    let watched = from(lab, colleague, &["status"]);
    assert!(watched.status.success(), "who only looks is not kept out");

    kill(&mut first);
    let begin = Instant::now();
    let said = expect(lab, colleague, 0, &["up", "--yes"]);
    println!("{said}\n{:?} after the first was killed", begin.elapsed());
    assert!(begin.elapsed() < Duration::from_secs(180));
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

    // Ctrl-C in psql is a request of its own, over another connection.
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
    // PostgreSQL goes on with a statement whose client has gone.
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
    /// What it wrote to stderr until its end.
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
        // What a run that was killed has left is empty, and goes with the test.
        let before = sockets(lab);
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
        let folder = lab.dir.path().display().to_string();
        let left = Command::new("pgrep")
            .args(["-af", &format!("(ssh|psql).*{folder}")])
            .output()
            .unwrap();
        let left = String::from_utf8_lossy(&left.stdout).into_owned();
        let of_this = |line: &&str| !before.iter().any(|folder| line.contains(folder));
        let left: Vec<&str> = left.lines().filter(of_this).collect();
        assert_eq!(left, [""; 0], "{name}");
    }
}

/// The private folders of runs that live, or have left them.
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
        for part in ["was not made from this folder", "node1", &wanted, "copy "] {
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
    expect(lab, bare.path(), 0, &["down", "--yes", "--cluster-id", &id]);
    assert_eq!(lab.leftovers(), "");
    assert!(
        own.join("secrets.yaml").exists(),
        "that is another cluster's"
    );
}
