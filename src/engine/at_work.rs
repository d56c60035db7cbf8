//! Reports the run that is at work on a cluster, for verbs that only look.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{context::Context, operator::Operator};
use crate::{
    error::Error,
    facts::Facts,
    holder::{Holder, Tenant},
    inventory::HostName,
};

/// Seconds without a sign of life from which on they are shown. A run gives a sign every 2 s.
const SILENT: u64 = 6;

/// The holders of the leases on the cluster's hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AtWork {
    tenant: Tenant,
    hosts: Vec<HostName>,
}

/// The run that the hosts report; if there are several, the one that gave the last sign of life.
pub(crate) fn seen(facts: &BTreeMap<HostName, Facts>) -> Option<AtWork> {
    let told = facts.iter();
    among(told.filter_map(|(host, facts)| Some((host, facts.tenant.as_ref()?))))
}

/// The same for `status --watch`: the time of silence is rounded, so that the line does not change all the
/// time.
pub(super) fn watched(tenants: &BTreeMap<HostName, Tenant>) -> Option<AtWork> {
    let mut work = among(tenants.iter())?;
    work.tenant.silent -= work.tenant.silent % SILENT;
    Some(work)
}

fn among<'a>(told: impl Iterator<Item = (&'a HostName, &'a Tenant)> + Clone) -> Option<AtWork> {
    let (_, tenant) = told.clone().min_by_key(|(_, tenant)| tenant.silent)?;
    let same = told.filter(|(_, other)| other.holder.run == tenant.holder.run);
    Some(AtWork {
        tenant: tenant.clone(),
        hosts: same.map(|(host, _)| host.clone()).collect(),
    })
}

/// One line that says that a run is at work.
pub(super) fn notice(facts: &BTreeMap<HostName, Facts>, operator: &dyn Operator) {
    if let Some(work) = seen(facts) {
        operator.say(&format!("note: {work}"));
    }
}

/// Adds to an error about missing hosts that a run from this folder is creating them.
pub(crate) fn explain(context: &Context, error: Error) -> Error {
    match context.workspace.at_work() {
        Some(holder) => error.cause(sentence(&holder)),
        None => error,
    }
}

fn sentence(holder: &Holder) -> String {
    format!("a run is at work on the cluster: {holder}")
}

impl AtWork {
    pub(crate) fn document(&self) -> Value {
        let holder = &self.tenant.holder;
        json!({
            "verb": holder.verb,
            "by": holder.by,
            "pid": holder.pid,
            "since": holder.since,
            "silent_seconds": self.tenant.silent,
            "hosts": self.hosts,
        })
    }
}

impl Serialize for AtWork {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.document().serialize(serializer)
    }
}

impl std::fmt::Display for AtWork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&sentence(&self.tenant.holder))?;
        match self.tenant.silent {
            silent if silent >= SILENT => write!(f, "; no sign of life for {silent} s"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Os;

    fn facts(of: &[(&str, &Holder, u64)]) -> BTreeMap<HostName, Facts> {
        let mut facts = BTreeMap::from([(HostName::new("node9"), Facts::bare(Os::default()))]);
        for (host, holder, silent) in of {
            let tenant = Some(Tenant {
                holder: (*holder).clone(),
                silent: *silent,
            });
            let seen = Facts {
                tenant,
                ..Facts::bare(Os::default())
            };
            facts.insert(HostName::new(*host), seen);
        }
        facts
    }

    #[test]
    fn the_run_that_was_seen_last_is_told_with_its_hosts() {
        assert!(seen(&facts(&[])).is_none());
        let (dead, alive) = (Holder::now("up"), Holder::now("drill"));
        let work = seen(&facts(&[
            ("node1", &dead, 12),
            ("node2", &alive, 1),
            ("node3", &alive, 2),
        ]))
        .unwrap();
        let told = work.document();
        assert_eq!(told["verb"], "drill");
        assert_eq!(told["hosts"], json!(["node2", "node3"]));
        assert_eq!(told["by"], json!(alive.by));
        let said = work.to_string();
        assert!(
            said.contains("`drill` by ") && !said.contains("no sign"),
            "{said}"
        );
        let said = seen(&facts(&[("node1", &dead, 12)])).unwrap().to_string();
        assert!(said.contains("no sign of life for 12 s"), "{said}");
    }
}
