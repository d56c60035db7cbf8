//! The image that hosts are made from: the user's own, or one built here from the embedded script.

use std::{fs, time::Duration};

use bollard::models::ImageInspect;
use bollard::query_parameters::{CreateImageOptionsBuilder, ListImagesOptions};
use futures_util::StreamExt;
use sha2::{Digest, Sha256};

use super::{
    build,
    engine::{self, Engine},
};
use crate::{
    error::{Error, Result},
    event::{Event, Events},
};

/// Makes a host's root filesystem; also a file of its own, for people and for scripts/quickstart.
pub(super) const SCRIPT: &str = include_str!("../../../scripts/host-image");
/// Images of this name are made here; no registry has them.
const REPOSITORY: &str = "pgherd-host";
/// A pull that says nothing new for so long has come to a halt.
const PULL_STALLED: Duration = Duration::from_secs(60);
const PULL_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// An image that the engine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) reference: String,
    /// It says itself what to run; one that was imported from a bare tar stream does not.
    pub(super) has_command: bool,
}

/// Where the image comes from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    Present(Image),
    /// The user named it and the engine does not have it.
    Pull(String),
    /// The embedded script makes it.
    Build(String),
}

impl Source {
    /// What `plan` says of it; `None` for what is there.
    pub(super) fn line(&self) -> Option<String> {
        match self {
            Source::Present(_) => None,
            Source::Pull(name) => Some(format!("image {name}, pulled from its registry")),
            Source::Build(name) => Some(format!("image {name}, built here by debootstrap")),
        }
    }
}

/// Finds the image, or what must be done to have it. Changes nothing.
pub(super) async fn source(engine: &Engine, named: Option<&str>) -> Result<Source> {
    let name = match named {
        Some(name) => name.to_owned(),
        None => tag(&fs::read_to_string("/etc/os-release").unwrap_or_default())?,
    };
    let inspected = engine::lookup(
        &format!("look for the image {name}"),
        engine.api().inspect_image(&name),
    )
    .await?;
    match (inspected, named) {
        (Some(inspected), _) => Ok(Source::Present(Image {
            reference: name,
            has_command: has_command(&inspected),
        })),
        (None, Some(_)) if is_local(&name) => Err(absent(engine, &name).await),
        (None, Some(_)) => Ok(Source::Pull(name)),
        (None, None) => {
            build::check().await?;
            Ok(Source::Build(name))
        }
    }
}

/// Has the image, whatever it takes.
pub(super) async fn ensure(engine: &Engine, named: Option<&str>, events: &Events) -> Result<Image> {
    match source(engine, named).await? {
        Source::Present(image) => return Ok(image),
        Source::Pull(name) => pull(engine, &name, events).await?,
        Source::Build(name) => build::build(engine, &name, events).await?,
    }
    match source(engine, named).await? {
        Source::Present(image) => Ok(image),
        Source::Pull(name) | Source::Build(name) => Err(Error::failed(format!(
            "the image {name} is not in the engine, although it was just made"
        ))
        .hint("see `docker images`; something else may be removing images")),
    }
}

fn has_command(image: &ImageInspect) -> bool {
    let Some(config) = &image.config else {
        return false;
    };
    let given = |words: &Option<Vec<String>>| words.as_ref().is_some_and(|words| !words.is_empty());
    given(&config.entrypoint) || given(&config.cmd)
}

/// The name of the image that the embedded script makes on a machine with this `/etc/os-release`;
/// the script's own `--tag` prints the same.
fn tag(os_release: &str) -> Result<String> {
    let value = |key: &str| {
        os_release.lines().find_map(|line| {
            let value = line.strip_prefix(key)?.strip_prefix('=')?;
            Some(value.trim_matches(['"', '\'']).to_owned())
        })
    };
    let id = value("ID").unwrap_or_else(|| "an unknown system".into());
    match (id.as_str(), value("VERSION_CODENAME")) {
        ("debian" | "ubuntu", Some(codename)) => {
            let digest = Sha256::digest(SCRIPT.as_bytes());
            let hex: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
            Ok(format!("{REPOSITORY}:{codename}-{hex}"))
        }
        _ => Err(Error::failed(format!(
            "pgherd makes host images on Debian and Ubuntu, and this machine runs {id}"
        ))
        .hint("make one on such a machine with scripts/host-image, `docker load` it here, and name it: provider.image")),
    }
}

/// Whether no registry could have it.
fn is_local(name: &str) -> bool {
    let (first, rest) = name.split_once('/').unwrap_or(("", name));
    first == "localhost"
        || name.starts_with("sha256:")
        || (first.is_empty() && (rest == REPOSITORY || rest.starts_with("pgherd-host:")))
}

async fn absent(engine: &Engine, name: &str) -> Error {
    let error = Error::failed(format!("the engine has no image {name}"))
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

async fn pull(engine: &Engine, name: &str, events: &Events) -> Result<()> {
    // Without a tag, the engine would fetch every tag that there is.
    let last = name.rsplit('/').next().unwrap_or(name);
    let full = match last.contains([':', '@']) {
        true => name.to_owned(),
        false => format!("{name}:latest"),
    };
    let failed = |cause: String| {
        Error::failed(format!("the image {name} could not be pulled"))
            .cause(cause)
            .left("nothing was made")
            .hint(format!(
                "see whether `docker pull {full}` can; a registry may want a login first"
            ))
            .hint("leave provider.image out, and pgherd makes an image on this machine")
    };
    let client = engine.streaming(PULL_STALLED);
    let options = CreateImageOptionsBuilder::default()
        .from_image(&full)
        .build();
    let mut progress = client.create_image(Some(options), None, None);
    let whole = async {
        let mut said = String::new();
        loop {
            match tokio::time::timeout(PULL_STALLED, progress.next()).await {
                Err(_) => {
                    let seconds = PULL_STALLED.as_secs();
                    return Err(failed(format!("nothing came for {seconds} s")));
                }
                Ok(None) => return Ok(()),
                Ok(Some(Err(error))) => return Err(failed(engine::message(&error))),
                Ok(Some(Ok(info))) => {
                    let layer = info.id.map(|id| format!("{id}: ")).unwrap_or_default();
                    let line = format!("{layer}{}", info.status.unwrap_or_default());
                    // A line for each state of a layer, not for each of its bytes.
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
    use super::*;

    #[test]
    fn the_tag_is_the_scripts_own() {
        let own = std::process::Command::new("bash")
            .args(["scripts/host-image", "--tag", "--suite", "bookworm"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let tag = tag("PRETTY_NAME=\"x\"\nID=debian\nVERSION_CODENAME=bookworm\n").unwrap();
        // The script answers on Debian and Ubuntu only.
        if own.status.success() {
            assert_eq!(String::from_utf8(own.stdout).unwrap().trim(), tag);
        }
        assert!(tag.starts_with("pgherd-host:bookworm-"), "{tag}");
        assert_eq!(tag.len(), "pgherd-host:bookworm-".len() + 12);
    }

    #[test]
    fn other_systems_are_told_what_to_do() {
        let error = tag("ID=fedora\nVERSION_ID=42\n").unwrap_err();
        assert!(error.what().contains("fedora"));
        assert!(error.hints()[0].contains("provider.image"));
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
}
