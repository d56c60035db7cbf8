//! Plans the database hosts' units: when each one starts, reloads or restarts, and what must follow.

use std::time::Duration;

use serde_json::Value;

use super::{
    Action, Change, Found, Plan, Step, StepId,
    components::{self, Configured, Turn},
    config_patch, monitor, parameters, pooler, public_schema, reconnect, roles, rolling_restart,
    sessions,
    waits::{COPYING, FORMING, await_leader, await_streaming},
};
use crate::{
    cluster::{Cluster, Node},
    facts::DataFact,
    inventory::{HostName, Role},
    services::postgres::PATRONI,
};

/// The step that makes every Patroni run its loop, so that a reloaded config is used.
pub(super) const TAKE_OVER: &str = "take-over";

/// The step that restarts members with parameters that wait for it.
pub(super) const RESTART_PENDING: &str = "restart-pending";

/// The cluster's databases, as observed and as configured.
pub(super) struct Members<'a> {
    cluster: &'a Cluster,
    found: &'a Found,
    databases: &'a [(&'a Node, Configured)],
    /// The host at which steps are shown that concern the whole cluster.
    first: &'a Node,
    /// The leader according to the DCS.
    leader: Option<&'a str>,
    /// The member that accepts writes according to PostgreSQL itself, which is known even while etcd is away.
    primary: Option<&'a str>,
    /// No member has a database yet.
    fresh: bool,
    /// No member accepts writes, according to all members and the DCS: there is no service to keep up.
    idle: bool,
    /// The DCS could not be read, because its hosts could not be observed.
    blind: bool,
    /// The member that must lead before any other one starts.
    newest: Option<&'a HostName>,
}

/// What was started or reloaded.
#[derive(Default)]
struct Begun<'a> {
    steps: Vec<StepId>,
    /// Members that did not run.
    woken: Vec<&'a Node>,
}

