//! The lease of a run that changes something: held on each host for as long as the connection to it.
//!
//! The workspace's lock is a local file, and an operator with a copy of the workspace does not see it.
//! So a process as root on each host holds a lock there (`flock`), and ends when the run's connection
//! ends, or after [`SILENCE`] without a sign of life. Nothing has to be cleaned up after a run that died.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use openssh::{Session, Stdio};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    task::JoinHandle,
    time::{Instant, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    error::{Code, Error},
    holder::{AT_WORK, Holder},
    inventory::HostName,
};

/// Starts a shell as root that reads its script from standard input, its length in a line before it;
/// what comes after it stays for the script. As in [`super::runner`], nothing depends on the login.
const RUNNER: &str = concat!(
    "/bin/sh -c '",
    r#"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH; export PATH; "#,
    r#"if [ "$(id -u)" = 0 ]; then exec /bin/sh -c "$0" "$1"; else exec sudo -n /bin/sh -c "$0" "$1"; fi' '"#,
    r#"exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C bash -c "$0"' '"#,
    r#"IFS= read -r n && IFS= read -r -N "$n" s && eval "$s"'"#,
);

/// How the one line begins that the script says; what comes before it is the login's.
const MARK: &str = "pgherd lease: ";

/// Holds the lease, or says who does. The file lies where only root can make one; it stays when the
/// run ends, to tell a run that was cut off for a while whether there was another one meanwhile.
const SCRIPT: &str = r#"umask 077
lease=/run/pgherd.lease
IFS= read -r -t 30 end || exit 0
IFS= read -r -t 30 who || exit 0
while exec 9<>"$lease"; do
  if ! flock -n 9; then
    IFS= read -r there <"$lease"
    printf 'pgherd lease: refused %s\n' "$there"
    exit 0
  fi
  # It may have been removed between its opening and its locking.
  [ /proc/self/fd/9 -ef "$lease" ] && break
done
IFS= read -r last <"$lease"
printf '%s\n' "$who" >"$lease" || exit 1
printf 'pgherd lease: held %s\n' "$last"
while IFS= read -r -t 30 _; do :; done
if [ "$end" = clear ]; then rm -f "$lease"; fi
"#;

/// After which time without a sign of life a host gives the lease up; the script has it too.
const SILENCE: Duration = Duration::from_secs(30);
/// How often a host gets a sign of life.
const BEAT: Duration = Duration::from_secs(8);
/// After which time this side does not rely on a lease that it could not keep alive.
const DOUBT: u64 = 24;
/// How long a host may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long to ask again before a refusal counts: the lease of a run that has just ended goes within
/// moments.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same where the other run is the younger one, which gives up when its patience is over.
const PRECEDENCE: Duration = Duration::from_secs(8);
/// How long the end of a lease may take.
const ENDING: Duration = Duration::from_secs(2);

/// What a run takes on every host that it connects to.
#[derive(Debug)]
pub struct Lease {
    cluster: String,
    holder: Holder,
    /// When each host that holds it was last told that the run is alive.
    beats: Mutex<Vec<Arc<AtomicU64>>>,
    /// Whether every host that answered has granted it.
    settled: AtomicBool,
    /// The run goes no further: another one has the cluster.
    given_up: CancellationToken,
    /// Which host said so, and who has it.
    lost: OnceLock<(HostName, Option<Holder>)>,
    /// Why hosts could not say whether it is theirs to give.
    unheld: Mutex<BTreeMap<HostName, String>>,
}

/// What came of taking it on one host.
pub(super) enum Taken {
    Held(Held),
    Refused(Error),
    /// The host could not say; what is done next on it will say why.
    Unknown,
}

enum Answer {
    /// It ended without an answer, with these words.
    Silent(String),
    /// With whoever held it last.
    Held(Box<Held>, Option<Holder>),
    By(Option<Holder>),
}

impl Lease {
    pub fn new(cluster: &str, holder: Holder) -> Self {
        Self {
            cluster: cluster.to_owned(),
            holder,
            beats: Mutex::default(),
            settled: AtomicBool::new(false),
            given_up: CancellationToken::new(),
            lost: OnceLock::new(),
            unheld: Mutex::default(),
        }
    }

