//! Finds out which host answers in place of the expected one.
//!
//! The answer of `ssh-keyscan` is used only to name a host, never to trust one.

use std::{path::Path, process::Stdio, time::Duration};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD},
};
use sha2::{Digest, Sha256};
use tokio::{process::Command, time::timeout};

use super::{STRANGER, quote};
use crate::{
    error::{Code, Error},
    inventory::HostName,
    shown_key::Question,
};

/// How long each of OpenSSH's tools may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The address that `ssh` uses for a host, and the name by which it looks up the host's key.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    address: String,
    port: u16,
    alias: String,
    known_hosts: String,
    /// Not at its address, but through another host or program.
    around: bool,
}

impl Target {
    /// From the output of `ssh -G`: an option and its value on each line.
    fn parse(text: &str) -> Option<Self> {
        let value = |option: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| line.strip_prefix(option)?.strip_prefix(' '))
        };
        Some(Self {
            address: value("hostname")?.to_owned(),
            port: value("port")?.parse().ok()?,
            alias: value("hostkeyalias")?.to_owned(),
            known_hosts: value("userknownhostsfile")?.to_owned(),
            around: value("proxycommand").or(value("proxyjump")).is_some(),
        })
    }
}

/// A host's public key, as in `known_hosts` and `ssh-keyscan`: `name type base64`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    kind: String,
    blob: Vec<u8>,
}

impl Key {
    /// As `ssh-keygen -l` shows it, so that a person can compare.
    fn fingerprint(&self) -> String {
        let digest = BASE64_STANDARD_NO_PAD.encode(Sha256::digest(&self.blob));
        let kind = match self.kind.as_str() {
            "ssh-ed25519" => "ED25519",
            "ssh-rsa" => "RSA",
            kind if kind.starts_with("ecdsa-") => "ECDSA",
            kind => kind,
        };
        format!("SHA256:{digest} ({kind})")
    }
}

/// The error that names the host that answers in `host`'s place; `config` is the workspace's `ssh_config`.
///
/// `None` if it is the right host after all, or if nothing can be asked.
pub async fn host_key_mismatch(config: &Path, host: &HostName) -> Option<Error> {
    let mut ssh = Command::new("ssh");
    ssh.arg("-F").arg(config).args(["-G", host.as_str()]);
    let mut target = Target::parse(&printed(ssh).await?)?;
    // A preview has only a link to the file that a person must edit.
    if let Ok(path) = std::fs::canonicalize(&target.known_hosts) {
        target.known_hosts = path.display().to_string();
    }
    let pinned = std::fs::read_to_string(&target.known_hosts).ok()?;
    let kind = kind_to_ask_for(&pinned, &target.alias);
    let mut answering = shown(config, host, &target, kind).await?;
    if answering.is_empty() && kind.is_some() {
        answering = shown(config, host, &target, None).await?;
    }
    judge(host, &target, &pinned, &answering)
}

/// The kind of key that distinguishes two hosts, as `ssh-keyscan` names it.
///
/// One kind is enough. Each one is a connection without a login, and from OpenSSH 9.8 on, sshd refuses an
/// address for a while after several of these (`PerSourcePenalties`).
fn kind_to_ask_for(pinned: &str, alias: &str) -> Option<&'static str> {
    let has = |part: &str| {
        let mut own = keys(pinned).filter(|(name, _)| *name == alias);
        own.any(|(_, key)| key.kind.contains(part))
    };
    ["ed25519", "ecdsa", "rsa"]
        .into_iter()
        .find(|kind| has(kind))
}

/// The keys of the host that answers, one on each line.
async fn shown(
    config: &Path,
    host: &HostName,
    target: &Target,
    kind: Option<&str>,
) -> Option<String> {
    if !target.around {
        return scan(target, kind).await;
    }
    let (question, ssh) = Question::to(config, host.as_str(), kind)?;
    printed(Command::from(ssh)).await?;
    Some(question.answer())
}

/// The same by `ssh-keyscan`; of every kind unless one is named.
async fn scan(target: &Target, kind: Option<&str>) -> Option<String> {
    let mut scan = Command::new("ssh-keyscan");
    scan.args(["-T", "5", "-p", &target.port.to_string()]);
    if let Some(kind) = kind {
        scan.args(["-t", kind]);
    }
    scan.arg(&target.address);
    printed(scan).await
}

