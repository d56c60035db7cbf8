//! Fake hosts: only [`Remote`] is replaced, by the model that plans are tested with.
//!
//! Only scripts change a host, and its answers follow from its state. If the code leaves out a step, does it
//! too early, or does not look again, no healthy cluster results.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    answers::{self, Door},
    leavers::{Departing, Leavers},
    neighbours::Neighbours,
    people::machines,
    taken_over::{Server, TakenOver},
    vip::Vip,
};
use crate::{
    cluster::{Cluster, TlsStage},
    engine::context::Context,
    error::{Code, Error, Result},
    facts::{Facts, Os},
    inventory::{HostName, Role},
    plan::{
        Action, Found, Step,
        tests::{
            model::Model,
            world::{World, bare, embedded},
        },
    },
    remote::{Connection, OnLine, Output, Remote, Script},
    render,
    services::etcd::{PatroniKeys, View},
    workspace::Renewal,
};

mod away;
mod services;

use away::Away;
use services::replicas;

pub(crate) struct Hosts {
    me: Weak<Self>,
    /// The same workspace as the runs use, to render the files.
    context: Mutex<Arc<Context>>,
    model: Mutex<Option<Model>>,
    /// The steps to which scripts may belong; `None` until the first script comes.
    steps: Mutex<Option<Vec<Step>>>,
    /// The steps planned since each host's last but one reading. If hosts are read one after the other, a plan
    /// is based on their states at different times.
    earlier: Mutex<Vec<Step>>,
    read: Mutex<BTreeSet<HostName>>,
    /// Connected hosts and executed steps, in order.
    log: Mutex<Vec<String>>,
    /// Hosts whose lease cannot be taken: another run has it, or it is unknown.
    leased: Mutex<BTreeMap<HostName, Leased>>,
    /// Rows that were written through the write port.
    pub(super) rows: Mutex<Vec<String>>,
    /// `HOST STEP` of everything that was done, in order, with the TLS stage of the step.
    done: Mutex<Vec<(TlsStage, String)>>,
    taken_over: Mutex<TakenOver>,
    neighbours: Mutex<Neighbours>,
    /// Which host was refused by a neighbour, and after which step.
    refused: Mutex<Vec<String>>,
    interruption: Mutex<Option<Interruption>>,
    reads: Mutex<usize>,
    closed: Mutex<usize>,
    pub(super) leavers: Mutex<Leavers>,
    pub(super) vip: Mutex<Vip>,
    away: Away,
}

/// Why this run does not have a host's lease.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Leased {
    ByAnother,
    Unknown,
}

/// When the operator stops the run.
struct Interruption {
    /// While a step with this name runs; any step if there is none.
    step: Option<String>,
    /// The number of the step.
    left: usize,
    cancel: CancellationToken,
}

impl Interruption {
    fn at(&mut self, step: &str) {
        if self.left > 0 && self.step.as_ref().is_none_or(|it| it == step) {
            self.left -= 1;
            if self.left == 0 {
                self.cancel.cancel();
            }
        }
    }
}

