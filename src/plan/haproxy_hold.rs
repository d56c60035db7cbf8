//! Makes HAProxy keep a leader whose Patroni does not run for a moment.
//!
//! HAProxy asks Patroni which member leads, and takes a leader whose Patroni does not answer for dead:
//! it would close every connection to a PostgreSQL that runs and goes on leading. So for as long as
//! another Patroni takes over, it does not ask.

use std::time::Duration;

use super::{Action, Change, Found, Plan, Step, StepId};
use crate::{
    cluster::{Cluster, Node},
    inventory::Role,
    remote::{Script, quote},
    services::haproxy,
};

/// After which HAProxy asks again whatever has become of the run. Meanwhile it would not notice a
/// leader's death; a failover takes longer than that in any case.
const AT_MOST: u32 = 15;

/// Speaks to HAProxy's socket. Perl's base package is on every Debian and Ubuntu; `socat` is not.
const SAY: &str = r#"say() {
  perl -MIO::Socket::UNIX -e 'my $s = IO::Socket::UNIX->new(Peer => "/run/haproxy/admin.sock") or die "HAProxy: $!\n"; print $s "$ARGV[0]\n"; $s->shutdown(1); print <$s>' "$1"
}"#;

/// Has every HAProxy keep `leader` as it is; returns a step for each that runs.
pub(super) fn hold(
    plan: &mut Plan,
    cluster: &Cluster,
    found: &Found,
    leader: &Node,
    after: &[StepId],
) -> Vec<StepId> {
    let enable = say(cluster, leader, "enable");
    let later = format!("sleep {AT_MOST}\n{SAY}\n{enable}");
    let script = Script::new()
        .alone("hold-haproxy")
        .line(SAY)
        .line(say(cluster, leader, "disable"))
        .line(format!(
            "setsid sh -c {} </dev/null >/dev/null 2>&1 9>&- &",
            quote(&later)
        ));
    let draft = Draft {
        name: "hold-haproxy",
        why: format!("the Patroni of {} does not run for a moment", leader.name),
        change: format!("HAProxy does not check {} for {AT_MOST} s", leader.name),
        script,
    };
    push(plan, cluster, found, after, &draft)
}

/// Has every HAProxy check `leader` again.
pub(super) fn release(
    plan: &mut Plan,
    cluster: &Cluster,
    found: &Found,
    leader: &Node,
    after: &[StepId],
) -> Vec<StepId> {
    let script = Script::new()
        .alone("hold-haproxy")
        .line(SAY)
        .line(say(cluster, leader, "enable"));
    let draft = Draft {
        name: "release-haproxy",
        why: format!("the Patroni of {} runs again", leader.name),
        change: format!("HAProxy checks {} again", leader.name),
        script,
    };
    push(plan, cluster, found, after, &draft)
}

/// Tells HAProxy about its checks of a leader, under whichever names it has it.
fn say(cluster: &Cluster, leader: &Node, what: &str) -> String {
    let suffixes: &[&str] = if cluster.tls.is_migrating() {
        &["", haproxy::OVER_TLS]
    } else {
        &[""]
    };
    let lines: Vec<String> = suffixes
        .iter()
        .map(|suffix| {
            let listener = haproxy::WRITE;
            format!("say '{what} health {listener}/{}{suffix}'", leader.name)
        })
        .collect();
    lines.join("\n")
}

/// A step on the hosts of HAProxy, in words.
struct Draft {
    name: &'static str,
    why: String,
    change: String,
    script: Script,
}

fn push(
    plan: &mut Plan,
    cluster: &Cluster,
    found: &Found,
    after: &[StepId],
    draft: &Draft,
) -> Vec<StepId> {
    let runs = |node: &&Node| {
        let facts = found.facts.get(&node.name);
        facts.is_some_and(|facts| facts.unit("haproxy").is_active())
    };
    let doors = cluster.with_role(Role::Haproxy).filter(runs);
    doors.map(|door| step(plan, door, after, draft)).collect()
}

fn step(plan: &mut Plan, door: &Node, after: &[StepId], draft: &Draft) -> StepId {
    // A reload would undo it.
    let reloads = plan.steps.iter().enumerate();
    let reloads = reloads
        .filter(|(_, step)| step.host == door.name && step.units.contains(&"haproxy"))
        .map(|(id, _)| id);
    let after = reloads.chain(after.iter().copied()).collect();
    plan.push(Step {
        host: door.name.clone(),
        name: draft.name,
        why: draft.why.clone(),
        after,
        changes: vec![Change::Other(draft.change.clone())],
        action: Action::Run(draft.script.clone()),
        limit: Duration::from_secs(30),
        units: vec!["haproxy"],
    })
}
