//! Hosts as EC2 instances.
//!
//! Which cluster and host a resource belongs to follows from its tags alone, so that no file is needed to find
//! a cluster again. What lacks the cluster's tag is never touched.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use aws_sdk_ec2::types::{ResourceType, Tag, TagSpecification};
use tokio::sync::{Mutex, OnceCell};

use self::{
    account::Account, drift::Drift, instance::Found, launch::Launch, public_address::PublicAddress,
    request::Spec, survey::Survey,
};
use super::{
    Access, Arrivals, Balancer, CLUSTER_LABEL, Drifted, ID_LABEL, Machine, Part, Preflight,
    Provider, Resource, refuse_hosts_of_others,
};
use crate::{
    error::{Error, Result},
    event::Events,
    inventory::{self, HostName, Inventory, Role},
    prepared::{Contents, Prepared, Recipe},
    workspace::Launches,
};

mod account;
mod attached;
mod balancer;
mod balancing;
mod drift;
mod failure;
mod faults;
mod groups;
mod growth;
mod image;
mod instance;
mod key_pair;
mod late;
mod launch;
mod membership;
mod placement;
#[cfg(test)]
mod policy;
mod preflight;
mod prepared;
mod profile;
mod public_address;
mod quota;
mod removal;
mod request;
mod rival;
mod rules;
mod survey;
mod user_data;
mod vcpus;
mod volumes;

#[cfg(test)]
pub(crate) use rules::shown as rules_shown;

/// How long a new resource may be unknown to other parts of EC2.
const SETTLING: Duration = Duration::from_secs(60);

/// Launches, finds and terminates instances that carry the cluster's tag.
pub(super) struct AwsProvider {
    inventory: Inventory,
    /// The requirements file that pins Patroni's versions.
    requirements: String,
    settings: inventory::Aws,
    /// Connected when it is first needed, so that other verbs work without credentials.
    account: OnceCell<Account>,
    /// What `preflight` has found out, so that `launch` need not ask again a minute later.
    surveyed: Mutex<Option<(Vec<HostName>, Survey)>>,
    public_address: PublicAddress,
    /// What was just discovered, for the next question about the same hosts.
    discovered: Mutex<Option<Vec<Found>>>,
}

impl AwsProvider {
    pub(super) fn new(
        inventory: &Inventory,
        settings: &inventory::Aws,
        requirements: &str,
    ) -> Self {
        Self {
            inventory: inventory.clone(),
            requirements: requirements.to_owned(),
            settings: settings.clone(),
            account: OnceCell::new(),
            surveyed: Mutex::default(),
            public_address: PublicAddress::default(),
            discovered: Mutex::default(),
        }
    }

    async fn account(&self) -> Result<&Account> {
        let connect = || Account::connect(&self.settings);
        self.account.get_or_try_init(connect).await
    }

