//! Turns TLS on or off on a running cluster, one stage at a time.

use std::collections::BTreeMap;

use super::context::Context;
use crate::{
    cluster::TlsStage,
    configs::{Environment, PatroniConfig},
    error::Result,
    facts::Facts,
    inventory::{HostName, Inventory},
    render::{ETCD_CONFIG, PATRONI_CONFIG},
};

impl Context {
    /// How far the cluster should use TLS now, given what its hosts do.
    pub(super) fn tls_stage(&self, facts: &BTreeMap<HostName, Facts>) -> Result<TlsStage> {
        if let Some(stage) = self.workspace.tls_stage()? {
            return Ok(stage);
        }
        let wanted = TlsStage::of(&self.inventory);
        let other = |facts: &Facts| says_tls(facts).is_some_and(|says| says != wanted.is_used());
        Ok(match (facts.values().any(other), wanted) {
            (false, _) => wanted,
            (true, TlsStage::Off) => TlsStage::Required.towards(wanted),
            (true, _) => TlsStage::Off.towards(wanted),
        })
    }
}

/// Whether the part of the cluster that has data on a host was configured for TLS; `None` if that is unknown.
fn says_tls(facts: &Facts) -> Option<bool> {
    let file = |path: &str| Some(facts.files.get(path)?.content.as_str());
    if facts.data.as_ref().is_some_and(|data| data.entries > 0) {
        return PatroniConfig::parse(file(PATRONI_CONFIG)?)?.asks_with_tls();
    }
    if facts.etcd_data {
        return Environment::parse(file(ETCD_CONFIG)?).listens_with_tls();
    }
    None
}

/// The change that is under way, for a plan that brings about its next stage.
pub(super) fn note(tls: TlsStage, inventory: &Inventory) -> Option<String> {
    let (what, left) = match (tls, inventory.tls.enabled) {
        (TlsStage::Offered, true) => ("on", "this is the first of three stages"),
        (TlsStage::Used, true) => ("on", "this is the second of three stages"),
        (TlsStage::Used, false) => ("off", "this is the first of three stages"),
        (TlsStage::Offered, false) => ("off", "this is the second of three stages"),
        (TlsStage::Off | TlsStage::Required, _) => return None,
    };
    Some(format!(
        "TLS is turned {what} while the cluster runs: {left}; the others follow in the same run"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{DataFact, FileFact, Os};

    fn host(patroni: &str) -> Facts {
        let mut facts = Facts::bare(Os::ubuntu_24_04());
        facts.files.insert(
            "/etc/patroni.yml".into(),
            FileFact {
                owner: "postgres".into(),
                group: "postgres".into(),
                mode: 0o600,
                content: patroni.into(),
            },
        );
        facts
    }

    fn with_data(patroni: &str) -> Facts {
        let mut facts = host(patroni);
        facts.data = Some(DataFact {
            entries: 20,
            ..DataFact::default()
        });
        facts
    }

    #[test]
    fn only_what_has_data_says_how_the_cluster_speaks() {
        let facts = host("etcd3:\n  hosts: []\n  protocol: https\n");
        assert_eq!(says_tls(&facts), None);
        assert_eq!(says_tls(&with_data("etcd3: {protocol: https}")), Some(true));
        assert_eq!(
            says_tls(&with_data("etcd3: {hosts: []} # protocol: https\n")),
            Some(false)
        );
        for text in ["etcd3: [\n", "an older one\n", ""] {
            assert_eq!(says_tls(&with_data(text)), None, "{text}");
        }
    }

    #[test]
    fn how_a_file_is_indented_says_nothing() {
        let wide = "etcd3:\n    hosts: []\n    protocol: https\n";
        assert_eq!(says_tls(&with_data(wide)), Some(true));
        let elsewhere = "etcd3:\n  hosts: []\nmine:\n  protocol: https\n";
        assert_eq!(says_tls(&with_data(elsewhere)), Some(false));
    }
}
