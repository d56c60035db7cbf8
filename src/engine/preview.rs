//! Finds what `up` would do, as far as it is known while some hosts do not exist.

use super::{
    at_work::{self, AtWork},
    context::Context,
    etcd_moves,
    hosts::HostStatus,
    image, lapse,
    observe::Observed,
    tls_migration,
};
use crate::{
    cluster::Cluster,
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
    tuning::Tuned,
    workspace::Renewal,
};

/// Everything that would be created and changed.
#[derive(Debug, Default)]
pub(crate) struct Preview {
    pub hosts: HostStatus,
    /// Other things that would be created, such as networks.
    pub notes: Vec<String>,
    /// What may prevent the creation of hosts, or is known only when they are there.
    pub doubts: Vec<String>,
    /// Differences from the inventory in what surrounds the hosts.
    pub drift: Vec<String>,
    /// The steps on the observed hosts, and on those that would be created.
    pub plan: Plan,
    /// The parameters that follow from the hosts' sizes, with the hosts that share them.
    pub tuning: Vec<(Vec<HostName>, Vec<Tuned>)>,
    /// The run that has the hosts: another run, or this one.
    pub at_work: Option<AtWork>,
    /// The prepared image of hosts that would be made, where the inventory asks for one.
    pub image: Option<Choice>,
    /// Why running hosts could not be read.
    pub unreachable: Vec<Error>,
}

impl Preview {
    pub(crate) fn of_plan(plan: Plan) -> Self {
        Self {
            plan,
            ..Self::default()
        }
    }

    /// Everything that `up` would do.
    pub(crate) async fn of_all(context: &Context) -> Result<Self> {
        context.marks_are_known().await?;
        let (hosts, mut drift, notes) = tokio::try_join!(
            context.host_status(),
            context.provider.drift(),
            context.ask_bucket()
        )?;
        drift.changes.extend(context.bucket_change());
        drift.doubts.extend(notes);
        let Some(wide) = etcd_moves::joined_first(context).await? else {
            return context.preview(hosts, drift).await;
        };
        let mut preview = wide.preview(wide.host_status().await?, drift).await?;
        let words = etcd_moves::in_words(context, &wide);
        preview.plan.membership.extend(words);
        preview.hosts.left = hosts.left;
        Ok(preview)
    }

    /// Whether there is anything to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.plan.is_empty()
            && self.hosts.absent().is_empty()
            && self.hosts.moving.is_empty()
            && self.drift.is_empty()
            && self.leaving().next().is_none()
    }

    /// Members that left the inventory and can be removed.
    pub(crate) fn leaving(&self) -> impl Iterator<Item = &Left> {
        self.hosts.left.iter().filter(|left| left.member)
    }

    /// Hosts whose steps are not known yet: they do not run, or cannot be reached.
    pub(crate) fn unseen(&self) -> Vec<&HostName> {
        let stopped = self.hosts.stopped.iter().map(|machine| &machine.host);
        stopped
            .chain(self.unreachable.iter().filter_map(Error::host))
            .collect()
    }
}

impl Context {
    /// Observes what exists; for missing hosts, assumes what they will be like.
    ///
    /// Running hosts that cannot be read are an error, unless there is a `drift`, for example a firewall that
    /// does not admit this machine. Then the drift is repaired first, and the hosts are observed after it.
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
            // Anything that would stop the run must stop it before the authority is replaced, for example a
            // wrong clock.
            observed.plan()?;
            self.workspace
                .replace_lapsed_authority(jiff::Timestamp::now())?;
            observed = self.look_anew(&hosts).await?;
            notes.push(note);
        }
        // Patroni and etcd may know a member that nothing else knows any more.
        hosts.left = membership::left(&self.inventory, &observed.found, &hosts.undeclared);
        let at_work = at_work::seen(&observed.found.facts);
        notes.extend(tls_migration::note(observed.cluster.tls, &self.inventory));
        let stopped = hosts.stopped.iter();
        observed.found.starting = stopped.map(|machine| machine.host.clone()).collect();
        doubts.extend(self.moved_when_made_again(&hosts, &observed.cluster));
        let os = Os::beside(&self.inventory, observed.found.facts.values());
        for host in &hosts.missing {
            let mut facts = Facts::bare(os.clone());
            if let (Some(Choice::Found(_)), Some(node)) = (&prepared, observed.cluster.node(host)) {
                let files = observed.files.get(host).map_or(&[][..], Vec::as_slice);
                plan::prepare_facts(&observed.cluster, node, files, &mut facts);
            }
            observed.found.facts.insert(host.clone(), facts);
        }
        let plan = observed.plan()?;
        doubts.extend(self.bucket_allows(&plan)?);
        Ok(Preview {
            plan,
            tuning: observed.cluster.tuning(),
            unreachable: observed.unreachable,
            at_work,
            image: prepared,
            hosts,
            notes,
            doubts,
            drift,
        })
    }

    /// The hosts that are compared by an address which they may not get again.
    fn moved_when_made_again(&self, hosts: &HostStatus, cluster: &Cluster) -> Vec<String> {
        if self.inventory.provider.gives_addresses_back() {
            return Vec::new();
        }
        let addresses = cluster.addresses();
        let missing = hosts.missing.iter();
        let missing = missing.filter(|host| self.inventory.hosts[*host].address.is_none());
        missing
            .filter_map(|host| {
                let address = addresses.get(host)?;
                Some(format!(
                    "{host} was at {address}: at another address, the files of the other hosts that name it change too"
                ))
            })
            .collect()
    }

    /// Observes the running hosts, over separate connections.
    pub(super) async fn look_anew(&self, hosts: &HostStatus) -> Result<Observed> {
        if hosts.running.is_empty() {
            return self.unseen(hosts, &Os::expected(&self.inventory));
        }
        let (events, _quiet) = Events::channel();
        self.on_some(&hosts.running, &hosts.stopped, &events, async |connected| {
            connected.look().await
        })
        .await
    }

    /// Plans for a cluster of which no host runs.
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