    fn tags(&self) -> Tags<'_> {
        Tags {
            cluster: &self.inventory.cluster,
            id: None,
            own: &self.settings.tags,
        }
    }

    /// Those of `hosts` that have no instance.
    fn missing(hosts: &[HostName], alive: &[Found]) -> Vec<HostName> {
        let there = |host: &&HostName| alive.iter().any(|it| it.host == **host);
        hosts.iter().filter(|host| !there(host)).cloned().collect()
    }

    /// Whether the quota allows the stopped instances to run again.
    async fn quota_of_stopped(&self, account: &Account, alive: &[Found]) -> Result<Vec<String>> {
        let stopped: Vec<&Found> = alive.iter().filter(|it| it.is_stopped()).collect();
        let launched = BTreeMap::new();
        let doubt = quota::check(account, &launched, &self.settings, &stopped).await?;
        Ok(Vec::from_iter(doubt))
    }

    async fn survey(
        &self,
        account: &Account,
        missing: &[HostName],
        alive: &[Found],
    ) -> Result<Survey> {
        let mut surveyed = self.surveyed.lock().await;
        if let Some((hosts, survey)) = &*surveyed
            && hosts == missing
        {
            return Ok(survey.clone());
        }
        let asked = survey::Asked {
            account,
            provider: self,
            public_address: &self.public_address,
        };
        let survey = survey::survey(asked, missing, alive).await?;
        *surveyed = Some((missing.to_vec(), survey.clone()));
        Ok(survey)
    }

    fn spec<'a>(&'a self, host: &'a HostName, place: &'a survey::Place) -> Spec<'a> {
        Spec {
            host,
            desired: &self.inventory.hosts[host],
            own: &self.settings.hosts[host],
            settings: &self.settings,
            profile: self.inventory.profile_of(host),
            place,
        }
    }

    /// Forgets what was remembered about removed resources.
    ///
    /// Launches of other hosts stay noted: a run that died may have made their instances, and their tokens
    /// tell.
    async fn forget(&self, resources: &[Resource]) -> Result<()> {
        let launches = Launches::of(&self.inventory)?;
        for host in resources.iter().filter_map(|it| it.host.as_ref()) {
            launches.finish(host)?;
        }
        *self.surveyed.lock().await = None;
        *self.discovered.lock().await = None;
        Ok(())
    }

    /// How the surroundings of the hosts `alive` differ from the inventory.
    async fn find_drift(&self, account: &Account, alive: &[Found]) -> Result<Drift> {
        let checked_from = self.checked_from(account, alive).await?;
        Drift::find(
            &account.ec2,
            &self.inventory,
            &self.settings,
            &self.public_address,
            &checked_from,
            alive,
        )
        .await
    }

    /// Adds to an error which resources the account has now, and what to do with them.
    async fn left(&self, account: &Account, error: Error, next: &str) -> Error {
        let Ok(resources) = self.all_resources(account).await else {
            return error.left("pgherd could not find out what the account has of the cluster now; `pgherd down` lists and removes it");
        };
        if resources.is_empty() {
            return error.left("the account has nothing of the cluster");
        }
        let all: Vec<String> = resources
            .iter()
            .map(|it| format!("{} {} ({})", it.kind, it.name, it.id))
            .collect();
        error
            .left(format!("in the account now: {}", all.join(", ")))
            .hint(next)
    }
}

/// The resources that exist are kept: the next run uses them.
const TAKEN_UP: &str = "the next `up` continues with it, `down` removes it";
const REMOVED: &str = "run `pgherd down` again: it removes the rest";

#[async_trait]
impl Provider for AwsProvider {
    async fn discover(&self) -> Result<Vec<Machine>> {
        let account = self.account().await?;
        let mut discovered = self.discovered.lock().await;
        let (alive, balancer) = tokio::try_join!(
            instance::alive(&account.ec2, &self.inventory.cluster),
            self.balancer_name(account),
        )?;
        let machines = alive.iter().map(|it| {
            let machine = it.machine(self.settings.connect);
            before_doors(machine, &self.inventory, balancer.as_deref())
        });
        let machines = machines.collect();
        *discovered = Some(alive);
        Ok(machines)
    }

    async fn preflight(&self, hosts: &[HostName], public_key: &str) -> Result<Preflight> {
        key_pair::importable(public_key)?;
        let account = self.account().await?;
        let asked = async {
            let ((number, who), alive) = tokio::try_join!(
                account.who(),
                instance::alive(&account.ec2, &self.inventory.cluster),
            )?;
            let missing = Self::missing(hosts, &alive);
            let mut preflight = match missing.is_empty() {
                true => Preflight {
                    doubts: self.quota_of_stopped(account, &alive).await?,
                    ..Preflight::default()
                },
                false => {
                    self.ask_beforehand(account, &missing, &alive, public_key)
                        .await?
                }
            };
            preflight
                .doubts
                .extend(self.ask_start(account, &alive).await?);
            let account = format!(
                "in the account {number}, region {}, as {who}",
                account.region
            );
            preflight.made.insert(0, account);
            Ok::<_, Error>(preflight)
        };
        match asked.await {
            Err(error) if error.left_behind().is_none() => {
                Err(self.left(account, error, TAKEN_UP).await)
            }
            asked => asked,
        }
    }

