use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

use super::*;

/// The script as a host runs it, with its file elsewhere.
struct Run {
    child: Child,
    stdin: Option<ChildStdin>,
    said: String,
}

fn run(file: &Path, end: &str, holder: &Holder) -> Run {
    take_from("", file, end, holder)
}

fn take_from(dead: &str, file: &Path, end: &str, holder: &Holder) -> Run {
    let script = SCRIPT
        .replace("/run/pgherd.lease", file.to_str().unwrap())
        .replace("/var/lib/pgherd", &format!("{}.d", file.display()))
        .replace("-t 30", "-t 2");
    let mut child = Command::new("bash")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let story = holder.line();
    writeln!(stdin, "{end}\n{dead}\n{}\n{story}", holder.line()).unwrap();
    let mut said = String::new();
    let stdout = child.stdout.as_mut().unwrap();
    BufReader::new(stdout).read_line(&mut said).unwrap();
    Run {
        child,
        stdin: Some(stdin),
        said: said.trim_end().to_owned(),
    }
}

impl Run {
    fn end(mut self) {
        drop(self.stdin.take());
        self.child.wait().unwrap();
    }

    /// The holder that was reported.
    fn refused_by(&self) -> (Option<Holder>, Sign) {
        let told = self.said.strip_prefix("pgherd lease: refused ");
        refusal(told.unwrap_or_else(|| panic!("{}", self.said)))
    }

    /// The previous holder that was reported.
    fn held_after(&self) -> Option<Holder> {
        let told = self.said.strip_prefix("pgherd lease: held");
        Holder::parse(told.unwrap_or_else(|| panic!("{}", self.said)))
    }
}

#[test]
fn one_holds_it_and_the_other_is_told_who() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lease");
    let (alice, bob) = (Holder::now("up"), Holder::now("down"));
    let first = run(&file, "keep", &alice);
    assert_eq!(first.said, "pgherd lease: held");
    let second = run(&file, "clear", &bob);
    let (told, sign) = second.refused_by();
    assert_eq!(told, Some(alice.clone()));
    assert!(sign.ago < 5 && now().abs_diff(sign.at) < 5, "{sign:?}");
    second.end();
    first.end();
    // The next run is told who it was, and `down` removes the file.
    let third = run(&file, "clear", &bob);
    assert_eq!(third.held_after(), Some(alice));
    third.end();
    assert!(!file.exists());
}

#[test]
fn it_ends_with_its_connection_and_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lease");
    let holder = Holder::now("up");
    let mut dead = run(&file, "keep", &holder);
    dead.child.kill().unwrap();
    dead.child.wait().unwrap();
    let mut silent = run(&file, "keep", &holder);
    assert!(silent.said.contains("held"), "{}", silent.said);
    let begin = std::time::Instant::now();
    for _ in 0..3 {
        std::thread::sleep(Duration::from_secs(1));
        writeln!(silent.stdin.as_mut().unwrap()).unwrap();
    }
    assert!(
        silent.child.try_wait().unwrap().is_none(),
        "it is kept alive"
    );
    silent.child.wait().unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(5));
    assert!(fs::read_to_string(&file).unwrap().contains(&holder.run));
    run(&file, "keep", &holder).end();
}

#[test]
fn what_a_dead_run_holds_is_taken_from_it_and_from_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lease");
    let (dead, next) = (Holder::now("up"), Holder::now("up"));
    // Its connection has not ended: the cable was pulled.
    let mut left = run(&file, "keep", &dead);
    let refused = take_from("another", &file, "keep", &next);
    assert_eq!(refused.refused_by().0, Some(dead.clone()));
    refused.end();
    assert!(left.child.try_wait().unwrap().is_none(), "it lives");
    let taken = take_from(&dead.run, &file, "keep", &next);
    assert_eq!(taken.held_after(), Some(dead.clone()));
    left.child.wait().unwrap();
    let refused = take_from(&dead.run, &file, "keep", &next);
    assert_eq!(refused.refused_by().0, Some(next), "it has it now");
    refused.end();
    taken.end();
}

