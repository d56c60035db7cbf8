//! The files that services have loaded, and how they communicate since then.
//!
//! A file on a host has no effect until its service loads it. So a missing reload is found here.

use std::{collections::BTreeMap, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

use crate::{
    configs::{Environment, PatroniConfig},
    facts::Facts,
    inventory::{HostName, Role},
    plan::Step,
    render::{ETCD_CONFIG, PATRONI_CONFIG},
    services,
};

const HAPROXY_CONFIG: &str = "/etc/haproxy/haproxy.cfg";

/// The servers of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    Etcd,
    Patroni,
    Postgres,
    /// HAProxy's statistics.
    Haproxy,
}

/// A host's files as one of its services has loaded them.
#[derive(Clone)]
struct Read {
    files: BTreeMap<String, String>,
    /// Whether Patroni connects to etcd over TLS. Patroni decides this when it starts, and a reload does not
    /// change it.
    asks_etcd_with_tls: bool,
}

/// The files that every service has loaded.
#[derive(Default)]
pub(super) struct TakenOver(BTreeMap<(HostName, Role), Read>);

impl TakenOver {
    /// Records a step that makes a service load its files; ignores other steps.
    pub(super) fn by(&mut self, step: &Step, facts: &Facts) {
        let name = step.name.strip_suffix("-alone").unwrap_or(step.name);
        let verbs = ["start", "reload", "restart"];
        let read = name
            .split_once('-')
            .filter(|(verb, _)| verbs.contains(verb));
        let Some((verb, role)) =
            read.and_then(|(verb, unit)| Some((verb, services::of_unit(unit)?)))
        else {
            return;
        };
        let files = facts.files.iter();
        let files: BTreeMap<String, String> = files
            .map(|(path, file)| (path.clone(), file.content.to_string()))
            .collect();
        let config = files.get(PATRONI_CONFIG);
        let config = config.and_then(|text| PatroniConfig::parse(text));
        let asks = config.and_then(|config| config.asks_with_tls());
        let of = (step.host.clone(), role);
        let before = self.0.get(&of).filter(|_| verb == "reload");
        let asks_etcd_with_tls =
            before.map_or(asks == Some(true), |before| before.asks_etcd_with_tls);
        let read = Read {
            files,
            asks_etcd_with_tls,
        };
        self.0.insert(of, read);
    }

    fn text(&self, host: &HostName, role: Role, path: &str) -> &str {
        let read = self.0.get(&(host.clone(), role));
        read.and_then(|read| read.files.get(path))
            .map_or("", String::as_str)
    }

    pub(super) fn patroni(&self, host: &HostName) -> &str {
        self.text(host, Role::Postgres, PATRONI_CONFIG)
    }

    pub(super) fn haproxy(&self, host: &HostName) -> &str {
        self.text(host, Role::Haproxy, HAPROXY_CONFIG)
    }

    /// The authorities that a service trusts.
    pub(super) fn trusts(&self, host: &HostName, role: Role) -> &str {
        let folder = role.service().tls.unwrap_or_default();
        self.text(host, role, &format!("{folder}/ca.crt"))
    }

    pub(super) fn asks_etcd_with_tls(&self, host: &HostName) -> bool {
        let read = self.0.get(&(host.clone(), Role::Postgres));
        read.is_some_and(|read| read.asks_etcd_with_tls)
    }

    /// Whether a server takes TLS.
    pub(super) fn speaks_tls(&self, host: &HostName, server: Server) -> bool {
        match server {
            Server::Etcd => {
                let config = self.text(host, Role::Etcd, ETCD_CONFIG);
                Environment::parse(config).listens_with_tls() == Some(true)
            }
            Server::Patroni => value(self.patroni(host), &["restapi", "certfile"]).is_some(),
            Server::Postgres => {
                let ssl = value(self.patroni(host), &["postgresql", "parameters", "ssl"]);
                ssl.as_deref() == Some("on")
            }
            Server::Haproxy => self
                .haproxy(host)
                .lines()
                .any(|line| line.contains("bind") && line.contains(" ssl crt ")),
        }
    }

    /// Whether PostgreSQL refuses connections without TLS.
    pub(super) fn wants_tls(&self, host: &HostName) -> bool {
        let config = self.patroni(host);
        inside(config, &["postgresql", "pg_hba"])
            .iter()
            .any(|line| line.contains("hostssl all all"))
    }

