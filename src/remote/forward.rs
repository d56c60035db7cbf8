//! Forwards to ports of a host, and why one does not work.
//!
//! A forward begins at a socket on this machine, which accepts every connection at once. Whether the host
//! forwards it shows only afterwards: if not, the connection ends without a byte, and the reason is in the log
//! of the connection's own `ssh`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::UnixStream,
    time::timeout,
};

/// A connection to a port of a host that knows why it ended before it began.
pub(super) struct Forwarded {
    stream: UnixStream,
    log: Log,
    /// Something was read, so the host has forwarded it.
    served: bool,
}

impl Forwarded {
    pub(super) fn new(stream: UnixStream, log: Log) -> Self {
        Self {
            stream,
            log,
            served: false,
        }
    }

    /// ssh's message, if sshd refuses within `limit` to forward to the port.
    pub(super) async fn refusal(mut self, limit: Duration) -> Option<String> {
        let read = timeout(limit, self.read(&mut [0])).await.ok()?;
        let error = read.err()?;
        (error.kind() == io::ErrorKind::PermissionDenied).then(|| error.to_string())
    }
}

impl AsyncRead for Forwarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let ready = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Poll::Ready(result) = ready else {
            return Poll::Pending;
        };
        if buffer.filled().len() > before {
            self.served = true;
        } else if !self.served
            && let Some(error) = self.log.refusal()
        {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Forwarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The log of a connection's `ssh`, from a certain moment on.
#[derive(Debug, Clone)]
pub(super) struct Log {
    path: PathBuf,
    from: usize,
}

impl Log {
    /// What is added from now on to the log beside the control socket, where `openssh` puts it.
    pub(super) fn beside(socket: &Path) -> Self {
        let path = socket.with_file_name("log");
        let length = fs::metadata(&path).map_or(0, |it| it.len());
        let from = usize::try_from(length).unwrap_or(usize::MAX);
        Self { path, from }
    }

    /// Why the host did not forward, if the log says so.
    pub(super) fn refusal(&self) -> Option<io::Error> {
        let log = fs::read(&self.path).ok()?;
        refusal(&String::from_utf8_lossy(log.get(self.from..)?))
    }
}

/// sshd's refusal is a `PermissionDenied`; a port on which nothing listens is a `ConnectionRefused`. The text
/// is ssh's, without the channel's number.
fn refusal(log: &str) -> Option<io::Error> {
    let mut said = log
        .lines()
        .filter_map(|line| line.split_once(": open failed: "))
        .map(|(_, said)| said.trim());
    let last = said.clone().next_back()?;
    match said.find(|said| said.starts_with("administratively prohibited")) {
        Some(said) => Some(io::Error::new(io::ErrorKind::PermissionDenied, said)),
        None if last.contains("refused") => {
            Some(io::Error::new(io::ErrorKind::ConnectionRefused, last))
        }
        None => Some(io::Error::other(last)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_says_why_a_forward_leads_nowhere() {
        use io::ErrorKind::{ConnectionRefused, Other, PermissionDenied};
        let table = [
            (
                "channel 3: open failed: administratively prohibited: open failed\n",
                Some(PermissionDenied),
            ),
            (
                "channel 4: open failed: connect failed: Connection refused\r\n",
                Some(ConnectionRefused),
            ),
            (
                "channel 4: open failed: connect failed: Connection timed out\n",
                Some(Other),
            ),
            ("mux_client_hello_exchange: hello\n", None),
            ("", None),
        ];
        for (log, kind) in table {
            assert_eq!(refusal(log).map(|error| error.kind()), kind, "{log}");
        }
    }
}
