//! Checks whether SSH answers at hosts that may be behind bastions.

use std::{net::Ipv4Addr, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use super::ssh_probe::{answers, is_greeting};
use crate::inventory::Ssh;

/// How long an answer through a bastion may take, with the login there.
const THROUGH: Duration = Duration::from_secs(15);

/// Whether an SSH server answers there, by the inventory's way to the hosts. It proves nothing about who answers.
pub(super) async fn answers_by(ssh: &Ssh, address: Ipv4Addr) -> bool {
    match through(ssh, address) {
        Some(bastion) => matches!(timeout(THROUGH, says_ssh(bastion)).await, Ok(true)),
        None => answers(address, ssh.port).await,
    }
}

/// The command that reaches a port through the bastions, if there are any.
fn through(ssh: &Ssh, address: Ipv4Addr) -> Option<Command> {
    let (last, before) = ssh.proxy_jump.split_last()?;
    let mut command = Command::new("ssh");
    command.args(["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]);
    // The bastions before the last one get no options. They must not ask on a terminal either.
    command
        .env("SSH_ASKPASS", "/bin/false")
        .env("SSH_ASKPASS_REQUIRE", "force");
    if let Some(config) = &ssh.config {
        command.arg("-F").arg(config);
    }
    if let Some(key) = &ssh.identity_file {
        command.arg("-i").arg(key);
    }
    if let Some(agent) = &ssh.agent {
        command.arg("-o").arg(format!("IdentityAgent=\"{agent}\""));
    }
    if !before.is_empty() {
        let before: Vec<String> = before.iter().map(ToString::to_string).collect();
        command.arg("-J").arg(before.join(","));
    }
    command.arg("-W").arg(format!("{address}:{}", ssh.port));
    command.args(last.arguments().split(' '));
    Some(command)
}

/// Whether SSH greets at the other end of a command's output.
async fn says_ssh(mut command: Command) -> bool {
    // What ends its input ends the way.
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let Ok(mut child) = command.spawn() else {
        return false;
    };
    match child.stdout.take() {
        Some(stdout) => is_greeting(stdout).await,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::inventory::Inventory;

    #[tokio::test]
    async fn through_a_bastion_the_greeting_comes_out_of_a_command() {
        let says = |line: &str| {
            let mut shell = Command::new("sh");
            shell.args(["-c", line]);
            says_ssh(shell)
        };
        assert!(says("echo SSH-2.0-x; cat").await);
        assert!(!says("echo 220 mail").await);
        assert!(!says("exit 255").await);
    }

    #[test]
    fn the_way_through_bastions_is_the_inventorys() {
        let inventory = Inventory::parse(
            Path::new("pgherd.yaml"),
            "cluster: a\nprovider: { kind: existing }\nssh: { port: 2222, proxy_jump: 'me@outer,inner:22', agent: SSH_AUTH_SOCK }\n\
             hosts: { node1: { roles: [postgres, etcd, haproxy], address: 10.0.0.1 } }\n",
        )
        .unwrap();
        let command = through(&inventory.ssh, Ipv4Addr::new(10, 0, 0, 1)).unwrap();
        let words: Vec<_> = command
            .as_std()
            .get_args()
            .map(|it| it.to_string_lossy())
            .collect();
        assert_eq!(
            words.join(" "),
            "-o BatchMode=yes -o StrictHostKeyChecking=yes -o IdentityAgent=\"SSH_AUTH_SOCK\" \
             -J me@outer -W 10.0.0.1:2222 -p 22 inner"
        );
    }
}
