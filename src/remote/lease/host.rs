//! The lease on one host: the script that holds it there, and how pgherd talks to it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use openssh::{Session, Stdio};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    task::JoinHandle,
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::holder::Holder;

/// Starts a shell as root that reads its script from standard input, after a line with its length; what follows
/// is the script's input. As in [`crate::remote::runner`], nothing depends on the login.
const RUNNER: &str = concat!(
    "/bin/sh -c '",
    r#"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH; export PATH; "#,
    r#"if [ "$(id -u)" = 0 ]; then exec /bin/sh -c "$0" "$1"; else exec sudo -n /bin/sh -c "$0" "$1"; fi' '"#,
    r#"exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C bash -c "$0"' '"#,
    r#"IFS= read -r n && IFS= read -r -N "$n" s && eval "$s"'"#,
);

/// The prefix of the script's one line; everything before it is from the login.
const MARK: &str = "pgherd lease: ";

/// Holds the lease, or prints who does. Only root can create the file at its place. It stays when the run ends,
/// so that a run that was cut off for a while can see whether there was another one meanwhile.
///
/// The script is told a run that is known to be dead, if there is one. Nothing comes over that run's connection
/// any more, so the process that holds the lease for it is ended and not waited for.
const SCRIPT: &str = include_str!("hold.sh");

/// The time without a sign of life after which a host releases the lease; the script has it too.
pub(super) const SILENCE: Duration = Duration::from_secs(30);
/// How often a host gets a sign of life.
pub(super) const BEAT: Duration = Duration::from_secs(2);
/// The time after which this side does not rely on a lease that it could not keep alive.
pub(super) const DOUBT: u64 = 24;
/// How long a host may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long releasing a lease may take.
const ENDING: Duration = Duration::from_secs(2);

const _: () = assert!(DOUBT < SILENCE.as_secs());

/// The time of the last sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sign {
    /// Seconds ago.
    pub ago: u64,
    /// By the host's clock.
    pub at: u64,
}

/// A host's answer.
pub(super) enum Answer {
    /// It is this run's now, and was the named run's before.
    Held(Box<Held>, Option<Holder>),
    /// Another run has it.
    By(Option<Holder>, Sign),
    /// The host could not say, for this reason.
    Unknown(String),
}

/// Asks a host for the lease of `holder`; a lease of the run `dead` is taken from it. What is held ends with
/// `given_up`.
pub(super) async fn ask(
    session: &Arc<Session>,
    holder: &Holder,
    dead: &str,
    given_up: &CancellationToken,
) -> Answer {
    match timeout(ANSWER, converse(session, holder, dead, given_up)).await {
        Ok(Some(answer)) => answer,
        Ok(None) => Answer::Unknown("the connection broke".to_owned()),
        Err(_) => Answer::Unknown(format!("no answer in {} s", ANSWER.as_secs())),
    }
}

