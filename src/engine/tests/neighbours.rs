//! Checks whether the services of a cluster can work together at every point of a change.

use std::{collections::BTreeMap, sync::Arc};

use rustls::{
    ClientConfig, ClientConnection, ConnectionCommon, ServerConfig, ServerConnection, SideData,
    crypto::ring::default_provider, pki_types::ServerName,
};

use super::taken_over::{Server, TakenOver, roots, value};
use crate::{
    inventory::{HostName, Role},
    plan::tests::model::Model,
    scram,
    secret::Secret,
};

/// Earlier attempts and their results, because both are slow.
#[derive(Default)]
pub(super) struct Neighbours {
    /// A verifier and a password.
    passwords: BTreeMap<(String, String), bool>,
    /// What one side trusts and presents, the same of the other side, and the other side's name.
    handshakes: BTreeMap<[String; 5], bool>,
}

impl Neighbours {
    /// Which hosts are refused by which, one line each. Nothing is checked before the databases exist.
    pub(super) fn refused(&mut self, model: &Model, taken_over: &TakenOver) -> Vec<String> {
        let cluster = &model.world.cluster;
        let with = |role| cluster.with_role(role).map(|node| &node.name);
        let is_there = |host: &&HostName| {
            let facts = &model.world.found.facts[*host];
            let has_data = facts.data.as_ref().is_some_and(|data| data.entries > 0);
            has_data && !taken_over.patroni(host).is_empty()
        };
        let members: Vec<&HostName> = with(Role::Postgres).filter(is_there).collect();
        let mut all = Look {
            known: self,
            model,
            taken_over,
            refused: Vec::new(),
        };
        for member in &members {
            for door in with(Role::Haproxy) {
                all.haproxy_asks(door, member);
            }
            for other in members.iter().filter(|other| *other != member) {
                all.copies(member, other);
                all.vouches(member, other);
            }
            for etcd in with(Role::Etcd) {
                all.asks_etcd(member, etcd);
            }
        }
        all.refused
    }

    fn is_of(&mut self, verifier: &str, password: &str) -> bool {
        let key = (verifier.to_owned(), password.to_owned());
        let compare = || scram::is_of(verifier, &Secret::new(password));
        *self.passwords.entry(key).or_insert_with(compare)
    }
}

/// One pass over all of them.
struct Look<'a> {
    known: &'a mut Neighbours,
    model: &'a Model,
    taken_over: &'a TakenOver,
    refused: Vec<String>,
}

