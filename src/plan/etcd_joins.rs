//! Which declared etcd hosts do not vote yet in an existing store, and whether a quorum allows them to join.
//!
//! Members join one at a time: a new one is added as a learner, which has no vote, starts with an empty folder
//! and the list of that moment, catches up, and is promoted. A member that lost its data counts as a new one.
//! Its old entry is removed first, because etcd adds no member while a voting one is away.

use super::{Found, finding::Finding, newest};
use crate::{
    cluster::{Cluster, Node},
    facts::etcd_dir,
    inventory::{HostName, Role},
    quantity,
    services::etcd::{Member, View},
};

/// Why nothing can be done without a quorum.
const NO_QUORUM: &str = "etcd decides by a quorum, which is a majority of its members; without one it decides nothing, also not who is a member, and Patroni lets no other member lead";

/// A declared etcd host that does not vote yet.
#[derive(Debug, Clone)]
pub(super) struct Join<'a> {
    pub node: &'a Node,
    pub from: From,
    /// Its host has the data of a member that it is not any more.
    pub stale: bool,
}

/// How far a host is on its way into the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum From {
    /// It has started, and does not vote yet.
    Learner,
    /// It was added, and never started. It may have been added as a voting member.
    Added { votes: bool },
    /// Its data is gone, and the list has the member that had the data.
    Lost { id: String },
    /// It is not in the list.
    New,
}

impl From {
    /// Whether etcd there must not start before the others have added it.
    pub(super) fn is_held(&self) -> bool {
        *self != Self::Learner
    }

    /// Whether it must be added to the list first.
    pub(super) fn is_added(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::New)
    }
}

/// The view of a member that answers, if all views agree.
fn view(found: &Found) -> Option<&View> {
    let ids = |view: &View| {
        let mut ids: Vec<String> = view.members.iter().map(|it| it.id.clone()).collect();
        ids.sort_unstable();
        (view.cluster_id.clone(), ids)
    };
    let mut views = found.stores.values();
    let first = views.next()?;
    views.all(|view| ids(view) == ids(first)).then_some(first)
}

fn entry<'a>(view: &'a View, host: &HostName) -> Option<&'a Member> {
    let mut members = view.members.iter();
    members.find(|member| member.host() == Some(host.as_str()))
}

/// The hosts that will join, in their order. The list can have only one learner at a time, so an existing one
/// goes first. Those that lost their data come before new ones.
pub(super) fn joins<'a>(cluster: &'a Cluster, found: &Found) -> Vec<Join<'a>> {
    let Some(view) = view(found) else {
        return Vec::new();
    };
    let declared = cluster.with_role(Role::Etcd);
    let mut joins: Vec<Join<'_>> = declared
        .filter_map(|node| {
            let stale = is_stale(view, found, &node.name);
            let from = from(view, found, &node.name, stale)?;
            Some(Join { node, from, stale })
        })
        .collect();
    joins.sort_by_key(|join| match join.from {
        From::Learner => 0,
        From::Added { .. } => 1,
        From::Lost { .. } => 2,
        From::New => 3,
    });
    joins
}

/// Whether the data on a host is not the listed member's: that member was removed; or its data was lost, and
/// its etcd began its own store when it started without it.
fn is_stale(view: &View, found: &Found, host: &HostName) -> bool {
    let facts = found.facts.get(host);
    let Some(facts) = facts.filter(|facts| facts.etcd_data) else {
        return false;
    };
    let Some(member) = entry(view, host) else {
        return true;
    };
    facts
        .etcd_identity
        .as_ref()
        .is_some_and(|known| known.cluster_id != view.cluster_id || known.member_id != member.id)
}

fn from(view: &View, found: &Found, host: &HostName, stale: bool) -> Option<From> {
    let facts = found.facts.get(host);
    let has_data = facts.is_some_and(|facts| facts.etcd_data) && !stale;
    let Some(member) = entry(view, host) else {
        return Some(From::New);
    };
    let never_started = member.client_urls.is_empty();
    let added = From::Added {
        votes: !member.is_learner,
    };
    // A member that answers and votes has what it needs, whatever is in its folder.
    if found.stores.contains_key(host) && !member.is_learner {
        return None;
    }
    if facts.is_none() {
        return (member.is_learner && never_started).then_some(added);
    }
    if has_data {
        return member.is_learner.then_some(From::Learner);
    }
    if !never_started {
        let id = member.id.clone();
        return Some(From::Lost { id });
    }
    // An initial member of the store has its name already, and may begin as it would have.
    (member.name.is_empty() || member.is_learner).then_some(added)
}

/// The voting members: all of them, those that answer, and those that will start when their host is told to.
struct Votes {
    all: usize,
    answer: Vec<HostName>,
    /// Members whose hosts could not be observed.
    unseen: Vec<HostName>,
    silent: Vec<HostName>,
}

