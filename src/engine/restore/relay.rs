//! The way of a clone's pgBackRest to the repository of the cluster that is cloned.
//!
//! Both hosts are reached by this process alone, over SSH. On the clone's host, sshd listens on a socket; each connection
//! to it becomes a pgBackRest on the repository's host, which reads with its own config and its own keys. None of these
//! gets to the clone's host, and nothing stays on either when this process ends.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::AsyncReadExt,
    net::{UnixListener, UnixStream},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use crate::{
    contract::BACKUP_CONFIG,
    error::{Code, Error, Result},
    inventory::HostName,
    plan::restore::SOCKET,
    remote::{Remote, quote},
};

/// How long a connection may take to say what it is for.
const ASKS: Duration = Duration::from_secs(30);
/// The longest line with that.
const LONGEST: usize = 40;

/// The host with a repository.
pub(super) struct Repository {
    pub remote: Arc<dyn Remote>,
    pub host: HostName,
    pub stanza: String,
}

/// Leads to the repository until it is dropped.
pub(super) struct Relay {
    _folder: TempDir,
    task: JoinHandle<()>,
    trouble: Arc<Mutex<Option<Error>>>,
}

impl Relay {
    /// Has `host` listen. `folder` is closed to other users of this machine.
    pub(super) async fn start(
        repository: Repository,
        folder: TempDir,
        target: &dyn Remote,
        host: &HostName,
    ) -> Result<Self> {
        let here = folder.path().join("repository");
        let listener = UnixListener::bind(&here).map_err(|error| {
            Error::new(
                Code::LocalFileFailed,
                format!("cannot listen on {}", here.display()),
            )
            .because(error)
        })?;
        target.listen(host, Path::new(SOCKET), &here).await?;
        let trouble = Arc::<Mutex<Option<Error>>>::default();
        let task = tokio::spawn(serve(listener, Arc::new(repository), trouble.clone()));
        Ok(Self {
            _folder: folder,
            task,
            trouble,
        })
    }

    /// What went wrong last on the way to the repository.
    pub(super) fn trouble(&self) -> Option<String> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.as_ref().map(Error::to_string)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    listener: UnixListener,
    repository: Arc<Repository>,
    trouble: Arc<Mutex<Option<Error>>>,
) {
    let mut readers = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (repository, trouble) = (repository.clone(), trouble.clone());
                    readers.spawn(async move {
                        if let Err(error) = read(stream, &repository).await {
                            let mut last = trouble.lock().unwrap_or_else(PoisonError::into_inner);
                            *last = Some(error);
                        }
                    });
                }
                Err(_) => return,
            },
            Some(_) = readers.join_next() => {}
        }
    }
}

async fn read(mut stream: UnixStream, repository: &Repository) -> Result<()> {
    let asked = timeout(ASKS, first_line(&mut stream)).await;
    let Some(command) = asked
        .ok()
        .flatten()
        .and_then(|it| reads(&it, &repository.stanza))
    else {
        return Err(Error::new(
            Code::AnswerUnusable,
            "the clone's host asks for something else than a restore reads",
        ));
    };
    repository
        .remote
        .pipe(&repository.host, &command, stream)
        .await
}

async fn first_line(stream: &mut UnixStream) -> Option<String> {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await.ok()? {
            b'\n' => return String::from_utf8(line).ok(),
            byte if line.len() < LONGEST => line.push(byte),
            _ => return None,
        }
    }
}

/// The command on the repository's host for what the clone's asks, such as `restore 2`, or `restore 2 2` for the second
/// repository.
///
/// Whatever it is told, it can write nothing there but to a bucket: all of the host's folders are read-only for it.
fn reads(line: &str, stanza: &str) -> Option<String> {
    let mut words = line.split(' ');
    let (command, process) = (words.next()?, words.next()?);
    let process: u8 = process.parse().ok()?;
    let repository: u8 = words.next().map_or(Ok(1), str::parse).ok()?;
    if words.next().is_some() {
        return None;
    }
    if !["restore", "archive-get"].contains(&command) {
        return None;
    }
    Some(format!(
        "systemd-run --quiet --pipe --wait --collect -p User=postgres -p Group=postgres -p ProtectSystem=strict \
         -p ProtectHome=yes -p PrivateTmp=yes -p NoNewPrivileges=yes -p UMask=0077 /usr/bin/pgbackrest \
         --config={BACKUP_CONFIG} --stanza={} --remote-type=repo --repo={repository} --process={process} \
         --log-level-console=off --log-level-file=off --log-level-stderr=error {command}:remote",
        quote(stanza)
    ))
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::remote::{Connection, OnLine, Output, Script};

    /// Says which command was run.
    #[derive(Default)]
    struct Keeper(Mutex<Vec<String>>);

    #[async_trait]
    impl Remote for Keeper {
        async fn run(
            &self,
            _: &HostName,
            _: &Script,
            _: Duration,
            _: OnLine<'_>,
        ) -> Result<Output> {
            unreachable!("only streams are asked for")
        }

        async fn dial(&self, _: &HostName, _: u16) -> Result<Box<dyn Connection>> {
            unreachable!("only streams are asked for")
        }

        async fn pipe(&self, _: &HostName, command: &str, mut stream: UnixStream) -> Result<()> {
            self.0.lock().unwrap().push(command.to_owned());
            stream.write_all(b"greeting").await.unwrap();
            Ok(())
        }
    }

    async fn asked(line: &str) -> (Option<String>, Vec<String>) {
        let keeper = Arc::new(Keeper::default());
        let repository = Repository {
            remote: keeper.clone(),
            host: HostName::new("keeper"),
            stanza: "my prod".into(),
        };
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(line.as_bytes()).await.unwrap();
        let said = read(server, &repository).await.err();
        let commands = keeper.0.lock().unwrap().clone();
        (said.map(|it| it.what().to_owned()), commands)
    }

    #[tokio::test]
    async fn only_what_a_restore_reads_is_run_where_the_repository_is() {
        let (said, commands) = asked("restore 2\n").await;
        assert_eq!(said, None);
        assert!(commands[0].ends_with(" restore:remote"), "{commands:?}");
        assert!(commands[0].contains("--stanza='my prod' "), "{commands:?}");
        assert!(commands[0].contains("--process=2 "), "{commands:?}");
        assert!(commands[0].contains("ProtectSystem=strict"), "{commands:?}");
        assert!(commands[0].contains("--repo=1 "), "{commands:?}");
        let (_, commands) = asked("archive-get 0 2\n").await;
        assert!(commands[0].contains("--repo=2 "), "{commands:?}");
        for line in [
            "archive-push 0\n",
            "restore\n",
            "restore 1 2 3\n",
            "restore 1;reboot\n",
            "restore -1\n",
            "stanza-delete 0\n",
            &format!("{}\n", "x".repeat(50)),
        ] {
            let (said, commands) = asked(line).await;
            assert!(said.is_some(), "{line}");
            assert_eq!(commands, [""; 0], "{line}");
        }
    }
}
