//! Protects EC2's metadata service, which shows the user data with the host's first key.

use std::time::Duration;

use super::{Action, Change, Plan, Step, StepId};
use crate::{
    cluster::{Cluster, Node},
    facts::{Facts, METADATA_GUARD, MetadataGuard},
    remote::Script,
    services::When,
};

const NAME: &str = "guard-metadata";

/// Plans that only root may talk to the metadata service, now and after each boot.
///
/// The user data sets the rule at the first boot. The rule of earlier versions is removed by networkd.
pub(super) fn guard(
    plan: &mut Plan,
    cluster: &Cluster,
    node: &Node,
    facts: &Facts,
    prepared: Option<StepId>,
) {
    if !cluster.wants(When::Ec2) {
        return;
    }
    let at_boot = facts.unit(METADATA_GUARD).is_enabled();
    let why = match facts.metadata_guard {
        MetadataGuard::Holds if at_boot => {
            plan.skip(&node.name, NAME, "only root may ask the metadata service");
            return;
        }
        MetadataGuard::Holds => {
            "after a boot, users other than root can reach the metadata service"
        }
        MetadataGuard::Fragile => {
            "networkd removes the rule that keeps users other than root from the metadata service"
        }
        MetadataGuard::Absent => {
            "every user of the host can ask the metadata service, which has the host's first key"
        }
    };
    let unit = METADATA_GUARD;
    plan.push(Step {
        host: node.name.clone(),
        name: NAME,
        why: why.into(),
        after: prepared.into_iter().collect(),
        changes: vec![Change::Other(
            "only root can ask the metadata service, now and after each boot".into(),
        )],
        action: Action::Run(
            Script::new()
                // It also makes systemd read its units again.
                .line(format!("systemctl enable --quiet {unit}.service"))
                .line(format!("systemctl restart {unit}.service")),
        ),
        limit: Duration::from_secs(60),
        units: Vec::new(),
    });
}
