//! Hosts that are not there: [`Remote`] alone is played, by the model that plans are tried on.
//!
//! A host changes only by the scripts that are run on it, and answers by what has become of it: whoever
//! leaves a step out, does it too early, or does not look again, does not get to a cluster that holds.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    answers::{self, Rows},
    people::machines,
};
use crate::{
    cluster::{INTERIM_REPLICATION_USER, REPLICATION_USER},
    configs::PatroniConfig,
    engine::context::Context,
    error::{Code, Error, Result},
    facts::{Listener, Os},
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

type Answer = (u16, String);

pub(crate) struct Hosts {
    me: Weak<Self>,
    /// The same workspace as that of the runs: what the files are to be made of.
    context: Context,
    model: Mutex<Option<Model>>,
    /// What scripts are the scripts of.
    steps: Mutex<Vec<Step>>,
    /// Rows that were written through the write port.
    rows: Mutex<Vec<String>>,
    /// `HOST STEP` of all that was done, in its order.
    done: Mutex<Vec<String>>,
    /// A step at which the operator gives up.
    interruption: Mutex<Option<(String, CancellationToken)>>,
    reads: Mutex<usize>,
    closed: Mutex<usize>,
}

impl Hosts {
    /// Hosts as they come.
    pub(super) fn bare(context: Context) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            context,
            model: Mutex::default(),
            steps: Mutex::default(),
            rows: Mutex::default(),
            done: Mutex::default(),
            interruption: Mutex::default(),
            reads: Mutex::default(),
            closed: Mutex::default(),
        })
    }

    /// What was done since the last call.
    pub(crate) fn take_done(&self) -> Vec<String> {
        std::mem::take(&mut *self.done.lock().unwrap())
    }

    /// How often a run has ended its connections since the last call.
    pub(super) fn take_closed(&self) -> usize {
        std::mem::take(&mut *self.closed.lock().unwrap())
    }

    /// Has the operator give up while `step` is at work: `HOST STEP`.
    pub(super) fn interrupt_at(&self, step: &str, cancel: &CancellationToken) {
        *self.interruption.lock().unwrap() = Some((step.into(), cancel.clone()));
    }

    /// Changes a host by another hand than pgherd's.
    pub(crate) fn meddle(&self, with: impl FnOnce(&mut World)) {
        self.with(|model| with(&mut model.world));
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Model) -> T) -> T {
        let mut model = self.model.lock().unwrap();
        look(model.get_or_insert_with(|| self.first()))
    }

    fn first(&self) -> Model {
        let mut world = World {
            cluster: self.cluster(),
            files: render::Files::new(),
            found: Found::default(),
            templates: embedded(),
        };
        for host in world.hosts() {
            world.found.facts.insert(host, bare());
        }
        world.files = render::render(&world.cluster, &self.context.templates).unwrap();
        Model::new(world, PatroniKeys::default(), Vec::new(), BTreeMap::new())
    }

    fn cluster(&self) -> crate::cluster::Cluster {
        let inventory = &self.context.inventory;
        let id = self.context.secrets().unwrap().cluster_id;
        let tls = self.context.workspace.tls().unwrap();
        self.context
            .cluster(&machines(inventory, &id), tls, Renewal::Due, |_| {
                Os::ubuntu_24_04()
            })
            .unwrap()
    }

    /// Takes note of what the scripts that may come next are the scripts of.
    fn expect(&self) {
        self.with(|model| {
            let world = &mut model.world;
            world.cluster = self.cluster();
            world.files = render::render(&world.cluster, &self.context.templates).unwrap();
            world.found.known = self.context.workspace.members().unwrap();
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
            *self.steps.lock().unwrap() = world.up().map_or(Vec::new(), |plan| plan.steps);
        });
    }

    /// Does what a script is for; a script that belongs to no step only looks.
    fn carry_out(&self, host: &HostName, script: &Script) -> Option<String> {
        let steps = self.steps.lock().unwrap();
        let step = steps.iter().rev().find(|step| match &step.action {
            Action::Run(its) => its == script && step.host == *host,
            Action::RunOnLeader(its) => its == script,
            _ => false,
        })?;
        let name = format!("{} {}", step.host, step.name);
        self.with(|model| {
            assert!(model.can(step), "{name} cannot be done yet");
            model.do_step(step);
        });
        self.done.lock().unwrap().push(name.clone());
        Some(name)
    }

    fn etcd(&self, host: &HostName, asked: &str) -> Answer {
        self.with(|model| {
            if !model.dcs_is_up() || !model.is_able(host, "etcd") {
                return (503, json!({"health": "false"}).to_string());
            }
            let found = &model.world.found;
            let said = match asked {
                "GET /health" => json!({"health": "true"}),
                "POST /v3/kv/range" => answers::range(found, model.world.cluster.name()),
                "POST /v3/cluster/member/list" => answers::members(found, host.as_str()),
                _ => json!({}),
            };
            (200, said.to_string())
        })
    }

    fn patroni(&self, host: &HostName, asked: &str) -> Answer {
        self.with(|model| {
            model.come_to_rest();
            let leads = model.leader().as_ref() == Some(host);
            if !model.is_able(host, "patroni") {
                return (503, json!({"state": "stopped"}).to_string());
            }
            match asked {
                "GET /primary" => (if leads { 200 } else { 503 }, String::new()),
                "PATCH /config" => {
                    model.configure();
                    (200, "{}".into())
                }
                "GET /patroni" => (200, status(model, leads).to_string()),
                _ => (404, String::new()),
            }
        })
    }

    /// A service that is played by its unit alone: it answers anything once it runs.
    fn other(&self, host: &HostName, port: u16) -> Option<Answer> {
        self.with(|model| {
            let cluster = &model.world.cluster;
            let listens = |role: &&Role| {
                let service = role.service();
                let mut ports = service
                    .ports
                    .iter()
                    .map(|it| cluster.inventory.port(it.number));
                service.ports_looked_at && ports.any(|it| it == port)
            };
            let role = cluster.nodes[host].roles.iter().find(listens)?;
            let unit = role.unit();
            // Or whoever else has taken its port.
            let facts = &model.world.found.facts[host];
            let taken = |it: &Listener| it.port == port && it.unit != format!("{unit}.service");
            if facts.listeners.iter().any(taken) {
                return Some((200, String::new()));
            }
            Some((
                if model.is_able(host, unit) { 200 } else { 503 },
                String::new(),
            ))
        })
    }

    fn haproxy(&self, host: &HostName) -> Answer {
        self.with(|model| {
            if !model.is_able(host, "haproxy") {
                return (503, String::new());
            }
            let leader = model.leader();
            let replicas: Vec<String> = model
                .world
                .cluster
                .with_role(Role::Postgres)
                .filter(|node| Some(&node.name) != leader.as_ref() && model.streams(&node.name))
                .map(|node| node.name.to_string())
                .collect();
            let leader = leader.map(|it| it.to_string());
            (200, answers::backends(leader.as_deref(), &replicas))
        })
    }

    /// What a database answers: one that leads, or one of its replicas in turn.
    fn sql(&self, host: &HostName, reads: Option<usize>, query: &str) -> Rows {
        if query.contains("create table if not exists pgherd.proof") {
            self.rows.lock().unwrap().push(query.to_owned());
        }
        if query == "select pg_is_in_recovery()" {
            return Rows::one(if reads.is_some() { "t" } else { "f" });
        }
        if query.contains("to_regclass") {
            // Of pgherd's own table; whether PostgreSQL tells of pg_ident.conf is another question.
            return Rows::one(if query.contains("pgherd.proof") {
                "t"
            } else {
                "f"
            });
        }
        if query.contains("from pg_catalog.pg_hba_file_rules") {
            return self.with(|model| {
                let config = &model.world.found.facts[host].files[render::PATRONI_CONFIG];
                let config = PatroniConfig::parse(&config.content).unwrap();
                let access = config.access().unwrap();
                Rows::rules(&access.hba.unwrap_or_default())
            });
        }
        if query.contains("used >= most") {
            return Rows::one("");
        }
        if query.contains("from pg_catalog.pg_stat_archiver") {
            return Rows::named("mode", "off");
        }
        if query == "select host(inet_server_addr())" {
            return self.with(|model| {
                let leader = model.leader().expect("somebody was asked");
                Rows::one(model.world.cluster.nodes[&leader].address.to_string())
            });
        }
        if query.contains("from pg_catalog.pg_settings") {
            return self.with(|model| Rows::settings(&parameters(&model.world)));
        }
        if query.contains("inet_server_addr") {
            return self.with(|model| {
                let leader = model.leader();
                let nodes = model.world.cluster.with_role(Role::Postgres);
                let replicas: Vec<String> = nodes
                    .filter(|node| Some(&node.name) != leader.as_ref())
                    .map(|node| node.address.to_string())
                    .collect();
                let at = reads.unwrap_or_default() % replicas.len();
                Rows::one(format!("{} true", replicas[at]))
            });
        }
        let nonce = query.strip_prefix("select count(*) from pgherd.proof where nonce = ");
        nonce.map_or_else(Rows::default, |nonce| {
            let rows = self.rows.lock().unwrap();
            let there = rows.iter().filter(|row| row.contains(nonce)).count();
            Rows::one(there.to_string())
        })
    }
}

