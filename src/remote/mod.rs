//! Runs commands on hosts, over SSH.
//!
//! The border between deciding and doing: [`Remote`] is all that the rest of the program knows of a connection,
//! and the only place where tests may use a fake.

use std::{fmt, path::Path, time::Duration};

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
};

use crate::{
    error::{Code, Error, Result},
    event::Stream,
    inventory::HostName,
    secret::never_shown,
};

mod bastion;
mod by_hand;
mod connect_error;
mod execute;
mod forward;
mod host_key_mismatch;
mod kept;
mod lease;
mod output;
mod pipe;
mod runner;
mod script;
mod ssh;

pub use host_key_mismatch::host_key_mismatch;
pub use kept::{Keep, close_kept};
pub use lease::{Lease, Listener, Story};
pub use script::{PENDING, Script};
pub use ssh::{Knock, SshRemote};

pub use crate::shell::quote;

/// The error's text if a host answers whose key is not the pinned one.
pub const STRANGER: &str = "this is not the host whose key is pinned";

/// The error of a forward that sshd refused, with ssh's message.
pub fn no_forwarding(host: &HostName, said: &str) -> Error {
    Error::new(Code::SshForwardingRefused, "sshd refuses to forward connections")
        .on(host)
        .cause(said)
        .hint("pgherd reaches the services through SSH: allow it for this user in sshd_config (AllowTcpForwarding yes or local, no DisableForwarding, no PermitOpen that leaves 127.0.0.1 out), and at its key (no `restrict`, no-port-forwarding or permitopen=)")
        .hint("what sshd itself has: sudo sshd -T | grep -iE 'forwarding|permitopen'")
}

/// The error of a host whose sshd does not listen for this machine.
pub fn no_listening(host: &HostName, said: &str) -> Error {
    Error::new(Code::SshForwardingRefused, "sshd refuses to listen on a socket for pgherd")
        .on(host)
        .cause(said)
        .hint("allow it for this user in sshd_config (AllowStreamLocalForwarding yes or remote, AllowTcpForwarding yes or remote, no DisableForwarding), and at its key (no `restrict`, no-port-forwarding)")
}

never_shown!(Output, Script);

/// The result of a script.
///
/// A host's output may contain secrets, as do the files that a probe reads; so it cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Output {
    /// The exit code; for a script that a signal ended, 128 and its number, as shells count.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (out, err) = (self.stdout.len(), self.stderr.len());
        write!(f, "Output(code {}, {out} and {err} bytes)", self.code)
    }
}

impl Output {
    pub fn success(&self) -> bool {
        self.code == 0
    }
}

/// A byte stream to a port of a host.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Receives each line of output when it comes.
pub type OnLine<'a> = &'a (dyn Fn(Stream, &str) + Send + Sync);

#[async_trait]
pub trait Remote: Send + Sync {
    /// Runs `script` as root on `host` in one round trip.
    ///
    /// The script goes over standard input, so no process list shows it. A script that fails is an [`Output`],
    /// not an error. An error means that the host could not be reached, the connection broke, or `timeout`
    /// passed.
    async fn run(
        &self,
        host: &HostName,
        script: &Script,
        timeout: Duration,
        on_line: OnLine<'_>,
    ) -> Result<Output>;

    /// Connects to `port` of `host`, as if from the host itself.
    async fn dial(&self, host: &HostName, port: u16) -> Result<Box<dyn Connection>>;

    /// Has `host` listen on the socket `there`, as long as the connection lasts. Whoever connects to it reaches the socket
    /// `here`.
    async fn listen(&self, host: &HostName, _there: &Path, _here: &Path) -> Result<()> {
        Err(no_listening(host, "this connection cannot"))
    }

    /// Runs `command`, of the shell's words, as root on `host`, with the stream as its input and output. Returns when it
    /// has ended.
    async fn pipe(&self, host: &HostName, _command: &str, _stream: UnixStream) -> Result<()> {
        Err(Error::new(
            Code::InternalError,
            "this connection runs no command beside others",
        )
        .on(host))
    }

    /// Opens the connection to `host` if there is none, and takes the run's lease there. The next methods are
    /// about such connections too; an implementation without connections does nothing.
    async fn connect(&self, _host: &HostName) -> Result<()> {
        Ok(())
    }

    /// The same without the lease.
    async fn reach(&self, _host: &HostName) -> Result<()> {
        Ok(())
    }

    /// Whether the run's lease is held on `host`; true if the run takes no lease.
    async fn holds_lease(&self, _host: &HostName) -> bool {
        true
    }

    /// Returns when everything that hosts may get next is kept where others find it, too. Scripts and connections wait for
    /// that by themselves; what changes hosts from outside does not.
    async fn ready(&self) -> Result<()> {
        Ok(())
    }

    /// From now on, losing the lease on one host does not end the run, as long as another host holds it.
    ///
    /// An error if no host holds it, although the run takes one.
    fn settle_lease(&self) -> Result<()> {
        Ok(())
    }

    /// Tries a port of `host` on which nothing listens. If sshd refuses to forward there, this is known as soon
    /// as anything sent after it has been answered.
    async fn knock(&self, _host: &HostName) -> Knock {
        Knock::default()
    }

    /// ssh's message, if sshd refuses to forward to one of `ports`.
    async fn refused(&self, _host: &HostName, _knock: Knock, _ports: &[u16]) -> Option<String> {
        None
    }

    /// Forgets the connection to a host that died or was cut off. SSH itself notices only after a while, and
    /// until then the host would seem to be silent.
    async fn forget(&self, _host: &HostName) {}

    /// Gives the lease back, and closes all connections or leaves them to the next run.
    async fn close(&self) {}

    /// From now on, nothing is left to the next run, and no connection of an earlier one is used.
    fn keep_none(&self) {}

    /// Removes the files of the connections on this machine, for a process that ends now: other holders of the
    /// connections may not end before it.
    fn remove_sockets(&self) {}
}
