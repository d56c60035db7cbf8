//! Observes the hosts: their facts, the files that they should have, and what etcd and Patroni say.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::{
    future::join_all,
    stream::{FuturesUnordered, StreamExt},
};

use super::{connected::Connected, connections::is_at_work, context::Context};
use crate::{
    cluster::{Address, Cluster, Node, TlsStage},
    contract::BACKUP_CONFIG,
    error::{Code, Error, Kind, Result},
    event::{Event, HostState},
    facts::{self, Facts, Os},
    inventory::{HostName, PgVersion, Role},
    plan::{
        self, Found, Plan,
        lost::{self, Keeps},
        membership,
    },
    render::{self, Files},
    services::{
        backup,
        etcd::{Etcd, Member, PatroniKeys, View},
        postgres::patroni::Patroni,
    },
    workspace::{Renewal, RestoreStage},
};

/// How long the facts of a host may take once it is connected.
const PROBE: Duration = Duration::from_secs(60);

/// The cluster as it should be, and the hosts as observed.
pub(crate) struct Observed {
    pub cluster: Arc<Cluster>,
    pub files: Files,
    pub found: Found,
    /// Hosts whose facts could not be read.
    pub unreachable: Vec<Error>,
}

impl Observed {
    pub(crate) fn plan(&self) -> Result<Plan> {
        let config = render::dcs_config(&self.cluster);
        plan::up(&self.cluster, &self.files, &config, &self.found)
    }

    /// How hosts that are already in use differ from the inventory, including changes of membership. A proof
    /// has its own checks for what hosts lack and for membership.
    pub(crate) fn differences(&self) -> Result<Plan> {
        let config = render::dcs_config(&self.cluster);
        plan::differences(&self.cluster, &self.files, &config, &self.found)
    }

    /// Refuses to work on a cluster whose members are not those of the inventory; for verbs that change
    /// something and make no plan.
    pub(crate) fn members_as_declared(&self) -> Result<()> {
        membership::check_to_operate(&self.cluster, &self.found)
    }

    /// An error if no host could be read, or if addresses are mixed up.
    pub(crate) fn in_part(self) -> Result<Self> {
        let observed = self.not_mixed_up()?;
        if observed.found.facts.is_empty() {
            return observed.whole();
        }
        Ok(observed)
    }

    /// An error if a host answers at another host's address: files with such addresses must not reach the hosts
    /// that are at the right place.
    pub(crate) fn not_mixed_up(mut self) -> Result<Self> {
        let is_mixed_up = |error: &Error| error.code() == Code::HostsMixedUp;
        if self.unreachable.iter().any(is_mixed_up) {
            self.unreachable.retain(is_mixed_up);
            return self.whole();
        }
        Ok(self)
    }

    /// An error if a host never had an address: files of the others would have to name it.
    pub(super) fn of_known_addresses(self) -> Result<Self> {
        let unknown = self.cluster.nodes.values().filter_map(|node| {
            let is_unknown = matches!(node.address, Address::Pending(_));
            is_unknown.then(|| node.name.as_str())
        });
        let unknown: Vec<&str> = unknown.collect();
        if unknown.is_empty() {
            return Ok(self);
        }
        let up = self.cluster.inventory.command("up");
        let what = format!("hosts that have no address yet: {}", unknown.join(", "));
        Err(Error::new(Code::HostNotRunning, what)
            .cause("the files of other hosts name them by their addresses")
            .left("nothing was changed")
            .hint(format!("make them: {up}")))
    }

    /// An error if any host could not be read. It also says what the other hosts lack.
    pub(crate) fn whole(mut self) -> Result<Self> {
        if !self.unreachable.is_empty() {
            self.unreachable
                .extend(plan::lacking(&self.cluster, &self.found));
        }
        match self.unreachable.len() {
            0 => Ok(self),
            1 => Err(self.unreachable.remove(0)),
            count => Err(Error::several(
                format!("{count} findings: hosts cannot be read, or do not meet the requirements"),
                self.unreachable,
            )),
        }
    }
}

