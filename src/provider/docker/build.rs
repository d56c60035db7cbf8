//! Builds a host image from the machine's package sources: the engine imports the script's output.

use std::{
    collections::VecDeque,
    env, fs, io,
    os::unix::fs::MetadataExt,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bollard::query_parameters::{CreateImageOptionsBuilder, TagImageOptionsBuilder};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, ChildStderr, ChildStdout, Command},
};

use super::engine::{self, Engine};
use crate::{
    error::{Code, Error, Result},
    event::{Event, Events},
};

/// Makes a host's root filesystem. It is also a file of its own, for people and for scripts/quickstart.
pub(super) const SCRIPT: &str = include_str!("../../../scripts/host-image");
/// Half a minute with a fast mirror; a slow network and a slow disk may take several minutes.
pub(super) const BUILD_TIMEOUT: Duration = Duration::from_secs(20 * 60);
/// Variables that the script may need to reach its package mirror; sudo would drop them.
pub(super) const PROXY_VARIABLES: [&str; 6] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];
/// How much of the script's output an error quotes.
const QUOTED_LINES: usize = 25;

/// Why this machine cannot build; `None` if it can. Changes nothing.
pub(super) async fn obstacle() -> Option<&'static str> {
    if !on_path("debootstrap") {
        return Some("debootstrap is not installed here");
    }
    if !is_root() && !sudo_works().await {
        return Some("debootstrap needs root, and sudo asks for a password");
    }
    None
}

/// Builds the image and names it `tag`. The name exists only when the image is complete.
pub(super) async fn build(engine: &Engine, tag: &str, events: &Events) -> Result<()> {
    let failed = |cause: String| {
        Error::new(
            Code::ImageUnavailable,
            format!("the host image {tag} could not be built"),
        )
        .cause(cause)
        .left("the engine has no such image; hosts that exist are as they were")
    };
    let script = tempfile::Builder::new()
        .prefix("pgherd-host-image-")
        .tempfile()
        .and_then(|file| fs::write(file.path(), SCRIPT).map(|()| file))
        .map_err(|error| failed(format!("its script could not be written: {error}")))?;
    let mut build = Build::start(script).map_err(|error| failed(error.to_string()))?;
    let (body, stderr) = build.output();

    let options = CreateImageOptionsBuilder::default().from_src("-").build();
    let client = engine.streaming(BUILD_TIMEOUT);
    let import = async {
        let mut statuses =
            client.create_image(Some(options), Some(bollard::body_try_stream(body)), None);
        let mut id = None;
        while let Some(status) = statuses.next().await {
            id = status?.status.or(id);
        }
        Ok::<_, bollard::errors::Error>(id)
    };
    let watch = relay(stderr, tag, events);
    let both = async { tokio::join!(import, watch) };
    let Ok((imported, tail)) = tokio::time::timeout(BUILD_TIMEOUT, both).await else {
        let minutes = BUILD_TIMEOUT.as_secs() / 60;
        return Err(
            failed(format!("it was not complete after {minutes} minutes"))
                .hint("see whether this machine reaches its package mirror: apt-get update"),
        );
    };
    let script_failed = build.status().filter(|status| !status.success());
    let id = match (script_failed, imported) {
        (Some(status), _) => {
            return Err(failed(format!("its script ended with {status}"))
                .excerpt("the end of its output", tail)
                .hint("see whether this machine reaches its package mirror: apt-get update"));
        }
        (None, Err(error)) => return Err(failed(engine::message(&error))),
        (None, Ok(id)) => id
            .filter(|id| id.starts_with("sha256:"))
            .ok_or_else(|| failed("the engine did not say which image it made".into()))?,
    };
    let (repository, version) = tag.split_once(':').unwrap_or((tag, "latest"));
    let options = TagImageOptionsBuilder::default()
        .repo(repository)
        .tag(version)
        .build();
    engine::call(
        &format!("name the new image {tag}"),
        engine.api().tag_image(&id, Some(options)),
    )
    .await
}

/// The running script. If it is dropped early, the script is told to end, and cleans up.
struct Build {
    pid: Option<u32>,
    status: Arc<Mutex<Option<ExitStatus>>>,
    child: Option<Child>,
    sudo: bool,
    // The script starts itself again from its file, so the file must exist as long as the script runs.
    _script: tempfile::NamedTempFile,
}