impl Hosts {
    /// New hosts.
    pub(super) fn bare(context: Context) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            context: Mutex::new(Arc::new(context)),
            model: Mutex::default(),
            steps: Mutex::default(),
            earlier: Mutex::default(),
            read: Mutex::default(),
            log: Mutex::default(),
            leased: Mutex::default(),
            rows: Mutex::default(),
            done: Mutex::default(),
            taken_over: Mutex::default(),
            neighbours: Mutex::default(),
            refused: Mutex::default(),
            interruption: Mutex::default(),
            reads: Mutex::default(),
            closed: Mutex::default(),
            leavers: Mutex::default(),
            vip: Mutex::default(),
            away: Away::default(),
        })
    }

    /// What was done since the last call.
    pub(crate) fn take_done(&self) -> Vec<String> {
        let done = self.take_done_at().into_iter();
        done.map(|(_, step)| step).collect()
    }

    /// The same, each with the TLS stage of the step.
    pub(super) fn take_done_at(&self) -> Vec<(TlsStage, String)> {
        std::mem::take(&mut *self.done.lock().unwrap())
    }

    /// Connected hosts and executed steps, in order.
    pub(super) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Makes `host` refuse its lease to the run.
    pub(super) fn lease(&self, host: &str, why: Leased) {
        let mut leased = self.leased.lock().unwrap();
        leased.insert(HostName::new(host), why);
    }

    /// Makes all hosts give their lease to every run again.
    pub(super) fn free(&self) {
        self.leased.lock().unwrap().clear();
    }

    /// Which hosts were refused by a neighbour, even for a short time.
    pub(super) fn refused(&self) -> Vec<String> {
        self.refused.lock().unwrap().clone()
    }

    /// Looks at the files that services have loaded.
    pub(super) fn taken_over<T>(&self, look: impl FnOnce(&TakenOver) -> T) -> T {
        look(&self.taken_over.lock().unwrap())
    }

    /// Another inventory for the same hosts.
    pub(super) fn wants(&self, context: Context) {
        *self.context.lock().unwrap() = Arc::new(context);
    }

    fn context(&self) -> Arc<Context> {
        self.context.lock().unwrap().clone()
    }

    /// How often runs have closed their connections since the last call.
    pub(super) fn take_closed(&self) -> usize {
        std::mem::take(&mut *self.closed.lock().unwrap())
    }

    /// Makes the operator stop the run while `step` is running: `HOST STEP`.
    pub(super) fn interrupt_at(&self, step: &str, cancel: &CancellationToken) {
        self.interrupt(Some(step), 1, cancel);
    }

    /// Makes the operator stop the run during the step with this number, whichever it is.
    pub(super) fn interrupt_after(&self, others: usize, cancel: &CancellationToken) {
        self.interrupt(None, others + 1, cancel);
    }

    fn interrupt(&self, step: Option<&str>, left: usize, cancel: &CancellationToken) {
        *self.interruption.lock().unwrap() = Some(Interruption {
            step: step.map(str::to_owned),
            left,
            cancel: cancel.clone(),
        });
    }

    /// Changes a host as somebody other than pgherd would.
    pub(crate) fn meddle(&self, with: impl FnOnce(&mut World)) {
        self.with(|model| with(&mut model.world));
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Model) -> T) -> T {
        let mut model = self.model.lock().unwrap();
        look(model.get_or_insert_with(|| self.first()))
    }

    fn first(&self) -> Model {
        let mut world = World {
            cluster: self.cluster(&BTreeMap::new()),
            files: render::Files::new(),
            found: Found::default(),
            templates: embedded(),
        };
        for host in world.hosts() {
            world.found.facts.insert(host, bare());
        }
        world.files = render::render(&world.cluster, &self.context().templates).unwrap();
        Model::new(world, PatroniKeys::default(), Vec::new(), BTreeMap::new())
    }

    /// The cluster with the hosts that left the inventory, and are still there.
    fn cluster(&self, facts: &BTreeMap<HostName, Facts>) -> Cluster {
        let context = self.context();
        let left = self.leavers.lock().unwrap().hosts.clone();
        match left.is_empty() {
            true => self.declared(facts),
            false => Self::of(&context.with_hosts_that_left(&left).unwrap(), facts),
        }
    }

    /// The cluster of the inventory.
    pub(super) fn declared(&self, facts: &BTreeMap<HostName, Facts>) -> Cluster {
        Self::of(&self.context(), facts)
    }

    fn of(context: &Context, facts: &BTreeMap<HostName, Facts>) -> Cluster {
        let inventory = &context.inventory;
        let id = context.secrets().unwrap().cluster_id;
        let tls = context.tls_stage(facts).unwrap();
        context
            .cluster(&machines(inventory, &id), tls, Renewal::Due, |_| {
                Os::ubuntu_24_04()
            })
            .unwrap()
    }

    /// Remembers the steps to which the next scripts may belong.
    fn expect(&self, host: &HostName) {
        let mut read = self.read.lock().unwrap();
        let mut earlier = self.earlier.lock().unwrap();
        if !read.insert(host.clone()) {
            *read = BTreeSet::from([host.clone()]);
            earlier.clear();
        }
        earlier.extend(self.steps.lock().unwrap().take().into_iter().flatten());
        drop((read, earlier));
        self.with(|model| {
            let context = self.context();
            let world = &mut model.world;
            world.cluster = self.cluster(&world.found.facts);
            world.files = render::render(&world.cluster, &context.templates).unwrap();
            if !self.leavers.lock().unwrap().hosts.is_empty() {
                let declared = self.declared(&world.found.facts);
                let files = render::render(&declared, &context.templates).unwrap();
                world.files.extend(files);
            }
            for host in world.hosts() {
                world.found.facts.entry(host).or_insert_with(bare);
            }
            world.found.known = context.workspace.members().unwrap();
            let etcds: Vec<HostName> = world
                .found
                .etcd
                .iter()
                .map(|it| HostName::new(&it.name))
                .collect();
            world.found.stores = etcds
                .into_iter()
                .map(|host| {
                    let view = View {
                        cluster_id: "one store".into(),
                        member_id: format!("id of {host}"),
                        members: world.found.etcd.clone(),
                    };
                    (host, view)
                })
                .collect();
            // Planned only when needed, because comparing passwords is slow.
            *self.steps.lock().unwrap() = None;
        });
    }

    /// Does what the step of a script does. A script without a step only reads.
    fn carry_out(&self, host: &HostName, script: &Script) -> Option<String> {
        let mut steps = self.steps.lock().unwrap();
        let plan = || self.with(|model| self.planned(model));
        let steps = steps.get_or_insert_with(plan);
        let earlier = self.earlier.lock().unwrap();
        let all = earlier.iter().chain(steps.iter());
        let step = all.rev().find(|step| match &step.action {
            Action::Run(its) => its == script && step.host == *host,
            Action::RunOnLeader(its) => its == script,
            _ => false,
        })?;
        let name = format!("{} {}", step.host, step.name);
        let stage = self.with(|model| {
            assert!(model.can(step), "{name} cannot be done yet");
            model.do_step(step);
            let mut taken_over = self.taken_over.lock().unwrap();
            taken_over.by(step, &model.world.found.facts[&step.host]);
            let mut neighbours = self.neighbours.lock().unwrap();
            let refused = neighbours.refused(model, &taken_over).into_iter();
            let mut all = self.refused.lock().unwrap();
            all.extend(refused.map(|what| format!("after {name}: {what}")));
            model.world.cluster.tls
        });
        self.note(stage, &name);
        self.vip_moves(&name);
        Some(name)
    }

    fn note(&self, stage: TlsStage, name: &str) {
        self.log.lock().unwrap().push(name.to_owned());
        self.done.lock().unwrap().push((stage, name.to_owned()));
    }

    /// Something is done that is no script of a plan.
    pub(super) fn happens(&self, what: &str) {
        let stage = self.with(|model| model.world.cluster.tls);
        self.note(stage, what);
        if let Some(interruption) = self.interruption.lock().unwrap().as_mut() {
            interruption.at(what);
        }
    }
}

