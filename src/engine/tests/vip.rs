//! The cluster's address on fake front doors, as VRRP moves it: who hears nobody that has it takes it.

use std::collections::BTreeSet;

use super::hosts::Hosts;
use crate::{inventory::HostName, plan::tests::model::Model};

const CONFIG: &str = "/etc/keepalived/keepalived.conf";

#[derive(Default)]
pub(super) struct Vip {
    on: BTreeSet<HostName>,
    /// When more than one had it.
    twice: Vec<String>,
}

impl Vip {
    fn moves(&mut self, model: &Model, after: &str) {
        let facts = &model.world.found.facts;
        let runs = |host: &HostName| facts[host].unit("keepalived").is_active();
        self.on.retain(runs);
        let tells = |one: &HostName, other: &HostName| {
            let address = model.world.cluster.nodes[other].address.to_string();
            let peers = facts[one].files.get(CONFIG);
            peers.is_some_and(|it| it.content.split_whitespace().any(|word| word == address))
        };
        for host in facts.keys().filter(|host| runs(host)) {
            if !self.on.iter().any(|holder| tells(holder, host)) {
                self.on.insert(host.clone());
            }
        }
        if self.on.len() > 1 {
            self.twice.push(format!("after {after}: {:?}", self.on));
        }
    }
}

impl Hosts {
    /// The address moves where it has to.
    pub(super) fn vip_moves(&self, after: &str) {
        let mut vip = self.vip.lock().unwrap();
        self.with(|model| vip.moves(model, after));
    }

    /// The host that has it.
    pub(super) fn has_vip(&self) -> Option<HostName> {
        self.vip_moves("a question");
        self.vip.lock().unwrap().on.first().cloned()
    }

    pub(super) fn vip_was_twice(&self) -> Vec<String> {
        self.vip.lock().unwrap().twice.clone()
    }

    /// What a front door says of it.
    pub(super) fn says_of_vip(&self, host: &HostName) -> &'static str {
        self.vip_moves("a question");
        let vip = self.vip.lock().unwrap();
        match vip.on.contains(host) {
            true => "holds",
            false if vip.on.is_empty() => "",
            false => "answers",
        }
    }
}
