//! The context of a run: inventory, workspace, templates, provider and connections. Nothing has been contacted
//! yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::timeout;

use super::{
    connections::{Connections, is_at_work},
    operator::Operator,
};
use crate::{
    bucket::News,
    cluster::{Cluster, Former, Joining, KnownHost, Secrets, TlsStage, address_of, subjects},
    error::{self, Code, Error, Result},
    event::Events,
    facts::Os,
    given,
    history::Record,
    holder::Holder,
    inventory::{Host, HostName, Inventory, PgVersion},
    machine::Machine,
    mask::Masks,
    plan::retire::Departures,
    prepared,
    provider::{self, Provider},
    render::Templates,
    tuning::Size,
    workspace::{Renewal, Request, RunLock, Shared, Usage, Workspace},
};

/// How long a host may take to accept a connection before the provider changes it from outside.
const CLAIM: Duration = Duration::from_secs(10);

/// The input of every verb.
pub(crate) struct Context {
    pub inventory: Inventory,
    pub workspace: Workspace,
    pub templates: Arc<Templates>,
    pub provider: Arc<dyn Provider>,
    pub connections: Arc<Connections>,
    pub operator: Arc<dyn Operator>,
    /// Hosts that may leave the cluster in this run.
    pub leaving: Departures,
    /// The place where the workspace's secrets are shared, if there is one.
    pub shared: Option<Arc<Shared>>,
    /// What is known of the bucket with the backups.
    pub(super) bucket: Arc<News>,
}

/// The options of the command line that concern the cluster.
pub(crate) struct Source<'a> {
    pub inventory: Inventory,
    /// A folder of templates that replace built-in ones.
    pub templates: Option<&'a Path>,
    pub operator: Arc<dyn Operator>,
}

impl Context {
    pub(crate) fn new(
        source: Source<'_>,
        open: fn(&Inventory) -> Result<Workspace>,
    ) -> Result<Self> {
        let templates = match source.templates {
            Some(dir) => Templates::with_overrides(dir)?,
            None => Templates::embedded()?,
        };
        let requirements = templates.text(prepared::REQUIREMENTS);
        let provider = provider::with_requirements(&source.inventory, requirements)?;
        let shared = Shared::of(&source.inventory)?;
        let workspace = open(&source.inventory)?;
        Ok(Self {
            shared: shared.map(Arc::new),
            inventory: source.inventory,
            workspace,
            templates: Arc::new(templates),
            provider: provider.into(),
            connections: Arc::default(),
            operator: source.operator,
            leaving: Departures::default(),
            bucket: Arc::default(),
        })
    }

    /// The same with fake hosts: `dial` opens the connections.
    #[cfg(test)]
    pub(super) fn played(
        mut self,
        provider: Box<dyn Provider>,
        dial: super::connections::Dial,
    ) -> Self {
        self.provider = provider.into();
        let soon = Duration::from_millis(500);
        self.connections = Arc::new(Connections::new(dial).impatient(soon));
        self
    }

    /// The same cluster with `hosts` added to its inventory. Hosts that are in it already get back the roles
    /// that they once had.
    pub(super) fn with_hosts_that_left(&self, hosts: &[KnownHost]) -> Result<Self> {
        let mut inventory = self.inventory.clone();
        for known in hosts {
            let host = inventory
                .hosts
                .entry(known.name.clone())
                .or_insert_with(|| Host {
                    roles: Vec::new(),
                    address: known.address,
                });
            host.roles.extend(&known.roles);
            host.roles.sort_unstable();
            host.roles.dedup();
        }
        // Hosts that pgherd made are found by their label, not by the inventory.
        let provider = match self.provider.owns_hosts() {
            true => self.provider.clone(),
            false => {
                let requirements = self.templates.text(prepared::REQUIREMENTS);
                provider::with_requirements(&inventory, requirements)?.into()
            }
        };
        Ok(Self {
            provider,
            workspace: match self.workspace.is_preview() {
                true => Workspace::preview(&inventory)?,
                false => Workspace::open(&inventory)?,
            },
            inventory,
            templates: self.templates.clone(),
            // The run that took the lease gives it back.
            connections: self.connections.clone(),
            operator: self.operator.clone(),
            leaving: self.leaving.clone(),
            shared: self.shared.clone(),
            bucket: self.bucket.clone(),
        })
    }

