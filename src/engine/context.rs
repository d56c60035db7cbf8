//! The pipeline that the verbs share: inventory, workspace and hosts in; a look at all of it out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{
    future::join_all,
    stream::{FuturesUnordered, StreamExt},
};
use indexmap::IndexMap;

use tokio::time::timeout;

use super::{connections::Connections, ownership};
use crate::{
    cli::{DEFAULT_INVENTORY, Global},
    cluster::{Address, Cluster, KnownHost, Node, TlsStage},
    error::{Error, Kind, Result},
    etcd::{Etcd, Member, PatroniKeys, View},
    event::{Event, Events, HostState},
    facts::{self, Facts, Os},
    given,
    holder::AT_WORK,
    http::Http,
    inventory::{Host, HostName, Inventory, PgVersion, Role},
    patroni::Patroni,
    plan::{self, Found, Plan, membership},
    provider::{self, Machine, Provider},
    remote::{MIXED_UP, Remote, SshRemote, quote},
    render::{self, Files, Templates},
    verify::{Proof, Prover},
    workspace::{Renewal, Request, RunLock, Usage, Workspace},
};

/// What is said aloud wherever it can be seen, while `tls` is off.
pub(crate) const PLAINTEXT: &str =
    "! TLS is off (tls.enabled: false): everything, passwords aside, goes in plaintext";

/// How long the facts of a host may take once it is connected.
const PROBE: Duration = Duration::from_secs(30);
/// How long a proof that only somebody can mend is looked at again, since it may yet be a moment's.
const HOPE: Duration = Duration::from_secs(2);

/// How long a host may take to grant the lease before something is done to it from outside.
const CLAIM: Duration = Duration::from_secs(10);

/// What a verb begins with; nothing has been touched yet.
pub(crate) struct Base {
    pub inventory: Inventory,
    pub workspace: Workspace,
    pub templates: Templates,
    pub provider: Box<dyn Provider>,
    pub connections: Arc<Connections>,
}

impl Base {
    pub(crate) fn new(global: &Global, open: fn(&Inventory) -> Result<Workspace>) -> Result<Self> {
        let inventory = global.load()?;
        let templates = match &global.templates {
            Some(dir) => Templates::with_overrides(dir)?,
            None => Templates::embedded()?,
        };
        Self::of(inventory, templates, open)
    }

    fn of(
        inventory: Inventory,
        templates: Templates,
        open: fn(&Inventory) -> Result<Workspace>,
    ) -> Result<Self> {
        let provider = provider::from_inventory(&inventory)?;
        let workspace = open(&inventory)?;
        Ok(Self {
            inventory,
            workspace,
            templates,
            provider,
            connections: Arc::default(),
        })
    }

    /// The same cluster with `hosts` in its inventory as well, and with the roles that those already
    /// in it once had.
    pub(crate) fn with_hosts_that_left(self, hosts: &[KnownHost]) -> Result<Self> {
        let mut inventory = self.inventory;
        let connections = self.connections;
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
        let base = Self::of(inventory, self.templates, Workspace::open)?;
        // The lease goes with whoever has taken it.
        Ok(Self {
            connections,
            ..base
        })
    }

    /// Takes the cluster for a run of `verb` that changes something.
    ///
    /// The workspace at once; and from the first connection on a lease on every host, which another
    /// operator with a copy of the workspace sees too.
    pub(crate) fn lock(&self, verb: &str) -> Result<RunLock> {
        let lock = self.workspace.lock_folder(verb)?;
        self.connections.keep(lock.holder());
        Ok(lock)
    }

    /// Takes the lease on those of `machines` that answer soon, for what is done to hosts from outside.
    pub(crate) async fn claim(&self, machines: &[Machine]) -> Result<()> {
        let (events, _quiet) = Events::channel();
        // A host that cannot be reached, or is not known, may be what is to be put right or removed.
        let Ok(site) = self.connect(machines, &events).await else {
            return Ok(());
        };
        let mut asked: FuturesUnordered<_> = machines
            .iter()
            .map(|machine| timeout(CLAIM, site.remote.connect(&machine.host)))
            .collect();
        while let Some(answer) = asked.next().await {
            match answer {
                Ok(Err(error)) if is_at_work(&error) => return Err(error),
                _ => {}
            }
        }
        // Where none holds it, the first look at them says so.
        let _ = site.remote.settle_lease();
        Ok(())
    }

