//! Hosts that leave the cluster, or make room for a new host of the same name.
//!
//! First their membership ends. Then the caller converges the cluster with the inventory and proves it. Their machines
//! go last. The workspace's list keeps these hosts until the end, so that the same command goes on after an
//! interruption.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    context::Context,
    fencing::{self, Unreachable},
    observe::Observed,
    operator::{Answer, Question, consent},
    run::Run,
};
use crate::{
    cluster::KnownHost,
    error::{Code, Error, Result},
    inventory::{HostName, Role},
    machine::{Machine, MachineState},
    plan::{
        Plan,
        membership::Left,
        retire::{self, Departures, Leaver, ShrinkingCluster},
    },
    poll,
    provider::Drifted,
    services::postgres::patroni::{self, Status},
};

mod beforehand;
mod ending;

pub(super) use beforehand::ask_before_others_join;

/// How long an election may take after the leader's lock has expired.
const ELECTION: Duration = Duration::from_secs(30);

pub(crate) use crate::plan::retire::Becomes;

/// A host that leaves, for the question to the user.
pub(crate) struct Farewell<'a> {
    pub host: &'a HostName,
    pub roles: &'a [Role],
    pub becomes: Becomes,
    /// What becomes of the host and what is lost with it, one line for each.
    pub lost: Vec<String>,
}

/// The hosts that leave in a run, after their membership has ended.
pub(super) struct Retirement {
    /// The cluster, with the hosts that leave.
    wide: Context,
    leavers: Vec<Leaver>,
    /// All hosts that run and can be reached.
    machines: Vec<Machine>,
    /// Whether the disks with the data stay, for new machines of the same hosts.
    keeps_data: bool,
}

/// The observed cluster, with the hosts that leave.
struct Seen {
    observed: Observed,
    survey: BTreeMap<HostName, Result<Status>>,
}

/// The hosts whose departure the user has confirmed in this run.
pub(super) type Agreed = BTreeSet<HostName>;

/// Retires the hosts that `up --remove` names, if they are there.
pub(super) async fn of_up(run: &Run<'_>, agreed: &Agreed) -> Result<Option<Retirement>> {
    let context = run.context;
    let Departures::Agreed(named) = &context.leaving else {
        return Ok(None);
    };
    // Refuses before any host leaves what would be refused afterwards.
    let preview = context
        .preview(context.host_status().await?, Drifted::default())
        .await?;
    preview.plan.refuse_while_paused(&context.inventory)?;
    let known = context.workspace.members()?;
    let mut leaving = Vec::new();
    for host in named {
        if let Some(declared) = context.inventory.hosts.get(host) {
            match taken_off(host, &preview.plan) {
                Ok(roles) => leaving.push(KnownHost {
                    name: host.clone(),
                    roles,
                    address: declared.address,
                    size: None,
                    joined: true,
                }),
                // An interrupted run took these roles off. The list keeps them until a run ends well.
                Err(_) if had_more(host, &declared.roles, &known) => {
                    context.operator.say(&format!(
                        "note: {host} has given up its role already, and the run goes on from there"
                    ));
                }
                Err(error) => return Err(error),
            }
            continue;
        }
        match preview.hosts.left.iter().find(|left| left.name == *host) {
            Some(left) => leaving.push(as_known(left, &known)),
            None => context.operator.say(&format!(
                "note: nothing of a host {host} is left: it has gone already, or was never there"
            )),
        }
    }
    if leaving.is_empty() {
        return Ok(None);
    }
    let declared = context.inventory.hosts.iter();
    let twice = |leaver: &KnownHost| {
        let mut declared = declared.clone();
        let same = declared.find(|(name, host)| {
            **name != leaver.name && host.address.is_some() && host.address == leaver.address
        });
        same.map(|(name, _)| (leaver.name.clone(), name.clone()))
    };
    if let Some((leaver, name)) = leaving.iter().find_map(twice) {
        return Err(Error::new(
            Code::InvalidArguments,
            format!("--remove {leaver}: the inventory has the same host under the name {name}"),
        )
        .left("nothing was changed")
        .hint(format!(
            "call it {leaver} again in the inventory; pgherd does not rename hosts"
        )));
    }
    let retirement = Retirement::of(run, &leaving, None).await?;
    retirement.begin(run, agreed).await.map(Some)
}

