//! The scenarios of drills, and the outage that the timing settings allow for each.

use serde::{Deserialize, Serialize};

use crate::inventory::Inventory;

/// A way to break a cluster on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// A planned change of leader.
    Switchover,
    /// HAProxy is restarted.
    HaproxyRestart,
    /// The host of a front door dies: the one with `haproxy.vip`, or the first.
    HaproxyDown,
    /// Patroni is stopped on a replica, the synchronous one if there is one.
    ReplicaDown,
    /// etcd is stopped on all of its hosts.
    EtcdDown,
    /// Patroni is stopped on the leader, and PostgreSQL with it, in good order.
    StopLeader,
    /// Patroni and PostgreSQL on the leader are killed.
    KillLeader,
    /// The leader's host dies.
    CrashHost,
    /// The leader's host is cut off from the network.
    IsolateLeader,
    /// Nothing is broken: whatever happens, somebody else does it.
    Watch,
}

impl Scenario {
    /// Every way to break something, the gentlest first: the order of `all`.
    pub const ALL: [Scenario; 9] = [
        Scenario::Switchover,
        Scenario::HaproxyRestart,
        Scenario::HaproxyDown,
        Scenario::ReplicaDown,
        Scenario::EtcdDown,
        Scenario::StopLeader,
        Scenario::KillLeader,
        Scenario::CrashHost,
        Scenario::IsolateLeader,
    ];

    /// The name on the command line and in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Scenario::Switchover => "switchover",
            Scenario::HaproxyRestart => "haproxy-restart",
            Scenario::HaproxyDown => "haproxy-down",
            Scenario::ReplicaDown => "replica-down",
            Scenario::EtcdDown => "etcd-down",
            Scenario::StopLeader => "stop-leader",
            Scenario::KillLeader => "kill-leader",
            Scenario::CrashHost => "crash-host",
            Scenario::IsolateLeader => "isolate-leader",
            Scenario::Watch => "watch",
        }
    }

    /// The scenario of that name.
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter().chain([Scenario::Watch]);
        all.find(|scenario| scenario.as_str() == name)
    }

    /// Whether another member must lead afterwards for writes to go on.
    ///
    /// A leader that was killed comes back by itself, so there it may or may not.
    pub fn moves_leader(self) -> bool {
        matches!(
            self,
            Scenario::Switchover
                | Scenario::StopLeader
                | Scenario::CrashHost
                | Scenario::IsolateLeader
        )
    }

    /// Seconds that writes may be refused by what the timing settings say.
    ///
    /// Sources: Patroni's own account of failover (a lost leader's key ends `ttl` after its last
    /// renewal, then one REST round with a 2 s timeout), and what pgherd promises for planned changes.
    pub fn bound(self, inventory: &Inventory) -> f64 {
        let patroni = &inventory.patroni;
        let ttl = f64::from(patroni.ttl);
        match self {
            Scenario::Switchover | Scenario::StopLeader | Scenario::HaproxyRestart => 2.0,
            // Two seconds of silence, and TCP, which sends again after one second, or three.
            Scenario::HaproxyDown if inventory.haproxy.vip.is_some() => 3.0,
            // Until a client gives up a connection to which nobody answers, and one more to the same host.
            Scenario::HaproxyDown => 8.0,
            Scenario::Watch => 0.0,
            // Without failsafe_mode the leader steps down, and leads again only with etcd.
            Scenario::EtcdDown if patroni.failsafe => 0.0,
            Scenario::ReplicaDown if !patroni.synchronous => 0.0,
            // A commit waits for the standby that went until the leader's next loop drops it.
            Scenario::ReplicaDown => f64::from(patroni.loop_wait) + 1.0,
            Scenario::EtcdDown
            | Scenario::KillLeader
            | Scenario::CrashHost
            | Scenario::IsolateLeader => ttl + 2.0,
        }
    }
}

impl std::fmt::Display for Scenario {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_the_command_line_use_one_name() {
        for scenario in Scenario::ALL.into_iter().chain([Scenario::Watch]) {
            let json = serde_json::to_value(scenario).expect("a plain enum");
            assert_eq!(json, scenario.as_str());
            assert_eq!(Scenario::named(scenario.as_str()), Some(scenario));
        }
        assert_eq!(Scenario::named("all"), None);
    }
}
