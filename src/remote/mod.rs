//! Runs commands on hosts, over SSH.
//!
//! The seam between deciding and doing: [`Remote`] is all that the rest of the program knows of a
//! connection, and the only place where tests may put something else.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    error::{Code, Error, Result},
    event::Stream,
    inventory::HostName,
    secret::never_shown,
};

mod by_hand;
mod connect_error;
mod forward;
mod host_key_mismatch;
mod kept;
mod lease;
mod output;
mod runner;
mod script;
mod ssh;

pub use host_key_mismatch::host_key_mismatch;
pub use kept::{Keep, close_kept};
pub use lease::{Lease, Listener};
pub use script::{PENDING, Script};
pub use ssh::{Knock, SshRemote};

pub use crate::shell::quote;

/// What an error says when a host answers whose key is not the pinned one.
pub const STRANGER: &str = "this is not the host whose key is pinned";

/// The error of a forward that sshd refused, in ssh's own words.
pub fn no_forwarding(host: &HostName, said: &str) -> Error {
    Error::new(Code::SshForwardingRefused, "sshd refuses to forward connections")
        .on(host)
        .cause(said)
        .hint("pgherd reaches the services through SSH: allow it for this user in sshd_config (AllowTcpForwarding yes or local, no DisableForwarding, no PermitOpen that leaves 127.0.0.1 out), and at its key (no `restrict`, no-port-forwarding or permitopen=)")
        .hint("what sshd itself has: sudo sshd -T | grep -iE 'forwarding|permitopen'")
}

never_shown!(Output, Script);

/// What a script left behind.
///
/// What a host says may hold secrets, as the files do that a probe reads; so it does not show itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Output {
    /// The exit code; a script that a signal ended has 128 + its number, as shells count.
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

/// Takes each line of output as it comes.
pub type OnLine<'a> = &'a (dyn Fn(Stream, &str) + Send + Sync);

#[async_trait]
pub trait Remote: Send + Sync {
    /// Runs `script` as root on `host` in one round trip.
    ///
    /// The script goes over standard input, so nothing of it shows in a process list. A script that
    /// fails is an [`Output`], not an error; an error means that the host could not be reached, the
    /// connection broke, or `timeout` passed.
    async fn run(
        &self,
        host: &HostName,
        script: &Script,
        timeout: Duration,
        on_line: OnLine<'_>,
    ) -> Result<Output>;

    /// Connects to `port` of `host`, as if from the host itself.
    async fn dial(&self, host: &HostName, port: u16) -> Result<Box<dyn Connection>>;

    /// Opens the connection to `host` if there is none, and takes the run's lease there. What follows is
    /// about such connections too; a remote that has none has nothing to do.
    async fn connect(&self, _host: &HostName) -> Result<()> {
        Ok(())
    }

    /// The same without the lease.
    async fn reach(&self, _host: &HostName) -> Result<()> {
        Ok(())
    }

    /// Whether the run's lease is held on `host`; also where the run takes none.
    async fn holds_lease(&self, _host: &HostName) -> bool {
        true
    }

    /// From now on a host on which the lease is lost does not end the run, as long as another one
    /// holds it.
    ///
    /// An error where no host at all holds it, although the run takes one.
    fn settle_lease(&self) -> Result<()> {
        Ok(())
    }

    /// Knocks at a port of `host` where nobody listens: whether sshd refuses to lead there is known
    /// once anything that was sent after it has been answered.
    async fn knock(&self, _host: &HostName) -> Knock {
        Knock::default()
    }

    /// What ssh said, if sshd refuses to lead to one of `ports`.
    async fn refused(&self, _host: &HostName, _knock: Knock, _ports: &[u16]) -> Option<String> {
        None
    }

    /// Forgets the connection to a host that died or was cut off: SSH itself notices only after a
    /// while, and until then the host would seem to be silent.
    async fn forget(&self, _host: &HostName) {}

    /// Gives the lease back, and ends all connections or leaves them to the next run.
    async fn close(&self) {}

    /// From now on nothing is left to the next run, and nothing taken that an earlier one has left.
    fn keep_none(&self) {}

    /// Removes what the connections keep on this machine, for a process that ends now: who still holds
    /// them may not be told before it has ended.
    fn remove_sockets(&self) {}
}