    async fn launch_telling(
        &self,
        hosts: &[HostName],
        access: &Access,
        events: &Events,
        arrivals: &Arrivals,
    ) -> Result<Vec<Machine>> {
        let account = self.account().await?;
        let alive = instance::alive(&account.ec2, &self.inventory.cluster).await?;
        let ids = alive.iter();
        let ids = ids.filter_map(|found| Some((&found.host, found.cluster_id.as_deref()?)));
        refuse_hosts_of_others(ids, access)?;
        let missing = Self::missing(hosts, &alive);
        let survey = match missing.is_empty() {
            true => None,
            false => {
                key_pair::importable(&access.public_key)?;
                Some(self.survey(account, &missing, &alive).await?)
            }
        };
        let balancer = self
            .make_balancer(account, &alive, survey.as_ref(), access, events)
            .await?;
        let launch = Launch {
            ec2: &account.ec2,
            inventory: &self.inventory,
            settings: &self.settings,
            tags: Tags {
                id: Some(&access.cluster_id),
                ..self.tags()
            },
            launches: Launches::of(&self.inventory)?,
            access,
            events,
            arrivals,
            checked_from: &balancer.checked_from,
            balancer: balancer.name.as_deref(),
        };
        let launched = async {
            let machines = launch.hosts(hosts, &alive, survey.as_ref()).await?;
            self.register(account, access, events).await?;
            Ok::<_, Error>(machines)
        };
        match launched.await {
            Ok(machines) => Ok(machines),
            Err(error) => Err(self.left(account, error, TAKEN_UP).await),
        }
    }

    async fn check_successor(&self, host: &HostName) -> Result<()> {
        let own = self.settings.hosts.get(host);
        let Some(own) = own.filter(|it| it.data_volume.is_some()) else {
            return Ok(());
        };
        let account = self.account().await?;
        let alive = instance::alive(&account.ec2, &self.inventory.cluster).await?;
        let found = alive.iter().find(|it| it.host == *host);
        let volume = found.and_then(|it| Some((it, it.own_data_volume()?)));
        volume.map_or(Ok(()), |(found, volume)| {
            volumes::refuse_another_zone(host, own, &volume.id, &found.zone)
        })
    }

    async fn drift(&self) -> Result<Drifted> {
        let account = self.account().await?;
        let discovered = self.discovered.lock().await.take();
        let alive = match discovered {
            Some(alive) => alive,
            None => instance::alive(&account.ec2, &self.inventory.cluster).await?,
        };
        let (drift, mut changes) = tokio::try_join!(
            self.find_drift(account, &alive),
            self.balancer_drift(account, &alive),
        )?;
        let doubts = drift.ask(&account.ec2).await?;
        changes.extend(drift.into_lines());
        Ok(Drifted { changes, doubts })
    }