    /// For verbs that need the cluster to be there: its workspace, or an error that says what is there
    /// instead.
    pub(crate) async fn there(global: &Global) -> Result<Self> {
        let inventory = global.load()?;
        if Workspace::existing(&inventory)?.is_none() {
            return Err(ownership::no_cluster(&inventory).await);
        }
        Self::new(global, |inventory| match Workspace::existing(inventory)? {
            Some(workspace) => Ok(workspace),
            None => Workspace::open(inventory),
        })
    }

    pub(crate) fn hosts(&self) -> Vec<HostName> {
        self.inventory.hosts.keys().cloned().collect()
    }

    /// Makes the hosts known to SSH and connects to them.
    pub(crate) async fn connect(&self, machines: &[Machine], events: &Events) -> Result<Site<'_>> {
        self.workspace.pin_host_keys(machines)?;
        let config = self.workspace.write_ssh_config(machines)?;
        let patience = Duration::from_secs(self.inventory.ssh.connect_timeout.into());
        let make = || {
            let sockets = self.workspace.control_dir()?;
            Ok(SshRemote::new(&config, sockets, patience))
        };
        let remote = self
            .connections
            .to(&self.inventory.cluster, machines, make)
            .await?;
        let spoken = self.workspace.tls()?;
        let (trust, lenient) = if spoken.is_offered() || self.workspace.has_authority() {
            let pki = self.workspace.pki()?;
            let lenient = pki.lenient_client_config()?;
            (Some(pki.rustls_client_config()?), Some(lenient))
        } else {
            (None, None)
        };
        let http = Http::new(remote.clone(), lenient);
        if spoken != TlsStage::Required {
            http.allow_plaintext();
        }
        Ok(Site {
            base: self,
            machines: machines.to_vec(),
            resting: Vec::new(),
            remote,
            http,
            tls: trust.filter(|_| spoken.is_offered()),
            events: events.clone(),
            looked: AtomicBool::new(false),
        })
    }

    /// The cluster as it should be, on these machines.
    ///
    /// A host without a machine has a stand-in for its address; `os` says what a host runs.
    pub(crate) fn cluster(
        &self,
        machines: &[Machine],
        tls: TlsStage,
        renewal: Renewal,
        os: impl Fn(&HostName) -> Os,
    ) -> Result<Cluster> {
        let inventory = &self.inventory;
        let address_of = |host: &HostName| {
            machines
                .iter()
                .find(|machine| machine.host == *host)
                .and_then(|machine| machine.address)
                .or(inventory.hosts.get(host).and_then(|host| host.address))
        };
        let (ca, mut certificates) = if tls.is_offered() {
            let pki = self.workspace.pki()?;
            let doors = self.door_names(machines, &address_of);
            let requests: Vec<Request> = inventory
                .hosts
                .iter()
                .map(|(name, host)| Request {
                    host: name.clone(),
                    address: address_of(name),
                    // Clients reach the databases through HAProxy, and TLS passes through it.
                    extra: if host.roles.iter().any(|role| *role != Role::Etcd) {
                        doors.clone()
                    } else {
                        vec!["localhost".into(), "127.0.0.1".into()]
                    },
                    usage: Usage::of(&host.roles),
                })
                .collect();
            (
                Some(pki.ca().to_owned()),
                pki.certificates(&requests, renewal)?,
            )
        } else {
            (None, BTreeMap::new())
        };
        let ca_bundle = match inventory.ca_bundle.clone().or(self.provider.ca_bundle()) {
            None => None,
            Some(path) => Some(given::read_text(&path).map_err(|error| {
                Error::input(format!("cannot read {}", path.display())).because(error)
            })?),
        };
        let mut nodes = IndexMap::new();
        for (name, host) in &inventory.hosts {
            let postgresql = if host.roles.contains(&Role::Postgres) {
                Some(major(inventory, name, &os(name))?)
            } else {
                None
            };
            nodes.insert(
                name.clone(),
                Node {
                    name: name.clone(),
                    roles: host.roles.clone(),
                    address: address_of(name)
                        .map_or_else(|| Address::Pending(name.clone()), Address::Known),
                    postgresql,
                    certificate: certificates.remove(name),
                },
            );
        }
        Ok(Cluster {
            inventory: inventory.clone(),
            nodes,
            secrets: self.workspace.secrets()?,
            tls,
            ca,
            ca_bundle,
        })
    }

    /// The names and addresses by which clients may call HAProxy.
    fn door_names(
        &self,
        machines: &[Machine],
        address_of: &impl Fn(&HostName) -> Option<Ipv4Addr>,
    ) -> Vec<String> {
        let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        for host in self.inventory.with_role(Role::Haproxy) {
            names.push(host.to_string());
            names.extend(address_of(host).map(|address| address.to_string()));
            names.extend(
                machines
                    .iter()
                    .filter(|machine| machine.host == *host)
                    .flat_map(|machine| [machine.ssh_address, machine.published_on])
                    .flatten()
                    .map(|address| address.to_string()),
            );
        }
        names.sort();
        names.dedup();
        names
    }
}

