//! The command line as a user sees it, without hosts.
//!
//! `INSTA_UPDATE=always cargo test --test cli` writes `tests/snapshots` anew; look at the diff.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{self, Stdio},
    time::Duration,
};

use assert_cmd::Command;
use pgherd::{
    error::Code,
    inventory::{Inventory, json_schema},
};
use serde_json::{Value, json};

#[path = "cli/codes.rs"]
mod codes;
#[path = "cli/documents.rs"]
mod documents;
#[path = "json/schemas.rs"]
mod schemas;
#[path = "cli/shells.rs"]
mod shells;
#[path = "cli/state.rs"]
mod state;
#[path = "cli/typed.rs"]
mod typed;

const VERBS: [&str; 38] = [
    "init",
    "plan",
    "up",
    "render",
    "status",
    "verify",
    "switchover",
    "pause",
    "resume",
    "reinit",
    "replace",
    "restart",
    "reboot",
    "update",
    "failover",
    "drill",
    "image",
    "rotate",
    "backup",
    "backups",
    "rehearse",
    "restore",
    "upgrade",
    "ssh",
    "psql",
    "connect",
    "targets",
    "logs",
    "diagnose",
    "down",
    "history",
    "state",
    "recover",
    "adopt",
    "report",
    "schema",
    "completions",
    "man",
];

/// A folder to work in, without an inventory.
struct Desk(tempfile::TempDir);

/// The result of a command.
struct Said {
    line: String,
    code: i32,
    stdout: String,
    stderr: String,
}

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A desk with the example inventory in its place.
    fn with_inventory() -> Self {
        let desk = Self::new();
        desk.expect(0, &["init"]);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `pgherd` with an empty environment, except for what a test adds.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
        command
            .current_dir(self.0.path())
            .env_clear()
            .env("HOME", self.0.path())
            .timeout(Duration::from_secs(60))
            .args(words);
        command
    }

    fn run(&self, words: &[&str]) -> Said {
        run(self.command(words), words)
    }

    fn expect(&self, code: i32, words: &[&str]) -> Said {
        let said = self.run(words);
        assert_eq!(said.code, code, "{}", said.text());
        said
    }

    /// Everything below the desk, by its path.
    fn files(&self) -> Vec<String> {
        fn walk(dir: &Path, root: &Path, into: &mut Vec<String>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                into.push(path.strip_prefix(root).unwrap().display().to_string());
                if path.is_dir() {
                    walk(&path, root, into);
                }
            }
        }
        let mut files = Vec::new();
        walk(self.0.path(), self.0.path(), &mut files);
        files.sort();
        files
    }
}

fn run(mut command: Command, words: &[&str]) -> Said {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let said = Said {
        line: format!("pgherd {}", words.join(" ")),
        code: output.status.code().unwrap(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    };
    schemas::check_if_json(words, said.stdout.as_bytes());
    // Nothing here is a terminal.
    assert!(!said.text().contains('\u{1b}'), "{}", said.text());
    said
}

impl Said {
    fn text(&self) -> String {
        let mut text = format!("$ {}\n", self.line);
        for (name, part) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !part.is_empty() {
                text += &format!("--- {name}\n{part}");
            }
        }
        text + &format!("--- exit code {}\n", self.code)
    }
}

#[test]
fn help_of_the_whole_and_of_each_verb() {
    let desk = Desk::new();
    insta::assert_snapshot!("help", desk.expect(0, &["--help"]).stdout);
    for verb in VERBS {
        let help = desk.expect(0, &[verb, "--help"]).stdout;
        insta::assert_snapshot!(format!("help-{verb}"), help);
    }
    for what in ["build", "list", "remove"] {
        let help = desk.expect(0, &["image", what, "--help"]).stdout;
        insta::assert_snapshot!(format!("help-image-{what}"), help);
    }
    for what in ["certs", "secrets", "ssh"] {
        let help = desk.expect(0, &["rotate", what, "--help"]).stdout;
        insta::assert_snapshot!(format!("help-rotate-{what}"), help);
    }
}

