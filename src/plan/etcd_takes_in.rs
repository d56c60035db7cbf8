//! Plans how members join etcd, one at a time, while the others keep working.

use std::time::Duration;

use super::{
    Action, Change, Plan, Step, StepId,
    components::{self, Configured},
    etcd_joins::{From, Join},
    etcd_members::peer_url,
    waits,
};
use crate::{
    cluster::{Cluster, Node},
    facts::etcd_dir,
    inventory::{HostName, Role},
    remote::{PENDING, Script, quote},
    services::etcd::{HOLD, JOIN, Member},
};

/// The lock for all steps on a host that joins: steps of an interrupted run end first.
const LOCK: &str = "join-etcd";

/// Keeps etcd from starting on a host before the others have added it, also after a reboot: with its final
/// config, it would make a store of its own.
pub(super) fn hold(
    plan: &mut Plan,
    cluster: &Cluster,
    join: &Join<'_>,
    after: Vec<StepId>,
) -> StepId {
    let dir = etcd_dir(cluster.name());
    let mut changes = vec![Change::Other(
        "etcd cannot start here until the others have added it".into(),
    )];
    let data = quote(&dir);
    if join.stale {
        changes.push(Change::Other(format!(
            "{dir} is moved to {dir}.removed, in the place of what is there: it is not the data of a member that etcd has"
        )));
    }
    // Data that an interrupted run has begun meanwhile belongs to the new member.
    let keep = match join.stale {
        true => "false".to_owned(),
        false => format!("grep -qs ^ExecStartPre= {HOLD} && [ -d {data}/member/wal ]"),
    };
    let aside = format!("rm -rf {data}.removed\n  mv {data} {data}.removed");
    let test = format!("[ -e {data}/member ] && ! {{ {keep}; }}");
    let script = Script::new()
        .alone(LOCK)
        .line(format!("install -d -m 0755 $(dirname {HOLD})"))
        .line("systemctl stop etcd 2>/dev/null || true")
        .line(format!("if {test}; then\n  {aside}\nfi"))
        .line(format!(
            "printf '[Service]\\nEnvironmentFile={JOIN}\\n' >{HOLD}.new\nmv -f {HOLD}.new {HOLD}\nrm -f {JOIN}"
        ))
        .line("systemctl daemon-reload\nsystemctl stop etcd 2>/dev/null || true");
    plan.push(Step {
        host: join.node.name.clone(),
        name: "hold-etcd",
        why: "an etcd that starts before the others have added it makes a store of its own".into(),
        after,
        changes,
        action: Action::Run(script),
        limit: Duration::from_secs(60),
        units: vec!["etcd"],
    })
}

