//! Connections that outlive the command that made them, so that the next command needs no key exchange.
//!
//! A run has its connections for itself. When it ends properly, it moves each one into the cluster's folder,
//! and the next run takes it from there. Both are renames, so two runs never use the same one. Its `ssh` ends
//! by itself when it has not been used for a while.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::future::join_all;
use openssh::{Session, Stdio};
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use crate::inventory::HostName;

/// How long a host may take to prove that a kept connection still leads to it: one round trip.
const ALIVE: Duration = Duration::from_secs(2);
/// How long an `ssh` on this machine may take to be told to end.
const FAREWELL: Duration = Duration::from_secs(1);
/// The control socket, where `openssh` puts it in a connection's folder.
const SOCKET: &str = "master";

/// Where connections are kept, and what they depend on in addition to the `ssh_config`.
#[derive(Debug, Clone)]
pub struct Keep {
    /// The cluster's folder, closed to other users, on the same file system as the run's own.
    pub folder: PathBuf,
    /// The time without use after which a connection ends: seconds, more than 0.
    pub seconds: u32,
    /// The file with the hosts' pinned keys.
    pub known_hosts: PathBuf,
    /// The key that is presented; `None` if the user's own `ssh` chooses one.
    pub identity: Option<PathBuf>,
    /// The user's own settings for `ssh`, which the `ssh_config` includes.
    pub settings: Option<PathBuf>,
}

impl Keep {
    /// The name of a connection to `host` with the present settings. Another address, port, user, option,
    /// pinned key or presented key gives another name.
    pub(super) fn name(&self, config: &Path, host: &HostName) -> Option<String> {
        let config = fs::read_to_string(config).ok()?;
        let pins = fs::read_to_string(&self.known_hosts).ok()?;
        let mut parts = vec![self.seconds.to_string()];
        let mut ours = true;
        let mut alias = None;
        for line in config.lines().map(str::trim) {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            match key {
                "Host" => ours = value.split(' ').any(|it| it == "*" || it == host.as_str()),
                "HostKeyAlias" if ours => alias = Some(value),
                // A preview has these files elsewhere; only their content counts.
                "UserKnownHostsFile" | "IdentityFile" | "Include" => continue,
                "IdentityAgent" => parts.push(variable(value)),
                // The bastion, without the path of this file.
                "ProxyCommand" => {
                    parts.extend(value.rsplit(" -W ").next().map(str::to_owned));
                    continue;
                }
                _ => {}
            }
            if ours {
                parts.push(line.to_owned());
            }
        }
        let alias = alias?;
        let pinned = pins
            .lines()
            .filter(|line| line.split_whitespace().next() == Some(alias));
        parts.extend(pinned.map(str::to_owned));
        if let Some(path) = &self.settings {
            parts.push(digest(&[fs::read_to_string(path).ok()?], 64));
            parts.push(variable("SSH_AUTH_SOCK"));
        }
        match &self.identity {
            Some(path) => parts.push(digest(&[fs::read_to_string(path).ok()?], 64)),
            None => parts.extend(["HOME", "SSH_AUTH_SOCK"].map(variable)),
        }
        Some(format!("{}-{}", mark(host), digest(&parts, 16)))
    }

    /// Takes the connection with that name, which is the run's own from now on; `None` if none exists that
    /// still leads to the host. Connections to the host with other names are closed.
    pub(super) async fn take(&self, name: &str, sockets: &Path) -> Option<Session> {
        let (host, _) = name.split_once('-')?;
        let outdated = entries(&self.folder).into_iter().filter(|path| {
            let other = path.file_name().and_then(|it| it.to_str()).unwrap_or("");
            other != name && other.starts_with(host)
        });
        let outdated = join_all(outdated.map(end));
        let taken = self.claim(name, sockets);
        let (_, alive) = tokio::join!(outdated, async {
            let session = taken?;
            if leads_there(&session).await {
                return Some(session);
            }
            // Not by dropping it, which would wait for an `ssh` that hangs.
            let _ = timeout(FAREWELL, session.close()).await;
            None
        });
        alive
    }

    /// Makes a kept connection the run's own, like one that it has made itself.
    fn claim(&self, name: &str, sockets: &Path) -> Option<Session> {
        let own = tempfile::Builder::new()
            .prefix(".ssh-connection")
            .tempdir_in(sockets)
            .ok()?;
        // The first run gets it.
        fs::rename(self.folder.join(name), own.path()).ok()?;
        Some(Session::new_native_mux(own))
    }