/// Notes the roles that hosts have, once nothing is left to do of what `up --remove` named.
pub(super) fn ended(context: &Context) -> Result<()> {
    if context.leaving == Departures::None {
        return Ok(());
    }
    let mut known = context.workspace.members()?;
    for host in &mut known {
        if let Some(declared) = context.inventory.hosts.get(&host.name) {
            host.roles.clone_from(&declared.roles);
        }
    }
    context.workspace.note_members(&known)
}

/// Whether the last run that ended well left more roles on a host than the inventory gives it.
fn had_more(host: &HostName, given: &[Role], known: &[KnownHost]) -> bool {
    let known = known.iter().find(|known| known.name == *host);
    known.is_some_and(|known| known.roles.iter().any(|role| !given.contains(role)))
}

/// The roles that a named host gives up: those that it has and the inventory does not give it.
fn taken_off(host: &HostName, plan: &Plan) -> Result<Vec<Role>> {
    let mut all = plan.taken_off.iter();
    if let Some(taken) = all.find(|it| it.host == *host) {
        return Ok(taken.roles.clone());
    }
    Err(Error::new(
        Code::InvalidArguments,
        format!("--remove {host}: the inventory has this host, and it has no role beyond those that the inventory gives it"),
    )
    .left("nothing was changed")
    .hint(format!(
        "if {host} is to leave, take its line out of the inventory first; if it is to give up a role, take that role off it"
    ))
    .hint(format!(
        "to make it anew under its name: pgherd replace {host}"
    )))
}

/// Retires a host of the inventory, so that a new host can take its name, and with `keeps_data` its data volume.
pub(super) async fn of_replace(
    run: &Run<'_>,
    host: &HostName,
    keeps_data: bool,
) -> Result<Retirement> {
    let declared = &run.context.inventory.hosts[host];
    let leaver = KnownHost {
        name: host.clone(),
        roles: declared.roles.clone(),
        address: declared.address,
        size: None,
        joined: true,
    };
    let mut retirement = Retirement::of(run, &[leaver], Some(Becomes::New)).await?;
    retirement.keeps_data = keeps_data;
    retirement.begin(run, &Agreed::new()).await
}

fn as_known(left: &Left, known: &[KnownHost]) -> KnownHost {
    let known = known.iter().find(|known| known.name == left.name);
    KnownHost {
        name: left.name.clone(),
        roles: left.roles.clone(),
        address: left.address.or(known.and_then(|known| known.address)),
        size: known.and_then(|known| known.size),
        joined: left.member,
    }
}

impl Retirement {
    /// Ends the membership of the hosts that leave, after the user has confirmed it.
    async fn begin(mut self, run: &Run<'_>, agreed: &Agreed) -> Result<Self> {
        self.retire(run, agreed).await?;
        Ok(self)
    }

    /// The hosts that leave, before pgherd has looked at them. They are known to belong to this cluster. Without
    /// `becomes`, the inventory says what becomes of them.
    async fn of(run: &Run<'_>, leaving: &[KnownHost], becomes: Option<Becomes>) -> Result<Self> {
        let declared = |host| run.context.inventory.hosts.contains_key(host);
        let wide = run.context.with_hosts_that_left(leaving)?;
        let mut machines = wide.provider.discover().await?;
        machines.retain(|machine| wide.inventory.hosts.contains_key(&machine.host));
        let leavers = leaving.iter().map(|known| Leaver {
            host: known.name.clone(),
            roles: known.roles.clone(),
            answers: true,
            becomes: becomes.unwrap_or(match declared(&known.name) {
                true => Becomes::Less,
                false => Becomes::Gone,
            }),
        });
        let mut retirement = Self {
            leavers: leavers.collect(),
            machines,
            wide,
            keeps_data: false,
        };
        retirement.refuse_strange().await?;
        retirement
            .machines
            .retain(|machine| machine.state == MachineState::Running);
        Ok(retirement)
    }

