//! The answers of the services on fake hosts, from the model's state.

use serde_json::{Value, json};

use super::{
    super::{
        answers::{self, Answer},
        taken_over::value,
    },
    Hosts,
};
use crate::{
    facts::Listener,
    inventory::{HostName, Role},
    plan::tests::model::Model,
};

impl Hosts {
    pub(super) fn etcd(&self, host: &HostName, asked: &str, body: &str) -> Answer {
        if asked == "POST /v3/kv/deleterange" {
            self.delete(&serde_json::from_str(body).unwrap());
        }
        self.with(|model| {
            if asked == "POST /v3/cluster/member/update" {
                let body: Value = serde_json::from_str(body).unwrap();
                let of = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                model.update_member(&of(&body["ID"]), of(&body["peerURLs"][0]));
            }
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

    pub(super) fn patroni(&self, host: &HostName, asked: &str, body: &str) -> Answer {
        if asked == "POST /switchover" || asked == "PATCH /config" {
            self.asked(host, asked, &serde_json::from_str(body).unwrap());
        }
        self.with(|model| {
            model.come_to_rest();
            let leads = model.leader().as_ref() == Some(host);
            if !model.is_able(host, "patroni") {
                return (503, json!({"state": "stopped"}).to_string());
            }
            match asked {
                "POST /switchover" => (200, "done".into()),
                "GET /primary" => (if leads { 200 } else { 503 }, String::new()),
                "PATCH /config" => {
                    model.configure();
                    (200, "{}".into())
                }
                "GET /patroni" => (200, self.status(model, host, leads).to_string()),
                _ => (404, String::new()),
            }
        })
    }

    /// A service without a fake of its own: it answers anything while its unit runs.
    pub(super) fn other(&self, host: &HostName, port: u16) -> Option<Answer> {
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
            // Or another program that uses its port.
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

    pub(super) fn haproxy(&self, host: &HostName) -> Answer {
        self.with(|model| {
            if !model.is_able(host, "haproxy") {
                return (503, String::new());
            }
            let leader = model.leader().map(|it| it.to_string());
            let replicas = replicas(model);
            let replicas: Vec<String> = replicas.iter().map(HostName::to_string).collect();
            (200, answers::backends(leader.as_deref(), &replicas))
        })
    }

    /// What a member says of itself. Replicas log in with the config that they have loaded.
    fn status(&self, model: &Model, host: &HostName, leads: bool) -> Value {
        let user = ["postgresql", "authentication", "replication", "username"];
        let login = |name: &HostName| {
            let user = self.taken_over(|it| value(it.patroni(name), &user));
            json!({"application_name": name, "state": "streaming", "usename": user})
        };
        let replicas = match leads {
            true => replicas(model),
            false => Vec::new(),
        };
        self.note_slots(model);
        let tags = match Self::is_tagged(model, host) {
            true => json!({"nofailover": true}),
            false => json!({}),
        };
        json!({
            "tags": tags,
            "state": "running",
            "role": if leads { "primary" } else { "replica" },
            "timeline": 1,
            "server_version": 160_004,
            "patroni": {"version": "4.1.5"},
            "replication": replicas.iter().map(login).collect::<Vec<_>>(),
        })
    }
}

/// The replicas that stream from the leader.
pub(super) fn replicas(model: &Model) -> Vec<HostName> {
    let leader = model.leader();
    let nodes = model.world.cluster.with_role(Role::Postgres);
    let names = nodes.map(|node| node.name.clone());
    names
        .filter(|name| Some(name) != leader.as_ref() && model.streams(name))
        .collect()
}