impl Look<'_> {
    fn check(&mut self, gets_on: bool, what: impl FnOnce() -> String) {
        if !gets_on {
            self.refused.push(what());
        }
    }

    /// HAProxy asks a member whether it leads, by one of two ways.
    fn haproxy_asks(&mut self, door: &HostName, member: &HostName) {
        let config = self.taken_over.haproxy(door);
        if config.is_empty() {
            return;
        }
        let always = config.contains("default-server check-ssl");
        let asks = |name: String| config.contains(&format!("    server {name} "));
        let ways = [
            (asks(member.to_string()), always),
            (asks(format!("{member}_tls")), true),
        ];
        let tls = self.taken_over.speaks_tls(member, Server::Patroni);
        let asks = ways.iter().any(|(is, with)| *is && *with == tls);
        let name = member.as_str();
        let gets_on =
            asks && (!tls || self.shakes(door, Role::Haproxy, member, Server::Patroni, name));
        self.check(gets_on, || {
            format!("HAProxy cannot ask {member}, whose Patroni speaks TLS: {tls}")
        });
    }

    /// A replica copies from the leader.
    fn copies(&mut self, member: &HostName, leader: &HostName) {
        let config = self.taken_over.patroni(member);
        let of = |key| {
            value(
                config,
                &["postgresql", "authentication", "replication", key],
            )
        };
        let (user, password) = (of("username").unwrap(), of("password").unwrap());
        let tls = of("sslmode").is_some();
        let verifier = self
            .model
            .roles
            .get(&user)
            .and_then(|it| it.verifier.clone());
        let may = verifier.is_some_and(|it| self.known.is_of(it.expose(), &password));
        self.check(may, || format!("{member} cannot log in as {user}"));
        let address = self.model.world.cluster.nodes[leader].address.to_string();
        let server = Server::Postgres;
        let gets_on = match tls {
            true => self.shakes(member, Role::Postgres, leader, server, &address),
            false => !self.taken_over.wants_tls(leader),
        };
        self.check(gets_on, || {
            format!("{member} cannot copy from {leader}; it speaks TLS: {tls}")
        });
    }

    /// A member confirms a leader that has lost etcd.
    fn vouches(&mut self, leader: &HostName, member: &HostName) {
        if !self.taken_over.speaks_tls(member, Server::Patroni) {
            return;
        }
        let config = self.taken_over.patroni(leader);
        let trusts = value(config, &["ctl", "cacert"]).is_some();
        let name = self.model.world.cluster.nodes[member].address.to_string();
        let gets_on = trusts && self.shakes(leader, Role::Postgres, member, Server::Patroni, &name);
        self.check(gets_on, || {
            format!("{leader} cannot ask the Patroni of {member}")
        });
    }

    /// A member asks etcd. The two may differ in TLS for a moment, because etcd has only one way at a time.
    fn asks_etcd(&mut self, member: &HostName, etcd: &HostName) {
        let both = self.taken_over.asks_etcd_with_tls(member)
            && self.taken_over.speaks_tls(etcd, Server::Etcd);
        if both {
            let address = self.model.world.cluster.nodes[etcd].address.to_string();
            let gets_on = self.shakes(member, Role::Postgres, etcd, Server::Etcd, &address);
            self.check(gets_on, || format!("{member} cannot ask etcd on {etcd}"));
        }
    }

    /// Whether a service of `host` accepts a server's certificate, and the server accepts the service's.
    fn shakes(
        &mut self,
        host: &HostName,
        role: Role,
        on: &HostName,
        server: Server,
        name: &str,
    ) -> bool {
        let facts = &self.model.world.found.facts[on];
        let Some(cert) = self.taken_over.shows(on, server, facts) else {
            return false;
        };
        let trusted = self.taken_over.trusts(host, role);
        let (mine, identity) = match role {
            Role::Postgres => self.taken_over.identity(host),
            _ => ("", None),
        };
        let asked = match server {
            Server::Etcd => self.taken_over.trusts(on, Role::Etcd),
            _ => "",
        };
        let shake = || {
            let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots(trusted));
            let client = match identity {
                Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
                None => builder.with_no_client_auth(),
            };
            let server = self.taken_over.tls(on, server, facts);
            server.is_some_and(|server| is_shaken(Arc::new(client), server, name))
        };
        let key = [trusted, mine, asked, cert, name].map(str::to_owned);
        *self.known.handshakes.entry(key).or_insert_with(shake)
    }
}

/// Runs the TLS handshake on both sides.
fn is_shaken(client: Arc<ClientConfig>, server: Arc<ServerConfig>, name: &str) -> bool {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(client, name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    let mut turns = 0;
    while client.is_handshaking() || server.is_handshaking() {
        let goes_on = passes(&mut client, &mut server) && passes(&mut server, &mut client);
        turns += 1;
        if !goes_on || turns > 9 {
            return false;
        }
    }
    true
}

/// Carries the messages of one side to the other; returns whether the other side accepts them.
fn passes<One: SideData, Other: SideData>(
    from: &mut ConnectionCommon<One>,
    to: &mut ConnectionCommon<Other>,
) -> bool {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).unwrap();
    }
    let mut rest = wire.as_slice();
    while !rest.is_empty() {
        to.read_tls(&mut rest).unwrap();
        if to.process_new_packets().is_err() {
            return false;
        }
    }
    true
}
