//! Compares what a member's Patroni has loaded with what it should load.

use crate::{configs::PatroniConfig, facts::Facts, render::PATRONI_CONFIG};

/// How far a member's Patroni is out of date.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The member's address is, or may be, another than the one that others know.
    pub moved: bool,
    /// No etcd that it knows has, or may have, the address at which it looks for it.
    pub lost: bool,
}

impl Told {
    /// `new` is the config that the host should have.
    pub(super) fn of(facts: &Facts, new: &str) -> Self {
        let pending = facts.pending.get("patroni").map(String::as_str);
        // An interrupted run may have written a config that the running Patroni has not loaded.
        let unread = pending.is_some();
        let unheard = matches!(pending, Some("reload" | "exchange"));
        let runs = facts.in_recovery.is_some();
        let Some(old) = facts.files.get(PATRONI_CONFIG) else {
            return Self {
                moved: runs && unheard,
                lost: true,
            };
        };
        if old.content == new {
            return Self {
                moved: runs && unheard,
                lost: unread,
            };
        }
        let both = PatroniConfig::parse(&old.content).zip(PatroniConfig::parse(new));
        let both = both.as_ref();
        Self {
            moved: runs && (unheard || both.is_some_and(|(old, new)| moved(old, new))),
            lost: unread || both.is_none_or(|(old, new)| lost(old, new)),
        }
    }
}

fn moved(old: &PatroniConfig, new: &PatroniConfig) -> bool {
    old.connect_address() != new.connect_address()
}

/// Even at the right address, the protocol may be the wrong one.
fn lost(old: &PatroniConfig, new: &PatroniConfig) -> bool {
    old.asks_with_tls() != new.asks_with_tls() || old.etcd().is_disjoint(&new.etcd())
}
