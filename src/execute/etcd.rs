//! Changes of etcd's membership: each through a member that stays, and repeated until etcd allows it.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;

use super::{Context, Latest, Say, wait::UnitWatch};
use crate::{
    error::{Code, Error, Result},
    inventory::{HostName, Role},
    plan::Step,
    poll,
    services::etcd::{Etcd, Member, View},
};

/// How often to try: for about five seconds after a change, etcd refuses the next one.
const PAUSE: Duration = Duration::from_millis(300);

/// A member that answers, and its list.
struct Asked<'a> {
    etcd: Etcd<'a>,
    members: Vec<Member>,
}

impl Asked<'_> {
    /// The members that may lead instead of the step's host.
    fn heir(&self, step: &Step, context: &Context) -> Option<&Member> {
        let stays = |member: &&Member| {
            let mut declared = context.cluster.with_role(Role::Etcd);
            !member.is_learner
                && declared
                    .any(|node| node.name != step.host && member.host() == Some(node.name.as_str()))
        };
        self.members.iter().find(stays)
    }

    fn entry(&self, host: &HostName) -> Option<&Member> {
        let mut members = self.members.iter();
        members.find(|member| member.host() == Some(host.as_str()))
    }
}

/// A declared member, other than the step's host, that answers.
async fn ask<'a>(step: &Step, context: &'a Context) -> Result<Asked<'a>> {
    let mut last = Error::new(Code::EtcdUnreachable, "no other etcd answers");
    for node in context.cluster.with_role(Role::Etcd) {
        if node.name == step.host {
            continue;
        }
        let etcd = Etcd::on(&context.http, &node.name);
        match etcd.view().await {
            Ok(View { members, .. }) => return Ok(Asked { etcd, members }),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The wanted state of the list.
pub(super) enum Change<'a> {
    /// The step's host is in it, as a learner with this URL.
    Add { peer_url: &'a str },
    /// The step's host votes, and every member gives the same list.
    Promote,
    /// The member with this id is not in it.
    Remove { id: &'a str },
}

enum Done {
    Yes,
    Asked,
}

/// etcd's message, on one line.
fn refusal(error: &Error) -> String {
    let said: Option<serde_json::Value> = error
        .causes()
        .iter()
        .find_map(|cause| serde_json::from_str(cause.as_ref()).ok());
    let said = said.and_then(|said| Some(said["message"].as_str()?.to_owned()));
    said.map_or_else(
        || error.what().to_owned(),
        |said| format!("etcd says: {said}"),
    )
}

/// Repeats it until it is done or the step's time is over. Reports meanwhile what is missing.
pub(super) async fn change(
    change: Change<'_>,
    step: &Step,
    context: &Context,
    say: Say<'_>,
) -> Result<()> {
    let latest = Latest::default();
    let unit = UnitWatch::new();
    let changed = poll::until(step.limit, PAUSE, || async {
        let error = match attempt(&change, step, context).await {
            Ok(Done::Yes) => return Ok(Ok(())),
            // The next look shows the result.
            Ok(Done::Asked) => Error::new(Code::StepTimedOut, "etcd has not done it yet"),
            Err(error) => {
                latest.say(refusal(&error), say);
                error
            }
        };
        match unit.look(step, context).await {
            Ok(()) => Err(error),
            Err(pointless) => Ok(Err(pointless)),
        }
    });
    let left = "the other members go on; the next run continues from here";
    changed
        .await
        .unwrap_or_else(|over| Err(over.last.left(left)))
}

/// Checks whether the list is as wanted; if not, asks etcd to change it.
async fn attempt(change: &Change<'_>, step: &Step, context: &Context) -> Result<Done> {
    let asked = ask(step, context).await?;
    let entry = asked.entry(&step.host);
    match change {
        Change::Add { .. } if entry.is_some() => return Ok(Done::Yes),
        Change::Add { peer_url } => asked.etcd.add_learner(peer_url).await?,
        Change::Remove { id } if asked.members.iter().all(|member| member.id != *id) => {
            return Ok(Done::Yes);
        }
        Change::Remove { id } => {
            // Removing a leader costs an election, which takes a second.
            if asked.etcd.leader().await.is_ok_and(|leader| leader == *id)
                && let Some(to) = asked.heir(step, context)
            {
                let leader = Etcd::on(&context.http, &step.host);
                if leader.move_leader(&to.id).await.is_ok() {
                    return Ok(Done::Asked);
                }
            }
            asked.etcd.remove_member(id).await?;
        }
        Change::Promote => {
            let member = entry.ok_or_else(|| {
                let what = format!("etcd has no member {}", step.host);
                Error::new(Code::ClusterNotAsDeclared, what)
            })?;
            if !member.is_learner {
                return agree(&asked.members, context).await.map(|()| Done::Yes);
            }
            asked.etcd.promote(&member.id).await?;
        }
    }
    Ok(Done::Asked)
}

/// An error unless every declared member in the list is healthy, and names the same store and the same list.
async fn agree(members: &[Member], context: &Context) -> Result<()> {
    let declared = context.cluster.with_role(Role::Etcd);
    let listed = declared.filter(|node| {
        let mut members = members.iter();
        members.any(|member| member.host() == Some(node.name.as_str()))
    });
    let views = join_all(listed.map(|node| async {
        let etcd = Etcd::on(&context.http, &node.name);
        let (view, health) = tokio::join!(etcd.view(), etcd.health());
        if !health?.healthy {
            let what = "etcd is not healthy yet";
            return Err(Error::new(Code::EtcdUnreachable, what).on(&node.name));
        }
        view.map(|view| (node.name.clone(), view))
    }))
    .await;
    let mut said: BTreeSet<(String, BTreeSet<String>)> = BTreeSet::new();
    for view in views {
        let (_, view) = view?;
        let ids = view.members.into_iter().map(|member| member.id).collect();
        said.insert((view.cluster_id, ids));
    }
    if said.len() < 2 {
        return Ok(());
    }
    Err(Error::new(
        Code::ClusterNotAsDeclared,
        "etcd's members do not tell the same list yet",
    ))
}