/// What to type for `verb` on the same inventory.
pub(crate) fn typed(inventory: &Path, verb: &str) -> String {
    if inventory == Path::new(DEFAULT_INVENTORY) {
        return format!("pgherd {verb}");
    }
    let file = quote(&inventory.display().to_string());
    format!("pgherd -i {file} {verb}")
}

fn major(inventory: &Inventory, host: &HostName, os: &Os) -> Result<u16> {
    match inventory.postgresql.version {
        PgVersion::Major(major) => Ok(major),
        PgVersion::Distro => os.postgresql().ok_or_else(|| {
            Error::input(format!(
                "which PostgreSQL {} has is not known here",
                if os.pretty.is_empty() {
                    "this system"
                } else {
                    &os.pretty
                }
            ))
            .on(host)
            .hint("name the major version: postgresql: { version: 16 }")
        }),
    }
}

pub(crate) fn no_hosts(inventory: &Inventory) -> Error {
    Error::failed(format!(
        "no host of the cluster {} is there",
        inventory.cluster
    ))
    .hint(format!("make them: {}", typed(&inventory.path, "up")))
}

/// Hosts that are connected, or are when somebody asks.
pub(crate) struct Site<'a> {
    pub base: &'a Base,
    pub machines: Vec<Machine>,
    /// Hosts that do not run; only their addresses count.
    pub resting: Vec<Machine>,
    pub remote: Arc<SshRemote>,
    pub http: Http,
    pub tls: Option<Arc<rustls::ClientConfig>>,
    pub events: Events,
    /// Whether the hosts have been connected to before; it is news only once.
    looked: AtomicBool,
}

/// The cluster as it should be, and the hosts as they were found to be.
pub(crate) struct Sight {
    pub cluster: Arc<Cluster>,
    pub files: Files,
    pub found: Found,
    /// Hosts whose facts could not be read.
    pub dark: Vec<Error>,
}

impl Sight {
    pub(crate) fn plan(&self) -> Result<Plan> {
        let config = render::dcs_config(&self.cluster);
        plan::up(&self.cluster, &self.files, &config, &self.found)
    }

    /// What differs from the inventory on hosts that are in use already, also where its members are
    /// others than the cluster's: a proof has checks of its own for what hosts lack and who is a member.
    pub(crate) fn differences(&self) -> Result<Plan> {
        let config = render::dcs_config(&self.cluster);
        plan::differences(&self.cluster, &self.files, &config, &self.found)
    }

    /// Refuses to work on a cluster whose members are not those that are declared; for verbs that
    /// change something and plan nothing.
    pub(crate) fn members_as_declared(&self) -> Result<()> {
        membership::check_to_operate(&self.cluster, &self.found)
    }