/// What PostgreSQL was told: by its host's config, and by the DCS.
fn parameters(world: &World) -> BTreeMap<String, String> {
    let dcs = world
        .found
        .dcs
        .as_ref()
        .and_then(|keys| keys.config.clone());
    let dcs = dcs.unwrap_or_default()["postgresql"]["parameters"].clone();
    let of_host = render::parameters(&world.cluster);
    let all = of_host.iter().chain(dcs.as_object().into_iter().flatten());
    all.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// What a member says of itself; replicas log in as their own config has it.
fn status(model: &Model, leads: bool) -> Value {
    let world = &model.world;
    let leader = model.leader();
    let replication: Vec<Value> = world
        .cluster
        .with_role(Role::Postgres)
        .filter(|node| leads && Some(&node.name) != leader.as_ref() && model.streams(&node.name))
        .map(|node| {
            let config = &world.found.facts[&node.name].files["/etc/patroni.yml"].content;
            let is_interim = config.contains(&format!("username: \"{INTERIM_REPLICATION_USER}\""));
            let user = match is_interim {
                true => INTERIM_REPLICATION_USER,
                false => REPLICATION_USER,
            };
            json!({"application_name": node.name, "state": "streaming", "usename": user})
        })
        .collect();
    json!({
        "state": "running",
        "role": if leads { "primary" } else { "replica" },
        "timeline": 1,
        "server_version": 160_004,
        "patroni": {"version": "4.1.5"},
        "replication": replication,
    })
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
        let ends = |stdout: String| Output {
            code: 0,
            stdout,
            stderr: String::new(),
        };
        if script.contains("fact version 1") {
            self.expect();
            let facts = self.with(|model| answers::probe(&model.world.found.facts[host]));
            return Ok(ends(facts));
        }
        if script.contains("POSTGRES=") && script.contains("UNITS=") {
            let versions = "postgres postgres (PostgreSQL) 16.4\npatroni 4.1.5\nend\n";
            return Ok(ends(versions.into()));
        }
        let done = self.carry_out(host, script);
        if done.is_none() && script.contains("exec 9>/run/pgherd/") {
            return Err(Error::new(
                Code::InternalError,
                "this is the script of no step that is planned",
            )
            .on(host));
        }
        if let Some(step) = done {
            let interruption = self
                .interruption
                .lock()
                .unwrap()
                .take_if(|(at, _)| *at == step);
            if let Some((_, cancel)) = interruption {
                cancel.cancel();
            }
            // Whatever else is ready gets its turn, as it would while a host is at work.
            sleep(Duration::from_millis(5)).await;
        }
        Ok(ends(String::new()))
    }

    async fn dial(&self, host: &HostName, port: u16) -> Result<Box<dyn Connection>> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let haproxy = &self.context.inventory.haproxy;
        let reads = (port == haproxy.read_port).then(|| {
            let mut reads = self.reads.lock().unwrap();
            *reads += 1;
            *reads
        });
        let this = self.me.upgrade().expect("the hosts are there");
        let host = host.clone();
        if port == haproxy.write_port || port == haproxy.read_port || port == 5432 {
            if self.with(|model| model.leader().is_none()) {
                return Err(Error::new(Code::ServiceUnreachable, "nobody listens").on(&host));
            }
            tokio::spawn(answers::postgres(far, move |query| {
                this.sql(&host, reads, query)
            }));
        } else {
            tokio::spawn(serve(far, move |asked| match port {
                2379 => this.etcd(&host, asked),
                8008 => this.patroni(&host, asked),
                _ => match this.other(&host, port) {
                    Some(answer) => answer,
                    None => this.haproxy(&host),
                },
            }));
        }
        Ok(Box::new(near))
    }

    async fn close(&self) {
        *self.closed.lock().unwrap() += 1;
    }
}

/// Answers one request.
async fn serve(stream: DuplexStream, answer: impl Fn(&str) -> Answer) {
    let mut stream = BufReader::new(stream);
    let mut request = String::new();
    if stream.read_line(&mut request).await.is_err() {
        return;
    }
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.is_err() || line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or_default();
        }
    }
    let mut body = vec![0; length];
    if stream.read_exact(&mut body).await.is_err() {
        return;
    }
    let (status, body) = answer(request.trim_end_matches(" HTTP/1.1\r\n"));
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    // Whoever asked may not have waited.
    let _ = stream.write_all(text.as_bytes()).await;
}