    async fn repair(&self, part: Part, events: &Events) -> Result<()> {
        let account = self.account().await?;
        let alive = instance::alive(&account.ec2, &self.inventory.cluster).await?;
        let drift = self.find_drift(account, &alive).await?;
        let repaired = async {
            // The rules come first: the load balancer's checks need them.
            drift.repair(&account.ec2, part, events).await?;
            self.repair_balancer(account, &alive, part, events).await
        };
        match repaired.await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.left(account, error, TAKEN_UP).await),
        }
    }

    async fn balancer(&self) -> Result<Option<Balancer>> {
        self.balancer_state(self.account().await?).await
    }

    async fn crash(&self, machine: &Machine) -> Result<()> {
        faults::crash(&self.account().await?.ec2, machine).await
    }

    async fn revive(&self, machine: &Machine) -> Result<()> {
        faults::revive(&self.account().await?.ec2, machine).await
    }

    async fn replace_access_key(&self, public_key: &str) -> Result<()> {
        let account = self.account().await?;
        let cluster = &self.inventory.cluster;
        key_pair::replace(&account.ec2, cluster, public_key, &self.tags()).await
    }

    fn can_crash(&self) -> bool {
        true
    }

    fn keeps_images(&self) -> bool {
        true
    }

    async fn recipes(&self) -> Result<Vec<Recipe>> {
        self.all_recipes(self.account().await?).await
    }

    async fn images(&self) -> Result<Vec<Prepared>> {
        prepared::list(self.account().await?).await
    }

    async fn capture(
        &self,
        machine: &Machine,
        contents: &Contents,
        events: &Events,
    ) -> Result<Prepared> {
        let account = self.account().await?;
        prepared::capture(account, machine, contents, &self.settings.tags, events).await
    }

    async fn discard(&self, image: &Prepared, events: &Events) -> Result<()> {
        prepared::discard(&self.account().await?.ec2, image, events).await
    }

    async fn resources(&self) -> Result<Vec<Resource>> {
        let account = self.account().await?;
        removal::await_launches(&Launches::of(&self.inventory)?).await?;
        Ok(self.all_resources(account).await?)
    }

    async fn remove(&self, resources: &[Resource], events: &Events) -> Result<()> {
        let account = self.account().await?;
        let ec2 = &account.ec2;
        let removed = async {
            self.leave_balancer(account, resources, events).await?;
            removal::remove(ec2, resources, events).await?;
            self.remove_target_groups(account, resources, events)
                .await?;
            self.forget(resources).await?;
            removal::await_forgotten(ec2, &self.inventory.cluster, resources).await
        };
        match removed.await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.left(account, error, REMOVED).await),
        }
    }
}

/// The tags of everything that is created for a cluster.
#[derive(Debug, Clone, Copy)]
struct Tags<'a> {
    cluster: &'a str,
    /// The cluster's id. Not needed to ask whether something may be created.
    id: Option<&'a str>,
    /// The user's own tags, from the inventory.
    own: &'a BTreeMap<String, String>,
}

impl<'a> Tags<'a> {
    fn cluster(&self) -> &'a str {
        self.cluster
    }

    fn of(&self, kind: ResourceType) -> TagSpecification {
        self.with(kind, [])
    }

    /// All tags, by key. `more` counts only where the user has not set the same key.
    fn all<'b>(
        &'b self,
        more: impl IntoIterator<Item = (&'b str, &'b str)>,
    ) -> BTreeMap<&'b str, &'b str> {
        let mut all: BTreeMap<&str, &str> = more.into_iter().collect();
        all.extend(
            self.own
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str())),
        );
        all.insert(CLUSTER_LABEL, self.cluster);
        all.extend(self.id.map(|id| (ID_LABEL, id)));
        all
    }

    /// The same, as the specification for a call that creates something.
    fn with<'b>(
        &'b self,
        kind: ResourceType,
        more: impl IntoIterator<Item = (&'b str, &'b str)>,
    ) -> TagSpecification {
        let tags = self
            .all(more)
            .into_iter()
            .map(|(key, value)| Tag::builder().key(key).value(value).build());
        TagSpecification::builder()
            .resource_type(kind)
            .set_tags(Some(tags.collect()))
            .build()
    }
}

/// Adds the load balancer's name to a machine that is a front door.
fn before_doors(mut machine: Machine, inventory: &Inventory, balancer: Option<&str>) -> Machine {
    let mut doors = inventory.with_role(Role::Haproxy);
    if doors.any(|host| *host == machine.host) {
        machine.balancer = balancer.map(str::to_owned);
    }
    machine
}

/// `Ok`, the single error, or all errors as one.
fn together(mut failures: Vec<Error>, what: impl FnOnce(usize) -> String) -> Result<()> {
    match failures.len() {
        0 => Ok(()),
        1 => Err(failures.remove(0)),
        count => Err(Error::several(what(count), failures)),
    }
}
