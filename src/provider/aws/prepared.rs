//! Prepared images in the account: an AMI of a stopped instance, with the snapshot of its encrypted volume.

use std::{collections::BTreeMap, time::Duration};

use aws_sdk_ec2::{
    Client,
    types::{self, ImageState, ResourceType, Tag},
};

use super::{
    AwsProvider,
    account::Account,
    failure::{Doing, Failure, insist},
    faults,
    image::{self, Image},
    instance::{self, ALIVE, IMAGE, filter, tag},
    survey,
};
use crate::{
    error::{Code, Error, Result},
    event::{Event, Events, HostState},
    facts::Os,
    inventory::Aws,
    poll::{self, Pauses},
    prepared::{Choice, Contents, DIGEST, Prepared, Recipe, Size, newest},
    provider::{CLUSTER_LABEL, HOST_LABEL, Machine},
};

const KIND: &str = "image";
/// How long EC2 may take to copy a volume into its snapshot; 10 GiB take some minutes.
const COPY: Duration = Duration::from_secs(45 * 60);
/// How long EC2 may keep the snapshot of a removed image in use.
const RELEASE: Duration = Duration::from_secs(120);

impl AwsProvider {
    /// What instances of an architecture must hold; the base image is Ubuntu's.
    fn recipe(&self, architecture: &str) -> Recipe {
        let arch = match architecture {
            "arm64" => "aarch64",
            other => other,
        };
        let os = Os {
            arch: arch.to_owned(),
            ..Os::ubuntu_24_04()
        };
        Recipe::of(&self.inventory, &os, &self.requirements)
    }

    /// The image for hosts of this architecture, and whether it is a prepared one, if the inventory asks for
    /// that.
    pub(super) async fn image_for(
        &self,
        account: &Account,
        architecture: &str,
        found: &[instance::Found],
    ) -> Result<(Image, Option<Choice>)> {
        if !self.settings.is_prepared() {
            let word = &self.settings.image;
            let image = image::resolve(account, word, architecture, found).await?;
            return Ok((image, None));
        }
        let recipe = self.recipe(architecture);
        let images = list(account).await?;
        if let Some(prepared) = newest(&images, &recipe)
            && let Some(image) = image::by_id(&account.ec2, &prepared.id).await?
        {
            return Ok((image, Some(Choice::Found(prepared.clone()))));
        }
        let image = image::resolve(account, Aws::BASE, architecture, &[]).await?;
        Ok((image, Some(Choice::Missing(recipe))))
    }

    pub(super) async fn all_recipes(&self, account: &Account) -> Result<Vec<Recipe>> {
        let hosts = self.settings.hosts.values();
        let types = hosts.map(|host| host.instance_type.as_str()).collect();
        let kinds = survey::kinds(&account.ec2, &types).await?;
        let mut architectures: Vec<&str> = kinds
            .values()
            .map(|kind| kind.architecture.as_str())
            .collect();
        architectures.sort_unstable();
        architectures.dedup();
        Ok(architectures
            .into_iter()
            .map(|architecture| self.recipe(architecture))
            .collect())
    }
}

/// The account's prepared images, the newest first, and snapshots whose image is gone.
pub(super) async fn list(account: &Account) -> Result<Vec<Prepared>> {
    let ec2 = &account.ec2;
    let (found, snapshots) = tokio::try_join!(all(ec2), snapshots(ec2))?;
    let mut images: Vec<Prepared> = found.iter().filter_map(read).collect();
    let mut current = BTreeMap::new();
    for image in &mut images {
        image.superseded_by = superseded(account, image, &mut current).await;
    }
    // While an image is being made, its snapshots belong to it before it lists them.
    if images.iter().all(|image| image.unfit.is_none()) {
        let used: Vec<&str> = found.iter().flat_map(snapshots_of).collect();
        images.extend(snapshots.iter().filter_map(|snapshot| {
            let id = snapshot.snapshot_id()?;
            (!used.contains(&id)).then(|| left_over(id, snapshot))?
        }));
    }
    let users = users(ec2, &images).await?;
    for image in &mut images {
        image.used_by = users.get(&image.id).cloned().unwrap_or_default();
    }
    images.sort_by(|a, b| (b.made, &b.id).cmp(&(a.made, &a.id)));
    Ok(images)
}

async fn all(ec2: &Client) -> Result<Vec<types::Image>, Failure> {
    ec2.describe_images()
        .owners("self")
        .filters(filter("tag-key", [DIGEST]))
        .into_paginator()
        .items()
        .send()
        .collect::<Result<Vec<_>, _>>()
        .await
        .doing("list the account's prepared images")
}