    fn unknown(&self, host: &HostName, why: String) -> Taken {
        let mut unheld = self.unheld.lock().unwrap_or_else(PoisonError::into_inner);
        unheld.insert(host.clone(), why);
        Taken::Unknown
    }

    /// Why the run may not begin although hosts answer: none of them holds it for this run, so that
    /// another one could be at work as well.
    pub(super) fn nowhere(&self) -> Option<Error> {
        if self.settled.load(Ordering::Relaxed) || self.holding() > 0 {
            return None;
        }
        let unheld = self.unheld.lock().unwrap_or_else(PoisonError::into_inner);
        let error = Error::new(Code::LeaseNotTaken, "no host holds the lease for this run");
        let error = unheld.iter().fold(error, |error, (host, why)| {
            error.cause(format!("{host}: {why}"))
        });
        Some(
            error
                .left("nothing was changed")
                .hint("without it another run could be at work at the same time")
                .hint("it is a lock on /run/pgherd.lease; try it on a host: sudo bash -c 'exec 9<>/run/pgherd.lease && flock -n 9 && echo free'"),
        )
    }

    /// Why nothing may be done any more, if that is so.
    pub(super) fn given_up(&self) -> Option<Error> {
        let (host, other) = self.lost.get()?;
        Some(self.refused(host, other.as_ref()))
    }

    /// Gives up what is held everywhere.
    fn give_up(&self, host: &HostName, other: Option<Holder>) -> Taken {
        let (host, other) = self.lost.get_or_init(|| (host.clone(), other));
        self.given_up.cancel();
        Taken::Refused(self.refused(host, other.as_ref()))
    }

    /// On how many hosts it is held, as far as this side can know.
    fn holding(&self) -> usize {
        let mut beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        beats.retain(|beaten| is_fresh(beaten));
        beats.len()
    }

