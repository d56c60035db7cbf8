//! The cluster as its members see it, for plans that are made on a running cluster.

use std::collections::BTreeMap;

use super::how_to_resume;
use crate::{
    cluster::Cluster,
    error::{Code, Error, Result},
    inventory::HostName,
    services::postgres::patroni::{self, Member, Status, Topology},
};

/// The cluster as its members see it.
pub struct Seen<'a> {
    pub cluster: &'a Cluster,
    pub survey: &'a BTreeMap<HostName, Result<Status>>,
    /// The view of one member; `None` while none answers.
    pub topology: Option<&'a Topology>,
}

impl Seen<'_> {
    pub fn leader(&self) -> Option<&HostName> {
        patroni::leader_of(self.survey)
    }

    pub(super) fn status(&self, host: &HostName) -> Option<&Status> {
        self.survey.get(host)?.as_ref().ok()
    }

    fn told(&self, host: &HostName) -> Option<&Member> {
        let members = &self.topology?.members;
        members.iter().find(|member| member.name == host.as_str())
    }

    pub fn is_paused(&self) -> bool {
        self.topology.is_some_and(|topology| topology.pause)
            || self.survey.values().flatten().any(|status| status.pause)
    }

    /// Whether `host` has every acknowledged commit, according to the DCS.
    pub fn is_synchronous(&self, host: &HostName) -> bool {
        self.told(host)
            .is_some_and(|member| is_synchronous(&member.role))
    }

    /// Whether commits wait for a standby.
    pub fn waits_for_standbys(&self) -> bool {
        let told = |topology: &Topology| {
            let mut members = topology.members.iter();
            members.any(|member| is_synchronous(&member.role))
        };
        self.cluster.inventory.patroni.synchronous || self.topology.is_some_and(told)
    }

    /// Bytes between the leader's last report to the DCS and what `host` has.
    pub fn lag(&self, host: &HostName) -> Option<u64> {
        self.told(host)?.lag.as_ref()?.as_u64()
    }

    pub(super) fn refuse_paused(&self, what: &str) -> Result<()> {
        if self.is_paused() {
            return Err(Error::new(
                Code::NotPossibleNow,
                format!("the cluster is paused: {what}"),
            )
            .left("nothing was changed")
            .hint(how_to_resume(&self.cluster.inventory)));
        }
        Ok(())
    }
}

fn is_synchronous(role: &str) -> bool {
    matches!(role, "sync_standby" | "quorum_standby")
}
