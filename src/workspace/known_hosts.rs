//! The pinned SSH host keys: from a trusted source, never on first use.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use serde::{Deserialize, Serialize};

use super::{files, identity};
use crate::{
    error::{Code, Error, Result},
    inventory::HostName,
    machine::Machine,
};

/// The name under which a host's key is pinned; its address may change.
pub(super) fn alias(host: &HostName, cluster: &str) -> String {
    // OpenSSH compares in lower case.
    format!("{host}.{cluster}.pgherd").to_lowercase()
}

/// `known_hosts`. Everything else in the file (comments, entries of other names) is kept.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct KnownHosts {
    lines: Vec<String>,
}

impl KnownHosts {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = files::read(path)?.unwrap_or_default();
        Ok(Self {
            lines: text.lines().map(str::to_owned).collect(),
        })
    }

    /// Writes the file, unless it has the same content already.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        if path.exists() && Self::read(path)? == *self {
            return Ok(());
        }
        let text: String = self.lines.iter().map(|line| format!("{line}\n")).collect();
        files::write(path, files::PRIVATE, text.as_bytes())
    }

    /// Keys as `type base64`.
    pub(super) fn keys(&self, alias: &str) -> Vec<String> {
        self.lines
            .iter()
            .filter_map(|line| line.strip_prefix(alias)?.strip_prefix(' '))
            .filter_map(identity::key_of)
            .collect()
    }

    pub(super) fn pin(&mut self, alias: &str, keys: &[String]) {
        if self.keys(alias) == keys {
            return;
        }
        self.forget(alias);
        self.lines
            .extend(keys.iter().map(|key| format!("{alias} {key}")));
    }

    pub(super) fn forget(&mut self, alias: &str) {
        self.lines
            .retain(|line| line.split_ascii_whitespace().next() != Some(alias));
    }
}

/// The user's own `known_hosts` files.
pub(super) fn trusted_files() -> Vec<PathBuf> {
    let own = std::env::home_dir()
        .into_iter()
        .flat_map(|home| ["known_hosts", "known_hosts2"].map(|name| home.join(".ssh").join(name)));
    let shared =
        ["ssh_known_hosts", "ssh_known_hosts2"].map(|name| Path::new("/etc/ssh").join(name));
    own.chain(shared).collect()
}

/// A host whose key was changed after its provider had recorded it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rotated {
    /// The key that the provider reports of this host, now and in future: `type base64`.
    pub(super) vouched: Option<String>,
    /// The keys that the host really has.
    pub(super) keys: Vec<String>,
}

/// Pins the keys of `machines`.
///
/// A key from a trusted provider replaces the pinned one, because a new host has a new key. If a host's key was
/// changed after its creation (`rotated`), the provider knows only the first one. For other hosts, a pinned key
/// stays; without one, the key that the user has accepted before is used.
pub(super) fn pin(
    known: &mut KnownHosts,
    machines: &[Machine],
    rotated: &BTreeMap<HostName, Rotated>,
    cluster: &str,
    port: u16,
    trusted: &[PathBuf],
) -> Result<(), NotPinned> {
    let mut unknown = Vec::new();
    for machine in machines {
        let alias = alias(&machine.host, cluster);
        if let Some(key) = &machine.host_key {
            let key = identity::key_of(key).ok_or_else(|| {
                Error::new(
                    Code::InternalError,
                    "the provider's word for the host's key is not a public key",
                )
                .on(&machine.host)
                .cause(key.clone())
            })?;
            match rotated.get(&machine.host) {
                Some(it) if it.vouched.as_ref() == Some(&key) => known.pin(&alias, &it.keys),
                _ => known.pin(&alias, &[key]),
            }
        } else if known.keys(&alias).is_empty() {
            let Some(address) = machine.ssh_address.or(machine.address) else {
                // Not running: there will be no connection to it now.
                continue;
            };
            let names = names_of(&address.to_string(), port);
            let keys = accepted_keys(&names, trusted)?;
            if keys.is_empty() {
                unknown.push((&machine.host, address.to_string()));
            } else {
                known.pin(&alias, &keys);
            }
        }
    }
    if unknown.is_empty() {
        Ok(())
    } else {
        let unknown = unknown.into_iter().map(|(host, at)| (host.clone(), at));
        Err(NotPinned::Unknown(unknown.collect()))
    }
}

/// Why not all keys could be pinned.
#[derive(Debug)]
pub(super) enum NotPinned {
    /// Nobody vouches for the keys of these hosts, at these addresses.
    Unknown(Vec<(HostName, String)>),
    Failed(Error),
}