    /// Looks at all hosts, and notes which of the hosts that leave have answered.
    async fn look_first(&mut self, run: &Run<'_>) -> Result<Seen> {
        let seen = self.look(run).await?;
        for leaver in &mut self.leavers {
            leaver.answers = seen.observed.found.facts.contains_key(&leaver.host);
        }
        Ok(seen)
    }

    async fn retire(&mut self, run: &Run<'_>, agreed: &Agreed) -> Result<()> {
        let mut seen = self.look_first(run).await?;
        let dead: Vec<HostName> = self
            .leavers
            .iter()
            .filter(|it| !it.answers)
            .map(|it| it.host.clone())
            .collect();
        retire::refuse_too_few(&self.shrinking(&seen))?;
        if dead.is_empty() {
            self.plan(&seen)?;
        } else if !self.wide.provider.owns_hosts() {
            let unreachable = self.unreachable(&dead);
            fencing::refuse_if_alive(&unreachable, run, &seen.observed.found).await?;
            self.plan(&seen)?;
        }
        let asked = self.ask(&seen, agreed).await?;
        let fenced = fencing::stop(&self.unreachable(&dead)).await?;
        self.machines.retain(|it| !dead.contains(&it.host));
        if fenced || asked == Answer::Yes || !dead.is_empty() {
            seen = self.look_once_somebody_leads(run, !dead.is_empty()).await?;
        }
        let plan = self.plan(&seen)?;
        if plan.is_empty() {
            return Ok(());
        }
        self.wide
            .on(&self.machines, &run.events, async |connected| {
                connected.announce(&plan);
                connected
                    .carry_out(plan, &seen.observed.cluster, run.cancel)
                    .await
            })
            .await
    }

    /// Looks at all hosts. Hosts that stay must answer.
    async fn look(&self, run: &Run<'_>) -> Result<Seen> {
        self.wide
            .on(&self.machines, &run.events, async |connected| {
                let mut observed = connected.look().await?;
                observed.unreachable.retain(|error| {
                    let leaves = |host: &HostName| self.go().any(|it| it.host == *host);
                    !error.host().is_some_and(leaves)
                });
                let observed = observed.whole()?;
                let survey = patroni::survey(&connected.http, &observed.cluster).await;
                Ok(Seen { observed, survey })
            })
            .await
    }

    /// Looks again after a leader may have died. Its lock stays for a while.
    async fn look_once_somebody_leads(&self, run: &Run<'_>, wait: bool) -> Result<Seen> {
        let seen = self.look(run).await?;
        let databases = self
            .leavers
            .iter()
            .any(|it| it.roles.contains(&Role::Postgres));
        let leads = patroni::leader_of(&seen.survey).is_some();
        if !wait || !databases || leads || seen.observed.found.dcs.is_none() {
            return Ok(seen);
        }
        let ttl = Duration::from_secs(self.wide.inventory.patroni.ttl.into());
        let cluster = &seen.observed.cluster;
        self.wide
            .on(&self.machines, &run.events, async |connected| {
                let led = poll::until(ttl + ELECTION, Duration::from_millis(500), || async {
                    let survey = patroni::survey(&connected.http, cluster).await;
                    match patroni::leader_of(&survey) {
                        Some(_) => Ok(()),
                        None => Err(()),
                    }
                });
                tokio::select! {
                    // The plan says whether a member leads.
                    _ = led => Ok(()),
                    () = run.cancel.cancelled() => Err(interrupted()),
                }
            })
            .await?;
        self.look(run).await
    }

