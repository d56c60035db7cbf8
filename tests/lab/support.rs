//! A cluster of real hosts for a test, and questions to it.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

#[path = "ports.rs"]
mod ports;
#[path = "run.rs"]
mod run;
#[path = "../json/schemas.rs"]
pub(crate) mod schemas;

/// An inventory in a folder of its own. The cluster is removed when this is dropped, whatever the result of the
/// test.
pub(crate) struct Lab {
    pub name: String,
    pub dir: tempfile::TempDir,
    pub write_port: u16,
    pub read_port: u16,
    pub pooler_port: u16,
    /// Variables of pgherd's environment.
    pub environment: Vec<(&'static str, String)>,
}

impl Lab {
    /// `rest` is the inventory below `cluster` and `haproxy`, which are set here: their own names and ports, so
    /// that no lab collides with another one or with the user's clusters.
    pub(crate) fn new(test: &str, rest: &str) -> Self {
        let ports = ports::free::<4>();
        let lab = Self {
            name: format!("lab-{test}-{}", run::id()),
            dir: tempfile::tempdir().expect("a folder"),
            write_port: ports,
            read_port: ports + 1,
            pooler_port: ports + 3,
            environment: Vec::new(),
        };
        lab.write_inventory(rest);
        lab
    }

    pub(crate) fn write_inventory(&self, rest: &str) {
        let text = format!(
            "cluster: {}\nhaproxy: {{ write_port: {}, read_port: {}, stats_port: {} }}\n{rest}",
            self.name,
            self.write_port,
            self.read_port,
            self.read_port + 1
        );
        fs::write(self.inventory(), text).expect("the inventory");
    }

    pub(crate) fn inventory(&self) -> PathBuf {
        self.dir.path().join("pgherd.yaml")
    }

    /// A file in the inventory's folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn workspace(&self) -> PathBuf {
        self.dir.path().join(".pgherd").join(&self.name)
    }