    /// From now on the loss of a host is not the loss of the cluster.
    pub(super) fn settle(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    fn holds_elsewhere(&self) -> bool {
        self.settled.load(Ordering::Relaxed) && self.holding() > 0
    }

    /// Takes it over `session`, or says who has it.
    pub(super) async fn take(&self, host: &HostName, session: &Arc<Session>) -> Taken {
        let begin = Instant::now();
        loop {
            if let Some(error) = self.given_up() {
                return Taken::Refused(error);
            }
            let answer = timeout(ANSWER, self.ask(session)).await;
            let other = match answer {
                Ok(Some(Answer::Held(held, last))) => return self.granted(host, *held, last),
                Ok(Some(Answer::By(other))) => other,
                Ok(Some(Answer::Silent(why))) => return self.unknown(host, why),
                Ok(None) => return self.unknown(host, "the connection broke".to_owned()),
                Err(_) => {
                    let seconds = ANSWER.as_secs();
                    return self.unknown(host, format!("no answer in {seconds} s"));
                }
            };
            // One of our own, over a connection that broke and has not ended there yet.
            let own = other.as_ref().is_some_and(|it| it.run == self.holder.run);
            let first = other.as_ref().is_some_and(|it| self.holder.goes_before(it));
            let patience = if first { PRECEDENCE } else { PATIENCE };
            if begin.elapsed() < patience {
                sleep(Duration::from_millis(150)).await;
                continue;
            }
            if own || self.holds_elsewhere() {
                return Taken::Unknown;
            }
            return self.give_up(host, other);
        }
    }

    /// What was held everywhere else may have been lost meanwhile, and another run have come and gone.
    fn granted(&self, host: &HostName, held: Held, last: Option<Holder>) -> Taken {
        let alone = self.holding() <= 1;
        let other = last.filter(|it| it.run != self.holder.run);
        match other {
            Some(other) if self.settled.load(Ordering::Relaxed) && alone => {
                self.give_up(host, Some(other))
            }
            _ => Taken::Held(held),
        }
    }

    fn refused(&self, host: &HostName, other: Option<&Holder>) -> Error {
        if self.settled.load(Ordering::Relaxed)
            && let Some(other) = other
        {
            return self.overtaken(host, other);
        }
        let error = Error::new(Code::LeaseHeld, format!("{AT_WORK} `{}`", self.cluster));
        let error = match other {
            Some(other) => error.cause(format!("{host} says: {other}")),
            None => error.cause(format!("{host} says so, and not yet who it is")),
        };
        error
            .left("nothing was changed")
            .hint("wait until it has ended, or stop it with Ctrl-C where it runs")
            .hint(format!(
                "if its machine has died or is cut off, the hosts let go after {} s",
                SILENCE.as_secs()
            ))
    }

    fn overtaken(&self, host: &HostName, other: &Holder) -> Error {
        Error::new(
            Code::LeaseLost,
            format!(
                "for a while no host held the lease for this run, and {AT_WORK} `{}` since",
                self.cluster
            ),
        )
        .cause(format!("{host} says: {other}"))
        .left("steps already running on a host go on there to their end; no further step begins")
        .hint("see what it has done, and run this again: what is done already is not done twice")
    }

    async fn ask(&self, session: &Arc<Session>) -> Option<Answer> {
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
        // `down` takes along what it leaves on a host.
        let end = match self.holder.verb.as_str() {
            "down" => "clear",
            _ => "keep",
        };
        let said = format!("{}\n{SCRIPT}{end}\n{}\n", SCRIPT.len(), self.holder.line());
        stdin.write_all(said.as_bytes()).await.ok()?;
        let mut stdout = BufReader::new(stdout);
        let Some(said) = answer(&mut stdout).await else {
            return Some(Answer::Silent(reason(child.stderr().take()).await));
        };
        let line = said.trim_end();
        if let Some(other) = line.strip_prefix("refused") {
            return Some(Answer::By(Holder::parse(other)));
        }
        let last = Holder::parse(line.strip_prefix("held")?);
        let beaten = Arc::new(AtomicU64::new(now()));
        self.beats
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(beaten.clone());
        let stop = self.given_up.child_token();
        let task = tokio::spawn({
            let (stop, beaten) = (stop.clone(), beaten.clone());
            async move {
                let mut beats = interval(BEAT);
                let mut rest = [0; 64];
                loop {
                    tokio::select! {
                        () = stop.cancelled() => break,
                        // Nothing more is said: it has ended there.
                        _ = stdout.read(&mut rest) => {
                            beaten.store(0, Ordering::Relaxed);
                            return;
                        }
                        _ = beats.tick() => {
                            // This machine may have slept, and the host have let go meanwhile.
                            if !is_fresh(&beaten) || stdin.write_all(b"\n").await.is_err() {
                                break;
                            }
                            beaten.store(now(), Ordering::Relaxed);
                        }
                    }
                }
                beaten.store(0, Ordering::Relaxed);
                drop(stdin);
                // Until it has ended there, so that the next run finds it free.
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
}

/// The last that was said by what ended without an answer; bounded too.
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
    last.unwrap_or("what was to hold it ended without a word")
        .to_owned()
}

/// What the script says, after whatever the login has printed; bounded, for it comes from elsewhere.
async fn answer(stdout: &mut (impl AsyncBufRead + Unpin)) -> Option<String> {
    let mut bounded = stdout.take(64 * 1024);
    loop {
        let mut line = Vec::new();
        if bounded.read_until(b'\n', &mut line).await.ok()? == 0 {
            return None;
        }
        let line = String::from_utf8_lossy(&line);
        // What the login printed last may have had no end of line.
        if let Some((_, said)) = line.split_once(MARK) {
            return Some(said.to_owned());
        }
    }
}

/// The lease on one host; given back when dropped.
#[derive(Debug)]
pub(super) struct Held {
    /// When the last sign of life was sent, by this machine's clock, which also counts the time that
    /// the machine slept; 0 once it has ended.
    beaten: Arc<AtomicU64>,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Held {
    /// Whether the host still holds it, as far as this side can know.
    pub(super) fn lasts(&self) -> bool {
        is_fresh(&self.beaten)
    }

    /// Gives it back, and waits until the host has let go.
    pub(super) async fn end(mut self) {
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

fn is_fresh(beaten: &AtomicU64) -> bool {
    now().abs_diff(beaten.load(Ordering::Relaxed)) < DOUBT
}

fn now() -> u64 {
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
        writeln!(stdin, "{end}\n{}", holder.line()).unwrap();
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
    }

    #[test]
    fn one_holds_it_and_the_other_is_told_who() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lease");
        let (alice, bob) = (Holder::now("up"), Holder::now("down"));
        let first = run(&file, "keep", &alice);
        assert_eq!(first.said, "pgherd lease: held");
        let second = run(&file, "clear", &bob);
        let told = second.said.strip_prefix("pgherd lease: refused ").unwrap();
        assert_eq!(Holder::parse(told), Some(alice.clone()));
        second.end();
        first.end();
        // The next one hears who it was, and `down` takes the file along.
        let third = run(&file, "clear", &bob);
        let told = third.said.strip_prefix("pgherd lease: held ").unwrap();
        assert_eq!(Holder::parse(told), Some(alice));
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

    #[tokio::test]
    async fn what_the_login_prints_is_no_answer() {
        let mut said = &b"Welcome!\nno newline herepgherd lease: held \n"[..];
        assert_eq!(answer(&mut said).await.as_deref(), Some("held \n"));
        assert_eq!(answer(&mut &b"Welcome!\n"[..]).await, None);
        let endless = vec![b'x'; 100_000];
        assert_eq!(answer(&mut &endless[..]).await, None);
    }

    #[test]
    fn a_host_that_is_lost_is_no_loss_and_a_run_in_between_is_one() {
        let lease = Lease::new("pg", Holder::now("up"));
        let host = HostName::new("node1");
        let held = || Held {
            beaten: Arc::new(AtomicU64::new(now())),
            stop: CancellationToken::new(),
            task: None,
        };
        let other = Holder::now("down");
        let granted = |last| lease.granted(&host, held(), last);
        assert!(
            matches!(granted(Some(other.clone())), Taken::Held(_)),
            "at the beginning it does not matter who was before"
        );
        lease.settle();
        let beats = |ages: [u64; 2]| {
            let beats = ages.map(|age| Arc::new(AtomicU64::new(now() - age)));
            *lease.beats.lock().unwrap() = beats.into();
        };
        beats([0, DOUBT - 1]);
        assert!(matches!(granted(Some(other.clone())), Taken::Held(_)));
        assert!(lease.given_up().is_none());
        beats([0, DOUBT]);
        assert!(
            matches!(granted(None), Taken::Held(_)),
            "the host restarted"
        );
        let own = Some(lease.holder.clone());
        assert!(matches!(granted(own), Taken::Held(_)));
        let Taken::Refused(error) = granted(Some(other)) else {
            panic!("another run has been there");
        };
        assert_eq!(error.code(), Code::LeaseLost, "{error}");
        assert!(lease.given_up.is_cancelled(), "what is held is given back");
        assert!(lease.given_up().is_some(), "and nothing goes on elsewhere");
    }

    fn lease() -> Lease {
        Lease::new("pg", Holder::now("up"))
    }

    #[test]
    fn a_lease_that_no_host_holds_is_an_obstacle() {
        let lease = lease();
        let host = HostName::new("node1");
        let why = "bash: line 1: flock: command not found";
        assert!(matches!(lease.unknown(&host, why.into()), Taken::Unknown));
        let error = lease.nowhere().expect("no host holds it");
        assert_eq!(error.causes(), [format!("node1: {why}")]);
        assert_eq!(error.left_behind(), Some("nothing was changed"));
        lease
            .beats
            .lock()
            .unwrap()
            .push(Arc::new(AtomicU64::new(now())));
        assert!(lease.nowhere().is_none(), "one is enough");
        lease.settle();
        lease.beats.lock().unwrap().clear();
        assert!(lease.nowhere().is_none(), "its loss is another matter");
    }

    #[tokio::test]
    async fn what_ended_without_an_answer_is_told_by_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let nowhere = dir.path().join("nonesuch/lease");
        let script = SCRIPT.replace("/run/pgherd.lease", nowhere.to_str().unwrap());
        let output = Command::new("bash")
            .args(["-c", &format!("printf 'keep\\n\\n\\n' | {{ {script}\n}}")])
            .output()
            .unwrap();
        assert_eq!(answer(&mut &output.stdout[..]).await, None);
        let said = reason(Some(&output.stderr[..])).await;
        assert!(said.contains("nonesuch/lease"), "{said}");
        assert!(reason(Some(&b""[..])).await.contains("without a word"));
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
        assert!(DOUBT < SILENCE.as_secs());
    }
}
