//! A model of a cluster in which a plan's steps take effect, so that thousands of plans can be tried.
//!
//! The model assumes the worst that the facts allow: a service that has not loaded what an earlier run wrote
//! may run with any config, so it counts as not working unless the facts show that it works.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::world::{SYSTEM, World};
use crate::{
    facts::{DataFact, DbRole, UnitFact},
    inventory::{HostName, Role},
    plan::{Action, Change, Condition, Plan, Step, StepId, packages},
    render::{self, Effect, Stage},
    services::{
        self,
        etcd::{Member, PatroniKeys},
    },
};

/// A unit on a host.
type Service = (HostName, &'static str);

/// The state of the cluster, whether or not it is visible.
#[derive(Clone)]
pub(crate) struct Model {
    pub world: World,
    keys: PatroniKeys,
    members: Vec<Member>,
    /// The roles in the database.
    pub roles: BTreeMap<String, DbRole>,
    /// The services that run and work.
    able: BTreeSet<Service>,
}

impl Model {
    /// `world.found` as observed, but with etcd's content even if none answers.
    pub(crate) fn new(
        world: World,
        keys: PatroniKeys,
        members: Vec<Member>,
        roles: BTreeMap<String, DbRole>,
    ) -> Self {
        let seen = world.found.dcs.clone();
        let mut model = Self {
            world,
            keys,
            members,
            roles,
            able: BTreeSet::new(),
        };
        for host in model.world.hosts() {
            for role in model.world.cluster.nodes[&host].roles.clone() {
                let unit = role.unit();
                let facts = &model.world.found.facts[&host];
                let leads = seen
                    .as_ref()
                    .is_some_and(|keys| keys.leader.as_deref() == Some(host.as_str()));
                let shown = match role {
                    Role::Etcd => seen.is_some(),
                    Role::Postgres => leads,
                    _ => true,
                };
                let pending = facts.pending.get(unit).map(String::as_str);
                // A change that only needs a reload does not keep a service from working.
                let current = matches!(pending, None | Some("reload"))
                    && model.needs(&host, role) < Effect::RestartPatroniAlone;
                if facts.unit(unit).is_active() && (shown || current) {
                    model.able.insert((host.clone(), unit));
                }
            }
        }
        model.look();
        model
    }

    /// What a role's files on a host still need to become what they should be.
    fn needs(&self, host: &HostName, role: Role) -> Effect {
        let facts = &self.world.found.facts[host];
        self.world.files[host]
            .iter()
            .filter(|file| file.stage == Stage::Configure && file.role == Some(role))
            .filter_map(|file| {
                let old = facts.files.get(&file.path).map(|old| old.content.as_str());
                (old != Some(file.content.as_str())).then(|| file.effect_of_change(old))
            })
            .max()
            .unwrap_or(Effect::Nothing)
    }

    pub(crate) fn is_able(&self, host: &HostName, unit: &'static str) -> bool {
        self.able.contains(&(host.clone(), unit))
    }

    /// Whether etcd answers.
    pub(crate) fn dcs_is_up(&self) -> bool {
        let all = self.world.cluster.with_role(Role::Etcd);
        let (mut here, mut declared) = (0, 0);
        for node in all {
            declared += 1;
            here += usize::from(self.is_able(&node.name, "etcd"));
        }
        here > declared / 2
    }

    fn data(&self, host: &HostName) -> Option<&DataFact> {
        self.world.found.facts[host].data.as_ref()
    }

    fn has_database(&self, host: &HostName) -> bool {
        self.data(host).is_some_and(|data| {
            data.entries > 0 && !data.is_half_made() && data.system_id.as_deref() == Some(SYSTEM)
        })
    }

    fn databases(&self) -> Vec<HostName> {
        let nodes = self.world.cluster.with_role(Role::Postgres);
        nodes.map(|node| node.name.clone()).collect()
    }

    /// The leader, now or within a moment.
    pub(crate) fn leader(&self) -> Option<HostName> {
        if !self.dcs_is_up() {
            return None;
        }
        let databases = self.databases();
        let can = |host: &&HostName| self.is_able(host, "patroni") && self.has_database(host);
        let holds = |host: &&HostName| self.keys.leader.as_deref() == Some(host.as_str());
        if let Some(leader) = databases
            .iter()
            .filter(can)
            .find(holds)
            .or(databases.iter().find(can))
        {
            return Some(leader.clone());
        }
        // No member has a database: one creates it, unless a bootstrap holds the lock.
        let fresh = |host: &&HostName| {
            self.is_able(host, "patroni") && self.data(host).is_none_or(|data| data.entries == 0)
        };
        let nobody = !databases.iter().any(|host| self.has_database(host));
        let free = self.keys.initialize.is_none();
        databases
            .iter()
            .find(fresh)
            .filter(|_| nobody && free)
            .cloned()
    }

    pub(crate) fn streams(&self, host: &HostName) -> bool {
        let usable =
            self.data(host).is_none_or(|data| data.entries == 0) || self.has_database(host);
        self.leader().is_some() && self.is_able(host, "patroni") && usable
    }

    /// Whether a step can succeed in this state.
    pub(crate) fn can(&self, step: &Step) -> bool {
        match &step.action {
            Action::Run(_) | Action::Wake | Action::TakeOver | Action::TryParameters(_) => true,
            Action::Await(Condition::Ready(role)) => {
                let alone = !role.service().is_member;
                (alone || self.dcs_is_up()) && self.is_able(&step.host, role.unit())
            }
            Action::Await(Condition::Leader)
            | Action::RunOnLeader(_)
            | Action::PatchConfig(_)
            | Action::RestartPending => self.leader().is_some(),
            Action::Await(Condition::Streaming) => self.streams(&step.host),
            Action::ReleaseBootstrap { .. }
            | Action::ForgetMember
            | Action::ForgetPosition
            | Action::AdoptSystem { .. }
            | Action::AddEtcdMember { .. }
            | Action::PromoteEtcdMember
            | Action::RemoveEtcdMember { .. }
            | Action::UpdateEtcdMember { .. } => self.dcs_is_up(),
            Action::HandOver => match self.leader() {
                Some(leader) if leader == step.host => self
                    .databases()
                    .iter()
                    .any(|host| *host != leader && self.streams(host)),
                leader => leader.is_some(),
            },
            // These are never planned together with the steps of `up`.
            Action::ForbidElection(_)
            | Action::LeadElsewhere { .. }
            | Action::DropSlot { .. }
            | Action::SetPause(_)
            | Action::Reinitialize
            | Action::RestartPostgres { .. }
            | Action::Reboot { .. }
            | Action::FailOver => false,
        }
    }

    /// Applies the effect of a step.
    pub(crate) fn do_step(&mut self, step: &Step) {
        for change in &step.changes {
            match change {
                Change::File { path, .. } => self.world.put(&step.host, path),
                Change::Package(package) => {
                    let facts = self.world.facts(step.host.as_str());
                    facts.packages.insert(package.clone(), "1".into());
                }
                _ => {}
            }
        }
        self.note(step);
        let host = &step.host;
        match step.name {
            "prepare" => {
                let node = &self.world.cluster.nodes[host];
                let claimed = super::world::claimed(&self.world.cluster, node);
                self.world.facts(host.as_str()).belongings = claimed;
            }
            "install-patroni" => {
                let files = self.world.files[host].clone();
                let requirements = files
                    .iter()
                    .find(|file| file.path == packages::REQUIREMENTS);
                let stamp = requirements.map(|file| packages::digest(&file.content));
                self.world.facts(host.as_str()).patroni_stamp = stamp;
            }
            "configure-patroni" => {
                let id = self.world.cluster.secrets.cluster_id.clone();
                let facts = self.world.facts(host.as_str());
                facts.data.get_or_insert_default();
                facts.data_marker = Some(id);
            }
            "hold-patroni" => self.stop(host, "patroni"),
            "clear-bootstrap" | "clear-copy" => {
                self.world.facts(host.as_str()).data = Some(DataFact::default());
                self.stop(host, "patroni");
            }
            name => self.make_folder(host, name),
        }
        match &step.action {
            Action::Run(_) => self.run_unit(step),
            Action::Await(Condition::Leader) => self.form(),
            Action::Await(Condition::Streaming) => self.copy(host),
            Action::RunOnLeader(_) if step.name == "ensure-roles" => self.give_roles(),
            Action::PatchConfig(_) => {
                self.keys.config = Some(render::dcs_config(&self.world.cluster));
            }
            Action::ReleaseBootstrap { .. } => self.keys.initialize = None,
            Action::HandOver if self.keys.leader.as_deref() == Some(host.as_str()) => {
                let other = self
                    .databases()
                    .into_iter()
                    .find(|it| it != host && self.streams(it));
                self.keys.leader = other.map(|host| host.to_string());
            }
            Action::ForgetMember => {
                self.keys.members.remove(host.as_str());
            }
            Action::UpdateEtcdMember { peer_url } => {
                for member in self
                    .members
                    .iter_mut()
                    .filter(|it| it.name == host.as_str())
                {
                    member.peer_urls = vec![peer_url.clone()];
                }
            }
            _ => {}
        }
        self.look();
    }

    /// A script's notes on the host about what its unit still has to do.
    fn note(&mut self, step: &Step) {
        let Action::Run(script) = &step.action else {
            return;
        };
        for unit in services::all().map(|service| service.unit.name) {
            for effect in ["reload", "exchange", "restart"] {
                if script.contains(&format!("echo {effect} >/run/pgherd/pending/{unit}")) {
                    let facts = self.world.facts(step.host.as_str());
                    facts.pending.insert(unit.into(), effect.into());
                }
            }
        }
    }

    /// Makes the folder of a service whose files the step `name` writes on a host.
    fn make_folder(&mut self, host: &HostName, name: &str) {
        let mut services = services::all();
        if let Some(service) = services.find(|it| it.unit.configure == name) {
            super::world::give_folder(service, self.world.facts(host.as_str()));
        }
    }

    pub(crate) fn stop(&mut self, host: &HostName, unit: &'static str) {
        self.able.remove(&(host.clone(), unit));
        if let Some(fact) = self.world.facts(host.as_str()).units.get_mut(unit) {
            fact.active = "inactive".into();
        }
    }

    fn run_unit(&mut self, step: &Step) {
        let name = step.name.strip_suffix("-alone").unwrap_or(step.name);
        let Some((verb, unit)) = name.split_once('-') else {
            return;
        };
        let Some(role) = services::of_unit(unit) else {
            return;
        };
        if !matches!(verb, "start" | "reload" | "restart") {
            return;
        }
        let unit = role.unit();
        let needs = self.needs(&step.host, role);
        let inventory = self.world.cluster.inventory.clone();
        let facts = self.world.facts(step.host.as_str());
        let pending = facts.pending.remove(unit);
        facts.units.insert(
            unit.into(),
            UnitFact {
                loaded: true,
                active: "active".into(),
                enabled: "enabled".into(),
                ..UnitFact::default()
            },
        );
        facts.etcd_data |= role == Role::Etcd;
        if role.service().ports_looked_at {
            super::world::listen(&inventory, role, facts);
        }
        let known = self.members.iter().any(|it| it.name == step.host.as_str());
        if role == Role::Etcd && !known {
            let tls = self.world.cluster.tls.is_used();
            let scheme = if tls { "https" } else { "http" };
            self.members.push(Member {
                id: format!("id of {}", step.host),
                name: step.host.to_string(),
                peer_urls: vec![format!("{scheme}://{}:2380", step.host)],
                client_urls: vec![format!("{scheme}://{}:2379", step.host)],
                is_learner: false,
            });
        }
        // A reload does not apply everything.
        let enough = verb != "reload" || pending.as_deref().is_none_or(|effect| effect == "reload");
        if needs == Effect::Nothing && enough {
            self.able.insert((step.host.clone(), unit));
        }
    }

    /// What the members do by themselves: one leads, and the others copy it.
    pub(crate) fn come_to_rest(&mut self) {
        self.form();
        for host in self.databases() {
            self.copy(&host);
        }
        self.look();
    }

    /// Applies the desired cluster-wide configuration.
    pub(crate) fn configure(&mut self) {
        self.keys.config = Some(render::dcs_config(&self.world.cluster));
        self.look();
    }

    /// Another member leads.
    pub(crate) fn hand_over(&mut self, to: &HostName) {
        self.keys.leader = Some(to.to_string());
        self.look();
    }

    /// The members that Patroni has keys of.
    pub(crate) fn members(&self) -> Vec<String> {
        self.keys.members.keys().cloned().collect()
    }

    /// Deletes Patroni's key of a member.
    pub(crate) fn forget(&mut self, member: &str) {
        self.keys.members.remove(member);
        self.look();
    }

    /// A host is gone with all that was on it.
    pub(crate) fn lose(&mut self, host: &HostName) {
        self.able.retain(|(it, _)| it != host);
        *self.world.facts(host.as_str()) = super::world::bare();
        self.look();
    }

    /// Makes etcd remember the URL at which a member's peers reach it.
    pub(crate) fn update_member(&mut self, id: &str, peer_url: String) {
        if let Some(member) = self.members.iter_mut().find(|it| it.id == id) {
            member.peer_urls = vec![peer_url];
        }
        self.look();
    }

    /// One member leads: one that can, with the existing database or a new one.
    fn form(&mut self) {
        let Some(leader) = self.leader() else { return };
        if !self.has_database(&leader) {
            self.give_data(&leader);
            self.keys.initialize = Some(SYSTEM.into());
            self.keys.initialize_revision = Some("7".into());
            let mut config = render::dcs_config(&self.world.cluster);
            config["loop_wait"] = json!(1);
            self.keys.config = Some(config);
            self.give_roles();
        }
        self.keys.leader = Some(leader.to_string());
    }

    fn copy(&mut self, host: &HostName) {
        if self.streams(host) && !self.has_database(host) {
            self.give_data(host);
        }
    }

    fn give_data(&mut self, host: &HostName) {
        let version = self.world.cluster.nodes[host].postgresql;
        self.world.facts(host.as_str()).data = Some(DataFact {
            owner: "postgres".into(),
            entries: 23,
            version,
            system_id: Some(SYSTEM.into()),
            control: true,
            bases: 3,
            ..DataFact::default()
        });
    }

    fn give_roles(&mut self) {
        self.roles = own_roles(&self.world);
    }

    /// What the next observation shows: etcd only if it answers, a database only if it runs.
    pub(crate) fn look(&mut self) {
        let up = self.dcs_is_up();
        if let Some(leader) = self.leader() {
            self.keys.leader = Some(leader.to_string());
        } else if up {
            self.keys.leader = None;
        }
        for host in self.databases() {
            let address = self.world.cluster.nodes[&host].address.to_string();
            if self.is_able(&host, "patroni") && up {
                let says: Value = json!({"state": "running", "conn_url": format!("postgres://{address}:5432/postgres")});
                self.keys.members.insert(host.to_string(), says);
            }
            let runs = self.is_able(&host, "patroni") && self.has_database(&host);
            let leads = self.keys.leader.as_deref() == Some(host.as_str());
            let roles = self.roles.clone();
            let facts = self.world.facts(host.as_str());
            // For a service that has not loaded its config, the observed state of its database is kept.
            if runs {
                facts.in_recovery = Some(!leads);
                facts.db_roles = roles;
            } else if !facts.unit("patroni").is_active() {
                facts.in_recovery = None;
                facts.db_roles.clear();
            }
        }
        self.world.found.dcs = up.then(|| self.keys.clone());
        self.world.found.etcd = if up { self.members.clone() } else { Vec::new() };
    }
}

/// The cluster's own roles as they should be.
pub(crate) fn own_roles(world: &World) -> BTreeMap<String, DbRole> {
    let secrets = &world.cluster.secrets;
    let interim = secrets.interim.iter().flat_map(|interim| {
        [
            ("replicator_interim", &interim.replication),
            ("rewind_interim", &interim.rewind),
        ]
    });
    [
        ("postgres", &secrets.superuser),
        ("replicator", &secrets.replication),
        ("rewind", &secrets.rewind),
    ]
    .into_iter()
    .chain(interim)
    .map(|(name, password)| (name.to_owned(), super::world::role(name, password)))
    .collect()
}

/// Everything that must succeed before a step, and what can come only after it.
pub(crate) fn before_and_after(plan: &Plan, id: StepId) -> (BTreeSet<StepId>, BTreeSet<StepId>) {
    let mut before = BTreeSet::new();
    let mut next = plan.steps[id].after.clone();
    while let Some(id) = next.pop() {
        if before.insert(id) {
            next.extend(&plan.steps[id].after);
        }
    }
    let mut after = BTreeSet::from([id]);
    for (other, step) in plan.steps.iter().enumerate().skip(id + 1) {
        if step.after.iter().any(|it| after.contains(it)) {
            after.insert(other);
        }
    }
    (before, after)
}
