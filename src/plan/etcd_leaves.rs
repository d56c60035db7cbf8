//! Which members leave etcd, whether a quorum allows it, and the steps.
//!
//! They leave after every Patroni has the list without them, one at a time. The members that stay remove
//! them. If the host stays, its etcd is then removed from it (`role_leaves`); a host that leaves is cleared
//! elsewhere.

use std::time::Duration;

use super::{Action, Change, Found, Plan, Step, StepId, finding::Finding, role_leaves};
use crate::{
    cluster::{Cluster, Node},
    facts::{Facts, etcd_dir},
    inventory::{HostName, Role},
    quantity,
    remote::Script,
    services::etcd::{LEAVES, Member},
};

/// A member that leaves etcd.
#[derive(Debug, Clone)]
pub(super) struct Leave<'a> {
    pub host: HostName,
    /// Its id in etcd's list, if it is still there.
    pub id: Option<String>,
    /// Its node, if the host stays in the inventory with other roles.
    pub node: Option<&'a Node>,
}

fn list(found: &Found) -> &[Member] {
    found
        .stores
        .values()
        .next()
        .map_or(&[], |view| &view.members)
}

fn declares(cluster: &Cluster, host: &HostName) -> bool {
    cluster.with_role(Role::Etcd).any(|node| node.name == *host)
}

/// Members that are in the list or have data, are not in the inventory, and may leave in this run.
pub(super) fn leaves<'a>(cluster: &'a Cluster, found: &Found) -> Vec<Leave<'a>> {
    let mut leaves: Vec<Leave<'_>> = Vec::new();
    for member in list(found) {
        let Some(host) = member.host().map(HostName::new) else {
            continue;
        };
        if !declares(cluster, &host) && found.leaving.include(&host) {
            leaves.push(Leave {
                node: cluster.nodes.get(&host),
                id: Some(member.id.clone()),
                host,
            });
        }
    }
    for (node, roles) in role_leaves::leaving(cluster, found) {
        let listed = leaves.iter().any(|leave| leave.host == node.name);
        if roles.contains(&Role::Etcd) && !listed {
            leaves.push(Leave {
                host: node.name.clone(),
                id: None,
                node: Some(node),
            });
        }
    }
    // A member that does not run goes first, because it contributes to no majority.
    leaves.sort_by_key(|leave| runs(found, &leave.host));
    leaves
}

fn runs(found: &Found, host: &HostName) -> bool {
    let facts = found.facts.get(host);
    facts.is_some_and(|facts| facts.unit("etcd").is_active())
}

fn majority(of: usize) -> usize {
    of / 2 + 1
}

fn members(count: usize) -> String {
    quantity::count(count, "member")
}

/// The voting members, and how many of them stay and answer.
struct Count {
    all: usize,
    stay: Vec<HostName>,
    answer: usize,
}

impl Count {
    fn of(cluster: &Cluster, found: &Found) -> Self {
        let votes = list(found).iter().filter(|member| !member.is_learner);
        let hosts: Vec<HostName> = votes
            .filter_map(|member| member.host().map(HostName::new))
            .collect();
        let stay: Vec<HostName> = hosts
            .iter()
            .filter(|host| declares(cluster, host))
            .cloned()
            .collect();
        Self {
            all: hosts.len(),
            answer: stay
                .iter()
                .filter(|host| found.stores.contains_key(*host))
                .count(),
            stay,
        }
    }
}

/// What prevents members from leaving.
pub(super) fn obstacles(cluster: &Cluster, found: &Found) -> Vec<Finding> {
    let leaves = leaves(cluster, found);
    if leaves.iter().all(|leave| leave.id.is_none()) {
        return Vec::new();
    }
    let count = Count::of(cluster, found);
    let names: Vec<&str> = leaves.iter().map(|leave| leave.host.as_str()).collect();
    let names = names.join(", ");
    if count.stay.is_empty() {
        return vec![Finding {
            what: format!(
                "etcd has {} ({names}), and none of them would stay",
                members(count.all)
            ),
            why: "a store without members is lost; a new one is begun by members that have its data",
            instead: format!(
                "go by way of three: keep {names} in the inventory with the role etcd, add two others, and run `pgherd up`; then take {names} and another one out"
            ),
        }];
    }
    let needed = majority(count.all);
    if found.dcs.is_none() || count.answer < majority(count.stay.len()) {
        let stay: Vec<&str> = count.stay.iter().map(HostName::as_str).collect();
        return vec![Finding {
            what: format!(
                "etcd has {}, and to remove {names} it needs {needed} of them, and then {} of {} that stay ({}); of those {} now",
                members(count.all),
                majority(count.stay.len()),
                count.stay.len(),
                stay.join(", "),
                match count.answer {
                    1 => "1 answers".to_owned(),
                    answer => format!("{answer} answer"),
                },
            ),
            why: "without a majority etcd decides nothing, also not who is a member",
            instead: format!(
                "start etcd on {} first, and run the same again",
                stay.join(", ")
            ),
        }];
    }
    Vec::new()
}

