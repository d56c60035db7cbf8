//! What `ssh` prints if it cannot connect to a host, and what that means.

use std::time::Duration;

use crate::{
    error::{Code, Error},
    inventory::HostName,
};

/// For a host that closes the connection before it says anything.
const PENALTY: &str = "if its OpenSSH is 9.8 or newer, it refuses an address for a while from which several logins failed \
    (PerSourcePenalties): wait a minute, and see on the host: journalctl -t sshd | grep penalty";

/// The text for a client that gives no reason.
pub(super) fn stalled() -> openssh::Error {
    openssh::Error::Connect(std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        "the ssh client hangs",
    ))
}

/// Whether waiting cannot help.
pub(super) fn is_final(text: &str) -> bool {
    [
        "Host key verification failed",
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "Permission denied",
        "Bad configuration option",
        "Could not resolve hostname",
        "Too many authentication failures",
        "No such file or directory (os error 2)",
    ]
    .iter()
    .any(|sign| text.contains(sign))
}

/// Whether the host shows another key than the known one.
pub(super) fn is_wrong_key(text: &str) -> bool {
    text.contains("verification failed") || text.contains("IDENTIFICATION HAS CHANGED")
}

/// An error with all its causes, on one line.
pub(super) fn full_text(error: &openssh::Error) -> String {
    use std::error::Error as _;
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

/// Why the host refuses the login, with what to do.
pub(super) fn connect_error(
    host: &HostName,
    error: openssh::Error,
    timeout: Duration,
    by_hand: String,
) -> Error {
    let text = full_text(&error);
    if is_wrong_key(&text) {
        return Error::new(Code::HostKeyMismatch, super::STRANGER)
            .on(host)
            .because(error)
            .left("nothing was sent to it")
            .hint("another machine answers at this address, or the host was reinstalled")
            .hint(by_hand);
    }
    let reach = |code: Code| {
        Error::new(code, "cannot connect over SSH")
            .on(host)
            .because(error)
    };
    if text.contains("Permission denied") {
        return reach(Code::SshPermissionDenied)
            .hint("the host does not accept the key: check ssh.user and ssh.identity_file, or, if an agent has the key: ssh-add -l")
            .hint("if the cluster was made from another folder, its key is there: copy that .pgherd beside this inventory")
            .hint(by_hand);
    }
    if text.contains("os error 2") {
        return reach(Code::SshUnreachable)
            .hint("install OpenSSH's client (package openssh-client)");
    }
    let error = reach(Code::SshUnreachable).cause(format!(
        "given up after {} s (ssh.connect_timeout)",
        timeout.as_secs()
    ));
    let error = match text.contains("kex_exchange_identification") {
        true => error.hint(PENALTY),
        false => error,
    };
    error.hint(by_hand)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_hangs_up_may_refuse_this_machine_for_a_while() {
        let told = |said: &str| {
            let error = std::io::Error::other(said);
            let error = openssh::Error::Connect(error);
            let timeout = Duration::from_secs(10);
            let by_hand = "look at it by hand".to_owned();
            let error = connect_error(&HostName::new("node1"), error, timeout, by_hand);
            (error.code(), error.hints().concat())
        };
        let (code, hints) = told(
            "kex_exchange_identification: read: Connection reset by peer\nConnection reset by 192.0.2.1 port 22",
        );
        assert_eq!(code, Code::SshUnreachable);
        assert!(hints.contains("PerSourcePenalties"), "{hints}");
        let (code, hints) = told("ssh: connect to host 192.0.2.1 port 22: Connection refused");
        assert_eq!(code, Code::SshUnreachable);
        assert!(!hints.contains("PerSourcePenalties"), "{hints}");
    }
}
