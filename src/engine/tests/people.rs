//! The fake user of runs, a folder to run in, and a cloud that creates hosts.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::{Arc, Mutex, atomic::AtomicBool, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use tempfile::TempDir;
use tokio::{sync::mpsc::UnboundedReceiver, time::sleep};

use super::hosts::Hosts;
use crate::{
    engine::{
        connections::Dial,
        context::{Context, Source},
        operator::{Answer, Begun, Operator, Question},
        state,
    },
    error::{Code, Error, Result},
    event::{Event, Events, Stamped},
    inventory::{HostName, Inventory},
    machine::{Machine, MachineState},
    plan::retire::Departures,
    provider::{Access, Arrival, Arrivals, Preflight, Provider, Resource},
    remote::Remote,
    secret::Secret,
    workspace::Workspace,
};

/// The cluster of the contract, without TLS.
const INVENTORY: &str = "cluster: pg
provider: { kind: docker }
tls: { enabled: false }
postgresql: { version: 16 }
hosts:
  node1:   { roles: [postgres] }
  node2:   { roles: [postgres] }
  node3:   { roles: [postgres] }
  node4:   { roles: [etcd] }
  haproxy: { roles: [haproxy] }
";

/// A user who gives the same answer to every question, and records what happened.
#[derive(Default)]
pub(crate) struct Somebody {
    pub(super) refuses: AtomicBool,
    pub(super) asked: Mutex<Vec<&'static str>>,
    pub(super) said: Mutex<Vec<String>>,
    concealed: Mutex<BTreeSet<String>>,
    events: Mutex<Option<UnboundedReceiver<Stamped>>>,
    /// The events of all runs that have ended.
    told: Mutex<Vec<Event>>,
}

impl Somebody {
    pub(super) fn conceals(&self, secret: &Secret) -> bool {
        self.concealed.lock().unwrap().contains(secret.expose())
    }

    pub(super) fn was_asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// The exit codes of all runs.
    pub(super) fn exit_codes(&self) -> Vec<u8> {
        let code = |event: &Event| match event {
            Event::RunFinished { exit_code, .. } => Some(*exit_code),
            _ => None,
        };
        self.told.lock().unwrap().iter().filter_map(code).collect()
    }

    /// What happened in all runs.
    pub(super) fn told(&self) -> Vec<Event> {
        self.told.lock().unwrap().clone()
    }

    /// The stages of a change, as reported.
    pub(super) fn stages(&self) -> Vec<&'static str> {
        let stage = |event: &Event| match event {
            Event::Stage { stage } => Some(*stage),
            _ => None,
        };
        self.told.lock().unwrap().iter().filter_map(stage).collect()
    }
}

#[async_trait]
impl Operator for Somebody {
    fn conceal(&self, secrets: &[&Secret]) {
        let mut concealed = self.concealed.lock().unwrap();
        concealed.extend(secrets.iter().map(|secret| secret.expose().to_owned()));
    }

    fn say(&self, line: &str) {
        self.said.lock().unwrap().push(line.to_owned());
    }

    async fn agree(&self, question: Question<'_>) -> Result<Answer> {
        self.asked.lock().unwrap().push(match question {
            Question::Apply { .. } => "apply",
            Question::Rotate { .. } => "rotate",
            _ => "something else",
        });
        Ok(match self.refuses.load(Ordering::SeqCst) {
            true => Answer::No,
            false => Answer::Yes,
        })
    }

    fn begin(&self, run: Begun) -> Result<()> {
        *self.events.lock().unwrap() = Some(run.events);
        Ok(())
    }

    async fn end(&self, _error: Option<&Error>) {
        let Some(mut events) = self.events.lock().unwrap().take() else {
            return;
        };
        let mut told = self.told.lock().unwrap();
        while let Ok(stamped) = events.try_recv() {
            told.push(stamped.event);
        }
    }
}

