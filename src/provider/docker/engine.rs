//! The connection to the container engine: every call has a time limit, every failure a message.

use std::{env, error::Error as StdError, future::Future, io, time::Duration};

use bollard::{Docker, errors::Error as EngineError};

use crate::error::{Code, Error, Result};

const DEFAULT_ADDRESS: &str = "unix:///var/run/docker.sock";
/// The oldest API with private cgroup namespaces, which systemd in a container needs: engine 20.10.
const OLDEST_API: (usize, usize) = (1, 41);
/// Much more than any single call takes on a busy machine.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// A container engine that answers.
#[derive(Clone)]
pub(super) struct Engine {
    docker: Docker,
    /// Whether its networks and ports are this machine's.
    pub(super) local: bool,
    /// The path of its socket on this machine, if it has one.
    pub(super) socket: Option<String>,
}

impl Engine {
    /// Connects to the engine in `DOCKER_HOST`, or to this machine's.
    pub(super) async fn connect() -> Result<Self> {
        // Like for the engine's own command line, an empty variable counts as unset.
        let address = env::var("DOCKER_HOST")
            .ok()
            .filter(|value| !value.is_empty())
            .unwrap_or_else(|| DEFAULT_ADDRESS.to_owned());
        Self::at(&address).await
    }

    pub(super) async fn at(address: &str) -> Result<Self> {
        let docker = Docker::connect_with_host(address)
            .map_err(|error| no_engine(address, &error))?
            .with_timeout(CALL_TIMEOUT);
        let answer = tokio::time::timeout(Duration::from_secs(10), docker.negotiate_version());
        let docker = match answer.await {
            Ok(Ok(docker)) => docker,
            Ok(Err(error)) => return Err(no_engine(address, &error)),
            Err(_) => {
                return Err(Error::new(
                    Code::EngineUnreachable,
                    format!("the container engine at {address} does not answer within 10 s"),
                )
                .hint("see whether `docker version` answers; if not, restart the engine"));
            }
        };
        let version = docker.client_version();
        if (version.major_version, version.minor_version) < OLDEST_API {
            return Err(Error::new(Code::EngineFailed, format!(
                "the container engine at {address} is too old: it speaks API {version}, and hosts \
                 with systemd need {}.{}",
                OLDEST_API.0, OLDEST_API.1
            ))
            .hint("install Docker 20.10 or newer"));
        }
        let socket = address.strip_prefix("unix://").map(str::to_owned);
        Ok(Self {
            docker,
            local: socket.is_some(),
            socket,
        })
    }

    /// The client, for calls that end within a minute.
    pub(super) fn api(&self) -> &Docker {
        &self.docker
    }

    /// A client for a call that streams in or out for up to `timeout`.
    pub(super) fn streaming(&self, timeout: Duration) -> Docker {
        self.docker.clone().with_timeout(timeout)
    }
}

/// Makes a call. If it fails, the error says that the engine could not do `what`.
pub(super) async fn call<T>(
    what: &str,
    call: impl Future<Output = Result<T, EngineError>>,
) -> Result<T> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(result) => result.map_err(|error| could_not(what, &error)),
        Err(_) => Err(Error::new(
            Code::EngineFailed,
            format!(
                "the container engine did not {what} within {} s",
                CALL_TIMEOUT.as_secs()
            ),
        )
        .hint("see whether `docker ps` answers; if not, restart the engine")),
    }
}

/// Like [`call`], with `None` for something that does not exist.
pub(super) async fn lookup<T>(
    what: &str,
    future: impl Future<Output = Result<T, EngineError>>,
) -> Result<Option<T>> {
    call(what, async {
        match future.await {
            Ok(found) => Ok(Some(found)),
            Err(error) if has_status(&error, 404) => Ok(None),
            Err(error) => Err(error),
        }
    })
    .await
}

pub(super) fn could_not(what: &str, error: &EngineError) -> Error {
    let said = message(error);
    // The engine has no status of its own for a subnet that is in use.
    let code = match said.contains("overlap") {
        true => Code::NetworkUnsuitable,
        false => Code::EngineFailed,
    };
    Error::new(code, format!("the container engine could not {what}")).cause(said)
}

pub(super) fn has_status(error: &EngineError, status: u16) -> bool {
    matches!(error, EngineError::DockerResponseServerError { status_code, .. } if *status_code == status)
}

/// The engine's own message, without the client's wrapping.
pub(super) fn message(error: &EngineError) -> String {
    match error {
        EngineError::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        EngineError::DockerStreamError { error } => error.trim().to_owned(),
        other => other.to_string(),
    }
}

fn no_engine(address: &str, error: &EngineError) -> Error {
    let what = format!("no container engine answers at {address}");
    let elsewhere = "an engine elsewhere: name it in DOCKER_HOST";
    match error {
        EngineError::SocketNotFoundError(_) => Error::new(Code::EngineUnreachable, what)
            .cause("there is no such socket, so the engine is not running or not installed")
            .hint("start it with `sudo systemctl start docker`, or let scripts/quickstart install and start one")
            .hint(elsewhere),
        EngineError::UnsupportedURISchemeError { .. } => Error::new(Code::InvalidArguments, format!(
            "DOCKER_HOST is {address}, which is not an address that pgherd can use"
        ))
        .hint("write unix:///path/to/docker.sock or tcp://host:2375; leave it unset for this machine's engine"),
        _ => match io_kind(error) {
            Some(io::ErrorKind::PermissionDenied) => Error::new(Code::EngineDenied, format!(
                "permission denied on the container engine's socket at {address}"
            ))
            .hint("run pgherd with sudo, or join the engine's group: `sudo usermod -aG docker $USER`, then log in again"),
            Some(io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => Error::new(Code::EngineUnreachable, what)
                .cause("nothing listens there, so the engine is not running")
                .hint("start it with `sudo systemctl start docker`, or run scripts/quickstart")
                .hint(elsewhere),
            _ => Error::new(Code::EngineUnreachable, what).cause(deepest(error)),
        },
    }
}

fn io_kind(error: &EngineError) -> Option<io::ErrorKind> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        next = error.source();
    }
    None
}

fn deepest(error: &EngineError) -> String {
    let mut deepest: &dyn StdError = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_socket_is_explained() {
        let error = Engine::at("unix:///nowhere/docker.sock")
            .await
            .err()
            .unwrap();
        assert_eq!(
            error.what(),
            "no container engine answers at unix:///nowhere/docker.sock"
        );
        assert!(error.hints()[0].contains("systemctl start docker"));
    }

    #[tokio::test]
    async fn a_socket_without_a_listener_is_explained() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let address = format!("unix://{}", socket.display());
        let error = Engine::at(&address).await.err().unwrap();
        assert!(error.causes()[0].contains("not running"), "{error}");
    }

    #[tokio::test]
    async fn a_scheme_that_is_not_spoken_is_bad_input() {
        let error = Engine::at("ssh://host").await.err().unwrap();
        assert_eq!(error.kind().exit_code(), 2);
    }
}
