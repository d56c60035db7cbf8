//! Asks the hosts how old their software is.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::join_all;

use super::connected::Connected;
use crate::{
    cluster::{Cluster, Node},
    error::Result,
    facts::{self, Depth, Upkeep},
    inventory::HostName,
    plan,
};

/// How long a host may take to answer.
const ANSWER: Duration = Duration::from_secs(60);
/// The same if apt fetches its lists of packages first, and may have to wait for its locks.
const REFRESHED: Duration = Duration::from_secs(300);

impl Connected<'_> {
    /// What all hosts of the cluster say.
    pub(super) async fn upkeep(
        &self,
        cluster: &Cluster,
        depth: Depth,
    ) -> Result<BTreeMap<HostName, Upkeep>> {
        let asked = cluster.nodes.values().map(async |node| {
            let said = self.upkeep_of(node, depth).await;
            said.map(|said| (node.name.clone(), said))
        });
        join_all(asked).await.into_iter().collect()
    }

    /// What one host says.
    pub(super) async fn upkeep_of(&self, node: &Node, depth: Depth) -> Result<Upkeep> {
        let script = facts::upkeep(&self.context.inventory, node, depth, plan::LOCKS);
        let limit = match depth {
            Depth::Running => ANSWER,
            Depth::Refreshed => REFRESHED,
        };
        let quiet = |_, _: &str| {};
        let said = self.remote.run(&node.name, &script, limit, &quiet).await?;
        facts::parse_upkeep(&said.stdout)
            .map_err(|error| error.on(&node.name).excerpt("stderr", said.stderr))
    }
}