/// The change as text, with the majority that each step needs.
pub(super) fn in_words(cluster: &Cluster, found: &Found, joining: usize) -> Vec<String> {
    let leaves = leaves(cluster, found);
    let listed: Vec<&Leave<'_>> = leaves.iter().filter(|leave| leave.id.is_some()).collect();
    let mut words = Vec::new();
    if !listed.is_empty() {
        let mut all = Count::of(cluster, found).all + joining;
        words.push(format!(
            "etcd shrinks from {all} to {}, one at a time; writes go on",
            members(all - listed.len())
        ));
        for leave in listed {
            all -= 1;
            words.push(format!(
                "  {} leaves: etcd needs {} of {} to remove it, and {} of {} afterwards",
                leave.host,
                majority(all + 1),
                members(all + 1),
                majority(all),
                members(all),
            ));
        }
        if all == 1 {
            words.push("  with 1 member, none may fail".into());
        }
    }
    let dir = etcd_dir(cluster.name());
    for leave in leaves.iter().filter(|leave| leave.node.is_some()) {
        words.push(format!(
            "  all of etcd's data on {} is deleted ({dir})",
            leave.host
        ));
    }
    words
}

/// Plans their departure, one after the other; returns the last steps.
pub(super) fn leave(
    plan: &mut Plan,
    cluster: &Cluster,
    found: &Found,
    leaves: &[Leave<'_>],
    after: Vec<StepId>,
) -> Vec<StepId> {
    let mut last = after;
    for leave in leaves {
        let stays = leave
            .node
            .filter(|node| found.facts.contains_key(&node.name));
        if let Some(id) = &leave.id {
            if let Some(node) = stays {
                last = vec![let_end(plan, node, last)];
            }
            last = vec![remove(plan, &leave.host, id, last)];
        }
        if let Some(node) = stays {
            let going = (node, &[Role::Etcd][..]);
            let retired =
                role_leaves::take_off(plan, cluster, found, going, "retire-etcd", last.clone());
            last = retired.map_or(last, |step| vec![step]);
        }
    }
    last
}

/// Lets etcd end after its removal. Otherwise its unit would start it again and again, and each start would
/// put the names that it last knew into `/etc/hosts`.
fn let_end(plan: &mut Plan, node: &Node, after: Vec<StepId>) -> StepId {
    plan.push(Step {
        host: node.name.clone(),
        name: "let-etcd-end",
        why: "a member that was removed would start again and again".into(),
        after,
        changes: vec![Change::Other(
            "etcd's unit does not start it again when it ends".into(),
        )],
        action: Action::Run(
            Script::new()
                .alone("let-etcd-end")
                .line(format!("mkdir -p $(dirname {LEAVES})"))
                .line(format!("printf '[Service]\\nRestart=no\\n' >{LEAVES}"))
                .line("systemctl daemon-reload"),
        ),
        limit: Duration::from_secs(60),
        units: Vec::new(),
    })
}

/// Removes the drop-in of a member that was about to leave.
fn forget_leaving() -> String {
    format!("rm -f {LEAVES}\nrmdir $(dirname {LEAVES}) 2>/dev/null || true")
}

/// After an interrupted run: the member stays after all, so its unit must start etcd again when it ends.
pub(super) fn stays(
    plan: &mut Plan,
    node: &Node,
    facts: &Facts,
    after: &[StepId],
) -> Option<StepId> {
    facts.files.get(LEAVES)?;
    Some(
        plan.push(Step {
            host: node.name.clone(),
            name: "let-etcd-restart",
            why: "a run that was to remove the member was interrupted, and the member stays".into(),
            after: after.to_vec(),
            changes: vec![Change::Other(
                "etcd's unit starts it again when it ends".into(),
            )],
            action: Action::Run(
                Script::new()
                    .alone("let-etcd-end")
                    .line(forget_leaving())
                    .line("systemctl daemon-reload"),
            ),
            limit: Duration::from_secs(60),
            units: Vec::new(),
        }),
    )
}

fn remove(plan: &mut Plan, host: &HostName, id: &str, after: Vec<StepId>) -> StepId {
    plan.push(Step {
        host: host.clone(),
        name: "remove-etcd-member",
        why: "the inventory gives it the role etcd no more".into(),
        after,
        changes: vec![Change::Other(format!(
            "etcd's member {host} ({id}) is removed from the list; if it leads, another one does first"
        ))],
        action: Action::RemoveEtcdMember { id: id.to_owned() },
        limit: Duration::from_secs(60),
        units: Vec::new(),
    })
}
