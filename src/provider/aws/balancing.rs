//! The provider's part in the load balancer: when it is looked up, created, changed and removed.

use ipnet::Ipv4Net;

use super::{
    AwsProvider, Tags,
    account::Account,
    balancer::{self, Wanted, Work},
    failure::Failure,
    instance::{self, Found},
    removal::{self, INSTANCE},
    survey::Survey,
};
use crate::{
    error::{Code, Error, Result},
    event::Events,
    inventory::{HostName, Role},
    provider::{Access, Balancer, Part, Resource, Target},
};

/// The states in which a target gets clients now, or may get them soon.
const HEALTHY: &str = "healthy";
const COMING: [&str; 2] = ["initial", "unused"];

/// What a launch must know about the load balancer.
#[derive(Debug, Default)]
pub(super) struct Before {
    pub(super) name: Option<String>,
    pub(super) checked_from: Vec<Ipv4Net>,
}

impl AwsProvider {
    /// The DNS name of the load balancer, if it exists.
    pub(super) async fn balancer_name(&self, account: &Account) -> Result<Option<String>> {
        if self.settings.load_balancer.is_none() {
            return Ok(None);
        }
        let found = balancer::find(&account.elb, &self.inventory.cluster).await?;
        Ok(found.map(|it| it.address))
    }

