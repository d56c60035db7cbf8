//! The hosts' image: the user's own, or one built here with the embedded script.

use std::{fs, time::Duration};

use bollard::models::ImageInspect;
use bollard::query_parameters::{CreateImageOptionsBuilder, ListImagesOptions};
use futures_util::StreamExt;
use sha2::{Digest, Sha256};

use super::{
    build,
    container::Image,
    convert,
    engine::{self, Engine},
};
use crate::{
    error::{Code, Error, Result},
    event::{Event, Events},
    facts::Os,
};

/// Images with this name are made here; no registry has them.
pub(super) const REPOSITORY: &str = "pgherd-host";
/// A pull without news for this long has stopped.
const PULL_STALLED: Duration = Duration::from_secs(60);
const PULL_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// The source of the image.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    Present(Image),
    /// The user named it and the engine does not have it.
    Pull(String),
    /// The embedded script makes it, with debootstrap.
    Build(String),
    /// The embedded script makes it from a distribution's own image.
    Convert(Conversion),
}

/// A way to a host image without debootstrap.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conversion {
    tag: String,
    base: String,
    /// Whether the engine already has the base.
    present: bool,
    /// Why it is not made with debootstrap, which needs no registry.
    obstacle: &'static str,
}

impl Source {
    /// What `plan` says of it; `None` for an existing image.
    pub(super) fn line(&self) -> Option<String> {
        match self {
            Source::Present(_) => None,
            Source::Pull(name) => Some(format!("image {name}, pulled from its registry")),
            Source::Build(name) => Some(format!("image {name}, built here by debootstrap")),
            Source::Convert(Conversion {
                tag, base, present, ..
            }) => {
                let pulled = if *present {
                    ""
                } else {
                    ", pulled from its registry"
                };
                Some(format!("image {tag}, made here from {base}{pulled}"))
            }
        }
    }
}

/// Finds the image, or what must be done to get it. Changes nothing.
pub(super) async fn source(engine: &Engine, named: Option<&str>) -> Result<Source> {
    let own = own(&fs::read_to_string("/etc/os-release").unwrap_or_default());
    let name = named.unwrap_or(&own.tag);
    if let Some(image) = find(engine, name).await? {
        return Ok(Source::Present(image));
    }
    if let Some(name) = named {
        return match is_local(name) {
            true => Err(absent(engine, name).await),
            false => Ok(Source::Pull(name.to_owned())),
        };
    }
    let obstacle = match own.debootstraps {
        true => build::obstacle().await,
        false => Some("this machine is neither Debian nor Ubuntu"),
    };
    let Some(obstacle) = obstacle else {
        return Ok(Source::Build(own.tag));
    };
    Ok(Source::Convert(Conversion {
        present: find(engine, &own.base).await?.is_some(),
        tag: own.tag,
        base: own.base,
        obstacle,
    }))
}

/// Gets the image, whatever it takes.
pub(super) async fn ensure(engine: &Engine, named: Option<&str>, events: &Events) -> Result<Image> {
    let name = match source(engine, named).await? {
        Source::Present(image) => return Ok(image),
        Source::Pull(name) => {
            pull(engine, &name, PULL_STALLED, events)
                .await
                .map_err(|error| {
                    error
                        .hint("leave provider.image out, and pgherd makes an image on this machine")
                })?;
            name
        }
        Source::Build(tag) => {
            build::build(engine, &tag, events).await?;
            tag
        }
        Source::Convert(way) => {
            if !way.present {
                pull(engine, &way.base, PULL_STALLED, events).await.map_err(|error| {
                    error
                        .cause(format!("it was to become a host, as {}", way.obstacle))
                        .hint("let pgherd make hosts without a registry, on Debian or Ubuntu: sudo apt-get install debootstrap; then run it as root, or `sudo -v` first")
                        .hint("or name an image that the engine has: provider.image")
                })?;
            }
            convert::convert(engine, &way.tag, &way.base, events).await?;
            way.tag
        }
    };
    find(engine, &name).await?.ok_or_else(|| {
        Error::new(
            Code::ImageUnavailable,
            format!("the image {name} is not in the engine, although it was just made"),
        )
        .hint("see `docker images`; something else may be removing images")
    })
}

async fn find(engine: &Engine, name: &str) -> Result<Option<Image>> {
    let inspected = engine::lookup(
        &format!("look for the image {name}"),
        engine.api().inspect_image(name),
    )
    .await?;
    Ok(inspected.map(|inspected| Image {
        reference: name.to_owned(),
        has_command: has_command(&inspected),
    }))
}

fn has_command(image: &ImageInspect) -> bool {
    let Some(config) = &image.config else {
        return false;
    };
    let given = |words: &Option<Vec<String>>| words.as_ref().is_some_and(|words| !words.is_empty());
    given(&config.entrypoint) || given(&config.cmd)
}