impl From<Error> for NotPinned {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl NotPinned {
    /// The error for the user; `bastion` is the command that logs in to the bastion, if there is one.
    pub(super) fn taught(self, port: u16, bastion: Option<&str>) -> Error {
        match self {
            Self::Unknown(unknown) => teach(&unknown, port, bastion),
            Self::Failed(error) => error,
        }
    }
}

/// The names under which `ssh` looks up a host, the most exact first.
fn names_of(address: &str, port: u16) -> Vec<String> {
    match port {
        22 => vec![address.to_owned()],
        _ => vec![format!("[{address}]:{port}"), address.to_owned()],
    }
}

/// The user's known keys of a host, including hashed entries, without revoked keys.
fn accepted_keys(names: &[String], files: &[PathBuf]) -> Result<Vec<String>> {
    let mut accepted = Vec::new();
    let mut revoked = Vec::new();
    for file in files.iter().filter(|file| file.is_file()) {
        for name in names {
            let mut command = Command::new("ssh-keygen");
            command.arg("-F").arg(name).arg("-f").arg(file);
            let output = identity::run(command)?;
            let text = String::from_utf8_lossy(&output.stdout);
            for line in text.lines().filter(|line| !line.starts_with('#')) {
                let (marker, entry) = match line.strip_prefix('@').and_then(|l| l.split_once(' ')) {
                    Some((marker, entry)) => (marker, entry),
                    None => ("", line),
                };
                let key = entry
                    .trim_start()
                    .split_once(' ')
                    .and_then(|(_, key)| identity::key_of(key));
                match (marker, key) {
                    ("", Some(key)) if !accepted.contains(&key) => accepted.push(key),
                    ("revoked", Some(key)) => revoked.push(key),
                    // An authority confirms names, and the alias is not one of them.
                    _ => {}
                }
            }
        }
    }
    accepted.retain(|key| !revoked.contains(key));
    Ok(accepted)
}

fn teach(unknown: &[(HostName, String)], port: u16, bastion: Option<&str>) -> Error {
    let hosts: Vec<_> = unknown
        .iter()
        .map(|(host, address)| format!("{host} ({address})"))
        .collect();
    // Only the bastion reaches the hosts, and it has the same tool. It must not read the lines that follow.
    let from = bastion.map_or_else(String::new, |login| {
        format!("{} ", login.replacen("ssh ", "ssh -n ", 1))
    });
    let scan = |address: &str| match port {
        22 => format!("{from}ssh-keyscan -t ed25519 {address}"),
        _ => format!("{from}ssh-keyscan -t ed25519 -p {port} {address}"),
    };
    let each = |ending: &str| -> String {
        unknown
            .iter()
            .map(|(_, address)| format!("{}{ending}\n", scan(address)))
            .collect()
    };
    Error::new(Code::HostKeyUnknown, format!(
        "the host key of {} is not trusted yet",
        hosts.join(", ")
    ))
    .cause("neither pgherd nor your ~/.ssh/known_hosts has it, and pgherd never trusts a key only because a host shows it")
    .excerpt("see which keys the hosts show", each(" 2>/dev/null | ssh-keygen -lf -"))
    .excerpt(
        "compare each with the one on the host's own console",
        "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub\n",
    )
    .excerpt("if they agree, accept them", each(" >> ~/.ssh/known_hosts"))
    .left("nothing was connected to or changed")
    .hint("connecting once with plain ssh, and saying yes there, does the same")
}

/// The pinned keys by host.
pub(super) fn pinned<'a>(
    known: &KnownHosts,
    hosts: impl Iterator<Item = &'a HostName>,
    cluster: &str,
) -> BTreeMap<HostName, Vec<String>> {
    hosts
        .map(|host| (host.clone(), known.keys(&alias(host, cluster))))
        .filter(|(_, keys)| !keys.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, net::Ipv4Addr};

    use super::*;
    use crate::machine::MachineState;

    /// A public key that nobody has; only its format matters here.
    fn key(number: u8) -> String {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let mut blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20".to_vec();
        blob.extend([number; 32]);
        format!("ssh-ed25519 {}", STANDARD.encode(blob))
    }

    fn machine(name: &str, last: u8, host_key: Option<String>) -> Machine {
        Machine {
            host: HostName::new(name),
            id: name.to_owned(),
            state: MachineState::Running,
            address: Some(Ipv4Addr::new(192, 0, 2, last)),
            ssh_address: None,
            host_key,
            published_on: None,
            balancer: None,
            cluster_id: None,
            data_volume: None,
        }
    }

    #[test]
    fn a_vouched_key_replaces_the_old_one_and_leaves_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known_hosts");
        fs::write(&path, format!("# mine\nother.example {}\n", key(9))).unwrap();
        let mut known = KnownHosts::read(&path).unwrap();
        let both = [machine("a", 1, Some(key(1))), machine("b", 2, Some(key(2)))];
        pin(&mut known, &both, &BTreeMap::new(), "PG", 22, &[]).unwrap();
        let rebuilt = [machine("a", 1, Some(format!("{} root@a", key(3))))];
        pin(&mut known, &rebuilt, &BTreeMap::new(), "PG", 22, &[]).unwrap();
        known.write(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            format!(
                "# mine\nother.example {}\nb.pg.pgherd {}\na.pg.pgherd {}\n",
                key(9),
                key(2),
                key(3)
            )
        );
        let hosts = ["a", "b", "c"].map(HostName::new);
        let pins = pinned(&KnownHosts::read(&path).unwrap(), hosts.iter(), "PG");
        assert_eq!(pins[&hosts[0]], [key(3)]);
        assert_eq!(pins.len(), 2);
    }

    #[test]
    fn a_key_that_was_changed_outlives_the_providers_word_but_not_the_host() {
        let host = HostName::new("a");
        let mut known = KnownHosts::default();
        let now = Rotated {
            vouched: Some(key(1)),
            keys: vec![key(2)],
        };
        let rotated = BTreeMap::from([(host.clone(), now)]);
        let made = [machine("a", 1, Some(key(1)))];
        pin(&mut known, &made, &rotated, "pg", 22, &[]).unwrap();
        assert_eq!(known.keys("a.pg.pgherd"), [key(2)]);
        let anew = [machine("a", 1, Some(key(3)))];
        pin(&mut known, &anew, &rotated, "pg", 22, &[]).unwrap();
        assert_eq!(known.keys("a.pg.pgherd"), [key(3)]);
    }

    #[test]
    fn what_the_user_has_accepted_is_taken_over_hashed_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("plain");
        fs::write(
            &plain,
            format!(
                "192.0.2.1 {} me\n[192.0.2.1]:2222 {}\n192.0.2.1 {}\n@revoked 192.0.2.1 {}\n@cert-authority 192.0.2.* {}\n",
                key(1), key(2), key(3), key(3), key(4)
            ),
        )
        .unwrap();
        let hashed = dir.path().join("hashed");
        fs::write(&hashed, format!("192.0.2.2 {}\n", key(5))).unwrap();
        let mut command = Command::new("ssh-keygen");
        command.arg("-H").arg("-f").arg(&hashed);
        assert!(identity::run(command).unwrap().status.success());
        assert!(!fs::read_to_string(&hashed).unwrap().contains("192.0.2.2"));

        let trusted = [plain, hashed, dir.path().join("missing")];
        let machines = [machine("a", 1, None), machine("b", 2, None)];
        let mut known = KnownHosts::default();
        pin(&mut known, &machines, &BTreeMap::new(), "pg", 22, &trusted).unwrap();
        assert_eq!(known.keys("a.pg.pgherd"), [key(1)]);
        assert_eq!(known.keys("b.pg.pgherd"), [key(5)]);

        let mut known = KnownHosts::default();
        pin(
            &mut known,
            &machines[..1],
            &BTreeMap::new(),
            "pg",
            2222,
            &trusted,
        )
        .unwrap();
        assert_eq!(known.keys("a.pg.pgherd"), [key(2), key(1)]);
    }

    #[test]
    fn what_is_pinned_stays_when_the_address_changes() {
        let mut known = KnownHosts::default();
        known.pin("a.pg.pgherd", &[key(1)]);
        pin(
            &mut known,
            &[machine("a", 77, None)],
            &BTreeMap::new(),
            "pg",
            22,
            &[],
        )
        .unwrap();
        assert_eq!(known.keys("a.pg.pgherd"), [key(1)]);
        known.forget("a.pg.pgherd");
        assert!(
            pin(
                &mut known,
                &[machine("a", 77, None)],
                &BTreeMap::new(),
                "pg",
                22,
                &[]
            )
            .is_err()
        );
    }

    #[test]
    fn a_stranger_is_refused_with_the_commands_that_help() {
        let mut known = KnownHosts::default();
        let mut stopped = machine("c", 3, None);
        stopped.address = None;
        let machines = [machine("a", 1, None), machine("b", 2, None), stopped];
        let unknown = pin(&mut known, &machines, &BTreeMap::new(), "pg", 2222, &[]).unwrap_err();
        let error = unknown.taught(2222, None);
        assert!(error.what().contains("a (192.0.2.1), b (192.0.2.2)"));
        assert!(!error.what().contains('c') || !error.what().contains("c ("));
        let shown: String = error.excerpts().iter().map(|e| e.text.as_str()).collect();
        for line in [
            "ssh-keyscan -t ed25519 -p 2222 192.0.2.1 2>/dev/null | ssh-keygen -lf -\n",
            "ssh-keyscan -t ed25519 -p 2222 192.0.2.2 >> ~/.ssh/known_hosts\n",
            "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub\n",
        ] {
            assert!(shown.contains(line), "{line} is missing in:\n{shown}");
        }
    }

    #[test]
    fn behind_a_bastion_the_bastion_asks_for_the_keys() {
        let unknown = NotPinned::Unknown(vec![(HostName::new("a"), "10.0.0.1".to_owned())]);
        let error = unknown.taught(22, Some("ssh -l me jump"));
        let shown: String = error.excerpts().iter().map(|e| e.text.as_str()).collect();
        let line = "ssh -n -l me jump ssh-keyscan -t ed25519 10.0.0.1 >> ~/.ssh/known_hosts\n";
        assert!(shown.contains(line), "{shown}");
    }

    #[test]
    fn a_vouched_key_that_is_none_is_refused() {
        let mut known = KnownHosts::default();
        let machines = [machine(
            "a",
            1,
            Some("ssh-ed25519 AAAA\nevil ssh-rsa".into()),
        )];
        assert!(pin(&mut known, &machines, &BTreeMap::new(), "pg", 22, &[]).is_err());
    }
}
