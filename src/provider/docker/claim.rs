//! Lets only one run at a time create containers of a cluster, even from copies of the workspace.
//!
//! Before a host answers, there is nothing on which a lease could be taken. But the addresses of containers are
//! reachable only from the engine's own machine, so all runs that create them are on that machine. The kernel
//! keeps a name for the run (unix(7), abstract sockets) as long as its process lives, and a process that
//! connects to that name is told which run it is.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::MetadataExt,
            net::{SocketAddr, UnixListener as Socket, UnixStream as Stream},
        },
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream, unix::UCred},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    error::{Code, Error, Result},
    holder::{AT_WORK, Holder},
};

/// How long a run may take to say who it is.
const ANSWER: Duration = Duration::from_secs(2);
/// How long to repeat the question while nobody answers: the process with the name may just be ending.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The maximum length of a run's answer.
const LONGEST: u64 = 4096;

/// The right to create containers of a cluster; given back when it is dropped, or when the process ends.
#[derive(Debug)]
pub(super) struct Claim(JoinHandle<()>);

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Takes it, or returns an error that names the holder. `None` if the name belongs to a user who may not use
/// the engine at `socket`, and so cannot create containers either.
pub(super) async fn take(
    cluster: &str,
    holder: &Holder,
    socket: Option<&str>,
) -> Result<Option<Claim>> {
    let failed = |error: io::Error| {
        Error::new(Code::LocalSystemFailed, "cannot take the cluster's name").because(error)
    };
    let address = SocketAddr::from_abstract_name(name(cluster)).map_err(failed)?;
    let begin = Instant::now();
    // Not `poll::until`: how long to wait, and how often to ask, depends on the answer.
    loop {
        match Socket::bind_addr(&address) {
            Ok(listening) => return serve(listening, holder).map(Some).map_err(failed),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(failed(error)),
        }
        match timeout(ANSWER, ask(&address)).await {
            Ok(Ok((credentials, _))) if !may_use(socket, credentials) => return Ok(None),
            // The holder is this very process, which is about to give it back.
            Ok(Ok((_, Some(other)))) if other.pid == holder.pid && begin.elapsed() < TIMEOUT => {
                sleep(Duration::from_millis(20)).await;
            }
            Ok(Ok((_, Some(other)))) => return Err(refused(cluster, &other.to_string())),
            Ok(Ok((credentials, None))) if begin.elapsed() > TIMEOUT => {
                let pid = credentials.pid().unwrap_or_default();
                return Err(refused(cluster, &format!("process {pid} of this machine")));
            }
            _ if begin.elapsed() > TIMEOUT * 2 => {
                return Err(refused(cluster, "it does not say who it is"));
            }
            _ => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Refuses if another process creates containers of the cluster; takes nothing.
pub(super) async fn refuse_if_taken(cluster: &str, socket: Option<&str>) -> Result<()> {
    let Ok(address) = SocketAddr::from_abstract_name(name(cluster)) else {
        return Ok(());
    };
    match timeout(ANSWER, ask(&address)).await {
        Ok(Ok((credentials, Some(other))))
            if may_use(socket, credentials) && other.pid != std::process::id() =>
        {
            Err(refused(cluster, &other.to_string()))
        }
        _ => Ok(()),
    }
}

fn name(cluster: &str) -> String {
    format!("pgherd up {cluster}")
}

fn refused(cluster: &str, who: &str) -> Error {
    Error::new(Code::LeaseHeld, format!("{AT_WORK} `{cluster}`"))
        .cause(format!("its hosts are being made: {who}"))
        .left("nothing was made")
        .hint("wait until it has ended, or stop it with Ctrl-C where it runs")
        .hint("if it was started from another folder than this one: a cluster has one workspace (.pgherd), copy it here")
}

/// Answers every connection.
fn serve(listening: Socket, holder: &Holder) -> io::Result<Claim> {
    listening.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listening)?;
    let line = format!("{}\n", holder.line());
    Ok(Claim(tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // A client that does not read is not waited for.
            let _ = timeout(ANSWER, stream.write_all(line.as_bytes())).await;
        }
    })))
}

async fn ask(address: &SocketAddr) -> io::Result<(UCred, Option<Holder>)> {
    let stream = Stream::connect_addr(address)?;
    stream.set_nonblocking(true)?;
    let stream = UnixStream::from_std(stream)?;
    let credentials = stream.peer_cred()?;
    let mut said = String::new();
    stream.take(LONGEST).read_to_string(&mut said).await?;
    Ok((credentials, Holder::parse(&said)))
}

/// Whether a process may use the engine: any local user could take a name.
fn may_use(socket: Option<&str>, whose: UCred) -> bool {
    if whose.uid() == 0 || whose.uid() == rustix::process::getuid().as_raw() {
        return true;
    }
    let Some(engine) = socket.and_then(|path| std::fs::metadata(path).ok()) else {
        return false;
    };
    let of_it = |group: u32| group == engine.gid();
    engine.uid() == whose.uid()
        || of_it(whose.gid())
        || groups(whose.pid().unwrap_or_default())
            .into_iter()
            .any(of_it)
}

/// The supplementary groups of a process (proc(5), `/proc/pid/status`).
fn groups(pid: i32) -> Vec<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:"));
    let groups = line.unwrap_or_default().split_ascii_whitespace();
    groups.filter_map(|group| group.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_makes_hosts_and_the_other_is_told_who() {
        let cluster = format!("claim-{:08x}", rand::random::<u32>());
        let (alice, bob) = (Holder::now("up"), Holder::now("up"));
        let claim = take(&cluster, &alice, None).await.unwrap();
        assert!(claim.is_some());
        let error = take(&cluster, &bob, None).await.unwrap_err();
        let said = error.to_string();
        assert!(said.contains(AT_WORK) && said.contains(&alice.by), "{said}");
        assert_eq!(error.left_behind(), Some("nothing was made"));
        let other = take(&format!("{cluster}-2"), &bob, None).await.unwrap();
        assert!(other.is_some(), "another cluster is another matter");
        drop(claim);
        assert!(take(&cluster, &bob, None).await.unwrap().is_some());
    }

    #[test]
    fn only_who_may_use_the_engine_counts() {
        let own = groups(i32::try_from(std::process::id()).unwrap());
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        assert!(status.contains("Groups:"));
        assert!(own.len() < 1000);
        assert!(groups(0).is_empty());
    }
}
