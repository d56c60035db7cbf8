//! Protects EC2's metadata service, which shows the user data with the host's first key.

use std::time::Duration;

use super::{Action, Change, Plan, Step, StepId};
use crate::{
    cluster::{Cluster, Node},
    facts::{FORGET_EXCEPTIONS, Facts, METADATA_GUARD, MetadataException, MetadataGuard},
    remote::Script,
    services::When,
};

const NAME: &str = "guard-metadata";

/// Plans that only root may talk to the metadata service, now and after each boot; where pgBackRest has an instance
/// profile in place of an access key, postgres too. `after` comes before it.
///
/// The user data sets the rule at the first boot. The rule of earlier versions is removed by networkd.
pub(super) fn guard(
    plan: &mut Plan,
    cluster: &Cluster,
    node: &Node,
    facts: &Facts,
    after: Vec<StepId>,
) -> Option<StepId> {
    if !cluster.wants(When::Ec2) {
        return None;
    }
    let for_profile = cluster.inventory.profile_of(&node.name).is_some();
    let who = match for_profile {
        true => "only root and, for pgBackRest, postgres",
        false => "only root",
    };
    let Some(why) = what_is_wrong(facts, for_profile) else {
        plan.skip(
            &node.name,
            NAME,
            format!("{who} may ask the metadata service"),
        );
        return None;
    };
    let unit = METADATA_GUARD;
    let id = plan.push(Step {
        host: node.name.clone(),
        name: NAME,
        why: why.into(),
        after,
        changes: vec![Change::Other(format!(
            "{who} can ask the metadata service, now and after each boot"
        ))],
        action: Action::Run(
            Script::new()
                .line(FORGET_EXCEPTIONS)
                // It also makes systemd read its units again.
                .line(format!("systemctl enable --quiet {unit}.service"))
                .line(format!("systemctl restart {unit}.service")),
        ),
        limit: Duration::from_secs(60),
        units: Vec::new(),
    });
    Some(id)
}

/// Why the rules must change; `for_profile` says that postgres needs an exception.
fn what_is_wrong(facts: &Facts, for_profile: bool) -> Option<&'static str> {
    let wanted = match for_profile {
        true => MetadataException::Postgres,
        false => MetadataException::Nobody,
    };
    match facts.metadata_guard {
        MetadataGuard::Absent => Some(
            "every user of the host can ask the metadata service, which has the host's first key",
        ),
        MetadataGuard::Fragile => Some(
            "networkd removes the rule that keeps users other than root from the metadata service",
        ),
        MetadataGuard::Holds if facts.metadata_exception != wanted => Some(match for_profile {
            true => {
                "pgBackRest must ask the metadata service for the credentials of this host's profile"
            }
            false => "a user other than root can ask the metadata service, and none needs to",
        }),
        MetadataGuard::Holds if !facts.unit(METADATA_GUARD).is_enabled() => {
            Some("after a boot, the rules about the metadata service are gone")
        }
        MetadataGuard::Holds => None,
    }
}
