//! etcd that moves to other hosts as a whole: those that are to have it join the store, and then those that had it
//! leave.
//!
//! By the inventory alone nobody could be asked: no member of the store is in it.

use super::{context::Context, run::Run};
use crate::{
    cluster::KnownHost,
    error::Result,
    inventory::{HostName, Role},
    plan::retire::Departures,
    services::etcd::{Etcd, Member},
};

/// The cluster with all that is to leave still in it, while no host that is to have etcd votes yet; `None` where etcd
/// does not move as a whole, or has done so.
pub(super) async fn joined_first(context: &Context) -> Result<Option<Context>> {
    let declared: Vec<&HostName> = context.inventory.with_role(Role::Etcd).collect();
    let known = context.workspace.members()?;
    let had = |host: &KnownHost| host.roles.contains(&Role::Etcd);
    let mut leaving = known.clone();
    leaving.retain(|host| context.leaving.include(&host.name));
    let moves = leaving
        .iter()
        .any(|host| had(host) && !declared.contains(&&host.name));
    let stay = known
        .iter()
        .filter(|host| had(host) && host.joined && declared.contains(&&host.name));
    // What a run that was cut off has noted of a host that had just joined is not enough.
    if !moves || (stay.count() > 0 && declared.len() > 1) {
        return Ok(None);
    }
    let mut wide = context.with_hosts_that_left(&leaving)?;
    wide.leaving = Departures::None;
    let hosts = wide.host_status().await?;
    let found = wide.look_anew(&hosts).await?.found;
    let voters = found.etcd.iter().filter(|member| !member.is_learner);
    let voters: Vec<&str> = voters.filter_map(Member::host).collect();
    // Where nobody answers, nobody can be joined.
    let joined = declared.iter().any(|host| voters.contains(&host.as_str()));
    Ok((!voters.is_empty() && !joined).then_some(wide))
}

/// Who leaves once the others have joined, in words.
pub(super) fn in_words(context: &Context, wide: &Context) -> Vec<String> {
    let declared = |host: &HostName| context.inventory.with_role(Role::Etcd).any(|it| it == host);
    let all = wide.inventory.with_role(Role::Etcd);
    let leave: Vec<&str> = all
        .filter(|host| !declared(host))
        .map(HostName::as_str)
        .collect();
    vec![
        format!("then {} leaves etcd; writes go on", leave.join(", ")),
        "  each Patroni is told first; then the members that stay remove it, after it has handed over".to_owned(),
    ]
}

/// Has a member lead that stays, once all have joined: the removal of one that leads would cost an election.
///
/// Where that cannot be done, the election takes a second, which nothing waits for.
pub(super) async fn lead_elsewhere(run: &Run<'_>, wide: &Context) -> Result<()> {
    let stays = |host: &str| {
        let mut declared = run.context.inventory.with_role(Role::Etcd);
        declared.any(|it| it.as_str() == host)
    };
    let hosts = wide.host_status().await?;
    wide.on(&hosts.running, &run.events, async |connected| {
        let found = connected.look().await?.found;
        let heir = found.etcd.iter().find(|it| it.host().is_some_and(stays));
        for member in &found.etcd {
            let (Some(host), Some(heir)) = (member.host().map(HostName::new), heir) else {
                continue;
            };
            let etcd = Etcd::on(&connected.http, &host);
            let leads = etcd.leader().await.is_ok_and(|leader| leader == member.id);
            if leads && !stays(host.as_str()) {
                drop(etcd.move_leader(&heir.id).await);
            }
        }
        Ok(())
    })
    .await
}

/// The same run in that cluster.
pub(super) fn run<'a>(run: &Run<'a>, wide: &'a Context) -> Run<'a> {
    Run {
        context: wide,
        events: run.events.clone(),
        folder: run.folder.clone(),
        begun: run.begun,
        cancel: run.cancel,
    }
}
