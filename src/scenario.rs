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
    /// The host of a front door dies: the host that has `haproxy.vip`, or the first one.
    HaproxyDown,
    /// Patroni is stopped on a replica, the synchronous one if there is one.
    ReplicaDown,
    /// The repository of the backups is stopped, so that WAL waits.
    ArchiveDown,
    /// A table of the drill's own is dropped, and brought back from the backups.
    DropTable,
    /// etcd is stopped on all of its hosts.
    EtcdDown,
    /// Patroni is stopped on the leader and stops PostgreSQL cleanly.
    StopLeader,
    /// Patroni and PostgreSQL on the leader are killed.
    KillLeader,
    /// The leader's host dies.
    CrashHost,
    /// The leader's host is cut off from the network.
    IsolateLeader,
    /// pgherd breaks nothing: another person or program may.
    Watch,
}

impl Scenario {
    /// Every scenario that breaks something, the mildest first. `all` runs them in this order.
    pub const ALL: [Scenario; 11] = [
        Scenario::Switchover,
        Scenario::HaproxyRestart,
        Scenario::HaproxyDown,
        Scenario::ReplicaDown,
        Scenario::ArchiveDown,
        Scenario::DropTable,
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
            Scenario::ArchiveDown => "archive-down",
            Scenario::DropTable => "drop-table",
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

    /// Whether writes can continue only if another member becomes the leader.
    ///
    /// After its PostgreSQL was killed, the leader may restart by itself, so a new leader is possible and not
    /// certain.
    pub fn moves_leader(self) -> bool {
        matches!(
            self,
            Scenario::Switchover
                | Scenario::StopLeader
                | Scenario::CrashHost
                | Scenario::IsolateLeader
        )
    }

    /// How many seconds the timing settings allow writes to be refused.
    ///
    /// Sources: Patroni's documentation of failover (the key of a lost leader ends `ttl` after its last
    /// renewal, then follows one REST request with a 2 s timeout), and pgherd's own limit for planned changes.
    pub fn bound(self, inventory: &Inventory) -> f64 {
        let patroni = &inventory.patroni;
        let ttl = f64::from(patroni.ttl);
        match self {
            Scenario::Switchover | Scenario::StopLeader | Scenario::HaproxyRestart => 2.0,
            // Two seconds of silence, and TCP's retransmission after one second, or three.
            Scenario::HaproxyDown if inventory.haproxy.vip.is_some() => 3.0,
            // The time until a client gives up a silent connection, and one more attempt at the same host.
            Scenario::HaproxyDown => 8.0,
            Scenario::Watch | Scenario::ArchiveDown | Scenario::DropTable => 0.0,
            // Without failsafe_mode the leader steps down, and leads again only when etcd is back.
            Scenario::EtcdDown if patroni.failsafe => 0.0,
            Scenario::ReplicaDown if !patroni.synchronous => 0.0,
            // A commit waits for the lost standby until the leader's next loop removes it.
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