    /// The certificate and key of a server; empty if there is none.
    fn files<'a>(&'a self, host: &HostName, server: Server, now: &'a Facts) -> (&'a str, &'a str) {
        match server {
            // etcd reads them for every handshake.
            Server::Etcd => {
                let file = |name| {
                    let file = now.files.get(&format!("/etc/pgherd/tls/etcd/{name}"));
                    file.map_or("", |file| file.content.as_str())
                };
                (file("server.crt"), file("server.key"))
            }
            Server::Patroni | Server::Postgres => self.of_member(host),
            Server::Haproxy => {
                let pem = self.text(host, Role::Haproxy, "/etc/pgherd/tls/haproxy/server.pem");
                (pem, pem)
            }
        }
    }

    /// The certificate of a member, and its key.
    fn of_member(&self, host: &HostName) -> (&str, &str) {
        let file = |name| {
            let path = format!("/etc/pgherd/tls/postgres/{name}");
            self.text(host, Role::Postgres, &path)
        };
        (file("server.crt"), file("server.key"))
    }

    /// The certificate of a server; `None` if it does not use TLS.
    pub(super) fn shows<'a>(
        &'a self,
        host: &HostName,
        server: Server,
        now: &'a Facts,
    ) -> Option<&'a str> {
        let speaks = self.speaks_tls(host, server);
        speaks.then(|| self.files(host, server, now).0)
    }

    /// The TLS configuration of a server; `None` if it does not use TLS, or lacks a file for it.
    pub(super) fn tls(
        &self,
        host: &HostName,
        server: Server,
        now: &Facts,
    ) -> Option<Arc<ServerConfig>> {
        if !self.speaks_tls(host, server) {
            return None;
        }
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .ok()?;
        let builder = match server {
            Server::Etcd => {
                let roots = Arc::new(roots(self.trusts(host, Role::Etcd)));
                let provider = Arc::new(default_provider());
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                builder.with_client_cert_verifier(verifier.build().ok()?)
            }
            _ => builder.with_no_client_auth(),
        };
        let (cert, key) = self.files(host, server, now);
        let (chain, key) = identity(cert, key)?;
        builder.with_single_cert(chain, key).ok().map(Arc::new)
    }

    /// The certificate that a member presents as a client, as text and for TLS.
    pub(super) fn identity(&self, host: &HostName) -> (&str, Option<Identity>) {
        let (cert, key) = self.of_member(host);
        (cert, identity(cert, key))
    }

    /// PostgreSQL's parameters, as its host's file has them.
    pub(super) fn parameters(&self, host: &HostName) -> BTreeMap<String, String> {
        let lines = inside(self.patroni(host), &["postgresql", "parameters"]);
        let pairs = lines.iter().filter_map(|line| line.trim().split_once(": "));
        pairs
            .map(|(name, value)| (name.to_owned(), scalar(value)))
            .collect()
    }
}

pub(super) fn roots(pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()).flatten() {
        // A certificate that is no authority is not trusted.
        let _ = roots.add(certificate);
    }
    roots
}

/// A certificate with its key.
pub(super) type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(cert: &str, key: &str) -> Option<Identity> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(cert.as_bytes())
        .flatten()
        .collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).ok()?;
    (!chain.is_empty()).then_some((chain, key))
}

/// The lines below a key, in a file with the built-in template's indentation.
fn inside<'a>(text: &'a str, keys: &[&str]) -> Vec<&'a str> {
    let mut lines: Vec<&str> = text.lines().collect();
    for (depth, key) in keys.iter().enumerate() {
        let head = format!("{}{key}:", "  ".repeat(depth));
        let Some(at) = lines.iter().position(|line| line.starts_with(&head)) else {
            return Vec::new();
        };
        let deeper = "  ".repeat(depth + 1);
        let rest = lines[at + 1..].iter().copied();
        lines = rest.take_while(|line| line.starts_with(&deeper)).collect();
    }
    lines
}

/// The value of a key, in the same file.
pub(super) fn value(text: &str, keys: &[&str]) -> Option<String> {
    let (last, above) = keys.split_last()?;
    let head = format!("{}{last}: ", "  ".repeat(above.len()));
    let lines = inside(text, above);
    let line = lines.iter().find_map(|line| line.strip_prefix(&head))?;
    Some(scalar(line))
}

fn scalar(text: &str) -> String {
    serde_json::from_str(text).unwrap_or_else(|_| text.to_owned())
}