    /// `pgherd` as a user would type it in the inventory's folder, without a terminal.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
        command
            .current_dir(self.dir.path())
            .env("HOME", self.dir.path())
            // What a killed run leaves is removed with the test.
            .env("TMPDIR", self.dir.path())
            .env_remove("XDG_RUNTIME_DIR")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env_remove("PGHERD_INVENTORY")
            .envs(self.environment.iter().cloned())
            .args(words)
            .stdin(Stdio::null());
        command
    }

    /// Runs to the end. JSON is as docs/json says.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        let output = self.command(words).output().expect("pgherd runs");
        schemas::check_if_json(words, &output.stdout);
        output
    }

    /// Runs and expects an exit code; shows everything if it is another one.
    pub(crate) fn expect(&self, code: i32, words: &[&str]) -> Said {
        let output = self.run(words);
        let said = Said {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        assert_eq!(
            output.status.code(),
            Some(code),
            "pgherd {}\n--- stdout\n{}\n--- stderr\n{}",
            words.join(" "),
            said.stdout,
            said.stderr
        );
        said
    }

    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let said = self.expect(0, words);
        schemas::check(words, said.stdout.as_bytes());
        serde_json::from_str(&said.stdout).expect("one JSON document on stdout")
    }

    /// One value through HAProxy's write port.
    pub(crate) fn sql(&self, statement: &str) -> String {
        self.expect(0, &["psql", "--", "-Atqc", statement])
            .stdout
            .trim()
            .to_owned()
    }

    /// The same in another database.
    pub(crate) fn sql_in(&self, database: &str, statement: &str) -> String {
        self.expect(0, &["psql", "--", "-d", database, "-Atqc", statement])
            .stdout
            .trim()
            .to_owned()
    }

    /// The member that leads, according to `status`.
    pub(crate) fn leader(&self) -> String {
        let status = self.json(&["status", "--json"]);
        status["members"]
            .as_array()
            .expect("members")
            .iter()
            .find(|member| member["role"] == "leader")
            .and_then(|member| member["name"].as_str())
            .expect("a leader")
            .to_owned()
    }

    /// Makes this member the leader. If another one is the synchronous standby, that one leads first: then the
    /// member that was not becomes the standby.
    pub(crate) fn has_lead(&self, host: &str) {
        for _ in 0..6 {
            if self.leader() == host {
                return;
            }
            if !self
                .run(&["switchover", "--to", host, "--yes"])
                .status
                .success()
            {
                self.expect(0, &["switchover", "--yes"]);
                self.holds_within(Duration::from_secs(60));
            }
        }
        assert_eq!(self.leader(), host);
    }

    /// Repeats `verify` until it passes. The machine is shared with other tests and may be slow, so a short
    /// limit must be a minute too.
    pub(crate) fn holds_within(&self, limit: Duration) {
        let limit = limit.max(Duration::from_secs(60));
        let begin = Instant::now();
        loop {
            let output = self.run(&["verify"]);
            if output.status.success() {
                return;
            }
            assert!(
                begin.elapsed() < limit,
                "the cluster does not hold:\n{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
    }

    /// Runs a shell line as root on a host, as a person would.
    pub(crate) fn on(&self, host: &str, line: &str) -> String {
        let line = format!("sudo sh -c '{}'", line.replace('\'', r"'\''"));
        self.expect(0, &["ssh", host, "--", &line]).stdout
    }

    /// The engine's name for a host.
    pub(crate) fn container(&self, host: &str) -> String {
        format!("{}-{host}", self.name)
    }

    /// Starts `pgherd up --yes --json` and kills it with SIGKILL as soon as an event satisfies `when`; returns
    /// whether it got that far.
    pub(crate) fn kill_up(&self, when: impl Fn(&Value) -> bool) -> bool {
        self.kill_run(&["up", "--yes", "--json"], when)
    }

    /// The same for any run that prints events.
    pub(crate) fn kill_run(&self, words: &[&str], when: impl FnMut(&Value) -> bool) -> bool {
        self.kill_or_end(words, when).is_none()
    }

    /// The same; returns how the run ended if it ended by itself.
    pub(crate) fn kill_or_end(
        &self,
        words: &[&str],
        mut when: impl FnMut(&Value) -> bool,
    ) -> Option<ExitStatus> {
        let said = fs::File::create(self.dir.path().join("stderr")).expect("a file");
        let mut child = self
            .command(words)
            .stdout(Stdio::piped())
            .stderr(said)
            .spawn()
            .expect("pgherd runs");
        let stdout = child.stdout.take().expect("a pipe");
        let reached = BufReader::new(stdout)
            .lines()
            .map_while(Result::ok)
            .filter_map(|line| serde_json::from_str::<Value>(&line).ok())
            .inspect(|event| schemas::check_one(words, event))
            .any(|event| when(&event));
        if reached {
            kill(&mut child);
            return None;
        }
        println!("it ended by itself: {}", self.last_said());
        Some(child.wait().expect("it has ended"))
    }

    /// The output for people of the run that was last given to `kill_run`.
    pub(crate) fn last_said(&self) -> String {
        fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default()
    }

    /// Everything that the engine has of this cluster.
    pub(crate) fn leftovers(&self) -> String {
        let filter = format!("label=pgherd:cluster={}", self.name);
        let mut left = docker(&["ps", "-aq", "--filter", &filter]);
        left.push_str(&docker(&["network", "ls", "-q", "--filter", &filter]));
        left
    }

    /// The cluster's id, from what was created for it.
    pub(crate) fn cluster_id(&self) -> String {
        let filter = format!("label=pgherd:cluster={}", self.name);
        let label = "{{.Label \"pgherd:id\"}}";
        let mut ids = docker(&["ps", "-a", "--filter", &filter, "--format", label]);
        ids.push_str(&docker(&[
            "network", "ls", "--filter", &filter, "--format", label,
        ]));
        ids.lines().next().unwrap_or_default().to_owned()
    }

    /// Every file of every run's log, as one text.
    pub(crate) fn logs(&self) -> String {
        let mut text = String::new();
        read_all(&self.workspace().join("runs"), &mut text);
        text
    }

    /// What docs/json says against the events and the measurements that runs have kept, if anything.
    fn wrong_in_runs(&self) -> Option<String> {
        let runs = fs::read_dir(self.workspace().join("runs")).ok()?;
        runs.map_while(Result::ok).find_map(|run| {
            let read = |name: &str| fs::read_to_string(run.path().join(name)).unwrap_or_default();
            // The last line of a run that was killed may be cut short.
            let (events, drill) = (read("events.jsonl"), read("drill.json"));
            let mut events = events
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            let drill = serde_json::from_str(&drill).ok();
            let wrong = events.find_map(|event| schemas::against("events", &event));
            wrong.or_else(|| schemas::against("drill", &drill?))
        })
    }

    /// The passwords, from the file that a person would read.
    pub(crate) fn passwords(&self) -> Vec<String> {
        let text = fs::read_to_string(self.workspace().join("secrets.yaml")).expect("secrets");
        text.lines()
            .filter(|line| !line.starts_with("cluster_id") && !line.starts_with('#'))
            .filter_map(|line| line.split_once(": "))
            .map(|(_, value)| value.trim_matches('"').to_owned())
            .filter(|value| value.len() > 8)
            .collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::env::var_os("PGHERD_LAB_KEEP").is_some() {
            eprintln!("kept: {}", self.dir.path().display());
            let kept = std::mem::replace(&mut self.dir, tempfile::tempdir().expect("a folder"));
            let _ = kept.keep();
            return;
        }
        let wrong = self.wrong_in_runs();
        if !self.leftovers().is_empty() {
            let _ = self.run(&["down", "--yes", "--with-backups"]);
        }
        // A test may have no workspace, or no longer.
        if !self.leftovers().is_empty() {
            let id = self.cluster_id();
            let _ = self.run(&["down", "--yes", "--with-backups", "--cluster-id", &id]);
        }
        // A test that fails already has its own reason.
        if let Some(wrong) = wrong.filter(|_| !std::thread::panicking()) {
            panic!("what runs have kept: {wrong}");
        }
    }
}

/// What a run printed.
pub(crate) struct Said {
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// The JSON lines on stdout.
    pub(crate) fn events(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).expect("a JSON line"))
            .collect()
    }
}

