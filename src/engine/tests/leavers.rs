//! What fake hosts know of members that leave: Patroni's slots and tags, and machines that go.

use std::collections::BTreeSet;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::hosts::Hosts;
use crate::{
    cluster::KnownHost,
    inventory::HostName,
    plan::{Step, retire::Departures, tests::model::Model},
    remote::Script,
    render::{self, PATRONI_CONFIG},
};

/// What is in a Patroni's config once it has the tag, which the next config that is rendered has not.
const TAG: &str = "# nofailover";

#[derive(Default)]
pub(super) struct Leavers {
    /// Those that are not in the inventory any more, and still there.
    pub hosts: Vec<KnownHost>,
    /// The members that have a slot, and whether Patroni lets slots of absent members go.
    slots: BTreeSet<String>,
    slots_go: bool,
}

impl Hosts {
    /// From now on these hosts are there, and not in the inventory.
    pub(super) fn leave(&self, hosts: Vec<KnownHost>) {
        self.leavers.lock().unwrap().hosts = hosts;
    }

    /// Whoever is a member has a slot on the others.
    pub(super) fn note_slots(&self, model: &Model) {
        self.leavers.lock().unwrap().slots.extend(model.members());
    }

    /// What is left of a member on those that stay.
    pub(super) fn traces(&self, host: &HostName) -> Vec<String> {
        let leavers = self.leavers.lock().unwrap();
        self.with(|model| {
            let mut traces = Vec::new();
            let name = host.to_string();
            if leavers.slots.contains(&name) {
                traces.push("its slot".to_owned());
            }
            if leavers.slots_go {
                traces.push("member_slots_ttl".to_owned());
            }
            if model.members().contains(&name) {
                traces.push("its key".to_owned());
            }
            for (other, facts) in &model.world.found.facts {
                let mut files = facts.files.iter().filter(|_| other != host);
                if let Some((path, _)) = files.find(|(_, file)| named(&file.content, &name)) {
                    traces.push(format!("{other}: {path}"));
                }
            }
            traces
        })
    }

    /// Whether Patroni on `host` has the tag with which it is never elected.
    pub(super) fn is_tagged(model: &Model, host: &HostName) -> bool {
        let facts = &model.world.found.facts[host];
        facts
            .files
            .get(PATRONI_CONFIG)
            .is_some_and(|file| file.content.contains(TAG))
    }

    /// The steps of what is planned for those that stay.
    pub(super) fn planned(&self, model: &Model) -> Vec<Step> {
        let leavers = self.leavers.lock().unwrap();
        if leavers.hosts.is_empty() {
            return model.world.up().map_or(Vec::new(), |plan| plan.steps);
        }
        let mut world = model.world.clone();
        world.cluster = self.declared(&world.found.facts);
        world.files = render::render(&world.cluster, world.templates).unwrap();
        let names = leavers.hosts.iter().map(|it| it.name.clone());
        world.found.leaving = Departures::Agreed(names.collect());
        world.up().map_or(Vec::new(), |plan| plan.steps)
    }

    /// Does what a script of a departure is for.
    pub(super) fn depart(&self, host: &HostName, script: &Script) -> Option<Departing> {
        if script.contains("nofailover=True") {
            self.with(|model| {
                let file = model.world.file(host.as_str(), PATRONI_CONFIG);
                if !file.content.contains(TAG) {
                    file.content = format!("{}\n{TAG}\n", &*file.content).into();
                }
            });
            return Some(Departing::Step(format!("{host} forbid-election")));
        }
        for unit in ["patroni", "keepalived"] {
            if script.contains(&format!("/run/pgherd/retire-{unit}.lock")) {
                self.with(|model| {
                    model.stop(host, unit);
                    model.world.unit(host.as_str(), unit).enabled = "disabled".into();
                    model.look();
                });
                return Some(Departing::Step(format!("{host} retire-{unit}")));
            }
        }
        if script.contains("pg_replication_slots where slot_name") {
            let leavers = self.leavers.lock().unwrap();
            let mut slots = leavers.slots.iter();
            let there = slots.any(|name| script.contains(&format!("'{name}'")));
            return Some(Departing::Says(if there { "slot" } else { "" }));
        }
        None
    }

    /// What etcd deletes.
    pub(super) fn delete(&self, body: &Value) {
        let key = body["key"].as_str().unwrap_or_default();
        let key = BASE64_STANDARD.decode(key).unwrap_or_default();
        let key = String::from_utf8_lossy(&key).into_owned();
        if let Some((_, name)) = key.split_once("/members/") {
            self.with(|model| model.forget(name));
            self.happens(&format!("{name} forget-member"));
        }
    }

    /// What Patroni does that is asked by `PATCH /config` or `POST /switchover`.
    pub(super) fn asked(&self, host: &HostName, asked: &str, body: &Value) {
        if asked == "POST /switchover" {
            let to = HostName::new(body["candidate"].as_str().unwrap_or_default());
            self.with(|model| model.hand_over(&to));
            self.happens(&format!("{host} hand-over"));
            return;
        }
        let Some(ttl) = body.get("member_slots_ttl") else {
            return;
        };
        let members = self.with(|model| model.members());
        let mut leavers = self.leavers.lock().unwrap();
        leavers.slots_go = *ttl == json!(1);
        if leavers.slots_go {
            leavers.slots.retain(|name| members.contains(name));
        }
        drop(leavers);
        self.happens(&format!("{host} member_slots_ttl {ttl}"));
    }

    /// The machine of `host` is gone, with all that was on it.
    pub(super) fn machine_goes(&self, host: &HostName) {
        self.with(|model| model.lose(host));
        self.happens(&format!("{host} is removed"));
    }
}

/// What a script of a departure comes to.
pub(super) enum Departing {
    Step(String),
    Says(&'static str),
}

/// Whether a text has a host's name as a word of its own.
fn named(text: &str, name: &str) -> bool {
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.any(|word| word == name)
}