#[test]
fn without_a_verb_the_help_is_what_is_wrong() {
    let said = Desk::new().expect(2, &[]);
    assert!(said.stdout.is_empty());
    assert!(said.stderr.contains("Usage: pgherd [OPTIONS] <COMMAND>"));
}

#[test]
fn wrong_arguments_are_bad_input() {
    let desk = Desk::with_inventory();
    let cases: [&[&str]; 9] = [
        &["frobnicate"],
        &["statsu"],
        &["plan", "--chek"],
        &["init", "--provider", "gcp"],
        &["logs", "node1", "-n", "many"],
        &["ssh"],
        &["ssh", "node1", "hostname"],
        &["up", "now"],
        &["completions", "tcsh"],
    ];
    let said: Vec<String> = cases
        .iter()
        .map(|words| desk.expect(2, words).text())
        .collect();
    insta::assert_snapshot!("wrong-arguments", said.join("\n"));
}

#[test]
fn a_drill_that_makes_no_sense_is_bad_input() {
    let desk = Desk::with_inventory();
    let cases: [&[&str]; 7] = [
        &["drill", "crash"],
        &["drill", "all", "--lag", "5s"],
        &["drill", "crash-host", "--lag", "1m"],
        &["drill", "all", "--max-outage", "30"],
        &["drill", "all", "--runs", "0"],
        &["drill", "crash-host", "--repair"],
        &["drill", "watch", "--for", "-3s"],
    ];
    let said: Vec<String> = cases
        .iter()
        .map(|words| desk.expect(2, words).text())
        .collect();
    insta::assert_snapshot!("wrong-drills", said.join("\n"));
}

#[test]
fn init_writes_the_example_of_each_provider() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("inventories");
    for (kind, example) in [
        ("docker", "local.yaml"),
        ("aws", "aws.yaml"),
        ("existing", "existing.yaml"),
    ] {
        let desk = Desk::new();
        desk.expect(0, &["init", "--provider", kind, "-o", "mine.yaml"]);
        let example = fs::read_to_string(root.join(example)).unwrap();
        Inventory::load(&desk.path("mine.yaml")).unwrap();
        assert_eq!(fs::read_to_string(desk.path("mine.yaml")).unwrap(), example);
        let printed = desk.expect(0, &["init", "--provider", kind, "-o", "-"]);
        assert_eq!(printed.stdout, example);
        assert_eq!(printed.stderr, "");
        assert_eq!(desk.files(), ["mine.yaml", "pgherd.schema.json"]);
    }
}

#[test]
fn init_says_what_comes_next_and_never_writes_over_a_file() {
    let desk = Desk::new();
    let said = [
        desk.expect(0, &["init"]),
        desk.expect(2, &["init"]),
        desk.expect(0, &["-i", "prod site.yaml", "init"]),
        desk.expect(2, &["init", "-o", "no/such/folder.yaml"]),
    ];
    let said: Vec<String> = said.iter().map(Said::text).collect();
    insta::assert_snapshot!("init", said.join("\n"));

    fs::write(desk.path("pgherd.yaml"), "mine").unwrap();
    desk.expect(2, &["init", "--provider", "existing"]);
    assert_eq!(
        fs::read_to_string(desk.path("pgherd.yaml")).unwrap(),
        "mine"
    );
}

#[test]
fn the_schema_is_one_document_with_json_and_without_and_what_init_writes() {
    let desk = Desk::new();
    let said = desk.expect(0, &["schema"]);
    assert_eq!(said.stderr, "");
    let schema: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(schema, json_schema());
    assert_eq!(desk.expect(0, &["schema", "--json"]).stdout, said.stdout);
    desk.expect(0, &["init"]);
    let beside = fs::read_to_string(desk.path("pgherd.schema.json")).unwrap();
    assert_eq!(beside, said.stdout);
}