/// The connections of one run to these hosts.
#[async_trait]
impl Remote for Hosts {
    async fn run(
        &self,
        host: &HostName,
        script: &Script,
        _timeout: Duration,
        _on_line: OnLine<'_>,
    ) -> Result<Output> {
        self.away.answers(host).await?;
        let ends = |stdout: String| Output {
            code: 0,
            stdout,
            stderr: String::new(),
        };
        if script.contains("fact version 1") {
            self.expect(host);
            let facts = self.with(|model| answers::probe(&model.world.found.facts[host], script));
            return Ok(ends(facts));
        }
        if script.contains("recovery version 1") {
            let told = self.with(|model| answers::files(&model.world.found.facts[host]));
            return Ok(ends(told));
        }
        if script.contains("l=/run/pgherd.lease") {
            let lease = self.with(|model| answers::lease(&model.world.found.facts[host]));
            return Ok(ends(lease));
        }
        if script.contains("POSTGRES=") && script.contains("UNITS=") {
            let versions = "postgres postgres (PostgreSQL) 16.4\npatroni 4.1.5\nend\n";
            return Ok(ends(versions.into()));
        }
        if script.contains("export VIP PORT") {
            return Ok(ends(self.says_of_vip(host).to_owned()));
        }
        let done = match self.depart(host, script) {
            Some(Departing::Says(text)) => return Ok(ends(text.to_owned())),
            Some(Departing::Step(step)) => {
                let stage = self.with(|model| model.world.cluster.tls);
                self.note(stage, &step);
                self.vip_moves(&step);
                Some(step)
            }
            None => self.carry_out(host, script),
        };
        let asks = |role: &&Role| script.contains(&format!("systemctl is-active {}", role.unit()));
        if done.is_none()
            && let Some(role) = Role::ALL.iter().find(asks)
        {
            let state = |model: &mut Model| {
                model
                    .world
                    .facts(host.as_str())
                    .unit(role.unit())
                    .active
                    .clone()
            };
            return Ok(ends(self.with(state)));
        }
        if done.is_none() && script.contains("exec 9>/run/pgherd/") {
            return Err(Error::new(
                Code::InternalError,
                "this is the script of no step that is planned",
            )
            .on(host));
        }
        if let Some(step) = done {
            if let Some(interruption) = self.interruption.lock().unwrap().as_mut() {
                interruption.at(&step);
            }
            // Everything else that is ready gets its turn, as it would while a real host works.
            sleep(Duration::from_millis(5)).await;
        }
        Ok(ends(String::new()))
    }