/// Plans all joins, one after the other. `members` is the present list, and `after` the steps after which it
/// may change. Returns the steps after which all have joined.
pub(super) fn take_in(
    plan: &mut Plan,
    cluster: &Cluster,
    members: &[Member],
    joining: &[(&Join<'_>, &Configured)],
    after: Vec<StepId>,
) -> Vec<StepId> {
    let mut list: Vec<(String, String)> = Vec::new();
    for member in members {
        let Some(host) = member.host() else { continue };
        let lost = joining
            .iter()
            .any(|(join, _)| join.from.is_added() && join.node.name.as_str() == host);
        let leaves = !cluster.nodes.contains_key(&HostName::new(host));
        if lost || leaves {
            continue;
        }
        let declared = cluster.with_role(Role::Etcd);
        let node = declared.into_iter().find(|node| node.name.as_str() == host);
        match node {
            Some(node) => list.push((host.to_owned(), peer_url(cluster, node))),
            None => list.extend(
                member
                    .peer_urls
                    .iter()
                    .map(|url| (host.to_owned(), url.clone())),
            ),
        }
    }
    let mut last = after;
    for (join, configured) in joining {
        if let From::Lost { id } = &join.from {
            let mut after = last.clone();
            after.extend(&configured.ready);
            last = vec![remove_entry(plan, join.node, id, after)];
        }
    }
    for (join, configured) in joining {
        let node = join.node;
        let url = peer_url(cluster, node);
        if join.from.is_added() {
            let mut after = last.clone();
            after.extend(&configured.ready);
            last = vec![add(plan, node, &url, after)];
            list.push((node.name.to_string(), url));
        }
        let started = if join.from.is_held() {
            let mut after = last.clone();
            after.extend(&configured.ready);
            Some(start(plan, cluster, node, &list, after))
        } else {
            components::run_unit(plan, node, Role::Etcd, configured, &last)
        };
        let after = started.map_or_else(|| last.clone(), |step| vec![step]);
        let promoted = promote(plan, node, after);
        last = vec![waits::await_ready(plan, node, Role::Etcd, vec![promoted]).unwrap_or(promoted)];
    }
    last
}

/// Without this, etcd would add no member, because a voting one is away.
fn remove_entry(plan: &mut Plan, node: &Node, id: &str, after: Vec<StepId>) -> StepId {
    plan.push(Step {
        host: node.name.clone(),
        name: "remove-etcd-member",
        why: "the member that etcd knows here has lost its data, and can never come back".into(),
        after,
        changes: vec![Change::Other(format!(
            "etcd's member {} ({id}) is removed from the list",
            node.name
        ))],
        action: Action::RemoveEtcdMember { id: id.to_owned() },
        limit: Duration::from_secs(60),
        units: Vec::new(),
    })
}

fn add(plan: &mut Plan, node: &Node, url: &str, after: Vec<StepId>) -> StepId {
    plan.push(Step {
        host: node.name.clone(),
        name: "add-etcd-member",
        why: "a learner copies the store, and no majority waits for it".into(),
        after,
        changes: vec![Change::Other(format!(
            "etcd's list has {} as a learner, at {url}",
            node.name
        ))],
        action: Action::AddEtcdMember {
            peer_url: url.to_owned(),
        },
        limit: Duration::from_secs(60),
        // While etcd refuses it, nothing must be visible of it on the host that joins.
        units: Vec::new(),
    })
}

/// Starts a member with the list of that moment. Its config describes the store's first start, which would be
/// wrong now; so it reads another file after the config, once.
fn start(
    plan: &mut Plan,
    cluster: &Cluster,
    node: &Node,
    list: &[(String, String)],
    after: Vec<StepId>,
) -> StepId {
    let dir = etcd_dir(cluster.name());
    let data = quote(&dir);
    let members: Vec<String> = list
        .iter()
        .map(|(name, url)| format!("{name}={url}"))
        .collect();
    let members = members.join(",");
    let script = Script::new()
        .alone(LOCK)
        .line(format!("install -d -o etcd -g etcd -m 0700 {data}"))
        .line(format!(
            "printf '%s\\n' 'ETCD_INITIAL_CLUSTER=\"{members}\"' 'ETCD_INITIAL_CLUSTER_STATE=\"existing\"' >{JOIN}.new\nmv -f {JOIN}.new {JOIN}"
        ))
        .line("systemctl daemon-reload\nsystemctl reset-failed etcd 2>/dev/null || true")
        .line("systemctl enable --quiet etcd\nsystemctl start --no-block etcd")
        // When its log exists, it knows its identity from there, and ignores all this.
        .line(format!(
            "for i in $(seq 300); do [ -d {data}/member/wal ] && break; sleep 0.1; done"
        ))
        .line(format!(
            "[ -d {data}/member/wal ] || {{ echo 'etcd did not begin with the others within 30 s' >&2; exit 1; }}"
        ))
        .line(format!(
            "printf '[Service]\\n# Without its data it would be another member, and begin a store of its own.\\nExecStartPre=/usr/bin/test -d {dir}/member/wal\\n' >{HOLD}.new\nmv -f {HOLD}.new {HOLD}\nsystemctl daemon-reload\nrm -f {JOIN} {PENDING}/etcd"
        ));
    plan.push(Step {
        host: node.name.clone(),
        name: LOCK,
        why: "it starts with the members that there are, and copies what they have".into(),
        after,
        changes: vec![
            Change::Unit {
                unit: "etcd",
                verb: "enable --now",
            },
            Change::Other(format!("its first start is as one of {members}")),
        ],
        action: Action::Run(script),
        limit: Duration::from_secs(90),
        units: vec!["etcd"],
    })
}

fn promote(plan: &mut Plan, node: &Node, after: Vec<StepId>) -> StepId {
    plan.push(Step {
        host: node.name.clone(),
        name: "promote-etcd-member",
        why: "it gets its vote once it has caught up, and every member tells the same list".into(),
        after,
        changes: vec![Change::Other(format!("etcd's member {} votes", node.name))],
        action: Action::PromoteEtcdMember,
        limit: Duration::from_secs(300),
        units: vec!["etcd"],
    })
}