    /// The same cluster with another major version of PostgreSQL in its inventory.
    pub(super) fn of_version(&self, major: u16) -> Result<Self> {
        let mut other = self.with_hosts_that_left(&[])?;
        other.inventory.postgresql.version = PgVersion::Major(major);
        Ok(other)
    }

    /// Takes the cluster for a run of `verb` that changes something.
    ///
    /// The workspace is locked at once. Each connection then takes the lease on its host, so that an operator
    /// with a copy of the workspace also sees the run.
    pub(super) fn lock(&self, verb: &str) -> Result<RunLock> {
        let lock = self.workspace.lock_folder(verb)?;
        let record = self.record(lock.holder());
        self.connections
            .keep(lock.holder(), record, self.shared.clone());
        Ok(lock)
    }

    /// This run, as the hosts' history has it.
    fn record(&self, holder: &Holder) -> Record {
        let masks = Masks::default();
        // Without a cluster there are no secrets; ones that are wrong are reported when they are needed.
        if let Ok(Some(_)) = self.workspace.cluster_id()
            && let Ok(secrets) = self.secrets()
        {
            masks.add(secrets.values());
        }
        let words = std::env::args().skip(1);
        Record::of(holder, &self.inventory.origin(), words, &masks)
    }

    /// Takes the lease on those of `machines` that answer soon, before the provider changes them from outside.
    pub(super) async fn claim(&self, machines: &[Machine]) -> Result<()> {
        let (events, _quiet) = Events::channel();
        // A host that cannot be reached, or is unknown, may be the one to repair or remove.
        let Ok(connected) = self.connect(machines, &events).await else {
            return Ok(());
        };
        let remote = connected.remote.as_ref();
        let asked = machines.iter().map(|machine| async move {
            let host = &machine.host;
            // The lease has its own time limit.
            timeout(CLAIM, remote.reach(host)).await.ok()?.ok()?;
            Some(remote.connect(host).await)
        });
        let mut asked: FuturesUnordered<_> = asked.collect();
        while let Some(answer) = asked.next().await {
            match answer {
                Some(Err(error)) if is_at_work(&error) => return Err(error),
                _ => {}
            }
        }
        // If nobody holds the lease, the first observation reports it.
        let _ = connected.remote.settle_lease();
        Ok(())
    }

    pub(crate) fn host_names(&self) -> Vec<HostName> {
        self.inventory.hosts.keys().cloned().collect()
    }

    /// The command line for `verb` on the same inventory.
    pub(crate) fn command(&self, verb: &str) -> String {
        self.inventory.command(verb)
    }

    /// The text with the options that its commands need on the same inventory.
    pub(crate) fn with_options(&self, text: &str) -> String {
        match self.inventory.options() {
            Some(options) => error::with_options(text, &options),
            None => text.to_owned(),
        }
    }

    /// The error with the options that its commands need on this inventory.
    pub(super) fn told(&self, error: Error) -> Error {
        match self.inventory.options() {
            Some(options) => error.with_options(&options),
            None => error,
        }
    }

    /// The passwords, which are made at first use. They are masked from now on.
    pub(crate) fn secrets(&self) -> Result<Secrets> {
        let secrets = self.workspace.secrets()?;
        self.operator.conceal(&secrets.values());
        Ok(secrets)
    }

    /// The cluster as it should be, on these machines.
    ///
    /// A host without a machine keeps its last address; one that never had any gets a placeholder. `os` says what a host
    /// runs.
    pub(crate) fn cluster(
        &self,
        machines: &[Machine],
        tls: TlsStage,
        renewal: Renewal,
        os: impl Fn(&HostName) -> Os,
    ) -> Result<Cluster> {
        self.cluster_of_sizes(machines, tls, renewal, os, &BTreeMap::new())
    }

