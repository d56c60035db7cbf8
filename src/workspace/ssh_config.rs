//! `ssh_config`, with which `ssh -F … node1` reaches a host by its name.

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path};

use super::known_hosts;
use crate::{
    error::{Code, Error, Result},
    inventory::{HostName, Ssh},
};

mod bastions;

use bastions::{agent, bastions, included, known_bastions, through};

/// The content of the file, in addition to the machines.
pub(super) struct Source<'a> {
    pub(super) cluster: &'a str,
    pub(super) ssh: &'a Ssh,
    pub(super) known_hosts: &'a Path,
    /// `None` for the keys of the user's own `ssh`.
    pub(super) identity: Option<&'a Path>,
    /// The file itself, which `ssh` reads again for each bastion.
    pub(super) path: &'a Path,
    /// The user's home, with the settings that bastions have.
    pub(super) home: Option<&'a Path>,
}

/// The file's text.
pub(super) fn render(
    source: &Source<'_>,
    addresses: &BTreeMap<HostName, Ipv4Addr>,
) -> Result<String> {
    let user = &source.ssh.user;
    // Newer clients expand `%` and `$` here and older ones do not, so no form of these characters is right for
    // all.
    if user.is_empty() || user.contains(|c: char| c.is_whitespace() || "\"'\\%$#".contains(c)) {
        return Err(Error::new(
            Code::InventoryInvalid,
            format!("ssh.user: {user:?} cannot be the name of a user"),
        ));
    }
    let hosts: String = addresses
        .iter()
        .map(|(name, address)| host(source, name, *address))
        .collect();
    let known_hosts = quoted(source.known_hosts)?;
    let identity = match source.identity {
        Some(path) => format!(
            "    IdentityFile {}\n    IdentitiesOnly yes\n",
            quoted(path)?
        ),
        None => String::new(),
    };
    let agent = agent(source.ssh)?;
    let way = match source.ssh.proxy_jump.last() {
        Some(bastion) => through(source, bastion)?,
        None => String::new(),
    };
    let others = bastions(source)?;
    let config = match &source.ssh.config {
        Some(path) => format!("\nHost *\n    Include {}\n", included(path)?),
        None => String::new(),
    };
    let known = known_bastions(source)?;
    let (ours, alone) = scope(source.ssh, addresses);
    let timeout = source.ssh.connect_timeout;
    Ok(format!(
        "# Written by pgherd at each run; what is changed here is lost.
{hosts}
Host {ours}
    UserKnownHostsFile {known_hosts}
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    CheckHostIP no
    UpdateHostKeys no
{identity}{agent}{way}{alone}    ConnectTimeout {timeout}
    ServerAliveInterval 5
    ServerAliveCountMax 3
    LogLevel ERROR
{others}{config}{known}"
    ))
}

/// The hosts that pgherd's own settings are for, and what keeps the user's settings from changing more than the
/// way: bastions have their own keys, and other files in which these are known.
fn scope(ssh: &Ssh, addresses: &BTreeMap<HostName, Ipv4Addr>) -> (String, &'static str) {
    if ssh.is_direct() {
        return ("*".to_owned(), "");
    }
    let names: Vec<&str> = addresses.keys().map(HostName::as_str).collect();
    let ours = match names.is_empty() {
        // No host has this name.
        true => "!*".to_owned(),
        false => names.join(" "),
    };
    (ours, "    RemoteCommand none\n")
}

fn host(source: &Source<'_>, name: &HostName, address: Ipv4Addr) -> String {
    let alias = known_hosts::alias(name, source.cluster);
    let Ssh { user, port, .. } = source.ssh;
    format!(
        "
Host {name}
    HostName {address}
    Port {port}
    User {user}
    HostKeyAlias {alias}
"
    )
}

/// The addresses in a file that [`render`] made.
pub(super) fn addresses(text: &str) -> BTreeMap<HostName, Ipv4Addr> {
    let words = text.lines().filter_map(|line| line.trim().split_once(' '));
    let mut addresses = BTreeMap::new();
    let mut host = None;
    for (key, value) in words {
        match (key, value.parse(), &host) {
            ("Host", _, _) => host = Some(HostName::new(value)),
            ("HostName", Ok(address), Some(host)) => {
                addresses.insert(host.clone(), address);
            }
            _ => {}
        }
    }
    addresses
}

