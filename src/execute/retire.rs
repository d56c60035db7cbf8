//! Steps for members that leave the cluster.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{Context, Latest, Say, action};
use crate::{
    error::{Code, Error, Result},
    event::Stream,
    inventory::HostName,
    plan::{self, Step, retire::LET_GO},
    poll,
    remote::Script,
    services::postgres::patroni::{self, Patroni},
    switchover::Handover,
};

/// How often to look, and to wake the members.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a candidate may take to become the leader.
const PROMOTION: Duration = Duration::from_secs(60);
/// How long a host may take to list its slots.
const LISTING: Duration = Duration::from_secs(15);

/// Waits until Patroni has read the tag `nofailover`. A member that does not answer takes part in no
/// election, and the next step stops it.
pub(super) async fn not_electable(step: &Step, context: &Context, say: Say<'_>) -> Result<()> {
    let latest = Latest::default();
    let tagged = poll::until(step.limit, PAUSE, || async {
        match Patroni::on(&context.http, &step.host).status().await {
            Err(error) => {
                say(
                    Stream::Stdout,
                    &format!("its Patroni does not answer: {}", error.told_of(&step.host)),
                );
                Ok(())
            }
            Ok(status) if status.tags.contains_key("nofailover") => Ok(()),
            Ok(_) => {
                let waits = "its Patroni has not read the tag nofailover yet";
                latest.say(waits.into(), say);
                action::wake(context).await;
                Err(Error::new(Code::StepTimedOut, waits))
            }
        }
    });
    if let Err(over) = tagged.await {
        say(
            Stream::Stdout,
            &format!("{}; it is stopped next", over.last.what()),
        );
    }
    Ok(())
}

/// Makes a member that stays the leader. Which members can take over changes while others leave: a
/// synchronous cluster needs a moment to choose another standby.
pub(super) async fn lead_elsewhere(
    leaving: &[HostName],
    step: &Step,
    context: &Context,
    say: Say<'_>,
) -> Result<()> {
    let latest = Latest::default();
    let handed = poll::until(step.limit, PAUSE, || async {
        let mut survey = patroni::survey(&context.http, &context.cluster).await;
        let leader = patroni::leader_of(&survey).cloned();
        let Some(leader) = leader else {
            return Err(Error::new(Code::NoLeader, "the cluster has no leader"));
        };
        if !leaving.contains(&leader) {
            return Ok(());
        }
        survey.retain(|host, _| *host == leader || !leaving.contains(host));
        let handed = match Handover::plan(&survey, None) {
            Ok(Some(handover)) => {
                say(
                    Stream::Stdout,
                    &format!("{} hands over to {}", handover.from, handover.to),
                );
                let remote = context.remote.as_ref();
                handover
                    .run(&context.http, remote, &context.cluster, PROMOTION)
                    .await
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = &handed {
            latest.say(format!("not yet: {error}"), say);
            action::wake(context).await;
        }
        handed
    });
    handed.await.map_err(|over| over.last)
}

/// Makes Patroni drop the slot of the member that left. By itself Patroni would keep it for
/// `member_slots_ttl`, half an hour, with all WAL of that time. If only SQL drops a slot, Patroni creates
/// it again in its next loop.
pub(super) async fn drop_slot(
    on: &[HostName],
    ttl: &Value,
    step: &Step,
    context: &Context,
    say: Say<'_>,
) -> Result<()> {
    let patch = |ttl: Value| async move {
        let leader = action::leader(Duration::from_secs(30), context).await?;
        let patch = json!({"member_slots_ttl": ttl});
        Patroni::on(&context.http, &leader)
            .patch_config(&context.cluster, &patch)
            .await
    };
    let latest = Latest::default();
    let dropped = poll::until(step.limit, Duration::ZERO, || async {
        let holders = holders(on, &step.host, context).await;
        if holders.is_empty() {
            return Ok(());
        }
        if let Some(absent) = absent(on, context).await {
            let kept = format!(
                "{absent} does not answer, and would lose its slot too: Patroni drops the slot of {} by itself, within half an hour",
                step.host
            );
            say(Stream::Stdout, &kept);
            return Ok(());
        }
        let names: Vec<&str> = holders.iter().map(HostName::as_str).collect();
        let there = format!("the slot is still on {}", names.join(", "));
        latest.say(there.clone(), say);
        // This wakes all members, even if they have the value already.
        let asked = patch(json!(LET_GO)).await;
        sleep(PAUSE).await;
        Err(asked.err().unwrap_or_else(|| {
            Error::new(Code::StepTimedOut, there.clone()).hint(format!(
                "on the leader: select pg_drop_replication_slot('{}')",
                slot(&step.host)
            ))
        }))
    });
    let dropped = dropped.await.map_err(|over| over.last);
    // Also where a run that was cut off has left it so.
    let kept = patch(ttl.clone()).await;
    dropped.and(kept)
}

/// A host of `on` whose Patroni does not answer. While Patroni drops the slots of absent members, that one
/// would lose its slot, too.
async fn absent<'a>(on: &'a [HostName], context: &Context) -> Option<&'a HostName> {
    let survey = patroni::survey(&context.http, &context.cluster).await;
    on.iter()
        .find(|host| !survey.get(host).is_some_and(Result::is_ok))
}

/// The hosts of `on` that have the slot of `member`. A host that does not answer has no slot that pgherd
/// could drop.
async fn holders(on: &[HostName], member: &HostName, context: &Context) -> Vec<HostName> {
    let sql = format!(
        "select 'slot' from pg_replication_slots where slot_name = '{}'",
        slot(member)
    );
    let script = plan::local_query(Script::probe(""), &context.cluster, &sql);
    let script = &script;
    let asked = on.iter().map(|host| async move {
        let silent = |_, _: &str| {};
        let output = context.remote.run(host, script, LISTING, &silent).await;
        output
            .is_ok_and(|output| output.stdout.trim() == "slot")
            .then(|| host.clone())
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// The name of a member's slot (Patroni 4.1.5, `slot_name_from_member_name`). A host's name has only
/// letters, digits and hyphens.
fn slot(member: &HostName) -> String {
    member.as_str().to_lowercase().replace('-', "_")
}