    async fn dial(&self, host: &HostName, port: u16) -> Result<Box<dyn Connection>> {
        self.away.reaches(host).await?;
        let (near, far) = tokio::io::duplex(64 * 1024);
        let haproxy = self.context().inventory.haproxy.clone();
        let reads = (port == haproxy.read_port).then(|| {
            let mut reads = self.reads.lock().unwrap();
            *reads += 1;
            *reads
        });
        let this = self.me.upgrade().expect("the hosts are there");
        let tls = |host: &HostName, server| {
            self.with(|model| {
                self.taken_over(|it| it.tls(host, server, &model.world.found.facts[host]))
            })
        };
        let host = host.clone();
        if port == haproxy.write_port || port == haproxy.read_port || port == 5432 {
            let (leader, replicas) = self.with(|model| (model.leader(), replicas(model)));
            let Some(leader) = leader else {
                return Err(Error::new(Code::ServiceUnreachable, "nobody listens").on(&host));
            };
            let at = match reads {
                Some(reads) => replicas[reads % replicas.len()].clone(),
                None if port == 5432 => host.clone(),
                None => leader,
            };
            let door = Door {
                tls: tls(&at, Server::Postgres),
                wants_tls: self.taken_over(|it| it.wants_tls(&at)),
            };
            tokio::spawn(answers::postgres(far, door, move |query| {
                this.sql(&at, reads, query)
            }));
            return Ok(Box::new(near));
        }
        let server = match port {
            2379 => Server::Etcd,
            8008 => Server::Patroni,
            _ => Server::Haproxy,
        };
        let tls = tls(&host, server);
        tokio::spawn(answers::http(far, tls, move |asked, body| match server {
            Server::Etcd => this.etcd(&host, asked, body),
            Server::Patroni => this.patroni(&host, asked, body),
            _ => match this.other(&host, port) {
                Some(answer) => answer,
                None => this.haproxy(&host),
            },
        }));
        Ok(Box::new(near))
    }

    async fn reach(&self, host: &HostName) -> Result<()> {
        self.away.reaches(host).await
    }

    async fn connect(&self, host: &HostName) -> Result<()> {
        self.away.reaches(host).await?;
        self.log.lock().unwrap().push(format!("{host} connects"));
        match self.leased.lock().unwrap().get(host) {
            Some(Leased::ByAnother) => Err(Error::new(Code::LeaseHeld, "another run is at work")
                .on(host)
                .left("nothing was changed")),
            _ => Ok(()),
        }
    }

    async fn holds_lease(&self, host: &HostName) -> bool {
        !self.leased.lock().unwrap().contains_key(host)
    }

    fn settle_lease(&self) -> Result<()> {
        let all = self.with(|model| model.world.hosts());
        self.away.leases(&all)
    }

    async fn close(&self) {
        *self.closed.lock().unwrap() += 1;
    }
}
