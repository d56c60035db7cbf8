//! Answers of databases.

use std::collections::BTreeMap;

use super::{answers::Rows, hosts::Hosts};
use crate::{
    configs::PatroniConfig,
    inventory::{HostName, Role},
    plan::tests::world::World,
};

impl Hosts {
    /// The answer of a database: of the leader, or of one replica after the other.
    pub(super) fn sql(&self, host: &HostName, reads: Option<usize>, query: &str) -> Rows {
        if query.contains("create table if not exists pgherd.proof") {
            self.rows.lock().unwrap().push(query.to_owned());
        }
        if query == "select pg_is_in_recovery()" {
            return Rows::one(if reads.is_some() { "t" } else { "f" });
        }
        if query.contains("to_regclass") {
            // Queries about pgherd's own table; whether PostgreSQL shows pg_ident.conf is a separate query.
            return Rows::one(if query.contains("pgherd.proof") {
                "t"
            } else {
                "f"
            });
        }
        if query.contains("from pg_catalog.pg_hba_file_rules") {
            return self.taken_over(|it| {
                let config = PatroniConfig::parse(it.patroni(host)).unwrap();
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
            let of_host = self.taken_over(|it| it.parameters(host));
            return self.with(|model| Rows::settings(&parameters(of_host, &model.world)));
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

/// PostgreSQL's parameters: from its host's config, and from the DCS.
fn parameters(mut of_host: BTreeMap<String, String>, world: &World) -> BTreeMap<String, String> {
    let keys = world.found.dcs.clone().unwrap_or_default();
    let dcs = keys.config.unwrap_or_default()["postgresql"]["parameters"].clone();
    let of_dcs = dcs.as_object().into_iter().flatten();
    of_host.extend(
        of_dcs.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))),
    );
    of_host
}