    /// The hosts whose machines go.
    fn go(&self) -> impl Iterator<Item = &Leaver> {
        self.leavers.iter().filter(|it| it.becomes != Becomes::Less)
    }

    fn shrinking<'a>(&'a self, seen: &'a Seen) -> ShrinkingCluster<'a> {
        ShrinkingCluster {
            cluster: &seen.observed.cluster,
            found: &seen.observed.found,
            survey: &seen.survey,
            leaving: &self.leavers,
        }
    }

    fn unreachable<'a>(&'a self, hosts: &'a [HostName]) -> Unreachable<'a> {
        Unreachable {
            hosts,
            context: &self.wide,
            machines: &self.machines,
            return_anew: self.go().any(|it| it.becomes == Becomes::New),
        }
    }

    fn plan(&self, seen: &Seen) -> Result<Plan> {
        let plan = retire::plan(&self.shrinking(seen))?;
        plan.refuse_while_paused(&self.wide.inventory)?;
        Ok(plan)
    }

    /// The disk of its own that a running host has for its data.
    fn volume_of(&self, host: &HostName) -> Option<&str> {
        let mut machines = self.machines.iter();
        let machine = machines.find(|machine| machine.host == *host)?;
        machine.data_volume.as_deref()
    }

    /// The disk with the data that the next machine of a host gets.
    fn kept_volume(&self, host: &HostName) -> Option<&str> {
        let runs = self.machines.iter().any(|it| it.host == *host);
        match self.volume_of(host) {
            _ if !self.keeps_data => None,
            None if !runs => Some("its data volume"),
            volume => volume,
        }
    }

    /// Asks for the name of each host, except for those in `agreed`.
    async fn ask(&self, seen: &Seen, agreed: &Agreed) -> Result<Answer> {
        let leader = patroni::leader_of(&seen.survey);
        let shrinking = self.shrinking(seen);
        let databases = seen.observed.cluster.with_role(Role::Postgres);
        let stay: Vec<&HostName> = databases
            .map(|node| &node.name)
            .filter(|host| !shrinking.leaves(host))
            .collect();
        let owned = self.wide.provider.owns_hosts();
        let mut answer = Answer::Beforehand;
        for leaver in self.leavers.iter().filter(|it| !agreed.contains(&it.host)) {
            let data_dir = &self.wide.inventory.postgresql.data_dir;
            let leads = leader == Some(&leaver.host);
            let goes = owned && leaver.becomes != Becomes::Less;
            let volume = self.kept_volume(&leaver.host);
            let data = match volume {
                Some(volume) => retire::Data::Stays(volume),
                None => retire::Data::IsDeleted(data_dir),
            };
            let backups = self.wide.inventory.backup.places();
            let mut lost = retire::lost(&leaver.roles, &stay, data, leads, goes, backups);
            lost.push(match (owned, leaver.answers) {
                _ if leaver.becomes == Becomes::Less => {
                    "what nothing else needs there goes with it: packages, files, the unit".into()
                }
                (true, true) => match self.volume_of(&leaver.host) {
                    Some(volume) if !self.keeps_data => {
                        format!("its machine is removed, and its data volume {volume}")
                    }
                    _ => "its machine is removed".into(),
                },
                (true, false) => {
                    "it cannot be reached: its machine is stopped first, and removed at the end"
                        .into()
                }
                (false, true) => "all that pgherd put on the host is removed from it".into(),
                (false, false) => "it cannot be reached: what is on the host stays there".into(),
            });
            let farewell = Farewell {
                host: &leaver.host,
                roles: &leaver.roles,
                becomes: leaver.becomes,
                lost,
            };
            let question = Question::Retire {
                cluster: &self.wide.inventory.cluster,
                farewell: &farewell,
            };
            answer = consent(self.wide.operator.as_ref(), question).await?;
        }
        Ok(answer)
    }
}

fn interrupted() -> Error {
    Error::interrupted().hint("run the same command again: it continues from here")
}