/// A cloud. Clones are the same cloud.
#[derive(Clone, Default)]
pub(crate) struct Cloud {
    made: Arc<Mutex<Vec<(HostName, String)>>>,
    late: Arc<Mutex<Option<Late>>>,
    /// What becomes of a host whose machine is removed.
    goes: Arc<Mutex<Option<Goes>>>,
    /// The hosts whose machines have no id.
    unmarked: Arc<Mutex<BTreeSet<HostName>>>,
    /// The keys of hosts that have others than those they were made with.
    keys: Arc<Mutex<BTreeMap<HostName, Vec<String>>>>,
}

type Goes = Box<dyn Fn(&HostName) + Send>;

/// A host that answers later than the others.
struct Late {
    host: HostName,
    /// Whether it may answer now.
    when: Box<dyn Fn() -> bool + Send>,
    /// The host that does not answer at all.
    never: bool,
}

impl Cloud {
    /// The host has another SSH key than the one it was made with.
    pub(super) fn changes_key(&self, host: &str, key: &str) {
        let mut keys = self.keys.lock().unwrap();
        keys.insert(HostName::new(host), vec![key.to_owned()]);
    }

    pub(super) fn made(&self) -> Vec<String> {
        let made = self.made.lock().unwrap();
        made.iter().map(|(host, _)| host.to_string()).collect()
    }

    /// The machine of `host` is gone.
    pub(super) fn loses(&self, host: &str) {
        self.made
            .lock()
            .unwrap()
            .retain(|(it, _)| it.as_str() != host);
    }

    /// Takes the id off the machine of `host`.
    pub(super) fn unmark(&self, host: &HostName) {
        self.unmarked.lock().unwrap().insert(host.clone());
    }

    fn is_marked(&self, host: &HostName) -> bool {
        !self.unmarked.lock().unwrap().contains(host)
    }

    /// Makes `host` answer only `when` the condition is true, or never; in that case the launch reports it.
    pub(super) fn late(&self, host: &str, never: bool, when: impl Fn() -> bool + Send + 'static) {
        *self.late.lock().unwrap() = Some(Late {
            host: HostName::new(host),
            when: Box::new(when),
            never,
        });
    }

    fn late_host(&self) -> Option<HostName> {
        let late = self.late.lock().unwrap();
        late.as_ref().map(|it| it.host.clone())
    }

    /// Waits for the late host, if it is one of `hosts`.
    async fn wait(&self, hosts: &[HostName]) -> Result<()> {
        for _ in 0..2000 {
            {
                let late = self.late.lock().unwrap();
                match late.as_ref().filter(|it| hosts.contains(&it.host)) {
                    None => return Ok(()),
                    Some(late) if (late.when)() && late.never => {
                        return Err(
                            Error::new(Code::HostDidNotStart, "SSH does not answer").on(&late.host)
                        );
                    }
                    Some(late) if (late.when)() => return Ok(()),
                    Some(_) => {}
                }
            }
            sleep(Duration::from_millis(5)).await;
        }
        panic!("what the late host waits for does not happen");
    }
}

/// Where every host of the inventory is, or would be.
pub(super) fn machines(inventory: &Inventory, id: &str) -> Vec<Machine> {
    let key = host_key();
    let known = inventory.hosts.keys().all(|host| place(host).is_some());
    let hosts = inventory.hosts.keys().zip(1..);
    hosts
        .map(|(host, n)| {
            let n = place(host).filter(|_| known).unwrap_or(n);
            machine(host, n, &key, id)
        })
        .collect()
}

fn host_key() -> String {
    let blob: Vec<u8> = [
        [0, 0, 0, 11].as_slice(),
        b"ssh-ed25519",
        &[0, 0, 0, 32],
        &[7; 32],
    ]
    .concat();
    format!("ssh-ed25519 {}", BASE64_STANDARD.encode(blob))
}

/// The hosts of [`INVENTORY`] and more front doors, which keep their addresses whatever other hosts there are.
fn place(host: &HostName) -> Option<u8> {
    let names = [
        "node1", "node2", "node3", "node4", "haproxy", "door2", "door3",
    ];
    let found = names.iter().position(|name| *name == host.as_str())?;
    u8::try_from(found + 1).ok()
}