#[test]
fn a_missing_inventory_points_to_init() {
    let desk = Desk::new();
    let said: Vec<String> = [
        &["status"][..],
        &["-i", "prod.yaml", "up", "--yes"],
        &["-i", ".", "plan"],
    ]
    .iter()
    .map(|words| desk.expect(2, words).text())
    .collect();
    insta::assert_snapshot!("missing-inventory", said.join("\n"));
    assert_eq!(desk.files(), [""; 0], "nothing is made");
}

#[test]
fn mistakes_in_an_inventory_are_framed() {
    let desk = Desk::new();
    fs::write(
        desk.path("pgherd.yaml"),
        "cluster: pg\nprovider: { kind: docker }\npatroni:\n  ttl: 10\n  retry_timeot: 10\nhosts:\n  \
         node1: { roles: [postgres] }\n",
    )
    .unwrap();
    let verbs = ["plan", "up", "status", "verify", "down"];
    let said: Vec<String> = verbs
        .iter()
        .map(|verb| desk.expect(2, &[verb]).stderr)
        .collect();
    assert!(said.iter().all(|text| *text == said[0]));
    insta::assert_snapshot!("bad-inventory", desk.expect(2, &["plan"]).text());
    let json = desk.expect(2, &["plan", "--json"]);
    let error: Value = serde_json::from_str(&json.stdout).unwrap();
    insta::assert_json_snapshot!("bad-inventory-json", error);
}

#[test]
fn verbs_for_a_cluster_say_that_there_is_none() {
    let desk = Desk::with_inventory();
    let said: Vec<String> = [
        &["status"][..],
        &["verify"],
        &["ssh", "node1"],
        &["psql"],
        &["logs", "node1"],
        &["status", "--watch"],
        &["switchover", "--yes"],
        &["drill", "--yes"],
        &["drill", "watch"],
        &["drill", "--repair"],
    ]
    .iter()
    .map(|words| {
        let said = desk.expect(1, words);
        assert_eq!(said.stdout, "");
        said.stderr
    })
    .collect();
    assert!(said.iter().all(|text| *text == said[0]));
    insta::assert_snapshot!("no-cluster", said[0]);
    let files = ["pgherd.schema.json", "pgherd.yaml"];
    assert_eq!(desk.files(), files, "no folder is made");
}

#[test]
fn a_hint_names_the_inventory_that_was_named() {
    let desk = Desk::new();
    desk.expect(0, &["init", "-o", "my cluster.yaml"]);
    let said = desk.expect(1, &["-i", "my cluster.yaml", "status"]);
    assert!(
        said.stderr.contains("pgherd -i 'my cluster.yaml' up"),
        "{}",
        said.stderr
    );
}

#[test]
fn a_hint_names_the_folder_of_templates() {
    let desk = Desk::with_inventory();
    fs::create_dir(desk.path("my templates")).unwrap();
    let templates = ["--templates", "my templates"];
    let said = desk.expect(1, &[templates[0], templates[1], "status"]);
    let hint = "create it: pgherd --templates 'my templates' up";
    assert!(said.stderr.contains(hint), "{}", said.stderr);
}

#[test]
fn the_environment_names_the_inventory_and_an_option_outweighs_it() {
    let desk = Desk::new();
    desk.expect(0, &["init", "-o", "env.yaml"]);
    let with_env = |words: &[&str]| {
        let mut command = desk.command(words);
        command.env("PGHERD_INVENTORY", "env.yaml");
        run(command, words)
    };
    let said = with_env(&["status"]);
    assert_eq!(said.code, 1, "{}", said.text());
    assert!(said.stderr.contains("there is no cluster local here"));
    let said = with_env(&["-i", "other.yaml", "status"]);
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("other.yaml: there is no such"));
}

