//! How SSH reaches the hosts.

use std::{fmt, path::PathBuf};

use crate::shell::quote;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssh {
    pub user: String,
    pub port: u16,
    /// The user's own private key; if it is not set, the workspace has one. With an agent, it may be the public
    /// half.
    pub identity_file: Option<PathBuf>,
    /// The bastions, in the order in which a connection passes them.
    pub proxy_jump: Vec<Jump>,
    /// The user's own settings for `ssh`, for hosts and bastions.
    pub config: Option<PathBuf>,
    /// The value of OpenSSH's `IdentityAgent`.
    pub agent: Option<String>,
    /// Seconds after which a host that does not answer is given up.
    pub connect_timeout: u32,
    /// Seconds for which an unused connection is kept for the next run; 0 keeps none.
    pub keep_alive: u32,
}

impl Ssh {
    /// Whether hosts are surely reached from this machine at their own addresses. If not, what answers at such
    /// an address here may be anybody.
    pub fn is_direct(&self) -> bool {
        self.proxy_jump.is_empty() && self.config.is_none()
    }

    /// A command line that logs in to the last bastion with the user's own `ssh`.
    pub fn to_bastion(&self) -> Option<String> {
        let (last, before) = self.proxy_jump.split_last()?;
        let mut words = vec!["ssh".to_owned()];
        if let Some(config) = &self.config {
            words.push(format!("-F {}", quote(&config.display().to_string())));
        }
        if !before.is_empty() {
            let before: Vec<String> = before.iter().map(ToString::to_string).collect();
            words.push(format!("-J {}", before.join(",")));
        }
        words.push(last.arguments());
        Some(words.join(" "))
    }
}

/// A host that is passed on the way to others: a name or an address, or a name in the user's settings for `ssh`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jump {
    pub user: Option<String>,
    pub host: String,
    pub port: Option<u16>,
}

impl Jump {
    /// From `[user@]host[:port]`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (user, rest) = match text.split_once('@') {
            Some((user, rest)) => (Some(user.to_owned()), rest),
            None => (None, text),
        };
        let (host, port) = match rest.split_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok().filter(|it| *it > 0)?)),
            None => (rest, None),
        };
        let host = host.to_owned();
        Some(Self { user, host, port })
    }

    /// The same as arguments of `ssh`.
    pub fn arguments(&self) -> String {
        let user = self.user.as_ref().map(|user| format!("-l {user} "));
        let port = self.port.map(|port| format!("-p {port} "));
        let (user, port) = (user.unwrap_or_default(), port.unwrap_or_default());
        format!("{user}{port}{}", self.host)
    }
}

impl fmt::Display for Jump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        f.write_str(&self.host)?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bastion_is_what_ssh_calls_one() {
        let table = [
            ("jump", "jump", "jump"),
            (
                "me@jump.example.com",
                "-l me jump.example.com",
                "me@jump.example.com",
            ),
            ("192.0.2.1:2222", "-p 2222 192.0.2.1", "192.0.2.1:2222"),
            ("me@jump:22", "-l me -p 22 jump", "me@jump:22"),
        ];
        for (text, arguments, shown) in table {
            let jump = Jump::parse(text).unwrap();
            assert_eq!(
                (jump.arguments().as_str(), jump.to_string().as_str()),
                (arguments, shown)
            );
        }
        for text in ["jump:0", "jump:70000", "jump:ssh"] {
            assert_eq!(Jump::parse(text), None, "{text}");
        }
    }
}