async fn snapshots(ec2: &Client) -> Result<Vec<types::Snapshot>, Failure> {
    ec2.describe_snapshots()
        .owner_ids("self")
        .filters(filter("tag-key", [DIGEST]))
        .into_paginator()
        .items()
        .send()
        .collect::<Result<Vec<_>, _>>()
        .await
        .doing("list the snapshots of prepared images")
}

fn read(image: &types::Image) -> Option<Prepared> {
    let volumes = image.block_device_mappings().iter();
    let gib: i32 = volumes
        .filter_map(|it| it.ebs()?.volume_size())
        .fold(0, i32::saturating_add);
    let size = Size::Snapshot(u32::try_from(gib).unwrap_or_default());
    let name = image.name().unwrap_or_default();
    let mut read = Prepared::read(image.image_id()?, name, size, |key| tag(image.tags(), key))?;
    read.unfit = match image.state() {
        Some(ImageState::Available) | None => None,
        Some(state) => Some(state.as_str().to_owned()),
    };
    Some(read)
}

fn left_over(id: &str, snapshot: &types::Snapshot) -> Option<Prepared> {
    let gib = u32::try_from(snapshot.volume_size().unwrap_or_default()).unwrap_or_default();
    let mut read = Prepared::read(id, id, Size::Snapshot(gib), |key| tag(snapshot.tags(), key))?;
    read.unfit = Some("left over: its image is gone".to_owned());
    Some(read)
}

fn snapshots_of(image: &types::Image) -> impl Iterator<Item = &str> {
    let volumes = image.block_device_mappings().iter();
    volumes.filter_map(|it| it.ebs()?.snapshot_id())
}

/// The existing instances that were created from each image, by the image's id.
async fn users(
    ec2: &Client,
    images: &[Prepared],
) -> Result<BTreeMap<String, Vec<String>>, Failure> {
    let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let ids = images.iter().map(|image| image.id.as_str());
    let ids: Vec<&str> = ids.filter(|id| id.starts_with("ami-")).collect();
    if ids.is_empty() {
        return Ok(users);
    }
    let filters = vec![filter("image-id", ids), instance::in_states(&ALIVE)];
    let doing = "see which instances were made from prepared images";
    let found = instance::list(ec2, filters, doing).await?;
    for it in &found {
        let id = it.instance_id().unwrap_or_default();
        let name = match (tag(it.tags(), CLUSTER_LABEL), tag(it.tags(), HOST_LABEL)) {
            (Some(cluster), Some(host)) => format!("{cluster}-{host} ({id})"),
            _ => id.to_owned(),
        };
        let image = it.image_id().unwrap_or_default().to_owned();
        users.entry(image).or_default().push(name);
    }
    Ok(users)
}

/// The image that its base's word means now, if that is another one; `None` if it cannot be found out.
async fn superseded(
    account: &Account,
    image: &Prepared,
    current: &mut BTreeMap<(String, String), Option<String>>,
) -> Option<String> {
    let (word, was) = image.base.split_once(" (")?;
    let architecture = match image.architecture.as_str() {
        "aarch64" => "arm64",
        other => other,
    };
    let key = (word.to_owned(), architecture.to_owned());
    if !current.contains_key(&key) {
        let now = image::resolve(account, word, architecture, &[]).await;
        current.insert(key.clone(), now.ok().map(|image| image.id));
    }
    let now = current.get(&key)?.as_ref()?;
    (was.trim_end_matches(')') != now).then(|| format!("{word} ({now})"))
}

/// Makes an image of an instance. The instance is shut down first, so that everything that it has written is in
/// the image.
pub(super) async fn capture(
    account: &Account,
    machine: &Machine,
    contents: &Contents,
    own: &BTreeMap<String, String>,
    events: &Events,
) -> Result<Prepared> {
    let ec2 = &account.ec2;
    let base = base(ec2, &machine.id).await?;
    let name = format!("pgherd-{}", contents.name());
    let emit = |state, id: &str| {
        events.emit(Event::Resource {
            kind: KIND.to_owned(),
            id: id.to_owned(),
            name: name.clone(),
            state,
        });
    };
    emit(HostState::Creating, "");
    faults::stop(ec2, machine).await?;
    let mut tags: Vec<Tag> = Vec::new();
    let own = own.iter().map(|(key, value)| (key.as_str(), value.clone()));
    let all: BTreeMap<&str, String> = own.chain(contents.labels(&base)).collect();
    for (key, value) in all {
        tags.push(Tag::builder().key(key).value(value).build());
    }
    let tagged = |kind| {
        types::TagSpecification::builder()
            .resource_type(kind)
            .set_tags(Some(tags.clone()))
            .build()
    };
    let made = ec2
        .create_image()
        .instance_id(&machine.id)
        .name(&name)
        .description("packages and Patroni for hosts of pgherd's clusters")
        .tag_specifications(tagged(ResourceType::Image))
        .tag_specifications(tagged(ResourceType::Snapshot))
        .send()
        .await
        .doing("make an image (ec2:CreateImage, ec2:CreateTags)")?;
    let id = made.image_id().unwrap_or_default().to_owned();
    await_copy(ec2, &id).await?;
    emit(HostState::Created, &id);
    let images = list(account).await?;
    images
        .into_iter()
        .find(|image| image.id == id)
        .ok_or_else(|| {
            Error::new(
                Code::ImageUnavailable,
                format!("the image {id} is not among the account's, although it was just made"),
            )
        })
}