/// A path as one word of the file.
///
/// Quotes and backslashes are for OpenSSH's splitting into words (`argv_split` in its `misc.c`), `%%` for the
/// expansion after it; `${` has no escape in that expansion.
fn quoted(path: &Path) -> Result<String> {
    let refused = |why: &str| {
        Err(Error::new(
            Code::FileUnusable,
            format!(
                "{} {why}, which OpenSSH's configuration cannot express",
                path.display()
            ),
        )
        .hint("move the inventory or the key to a folder with a simpler name"))
    };
    let Some(text) = path.to_str() else {
        return refused("is not UTF-8");
    };
    if text.contains(char::is_control) {
        return refused("has a control character in it");
    }
    if text.contains("${") {
        return refused("has `${` in it");
    }
    let escaped = text
        .replace('\\', r"\\")
        .replace('"', r#"\""#)
        .replace('%', "%%");
    Ok(format!("\"{escaped}\""))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::PathBuf,
        process::{Command, Output},
    };

    use super::*;
    use crate::{inventory::Jump, workspace::identity};

    fn ssh() -> Ssh {
        Ssh {
            user: "ubuntu".to_owned(),
            port: 2222,
            identity_file: None,
            proxy_jump: Vec::new(),
            config: None,
            agent: None,
            connect_timeout: 7,
            keep_alive: 0,
        }
    }

    fn client(arguments: &[&str], config: &Path) -> Output {
        let mut command = Command::new("ssh");
        // Valid from any folder.
        command.current_dir("/").arg("-F").arg(config);
        command.args(arguments);
        identity::run(command).unwrap()
    }

    /// What the real client reads from the file, by option.
    fn asked(config: &Path, host: &str) -> impl Fn(&str) -> String + use<> {
        let output = client(&["-G", host], config);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{errors}");
        let text = String::from_utf8(output.stdout).unwrap();
        move |option| {
            text.lines()
                .find_map(|line| line.strip_prefix(option)?.strip_prefix(' '))
                .unwrap_or_default()
                .to_owned()
        }
    }

    fn written(folder: &str) -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join(folder);
        fs::create_dir(&dir).unwrap();
        let hosts = [("node2", [10, 0, 0, 2]), ("node1", [192, 0, 2, 1])];
        let hosts = BTreeMap::from(hosts.map(|(h, a)| (HostName::new(h), Ipv4Addr::from(a))));
        let text = render(
            &Source {
                cluster: "Pg",
                ssh: &ssh(),
                known_hosts: &dir.join("known_hosts"),
                identity: Some(&dir.join("id_ed25519")),
                path: &dir.join("ssh_config"),
                home: None,
            },
            &hosts,
        )
        .unwrap();
        assert_eq!(addresses(&text), hosts);
        fs::write(dir.join("ssh_config"), text).unwrap();
        (root, dir)
    }

    #[test]
    fn the_real_client_understands_every_line() {
        let (_root, dir) = written("plain");
        let node1 = asked(&dir.join("ssh_config"), "node1");
        for (option, value) in [
            ("hostname", "192.0.2.1"),
            ("port", "2222"),
            ("user", "ubuntu"),
            ("hostkeyalias", "node1.pg.pgherd"),
            ("globalknownhostsfile", "/dev/null"),
            ("stricthostkeychecking", "true"),
            ("updatehostkeys", "false"),
            ("identitiesonly", "yes"),
            ("connecttimeout", "7"),
            ("serveraliveinterval", "5"),
            ("serveralivecountmax", "3"),
            ("loglevel", "ERROR"),
        ] {
            assert_eq!(node1(option), value, "{option}");
        }
        let node2 = asked(&dir.join("ssh_config"), "node2");
        assert_eq!(node2("hostname"), "10.0.0.2");
        let node3 = asked(&dir.join("ssh_config"), "node3");
        assert_eq!(node3("hostname"), "node3", "not known yet, so not in it");
    }

    #[test]
    fn any_folder_survives() {
        for folder in [
            "with blank",
            "qu\"o'te",
            "100%d%%",
            "back\\slash\\",
            "#$HOME{x}",
        ] {
            let (_root, dir) = written(folder);
            let config = dir.join("ssh_config");
            let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
            let node1 = asked(&config, "node1");
            assert_eq!(node1("userknownhostsfile"), file("known_hosts"));
            assert_eq!(node1("hostname"), "192.0.2.1");

            // `-G` shows the key's path before its expansion; a client that connects shows the rest. Its proxy
            // ends at once, so that it connects to nothing.
            let key = identity::of_cluster(&dir.join("id_ed25519"), "pg").unwrap();
            let output = client(&["-v", "-o", "ProxyCommand=true", "node1"], &config);
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            // OpenSSH's log shows backslashes doubled.
            let shown = key.private_path.to_str().unwrap().replace('\\', "\\\\");
            let is_key = |line: &str| {
                line.contains(&format!("identity file {shown} type ")) && !line.contains("type -1")
            };
            assert!(told.lines().any(is_key), "{folder}: {told}");
        }
    }

    /// A config in which `node1` is behind the bastions `outer` and `inner`, with these settings of the user's.
    fn behind_bastions(dir: &Path, settings: Option<PathBuf>) -> PathBuf {
        let jump = |text: &str| {
            let (user, host) = text.split_once('@').unwrap();
            Jump {
                user: Some(user.to_owned()),
                host: host.to_owned(),
                port: None,
            }
        };
        let ssh = Ssh {
            proxy_jump: vec![jump("me@outer"), jump("you@inner")],
            config: settings,
            agent: Some("/run/my agent".to_owned()),
            identity_file: Some(dir.join("id_ed25519")),
            ..ssh()
        };
        let path = dir.join("ssh_config");
        let source = Source {
            cluster: "pg",
            ssh: &ssh,
            known_hosts: &dir.join("known_hosts"),
            identity: ssh.identity_file.as_deref(),
            path: &path,
            home: Some(&dir.join("home")),
        };
        let hosts = BTreeMap::from([(HostName::new("node1"), Ipv4Addr::new(10, 0, 0, 1))]);
        let text = render(&source, &hosts).unwrap();
        assert_eq!(addresses(&text), hosts);
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn bastions_have_the_users_settings_and_hosts_have_ours() {
        let dir = tempfile::tempdir().unwrap();
        let config = behind_bastions(dir.path(), None);
        let file = |name: &str| dir.path().join(name).display().to_string();
        let node1 = asked(&config, "node1");
        assert_eq!(node1("userknownhostsfile"), file("known_hosts"));
        assert_eq!(node1("identityagent"), "/run/my agent");
        let way = |to: &str| {
            let path = config.display();
            format!("ssh -F {path} -o BatchMode=yes -o LogLevel=ERROR -W %h:%p {to}")
        };
        assert_eq!(node1("proxycommand"), way("-l you inner"));
        let inner = asked(&config, "inner");
        assert_eq!(inner("proxycommand"), way("-l me outer"));
        let outer = asked(&config, "outer");
        assert_eq!(outer("proxycommand"), "");
        for bastion in [inner, outer] {
            let known = ["known_hosts", "known_hosts2"].map(|it| file(&format!("home/.ssh/{it}")));
            assert_eq!(bastion("userknownhostsfile"), known.join(" "));
            assert_eq!(bastion("stricthostkeychecking"), "true");
            assert_eq!(bastion("identityagent"), "/run/my agent");
            assert_eq!(bastion("identityfile"), file("id_ed25519"));
        }
    }

    #[test]
    fn a_bastion_is_reached_from_any_folder_by_the_users_settings() {
        for folder in ["with blank", "qu\"o'te", "100%d%%", "#$HOME{x}"] {
            let root = tempfile::tempdir().unwrap();
            let dir = root.path().join(folder);
            fs::create_dir(&dir).unwrap();
            let reached = root.path().join("reached");
            // Included by a pattern.
            let settings = root.path().join("my [own] *settings?");
            let text = format!(
                "Host node1\n  StrictHostKeyChecking no\n  Compression yes\n\
                 Host outer\n  ProxyCommand touch {}\n",
                reached.display()
            );
            fs::write(&settings, text).unwrap();
            let config = behind_bastions(&dir, Some(settings));
            let node1 = asked(&config, "node1");
            assert_eq!(node1("stricthostkeychecking"), "true", "pgherd's own count");
            assert_eq!(node1("compression"), "yes", "{folder}");
            let output = client(&["-o", "BatchMode=yes", "node1"], &config);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(reached.exists(), "{folder}: {said}");
        }
    }

    #[test]
    fn without_a_key_of_ours_the_users_are_offered() {
        let text = render(
            &Source {
                cluster: "pg",
                ssh: &ssh(),
                known_hosts: Path::new("/w/known_hosts"),
                identity: None,
                path: Path::new("/w/ssh_config"),
                home: None,
            },
            &BTreeMap::new(),
        )
        .unwrap();
        assert!(!text.contains("Identit"), "{text}");
    }

    #[test]
    fn what_openssh_cannot_say_is_refused() {
        for path in ["/a${HOME}/k", "/a\nb/k"] {
            let error = quoted(Path::new(path)).unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Input);
        }
        for user in ["", "a b", "a%u", "a\nProxyCommand evil"] {
            let ssh = Ssh {
                user: user.to_owned(),
                ..ssh()
            };
            let source = Source {
                cluster: "pg",
                ssh: &ssh,
                known_hosts: Path::new("/w/known_hosts"),
                identity: None,
                path: Path::new("/w/ssh_config"),
                home: None,
            };
            assert!(render(&source, &BTreeMap::new()).is_err(), "{user:?}");
        }
    }
}
