//! The state of a cluster for verbs that only look: its services and its members.

use super::{
    at_work::{self, AtWork},
    certificates::Certificates,
    connected::Connected,
    context::Context,
    hosts::HostStatus,
    observe::Observed,
};
use crate::{
    error::{Error, Result},
    event::Events,
    plan::{
        lost,
        membership::{self, Finding, Left},
    },
    provider::Balancer,
    verify::{self, Filesystem},
};

pub(crate) use crate::services::health::{Mark, Rows, Shown, UnitRow};

/// Everything that `status` shows.
pub(crate) struct Status {
    pub observed: Observed,
    /// What each service's own health says, in the table's order.
    pub services: Vec<Shown>,
    /// Hosts that belong to the cluster and are not in the inventory.
    pub left: Vec<Left>,
    /// Differences between the members and the inventory.
    pub differs: Vec<Finding>,
    pub certificates: Certificates,
    /// No host has the database, and the repository has backups of it.
    pub lost: Option<Error>,
    /// What is before the front doors, or why that is not known.
    pub balancer: Result<Option<Balancer>>,
    /// The filesystems that the cluster writes to, on the hosts that answer.
    pub disks: Vec<Filesystem>,
}

/// Observes a cluster of which at least one host runs.
pub(crate) async fn look(context: &Context, hosts: &HostStatus) -> Result<Status> {
    let (events, _quiet) = Events::channel();
    context
        .on_some(
            hosts.some(context)?,
            &hosts.stopped,
            &events,
            async |connected| gather(connected, hosts).await,
        )
        .await
}

async fn gather(connected: &Connected<'_>, hosts: &HostStatus) -> Result<Status> {
    let (observed, balancer) =
        tokio::join!(connected.look(), connected.context.provider.balancer());
    let observed = observed?;
    let services = connected.prover(&observed).show(&observed.found).await;
    // What is stopped or does not answer may have the database.
    let all_seen = hosts.stopped.is_empty() && observed.unreachable.is_empty();
    let lost = (all_seen && !observed.found.restores)
        .then(|| lost::told(&observed.cluster, &observed.found))
        .flatten();
    Ok(Status {
        lost,
        left: membership::left(
            &connected.context.inventory,
            &observed.found,
            &hosts.undeclared,
        ),
        differs: membership::findings(&observed.cluster, &observed.found),
        certificates: Certificates::of(connected.context, &observed, &connected.http.lapsed())?,
        disks: verify::filesystems(&observed.cluster, &observed.found.facts).0,
        services,
        observed,
        balancer,
    })
}

impl Status {
    /// The services for which `status` shows only their units.
    pub(crate) fn units(&self) -> impl Iterator<Item = &UnitRow> {
        self.services.iter().flat_map(|service| &service.units)
    }

    /// An error if a host that runs could not be read. No check needs to ask it again.
    pub(crate) fn of_all(self) -> Result<()> {
        self.observed.whole().map(|_| ())
    }

    /// The run that has the hosts.
    pub(crate) fn at_work(&self) -> Option<AtWork> {
        at_work::seen(&self.observed.found.facts)
    }
}
