//! The plans of `pause`, `resume`, `reinit`, `restart` and `failover`, and the reasons to refuse them.

use std::time::Duration;

pub use super::seen::Seen;
use super::{
    Action, Change, Plan, Step, StepId,
    in_turn::{HANDING_OVER, RESTARTING, Turn},
    waits::{COPYING, await_streaming},
};
use crate::{
    error::{Code, Error, Result},
    inventory::{HostName, Role},
};

/// By how many bytes a replica may fall back while the user reads a question.
const DRIFT: u64 = 1 << 20;

/// Pauses or resumes; an empty plan if every member that answers is in that state already.
pub fn pause(seen: &Seen<'_>, paused: bool) -> Result<Plan> {
    let mut plan = Plan::default();
    let answering: Vec<&HostName> = seen
        .survey
        .iter()
        .filter(|(_, status)| status.is_ok())
        .map(|(host, _)| host)
        .collect();
    let Some(first) = answering.first() else {
        let mut error = Error::new(Code::PatroniUnreachable, "no member's Patroni answers")
            .left("nothing was changed");
        for told in seen
            .survey
            .values()
            .filter_map(|status| status.as_ref().err())
        {
            error = error.cause(told.to_string());
        }
        return Err(error.hint("see why: pgherd status"));
    };
    let name = if paused { "pause" } else { "resume" };
    let there = |host: &&HostName| {
        seen.status(host)
            .is_some_and(|status| status.pause == paused)
    };
    let said = seen.topology.is_none_or(|it| it.pause == paused);
    if said && answering.iter().all(there) {
        let word = if paused { "paused" } else { "not paused" };
        plan.skip(first, name, format!("every member says that it is {word}"));
        return Ok(plan);
    }
    let loop_wait = u64::from(seen.cluster.inventory.patroni.loop_wait);
    plan.push(Step {
        host: seen.leader().unwrap_or(first).to_owned(),
        name,
        why: if paused {
            "you asked for a pause".into()
        } else {
            "nothing fails over while it is paused".into()
        },
        after: Vec::new(),
        changes: vec![Change::Other(if paused {
            "nothing fails over any more".into()
        } else {
            "failover is possible again".into()
        })],
        action: Action::SetPause(paused),
        limit: Duration::from_secs(loop_wait + 20),
        units: vec!["patroni"],
    });
    Ok(plan)
}

