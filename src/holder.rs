//! Who is at work on a cluster, as another run is told.

use std::{
    fmt,
    process::{Command, Stdio},
};

use serde::{Deserialize, Serialize};

/// What the error says of a run that finds another one at work, before the cluster's name.
pub const AT_WORK: &str = "another run is at work on the cluster";

/// A run that changes something: what it does, who started it, where, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub pid: u32,
    pub verb: String,
    pub since: jiff::Timestamp,
    /// `user@machine`.
    pub by: String,
    /// Tells this run from every other one.
    #[serde(default)]
    pub run: String,
}

impl Holder {
    /// This process, as it begins `verb`.
    pub fn now(verb: &str) -> Self {
        Self {
            pid: std::process::id(),
            verb: verb.to_owned(),
            since: jiff::Timestamp::now(),
            by: format!("{}@{}", user(), machine()),
            run: format!("{:016x}", rand::random::<u64>()),
        }
    }

    /// Reads what [`Holder::line`] has written. It comes from elsewhere: what is no plain text in it
    /// is left out.
    pub fn parse(line: &str) -> Option<Self> {
        let holder: Self = serde_json::from_str(line.trim()).ok()?;
        Some(Self {
            verb: plain(&holder.verb),
            by: plain(&holder.by),
            ..holder
        })
    }

    /// One line of text without its end.
    pub fn line(&self) -> String {
        // A struct of numbers and strings always has a form in JSON.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Which of two runs that began at about the same time goes first. Both sides compare the same
    /// two values, so they agree, whatever their clocks say.
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
    fn two_runs_agree_on_who_goes_first() {
        let one = Holder::now("up");
        let mut other = Holder::now("down");
        assert_ne!(one.goes_before(&other), other.goes_before(&one));
        other.since = one.since;
        assert_ne!(one.goes_before(&other), other.goes_before(&one));
        assert!(!one.goes_before(&one));
    }
}
