//! The command line as a user meets it, in a cleared environment and an empty folder.
//!
//! `INSTA_UPDATE=always cargo test --test cli` writes the snapshots anew; look at the diff.

use std::{fs, path::Path};

use assert_cmd::Command;

fn pgherd(dir: &Path, words: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_pgherd"))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", dir)
        .current_dir(dir)
        .args(words)
        .output()
        .expect("pgherd runs");
    let text = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        assert!(!text.contains('\u{1b}'), "no escapes in a pipe: {text:?}");
        text
    };
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn empty() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn help_of_everything() {
    let dir = empty();
    let (code, out, _) = pgherd(dir.path(), &["--help"]);
    assert_eq!(code, Some(0));
    insta::assert_snapshot!("help", out);
    for verb in [
        "init",
        "plan",
        "up",
        "status",
        "verify",
        "ssh",
        "psql",
        "logs",
        "down",
        "completions",
        "man",
    ] {
        let (code, out, _) = pgherd(dir.path(), &[verb, "--help"]);
        assert_eq!(code, Some(0), "{verb}");
        insta::assert_snapshot!(format!("help-{verb}"), out);
    }
}

#[test]
fn wrong_arguments_are_bad_input() {
    let dir = empty();
    for words in [
        &["upp"][..],
        &["up", "--ja"],
        &["ssh"],
        &[],
        &["init", "--provider", "gcp"],
    ] {
        let (code, _, err) = pgherd(dir.path(), words);
        assert_eq!(code, Some(2), "{words:?}: {err}");
        assert!(err.contains("Usage:") || err.contains("--help"), "{err}");
    }
    let (_, _, err) = pgherd(dir.path(), &["statsu"]);
    assert!(err.contains("status"), "the nearest verb is named: {err}");
}

#[test]
fn a_missing_inventory_is_named_with_the_way_to_one() {
    let dir = empty();
    for verb in ["plan", "up", "status", "verify", "down"] {
        let (code, out, err) = pgherd(dir.path(), &[verb]);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{verb}: {err}");
        assert!(
            err.contains("pgherd.yaml") && err.contains("pgherd init"),
            "{err}"
        );
    }
    assert_eq!(
        fs::read_dir(dir.path()).expect("a folder").count(),
        0,
        "nothing was made"
    );
}

#[test]
fn the_environment_names_an_inventory_and_the_flag_outweighs_it() {
    let dir = empty();
    let said = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_pgherd"))
            .env_clear()
            .env("PGHERD_INVENTORY", "other.yaml")
            .current_dir(dir.path())
            .args(words)
            .output()
            .expect("pgherd runs");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(said(&["plan"]).contains("other.yaml"));
    assert!(said(&["-i", "third.yaml", "plan"]).contains("third.yaml"));
}

#[test]
fn init_writes_what_loads_and_never_over_a_file() {
    let dir = empty();
    for provider in ["docker", "aws", "existing"] {
        let file = format!("{provider}.yaml");
        let (code, _, err) = pgherd(dir.path(), &["init", "--provider", provider, "-o", &file]);
        assert_eq!(code, Some(0), "{err}");
        assert!(err.contains(&file) && err.contains("up"), "{err}");
        pgherd::inventory::Inventory::load(&dir.path().join(&file)).expect("it loads");
        let (code, _, err) = pgherd(dir.path(), &["init", "--provider", provider, "-o", &file]);
        assert_eq!(code, Some(2));
        assert!(err.contains("already there"), "{err}");
    }
    let (code, out, _) = pgherd(dir.path(), &["init", "-o", "-"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("kind: docker"));
    let (code, ..) = pgherd(dir.path(), &["-i", "mine.yaml", "init"]);
    assert_eq!(code, Some(0));
    assert!(dir.path().join("mine.yaml").exists());
}

#[test]
fn verbs_that_need_a_cluster_say_how_to_make_one() {
    let dir = empty();
    pgherd(dir.path(), &["init", "--provider", "existing"]);
    for words in [
        &["status"][..],
        &["verify"],
        &["ssh", "node1"],
        &["psql"],
        &["logs", "node1"],
    ] {
        let (code, out, err) = pgherd(dir.path(), words);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{words:?}: {err}");
        assert!(err.contains("pgherd up"), "{words:?}: {err}");
    }
    assert!(
        !dir.path().join(".pgherd").exists(),
        "looking makes nothing"
    );
}

#[test]
fn an_error_is_json_for_programs() {
    let dir = empty();
    fs::write(dir.path().join("pgherd.yaml"), "cluster: x\nprovidr: 1\n").expect("a file");
    let (code, out, err) = pgherd(dir.path(), &["plan", "--json"]);
    assert_eq!(code, Some(2));
    let error: serde_json::Value = serde_json::from_str(&out).expect("one JSON document");
    assert_eq!(error["exit_code"], 2);
    assert!(
        error["message"]
            .as_str()
            .expect("words")
            .contains("pgherd.yaml:2:1"),
        "{error}"
    );
    assert!(err.contains("provider"), "the nearest key is named: {err}");
}

#[test]
fn completions_are_scripts() {
    let dir = empty();
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = pgherd(dir.path(), &["completions", shell]);
        assert_eq!(code, Some(0));
        assert!(out.contains("keep-secrets"), "{shell}");
        if shell == "bash" {
            let checked = std::process::Command::new("bash")
                .args(["-n", "-c", &out])
                .status()
                .expect("bash runs");
            assert!(checked.success());
        }
    }
}

#[test]
fn the_manual_has_every_verb() {
    let dir = empty();
    let (code, page, _) = pgherd(dir.path(), &["man"]);
    assert_eq!(code, Some(0));
    for verb in [
        "INIT", "PLAN", "UP", "STATUS", "VERIFY", "SSH", "PSQL", "LOGS", "DOWN",
    ] {
        assert!(page.contains(&format!("PGHERD {verb}")), "{verb}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let dir = empty();
    let status = std::process::Command::new("bash")
        .args([
            "-c",
            "set -o pipefail; \"$0\" man | head -n 1",
            env!("CARGO_BIN_EXE_pgherd"),
        ])
        .current_dir(dir.path())
        .stdout(std::process::Stdio::null())
        .status()
        .expect("bash runs");
    assert!(status.success());
}