pub(crate) fn kill(child: &mut Child) {
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
}

/// Freezes a host. With the kernel's old control groups, the engine's attempt fails while processes start: another
/// attempt succeeds.
pub(crate) fn pause(container: &str) {
    for _ in 0..20 {
        let output = Command::new("docker")
            .args(["pause", container])
            .output()
            .expect("docker runs");
        if output.status.success() {
            return;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    docker(&["pause", container]);
}

pub(crate) fn docker(words: &[&str]) -> String {
    let output = Command::new("docker")
        .args(words)
        .output()
        .expect("docker runs");
    assert!(
        output.status.success(),
        "docker {}: {}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A script of the repository.
pub(crate) fn script(name: &str) -> Command {
    Command::new(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("scripts")
            .join(name),
    )
}

/// Runs a command that must succeed; returns its output.
pub(crate) fn output(command: &mut Command) -> String {
    let output = command.stderr(Stdio::inherit()).output().expect("it runs");
    assert!(output.status.success(), "{command:?} failed");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The lab hosts' image, made if the engine does not have it.
pub(crate) fn base_image() -> String {
    image("base")
}

/// A host image with every package, for tests in which the packages do not matter.
pub(crate) fn prepared_image() -> String {
    image("prepared")
}

/// An image whose package sources have PostgreSQL 16, whatever the distribution has.
pub(crate) fn image_with_postgresql_16() -> String {
    image("postgresql-16")
}

/// One of the images that scripts/lab-image makes.
pub(crate) fn image(which: &str) -> String {
    output(script("lab-image").arg(which))
}

/// The major version of PostgreSQL in the prepared image, which is its distribution's.
pub(crate) fn prepared_version() -> String {
    let label = "{{index .Config.Labels \"pgherd.postgresql\"}}";
    let said = docker(&["image", "inspect", "--format", label, &prepared_image()]);
    said.trim().to_owned()
}

fn read_all(path: &Path, into: &mut String) {
    let Ok(entries) = fs::read_dir(path) else {
        return;
    };
    for entry in entries.map_while(Result::ok) {
        let path = entry.path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            read_all(&path, into);
        } else if let Ok(mut file) = fs::File::open(&path) {
            let _ = file.read_to_string(into);
        }
    }
}
