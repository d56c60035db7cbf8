//! Runs a script over a connection.

use std::time::Duration;

use openssh::{Session, Stdio};
use tokio::io::AsyncWriteExt;

use super::{
    OnLine, Script,
    output::{Broken, collect},
    runner::{RUNNER, Told},
};
use crate::{event::Stream, poll};

/// How long to wait before asking again for a session that sshd refused.
const CROWDED: Duration = Duration::from_millis(250);

/// Runs a script on the host at the other end, and returns its exit code and output.
pub(super) async fn execute(
    session: &Session,
    script: &Script,
    limit: Duration,
    on_line: OnLine<'_>,
) -> Result<(i32, Told, Told), Broken> {
    let started = poll::until(limit.saturating_sub(CROWDED), CROWDED, || async {
        let started = session
            .raw_command(RUNNER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .await;
        match started {
            // Nothing was run. Others of this run's scripts will end, and make room for this one.
            Err(error) if is_crowded(&error) => Err(error),
            started => Ok(started),
        }
    });
    let mut child = started.await.map_err(|over| Broken::Crowded(over.last))??;
    let stdin = child.stdin().take();
    let stdout = child.stdout().take();
    let stderr = child.stderr().take();
    let send = async {
        if let Some(mut stdin) = stdin {
            // A host that stops reading gives the reason before it ends.
            let _ = stdin.write_all(script.expose().as_bytes()).await;
            let _ = stdin.shutdown().await;
        }
        Ok(())
    };
    let ((), stdout, stderr) = tokio::try_join!(
        send,
        collect(stdout, Stream::Stdout, on_line),
        collect(stderr, Stream::Stderr, on_line),
    )?;
    let code = match child.wait().await {
        Ok(status) => status.code().unwrap_or(128),
        // The multiplexer cannot distinguish a signal from a broken connection; a check of the connection
        // can.
        Err(openssh::Error::RemoteProcessTerminated) if session.check().await.is_ok() => 128,
        Err(error) => return Err(error.into()),
    };
    Ok((code, stdout, stderr))
}

/// Whether sshd refuses another session on the connection (`MaxSessions`).
fn is_crowded(error: &openssh::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.to_string().contains("open refused by peer") {
            return true;
        }
        cause = error.source();
    }
    false
}
