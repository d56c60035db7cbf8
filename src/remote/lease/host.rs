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

use super::Story;
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

/// A question for the lease.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub holder: &'a Holder,
    /// A run from which the lease is taken; empty if there is none.
    pub dead: &'a str,
    pub story: &'a Arc<Story>,
    /// What is held ends with it.
    pub given_up: &'a CancellationToken,
}

/// Asks a host for the lease.
pub(super) async fn ask(session: &Arc<Session>, asking: Asking<'_>) -> Answer {
    match timeout(ANSWER, converse(session, asking)).await {
        Ok(Some(answer)) => answer,
        Ok(None) => Answer::Unknown("the connection broke".to_owned()),
        Err(_) => Answer::Unknown(format!("no answer in {} s", ANSWER.as_secs())),
    }
}

async fn converse(session: &Arc<Session>, asking: Asking<'_>) -> Option<Answer> {
    let Asking {
        holder,
        dead,
        story,
        given_up,
    } = asking;
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
    let begins = &story.begins;
    let said = format!(
        "{}\n{SCRIPT}{end}\n{dead}\n{line}\n{begins}\n",
        SCRIPT.len()
    );
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
        let (stop, beaten, story) = (stop.clone(), beaten.clone(), story.clone());
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
            if let Some(ends) = story.ends.get() {
                let _ = timeout(ENDING, stdin.write_all(format!("{ends}\n").as_bytes())).await;
            }
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
mod tests;
