//! What `up` would do, as far as it can be known while not everything is there.

use super::{
    authority,
    context::{Base, Sight},
    hosts::Outlook,
    tls_migration,
};
use crate::{
    error::{Error, Result},
    event::Events,
    facts::{Facts, Os},
    inventory::HostName,
    plan::{Found, Plan},
    render,
    workspace::Renewal,
};

/// All that would be made and changed.
#[derive(Debug, Default)]
pub(crate) struct Prospect {
    pub outlook: Outlook,
    /// What would be made beside the hosts.
    pub notes: Vec<String>,
    /// What around the hosts is not as the inventory says.
    pub drift: Vec<String>,
    /// What would be done on the hosts that could be seen, and on those that would be new.
    pub plan: Plan,
    /// Why hosts that run could not be read.
    pub dark: Vec<Error>,
}

impl Prospect {
    pub(crate) fn of_plan(plan: Plan) -> Self {
        Self {
            plan,
            ..Self::default()
        }
    }

    /// Whether there is anything to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.plan.is_empty()
            && self.outlook.absent().is_empty()
            && self.outlook.moving.is_empty()
            && self.drift.is_empty()
    }

    /// Hosts of which nobody can say yet what they need: they do not run, or do not let us in.
    pub(crate) fn unseen(&self) -> Vec<&HostName> {
        let stopped = self.outlook.stopped.iter().map(|machine| &machine.host);
        stopped
            .chain(self.dark.iter().filter_map(Error::host))
            .collect()
    }
}

impl Base {
    /// Looks at what is there; what is not is taken to be as it would come.
    ///
    /// Hosts that run and cannot be read are an error, unless there is a `drift`, such as a firewall
    /// that does not know this machine: then that comes first, and what they need is seen after it.
    pub(crate) async fn prospect(&self, outlook: Outlook, drift: Vec<String>) -> Result<Prospect> {
        let absent = outlook.absent();
        let mut notes = if absent.is_empty() {
            Vec::new()
        } else {
            self.provider.preflight(&absent).await?
        };
        let os = Os::expected(&self.inventory);
        let mut sight = self.look_anew(&outlook).await?;
        sight = if drift.is_empty() {
            sight.whole()?
        } else {
            sight.not_mixed_up()?
        };
        if self.workspace.is_preview()
            && let Some(note) = authority::note(self)?
        {
            // What stops a run stops it before the authority is replaced; also a clock that is off.
            sight.plan()?;
            self.workspace
                .replace_lapsed_authority(jiff::Timestamp::now())?;
            sight = self.look_anew(&outlook).await?;
            notes.push(note);
        }
        notes.extend(tls_migration::note(sight.cluster.tls, &self.inventory));
        for host in &outlook.missing {
            let facts = Facts::bare(os.clone());
            sight.found.facts.insert(host.clone(), facts);
        }
        Ok(Prospect {
            plan: sight.plan()?,
            dark: sight.dark,
            outlook,
            notes,
            drift,
        })
    }

    /// Looks at the hosts that run, by connections of its own.
    async fn look_anew(&self, outlook: &Outlook) -> Result<Sight> {
        if outlook.running.is_empty() {
            return self.unseen(outlook, &Os::expected(&self.inventory));
        }
        let (events, _quiet) = Events::channel();
        let mut site = self.connect(&outlook.running, &events).await?;
        site.resting.clone_from(&outlook.stopped);
        let sight = site.look().await;
        site.close().await;
        sight
    }

    /// A cluster of which no host runs.
    fn unseen(&self, outlook: &Outlook, os: &Os) -> Result<Sight> {
        let tls = self.workspace.tls()?;
        let cluster = self.cluster(&outlook.stopped, tls, Renewal::Due, |_| os.clone())?;
        Ok(Sight {
            files: render::render(&cluster, &self.templates)?,
            cluster: cluster.into(),
            found: Found {
                known: self.workspace.members()?,
                ..Found::default()
            },
            dark: Vec::new(),
        })
    }
}