impl Votes {
    fn of(cluster: &Cluster, view: &View, found: &Found, joins: &[Join<'_>]) -> Self {
        let mut votes = Self {
            all: 0,
            answer: Vec::new(),
            unseen: Vec::new(),
            silent: Vec::new(),
        };
        for member in view.members.iter().filter(|member| !member.is_learner) {
            votes.all += 1;
            let Some(host) = member.host().map(HostName::new) else {
                continue;
            };
            let joins = joins.iter().any(|join| join.node.name == host);
            // A member whose host leaves is removed before any other joins.
            let leaves = !cluster.nodes.contains_key(&host) && found.leaving.include(&host);
            if joins || leaves {
                votes.all -= usize::from(leaves);
                continue;
            }
            match found.facts.get(&host) {
                _ if found.stores.contains_key(&host) => votes.answer.push(host),
                Some(_) => votes.silent.push(host),
                None if found.starting.contains(&host) => votes.silent.push(host),
                None => votes.unseen.push(host),
            }
        }
        votes
    }

    /// How many answer, or will answer when their etcd has started.
    fn able(&self) -> usize {
        self.answer.len() + self.silent.len()
    }
}

fn majority(of: usize) -> usize {
    of / 2 + 1
}

fn list(hosts: &[HostName]) -> String {
    let names: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
    names.join(", ")
}

/// What prevents the declared members from joining the store.
pub(super) fn obstacles(cluster: &Cluster, found: &Found) -> Vec<Finding> {
    let joins = joins(cluster, found);
    let (Some(view), false) = (view(found), joins.is_empty()) else {
        return Vec::new();
    };
    let votes = Votes::of(cluster, view, found, &joins);
    let mut findings = Vec::new();
    findings.extend(strangers_data(cluster, view, found, &joins));
    findings.extend(unseen(found, &joins));
    findings.extend(no_quorum(&votes, found, &joins));
    findings
}

/// Why no member that lost its data can be taken in again, if none can.
pub(super) fn quorum_lost(cluster: &Cluster, found: &Found) -> Option<Finding> {
    let joins = joins(cluster, found);
    let view = view(found)?;
    let lost = joins
        .iter()
        .any(|join| matches!(join.from, From::Lost { .. }));
    let votes = Votes::of(cluster, view, found, &joins);
    lost.then(|| no_quorum(&votes, found, &joins)).flatten()
}

/// Data that is not from a removed member of this store may be the last copy of another store.
fn strangers_data(
    cluster: &Cluster,
    view: &View,
    found: &Found,
    joins: &[Join<'_>],
) -> Option<Finding> {
    let strange = |join: &&Join<'_>| {
        let facts = found.facts.get(&join.node.name);
        let known = facts.and_then(|facts| facts.etcd_identity.as_ref());
        let of_this_store = known.is_some_and(|known| known.cluster_id == view.cluster_id);
        join.from == From::New && join.stale && !of_this_store
    };
    let hosts: Vec<HostName> = joins.iter().filter(strange).map(name).collect();
    let dir = etcd_dir(cluster.name());
    (!hosts.is_empty()).then(|| Finding {
        what: format!(
            "etcd on {} has data, and not of the store that answers ({})",
            list(&hosts),
            view.cluster_id
        ),
        why: "it may be the store that the cluster began with: pgherd does not choose between two",
        instead: format!(
            "if that data is of no use, move it away on {} ({dir}), and run the same again",
            list(&hosts)
        ),
    })
}

fn name(join: &Join<'_>) -> HostName {
    join.node.name.clone()
}

/// A host that cannot be observed does not join, and the databases are told only of hosts that have joined.
fn unseen(found: &Found, joins: &[Join<'_>]) -> Option<Finding> {
    let unseen = |join: &&Join<'_>| {
        let name = &join.node.name;
        !found.facts.contains_key(name) && !found.starting.contains(name)
    };
    let hosts: Vec<HostName> = joins.iter().filter(unseen).map(name).collect();
    (!hosts.is_empty()).then(|| Finding {
        what: format!(
            "the inventory wants etcd on {}, which cannot be reached",
            list(&hosts)
        ),
        why: "etcd takes a member in when it can start at once, and Patroni is told of it only then",
        instead: format!("bring {} up, and run the same again", list(&hosts)),
    })
}

/// The arithmetic of a change that etcd would refuse, or for which writes would have to wait.
fn no_quorum(votes: &Votes, found: &Found, joins: &[Join<'_>]) -> Option<Finding> {
    let lost: Vec<HostName> = joins
        .iter()
        .filter(|join| matches!(join.from, From::Lost { .. }))
        .map(name)
        .collect();
    let needed = majority(votes.all);
    let able = votes.able();
    // No member stays: the code for members that leave reports that.
    if votes.all == 0 {
        return None;
    }
    if able < needed || (found.dcs.is_none() && votes.answer.len() >= needed) {
        return Some(Finding {
            what: format!(
                "etcd has {}, of which {} {}{}: a change of membership needs {needed}",
                members(votes.all),
                votes.answer.len(),
                if votes.answer.len() == 1 {
                    "answers"
                } else {
                    "answer"
                },
                away(votes, &lost),
            ),
            why: NO_QUORUM,
            instead: again(votes, found, &lost),
        });
    }
    // etcd adds a member only while all voting ones are connected.
    if votes.unseen.is_empty() {
        return None;
    }
    Some(Finding {
        what: format!(
            "etcd takes no member in while one that votes is away: of its {} {} cannot be reached",
            members(votes.all - lost.len()),
            list(&votes.unseen)
        ),
        why: "with a new member the majority is larger, and one that is away would be missing in it",
        instead: format!(
            "bring {} back first, or make its host anew: pgherd up",
            list(&votes.unseen)
        ),
    })
}

fn away(votes: &Votes, lost: &[HostName]) -> String {
    let mut words = Vec::new();
    if !lost.is_empty() {
        let whose = if lost.len() == 1 { "its" } else { "their" };
        words.push(format!("{} lost {whose} data", list(lost)));
    }
    let away = [&votes.silent[..], &votes.unseen[..]].concat();
    if !away.is_empty() {
        let verb = if away.len() == 1 { "does" } else { "do" };
        words.push(format!("{} {verb} not answer", list(&away)));
    }
    match words.is_empty() {
        true => String::new(),
        false => format!(" ({})", words.join("; ")),
    }
}

/// What brings a majority back, a line for each way.
fn again(votes: &Votes, found: &Found, lost: &[HostName]) -> String {
    let away = [&votes.silent[..], &votes.unseen[..]].concat();
    if !away.is_empty() {
        return format!(
            "start etcd on {} first, and run the same again",
            list(&away)
        );
    }
    if lost.is_empty() {
        return "see why etcd has no leader (journalctl -u etcd), and run the same again".into();
    }
    let or = |hosts: &[HostName]| list(hosts).replace(", ", " or ");
    let mut ways = vec![format!(
        "if you have the disk or a copy of etcd's data folder of {}: put it back, then: pgherd up",
        or(lost)
    )];
    if !votes.answer.is_empty() {
        let left = or(&votes.answer);
        ways.push(format!(
            "if not: let etcd on {left} go on alone, by hand, and `pgherd up` takes the others in again: \
             docs/how-to/etcd-quorum.md#when-the-data-of-a-majority-is-lost"
        ));
    }
    ways.push(match newest::leads(found) {
        Some(host) => format!(
            "until then PostgreSQL runs on, and {host} takes writes as long as it reaches every other member: restart neither \
             Patroni nor PostgreSQL, and remove nothing"
        ),
        None => "until then PostgreSQL runs on where it runs: remove nothing".to_owned(),
    });
    ways.join("\n")
}

fn members(count: usize) -> String {
    quantity::count(count, "member")
}

/// The change in words, with the arithmetic of every step; empty if no member joins.
pub(super) fn in_words(cluster: &Cluster, found: &Found) -> Vec<String> {
    let joins = joins(cluster, found);
    let (Some(view), false) = (view(found), joins.is_empty()) else {
        return Vec::new();
    };
    let votes = Votes::of(cluster, view, found, &joins);
    let lost = joins
        .iter()
        .filter(|join| matches!(join.from, From::Lost { .. }));
    let lost: Vec<&Join<'_>> = lost.collect();
    let mut all = votes.all;
    let mut able = votes.able();
    let voting = joins
        .iter()
        .filter(|join| join.from == (From::Added { votes: true }));
    let to = all - lost.len() + joins.len() - voting.count();
    let mut words = vec![match lost.len() {
        0 => format!(
            "etcd grows from {all} to {}, one at a time; writes go on",
            members(to)
        ),
        _ => format!(
            "etcd comes back to {}, one at a time; writes go on",
            members(to)
        ),
    }];
    let how = "  each is added as a learner, which has no vote, and promoted once it has caught up";
    words.push(how.into());
    for join in lost {
        words.push(format!(
            "  {} lost its data: its old entry is removed, for which etcd needs {}, and {able} answer",
            join.node.name,
            needs(all),
        ));
        all -= 1;
    }
    for join in &joins {
        let so_far = match join.from {
            From::Learner | From::Added { votes: false } => " (it is a learner already)",
            From::Added { votes: true } => " (it was added already, and never started)",
            From::Lost { .. } | From::New => "",
        };
        let before = needs(all);
        if join.from != (From::Added { votes: true }) {
            all += 1;
        }
        able += 1;
        let then = match majority(all) == all && all < to {
            true => ": none may fail until the next is in",
            false => "",
        };
        words.push(format!(
            "  {}{so_far}: etcd needs {before} to take it in, and {} afterwards{then}",
            join.node.name,
            needs(all),
        ));
    }
    if able < to {
        words.push(format!("  {able} of {} answer then", members(to)));
    }
    words
}

fn needs(all: usize) -> String {
    format!("{} of {}", majority(all), members(all))
}
