//! The public key that new hosts accept.

use aws_sdk_ec2::{
    Client,
    primitives::{Blob, DateTime},
    types::{KeyPairInfo, ResourceType},
};

use super::{
    Tags,
    failure::{Doing, Failure, allowed},
    instance::{Found, filter, tag},
    late::{LATE, seen},
};
use crate::{
    error::{Code, Error, Result},
    provider::CLUSTER_LABEL,
};

/// The kinds of keys that EC2 imports
/// (<https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ImportKeyPair.html>).
const IMPORTABLE: [&str; 2] = ["ssh-ed25519", "ssh-rsa"];

/// Refuses a key that EC2 would refuse after groups were made.
pub(super) fn importable(public_key: &str) -> Result<()> {
    let kind = public_key
        .split_ascii_whitespace()
        .next()
        .unwrap_or_default();
    if IMPORTABLE.contains(&kind) {
        return Ok(());
    }
    Err(Error::new(
        Code::ProviderSettingUnusable,
        format!("EC2 cannot import the key of ssh.identity_file: it is of the kind {kind}"),
    )
    .cause("EC2 takes ED25519 and RSA keys")
    .left("nothing was made")
    .hint(
        "name such a key (ssh-keygen -t ed25519), or leave ssh.identity_file out: pgherd makes one",
    ))
}

pub(super) fn name(cluster: &str) -> String {
    format!("pgherd-{cluster}")
}

/// Its public key, if there is such a key pair, and whether it is the cluster's.
///
/// A key pair that was imported just now may have no tags yet.
pub(super) async fn find(ec2: &Client, cluster: &str) -> Result<Option<(String, bool)>, Failure> {
    let settled = seen(LATE, || async {
        let pair = look(ec2, cluster).await?;
        let comes = pair.as_ref().is_some_and(has_no_tags_yet);
        Ok((!comes).then_some(pair))
    });
    let pair = match settled.await? {
        Some(pair) => pair,
        None => look(ec2, cluster).await?,
    };
    Ok(pair.map(|pair| {
        let ours = tag(pair.tags(), CLUSTER_LABEL) == Some(cluster);
        (pair.public_key().unwrap_or_default().to_owned(), ours)
    }))
}

fn has_no_tags_yet(pair: &KeyPairInfo) -> bool {
    let age = |it: &DateTime| jiff::Timestamp::now().as_second() - it.secs();
    let is_new = pair.create_time().is_some_and(|it| age(it) < 10);
    pair.tags().is_empty() && is_new
}

async fn look(ec2: &Client, cluster: &str) -> Result<Option<KeyPairInfo>, Failure> {
    let name = name(cluster);
    let answer = ec2
        .describe_key_pairs()
        .filters(filter("key-name", [name.as_str()]))
        .include_public_key(true)
        .send()
        .await
        .doing("look for the key pair")?;
    Ok(answer.key_pairs.unwrap_or_default().into_iter().next())
}

/// Asks whether a key pair could be imported.
///
/// With the real key, because EC2 may check the key before it checks permissions.
pub(super) async fn ask(
    ec2: &Client,
    cluster: &str,
    public_key: &str,
    tags: &Tags<'_>,
) -> Result<Option<String>, Failure> {
    let asked = ec2
        .import_key_pair()
        .key_name(name(cluster))
        .public_key_material(Blob::new(public_key))
        .tag_specifications(tags.of(ResourceType::KeyPair))
        .dry_run(true)
        .send()
        .await
        .doing("import a key pair (ec2:ImportKeyPair, ec2:CreateTags)");
    allowed(asked)
}

/// Refuses a key pair that is not the cluster's.
pub(super) fn check(cluster: &str, found: Option<&(String, bool)>) -> Result<()> {
    match found {
        Some((_, false)) => Err(Error::new(
            Code::NameTaken,
            format!(
                "the name {} is taken by a key pair that does not belong to this cluster",
                name(cluster)
            ),
        )
        .left("nothing was touched")
        .hint("remove it, or give the cluster another name")),
        _ => Ok(()),
    }
}

/// Imports the key into EC2. A key that the cluster's hosts have already is not replaced by another one.
pub(super) async fn ensure(
    ec2: &Client,
    cluster: &str,
    public_key: &str,
    alive: &[Found],
    tags: &Tags<'_>,
) -> Result<()> {
    let name = name(cluster);
    let found = find(ec2, cluster).await?;
    check(cluster, found.as_ref())?;
    if let Some((known, _)) = &found {
        if same(known, public_key) {
            return Ok(());
        }
        if let Some(host) = alive
            .iter()
            .find(|it| it.key_name.as_deref() == Some(&name))
        {
            return Err(Error::new(Code::InfrastructureDiffers, "the cluster's hosts know another SSH key than the one here")
                .cause(format!("{} ({}) was made with the key pair {name}", host.host, host.id))
                .left("nothing was touched")
                .hint("use the workspace (.pgherd/) of the person who made the cluster, or name the key in ssh.identity_file"));
        }
        let dropped = ec2.delete_key_pair().key_name(&name).send().await;
        dropped.doing(format!("replace the key pair {name}"))?;
    }
    let imported = ec2
        .import_key_pair()
        .key_name(&name)
        .public_key_material(Blob::new(public_key))
        .tag_specifications(tags.of(ResourceType::KeyPair))
        .send()
        .await
        .doing(format!("import the key pair {name}"));
    match imported {
        // A call that was repeated because its answer was lost, or a call of a run that died.
        Err(failure) if failure.is(&["InvalidKeyPair.Duplicate"]) => {
            let found = seen(LATE, || async {
                let found = find(ec2, cluster).await?;
                Ok(found.filter(|(known, ours)| !ours || same(known, public_key)))
            });
            match found.await? {
                Some((_, true)) => Ok(()),
                found => check(cluster, found.as_ref()).and(Err(failure.into())),
            }
        }
        imported => Ok(imported.map(|_| ())?),
    }
}

/// Makes EC2 give another key to new instances; existing ones keep theirs.
pub(super) async fn replace(
    ec2: &Client,
    cluster: &str,
    public_key: &str,
    tags: &Tags<'_>,
) -> Result<()> {
    let found = find(ec2, cluster).await?;
    check(cluster, found.as_ref())?;
    if found.is_some_and(|(known, _)| !same(&known, public_key)) {
        let name = name(cluster);
        let dropped = ec2.delete_key_pair().key_name(&name).send().await;
        dropped.doing(format!("replace the key pair {name}"))?;
    }
    ensure(ec2, cluster, public_key, &[], tags).await
}

/// Whether two lines hold the same key, whatever their comments.
fn same(one: &str, other: &str) -> bool {
    let key = |line: &str| -> Vec<String> {
        line.split_ascii_whitespace()
            .take(2)
            .map(str::to_owned)
            .collect()
    };
    key(one) == key(other)
}