fn machine(host: &HostName, n: u8, key: &str, id: &str) -> Machine {
    Machine {
        host: host.clone(),
        id: format!("machine-{n}"),
        state: MachineState::Running,
        address: Some(Ipv4Addr::new(192, 0, 2, n)),
        ssh_address: None,
        host_key: Some(key.to_owned()),
        published_on: None,
        balancer: None,
        cluster_id: Some(id.to_owned()),
        data_volume: None,
    }
}

/// The cloud, as the cluster's provider.
struct InCloud {
    cloud: Cloud,
    inventory: Inventory,
}

#[async_trait]
impl Provider for InCloud {
    async fn discover(&self) -> Result<Vec<Machine>> {
        let made = self.cloud.made.lock().unwrap();
        let there = made.iter().filter_map(|(host, id)| {
            let all = machines(&self.inventory, id);
            let declared = all.into_iter().find(|machine| machine.host == *host);
            let found = declared.or_else(|| Some(machine(host, place(host)?, &host_key(), id)));
            let cluster_id = Some(id.clone()).filter(|_| self.cloud.is_marked(host));
            found.map(|machine| Machine {
                cluster_id,
                ..machine
            })
        });
        Ok(there.collect())
    }

    async fn preflight(&self, _hosts: &[HostName], _public_key: &str) -> Result<Preflight> {
        Ok(Preflight::default())
    }

    async fn launch_telling(
        &self,
        hosts: &[HostName],
        access: &Access,
        _events: &Events,
        arrivals: &Arrivals,
    ) -> Result<Vec<Machine>> {
        let id = &access.cluster_id;
        let new = hosts.iter().map(|host| (host.clone(), id.clone()));
        self.cloud.made.lock().unwrap().extend(new);
        let mut all = machines(&self.inventory, id);
        all.retain(|it| hosts.contains(&it.host));
        let late = self.cloud.late_host();
        for machine in &all {
            arrivals.tell(Arrival::Running(machine.clone()));
        }
        let (last, first): (Vec<&Machine>, Vec<&Machine>) =
            all.iter().partition(|it| Some(&it.host) == late.as_ref());
        for machine in first {
            arrivals.tell(Arrival::Answers(machine.clone()));
        }
        self.cloud.wait(hosts).await?;
        for machine in last {
            arrivals.tell(Arrival::Answers(machine.clone()));
        }
        Ok(all)
    }

    async fn admit(&self, _machines: &[Machine], _access: &Access) -> Result<()> {
        Ok(())
    }

    async fn present_host_keys(
        &self,
        _machines: &[Machine],
    ) -> Result<BTreeMap<HostName, Vec<String>>> {
        Ok(self.cloud.keys.lock().unwrap().clone())
    }

    async fn resources(&self) -> Result<Vec<Resource>> {
        let made = self.cloud.made.lock().unwrap();
        let resource = |(host, id): &(HostName, String)| Resource {
            keeps_data: false,
            kind: "machine",
            id: format!("machine of {host}"),
            name: host.to_string(),
            host: Some(host.clone()),
            cluster_id: Some(id.clone()).filter(|_| self.cloud.is_marked(host)),
        };
        Ok(made.iter().map(resource).collect())
    }

    async fn remove(&self, resources: &[Resource], _events: &Events) -> Result<()> {
        for host in resources.iter().filter_map(|it| it.host.as_ref()) {
            self.cloud.made.lock().unwrap().retain(|(it, _)| it != host);
            if let Some(goes) = self.cloud.goes.lock().unwrap().as_ref() {
                goes(host);
            }
        }
        Ok(())
    }
}