/// The image that this machine makes for itself.
#[derive(Debug, PartialEq, Eq)]
struct Own {
    /// The script's own `--tag` prints the same.
    tag: String,
    /// The image that its distribution publishes for the same release.
    base: String,
    /// The script can make it from the machine's own package sources.
    debootstraps: bool,
}

fn own(os_release: &str) -> Own {
    let value = |key: &str| {
        os_release.lines().find_map(|line| {
            let value = line.strip_prefix(key)?.strip_prefix('=')?;
            Some(value.trim_matches(['"', '\'']).to_owned())
        })
    };
    match (value("ID"), value("VERSION_CODENAME")) {
        (Some(id), Some(codename)) if id == "debian" || id == "ubuntu" => Own {
            tag: tag(&codename),
            base: format!("{id}:{}", value("VERSION_ID").unwrap_or(codename)),
            debootstraps: true,
        },
        // The release with the tutorial's version of PostgreSQL.
        _ => Own {
            tag: tag("noble"),
            base: "ubuntu:24.04".into(),
            debootstraps: false,
        },
    }
}

fn tag(codename: &str) -> String {
    let digest = Sha256::digest(build::SCRIPT.as_bytes());
    let hex: String = digest
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{REPOSITORY}:{codename}-{hex}")
}

/// The system in the image that this machine makes for itself; `None` if that would be Ubuntu 24.04 because it
/// has no own one.
pub(super) fn own_system() -> Option<Os> {
    let here = Os::here();
    matches!(here.id.as_str(), "debian" | "ubuntu").then_some(here)
}

/// An image by its name and id: the name alone may later belong to another image.
pub(super) async fn pinned(engine: &Engine, name: &str) -> Result<String> {
    Ok(match id(engine, name).await? {
        Some(id) if !name.starts_with("sha256:") => format!("{name} ({id})"),
        _ => name.to_owned(),
    })
}

/// The image that has replaced one that [`pinned`] has named; `None` if it is unchanged, or has gone.
pub(super) async fn superseded(engine: &Engine, base: &str) -> Result<Option<String>> {
    let Some((name, was)) = base.split_once(" (") else {
        return Ok(None);
    };
    let own = own(&fs::read_to_string("/etc/os-release").unwrap_or_default()).tag;
    let release = |tag: &str| tag.rsplit_once('-').map(|(release, _)| release.to_owned());
    // An image that this machine makes has its script's digest in its name.
    if name != own && name.starts_with(REPOSITORY) && release(name) == release(&own) {
        return Ok(Some(own));
    }
    let now = id(engine, name).await?;
    Ok(now
        .filter(|now| was.trim_end_matches(')') != now)
        .map(|now| format!("{name} ({now})")))
}

async fn id(engine: &Engine, name: &str) -> Result<Option<String>> {
    let inspected = engine::lookup(
        &format!("look for the image {name}"),
        engine.api().inspect_image(name),
    )
    .await?;
    let id = inspected.and_then(|it| it.id).unwrap_or_default();
    let id = id.trim_start_matches("sha256:");
    Ok(id.get(..12).map(str::to_owned))
}

/// Whether no registry could have it.
fn is_local(name: &str) -> bool {
    let (first, rest) = name.split_once('/').unwrap_or(("", name));
    first == "localhost"
        || name.starts_with("sha256:")
        || (first.is_empty() && (rest == REPOSITORY || rest.starts_with("pgherd-host:")))
}

async fn absent(engine: &Engine, name: &str) -> Error {
    let error = Error::new(
        Code::ImageUnavailable,
        format!("the engine has no image {name}"),
    )
    .cause("the name is one that only this machine can give, so it is not pulled")
    .hint("leave provider.image out, and pgherd makes an image that fits");
    let images = engine::call(
        "list its images",
        engine.api().list_images(None::<ListImagesOptions>),
    )
    .await
    .unwrap_or_default();
    let mut tags: Vec<String> = images
        .into_iter()
        .flat_map(|image| image.repo_tags)
        .filter(|tag| is_local(tag))
        .collect();
    tags.sort();
    match tags.is_empty() {
        true => error,
        false => error.hint(format!("it has {}", tags.join(", "))),
    }
}