    fn wanted(&self, alive: &[Found]) -> Option<Wanted<'_>> {
        Wanted::of(&self.inventory, self.settings.load_balancer?, alive)
    }

    /// The networks of the load balancer's subnets, present and future.
    pub(super) async fn checked_from(
        &self,
        account: &Account,
        alive: &[Found],
    ) -> Result<Vec<Ipv4Net>> {
        match self.wanted(alive) {
            Some(wanted) => self.networks(account, &wanted).await,
            None => Ok(Vec::new()),
        }
    }

    async fn networks(&self, account: &Account, wanted: &Wanted<'_>) -> Result<Vec<Ipv4Net>> {
        let found = balancer::find(&account.elb, &self.inventory.cluster).await?;
        let has = found.iter().flat_map(|it| it.subnets.values());
        let subnets = wanted.subnets.values().chain(has);
        Ok(balancer::networks(&account.ec2, subnets).await?)
    }

    /// How the load balancer differs from the inventory; nothing while no front door exists.
    pub(super) async fn balancer_drift(
        &self,
        account: &Account,
        alive: &[Found],
    ) -> Result<Vec<String>> {
        let cluster = &self.inventory.cluster;
        if self.settings.load_balancer.is_none() {
            // An account that may not list load balancers has not made one either, and nobody waits for an
            // answer that may never come.
            return match balancer::find(&account.elb_in_passing, cluster).await {
                Ok(Some(found)) => Err(undeclared(&found.name, &found.address)),
                Ok(None) | Err(_) => Ok(Vec::new()),
            };
        }
        let Some(wanted) = self.wanted(alive) else {
            return Ok(Vec::new());
        };
        let seen = balancer::look(&account.elb, cluster).await?;
        self.refuse_anothers(&seen, id_of(alive))?;
        balancer::lines(&seen, &wanted)
    }

    /// A line about the load balancer that a launch would create, if nothing of the cluster exists yet.
    pub(super) fn balancer_to_make(&self, survey: &Survey, alive: &[Found]) -> Option<String> {
        let wanted = self.wanted_with(survey, &[])?;
        alive.is_empty().then(|| balancer::made(&wanted))
    }

    /// The desired load balancer, with the subnets of front doors that are still to be launched.
    fn wanted_with(&self, survey: &Survey, alive: &[Found]) -> Option<Wanted<'_>> {
        let scheme = self.settings.load_balancer?;
        let mut wanted = Wanted::of(&self.inventory, scheme, alive)
            .unwrap_or_else(|| Wanted::none(&self.inventory, scheme));
        for host in self.inventory.with_role(Role::Haproxy) {
            if let Some(place) = survey.places.get(host) {
                wanted.is_in(&place.subnet.zone, &place.subnet.id);
            }
        }
        wanted.vpc.clone_from(&survey.vpc);
        (!wanted.subnets.is_empty()).then_some(wanted)
    }

    /// Creates the load balancer before the hosts: certificates need its name, and security groups need its
    /// networks.
    pub(super) async fn make_balancer(
        &self,
        account: &Account,
        alive: &[Found],
        survey: Option<&Survey>,
        access: &Access,
        events: &Events,
    ) -> Result<Before> {
        let wanted = match survey {
            Some(survey) => self.wanted_with(survey, alive),
            None => self.wanted(alive),
        };
        let Some(wanted) = wanted else {
            return Ok(Before::default());
        };
        let made = async {
            let id = Some(access.cluster_id.as_str());
            self.refuse_anothers(
                &balancer::look(&account.elb, &self.inventory.cluster).await?,
                id,
            )?;
            let work = self.work(account, &wanted, id, events);
            let seen = balancer::ensure(&work, Part::Missing).await?;
            let checked_from = self.networks(account, &wanted).await?;
            Ok(Before {
                name: seen.balancer.map(|it| it.address),
                checked_from,
            })
        };
        match made.await {
            Ok(made) => Ok(made),
            Err(error) => Err(self.left(account, error, super::TAKEN_UP).await),
        }
    }

    /// Registers the front doors that run by now.
    pub(super) async fn register(
        &self,
        account: &Account,
        access: &Access,
        events: &Events,
    ) -> Result<()> {
        if self.settings.load_balancer.is_none() {
            return Ok(());
        }
        let alive = instance::alive(&account.ec2, &self.inventory.cluster).await?;
        match self.wanted(&alive) {
            Some(wanted) => {
                let work = self.work(account, &wanted, Some(&access.cluster_id), events);
                balancer::ensure(&work, Part::Missing).await.map(drop)
            }
            None => Ok(()),
        }
    }

    /// Corrects what [`AwsProvider::balancer_drift`] reports.
    pub(super) async fn repair_balancer(
        &self,
        account: &Account,
        alive: &[Found],
        part: Part,
        events: &Events,
    ) -> Result<()> {
        match self.wanted(alive) {
            Some(wanted) => {
                let work = self.work(account, &wanted, id_of(alive), events);
                balancer::ensure(&work, part).await.map(drop)
            }
            None => Ok(()),
        }
    }

    fn work<'a>(
        &'a self,
        account: &'a Account,
        wanted: &'a Wanted<'a>,
        id: Option<&'a str>,
        events: &'a Events,
    ) -> Work<'a> {
        Work {
            elb: &account.elb,
            wanted,
            tags: Tags { id, ..self.tags() },
            events,
        }
    }

    /// Refuses a load balancer that was made for another cluster of this name.
    fn refuse_anothers(&self, seen: &balancer::Seen, ours: Option<&str>) -> Result<()> {
        let found = seen.balancer.iter();
        let mut ids = found.filter_map(|it| Some((it, it.cluster_id.as_deref()?)));
        match ids.find(|(_, id)| ours.is_some_and(|ours| ours != *id)) {
            None => Ok(()),
            Some((it, id)) => Err(Error::new(
                Code::HostOfAnotherCluster,
                format!(
                    "the load balancer {} belongs to another cluster {}",
                    it.name, self.inventory.cluster
                ),
            )
            .cause(format!(
                "its tag pgherd:id says {id}; this cluster has {}",
                ours.unwrap_or_default()
            ))
            .left("nothing was changed")
            .hint("remove it with that cluster, or give this cluster another name")),
        }
    }

    /// Every resource with the cluster's tag.
    pub(super) async fn all_resources(&self, account: &Account) -> Result<Vec<Resource>, Failure> {
        let cluster = &self.inventory.cluster;
        let of_ec2 = removal::resources(&account.ec2, cluster);
        if self.settings.load_balancer.is_some() {
            let (mut all, rest) =
                tokio::try_join!(balancer::resources(&account.elb, cluster), of_ec2)?;
            all.extend(rest);
            return Ok(all);
        }
        let (all, rest) = tokio::join!(
            balancer::resources(&account.elb_in_passing, cluster),
            of_ec2
        );
        let mut all = all.unwrap_or_default();
        all.extend(rest?);
        Ok(all)
    }

    /// Before instances are terminated: removes the load balancer, or deregisters them from it.
    pub(super) async fn leave_balancer(
        &self,
        account: &Account,
        resources: &[Resource],
        events: &Events,
    ) -> Result<()> {
        let cluster = &self.inventory.cluster;
        let of = |kind| resources.iter().filter(move |it| it.kind == kind);
        let balancers: Vec<Resource> = of(balancer::BALANCER).cloned().collect();
        if !balancers.is_empty() {
            return balancer::remove(&account.elb, cluster, &balancers, events).await;
        }
        let doors: Vec<&HostName> = self.inventory.with_role(Role::Haproxy).collect();
        // A host that is not in the inventory any more may have been a front door.
        let may_be = |it: &&Resource| {
            let host = it.host.as_ref();
            host.is_none_or(|host| {
                doors.contains(&host) || !self.inventory.hosts.contains_key(host)
            })
        };
        let ids: Vec<String> = of(INSTANCE)
            .filter(may_be)
            .map(|it| it.id.clone())
            .collect();
        if ids.is_empty() || self.settings.load_balancer.is_none() {
            return Ok(());
        }
        Ok(balancer::deregister(&account.elb, cluster, &ids).await?)
    }

    pub(super) async fn remove_target_groups(
        &self,
        account: &Account,
        resources: &[Resource],
        events: &Events,
    ) -> Result<()> {
        let groups = resources
            .iter()
            .filter(|it| it.kind == balancer::TARGET_GROUP);
        let groups: Vec<Resource> = groups.cloned().collect();
        balancer::remove(&account.elb, &self.inventory.cluster, &groups, events).await
    }

    /// The state of the load balancer and of the front doors behind it.
    pub(super) async fn balancer_state(&self, account: &Account) -> Result<Option<Balancer>> {
        if self.settings.load_balancer.is_none() {
            return Ok(None);
        }
        let cluster = &self.inventory.cluster;
        let (alive, seen) = tokio::try_join!(instance::alive(&account.ec2, cluster), async {
            Ok(balancer::look(&account.elb, cluster).await?)
        },)?;
        let mut targets: Vec<Target> = seen
            .targets()
            .map(|(door, instance, state, why)| {
                let host = alive.iter().find(|it| it.id == instance);
                Target {
                    host: host.map_or_else(|| instance.to_owned(), |it| it.host.to_string()),
                    port: u16::try_from(door.port(&self.inventory)).unwrap_or_default(),
                    state: state.to_owned(),
                    healthy: state == HEALTHY,
                    coming: COMING.contains(&state),
                    why: why.map(str::to_owned),
                }
            })
            .collect();
        targets.sort_by(|a, b| (a.port, &a.host).cmp(&(b.port, &b.host)));
        let name = balancer::name(cluster, None);
        Ok(Some(match seen.balancer {
            Some(found) => Balancer {
                name,
                address: Some(found.address),
                state: found.state,
                targets,
            },
            None => Balancer {
                name,
                address: None,
                state: "missing".into(),
                targets,
            },
        }))
    }
}

/// The cluster's id, as the tags of its instances say.
fn id_of(alive: &[Found]) -> Option<&str> {
    alive.iter().find_map(|it| it.cluster_id.as_deref())
}

fn undeclared(name: &str, address: &str) -> Error {
    Error::new(
        Code::InfrastructureDiffers,
        format!("the cluster has the load balancer {name}, and the inventory has none"),
    )
    .cause(format!("clients may use its name, {address}, and no run would keep it right"))
    .left("nothing was changed")
    .hint("put `load_balancer: network` back under `provider`")
    .hint("to do without it: have all clients leave its name, and delete it with the AWS CLI (aws elbv2 delete-load-balancer); its name never comes back")
}