async fn printed(mut command: Command) -> Option<String> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(LIMIT, command.output()).await.ok()?.ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Keys by their names; other lines are left out.
fn keys(text: &str) -> impl Iterator<Item = (&str, Key)> {
    text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (name, kind, blob) = (words.next()?, words.next()?, words.next()?);
        let blob = BASE64_STANDARD.decode(blob).ok()?;
        let kind = kind.to_owned();
        Some((name, Key { kind, blob }))
    })
}

/// Compares the keys of the host that answers with the pinned ones.
fn judge(host: &HostName, target: &Target, pinned: &str, answering: &str) -> Option<Error> {
    let answering: Vec<Key> = keys(answering).map(|(_, key)| key).collect();
    let expected: Vec<Key> = keys(pinned)
        .filter(|(name, _)| *name == target.alias)
        .map(|(_, key)| key)
        .collect();
    let is_expected = answering.iter().any(|key| expected.contains(key));
    if answering.is_empty() || expected.is_empty() || is_expected {
        return None;
    }
    // `node1.postgres.pgherd`: the part after the host is the same for the whole cluster.
    let suffix = target.alias.strip_prefix(host.as_str()).unwrap_or("\0");
    let other = keys(pinned)
        .filter(|(_, key)| answering.contains(key))
        .find_map(|(name, _)| name.strip_suffix(suffix));
    Some(match other {
        Some(other) => mixed_up(host, target, other),
        None => unknown(host, target, &expected, &answering),
    })
}

fn mixed_up(host: &HostName, target: &Target, other: &str) -> Error {
    Error::new(
        Code::HostsMixedUp,
        "another host of the cluster answers at its address",
    )
    .on(host)
    .cause(format!("at {} {other} answers, not {host}", target.address))
    .left("nothing was sent to it")
    .hint(format!(
        "correct the address of {host} in the inventory (hosts.{host}.address)"
    ))
}

fn unknown(host: &HostName, target: &Target, expected: &[Key], answering: &[Key]) -> Error {
    let Target { address, alias, .. } = target;
    let comparable = |key: &&Key| expected.iter().any(|pinned| pinned.kind == key.kind);
    let shown: Vec<&Key> = match answering.iter().filter(comparable).collect::<Vec<_>>() {
        same if !same.is_empty() => same,
        _ => answering.iter().collect(),
    };
    let (scan, own) = match target.port {
        22 => (address.clone(), address.clone()),
        port => (
            format!("-p {port} {address}"),
            format!("[{address}]:{port}"),
        ),
    };
    Error::new(Code::HostKeyMismatch, STRANGER)
        .on(host)
        .cause(format!("at {address} answers {}", fingerprints(shown)))
        .cause(format!("pinned for {host} is {}", fingerprints(expected)))
        .excerpt(
            format!("if {host} was created again, compare the key with the host's own console"),
            "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub\n",
        )
        .excerpt(
            "if both agree, accept the new key instead of the old one",
            format!(
                "ssh-keygen -f {} -R {alias}\n\
                 ssh-keygen -f ~/.ssh/known_hosts -R {}\n\
                 ssh-keyscan -t ed25519 {scan} >> ~/.ssh/known_hosts\n",
                quote(&target.known_hosts),
                quote(&own),
            ),
        )
        .left("nothing was sent to it")
        .hint(format!(
            "if {host} is elsewhere now, correct its address in the inventory (hosts.{host}.address)"
        ))
}

