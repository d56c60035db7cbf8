//! A healthy cluster and the facts of its hosts, as values to plan with.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::Path,
    sync::{LazyLock, Mutex},
};

use serde_json::json;

use crate::{
    cluster::{Address, Certificate, Cluster, Node, Secrets, TlsStage},
    contract::ARCHIVING,
    error::{Error, Result},
    facts::{
        Belongings, DataFact, DbRole, Facts, FileFact, Folder, Listener, MANIFEST_VERSION,
        Manifest, Os, UnitFact,
    },
    inventory::{HostName, Inventory, Role},
    plan::{self, Action, Found, Plan, Step, packages},
    render::{self, File, Files, Kind, Templates},
    scram,
    secret::Secret,
    services::{
        Data, Service,
        etcd::{Member, PatroniKeys, View},
    },
};

/// The cluster of the contract.
pub(crate) const FIVE: &str = r"
  node1:   { roles: [postgres], address: 192.0.2.1 }
  node2:   { roles: [postgres], address: 192.0.2.2 }
  node3:   { roles: [postgres], address: 192.0.2.3 }
  node4:   { roles: [etcd],     address: 192.0.2.4 }
  haproxy: { roles: [haproxy],  address: 192.0.2.5 }
";

/// Three etcd members, each beside a database.
pub(crate) const SHARED: &str = r"
  db1:  { roles: [postgres, etcd], address: 192.0.2.1 }
  db2:  { roles: [postgres, etcd], address: 192.0.2.2 }
  db3:  { roles: [postgres, etcd], address: 192.0.2.3 }
  door: { roles: [haproxy],        address: 192.0.2.4 }
";

/// One host for everything.
pub(crate) const ONE: &str = "\n  all: { roles: [postgres, etcd, haproxy], address: 192.0.2.1 }";

/// The system identifier of a settled world's database.
pub(crate) const SYSTEM: &str = "7506492390881896645";

static TEMPLATES: LazyLock<Templates> = LazyLock::new(|| Templates::embedded().unwrap());

#[derive(Clone)]
pub(crate) struct World {
    pub cluster: Cluster,
    pub files: Files,
    pub found: Found,
    pub templates: &'static Templates,
}

/// The built-in templates.
pub(crate) fn embedded() -> &'static Templates {
    &TEMPLATES
}

impl World {
    /// Bare hosts of Debian 12.
    pub(crate) fn bare(hosts: &str) -> Self {
        Self::bare_with(embedded(), hosts)
    }

    /// The same with other templates.
    pub(crate) fn bare_with(templates: &'static Templates, hosts: &str) -> Self {
        let mut world = Self {
            cluster: cluster("", hosts),
            files: Files::new(),
            found: Found::default(),
            templates,
        };
        world.files = render::render(&world.cluster, templates).unwrap();
        for host in world.hosts() {
            world.found.facts.insert(host, bare());
        }
        world
    }

    /// The state after a successful run; the first database leads.
    pub(crate) fn settled(hosts: &str) -> Self {
        Self::settled_at(TlsStage::Required, hosts)
    }

    /// The same at a stage on the way to TLS.
    pub(crate) fn settled_at(tls: TlsStage, hosts: &str) -> Self {
        Self::settled_with(embedded(), tls, hosts)
    }

    /// The same with other templates.
    pub(crate) fn settled_with(templates: &'static Templates, tls: TlsStage, hosts: &str) -> Self {
        let mut world = Self::bare_with(templates, hosts);
        world.speaks(tls);
        let mut databases = Vec::new();
        for node in world.cluster.nodes.values() {
            if node.roles.contains(&Role::Postgres) {
                databases.push(node.name.clone());
            }
            let leads = databases.first() == Some(&node.name);
            let facts = settled(&world.cluster, node, &world.files[&node.name], leads);
            world.found.facts.insert(node.name.clone(), facts);
        }
        world.found.dcs = Some(PatroniKeys {
            initialize: Some(SYSTEM.into()),
            leader: Some(databases[0].to_string()),
            config: Some(render::dcs_config(&world.cluster)),
            members: databases
                .iter()
                .map(|name| (name.to_string(), json!({"state": "running"})))
                .collect(),
            initialize_revision: Some("7".into()),
        });
        let scheme = if tls.is_used() { "https" } else { "http" };
        world.found.etcd = world
            .cluster
            .with_role(Role::Etcd)
            .map(|node| Member {
                id: format!("id of {}", node.name),
                name: node.name.to_string(),
                peer_urls: vec![format!("{scheme}://{}:2380", node.name)],
                client_urls: vec![format!("{scheme}://{}:2379", node.address)],
                is_learner: false,
            })
            .collect();
        let etcds: Vec<HostName> = world
            .cluster
            .with_role(Role::Etcd)
            .map(|node| node.name.clone())
            .collect();
        for host in etcds {
            let view = View {
                cluster_id: "one store".into(),
                member_id: format!("id of {host}"),
                members: world.found.etcd.clone(),
            };
            world.found.stores.insert(host, view);
        }
        world
    }