impl Build {
    fn start(script: tempfile::NamedTempFile) -> io::Result<Self> {
        let sudo = !is_root();
        let mut command = match sudo {
            true => {
                let mut command = Command::new("sudo");
                command.args(["-n", "env"]);
                for name in PROXY_VARIABLES {
                    if let Ok(value) = env::var(name) {
                        command.arg(format!("{name}={value}"));
                    }
                }
                command.arg("bash");
                command
            }
            false => Command::new("bash"),
        };
        let child = command
            .arg(script.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Self {
            pid: child.id(),
            status: Arc::default(),
            child: Some(child),
            sudo,
            _script: script,
        })
    }

    /// The tar stream, which breaks off unless the script succeeds, and the script's progress.
    fn output(
        &mut self,
    ) -> (
        impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        Option<ChildStderr>,
    ) {
        let mut child = self.child.take();
        let stdout = child.as_mut().and_then(|child| child.stdout.take());
        let stderr = child.as_mut().and_then(|child| child.stderr.take());
        let status = Arc::clone(&self.status);
        let body = stream::try_unfold(Some((stdout, child, status)), async |state| {
            let Some((mut stdout, mut child, status)) = state else {
                return Ok(None);
            };
            if let Some(chunk) = next_chunk(&mut stdout).await? {
                return Ok(Some((chunk, Some((stdout, child, status)))));
            }
            if let Some(child) = &mut child {
                let ended = child.wait().await?;
                *status.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
                if !ended.success() {
                    // The engine must not take half a filesystem for a complete one.
                    return Err(io::Error::other("the script failed"));
                }
            }
            Ok(None)
        });
        (body, stderr)
    }

    fn status(&self) -> Option<ExitStatus> {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Build {
    fn drop(&mut self) {
        let (Some(pid), None) = (self.pid, self.status()) else {
            return;
        };
        let mut command = match self.sudo {
            true => {
                let mut command = std::process::Command::new("sudo");
                command.args(["-n", "kill"]);
                command
            }
            false => std::process::Command::new("kill"),
        };
        // An error means that it has ended by itself.
        let _ = command
            .args(["-TERM", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

async fn next_chunk(stdout: &mut Option<ChildStdout>) -> io::Result<Option<Bytes>> {
    let Some(stdout) = stdout else {
        return Ok(None);
    };
    let mut chunk = Vec::with_capacity(256 * 1024);
    let read = stdout.read_buf(&mut chunk).await?;
    Ok((read > 0).then(|| chunk.into()))
}

/// Passes on the script's progress, and returns its last lines.
async fn relay(stderr: Option<ChildStderr>, tag: &str, events: &Events) -> String {
    let mut progress = Progress::new(tag, events);
    if let Some(stderr) = stderr {
        let mut lines = BufReader::new(stderr).lines();
        // Output that is not text ends the progress, not the build.
        while let Ok(Some(line)) = lines.next_line().await {
            progress.line(&line);
        }
    }
    progress.tail()
}

/// The script's output as events; its last lines are kept for an error.
pub(super) struct Progress<'a> {
    tag: &'a str,
    events: &'a Events,
    tail: VecDeque<String>,
}

impl<'a> Progress<'a> {
    pub(super) fn new(tag: &'a str, events: &'a Events) -> Self {
        Self {
            tag,
            events,
            tail: VecDeque::new(),
        }
    }

    pub(super) fn line(&mut self, line: &str) {
        let line = line.trim_start_matches("host-image: ");
        if self.tail.len() == QUOTED_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(line.to_owned());
        self.events.emit(Event::Image {
            image: self.tag.to_owned(),
            line: line.to_owned(),
        });
    }

    pub(super) fn tail(self) -> String {
        Vec::from(self.tail).join("\n")
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

async fn sudo_works() -> bool {
    let sudo = Command::new("sudo")
        .args(["-n", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    // With a directory service, sudo may take long.
    let answer = tokio::time::timeout(Duration::from_secs(10), sudo).await;
    matches!(answer, Ok(Ok(status)) if status.success())
}

fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        // A normal user's path often lacks these folders, and sudo's has them.
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(program).is_file())
}