impl Connected<'_> {
    /// Reads the facts of all hosts and the DCS, and renders the files that should be there.
    pub(crate) async fn look(&self) -> Result<Observed> {
        let noted = self.context.workspace.tls()?;
        let (observed, tls) = self.look_for(noted).await?;
        // With certificates, there are files that the first probe did not ask for.
        if tls.is_offered() && !noted.is_offered() {
            return Ok(self.look_for(tls).await?.0);
        }
        Ok(observed)
    }

    /// The same with the files for the stage `tls`; also returns the cluster's present stage.
    async fn look_for(&self, tls: TlsStage) -> Result<(Observed, TlsStage)> {
        let inventory = &self.context.inventory;
        let machines = [&self.machines[..], &self.resting[..]].concat();
        let draft = self.draft(tls)?;
        let (facts, unreachable) = self.probe(&draft).await?;
        let tls = self.context.tls_stage(&facts)?;
        if tls != TlsStage::Required {
            self.http.allow_plaintext();
        }
        // Certificates must not be made by a clock that differs from the hosts' clocks.
        let renewal = match plan::clocks_agree(&facts) {
            true => Renewal::Due,
            false => Renewal::Never,
        };
        let unseen = Os::beside(inventory, facts.values());
        let os = |host: &HostName| {
            let facts = facts.get(host);
            facts.map_or_else(|| unseen.clone(), |facts: &Facts| facts.os.clone())
        };
        let sizes = facts.iter().filter_map(|(host, facts)| {
            let size = facts.needs.size(facts.cores)?;
            Some((host.clone(), size))
        });
        let context = self.context;
        let cluster = context.cluster_of_sizes(&machines, tls, renewal, os, &sizes.collect())?;
        plan::whose(&cluster, &facts)?;
        let files = render::render(&cluster, &self.context.templates)?;
        let known = self.context.workspace.members()?;
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
            starting: BTreeSet::new(),
            leaving: self.context.leaving.clone(),
            without_backups: false,
            repository: None,
            restores: restores_anew(self.context)?,
        };
        found.repository = self.repository(&cluster, &found).await;
        // Hosts that pgherd made have unique names.
        if !self.context.provider.owns_hosts() {
            found.elsewhere = self.elsewhere(&cluster, &found).await;
        }
        let observed = Observed {
            cluster: Arc::new(cluster),
            files,
            found,
            unreachable,
        };
        Ok((observed, tls))
    }

    /// The paths of all files at the stage `tls`. Which files exist does not depend on what the hosts run; only
    /// their content does.
    pub(super) fn draft(&self, tls: TlsStage) -> Result<Files> {
        let inventory = &self.context.inventory;
        let os = Os::expected(inventory);
        let machines = [&self.machines[..], &self.resting[..]].concat();
        let draft = self
            .context
            .cluster(&machines, tls, Renewal::Never, |_| os.clone());
        let draft = match draft {
            Err(error)
                if inventory.postgresql.version == PgVersion::Distro
                    && error.kind() == Kind::Input =>
            {
                self.context
                    .cluster(&machines, tls, Renewal::Never, |_| Os::ubuntu_24_04())?
            }
            draft => draft?,
        };
        render::render(&draft, &self.context.templates)
    }

    /// The facts of the readable hosts, and why the others cannot be read; an error if another run is at work
    /// on them.
    async fn probe(&self, files: &Files) -> Result<(BTreeMap<HostName, Facts>, Vec<Error>)> {
        let mut ahead = self
            .headway
            .get()
            .map_or_else(BTreeMap::new, |it| it.take_read());
        let asked = self.machines.iter().map(|machine| {
            let known = ahead.remove(&machine.host);
            async move {
                let read = match known {
                    Some(read) => read,
                    None => self.read(&machine.host, files).await,
                };
                read.map(|facts| (machine.host.clone(), facts))
            }
        });
        let mut asked: FuturesUnordered<_> = asked.collect();
        let mut read = BTreeMap::new();
        let mut unreachable = Vec::new();
        while let Some(answer) = asked.next().await {
            match answer {
                Ok((host, facts)) => {
                    read.insert(host, facts);
                }
                // A host that does not answer must not delay the error that another run is at work.
                Err(error) if is_at_work(&error) => return Err(error),
                Err(error) => unreachable.push(error),
            }
        }
        unreachable.sort_by(|one, other| one.host().cmp(&other.host()));
        self.looked.store(true, Ordering::Relaxed);
        if !read.is_empty() {
            self.remote.settle_lease()?;
        }
        Ok((read, unreachable))
    }

    /// The facts of one host. Connects to the host first, and takes the run's lease there, if needed.
    pub(super) async fn read(&self, host: &HostName, files: &Files) -> Result<Facts> {
        let files = files.get(host).map_or(&[][..], Vec::as_slice);
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        let inventory = &self.context.inventory;
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
        let asked = self.remote.run(host, &script, PROBE, &silent).await;
        let output = asked.map_err(|error| error.step("look"))?;
        let after = jiff::Timestamp::now().as_millisecond();
        let mut facts = facts::parse(&output.stdout)
            .map_err(|error| error.on(host).excerpt("stderr", output.stderr))?;
        facts.data_elsewhere = self.data_elsewhere(host, &facts).await?;
        if let Some(clock) = facts.clock {
            facts.needs.note_clock(clock, before, after);
        }
        let ports = facts::dialled_ports(inventory, host);
        facts.needs.no_forwarding = self.remote.refused(host, knock, &ports).await;
        self.events.emit(Event::FactsRead { host: host.clone() });
        if !self.looked.load(Ordering::Relaxed) {
            self.tell_software(host, &facts);
        }
        Ok(facts)
    }

    /// The folder of this cluster's database, if Patroni has another one than the inventory.
    async fn data_elsewhere(
        &self,
        host: &HostName,
        facts: &Facts,
    ) -> Result<Option<(String, String)>> {
        let wanted = &self.context.inventory.postgresql.data_dir;
        let told = facts.patroni_data_dir.as_ref();
        let Some(dir) = told.filter(|dir| dir.starts_with('/') && *dir != wanted) else {
            return Ok(None);
        };
        let silent = |_, _: &str| {};
        let script = facts::marked_data(dir);
        let output = self.remote.run(host, &script, PROBE, &silent).await?;
        let id = output.stdout.trim();
        Ok((!id.is_empty()).then(|| (dir.clone(), id.to_owned())))
    }

    /// The versions of the cluster's software on a host, for the run's record.
    pub(super) fn tell_software(&self, host: &HostName, facts: &Facts) {
        self.events.emit(Event::Software {
            host: host.clone(),
            os: facts.os.pretty.clone(),
            packages: facts.software(),
        });
    }

    /// The earlier addresses of moved hosts at which something still answers the other hosts.
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
        let ports = membership::ports(&cluster.inventory);
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
        // All at once: without a quorum, each etcd answers only after a while, with a refusal.
        while let Some((keys, members)) = asked.next().await {
            if let Ok(keys) = keys {
                return (Some(keys), members.unwrap_or_default());
            }
        }
        (None, Vec::new())
    }

    /// What each etcd that answers says of its store.
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

    /// What the repository keeps, if it is set up and no host that was read has the database.
    async fn repository(&self, cluster: &Cluster, found: &Found) -> Option<Keeps> {
        let keeper = cluster.with_role(Role::Backup).next()?;
        let facts = found.facts.get(&keeper.name)?;
        let is_set_up = plan::is_ours(cluster, facts)
            && facts.files.contains_key(BACKUP_CONFIG)
            && facts.packages.contains_key("pgbackrest");
        if !is_set_up || !lost::may_be(cluster, &found.facts) {
            return None;
        }
        Some(match backup::ask(cluster, self.remote.as_ref()).await? {
            Err(error) => Keeps::Unknown(error.to_string()),
            Ok(repositories) => {
                let unreadable = repositories.iter().find_map(backup::Repository::unreadable);
                let backups = repositories.into_iter().flat_map(|it| it.backups);
                let mut backups: Vec<_> = backups.map(|it| (it.label, it.stop)).collect();
                backups.sort_by_key(|it| it.1);
                match unreadable {
                    // A place that has some decides it, whatever is in the other one.
                    Some(why) if backups.is_empty() => Keeps::Unknown(why),
                    _ => Keeps::Backups(backups),
                }
            }
        })
    }

    /// Whether a running Patroni says that it is paused.
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
}

/// Whether hosts are made ready for a restore of a database that none of them has.
fn restores_anew(context: &Context) -> Result<bool> {
    let restoring = context.workspace.restoring()?;
    Ok(restoring.is_some_and(|it| it.stage == RestoreStage::Prepares))
}

/// Whether the etcd on a host is the cluster's, and not another one.
fn runs_etcd(node: &Node, cluster: &Cluster, facts: &BTreeMap<HostName, Facts>) -> bool {
    facts.get(&node.name).is_some_and(|facts| {
        facts.unit("etcd").is_active() && facts.etcd_data && plan::is_ours(cluster, facts)
    })
}