    /// The same; `sizes` are those that were read a moment ago.
    pub(super) fn cluster_of_sizes(
        &self,
        machines: &[Machine],
        tls: TlsStage,
        renewal: Renewal,
        os: impl Fn(&HostName) -> Os,
        sizes: &BTreeMap<HostName, Size>,
    ) -> Result<Cluster> {
        let inventory = &self.inventory;
        let former = self.former_addresses(machines)?;
        let (ca, certificates) = if tls.is_offered() {
            let pki = self.workspace.pki()?;
            let requests: Vec<Request> = subjects(inventory, machines, &former)
                .into_iter()
                .map(|subject| Request {
                    usage: Usage::of(&inventory.hosts[&subject.host].roles),
                    host: subject.host,
                    address: subject.address,
                    extra: subject.names,
                    whole: subject.whole,
                })
                .collect();
            (
                Some(pki.ca().to_owned()),
                pki.certificates(&requests, renewal)?,
            )
        } else {
            (None, BTreeMap::new())
        };
        let joining = Joining {
            secrets: self.secrets()?,
            tls,
            ca,
            certificates,
            ca_bundle: self.ca_bundle()?,
            sizes: self.sizes(sizes)?,
            former,
        };
        let postgresql = |host: &HostName| major(inventory, host, &os(host));
        Cluster::join(inventory, machines, joining, postgresql, |host| {
            os(host).arch
        })
    }

    /// The certificates that are trusted besides those of a system, PEM.
    pub(super) fn ca_bundle(&self) -> Result<Option<String>> {
        let path = self.inventory.ca_bundle.clone();
        let Some(path) = path.or(self.provider.ca_bundle()) else {
            return Ok(None);
        };
        let text = given::read_text(&path).map_err(|error| {
            Error::new(
                Code::FileUnusable,
                format!("cannot read {}", path.display()),
            )
            .because(error)
        })?;
        Ok(Some(text))
    }

    /// The addresses that hosts had in the last run, but for those that another host has now. Where no host is left,
    /// nothing has them any more.
    fn former_addresses(&self, machines: &[Machine]) -> Result<Former> {
        if machines.is_empty() {
            return Ok(Former::new());
        }
        let hosts = &self.inventory.hosts;
        let fixed = hosts.values().filter_map(|host| host.address);
        let present = machines.iter().filter_map(|machine| machine.address);
        let taken: BTreeSet<Ipv4Addr> = fixed.chain(present).collect();
        // Without roles, it is from an `ssh_config`, whose addresses may be other ones.
        let noted = self.workspace.members()?.into_iter();
        let noted = noted.filter(|known| !known.roles.is_empty());
        Ok(noted
            .filter_map(|known| Some((known.name, known.address?)))
            .filter(|(host, address)| hosts.contains_key(host) && !taken.contains(address))
            .collect())
    }

    /// The present or last addresses of the hosts, as far as they are known.
    pub(super) fn addresses(&self, machines: &[Machine]) -> Result<BTreeMap<HostName, Ipv4Addr>> {
        let former = self.former_addresses(machines)?;
        let hosts = self.inventory.hosts.keys();
        Ok(hosts
            .filter_map(|host| {
                let address = address_of(&self.inventory, machines, &former, host)?;
                Some((host.clone(), address))
            })
            .collect())
    }

    /// The hosts' sizes: as they were read, or as they were noted when nothing else was read since.
    fn sizes(&self, read: &BTreeMap<HostName, Size>) -> Result<BTreeMap<HostName, Size>> {
        let mut sizes = BTreeMap::new();
        for known in self.workspace.members()? {
            sizes.extend(known.size.map(|size| (known.name, size)));
        }
        for (host, size) in read {
            if sizes.get(host).is_none_or(|noted| !size.is_about(noted)) {
                sizes.insert(host.clone(), *size);
            }
        }
        Ok(sizes)
    }

    pub(crate) fn no_hosts(&self) -> Error {
        Error::new(
            Code::ClusterNotFound,
            format!("no host of the cluster {} is there", self.inventory.cluster),
        )
        .hint(format!("make them: {}", self.command("up")))
    }
}

fn major(inventory: &Inventory, host: &HostName, os: &Os) -> Result<u16> {
    match inventory.postgresql.version {
        PgVersion::Major(major) => Ok(major),
        PgVersion::Distro => os.postgresql().ok_or_else(|| {
            Error::new(
                Code::Unsupported,
                format!(
                    "unknown distribution: {}; pgherd does not know which PostgreSQL it has",
                    if os.pretty.is_empty() {
                        "this system"
                    } else {
                        &os.pretty
                    }
                ),
            )
            .on(host)
            .hint("name the major version: postgresql: { version: 16 }")
        }),
    }
}