    /// An error if no host at all could be read, or addresses are mixed up.
    pub(crate) fn in_part(self) -> Result<Self> {
        let sight = self.not_mixed_up()?;
        if sight.found.facts.is_empty() {
            return sight.whole();
        }
        Ok(sight)
    }

    /// An error if a host answers at the address of another one: files made of such addresses must
    /// not reach the hosts that are where they should be.
    pub(crate) fn not_mixed_up(mut self) -> Result<Self> {
        let is_mixed_up = |error: &Error| error.what() == MIXED_UP;
        if self.dark.iter().any(is_mixed_up) {
            self.dark.retain(is_mixed_up);
            return self.whole();
        }
        Ok(self)
    }

    /// An error if any host could not be read; with it comes what the others lack.
    pub(crate) fn whole(mut self) -> Result<Self> {
        if !self.dark.is_empty() {
            self.dark.extend(plan::lacking(&self.cluster, &self.found));
        }
        match self.dark.len() {
            0 => Ok(self),
            1 => Err(self.dark.remove(0)),
            count => Err(Error::several(
                format!("{count} findings: hosts cannot be read, or are not as they must be"),
                self.dark,
            )),
        }
    }
}

fn is_at_work(error: &Error) -> bool {
    error.what().contains(AT_WORK)
}