/// Refuses a plan that the user agreed to if the cluster has changed since. `before` and `agreed` are the
/// cluster and the plan at the time of the question, `now` and `plan` those after the answer.
///
/// `host` is the member that the user named.
pub fn still(
    (before, agreed): (&Seen<'_>, &Plan),
    (now, plan): (&Seen<'_>, &Plan),
    host: Option<&HostName>,
) -> Result<()> {
    let name = |leader: Option<&HostName>| leader.map_or("nobody", HostName::as_str).to_owned();
    let mut changed = Vec::new();
    if before.leader() != now.leader() {
        let (was, is) = (name(before.leader()), name(now.leader()));
        changed.push(format!("{was} led when you were asked, and {is} leads now"));
    } else if agreed != plan {
        changed.push("the steps would differ now from those that you agreed to".to_owned());
    }
    if let Some(host) = host {
        if before.is_synchronous(host) && !now.is_synchronous(host) {
            changed.push(format!("{host} is no longer a synchronous standby"));
        }
        let further = match (before.lag(host), now.lag(host)) {
            (Some(was), Some(is)) => is > was.saturating_add(DRIFT),
            (Some(_), None) => true,
            (None, _) => false,
        };
        if further {
            let is = now.lag(host);
            let is = is.map_or_else(|| "unknown".to_owned(), |bytes| format!("{bytes} bytes"));
            changed.push(format!("{host} is further behind now: {is}"));
        }
    }
    if changed.is_empty() {
        return Ok(());
    }
    let error = Error::new(
        Code::ClusterChanged,
        "the cluster has changed since you were asked",
    );
    let error = changed.into_iter().fold(error, Error::cause);
    Err(error
        .left("nothing was changed")
        .hint("run the same command again: it says what it would do now"))
}

/// Makes a replica copy its data again.
pub fn reinit(seen: &Seen<'_>, host: &HostName) -> Result<Plan> {
    let untouched = "nothing was changed";
    let leader = seen.leader();
    if leader == Some(host) {
        return Err(Error::new(
            Code::NotPossibleNow,
            format!("{host} is the leader: its data is the cluster's"),
        )
        .left(untouched)
        .hint("let another member lead first: pgherd switchover"));
    }
    seen.refuse_paused("Patroni would not start PostgreSQL after the copy")?;
    let Some(leader) = leader else {
        return Err(Error::new(
            Code::NotPossibleNow,
            "no member leads, so there is no data to copy",
        )
        .left(untouched)
        .hint("see what the members say: pgherd status")
        .hint("make a healthy member the leader: pgherd failover --to HOST"));
    };
    if let Some(Err(error)) = seen.survey.get(host) {
        return Err(Error::new(
            Code::PatroniUnreachable,
            format!("Patroni on {host} does not answer, and only Patroni can copy data there"),
        )
        .on(host)
        .cause(error.to_string())
        .left(untouched)
        .hint(format!("see why: pgherd logs {host} patroni"))
        .hint("start what does not run: pgherd up"));
    }
    let mut plan = Plan::default();
    let begun = plan.push(Step {
        host: host.clone(),
        name: "reinit",
        why: "its data must be a copy of the leader's".into(),
        after: Vec::new(),
        changes: vec![Change::Other(format!(
            "the data on {host} is removed and copied from {leader}"
        ))],
        action: Action::Reinitialize,
        limit: Duration::from_secs(120),
        units: vec!["patroni"],
    });
    await_streaming(&mut plan, host, vec![begun], COPYING);
    Ok(plan)
}

/// Which members to restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which<'a> {
    All,
    One(&'a HostName),
}

/// Restarts PostgreSQL: replicas one at a time, each one back before the next one restarts. Then the leader
/// hands over and restarts as a replica. With `pending`, only members with a parameter that waits for it.
///
/// `doors` are the front doors that run: they lead no reads to a member that is about to restart.
pub fn restart(
    seen: &Seen<'_>,
    which: Which<'_>,
    pending: bool,
    doors: &[HostName],
) -> Result<Plan> {
    let untouched = "nothing was restarted";
    seen.refuse_paused("a member that does not come back would not be replaced")?;
    let Some(leader) = seen.leader() else {
        return Err(Error::new(
            Code::NotPossibleNow,
            "no member leads, so a replica could not follow after its restart",
        )
        .left(untouched)
        .hint("see what the members say: pgherd status"));
    };
    let mut chosen: Vec<&HostName> = seen
        .cluster
        .with_role(Role::Postgres)
        .map(|node| &node.name)
        .filter(|host| which == Which::All || which == Which::One(host))
        .collect();
    for host in &chosen {
        if let Some(Err(error)) = seen.survey.get(*host) {
            return Err(Error::new(
                Code::PatroniUnreachable,
                format!("Patroni on {host} does not answer"),
            )
            .on(host)
            .cause(error.to_string())
            .left(untouched)
            .hint("restart one member alone: pgherd restart HOST"));
        }
    }
    let mut plan = Plan::default();
    if pending {
        chosen.retain(|host| seen.status(host).is_some_and(|it| it.pending_restart));
    }
    if chosen.is_empty() {
        plan.skip(
            leader,
            "restart-postgresql",
            "no parameter waits for a restart",
        );
        return Ok(plan);
    }
    let replicas = seen.cluster.with_role(Role::Postgres).count() > 1;
    if replicas && chosen.contains(&leader) {
        refuse_without_successor(seen, leader)?;
    }
    if pending && which == Which::All {
        plan.push(restart_pending(leader));
        return Ok(plan);
    }
    chosen.sort_by_key(|host| *host == leader);
    let mut last: Vec<StepId> = Vec::new();
    for host in chosen {
        let turn = Turn::of(seen, host, doors);
        let restart = |plan: &mut Plan, after| {
            plan.push(Step {
                host: host.clone(),
                name: "restart-postgresql",
                why: if pending {
                    "a parameter waits for it".into()
                } else {
                    "it was asked for".into()
                },
                after,
                changes: vec![Change::Other("PostgreSQL restarts".into())],
                action: Action::RestartPostgres {
                    leads: turn.leads && !turn.has_others,
                    // A leader that has handed over has restarted by that.
                    since: seen
                        .status(host)
                        .and_then(|status| status.postmaster_start_time.clone()),
                },
                limit: RESTARTING,
                units: vec!["patroni"],
            })
        };
        last = turn.plan(&mut plan, last, restart);
    }
    Ok(plan)
}

/// The step that `up` also has for parameters that wait.
fn restart_pending(leader: &HostName) -> Step {
    Step {
        host: leader.clone(),
        name: "restart-pending",
        why: "some parameters only take effect when PostgreSQL starts".into(),
        after: Vec::new(),
        changes: vec![Change::Other(
            "PostgreSQL restarts where a parameter waits for it".into(),
        )],
        action: Action::RestartPending,
        limit: RESTARTING,
        units: vec!["patroni"],
    }
}

pub(super) fn refuse_without_successor(seen: &Seen<'_>, leader: &HostName) -> Result<()> {
    let streams = seen.status(leader).is_some_and(|status| {
        let mut members = seen.cluster.with_role(Role::Postgres);
        members.any(|node| node.name != *leader && status.streams_to(&node.name))
    });
    if streams {
        return Ok(());
    }
    Err(Error::new(
        Code::NotPossibleNow,
        format!("{leader} leads, and no replica that could take over streams from it"),
    )
    .left("nothing was restarted")
    .hint("see what is wrong with the replicas: pgherd status"))
}

/// Makes `to` the leader, whatever happens to the present leader. With `force`, also a member that may lack
/// commits although the cluster is synchronous.
pub fn failover(seen: &Seen<'_>, to: &HostName, force: bool) -> Result<Plan> {
    let refused = |what: String| Error::new(Code::NotPossibleNow, what).left("nothing was changed");
    let others = "see which member is fit: pgherd status";
    if seen.leader() == Some(to) {
        return Err(refused(format!("{to} leads already")));
    }
    let status = match seen.survey.get(to) {
        Some(Ok(status)) => status,
        Some(Err(error)) => {
            return Err(refused(format!("Patroni on {to} does not answer"))
                .cause(error.to_string())
                .hint(others));
        }
        None => return Err(refused(format!("{to} is no member")).hint(others)),
    };
    if !status.is_running() {
        return Err(refused(format!(
            "PostgreSQL on {to} does not run ({})",
            status.state
        ))
        .hint(others));
    }
    if seen.topology.is_none() {
        return Err(Error::new(
            Code::EtcdUnreachable,
            "no member sees the cluster in the DCS, and without it none may lead",
        )
        .left("nothing was changed")
        .hint("see how etcd is: pgherd status"));
    }
    if seen.waits_for_standbys() && !seen.is_synchronous(to) && !force {
        let mut error = refused(format!(
            "{to} is not a synchronous standby: it may lack commits that were acknowledged"
        ));
        let fit: Vec<&str> = seen
            .survey
            .keys()
            .filter(|host| seen.is_synchronous(host))
            .map(HostName::as_str)
            .collect();
        if !fit.is_empty() {
            error = error.cause(format!("synchronous: {}", fit.join(", ")));
        }
        return Err(error.hint("if no other is left, --force accepts it"));
    }
    let mut plan = Plan::default();
    let ttl = u64::from(seen.cluster.inventory.patroni.ttl);
    plan.push(Step {
        host: to.clone(),
        name: "failover",
        why: "a failover to it was requested".into(),
        after: Vec::new(),
        changes: vec![Change::Other(format!("{to} becomes the leader"))],
        action: Action::FailOver,
        limit: HANDING_OVER + Duration::from_secs(ttl),
        units: vec!["patroni"],
    });
    Ok(plan)
}
