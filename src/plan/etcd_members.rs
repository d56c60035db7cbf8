//! What etcd's members store about each other, outside their configs.
//!
//! A member's own URLs come from its config and need a restart. The URL at which its *peers* reach it is stored
//! by etcd itself, and changed there.

use std::time::Duration;

use super::{Action, Change, Found, Plan, Step, StepId};
use crate::{
    cluster::{Cluster, ETCD_PEER_PORT, Node},
    inventory::Role,
};

/// The URL at which a member's peers reach it. It has the member's name, which is in `/etc/hosts` everywhere,
/// so etcd needs no update when addresses change, even all at once.
pub(super) fn peer_url(cluster: &Cluster, node: &Node) -> String {
    let scheme = if cluster.tls.is_used() {
        "https"
    } else {
        "http"
    };
    format!("{scheme}://{}:{ETCD_PEER_PORT}", node.name)
}

/// The URL that etcd has for a member, if it is wrong.
fn outdated(cluster: &Cluster, found: &Found, node: &Node) -> Option<String> {
    let member = found
        .etcd
        .iter()
        .find(|member| member.name == node.name.as_str())?;
    let wanted = peer_url(cluster, node);
    (member.peer_urls != [wanted]).then(|| member.peer_urls.join(", "))
}

/// Whether the members that their peers can reach are a majority.
pub(super) fn has_quorum(cluster: &Cluster, found: &Found) -> bool {
    let (mut here, mut all) = (0, 0);
    for node in cluster.with_role(Role::Etcd) {
        all += 1;
        let runs = found
            .facts
            .get(&node.name)
            .is_some_and(|facts| facts.unit("etcd").is_active());
        let member = found.etcd.iter().find(|it| it.name == node.name.as_str());
        let by_name = format!("://{}:{ETCD_PEER_PORT}", node.name);
        let elsewhere = |url: &String| !url.ends_with(&by_name);
        if runs && !member.is_some_and(|member| member.peer_urls.iter().any(elsewhere)) {
            here += 1;
        }
    }
    all == 1 || here > all / 2
}

/// Plans the change of a member's URL, if it is or may be wrong; returns the step.
pub(super) fn update(
    plan: &mut Plan,
    cluster: &Cluster,
    found: &Found,
    node: &Node,
    after: &[StepId],
) -> Option<StepId> {
    let peer_url = peer_url(cluster, node);
    // An interrupted run may have left it starting, and then its stored URL is unknown.
    let facts = found.facts.get(&node.name);
    let unknown = found.etcd.is_empty() && facts.is_some_and(|facts| facts.etcd_data);
    let (why, change) = if unknown {
        (
            "etcd does not answer, and may have another URL for it",
            Change::Other(format!("its peers find it at {peer_url}")),
        )
    } else {
        let from = outdated(cluster, found, node)?;
        (
            "its peers look for it at another URL",
            Change::Setting {
                key: format!("etcd's member {}", node.name),
                from: Some(from.into()),
                to: Some(peer_url.clone().into()),
            },
        )
    };
    Some(plan.push(Step {
        host: node.name.clone(),
        name: "update-etcd-member",
        why: why.into(),
        after: after.to_vec(),
        changes: vec![change],
        action: Action::UpdateEtcdMember { peer_url },
        limit: Duration::from_secs(30),
        units: vec!["etcd"],
    }))
}