/// Everything that runs need and that lives longer than a run.
pub(crate) struct Scene {
    folder: TempDir,
    inventory: String,
    pub(super) cloud: Cloud,
    pub(crate) hosts: Arc<Hosts>,
    pub(super) somebody: Arc<Somebody>,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::of(INVENTORY)
    }

    /// The same with another inventory.
    pub(crate) fn of(inventory: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cloud = Cloud::default();
        let nobody = |_, _| -> Arc<dyn Remote> { unreachable!("no run connects from here") };
        let context = open(
            &folder,
            inventory,
            Arc::new(Somebody::default()),
            &cloud,
            Box::new(nobody),
        );
        let hosts = Hosts::bare(context);
        let all = Arc::downgrade(&hosts);
        *cloud.goes.lock().unwrap() = Some(Box::new(move |host| {
            let hosts = all.upgrade().expect("the hosts are there");
            hosts.machine_goes(host);
        }));
        Self {
            hosts,
            inventory: inventory.to_owned(),
            folder,
            cloud,
            somebody: Arc::default(),
        }
    }

    /// A new process: it knows only what is on disk and on hosts.
    pub(crate) fn context(&self) -> Context {
        let hosts = self.hosts.clone();
        let dial = move |_, _| hosts.clone() as Arc<dyn Remote>;
        self.open(self.somebody.clone(), Box::new(dial))
    }

    /// From now on, the inventory turns TLS on or off.
    pub(super) fn wants_tls(&mut self, enabled: bool) {
        let said = |enabled| format!("tls: {{ enabled: {enabled} }}");
        self.inventory = self.inventory.replace(&said(!enabled), &said(enabled));
        let nobody = |_, _| -> Arc<dyn Remote> { unreachable!("no run connects from here") };
        self.hosts
            .wants(self.open(Arc::default(), Box::new(nobody)));
    }

    /// From now on the inventory has these hosts.
    pub(super) fn wants_hosts(&mut self, hosts: &str) {
        let (head, _) = self.inventory.split_once("hosts:\n").expect("it has hosts");
        self.inventory = format!("{head}hosts:\n{hosts}");
        let nobody = |_, _| -> Arc<dyn Remote> { unreachable!("no run connects from here") };
        self.hosts
            .wants(self.open(Arc::default(), Box::new(nobody)));
    }

    /// The context of somebody who has named a host that is to leave.
    pub(super) fn context_leaving(&self, host: &HostName) -> Context {
        let mut context = self.context();
        context.leaving = Departures::Agreed([host.clone()].into());
        context
    }

    fn open(&self, operator: Arc<Somebody>, dial: Dial) -> Context {
        open(&self.folder, &self.inventory, operator, &self.cloud, dial)
    }

    /// Somebody with the same inventory in another folder.
    pub(super) fn elsewhere(&self, folder: &TempDir, workspace: Opening) -> Result<Context> {
        let hosts = self.hosts.clone();
        let dial = move |_, _| hosts.clone() as Arc<dyn Remote>;
        let (operator, cloud) = (self.somebody.clone(), &self.cloud);
        let dial = Box::new(dial);
        open_with(workspace, folder, &self.inventory, operator, cloud, dial)
    }

    /// Somebody with the same inventory in another folder, on a machine that the shared state comes to.
    pub(super) async fn arrives(&self, folder: &TempDir) -> Result<Context> {
        state::arrive(&Source {
            inventory: Inventory::parse(&folder.path().join("pgherd.yaml"), &self.inventory)?,
            templates: None,
            operator: self.somebody.clone(),
        })
        .await?;
        self.elsewhere(folder, Workspace::open)
    }

    /// The same on the first machine.
    pub(super) async fn arrives_again(&self) -> Result<Context> {
        self.arrives(&self.folder).await
    }
}

/// How a workspace is opened.
type Opening = fn(&Inventory) -> Result<Workspace>;

fn open(
    folder: &TempDir,
    inventory: &str,
    operator: Arc<Somebody>,
    cloud: &Cloud,
    dial: Dial,
) -> Context {
    open_with(Workspace::open, folder, inventory, operator, cloud, dial).unwrap()
}

fn open_with(
    workspace: Opening,
    folder: &TempDir,
    inventory: &str,
    operator: Arc<Somebody>,
    cloud: &Cloud,
    dial: Dial,
) -> Result<Context> {
    let inventory = Inventory::parse(&folder.path().join("pgherd.yaml"), inventory).unwrap();
    let provider = InCloud {
        cloud: cloud.clone(),
        inventory: inventory.clone(),
    };
    let source = Source {
        inventory,
        templates: None,
        operator,
    };
    let context = Context::new(source, workspace)?;
    Ok(context.played(Box::new(provider), dial))
}