/// What an instance was created from: the inventory's word for the image, and its id.
async fn base(ec2: &Client, id: &str) -> Result<String> {
    let answer = ec2
        .describe_instances()
        .instance_ids(id)
        .send()
        .await
        .doing("look at the host's image")?;
    let instance = answer
        .reservations()
        .iter()
        .find_map(|it| it.instances().first());
    let image = instance.and_then(|it| it.image_id()).unwrap_or_default();
    let word = instance.and_then(|it| tag(it.tags(), IMAGE));
    Ok(match word {
        Some(word) if word != image => format!("{word} ({image})"),
        _ => image.to_owned(),
    })
}

/// Waits until EC2 has copied the volume.
async fn await_copy(ec2: &Client, id: &str) -> Result<()> {
    let pauses = Pauses::growing(Duration::from_millis(500), Duration::from_secs(5));
    let ready = poll::until_found(COPY, pauses, || async {
        // A new image may not be listed yet.
        let answer = insist(&["InvalidAMIID.NotFound"], super::SETTLING, || async {
            let call = ec2.describe_images().image_ids(id).send().await;
            call.doing(format!("watch the image {id} come about"))
        })
        .await?;
        let image = answer.images().first();
        match image.and_then(types::Image::state) {
            Some(ImageState::Available) => Ok(Some(())),
            Some(ImageState::Pending) | None => Ok(None),
            Some(state) => {
                let reason = image.and_then(|it| it.state_reason()?.message());
                Err(Error::new(
                    Code::ImageUnavailable,
                    format!(
                        "EC2 could not make the image {id}: it is {}",
                        state.as_str()
                    ),
                )
                .cause(reason.unwrap_or("EC2 does not say why"))
                .hint(format!("remove it: pgherd image remove {id}")))
            }
        }
    });
    ready.await?.ok_or_else(|| {
        Error::new(
            Code::ImageUnavailable,
            format!(
                "the image {id} did not come about within {} minutes",
                COPY.as_secs() / 60
            ),
        )
        .left("EC2 may still complete it")
        .hint("see whether it has: pgherd image list")
    })
}

/// Removes an image, then its snapshots; or a snapshot that an earlier removal left.
pub(super) async fn discard(ec2: &Client, image: &Prepared, events: &Events) -> Result<()> {
    let emit = |state| {
        events.emit(Event::Resource {
            kind: KIND.to_owned(),
            id: image.id.clone(),
            name: image.name.clone(),
            state,
        });
    };
    emit(HostState::Removing);
    let mut ids = vec![image.id.clone()];
    if image.id.starts_with("ami-") {
        let found = all(ec2).await?;
        let found = found.iter().find(|it| it.image_id() == Some(&image.id));
        ids = found
            .into_iter()
            .flat_map(snapshots_of)
            .map(str::to_owned)
            .collect();
        let gone = ec2.deregister_image().image_id(&image.id).send().await;
        match gone.doing(format!("remove the image {}", image.id)) {
            Err(failure) if !failure.is(&["InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"]) => {
                return Err(failure.into());
            }
            _ => {}
        }
    }
    for id in &ids {
        let deleted = insist(&["InvalidSnapshot.InUse"], RELEASE, || async {
            let call = ec2.delete_snapshot().snapshot_id(id).send().await;
            call.doing(format!("delete the snapshot {id}"))
        })
        .await;
        match deleted {
            Err(failure) if !failure.is(&["InvalidSnapshot.NotFound"]) => {
                return Err(Error::from(failure)
                    .left(format!("the snapshot {id} is there, and paid for"))
                    .hint(format!("remove it: pgherd image remove {id}")));
            }
            _ => {}
        }
    }
    emit(HostState::Removed);
    Ok(())
}