    /// A host that was created again under its name, with nothing on it.
    pub(crate) fn made_anew(&mut self, host: &str) {
        *self.facts(host) = bare();
        self.found.stores.remove(&HostName::new(host));
    }

    /// Hosts that run under other addresses than those that all services know.
    pub(crate) fn moves(&mut self, moves: &[(&str, &str)]) {
        let mut hosts = String::new();
        for node in self.cluster.nodes.values() {
            let to = moves.iter().find(|(host, _)| *host == node.name.as_str());
            let address = to.map_or_else(|| node.address.to_string(), |(_, to)| (*to).to_owned());
            let roles: Vec<&str> = node.roles.iter().map(|role| role.as_str()).collect();
            let roles = roles.join(", ");
            hosts.push_str(&format!(
                "\n  {}: {{ roles: [{roles}], address: {address} }}",
                node.name
            ));
        }
        self.wants("", &hosts);
    }

    /// The same hosts with another inventory: `extra` goes before their section, `hosts` into it.
    pub(crate) fn wants(&mut self, extra: &str, hosts: &str) {
        self.cluster = cluster(extra, hosts);
        self.files = render::render(&self.cluster, self.templates).unwrap();
    }

    /// The same hosts in a cluster on its way to `tls`.
    pub(crate) fn speaks(&mut self, tls: TlsStage) {
        self.cluster.tls = tls;
        let ca = || pem("CERTIFICATE", "the authority's");
        self.cluster.ca = tls.is_offered().then(ca);
        self.files = render::render(&self.cluster, self.templates).unwrap();
    }

    /// The plan's steps without those that write files: these are the same for every change, and only their
    /// effects matter here.
    pub(crate) fn steps_taken(&self) -> Vec<String> {
        let plan = self.plan();
        plan.steps
            .iter()
            .map(|step| format!("{} {}", step.host, step.name))
            .filter(|step| !step.contains(" configure-") && !step.ends_with(" prepare"))
            .collect()
    }

    pub(crate) fn hosts(&self) -> Vec<HostName> {
        self.cluster.nodes.keys().cloned().collect()
    }

    pub(crate) fn facts(&mut self, host: &str) -> &mut Facts {
        self.found.facts.get_mut(&HostName::new(host)).unwrap()
    }

    pub(crate) fn file(&mut self, host: &str, path: &str) -> &mut FileFact {
        self.facts(host).files.get_mut(path).unwrap()
    }

    pub(crate) fn unit(&mut self, host: &str, unit: &str) -> &mut UnitFact {
        self.facts(host).units.get_mut(unit).unwrap()
    }

    /// Stops a unit, and removes the facts that only the unit could tell.
    pub(crate) fn stop(&mut self, host: &str, unit: &str) {
        self.unit(host, unit).active = "inactive".into();
        let facts = self.facts(host);
        facts
            .listeners
            .retain(|listener| listener.unit != format!("{unit}.service"));
        if unit == "patroni" {
            facts.db_roles.clear();
            facts.in_recovery = None;
        }
    }

    pub(crate) fn dcs(&mut self) -> &mut PatroniKeys {
        self.found.dcs.as_mut().unwrap()
    }

    pub(crate) fn up(&self) -> Result<Plan> {
        let config = render::dcs_config(&self.cluster);
        plan::up(&self.cluster, &self.files, &config, &self.found)
    }

    pub(crate) fn plan(&self) -> Plan {
        self.up().map_err(|error| told(&error)).unwrap()
    }

    /// The steps, as `host name [what it waits for]`.
    pub(crate) fn steps(&self) -> Vec<String> {
        steps(&self.plan())
    }

    /// The error that prevents a plan.
    pub(crate) fn refusal(&self) -> String {
        told(&self.up().unwrap_err())
    }

    /// Puts a file on a host, as its step in the plan would.
    pub(crate) fn put(&mut self, host: &HostName, path: &str) {
        let file = self.files[host].iter().find(|file| file.path == path);
        let file = file.unwrap().clone();
        let name = self.cluster.name().to_owned();
        let facts = self.found.facts.get_mut(host).unwrap();
        let old = facts.files.get(path).cloned();
        let fact = on_host(&file, old.as_ref(), &name);
        facts.files.insert(path.into(), fact);
    }
}