async fn pull(engine: &Engine, name: &str, stalled: Duration, events: &Events) -> Result<()> {
    // Without a tag, the engine would fetch every tag.
    let last = name.rsplit('/').next().unwrap_or(name);
    let full = match last.contains([':', '@']) {
        true => name.to_owned(),
        false => format!("{name}:latest"),
    };
    let failed = |cause: String| {
        Error::new(
            Code::ImageUnavailable,
            format!("the image {name} could not be pulled"),
        )
        .cause(cause)
        .left("nothing was made")
        .hint(format!(
            "see whether `docker pull {full}` can; a registry may want a login first"
        ))
    };
    let client = engine.streaming(PULL_TIMEOUT);
    let options = CreateImageOptionsBuilder::default()
        .from_image(&full)
        .build();
    let mut progress = client.create_image(Some(options), None, None);
    let whole = async {
        let mut said = String::new();
        loop {
            match tokio::time::timeout(stalled, progress.next()).await {
                Err(_) => {
                    let seconds = stalled.as_secs();
                    return Err(failed(format!("nothing came for {seconds} s")));
                }
                Ok(None) => return Ok(()),
                Ok(Some(Err(error))) => return Err(failed(engine::message(&error))),
                Ok(Some(Ok(info))) => {
                    let layer = info.id.map(|id| format!("{id}: ")).unwrap_or_default();
                    let line = format!("{layer}{}", info.status.unwrap_or_default());
                    // One line for each state of a layer, not for each of its bytes.
                    if line != said {
                        said.clone_from(&line);
                        events.emit(Event::Image {
                            image: name.to_owned(),
                            line,
                        });
                    }
                }
            }
        }
    };
    tokio::time::timeout(PULL_TIMEOUT, whole)
        .await
        .unwrap_or_else(|_| {
            let minutes = PULL_TIMEOUT.as_secs() / 60;
            Err(failed(format!(
                "it was not complete after {minutes} minutes"
            )))
        })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn the_tag_is_the_scripts_own() {
        let script = std::process::Command::new("bash")
            .args(["scripts/host-image", "--tag", "--suite", "bookworm"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let own =
            own("PRETTY_NAME=\"x\"\nVERSION_ID=\"12\"\nID=debian\nVERSION_CODENAME=bookworm\n");
        // The script answers only on Debian and Ubuntu.
        if script.status.success() {
            assert_eq!(String::from_utf8(script.stdout).unwrap().trim(), own.tag);
        }
        assert!(own.tag.starts_with("pgherd-host:bookworm-"), "{own:?}");
        assert_eq!(own.tag.len(), "pgherd-host:bookworm-".len() + 12);
        assert_eq!(own.base, "debian:12");
        assert!(own.debootstraps);
    }

    #[test]
    fn other_systems_need_a_distributions_image() {
        let own = own("ID=fedora\nVERSION_ID=42\n");
        assert_eq!(own.base, "ubuntu:24.04");
        assert!(own.tag.starts_with("pgherd-host:noble-"));
        assert!(!own.debootstraps);
    }

    #[test]
    fn names_that_only_this_machine_gives_are_never_pulled() {
        for name in [
            "pgherd-host:x",
            "pgherd-host",
            "localhost/my:1",
            "sha256:0123",
        ] {
            assert!(is_local(name), "{name}");
        }
        for name in ["debian:12", "example/pgherd-host:1", "pgherd-hosts:1"] {
            assert!(!is_local(name), "{name}");
        }
    }

    /// An engine that answers every pull with `body`, and then with silence.
    async fn engine_pulling(folder: &std::path::Path, body: &'static str) -> Engine {
        let socket = folder.join("docker.sock");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                let answer = match request.contains("/images/create") {
                    true => format!("transfer-encoding: chunked\r\n\r\n{body}"),
                    false => {
                        let version = r#"{"ApiVersion":"1.41"}"#;
                        format!("content-length: {}\r\n\r\n{version}", version.len())
                    }
                };
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
                stream
                    .write_all(format!("{head}{answer}").as_bytes())
                    .await
                    .unwrap();
                open.push(stream);
            }
        });
        Engine::at(&format!("unix://{}", socket.display()))
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_pull_that_stalls_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let engine =
            engine_pulling(folder.path(), "1a\r\n{\"status\":\"Downloading\"}\r\n\r\n").await;
        let (events, mut seen) = Events::channel();
        let error = pull(&engine, "debian:12", Duration::from_millis(300), &events)
            .await
            .unwrap_err();
        assert!(error.causes()[0].contains("nothing came"), "{error}");
        let event = seen.recv().await.unwrap().event;
        assert!(matches!(event, Event::Image { line, .. } if line == "Downloading"));
    }

    #[tokio::test]
    async fn a_pull_that_is_refused_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let body =
            "33\r\n{\"errorDetail\":{\"message\":\"denied\"},\"error\":\"no\"}\r\n\r\n0\r\n\r\n";
        let engine = engine_pulling(folder.path(), body).await;
        let (events, _seen) = Events::channel();
        let error = pull(&engine, "example/x", Duration::from_secs(5), &events)
            .await
            .unwrap_err();
        assert_eq!(error.causes(), ["denied"]);
        assert!(error.hints()[0].contains("docker pull example/x:latest"));
    }
}