async fn converse(
    session: &Arc<Session>,
    holder: &Holder,
    dead: &str,
    given_up: &CancellationToken,
) -> Option<Answer> {
    let mut child = session
        .clone()
        .arc_raw_command(RUNNER)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .await
        .ok()?;
    let mut stdin = child.stdin().take()?;
    let stdout = child.stdout().take()?;
    // `down` removes what it leaves on a host.
    let end = match holder.verb.as_str() {
        "down" => "clear",
        _ => "keep",
    };
    let line = holder.line();
    let said = format!("{}\n{SCRIPT}{end}\n{dead}\n{line}\n", SCRIPT.len());
    stdin.write_all(said.as_bytes()).await.ok()?;
    let mut stdout = BufReader::new(stdout);
    let Some(said) = answer(&mut stdout).await else {
        return Some(Answer::Unknown(reason(child.stderr().take()).await));
    };
    let line = said.trim_end();
    if let Some(other) = line.strip_prefix("refused ") {
        let (other, sign) = refusal(other);
        return Some(Answer::By(other, sign));
    }
    let last = Holder::parse(line.strip_prefix("held")?);
    let beaten = Arc::new(AtomicU64::new(now()));
    let stop = given_up.child_token();
    let task = tokio::spawn({
        let (stop, beaten) = (stop.clone(), beaten.clone());
        async move {
            let mut beats = interval(BEAT);
            let mut rest = [0; 64];
            loop {
                tokio::select! {
                    () = stop.cancelled() => break,
                    // Nothing more comes: it has ended there.
                    _ = stdout.read(&mut rest) => {
                        beaten.store(0, Ordering::Relaxed);
                        return;
                    }
                    _ = beats.tick() => {
                        // This machine may have been suspended, and the host may have released the lease
                        // meanwhile.
                        if !is_fresh(&beaten) || stdin.write_all(b"\n").await.is_err() {
                            break;
                        }
                        beaten.store(now(), Ordering::Relaxed);
                    }
                }
            }
            beaten.store(0, Ordering::Relaxed);
            drop(stdin);
            // Waits until it has ended there, so that the next run finds the lease free.
            let _ = timeout(ENDING, stdout.read(&mut rest)).await;
            drop(child);
        }
    });
    let held = Held {
        beaten,
        stop,
        task: Some(task),
    };
    Some(Answer::Held(Box::new(held), last))
}

/// The last output of a script that ended without an answer; limited too.
async fn reason(stderr: Option<impl AsyncRead + Unpin>) -> String {
    let mut said = Vec::new();
    if let Some(stderr) = stderr {
        let _ = timeout(ENDING, stderr.take(4096).read_to_end(&mut said)).await;
    }
    let said = String::from_utf8_lossy(&said);
    let last = said
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty());
    last.unwrap_or("the process that should hold it ended without a message")
        .to_owned()
}

/// The holder, and the time of the last sign of life.
fn refusal(said: &str) -> (Option<Holder>, Sign) {
    let mut parts = said.splitn(3, ' ');
    let mut number = || parts.next()?.parse().ok();
    // If a clock was set back, the sign of life may be in the future.
    let sign = Sign {
        ago: number().unwrap_or_default(),
        at: number().unwrap_or_default(),
    };
    (parts.next().and_then(Holder::parse), sign)
}

/// The script's output, after everything that the login printed; limited, because it comes from elsewhere.
async fn answer(stdout: &mut (impl AsyncBufRead + Unpin)) -> Option<String> {
    let mut bounded = stdout.take(64 * 1024);
    loop {
        let mut line = Vec::new();
        if bounded.read_until(b'\n', &mut line).await.ok()? == 0 {
            return None;
        }
        let line = String::from_utf8_lossy(&line);
        // The login's last output may have had no line end.
        if let Some((_, said)) = line.split_once(MARK) {
            return Some(said.to_owned());
        }
    }
}

/// The lease on one host; given back when it is dropped.
#[derive(Debug)]
pub(in crate::remote) struct Held {
    /// When the last sign of life was sent, by this machine's clock, which also counts while the machine is
    /// suspended; 0 when the lease has ended.
    pub(super) beaten: Arc<AtomicU64>,
    pub(super) stop: CancellationToken,
    pub(super) task: Option<JoinHandle<()>>,
}

impl Held {
    /// Whether the host still holds it, as far as this side can know.
    pub(in crate::remote) fn lasts(&self) -> bool {
        is_fresh(&self.beaten)
    }

    /// Gives it back, and waits until the host has released it.
    pub(in crate::remote) async fn end(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.beaten.store(0, Ordering::Relaxed);
        self.stop.cancel();
    }
}

pub(super) fn is_fresh(beaten: &AtomicU64) -> bool {
    now().abs_diff(beaten.load(Ordering::Relaxed)) < DOUBT
}

pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
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
            .replace("-t 30", "-t 2");
        let mut child = Command::new("bash")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        writeln!(stdin, "{end}\n{dead}\n{}", holder.line()).unwrap();
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
            .args(["-c", &format!("printf 'keep\\n\\n\\n' | {{ {script}\n}}")])
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
}