#[test]
fn the_history_has_the_beginning_and_the_end_where_there_is_a_folder_and_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lease");
    let folder = dir.path().join("lease.d");
    let told = folder.join("history.jsonl");
    let holder = Holder::now("up");
    let begins = format!("{}\n", holder.line());
    // A host that is new has no folder yet; nothing makes one for this.
    run(&file, "keep", &holder).end();
    assert!(!folder.exists());
    // It comes while the run is at work.
    let mut first = run(&file, "keep", &holder);
    fs::create_dir(&folder).unwrap();
    writeln!(first.stdin.as_mut().unwrap()).unwrap();
    let begin = std::time::Instant::now();
    while !told.exists() {
        assert!(
            begin.elapsed() < Duration::from_secs(2),
            "it is written late"
        );
    }
    writeln!(first.stdin.as_mut().unwrap(), "{{\"ends\": 1}}").unwrap();
    first.end();
    let both = format!("{begins}{{\"ends\": 1}}\n");
    assert_eq!(fs::read_to_string(&told).unwrap(), both);
    // A run that is killed has no end.
    run(&file, "keep", &holder).end();
    assert_eq!(
        fs::read_to_string(&told).unwrap(),
        format!("{both}{begins}")
    );
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&told).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // What is long ago goes.
    let line = format!("{}\n", "x".repeat(999));
    fs::write(&told, line.repeat(600)).unwrap();
    run(&file, "keep", &holder).end();
    let left = fs::read_to_string(&told).unwrap();
    assert!(left.ends_with(&begins), "the newest stays");
    assert_eq!(left.lines().count(), 500);
    // `down` has removed the folder.
    let last = run(&file, "clear", &holder);
    let begin = std::time::Instant::now();
    while fs::read_to_string(&told).unwrap().lines().count() == 500 {
        assert!(begin.elapsed() < Duration::from_secs(5), "it has begun");
    }
    fs::remove_dir_all(&folder).unwrap();
    last.end();
    assert!(!folder.exists());
}

#[test]
fn a_sign_of_life_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lease");
    let holder = Holder::now("up");
    let mut held = run(&file, "keep", &holder);
    let sign = || {
        let refused = run(&file, "keep", &Holder::now("up"));
        let (_, sign) = refused.refused_by();
        refused.end();
        sign
    };
    let before = sign();
    std::thread::sleep(Duration::from_millis(1100));
    let silent = sign();
    assert_eq!(silent.at, before.at);
    assert!(silent.ago >= 1);
    writeln!(held.stdin.as_mut().unwrap()).unwrap();
    let begin = std::time::Instant::now();
    while sign().at == before.at {
        assert!(begin.elapsed() < Duration::from_millis(1900), "no sign");
    }
    held.end();
}

#[tokio::test]
async fn what_the_login_prints_is_no_answer() {
    let mut said = &b"Welcome!\nno newline herepgherd lease: held \n"[..];
    assert_eq!(answer(&mut said).await.as_deref(), Some("held \n"));
    assert_eq!(answer(&mut &b"Welcome!\n"[..]).await, None);
    let endless = vec![b'x'; 100_000];
    assert_eq!(answer(&mut &endless[..]).await, None);
}

/// The script's last output, on both streams, if it could not do its work.
async fn ended(script: &str) -> (Option<String>, String) {
    let output = Command::new("bash")
        .args([
            "-c",
            &format!("printf 'keep\\n\\n\\n\\n' | {{ {script}\n}}"),
        ])
        .output()
        .unwrap();
    let said = answer(&mut &output.stdout[..]).await;
    (said, reason(Some(&output.stderr[..])).await)
}

#[tokio::test]
async fn what_ended_without_an_answer_is_told_by_its_last_words() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("nonesuch/lease");
    let script = SCRIPT.replace("/run/pgherd.lease", nowhere.to_str().unwrap());
    let (said, why) = ended(&script).await;
    assert_eq!(said, None);
    assert!(why.contains("nonesuch/lease"), "{why}");
    assert!(reason(Some(&b""[..])).await.contains("without a message"));
}

#[tokio::test]
async fn a_host_that_cannot_lock_is_not_taken_for_one_that_another_run_has() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lease");
    let script = SCRIPT.replace("/run/pgherd.lease", file.to_str().unwrap());
    for (flock, why) in [
        ("flock-is-missing", "command not found"),
        ("{ echo no locks here >&2; (exit 71); } #", "no locks here"),
    ] {
        let script = script.replace("flock -n 9", &format!("{flock} -n 9"));
        let (said, reason) = ended(&script).await;
        assert_eq!(said, None, "{flock}");
        assert!(reason.contains(why), "{reason}");
    }
}

#[test]
fn a_lease_that_was_not_kept_alive_is_not_relied_on() {
    let held = |beaten| Held {
        beaten: Arc::new(AtomicU64::new(beaten)),
        stop: CancellationToken::new(),
        task: None,
    };
    assert!(held(now()).lasts());
    assert!(!held(now() - DOUBT).lasts());
    assert!(!held(0).lasts());
}
