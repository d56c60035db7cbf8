//! Completion scripts and the manual page.

use super::*;

/// Gives `text` to a program, if this machine has it; fails if the program finds a mistake.
fn check_with(program: &str, arguments: &[&str], text: &str) {
    let child = process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else { return };
    let mut stdin = child.stdin.take().unwrap();
    let text = text.to_owned();
    let feed = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    feed.join().unwrap().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program}: {complaints}");
    assert_eq!(complaints, "", "{program}");
}

#[test]
fn completions_are_scripts_that_know_the_verbs() {
    let desk = Desk::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = desk.expect(0, &["completions", shell]).stdout;
        for verb in VERBS {
            assert!(script.contains(verb), "{shell} does not know {verb}");
        }
        assert!(script.contains("keep-secrets"), "{shell}");
        check_with(shell, &["-n"], &script);
    }
}

#[test]
fn the_manual_has_a_section_for_each_verb_and_no_mistake() {
    let page = Desk::new().expect(0, &["man"]).stdout;
    assert!(page.contains(".TH pgherd 1"));
    for verb in VERBS {
        let heading = format!(".SH \"PGHERD {}\"", verb.to_uppercase());
        assert_eq!(page.matches(&heading).count(), 1, "{heading}");
    }
    assert_eq!(
        page.matches("\\-\\-templates").count(),
        2,
        "what every verb takes is told once: in the synopsis and among the options"
    );
    check_with("groff", &["-man", "-ww", "-Kutf8", "-Tutf8"], &page);
}
