//! What `up` would do, as far as it is known while some hosts do not exist.

use super::{
    at_work::{self, AtWork},
    context::Context,
    hosts::HostStatus,
    image, lapse,
    observe::Observed,
    tls_migration,
};
use crate::{
    error::{Error, Result},
    event::Events,
    facts::{Facts, Os},
    inventory::HostName,
    plan::{
        self, Found, Plan,
        membership::{self, Left},
    },
    prepared::Choice,
    provider::{Drifted, Preflight},
    render,
    workspace::Renewal,
};

/// All that would be made and changed.
#[derive(Debug, Default)]
pub(crate) struct Preview {
    pub hosts: HostStatus,
    /// What would be made beside the hosts.
    pub notes: Vec<String>,
    /// What may keep hosts from being made.
    pub doubts: Vec<String>,
    /// What around the hosts is not as the inventory says.
    pub drift: Vec<String>,
    /// What would be done on the hosts that could be seen, and on those that would be new.
    pub plan: Plan,
    /// Another run, or this one, that has the hosts.
    pub at_work: Option<AtWork>,
    /// Why hosts that run could not be read.
    pub unreachable: Vec<Error>,
}

impl Preview {
    pub(crate) fn of_plan(plan: Plan) -> Self {
        Self {
            plan,
            ..Self::default()
        }
    }

    /// All that `up` would do.
    pub(crate) async fn of_all(context: &Context) -> Result<Self> {
        let (hosts, drift) = tokio::try_join!(context.host_status(), context.provider.drift())?;
        context.preview(hosts, drift).await
    }

    /// Whether there is anything to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.plan.is_empty()
            && self.hosts.absent().is_empty()
            && self.hosts.moving.is_empty()
            && self.drift.is_empty()
            && self.leaving().next().is_none()
    }

    /// Members that are no longer in the inventory, and can be taken out.
    pub(crate) fn leaving(&self) -> impl Iterator<Item = &Left> {
        self.hosts.left.iter().filter(|left| left.member)
    }

    /// Hosts of which nobody can say yet what they need: they do not run, or do not let us in.
    pub(crate) fn unseen(&self) -> Vec<&HostName> {
        let stopped = self.hosts.stopped.iter().map(|machine| &machine.host);
        stopped
            .chain(self.unreachable.iter().filter_map(Error::host))
            .collect()
    }
}

impl Context {
    /// Looks at what is there; what is not is taken to be as it would come.
    ///
    /// Hosts that run and cannot be read are an error, unless there is a `drift`, such as a firewall
    /// that does not know this machine: then that comes first, and what they need is seen after it.
    pub(crate) async fn preview(&self, mut hosts: HostStatus, drift: Drifted) -> Result<Preview> {
        let Drifted {
            changes: drift,
            doubts: of_drift,
        } = drift;
        let absent = hosts.absent();
        let Preflight {
            made: mut notes,
            mut doubts,
            prepared,
        } = if absent.is_empty() {
            Preflight::default()
        } else {
            let key = self.workspace.identity()?.public_key;
            self.provider.preflight(&absent, &key).await?
        };
        doubts.extend(of_drift);
        if let Some(choice) = &prepared {
            let (note, more) = image::told(self, choice);
            notes.extend(note);
            doubts.extend(more);
        }
        let mut observed = self.look_anew(&hosts).await?;
        observed = if drift.is_empty() {
            observed.whole()?
        } else {
            observed.not_mixed_up()?
        };
        if self.workspace.is_preview()
            && let Some(note) = lapse::note(self)?
        {
            // What stops a run stops it before the authority is replaced; also a clock that is off.
            observed.plan()?;
            self.workspace
                .replace_lapsed_authority(jiff::Timestamp::now())?;
            observed = self.look_anew(&hosts).await?;
            notes.push(note);
        }
        // Patroni and etcd may know of one that nobody else remembers.
        hosts.left = membership::left(&self.inventory, &observed.found, &hosts.undeclared);
        let at_work = at_work::seen(&observed.found.facts);
        notes.extend(tls_migration::note(observed.cluster.tls, &self.inventory));
        let os = Os::beside(&self.inventory, observed.found.facts.values());
        for host in &hosts.missing {
            let mut facts = Facts::bare(os.clone());
            if let (Some(Choice::Found(_)), Some(node)) = (&prepared, observed.cluster.node(host)) {
                let files = observed.files.get(host).map_or(&[][..], Vec::as_slice);
                plan::prepare_facts(&observed.cluster, node, files, &mut facts);
            }
            observed.found.facts.insert(host.clone(), facts);
        }
        Ok(Preview {
            plan: observed.plan()?,
            unreachable: observed.unreachable,
            at_work,
            hosts,
            notes,
            doubts,
            drift,
        })
    }

    /// Looks at the hosts that run, by connections of its own.
    async fn look_anew(&self, hosts: &HostStatus) -> Result<Observed> {
        if hosts.running.is_empty() {
            return self.unseen(hosts, &Os::expected(&self.inventory));
        }
        let (events, _quiet) = Events::channel();
        self.on_some(&hosts.running, &hosts.stopped, &events, async |connected| {
            connected.look().await
        })
        .await
    }

    /// A cluster of which no host runs.
    fn unseen(&self, hosts: &HostStatus, os: &Os) -> Result<Observed> {
        let tls = self.workspace.tls()?;
        let cluster = self.cluster(&hosts.stopped, tls, Renewal::Due, |_| os.clone())?;
        Ok(Observed {
            files: render::render(&cluster, &self.templates)?,
            cluster: cluster.into(),
            found: Found {
                known: self.workspace.members()?,
                leaving: self.leaving.clone(),
                ..Found::default()
            },
            unreachable: Vec::new(),
        })
    }
}
