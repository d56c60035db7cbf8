//! Prepared images in the engine: a host's container, stopped and committed.

use std::collections::HashMap;

use bollard::{
    models::{ContainerConfig, ContainerSummary, ImageSummary},
    query_parameters::{
        CommitContainerOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptionsBuilder,
        StopContainerOptionsBuilder,
    },
};

use super::{
    DockerProvider, build, container,
    engine::{self, Engine},
    image,
};
use crate::{
    error::{Code, Error, Result},
    event::{Event, Events, HostState},
    facts::Os,
    prepared::{Choice, Contents, DIGEST, Prepared, Recipe, Size, newest},
    provider::{CLUSTER_LABEL, HOST_LABEL, ID_LABEL, Machine},
};

const IMAGE: &str = "image";

impl DockerProvider {
    /// What hosts from an image that pgherd makes on this machine must hold.
    pub(super) fn recipe(&self) -> Recipe {
        let os = match image::own_system() {
            Some(os) => os,
            None => Os::ubuntu_24_04(),
        };
        let os = Os {
            arch: std::env::consts::ARCH.to_owned(),
            ..os
        };
        Recipe::of(&self.inventory, &os, &self.requirements)
    }

    /// The image for new hosts, if the inventory asks for a prepared image.
    pub(super) async fn choice(&self, engine: &Engine) -> Result<Option<Choice>> {
        if !self.settings.is_prepared() {
            return Ok(None);
        }
        let recipe = self.recipe();
        let images = list(engine).await?;
        Ok(Some(match newest(&images, &recipe) {
            Some(image) => Choice::Found(image.clone()),
            None => Choice::Missing(recipe),
        }))
    }

    /// The name of the image for new hosts; `None` for the one that is made on this machine.
    pub(super) fn image_of(&self, choice: Option<&Choice>) -> Option<String> {
        match choice {
            Some(Choice::Found(image)) => Some(image.id.clone()),
            Some(Choice::Missing(_)) => None,
            None => self.settings.image.clone(),
        }
    }
}

/// The engine's prepared images, the newest first.
pub(super) async fn list(engine: &Engine) -> Result<Vec<Prepared>> {
    let options = ListImagesOptionsBuilder::default()
        .filters(&HashMap::from([("label", vec![DIGEST.to_owned()])]))
        .build();
    let (found, containers) = tokio::try_join!(
        engine::call("list its images", engine.api().list_images(Some(options))),
        container::list(engine, None),
    )?;
    let mut images = Vec::new();
    for summary in &found {
        let Some(mut image) = read(summary) else {
            continue;
        };
        image.used_by = users(&containers, &summary.id);
        image.superseded_by = image::superseded(engine, &image.base).await?;
        images.push(image);
    }
    images.sort_by(|a, b| (b.made, &b.id).cmp(&(a.made, &a.id)));
    Ok(images)
}

fn read(summary: &ImageSummary) -> Option<Prepared> {
    let id = summary.id.trim_start_matches("sha256:");
    let short = id.get(..12).unwrap_or(id);
    let name = summary.repo_tags.first().map_or("", String::as_str);
    let bytes = u64::try_from(summary.size).unwrap_or_default();
    Prepared::read(short, name, Size::Bytes(bytes), |key| {
        summary.labels.get(key).map(String::as_str)
    })
}

/// The containers, running or not, that were created from an image.
fn users(containers: &[ContainerSummary], image: &str) -> Vec<String> {
    let of_it = containers
        .iter()
        .filter(|container| container.image_id.as_deref() == Some(image));
    let mut users: Vec<String> = of_it
        .map(|container| container::listed_name(container).to_owned())
        .collect();
    users.sort();
    users
}

/// Makes an image of a host. The host is stopped at once, because what a clean shutdown writes must not be in
/// the image.
pub(super) async fn capture(
    engine: &Engine,
    machine: &Machine,
    contents: &Contents,
    events: &Events,
) -> Result<Prepared> {
    let inspected = container::describe(engine, &machine.id).await?;
    let base = inspected.config.and_then(|config| config.image);
    let base = image::pinned(engine, &base.unwrap_or_default()).await?;
    let name = contents.name();
    let emit = |state, id: &str| {
        events.emit(Event::Resource {
            kind: IMAGE.to_owned(),
            id: id.to_owned(),
            name: name.clone(),
            state,
        });
    };
    emit(HostState::Creating, "");
    let options = StopContainerOptionsBuilder::default().t(0).build();
    engine::call(
        "stop a container",
        engine.api().stop_container(&machine.id, Some(options)),
    )
    .await?;
    let mut labels: HashMap<String, String> = contents
        .labels(&base)
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
    // The container's own labels, which are one cluster's, would be kept unless they are set.
    for of_a_host in [
        CLUSTER_LABEL,
        HOST_LABEL,
        ID_LABEL,
        container::HOST_KEY_LABEL,
    ] {
        labels.insert(of_a_host.to_owned(), String::new());
    }
    let options = CommitContainerOptionsBuilder::default()
        .container(&machine.id)
        .repo(image::REPOSITORY)
        .tag(&name)
        .build();
    let config = ContainerConfig {
        labels: Some(labels),
        hostname: Some(String::new()),
        ..Default::default()
    };
    let client = engine.streaming(build::BUILD_TIMEOUT);
    client
        .commit_container(options, config)
        .await
        .map_err(|error| engine::could_not(&format!("make the image {name}"), &error))?;
    let images = list(engine).await?;
    let full = format!("{}:{name}", image::REPOSITORY);
    let image = images.into_iter().find(|image| image.name == full);
    let image = image.ok_or_else(|| {
        Error::new(
            Code::ImageUnavailable,
            format!("the image {full} is not in the engine, although it was just made"),
        )
        .hint("see `docker images`; something else may be removing images")
    })?;
    emit(HostState::Created, &image.id);
    Ok(image)
}

/// Removes an image with all of its names.
pub(super) async fn discard(engine: &Engine, image: &Prepared, events: &Events) -> Result<()> {
    let emit = |state| {
        events.emit(Event::Resource {
            kind: IMAGE.to_owned(),
            id: image.id.clone(),
            name: image.name.clone(),
            state,
        });
    };
    emit(HostState::Removing);
    let options = RemoveImageOptionsBuilder::default().force(true).build();
    engine::lookup(
        &format!("remove the image {}", image.name),
        engine.api().remove_image(&image.id, Some(options), None),
    )
    .await?;
    emit(HostState::Removed);
    Ok(())
}
