//! Removes hosts that left the inventory, when the whole cluster is removed.

use super::{context::Context, observe::Observed};
use crate::{
    cluster::KnownHost,
    configs::Mark,
    error::{Code, Error, Result},
    inventory::HostName,
    plan::membership::MARKER,
};

/// The hosts that `down` removes with the cluster, and those that it cannot remove.
pub(crate) struct Leaving {
    taken: Vec<HostName>,
    unknown: Vec<HostName>,
}

impl Leaving {
    /// The cluster with those hosts added again, if hosts are cleared and not removed. Hosts that pgherd made
    /// are found by their label, with the present context.
    pub(super) fn of(context: &Context) -> Result<(Option<Context>, Self)> {
        let mut leaving = Self {
            taken: Vec::new(),
            unknown: Vec::new(),
        };
        if context.provider.owns_hosts() {
            return Ok((None, leaving));
        }
        let declared = context.inventory.hosts.clone();
        // The host is in the inventory under another name.
        let renamed = |known: &KnownHost| {
            known.address.is_some()
                && declared
                    .iter()
                    .any(|(name, host)| *name != known.name && host.address == known.address)
        };
        let mut again = Vec::new();
        for known in context.workspace.members()? {
            let is_declared = declared.contains_key(&known.name);
            if !is_declared && renamed(&known) {
                continue;
            }
            if !is_declared && (known.roles.is_empty() || known.address.is_none()) {
                leaving.unknown.push(known.name);
                continue;
            }
            if !is_declared {
                leaving.taken.push(known.name.clone());
            }
            again.push(known);
        }
        Ok((Some(context.with_hosts_that_left(&again)?), leaving))
    }

    pub(crate) fn has(&self, host: &HostName) -> bool {
        self.taken.contains(host)
    }

    /// The other hosts as observed, and why some of them stay.
    pub(crate) fn seen(&self, mut observed: Observed) -> Result<(Observed, Vec<Error>)> {
        let (mut staying, unreachable): (Vec<Error>, Vec<Error>) =
            std::mem::take(&mut observed.unreachable)
                .into_iter()
                .partition(|error| error.host().is_some_and(|host| self.has(host)));
        observed.unreachable = unreachable;
        let mut observed = observed.whole()?;
        let id = &observed.cluster.secrets.cluster_id;
        for host in &self.taken {
            let marker = observed
                .found
                .facts
                .get(host)
                .and_then(|facts| facts.files.get(MARKER));
            // Another run took the host over in the meantime, and removes it.
            if marker.is_some_and(|marker| !Mark::names(&marker.content, id)) {
                observed.found.facts.remove(host);
            }
        }
        staying.extend(self.unknown.iter().map(|host| {
            Error::new(Code::LeftoversRemain, "its roles are not known here")
                .cause("an earlier version made the cluster, and kept no list of its hosts")
                .hint("put it back into the inventory, with its roles, and run `pgherd down` again")
                .on(host)
        }));
        Ok((observed, staying))
    }

    pub(crate) fn describe(staying: &[Error]) -> String {
        let line =
            |error: &Error| format!("  {error}; it left the inventory, and stays as it is\n");
        staying.iter().map(line).collect()
    }

    /// The result, after all other hosts are cleared.
    pub(crate) fn end(staying: Vec<Error>, context: &Context) -> Result<()> {
        if staying.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = staying
            .iter()
            .filter_map(Error::host)
            .map(HostName::to_string)
            .collect();
        let names = names.join(", ");
        let dir = context.inventory.workspace_dir();
        Err(Error::several(
            format!("{names} left the inventory, and pgherd could not clear them"),
            staying,
        )
        .left(format!(
            "the other hosts are cleared; what pgherd put on {names} is still there, and may run, with its data and passwords"
        ))
        .hint("once it can be reached, run `pgherd down` again: it needs nothing but that host")
        .hint(format!(
            "if it is gone for good, take it out of {}, and run `pgherd down` again",
            dir.join("members.json").display()
        )))
    }
}