pub(crate) fn steps(plan: &Plan) -> Vec<String> {
    plan.steps
        .iter()
        .map(|step| format!("{} {} {:?}", step.host, step.name, step.after))
        .collect()
}

/// The first step with that name on a host.
pub(crate) fn step<'a>(plan: &'a Plan, host: &str, name: &str) -> &'a Step {
    plan.steps
        .iter()
        .find(|step| step.host.as_str() == host && step.name == name)
        .unwrap()
}

/// Whether a step's script contains a text.
pub(crate) fn says(step: &Step, text: &str) -> bool {
    match &step.action {
        Action::Run(script) | Action::RunOnLeader(script) => script.contains(text),
        _ => false,
    }
}

/// Every part of an error, one on each line.
pub(crate) fn told(error: &Error) -> String {
    let mut lines = vec![match error.host() {
        Some(host) => format!("{host}: {}", error.what()),
        None => error.what().to_owned(),
    }];
    lines.extend(error.causes().iter().map(|cause| format!("  why: {cause}")));
    lines.extend(error.left_behind().map(|left| format!("  left: {left}")));
    lines.extend(error.hints().iter().map(|hint| format!("  hint: {hint}")));
    lines.extend(error.failures().iter().map(told));
    lines.join("\n")
}

pub(crate) fn bare() -> Facts {
    Facts::bare(Os {
        id: "debian".into(),
        version: "12".into(),
        codename: "bookworm".into(),
        pretty: "Debian GNU/Linux 12 (bookworm)".into(),
        arch: "x86_64".into(),
    })
}