impl Site<'_> {
    /// Ends the connections, unless they are kept for the whole of a run that changes something.
    pub(crate) async fn close(&self) {
        if !self.base.connections.are_kept() {
            self.remote.close().await;
        }
    }

    /// The inventory's hosts that are not among the machines.
    pub(crate) fn absent(&self) -> Vec<HostName> {
        let there = |host: &HostName| self.machines.iter().any(|machine| machine.host == *host);
        let hosts = self.base.inventory.hosts.keys();
        hosts.filter(|host| !there(host)).cloned().collect()
    }

    /// Reads every host's facts, and the DCS, and renders what should be there.
    pub(crate) async fn look(&self) -> Result<Sight> {
        let noted = self.base.workspace.tls()?;
        let (sight, tls) = self.look_for(noted).await?;
        // With certificates come files that nobody has looked for.
        if tls.is_offered() && !noted.is_offered() {
            return Ok(self.look_for(tls).await?.0);
        }
        Ok(sight)
    }

    /// The same with the files that a cluster has at `tls`; also says where it is.
    async fn look_for(&self, tls: TlsStage) -> Result<(Sight, TlsStage)> {
        let inventory = &self.base.inventory;
        // Which files there are does not depend on what the hosts run; only what is in them does.
        let os = Os::expected(inventory);
        let machines = [&self.machines[..], &self.resting[..]].concat();
        let draft = self
            .base
            .cluster(&machines, tls, Renewal::Never, |_| os.clone());
        let draft = match draft {
            Err(error)
                if inventory.postgresql.version == PgVersion::Distro
                    && error.kind() == Kind::Input =>
            {
                self.base
                    .cluster(&machines, tls, Renewal::Never, |_| Os::ubuntu_24_04())?
            }
            draft => draft?,
        };
        let draft = render::render(&draft, &self.base.templates)?;
        let (facts, dark) = self.probe(&draft).await?;
        let tls = self.base.tls(&facts)?;
        if tls != TlsStage::Required {
            self.http.allow_plaintext();
        }
        // By a clock that the hosts do not share nothing is made that they are to believe.
        let renewal = match plan::clocks_agree(&facts) {
            true => Renewal::Due,
            false => Renewal::Never,
        };
        let cluster = self.base.cluster(&machines, tls, renewal, |host| {
            facts
                .get(host)
                .map_or_else(|| os.clone(), |facts: &Facts| facts.os.clone())
        })?;
        plan::whose(&cluster, &facts)?;
        let files = render::render(&cluster, &self.base.templates)?;
        let known = self.base.workspace.members()?;
        let ((dcs, etcd), stores) =
            tokio::join!(self.dcs(&cluster, &facts), self.stores(&cluster, &facts));
        let paused = dcs.is_none() && self.says_paused(&cluster, &facts).await;
        let mut found = Found {
            facts,
            dcs,
            etcd,
            paused,
            stores,
            known,
            elsewhere: BTreeMap::new(),
        };
        // Of hosts that pgherd has made there is one of a name.
        if !self.base.provider.owns_hosts() {
            found.elsewhere = self.elsewhere(&cluster, &found).await;
        }
        let sight = Sight {
            cluster: Arc::new(cluster),
            files,
            found,
            dark,
        };
        Ok((sight, tls))
    }

    /// The facts of the hosts that can be read, and why the others cannot; an error if another run is
    /// at work on them.
    async fn probe(&self, files: &Files) -> Result<(BTreeMap<HostName, Facts>, Vec<Error>)> {
        let asked = self.machines.iter().map(|machine| async move {
            let host = &machine.host;
            let paths: Vec<&str> = files
                .get(host)
                .map_or(&[][..], Vec::as_slice)
                .iter()
                .map(|file| file.path.as_str())
                .collect();
            let inventory = &self.base.inventory;
            let roles = inventory.hosts.get(host).map_or(&[][..], |it| &it.roles);
            let script = facts::probe(inventory, host, &paths, &render::paths(roles));
            let silent = |_, _: &str| {};
            if !self.looked.load(Ordering::Relaxed) {
                self.events.host(host, HostState::Connecting, None);
                self.remote.connect(host).await?;
                self.events.host(host, HostState::Connected, None);
            }
            let knock = self.remote.knock(host).await;
            let before = jiff::Timestamp::now().as_millisecond();
            let output = self.remote.run(host, &script, PROBE, &silent).await?;
            let after = jiff::Timestamp::now().as_millisecond();
            let mut facts = facts::parse(&output.stdout)
                .map_err(|error| error.on(host).excerpt("stderr", output.stderr))?;
            if let Some(clock) = facts.clock {
                facts.needs.note_clock(clock, before, after);
            }
            let ports = facts::dialled_ports(&self.base.inventory, host);
            facts.needs.no_forwarding = self.remote.refused(host, knock, &ports).await;
            self.events.emit(Event::FactsRead { host: host.clone() });
            if !self.looked.load(Ordering::Relaxed) {
                self.tell_software(host, &facts);
            }
            Ok::<_, Error>((host.clone(), facts))
        });
        let mut asked: FuturesUnordered<_> = asked.collect();
        let mut read = BTreeMap::new();
        let mut dark = Vec::new();
        while let Some(answer) = asked.next().await {
            match answer {
                Ok((host, facts)) => {
                    read.insert(host, facts);
                }
                // A host that is slow to say nothing must not keep the other run from going on.
                Err(error) if is_at_work(&error) => return Err(error),
                Err(error) => dark.push(error),
            }
        }
        dark.sort_by(|one, other| one.host().cmp(&other.host()));
        self.looked.store(true, Ordering::Relaxed);
        if !read.is_empty() {
            self.remote.settle_lease()?;
        }
        Ok((read, dark))
    }

    /// What a host has of the cluster's software, for the run's record.
    fn tell_software(&self, host: &HostName, facts: &Facts) {
        self.events.emit(Event::Software {
            host: host.clone(),
            os: facts.os.pretty.clone(),
            packages: facts.software(),
        });
    }

    /// Where hosts that are new at their address still answer, as any other host sees it.
    async fn elsewhere(
        &self,
        cluster: &Cluster,
        found: &Found,
    ) -> BTreeMap<HostName, plan::Elsewhere> {
        let former = membership::former(cluster, found);
        let mut elsewhere = BTreeMap::new();
        if former.is_empty() {
            return elsewhere;
        }
        let ports = membership::ports(cluster);
        let script = facts::knock(former.iter().map(|(_, address)| *address), &ports);
        let script = &script;
        let asked = found.facts.keys().map(|host| async move {
            let silent = |_, _: &str| {};
            self.remote.run(host, script, PROBE, &silent).await
        });
        let answers = join_all(asked).await.into_iter().flatten();
        let open: BTreeSet<(Ipv4Addr, u16)> = answers
            .flat_map(|output| facts::answering(&output.stdout))
            .collect();
        for (host, address) in former {
            let here = open.iter().filter(|(at, _)| *at == address);
            let ports: Vec<u16> = here.map(|(_, port)| *port).collect();
            if !ports.is_empty() {
                elsewhere.insert(host, plan::Elsewhere { address, ports });
            }
        }
        elsewhere
    }

    /// Patroni's keys and etcd's members, from the first etcd that answers.
    async fn dcs(
        &self,
        cluster: &Cluster,
        facts: &BTreeMap<HostName, Facts>,
    ) -> (Option<PatroniKeys>, Vec<Member>) {
        let mut asked: FuturesUnordered<_> = cluster
            .with_role(Role::Etcd)
            .filter(|node| runs_etcd(node, cluster, facts))
            .map(|node| async {
                let etcd = Etcd::on(&self.http, &node.name);
                tokio::join!(etcd.patroni_keys(cluster.name()), etcd.members())
            })
            .collect();
        // All at once: without a quorum each only answers after a while, and with a refusal.
        while let Some((keys, members)) = asked.next().await {
            if let Ok(keys) = keys {
                return (Some(keys), members.unwrap_or_default());
            }
        }
        (None, Vec::new())
    }

    /// What every etcd that answers says of its store, the first as well as the others.
    async fn stores(
        &self,
        cluster: &Cluster,
        facts: &BTreeMap<HostName, Facts>,
    ) -> BTreeMap<HostName, View> {
        let asked = cluster
            .with_role(Role::Etcd)
            .filter(|node| runs_etcd(node, cluster, facts))
            .map(|node| async {
                let view = Etcd::on(&self.http, &node.name).view().await;
                Some((node.name.clone(), view.ok()?))
            });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Whether a Patroni that runs says that it is paused.
    async fn says_paused(&self, cluster: &Cluster, facts: &BTreeMap<HostName, Facts>) -> bool {
        let runs = |node: &&Node| {
            facts
                .get(&node.name)
                .is_some_and(|facts| facts.unit("patroni").is_active())
        };
        let asked = cluster
            .with_role(Role::Postgres)
            .filter(runs)
            .map(|node| async {
                let status = Patroni::on(&self.http, &node.name).status().await;
                status.is_ok_and(|status| status.pause)
            });
        join_all(asked).await.contains(&true)
    }

    pub(crate) fn prover(&self, sight: &Sight) -> Prover {
        Prover {
            cluster: sight.cluster.clone(),
            remote: self.remote.clone() as Arc<dyn Remote>,
            http: self.http.clone(),
            tls: self.tls.clone(),
            files: sight.files.clone(),
        }
    }

    /// Proves the cluster, looking again until it holds or `patience` is over.
    pub(crate) async fn prove(&self, first: Sight, patience: Duration) -> Result<Proof> {
        self.events.emit(Event::VerifyStarted);
        let begin = tokio::time::Instant::now();
        let deadline = begin + patience;
        let mut sight = first;
        loop {
            let prover = self.prover(&sight);
            let plan = sight.differences()?;
            let proof = prover.look(&sight.found, &plan).await;
            // Waiting helps little where somebody has to do something.
            let hopeless = proof.is_hopeless() && begin.elapsed() >= HOPE;
            if proof.passed || hopeless || tokio::time::Instant::now() >= deadline {
                for (host, facts) in &sight.found.facts {
                    self.tell_software(host, facts);
                }
                proof.announce(&self.events);
                return Ok(proof);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            sight = self.look().await?.whole()?;
        }
    }
}

/// Whether a host runs the cluster's etcd, and not somebody else's.
fn runs_etcd(node: &Node, cluster: &Cluster, facts: &BTreeMap<HostName, Facts>) -> bool {
    facts.get(&node.name).is_some_and(|facts| {
        facts.unit("etcd").is_active() && facts.etcd_data && plan::is_ours(cluster, facts)
    })
}
