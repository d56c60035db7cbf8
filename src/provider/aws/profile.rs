//! The instance profile by which the host of the backups opens their bucket.

use aws_sdk_ec2::{
    Client,
    types::{IamInstanceProfileAssociation, IamInstanceProfileSpecification},
};

use super::{
    SETTLING,
    failure::{Doing, Failure, NOT_YET, insist},
    instance::{Found, filter, name_in},
};
use crate::{
    inventory::{HostName, Inventory},
    provider::Part,
};

/// A host that does not have the profile that it should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) host: HostName,
    /// The instance.
    pub(super) id: String,
    /// For people: `instance keeper gets the instance profile backups`.
    pub(super) line: String,
    /// The profile that it gets; `None` if it gives up the one that it has.
    gets: Option<String>,
}

/// The hosts that do not have the profile, and those that have it and should not. A profile of another name is
/// replaced only where this one must be: an instance can have only one.
pub(super) fn wrong(inventory: &Inventory, found: &[Found]) -> Vec<Change> {
    let Some(ours) = inventory.bucket_profile() else {
        return Vec::new();
    };
    let here = found
        .iter()
        .filter(|it| inventory.hosts.contains_key(&it.host));
    here.filter_map(|it| {
        let gets = inventory.profile_of(&it.host);
        let what = match (gets, it.profile.as_deref()) {
            (Some(name), None) => format!("gets the instance profile {name}"),
            (Some(name), Some(has)) if has != name => {
                format!("gets the instance profile {name} instead of {has}")
            }
            (None, Some(has)) if has == ours => format!("gives up the instance profile {has}"),
            _ => return None,
        };
        Some(Change {
            host: it.host.clone(),
            id: it.id.clone(),
            line: format!("instance {} {what}", it.host),
            gets: gets.map(str::to_owned),
        })
    })
    .collect()
}

/// A profile, for a call.
pub(super) fn named(name: &str) -> IamInstanceProfileSpecification {
    IamInstanceProfileSpecification::builder()
        .name(name)
        .build()
}

impl Change {
    /// Returns whether there was anything to change. EC2 has no dry run of it.
    ///
    /// May be repeated after any interruption.
    pub(super) async fn apply(&self, ec2: &Client, part: Part) -> Result<bool, Failure> {
        if part == Part::Missing && self.gets.is_none() {
            return Ok(false);
        }
        let now = association(ec2, &self.id).await?;
        let id = now.as_ref().and_then(|it| it.association_id());
        let has = now.as_ref().and_then(|it| it.iam_instance_profile()?.arn());
        match (&self.gets, id) {
            // An earlier answer may have been lost.
            (Some(name), Some(_)) if has.map(name_in) == Some(name.as_str()) => {}
            (Some(name), Some(id)) => replace(ec2, &self.host, name, id).await?,
            (Some(name), None) => self.associate(ec2, name).await?,
            (None, Some(id)) => {
                let call = ec2.disassociate_iam_instance_profile().association_id(id);
                call.send().await.doing(format!(
                    "take the instance profile from {} (ec2:DisassociateIamInstanceProfile)",
                    self.host
                ))?;
            }
            (None, None) => {}
        }
        Ok(true)
    }

    async fn associate(&self, ec2: &Client, name: &str) -> Result<(), Failure> {
        let retried = [&NOT_YET[..], &["IncorrectInstanceState"]].concat();
        let associated = insist(&retried, SETTLING, || async {
            let call = ec2
                .associate_iam_instance_profile()
                .instance_id(&self.id)
                .iam_instance_profile(named(name));
            call.send().await.doing(format!(
                "give {} the instance profile {name} (ec2:AssociateIamInstanceProfile, iam:PassRole)",
                self.host
            ))
        });
        associated.await.map(|_| ())
    }
}

async fn replace(
    ec2: &Client,
    host: &HostName,
    name: &str,
    association: &str,
) -> Result<(), Failure> {
    let call = ec2
        .replace_iam_instance_profile_association()
        .association_id(association)
        .iam_instance_profile(named(name));
    let replaced = call.send().await.doing(format!(
        "give {host} the instance profile {name} (ec2:ReplaceIamInstanceProfileAssociation, iam:PassRole)"
    ));
    replaced.map(|_| ())
}

/// The instance's tie to the profile that it has now.
async fn association(
    ec2: &Client,
    instance: &str,
) -> Result<Option<IamInstanceProfileAssociation>, Failure> {
    let found = ec2
        .describe_iam_instance_profile_associations()
        .filters(filter("instance-id", [instance]))
        .filters(filter("state", ["associating", "associated"]))
        .send()
        .await
        .doing(format!("ask for the instance profile of {instance}"))?;
    Ok(found
        .iam_instance_profile_associations
        .unwrap_or_default()
        .into_iter()
        .next())
}
