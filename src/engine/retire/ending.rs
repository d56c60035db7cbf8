//! The end of a departure: what becomes of the machines.

use super::{
    super::{connected::Connected, hosts::HostStatus, remove::weigh},
    Becomes, Retirement, Run, interrupted,
};
use crate::{
    error::{Code, Error, Result},
    inventory::HostName,
    plan,
    provider::Resource,
};

impl Retirement {
    /// Removes the machines or clears the hosts, and forgets the hosts that do not return.
    pub(in crate::engine) async fn end(&self, run: &Run<'_>) -> Result<()> {
        if self.go().next().is_none() {
            return Ok(());
        }
        match self.wide.provider.owns_hosts() {
            true => self.remove_machines(run).await?,
            false => self.clear(run).await?,
        }
        for leaver in self.go() {
            self.wide.workspace.forget(&leaver.host)?;
        }
        if self.go().any(|it| it.becomes == Becomes::New) {
            return Ok(());
        }
        let mut known = run.context.workspace.members()?;
        let owned = self.wide.provider.owns_hosts();
        for leaver in self.go() {
            run.context.workspace.forget_certificate(&leaver.host)?;
            if leaver.answers || owned {
                known.retain(|it| it.name != leaver.host);
            }
            // Its files are still there. `down` or the same command removes them once the host answers.
            let stays = known.iter_mut().filter(|it| it.name == leaver.host);
            stays.for_each(|it| it.joined = false);
        }
        run.context.workspace.note_members(&known)?;
        // The SSH config is for people who connect by hand.
        let HostStatus { running, .. } = run.context.host_status().await?;
        run.context.workspace.write_ssh_config(&running)?;
        Ok(())
    }

    async fn remove_machines(&self, run: &Run<'_>) -> Result<()> {
        let provider = &self.wide.provider;
        let id = self.wide.secrets()?.cluster_id;
        let theirs = |resource: &Resource| {
            let host = resource.host.as_ref();
            let leaves = host.is_some_and(|host| self.go().any(|it| it.host == *host));
            let kept = self.keeps_data && resource.keeps_data;
            leaves && !kept && resource.cluster_id.as_ref().is_none_or(|it| *it == id)
        };
        let mut resources = provider.resources().await?;
        resources.retain(theirs);
        if resources.is_empty() {
            return Ok(());
        }
        tokio::select! {
            removed = provider.remove(&resources, &run.events) => removed?,
            () = run.cancel.cancelled() => return Err(interrupted()),
        }
        let mut left = provider.resources().await?;
        left.retain(theirs);
        if left.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = left.iter().map(|it| it.name.as_str()).collect();
        Err(Error::new(
            Code::LeftoversRemain,
            format!("still there: {}", names.join(", ")),
        )
        .hint("run the same command again"))
    }

    /// Removes everything from the hosts that pgherd has put there.
    async fn clear(&self, run: &Run<'_>) -> Result<()> {
        let answers = |host: &HostName| {
            let mut leavers = self.go();
            leavers.any(|it| it.answers && it.host == *host)
        };
        if !self.go().any(|it| it.answers) {
            return Ok(());
        }
        let observe = async |connected: &Connected<'_>| {
            let mut observed = connected.look().await?;
            observed
                .unreachable
                .retain(|error| error.host().is_some_and(answers));
            let mut observed = observed.whole()?;
            observed.found.facts.retain(|host, _| answers(host));
            weigh(connected, &mut observed).await?;
            let plan = plan::down(&observed.cluster, &observed.files, &observed.found)?;
            Ok::<_, Error>((observed, plan))
        };
        self.wide
            .on(&self.machines, &run.events, async |connected| {
                let (observed, plan) = observe(connected).await?;
                if plan.is_empty() {
                    return Ok(());
                }
                connected.announce(&plan);
                connected
                    .carry_out(plan, &observed.cluster, run.cancel)
                    .await?;
                let (_, left) = observe(connected).await?;
                if left.is_empty() {
                    return Ok(());
                }
                Err(Error::new(Code::LeftoversRemain, "something is left")
                    .hint("run the same command again"))
            })
            .await
    }
}