fn pem(label: &str, text: &str) -> String {
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

/// The cluster of an inventory with `extra` before the section of its `hosts`.
pub(crate) fn cluster(extra: &str, hosts: &str) -> Cluster {
    let text = format!("cluster: pg\nprovider: {{ kind: existing }}\n{extra}\nhosts:{hosts}\n");
    cluster_of(Inventory::parse(Path::new("pgherd.yaml"), &text).unwrap())
}

/// The cluster of an inventory, with passwords and certificates that are not secret.
pub(crate) fn cluster_of(inventory: Inventory) -> Cluster {
    let tls = inventory.tls.enabled;
    let nodes = inventory.hosts.iter().map(|(name, host)| {
        let node = Node {
            name: name.clone(),
            roles: host.roles.clone(),
            address: Address::Known(host.address.unwrap_or(Ipv4Addr::LOCALHOST)),
            postgresql: host.roles.contains(&Role::Postgres).then_some(16),
            arch: "x86_64".into(),
            certificate: tls.then(|| Certificate {
                cert: pem("CERTIFICATE", &format!("that of {name}")),
                key: Secret::new(pem("PRIVATE KEY", &format!("the key of {name}"))),
            }),
            data_volume: None,
            size: None,
        };
        (name.clone(), node)
    });
    Cluster {
        nodes: nodes.collect(),
        secrets: Secrets {
            cluster_id: "0a1b2c3d4e5f".into(),
            superuser: Secret::new("superuser-s3cret"),
            replication: Secret::new("replication-s3cret"),
            rewind: Secret::new("rewind-s3cret"),
            rest_api: Secret::new("rest-s3cret"),
            stats: Secret::new("stats-s3cret"),
            vrrp: Some(Secret::new("vrrps3cr")),
            backup: Some(Secret::new("backups3cr")),
            s3: (inventory.backup.s3.is_some())
                .then(|| (Secret::new("s3-key"), Secret::new("s3-s3cret"))),
            pooler: Some(Secret::new("poolers3cr")),
            webhook: None,
            users: BTreeMap::new(),
            interim: None,
        },
        tls: TlsStage::of(&inventory),
        ca: tls.then(|| pem("CERTIFICATE", "the authority's")),
        ca_bundle: None,
        inventory,
    }
}

fn settled(cluster: &Cluster, node: &Node, files: &[File], leads: bool) -> Facts {
    let mut facts = bare();
    facts.belongings = claimed(cluster, node);
    for file in files {
        let fact = on_host(file, None, cluster.name());
        facts.files.insert(file.path.clone(), fact);
    }
    for package in packages::wanted(cluster, node) {
        facts.packages.insert(package, "1".into());
    }
    for role in &node.roles {
        let unit = role.unit();
        facts.units.insert(
            unit.into(),
            UnitFact {
                loaded: true,
                active: "active".into(),
                sub: "running".into(),
                enabled: "enabled".into(),
                ..UnitFact::default()
            },
        );
        give_folder(role.service(), &mut facts);
        listen(&cluster.inventory, *role, &mut facts);
    }
    facts.etcd_data = node.roles.contains(&Role::Etcd);
    if node.roles.contains(&Role::Postgres) {
        let requirements = files
            .iter()
            .find(|file| file.path == packages::REQUIREMENTS);
        facts.patroni_stamp = requirements.map(|file| packages::digest(&file.content));
        facts.data_marker = Some(cluster.secrets.cluster_id.clone());
        facts.data = Some(DataFact {
            owner: "postgres".into(),
            entries: 23,
            version: node.postgresql,
            system_id: Some(SYSTEM.into()),
            control: true,
            bases: 3,
            ..DataFact::default()
        });
        facts.in_recovery = Some(!leads);
        let secrets = &cluster.secrets;
        for (name, password) in [
            ("postgres", &secrets.superuser),
            ("replicator", &secrets.replication),
            ("rewind", &secrets.rewind),
        ] {
            facts.db_roles.insert(name.into(), role(name, password));
        }
    }
    facts
}

/// A service on its first port, if it has one.
pub(crate) fn listen(inventory: &Inventory, role: Role, facts: &mut Facts) {
    let unit = role.unit();
    let Some(port) = role.service().ports.first() else {
        return;
    };
    let port = inventory.port(port.number);
    facts.listeners.retain(|it| it.port != port);
    facts.listeners.push(Listener {
        port,
        pid: Some(100 + u32::from(port)),
        process: unit.into(),
        unit: format!("{unit}.service"),
    });
}

/// The folder of a service, as pgherd makes and notes it.
pub(crate) fn give_folder(service: &Service, facts: &mut Facts) {
    let (Data::Folder { path, owner, mode } | Data::Kept { path, owner, mode }) = service.data
    else {
        return;
    };
    let folder = Folder {
        owner: owner.into(),
        group: owner.into(),
        mode,
        is_folder: true,
        passable: None,
    };
    if let Data::Kept { .. } = service.data {
        facts.needs.folders.insert(ARCHIVING.into(), folder.clone());
    }
    facts.needs.folders.insert(path.into(), folder);
    let manifest = facts.belongings.manifest.as_mut().unwrap();
    manifest.trees.insert(path.into());
}

/// What the first step of a run notes.
pub(crate) fn claimed(cluster: &Cluster, node: &Node) -> Belongings {
    let files = render::paths(&node.roles).into_iter().map(String::from);
    let postgres = node.roles.contains(&Role::Postgres);
    let units = node.roles.iter().map(|role| {
        let before = ("not-found".to_owned(), "inactive".to_owned());
        (role.unit().to_owned(), before)
    });
    Belongings {
        manifest: Some(Manifest {
            version: MANIFEST_VERSION,
            cluster: cluster.secrets.cluster_id.clone(),
            files: files.collect(),
            folders: BTreeSet::from(["/etc/pgherd".into(), "/etc/pgherd/tls".into()]),
            trees: postgres
                .then(|| "/opt/patroni".to_owned())
                .into_iter()
                .collect(),
            units: units.collect(),
            ..Manifest::default()
        }),
        ..Belongings::default()
    }
}

/// A role of the database as it should be.
pub(crate) fn role(name: &str, password: &Secret) -> DbRole {
    // Thousands of worlds have the same few roles, and computing a verifier is slow on purpose.
    static MADE: LazyLock<Mutex<BTreeMap<(String, String), String>>> =
        LazyLock::new(Mutex::default);
    let key = (name.to_owned(), password.expose().to_owned());
    let made = || scram::verifier(password, name);
    let verifier = MADE.lock().unwrap().entry(key).or_insert_with(made).clone();
    DbRole {
        superuser: name == "postgres",
        replication: name != "rewind",
        login: true,
        verifier: Some(Secret::new(verifier)),
        ..DbRole::default()
    }
}

fn on_host(file: &File, old: Option<&FileFact>, cluster: &str) -> FileFact {
    let content = match file.kind {
        Kind::Whole => file.content.clone(),
        Kind::Block => {
            let old = old.map_or("127.0.0.1 localhost\n", |old| &old.content);
            let merged = render::merge_block(old, &file.content, cluster);
            merged.unwrap().into()
        }
    };
    FileFact {
        owner: file.owner.into(),
        group: file.group.into(),
        mode: file.mode,
        content,
    }
}
