//! The security groups of a host: those of its roles, also after its roles have changed.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ec2::{Client, types::SecurityGroup};

use super::{
    failure::{Doing, Failure, NOT_YET, allowed, insist},
    instance::Found,
};
use crate::{
    inventory::{HostName, Inventory, Role},
    provider::Part,
};

/// A host whose security groups must change.
#[derive(Debug, Clone)]
pub(super) struct Membership {
    pub(super) host: HostName,
    /// The instance.
    pub(super) id: String,
    /// For people: `instance node4 joins pgherd-pg-haproxy; leaves pgherd-pg-etcd`.
    pub(super) line: String,
    interface: String,
    /// All groups that it will have: those of its roles, and those that are not the cluster's.
    groups: BTreeSet<String>,
    /// The cluster's groups that it leaves.
    leaves: BTreeSet<String>,
    joins: bool,
}

/// The hosts that do not have exactly the groups of their roles. Groups that are not the cluster's stay.
pub(super) fn wrong(
    inventory: &Inventory,
    groups: &BTreeMap<Role, SecurityGroup>,
    found: &[Found],
) -> Vec<Membership> {
    let named = |role: &Role| {
        let group = groups.get(role)?;
        Some((group.group_id()?, group.group_name()?))
    };
    let ours: BTreeMap<&str, &str> = groups.keys().filter_map(named).collect();
    let shown = |ids: &BTreeSet<&str>| -> String {
        let names: Vec<&str> = ids.iter().filter_map(|id| ours.get(id).copied()).collect();
        names.join(", ")
    };
    found
        .iter()
        .filter_map(|it| {
            let roles = &inventory.hosts.get(&it.host)?.roles;
            let wanted: BTreeSet<&str> = roles
                .iter()
                .map(|role| Some(named(role)?.0))
                .collect::<Option<_>>()?;
            let has: BTreeSet<&str> = it.groups.iter().map(String::as_str).collect();
            let own = has.iter().copied().filter(|id| ours.contains_key(id));
            let own: BTreeSet<&str> = own.collect();
            let joins: BTreeSet<&str> = wanted.difference(&own).copied().collect();
            let leaves: BTreeSet<&str> = own.difference(&wanted).copied().collect();
            let mut parts = Vec::new();
            if !joins.is_empty() {
                parts.push(format!("joins {}", shown(&joins)));
            }
            if !leaves.is_empty() {
                parts.push(format!("leaves {}", shown(&leaves)));
            }
            let after = has.difference(&leaves).chain(&joins);
            (!parts.is_empty()).then_some(Membership {
                host: it.host.clone(),
                id: it.id.clone(),
                line: format!("instance {} {}", it.host, parts.join("; ")),
                interface: it.interface.clone()?,
                groups: after.map(|id| (*id).to_owned()).collect(),
                leaves: leaves.iter().map(|id| (*id).to_owned()).collect(),
                joins: !joins.is_empty(),
            })
        })
        .collect()
}

impl Membership {
    /// Asks EC2 whether the change is allowed; changes nothing.
    pub(super) async fn ask(&self, ec2: &Client) -> Result<Option<String>, Failure> {
        let asked = self.call(ec2, Part::All).dry_run(true).send().await;
        allowed(asked.doing(format!(
            "put {} into other groups (ec2:ModifyNetworkInterfaceAttribute)",
            self.host
        )))
    }

    /// Returns whether there was anything to change.
    pub(super) async fn apply(&self, ec2: &Client, part: Part) -> Result<bool, Failure> {
        if part == Part::Missing && !self.joins {
            return Ok(false);
        }
        insist(&NOT_YET, super::SETTLING, || async {
            let put = self.call(ec2, part).send().await;
            put.doing(format!("put {} into other security groups", self.host))
        })
        .await
        .map(|_| true)
    }

    fn call(
        &self,
        ec2: &Client,
        part: Part,
    ) -> aws_sdk_ec2::operation::modify_network_interface_attribute::builders::ModifyNetworkInterfaceAttributeFluentBuilder
    {
        let mut groups = self.groups.clone();
        if part == Part::Missing {
            groups.extend(self.leaves.iter().cloned());
        }
        ec2.modify_network_interface_attribute()
            .network_interface_id(&self.interface)
            .set_groups(Some(groups.into_iter().collect()))
    }
}
