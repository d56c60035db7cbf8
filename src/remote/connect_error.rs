//! What `ssh` prints if it cannot connect to a host, and what that means.

use std::time::Duration;

use crate::{
    error::{Code, Error},
    inventory::HostName,
};

/// What stands for the answer of a client that gives none.
pub(super) fn stalled() -> openssh::Error {
    openssh::Error::Connect(std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        "the ssh client hangs",
    ))
}

/// Whether waiting cannot help.
pub(super) fn is_final(error: &openssh::Error) -> bool {
    let text = full_text(error);
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

/// Whether the host shows another key than the one that is known.
pub(super) fn is_wrong_key(text: &str) -> bool {
    text.contains("verification failed") || text.contains("IDENTIFICATION HAS CHANGED")
}

/// An error with all that is behind it, on one line.
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

/// Why the host lets nobody in, in words that say what to do.
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
            .hint("the host does not accept the key: check ssh.user and ssh.identity_file")
            .hint("if the cluster was made from another folder, its key is there: copy that .pgherd beside this inventory")
            .hint(by_hand);
    }
    if text.contains("os error 2") {
        return reach(Code::SshUnreachable)
            .hint("install OpenSSH's client (package openssh-client)");
    }
    reach(Code::SshUnreachable)
        .cause(format!(
            "given up after {} s (ssh.connect_timeout)",
            timeout.as_secs()
        ))
        .hint(by_hand)
}