    /// Puts a connection that the run no longer needs where the next run finds it. Gives it back if another run
    /// has put one there meanwhile.
    pub(super) fn put(&self, name: &str, session: Session) -> Result<(), Session> {
        let folder = session.control_socket().parent().map(Path::to_owned);
        match folder.map(|folder| fs::rename(folder, self.folder.join(name))) {
            Some(Ok(())) => {
                session.detach();
                Ok(())
            }
            _ => Err(session),
        }
    }
}

/// Closes all connections that are kept in a cluster's folder; returns how many there were.
pub async fn close_kept(folder: &Path) -> usize {
    let ended = join_all(entries(folder).into_iter().map(end)).await;
    // Another run may keep one at this moment; then the folder stays.
    let _ = fs::remove_dir(folder);
    ended.into_iter().filter(|lived| *lived).count()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Closes one; returns whether it still existed. If its `ssh` hangs, the connection cannot be found any more.
async fn end(path: PathBuf) -> bool {
    let socket = path.join(SOCKET).into_boxed_path();
    let session = Session::resume_mux(socket, None);
    let ended = timeout(FAREWELL, session.close()).await;
    let _ = fs::remove_dir_all(&path);
    !matches!(ended, Ok(Err(_)))
}

/// Whether the host answers over a connection.
///
/// Its `ssh` notices only after a while that the host restarted or is cut off. An opened session is the host's
/// own answer.
async fn leads_there(session: &Session) -> bool {
    let asked = async {
        session.check().await?;
        let mut command = session.raw_command("true");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null()).spawn().await
    };
    matches!(timeout(ALIVE, asked).await, Ok(Ok(_)))
}

/// The part of the name that all connections of a host share.
fn mark(host: &HostName) -> String {
    digest(&[host.to_string()], 6)
}

fn variable(name: &str) -> String {
    let value = std::env::var_os(name);
    value.map_or_else(String::new, |it| it.to_string_lossy().into_owned())
}

