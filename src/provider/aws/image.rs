//! Chooses the image of hosts.

use aws_sdk_ec2::{Client, types};

use super::{
    account::Account,
    failure::{Doing, Failure},
    instance::{Found, filter},
};
use crate::error::{Code, Error, Result};

/// Canonical's account, which publishes Ubuntu's images in every commercial region.
const CANONICAL: &str = "099720109477";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) id: String,
    pub(super) name: String,
    /// The device of its root volume.
    pub(super) root: String,
    /// GiB; a root volume cannot be smaller.
    pub(super) least_gb: u32,
}

/// The image that the inventory's `word` means for a host of this architecture.
///
/// A cluster keeps its image: if a living host was created from the same word, its image is used.
pub(super) async fn resolve(
    account: &Account,
    word: &str,
    architecture: &str,
    found: &[Found],
) -> Result<Image> {
    let ec2 = &account.ec2;
    if word.starts_with("ami-") {
        return by_id(ec2, word).await?.ok_or_else(|| unknown(word));
    }
    let pinned = found
        .iter()
        .find(|it| it.image.as_deref() == Some(word) && it.architecture == architecture);
    if let Some(pinned) = pinned
        // Publishers withdraw images at some time; then the newest is the nearest.
        && let Some(image) = by_id(ec2, &pinned.image_id).await?
    {
        return Ok(image);
    }
    let machine = match architecture {
        "arm64" => "arm64",
        _ => "amd64",
    };
    if let Some(id) = published(&account.ssm, word, machine).await
        && let Some(image) = by_id(ec2, &id).await?
    {
        return Ok(image);
    }
    newest(ec2, word, machine, architecture).await
}

/// The id that Canonical has published for a kind of image; `None` if it is not available.
///
/// The reason does not matter, be it a missing permission, a network without a way to SSM or a region without
/// the parameter: pgherd can also search for the image itself.
async fn published(ssm: &aws_sdk_ssm::Client, word: &str, machine: &str) -> Option<String> {
    let kind = match word {
        "ubuntu-24.04-minimal" => "server-minimal",
        _ => "server",
    };
    let name = format!(
        "/aws/service/canonical/ubuntu/{kind}/24.04/stable/current/{machine}/hvm/ebs-gp3/ami-id"
    );
    let answer = ssm.get_parameter().name(name).send().await.ok()?;
    answer.parameter?.value
}

fn unknown(id: &str) -> Error {
    Error::new(
        Code::ProviderSettingUnusable,
        format!("there is no image {id} that these credentials can see"),
    )
    .hint("the same image has another id in each region; see provider.region")
    .hint("`ubuntu-24.04` and `ubuntu-24.04-minimal` mean the right one in each region")
}

pub(super) async fn by_id(ec2: &Client, id: &str) -> Result<Option<Image>, Failure> {
    let answer = ec2
        .describe_images()
        .image_ids(id)
        .send()
        .await
        .doing(format!("look at the image {id}"));
    match answer {
        Ok(answer) => Ok(answer.images().iter().find_map(image)),
        Err(failure) if failure.is(&["InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"]) => {
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

/// The newest image of a kind in Canonical's account.
async fn newest(ec2: &Client, word: &str, machine: &str, architecture: &str) -> Result<Image> {
    // Canonical's names, older storage kinds included.
    let pattern = match word {
        "ubuntu-24.04-minimal" => {
            format!("ubuntu-minimal/images/hvm-ssd*/ubuntu-noble-24.04-{machine}-minimal-*")
        }
        _ => format!("ubuntu/images/hvm-ssd*/ubuntu-noble-24.04-{machine}-server-*"),
    };
    let answer = ec2
        .describe_images()
        .owners(CANONICAL)
        .filters(filter("name", [pattern.as_str()]))
        .filters(filter("architecture", [architecture]))
        .filters(filter("state", ["available"]))
        .send()
        .await
        .doing(format!("find the newest image {word}"))?;
    // An ISO time, which sorts as text.
    let newest = answer.images().iter().max_by_key(|it| it.creation_date());
    newest.and_then(image).ok_or_else(|| {
        Error::new(Code::ImageUnavailable, format!("no image {word} for {architecture} exists here"))
            .cause(format!("account {CANONICAL} shows none named {pattern}"))
            .hint("name an image of Ubuntu 24.04 by its id in provider.image; in some partitions, Canonical's account is another")
    })
}

fn image(image: &types::Image) -> Option<Image> {
    let root = image.root_device_name().unwrap_or("/dev/sda1");
    let volume = image
        .block_device_mappings()
        .iter()
        .find(|mapping| mapping.device_name() == Some(root))
        .and_then(|mapping| mapping.ebs()?.volume_size());
    Some(Image {
        id: image.image_id()?.to_owned(),
        name: image.name().unwrap_or_default().to_owned(),
        root: root.to_owned(),
        least_gb: volume.and_then(|gb| gb.try_into().ok()).unwrap_or(1),
    })
}