impl<'a> Members<'a> {
    /// `None` if no database host could be observed.
    pub(super) fn of(
        cluster: &'a Cluster,
        found: &'a Found,
        databases: &'a [(&'a Node, Configured)],
    ) -> Option<Self> {
        let facts = |node: &Node| found.facts.get(&node.name);
        let (first, _) = databases.first()?;
        let has_database = |(node, configured): &(&Node, Configured)| {
            !configured.cleared
                && facts(node)
                    .and_then(|facts| facts.data.as_ref())
                    .is_some_and(|data| data.entries > 0 && !data.is_half_made())
        };
        let primary = databases
            .iter()
            .find(|(node, _)| facts(node).is_some_and(|facts| facts.in_recovery == Some(false)));
        let blind = found.dcs.is_none()
            && cluster
                .with_role(Role::Etcd)
                .any(|node| facts(node).is_none());
        let unseen = cluster
            .with_role(Role::Postgres)
            .any(|node| facts(node).is_none());
        let leader = found.dcs.as_ref().and_then(|keys| keys.leader.as_deref());
        Some(Self {
            cluster,
            found,
            databases,
            first,
            leader,
            primary: primary.as_ref().map(|(node, _)| node.name.as_str()),
            fresh: !databases.iter().any(has_database),
            idle: leader.is_none() && primary.is_none() && !blind && !unseen,
            blind,
            newest: None,
        })
    }

    /// The same; `newest` must lead before any other member starts.
    pub(super) fn led_by(mut self, newest: Option<&'a HostName>) -> Self {
        self.newest = newest;
        self
    }

    /// Plans everything for the databases but the end of sessions; after `dcs_ready`, the DCS can be used.
    ///
    /// Returns the steps after which a pooler can log in with its password; `None` while not all can be planned.
    pub(super) fn plan(
        &self,
        plan: &mut Plan,
        config: &Value,
        dcs_ready: &[StepId],
    ) -> Option<Vec<StepId>> {
        let (cluster, found, databases) = (self.cluster, self.found, self.databases);
        let leading = self.leader.or(self.primary);
        let restarted_alone = rolling_restart::restart_patroni_in_turn(
            plan, cluster, found, databases, leading, dcs_ready,
        );
        let at_once = |node: &Node| self.newest.is_none_or(|newest| node.name == *newest);
        let mut begun = self.begin(plan, dcs_ready, at_once);
        if found.dcs.is_none() && found.is_paused() {
            // While the cluster is paused, nothing below is executed. Most of it is planned only because etcd
            // does not say what exists.
            plan.partial = true;
            return None;
        }
        let mut led = self.await_leader(plan, &begun, &restarted_alone, dcs_ready);
        let later = self.begin(plan, &led, |node| !at_once(node));
        begun.woken.extend(later.woken);
        let lacking = roles::lacking(cluster, databases.iter().map(|(node, _)| *node), found);
        let unseen = self.primary.is_none() && (!begun.woken.is_empty() || self.leader.is_none());
        if !self.fresh && !self.blind && (!lacking.is_empty() || unseen) {
            let ensured = roles::ensure(
                plan,
                cluster,
                &self.first.name,
                found,
                &lacking,
                led.clone(),
            );
            led = vec![ensured];
        }
        let closed = public_schema::close(plan, cluster, &self.first.name, found, led.clone());
        let mut made_after = closed.map_or_else(|| led.clone(), |step| vec![step]);
        monitor::ensure(plan, cluster, &self.first.name, found, made_after.clone());
        let pooler = pooler::ensure(plan, cluster, &self.first.name, found, made_after.clone());
        made_after.extend(pooler);
        roles::accounts(plan, cluster, &self.first.name, found, made_after);
        led.extend(reconnect::reconnect(
            plan, cluster, databases, leading, &led,
        ));
        // Which member leads is known when the step begins. The leader itself has nothing to wait for.
        let waiting = if self.fresh || self.leader.is_none() || !lacking.is_empty() {
            // A member whose loaded config is unknown may stream only after its restart, which comes below.
            let may_stream = |(_, configured): &&(&Node, Configured)| {
                self.idle || !(configured.turn == Turn::Restart && configured.unheard)
            };
            let waiting = databases.iter().filter(may_stream);
            waiting.map(|(node, _)| *node).collect()
        } else {
            begun.woken
        };
        let torn: Vec<&str> = databases
            .iter()
            .filter(|member| self.has_torn_copy(member))
            .map(|(node, _)| node.name.as_str())
            .collect();
        let waiting: Vec<&Node> = waiting
            .into_iter()
            .filter(|node| !torn.contains(&node.name.as_str()))
            .collect();
        plan.partial |= !torn.is_empty();
        let mut settled = self.await_replicas(plan, &waiting, led);
        settled.extend(&restarted_alone);
        if !self.idle {
            rolling_restart::restart_in_turn(plan, databases, leading, &torn, &mut settled);
        }
        if !self.blind {
            self.settings(plan, config, settled);
        }
        // Until the database has it, PgBouncer keeps the password that works.
        let changes = pooler::changes_password(cluster, found);
        Some(pooler.into_iter().filter(|_| changes).collect())
    }

    /// Plans that sessions with an old password end.
    pub(super) fn end_sessions(&self, plan: &mut Plan) {
        let nodes: Vec<&Node> = self.databases.iter().map(|(node, _)| *node).collect();
        let leading = self.leader.or(self.primary);
        sessions::end(plan, self.cluster, self.found, &nodes, leading);
    }

    /// Whether an unfinished copy stays here for now: it is removed only when another member leads, and until
    /// then Patroni ignores it.
    fn has_torn_copy(&self, (node, configured): &(&Node, Configured)) -> bool {
        let facts = self.found.facts.get(&node.name);
        let torn = facts.is_some_and(|facts| {
            !facts.data_at_work && facts.data.as_ref().is_some_and(DataFact::is_half_made)
        });
        torn && !configured.cleared && self.leader != Some(node.name.as_str())
    }

    /// Starts those of `which` that do not run, and reloads the others, all in parallel.
    fn begin(&self, plan: &mut Plan, after: &[StepId], which: impl Fn(&Node) -> bool) -> Begun<'a> {
        let mut begun = Begun::default();
        for (node, configured) in self.databases.iter().filter(|(node, _)| which(node)) {
            // While there is no leader, a restart may be what a leader needs.
            let restarts = self.idle && configured.turn == Turn::Restart;
            if (restarts || matches!(configured.turn, Turn::Start | Turn::Reload))
                && let Some(step) =
                    components::run_unit(plan, node, Role::Postgres, configured, after)
            {
                begun.steps.push(step);
                if restarts || configured.turn == Turn::Start {
                    begun.woken.push(node);
                }
            }
        }
        begun
    }

    /// Returns the steps after which one member accepts writes.
    fn await_leader(
        &self,
        plan: &mut Plan,
        begun: &Begun<'_>,
        restarted_alone: &[StepId],
        dcs_ready: &[StepId],
    ) -> Vec<StepId> {
        // A started Patroni waits for the DCS by itself.
        let mut after = if begun.steps.is_empty() {
            dcs_ready.to_vec()
        } else {
            begun.steps.clone()
        };
        after.extend(restarted_alone);
        if begun.woken.is_empty() && self.leader.is_some() {
            return after;
        }
        vec![await_leader(plan, &self.first.name, after, FORMING)]
    }

    /// Returns the steps after which all of `waiting` stream, or `led` if none has to.
    fn await_replicas(&self, plan: &mut Plan, waiting: &[&Node], led: Vec<StepId>) -> Vec<StepId> {
        if self.databases.len() == 1 || waiting.is_empty() {
            return led;
        }
        let steps = waiting.iter();
        steps
            .map(|node| await_streaming(plan, &node.name, led.clone(), COPYING))
            .collect()
    }

    /// Plans the part of the configuration that is in the DCS, and what the members do with both parts.
    fn settings(&self, plan: &mut Plan, config: &Value, settled: Vec<StepId>) {
        let patched = self.patch_config(plan, config, settled.clone());
        let parameters = self.databases.iter().any(|(_, it)| it.parameters);
        // An earlier run may have been interrupted before the restarts.
        let waits = parameters::waits_for_restart(self.cluster, self.found);
        if !self.fresh && (patched.is_some() || parameters || waits) {
            plan.push(Step {
                host: self.first.name.clone(),
                name: RESTART_PENDING,
                why: "some parameters only take effect when PostgreSQL starts".into(),
                after: patched.map_or(settled, |step| vec![step]),
                changes: vec![Change::Other(
                    "PostgreSQL restarts where a parameter waits for it".into(),
                )],
                action: Action::RestartPending,
                limit: Duration::from_secs(600),
                units: vec!["patroni"],
            });
            return;
        }
        let reloads: Vec<StepId> = (0..plan.steps.len())
            .filter(|id| plan.steps[*id].name == PATRONI.reload)
            .collect();
        if !reloads.is_empty() {
            plan.push(Step {
                host: self.first.name.clone(),
                name: TAKE_OVER,
                why: "Patroni applies a reload in its next loop, which may be seconds away".into(),
                after: reloads,
                changes: vec![Change::Other("every Patroni runs its loop now".into())],
                action: Action::TakeOver,
                limit: Duration::from_secs(30),
                units: vec!["patroni"],
            });
        }
    }

    fn patch_config(
        &self,
        plan: &mut Plan,
        config: &Value,
        settled: Vec<StepId>,
    ) -> Option<StepId> {
        let known = self
            .found
            .dcs
            .as_ref()
            .and_then(|keys| keys.config.as_ref());
        let (patch, mut changes) = config_patch(known, config);
        if known.is_none() {
            // The cluster begins with a short loop, so that replicas need not wait for slots. This is the only
            // difference from the final configuration.
            changes.retain(
                |change| matches!(change, Change::Setting { key, .. } if key == "loop_wait"),
            );
        }
        if changes.is_empty() {
            let right = "the DCS has the inventory's settings";
            plan.skip(&self.first.name, "patch-config", right);
            return None;
        }
        let patch = if known.is_none() {
            config.clone()
        } else {
            patch
        };
        Some(plan.push(Step {
            host: self.first.name.clone(),
            name: "patch-config",
            why: "the cluster-wide configuration is not as the inventory says".into(),
            after: settled,
            changes,
            action: Action::PatchConfig(patch),
            limit: Duration::from_secs(30),
            units: vec!["patroni"],
        }))
    }
}