/// The number of hexadecimal digits of the parts' digest.
fn digest(parts: &[String], digits: usize) -> String {
    let mut sum = Sha256::new();
    for part in parts {
        sum.update(part);
        sum.update([0]);
    }
    let mut text = format!("{:x}", sum.finalize());
    text.truncate(digits);
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    const CONFIG: &str = "# Written by pgherd\n\nHost node1\n    HostName 192.0.2.1\n    Port 22\n    \
        User ubuntu\n    HostKeyAlias node1.pg.pgherd\n\nHost node2\n    HostName 192.0.2.2\n    Port 22\n    \
        User ubuntu\n    HostKeyAlias node2.pg.pgherd\n\nHost *\n    UserKnownHostsFile \"/w/known_hosts\"\n    \
        StrictHostKeyChecking yes\n    IdentityFile \"/w/id_ed25519\"\n    ConnectTimeout 10\n";
    const PINS: &str = "node1.pg.pgherd ssh-ed25519 AAAA\nnode2.pg.pgherd ssh-ed25519 BBBB\n";

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            place.write("config", CONFIG);
            place.write("known_hosts", PINS);
            place.write("key", "a private key");
            fs::create_dir(place.0.path().join("kept")).unwrap();
            place
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.0.path().join(name), text).unwrap();
        }

        fn keep(&self) -> Keep {
            Keep {
                folder: self.0.path().join("kept"),
                seconds: 60,
                known_hosts: self.0.path().join("known_hosts"),
                identity: Some(self.0.path().join("key")),
                settings: None,
            }
        }

        fn name(&self) -> String {
            self.named(&self.keep())
        }

        fn named(&self, keep: &Keep) -> String {
            let config = self.0.path().join("config");
            keep.name(&config, &HostName::new("node1")).unwrap()
        }
    }

    #[test]
    fn whatever_changes_what_a_connection_is_made_from_changes_its_name() {
        let place = Place::new();
        let name = place.name();
        assert_eq!(name.len(), 6 + 1 + 16, "it is part of a socket's path");
        let mut names = vec![name.clone()];
        for (file, was, is) in [
            ("config", "192.0.2.1", "192.0.2.9"),
            (
                "config",
                "Port 22\n    User ubuntu\n    HostKeyAlias node1",
                "Port 23\n    User ubuntu\n    HostKeyAlias node1",
            ),
            (
                "config",
                "User ubuntu\n    HostKeyAlias node1",
                "User admin\n    HostKeyAlias node1",
            ),
            ("config", "ConnectTimeout 10", "ConnectTimeout 20"),
            ("known_hosts", "AAAA", "CCCC"),
            ("key", "a private key", "another private key"),
        ] {
            let path = place.0.path().join(file);
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains(was), "{was}");
            place.write(file, &text.replace(was, is));
            names.push(place.name());
            place.write(file, &text);
        }
        let own = Keep {
            identity: None,
            ..place.keep()
        };
        let shorter = Keep {
            seconds: 30,
            ..place.keep()
        };
        names.extend([place.named(&own), place.named(&shorter)]);
        let count = names.len();
        let of_host = names.iter().all(|it| it[..7] == name[..7]);
        assert!(of_host, "they are found as the host's: {names:?}");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count, "{names:?}");
        assert_eq!(place.name(), name, "as before");
    }

    #[test]
    fn another_host_and_where_files_lie_change_nothing() {
        let place = Place::new();
        let name = place.name();
        place.write(
            "config",
            &CONFIG
                .replace("192.0.2.2", "192.0.2.8")
                .replace("/w/", "/preview/"),
        );
        place.write("known_hosts", &PINS.replace("BBBB", "DDDD"));
        assert_eq!(place.name(), name);
        let config = place.0.path().join("config");
        let node2 = place.keep().name(&config, &HostName::new("node2")).unwrap();
        assert_ne!(node2[..6], name[..6]);
        let unknown = place.keep().name(&config, &HostName::new("node3"));
        assert_eq!(unknown, None, "no address of it is known");
    }

    /// A connection's folder whose socket has no process, or one that never answers.
    fn left(place: &Place, name: &str) -> UnixListener {
        let path = place.keep().folder.join(name);
        fs::create_dir(&path).unwrap();
        UnixListener::bind(path.join(SOCKET)).unwrap()
    }

    #[tokio::test]
    async fn what_does_not_answer_is_not_used_and_does_not_stay() {
        let place = Place::new();
        let keep = place.keep();
        let sockets = tempfile::tempdir().unwrap();
        let name = place.name();
        assert!(
            keep.take(&name, sockets.path()).await.is_none(),
            "there is none"
        );

        drop(left(&place, &name));
        let begin = std::time::Instant::now();
        assert!(
            keep.take(&name, sockets.path()).await.is_none(),
            "it has ended"
        );
        assert!(begin.elapsed() < ALIVE / 2, "which is known at once");

        let outdated = format!("{}-0123456789abcdef", &name[..6]);
        let other = "000000-0123456789abcdef";
        let _hang = [&name, &outdated, other].map(|name| left(&place, name));
        assert!(keep.take(&name, sockets.path()).await.is_none(), "it hangs");
        let bound = ALIVE + FAREWELL + Duration::from_secs(2);
        assert!(begin.elapsed() < bound, "{:?}", begin.elapsed());
        let stay: Vec<_> = entries(&keep.folder);
        assert_eq!(stay, [keep.folder.join(other)], "another host's");
        assert_eq!(entries(sockets.path()), [""; 0].map(PathBuf::from));

        assert_eq!(close_kept(&keep.folder).await, 1);
        assert!(!keep.folder.exists());
        assert_eq!(close_kept(&keep.folder).await, 0);
    }

    #[tokio::test]
    async fn a_run_has_a_connection_for_itself() {
        let place = Place::new();
        let keep = place.keep();
        let sockets = tempfile::tempdir().unwrap();
        let name = place.name();
        let _first = left(&place, &name);
        let first = keep.claim(&name, sockets.path()).unwrap();
        assert!(keep.claim(&name, sockets.path()).is_none(), "it is in use");
        let _second = left(&place, &name);
        let first = keep.put(&name, first).unwrap_err();
        assert!(first.control_socket().exists(), "the second one stays");
        let second = keep.claim(&name, sockets.path()).unwrap();
        assert!(keep.put(&name, first).is_ok());
        assert_eq!(entries(&keep.folder), [keep.folder.join(&name)]);
        // No process is told to end.
        drop(timeout(Duration::ZERO, second.close()).await);
    }
}