fn fingerprints<'a>(keys: impl IntoIterator<Item = &'a Key>) -> String {
    let all: Vec<String> = keys.into_iter().map(Key::fingerprint).collect();
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made for this test by ssh-keygen, which shows the fingerprints below for them.
    const ED25519: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIURD4DTa6wV03f4rsM/L0E7V1aznBqko3my2dSHlM1X";
    const ECDSA: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBJIVcFzqXnu9g9Uft/PNHS4Hlpvi+9QXXuScs5iWubTcg2dHLwSTq/igNJg+m25hPA6NC7Z1XKkYdSuOeOtD3zw=";
    const OTHER: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn target(port: u16) -> Target {
        let asked = format!(
            "user ubuntu\nhostname 10.0.0.5\nport {port}\nhostkeyalias node1.pg.pgherd\n\
             userknownhostsfile /w/my cluster/known_hosts\nglobalknownhostsfile /dev/null\n"
        );
        Target::parse(&asked).unwrap()
    }

    fn told(port: u16, pinned: &str, answering: &str) -> Option<String> {
        let error = judge(&HostName::new("node1"), &target(port), pinned, answering)?;
        let mut told = format!("{error}\n");
        for excerpt in error.excerpts() {
            told.push_str(&format!("{}:\n{}", excerpt.title, excerpt.text));
        }
        for hint in error.hints() {
            told.push_str(&format!("hint: {hint}\n"));
        }
        Some(told)
    }

    #[test]
    fn another_host_of_the_cluster_is_named() {
        let pinned = format!("# mine\nnode1.pg.pgherd {OTHER}\nnode3.pg.pgherd {ED25519}\n");
        let answering = format!("# 10.0.0.5:22 SSH-2.0\n10.0.0.5 {ECDSA}\n10.0.0.5 {ED25519}\n");
        insta::assert_snapshot!(told(22, &pinned, &answering).unwrap(), @"
        node1: another host of the cluster answers at its address: at 10.0.0.5 node3 answers, not node1
        hint: correct the address of node1 in the inventory (hosts.node1.address)
        ");
    }

    #[test]
    fn a_stranger_is_shown_beside_who_was_expected_with_what_accepts_it() {
        // Another cluster's host, or one of the user's own names, is not this cluster's host.
        let pinned = format!("node1.pg.pgherd {OTHER}\nnode3.other.pgherd {ED25519}\n");
        let answering = format!("[10.0.0.5]:2222 {ECDSA}\n[10.0.0.5]:2222 {ED25519}\n");
        insta::assert_snapshot!(told(2222, &pinned, &answering).unwrap(), @"
        node1: this is not the host whose key is pinned: at 10.0.0.5 answers SHA256:+rlm/GiAQ11FXD/f/ioegk1ZK5lBNKz3gRdKCAyoPkk (ED25519): pinned for node1 is SHA256:kmYcvdi2GkPeWxB6XLjrZB8JHsy2Hm8luHMFp9GMvqk (ED25519)
        if node1 was created again, compare the key with the host's own console:
        ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub
        if both agree, accept the new key instead of the old one:
        ssh-keygen -f '/w/my cluster/known_hosts' -R node1.pg.pgherd
        ssh-keygen -f ~/.ssh/known_hosts -R '[10.0.0.5]:2222'
        ssh-keyscan -t ed25519 -p 2222 10.0.0.5 >> ~/.ssh/known_hosts
        hint: if node1 is elsewhere now, correct its address in the inventory (hosts.node1.address)
        ");
        let told = told(22, &pinned, &format!("10.0.0.5 {ECDSA}\n")).unwrap();
        assert!(
            told.contains("SHA256:4HIFBegfrpd8mS3PiXRaW8vdisdbHT5UCcR3Bwq9d5Q (ECDSA)"),
            "{told}"
        );
    }

    #[test]
    fn one_kind_of_key_is_asked_for() {
        let alias = "node1.pg.pgherd";
        let rsa = "ssh-rsa AAAA";
        for (pinned, kind) in [
            (
                format!("{alias} {ECDSA}\n{alias} {ED25519}\n"),
                Some("ed25519"),
            ),
            (
                format!("{alias} {rsa}\n{alias} {ECDSA}\nnode2.pg.pgherd {ED25519}\n"),
                Some("ecdsa"),
            ),
            (format!("{alias} {rsa}\n"), Some("rsa")),
            (format!("node2.pg.pgherd {ED25519}\n"), None),
        ] {
            assert_eq!(kind_to_ask_for(&pinned, alias), kind, "{pinned}");
        }
    }

    #[test]
    fn nobody_is_accused_without_evidence() {
        let pinned = format!("node1.pg.pgherd {OTHER}\n");
        assert_eq!(told(22, &pinned, ""), None, "nobody answers");
        assert_eq!(told(22, &pinned, &format!("10.0.0.5 {OTHER}\n")), None);
        assert_eq!(told(22, "", &format!("10.0.0.5 {OTHER}\n")), None);
        assert_eq!(told(22, &pinned, "10.0.0.5 ssh-ed25519 %%%\n"), None);
    }
}