#[test]
fn a_host_that_the_inventory_lacks_is_bad_input() {
    let desk = Desk::with_inventory();
    let workspace = desk.path(".pgherd/local");
    fs::create_dir_all(&workspace).unwrap();
    fs::write(workspace.join("secrets.yaml"), "").unwrap();
    for verb in ["ssh", "logs"] {
        let said = desk.expect(2, &[verb, "node9"]);
        insta::assert_snapshot!("unknown-host", said.stderr);
    }
}

#[test]
fn a_second_run_is_refused_and_told_who_has_the_cluster() {
    let desk = Desk::with_inventory();
    let workspace = desk.path(".pgherd/local");
    fs::create_dir_all(&workspace).unwrap();
    let mut lock = fs::File::create(workspace.join("lock")).unwrap();
    lock.lock().unwrap();
    let holder =
        r#"{"pid":4711,"verb":"up","since":"2026-01-02T03:04:05Z","by":"alice@ops"}"#.to_owned();
    lock.write_all(holder.as_bytes()).unwrap();
    for verb in ["up", "down"] {
        let said = desk.expect(1, &[verb, "--yes"]);
        insta::assert_snapshot!("second-run", said.stderr);
    }
}

#[test]
fn a_folder_of_templates_that_is_not_there_is_bad_input() {
    let desk = Desk::with_inventory();
    let said = desk.expect(2, &["--templates", "nowhere", "plan"]);
    insta::assert_snapshot!("no-templates", said.stderr);
}

#[test]
fn a_run_is_reported_by_its_page_as_text_and_as_a_document() {
    let desk = Desk::with_inventory();
    let mut said = desk.expect(1, &["report"]).text();
    let runs = desk.path(".pgherd/local/runs");
    for (run, verb) in [
        ("2026-01-02T03-04-05Z", "up"),
        ("2026-01-02T04-00-00Z", "down"),
    ] {
        let folder = runs.join(run);
        fs::create_dir_all(&folder).unwrap();
        let events = [
            json!({"t": 0.0, "event": "run_started", "verb": verb, "cluster": "local", "version": "0.1.0",
                   "at": "2026-01-02T03:04:05Z"}),
            json!({"t": 0.0, "event": "step_started", "step": 0, "host": "node1", "name": "prepare"}),
            json!({"t": 2.5, "event": "step_finished", "step": 0, "host": "node1", "name": "prepare",
                   "outcome": "changed", "seconds": 2.5}),
            json!({"t": 2.5, "event": "run_finished", "exit_code": 0, "seconds": 2.5}),
        ];
        let events: Vec<String> = events.iter().map(Value::to_string).collect();
        fs::write(folder.join("events.jsonl"), events.join("\n")).unwrap();
    }
    let path = |run: &str| format!("{}\n", runs.join(run).join("report.html").display());
    assert_eq!(
        desk.expect(0, &["report"]).stdout,
        path("2026-01-02T04-00-00Z")
    );
    assert_eq!(
        desk.expect(0, &["report", "2026-01-02T03"]).stdout,
        path("2026-01-02T03-04-05Z")
    );
    let page = fs::read_to_string(runs.join("2026-01-02T03-04-05Z/report.html")).unwrap();
    assert!(page.contains("prepare"), "{page}");

    let document = desk.expect(0, &["--json", "report", "latest"]).stdout;
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["verb"], "down");
    assert_eq!(document["critical_path"][0]["seconds"], json!(2.5));
    assert_eq!(document["steps"]["changed"], 1);

    for words in [
        &["report", "--text", "2026-01-02T03"][..],
        &["report", "2025"],
        &["report", "2026"],
    ] {
        let code = if words.len() == 3 { 0 } else { 2 };
        said += &format!("\n{}", desk.expect(code, words).text());
    }
    let root = desk.0.path().canonicalize().unwrap().display().to_string();
    insta::assert_snapshot!("report", said.replace(&root, "DESK"));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let status = process::Command::new("bash")
        .args(["-c", "set -o pipefail; \"$0\" man | head -n 1"])
        .arg(env!("CARGO_BIN_EXE_pgherd"))
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}
