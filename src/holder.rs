//! The run that is at work on a cluster, as another run reports it.

use std::{
    fmt, fs,
    process::{Command, Stdio},
};

use rustix::{
    io::Errno,
    process::{Pid, test_kill_process},
};

use serde::{Deserialize, Serialize};

/// The error's text if another run is at work on the cluster; the cluster's name follows.
pub const AT_WORK: &str = "another run is at work on the cluster";

/// A run that changes something: its verb, who started it, where, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub pid: u32,
    pub verb: String,
    pub since: jiff::Timestamp,
    /// `user@machine`.
    pub by: String,
    /// Distinguishes this run from all others.
    #[serde(default)]
    pub run: String,
    /// Where its process can be found.
    #[serde(default)]
    place: Place,
    /// When its process began, in the kernel's time since the boot; 0 if it is unknown.
    #[serde(default)]
    started: u64,
}

/// The scope in which a process id is unique: one boot of one kernel, and one PID namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Place {
    boot: String,
    processes: String,
}

impl Place {
    fn here() -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let processes = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        Self {
            boot: boot.trim().to_owned(),
            processes: processes.to_string_lossy().into_owned(),
        }
    }

    fn is_known(&self) -> bool {
        !self.boot.is_empty() && !self.processes.is_empty()
    }
}

/// A run that holds a host's lease, as the host reported it a moment ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    pub holder: Holder,
    /// Seconds since its last sign of life.
    pub silent: u64,
}

impl Holder {
    /// This process, at the beginning of `verb`.
    pub fn now(verb: &str) -> Self {
        Self {
            pid: std::process::id(),
            verb: verb.to_owned(),
            since: jiff::Timestamp::now(),
            by: format!("{}@{}", user(), machine()),
            run: format!("{:016x}", rand::random::<u64>()),
            place: Place::here(),
            started: process(std::process::id()).map_or(0, |it| it.started),
        }
    }

    /// Whether its process is on this machine and alive.
    pub fn lives_here(&self) -> bool {
        self.is_of_here() && !self.has_died_here()
    }

    /// Whether its process was on this machine and is certainly gone. A run elsewhere may always be alive.
    pub fn has_died_here(&self) -> bool {
        if !self.is_of_here() {
            return false;
        }
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        // Where /proc hides other users' processes, the error still shows that the process exists.
        if pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH)) {
            return true;
        }
        // The process id may belong to another process by now.
        process(self.pid).is_some_and(|it| it.ended || it.started != self.started)
    }

    fn is_of_here(&self) -> bool {
        self.started != 0 && self.place.is_known() && self.place == Place::here()
    }

    /// Reads a line of [`Holder::line`]. The line comes from elsewhere, so everything but plain text is
    /// dropped.
    pub fn parse(line: &str) -> Option<Self> {
        let holder: Self = serde_json::from_str(line.trim()).ok()?;
        Some(Self {
            verb: plain(&holder.verb),
            by: plain(&holder.by),
            ..holder
        })
    }

    /// One line of text without a line end.
    pub fn line(&self) -> String {
        // Serialising a struct of numbers and strings to JSON cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Which of two runs that began at about the same time goes first. Both sides compare the same two values,
    /// so they agree even if their clocks differ.
    pub fn goes_before(&self, other: &Self) -> bool {
        (self.since, &self.run) < (other.since, &other.run)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.since.strftime("%Y-%m-%d %H:%M:%S UTC");
        write!(
            f,
            "`{}` by {}, process {}, since {since}",
            self.verb, self.by, self.pid
        )
    }
}

struct Process {
    /// The process is dead, and its parent has not collected its exit status yet.
    ended: bool,
    started: u64,
}

/// What the kernel says of a process (proc(5), `/proc/pid/stat`).
fn process(pid: u32) -> Option<Process> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name, in parentheses, may contain any character.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    Some(Process {
        ended: matches!(state, "Z" | "X"),
        started: fields.nth(18)?.parse().ok()?,
    })
}

fn plain(text: &str) -> String {
    let allowed = |c: &char| c.is_alphanumeric() || "@._+- $\\".contains(*c);
    text.chars().filter(allowed).take(100).collect()
}

fn user() -> String {
    ["USER", "LOGNAME"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|value| !value.is_empty())
        .or_else(|| line_of("id", "-un"))
        .unwrap_or_else(|| "somebody".to_owned())
}

fn machine() -> String {
    line_of("uname", "-n").unwrap_or_else(|| "this machine".to_owned())
}

fn line_of(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let line = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!line.is_empty()).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_back_and_nothing_else_reaches_a_terminal() {
        let holder = Holder::now("up");
        assert_eq!(Holder::parse(&holder.line()), Some(holder.clone()));
        assert_eq!(Holder::parse(""), None);
        assert_eq!(Holder::parse("up by alice"), None);
        let odd = Holder {
            by: "a\u{1b}[2J\u{202e}b@c\n".into(),
            ..holder
        };
        assert_eq!(Holder::parse(&odd.line()).unwrap().by, "a2Jb@c");
    }

    #[test]
    fn only_a_run_of_this_machine_can_be_known_to_be_dead() {
        let alive = Holder::now("up");
        assert!(alive.lives_here() && !alive.has_died_here());
        let read = Holder::parse(&alive.line()).unwrap();
        assert!(read.lives_here(), "{read:?}");
        let dies = |change: fn(&mut Holder)| {
            let mut holder = Holder::now("up");
            let mut child = Command::new("true").spawn().unwrap();
            holder.pid = child.id();
            holder.started = process(child.id()).unwrap().started;
            // Dead, and its parent has not collected its exit status yet.
            while !process(child.id()).unwrap().ended {
                std::thread::yield_now();
            }
            change(&mut holder);
            let zombie = holder.has_died_here();
            child.wait().unwrap();
            assert_eq!(zombie, holder.has_died_here());
            assert!(!holder.lives_here());
            zombie
        };
        assert!(dies(|_| {}));
        assert!(!dies(|holder| holder.place.boot = "another".into()));
        assert!(!dies(|holder| holder.place.processes = "another".into()));
        assert!(!dies(|holder| holder.place = Place::default()));
        assert!(!dies(|holder| holder.started = 0), "of an earlier version");
        let mut reused = Holder::now("up");
        reused.started -= 1;
        assert!(reused.has_died_here(), "the number is another process's");
        let old = r#"{"pid":1,"verb":"up","since":"2026-11-26T12:00:00Z","by":"a@b"}"#;
        assert!(!Holder::parse(old).unwrap().has_died_here());
    }

    #[test]
    fn two_runs_agree_on_who_goes_first() {
        let one = Holder::now("up");
        let mut other = Holder::now("down");
        assert_ne!(one.goes_before(&other), other.goes_before(&one));
        other.since = one.since;
        assert_ne!(one.goes_before(&other), other.goes_before(&one));
        assert!(!one.goes_before(&one));
    }
}
