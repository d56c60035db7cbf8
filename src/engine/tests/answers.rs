//! Answers of fake hosts, in their real format.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, DuplexStream,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    facts::{Facts, FileFact},
    plan::Found,
    remote::Script,
    secret::Content,
    services::etcd,
};

/// A host's files as `recover` reads them.
pub(super) fn files(facts: &Facts) -> String {
    let line = |(path, file): (&String, &FileFact)| {
        let content = BASE64_STANDARD.encode(file.content.as_str());
        format!("file {path} {content}\n")
    };
    let lines: String = facts.files.iter().map(line).collect();
    format!("recovery version 1\n{lines}recovery ends\n")
}

/// A host's facts as the probe prints them, with the files that the probe asks for.
pub(super) fn probe(facts: &Facts, script: &Script) -> String {
    let cores = format!("cores\t{}", facts.cores);
    let mut lines = vec!["version\t1".to_owned(), cores];
    let os = &facts.os;
    lines.push(format!(
        "os\t{}\t{}\t{}\t{}",
        os.id, os.version, os.codename, os.pretty
    ));
    if facts.systemd {
        lines.push("systemd\tyes".into());
    }
    let now = jiff::Timestamp::now().as_nanosecond();
    lines.push(format!("clock\t{now}"));
    // Used and free space, all and free inodes, filesystem and mount point.
    let space = |purpose| format!("space\t{purpose}\t/\t1000000 90000000 1000000 900000 ext4 /");
    lines.extend(["data", "etcd", "log"].map(space));
    lines.push("mount\t/\trw\t0".into());
    for (package, version) in &facts.packages {
        lines.push(format!("package\t{package}\tinstalled\t{version}"));
    }
    let asked = |path: &&String| script.contains(path);
    for (path, file) in facts.files.iter().filter(|(path, _)| asked(path)) {
        let content = BASE64_STANDARD.encode(file.content.as_str());
        let (owner, group, mode) = (&file.owner, &file.group, file.mode);
        lines.push(format!(
            "file\t{path}\t{owner}\t{group}\t{mode:o}\t{content}"
        ));
    }
    for (name, unit) in &facts.units {
        lines.push(format!("unit\tId\t{name}.service"));
        lines.push("unit\tLoadState\tloaded".into());
        lines.push(format!("unit\tActiveState\t{}", unit.active));
        lines.push(format!("unit\tUnitFileState\t{}", unit.enabled));
        lines.push("unit-end".into());
    }
    for (unit, effect) in &facts.pending {
        lines.push(format!("pending\t{unit}\t{effect}"));
    }
    lines.push(lease(facts));
    let stamp = facts.patroni_stamp.iter();
    lines.extend(stamp.map(|stamp| format!("patroni-stamp\t{stamp}")));
    for (path, folder) in &facts.needs.folders {
        let (owner, group, mode) = (&folder.owner, &folder.group, folder.mode);
        lines.push(format!(
            "folder\t{path}\t{owner}\t{group}\t{mode:o}\tdirectory"
        ));
    }
    for listener in &facts.listeners {
        let (port, process, unit) = (listener.port, &listener.process, &listener.unit);
        let pid = listener.pid.map_or(String::new(), |pid| pid.to_string());
        lines.push(format!("listener\t{port}\t{pid}\t{process}\t{unit}"));
    }
    if let Some(data) = &facts.data {
        let version = data.version.map_or(String::new(), |it| it.to_string());
        lines.push(format!("data\t{}\t{}\t{version}", data.owner, data.entries));
        lines.push(format!("bases\t{}", data.bases));
        lines.extend(data.control.then(|| "pg-control\tyes".to_owned()));
        lines.extend(data.system_id.iter().map(|id| format!("system-id\t{id}")));
    }
    if let Some(id) = &facts.data_marker {
        lines.push(format!("data-marker\t{id}"));
    }
    if facts.etcd_data {
        lines.push("etcd-data\t/var/lib/etcd".into());
    }
    for (name, role) in &facts.db_roles {
        let verifier = role.verifier.as_ref().map_or("", |it| it.expose());
        let (superuser, replication, login) = (role.superuser, role.replication, role.login);
        lines.push(format!(
            "role\t{name}\t{superuser}\t{replication}\t{login}\t{verifier}"
        ));
        for of in &role.member_of {
            lines.push(format!("member\t{name}\t{of}\t\t\t"));
        }
    }
    if let Some(recovers) = &facts.in_recovery {
        lines.push(format!("recovery\t{recovers}\t\t\t\t"));
    }
    if let Some(manifest) = &facts.belongings.manifest {
        let mut note = |line: String| lines.push(format!("manifest\t{line}"));
        note(format!("pgherd-manifest\t{}", manifest.version));
        note(format!("cluster\t{}", manifest.cluster));
        manifest
            .files
            .iter()
            .for_each(|it| note(format!("file\t{it}")));
        manifest
            .folders
            .iter()
            .for_each(|it| note(format!("folder\t{it}")));
        manifest
            .trees
            .iter()
            .for_each(|it| note(format!("tree\t{it}")));
        for (unit, (enabled, active)) in &manifest.units {
            note(format!("unit\t{unit}\t{enabled}\t{active}"));
        }
    }
    lines.push("end".into());
    lines.join("\n")
}

/// The holder of a host's lease, as the host reports it.
pub(super) fn lease(facts: &Facts) -> String {
    facts.tenant.as_ref().map_or(String::new(), |tenant| {
        let holder = serde_json::to_string(&tenant.holder).unwrap();
        format!(
            "lease\t{}\t{}",
            tenant.silent,
            BASE64_STANDARD.encode(holder)
        )
    })
}

/// Patroni's keys in etcd, as answered to a range request.
pub(super) fn range(found: &Found, cluster: &str) -> Value {
    let Some(keys) = &found.dcs else {
        return json!({});
    };
    let encode = |text: &str| BASE64_STANDARD.encode(text);
    let mut pairs = Vec::new();
    let mut pair = |name: &str, value: &str| {
        let key = encode(&format!("{}{name}", etcd::prefix(cluster)));
        let revision = keys.initialize_revision.clone().unwrap_or_default();
        pairs.push(json!({"key": key, "value": encode(value), "mod_revision": revision}));
    };
    if let Some(id) = &keys.initialize {
        pair("initialize", id);
    }
    if let Some(leader) = &keys.leader {
        pair("leader", leader);
    }
    if let Some(config) = &keys.config {
        pair("config", &config.to_string());
    }
    for (name, says) in &keys.members {
        pair(&format!("members/{name}"), &says.to_string());
    }
    json!({"kvs": pairs})
}

/// etcd's members, as each member lists them.
pub(super) fn members(found: &Found, host: &str) -> Value {
    let members: Vec<Value> = found
        .etcd
        .iter()
        .map(|it| {
            json!({
                "ID": it.id, "name": it.name, "peerURLs": it.peer_urls, "clientURLs": it.client_urls,
            })
        })
        .collect();
    json!({
        "header": {"cluster_id": "one store", "member_id": format!("id of {host}")},
        "members": members,
    })
}

/// HAProxy's table of its backends: the leader takes writes, the others take reads.
pub(super) fn backends(leader: Option<&str>, replicas: &[String]) -> String {
    let mut csv = "# pxname,svname,scur,status,check_status\n".to_owned();
    if let Some(name) = leader {
        csv.push_str(&format!("write,{name},0,UP,L7OK\n"));
    }
    for name in replicas {
        csv.push_str(&format!("read,{name},0,UP,L7OK\n"));
    }
    csv
}

/// The parameters that Patroni passes to PostgreSQL by default.
const PATRONIS: [(&str, &str); 10] = [
    ("max_connections", "100"),
    ("max_locks_per_transaction", "64"),
    ("max_prepared_transactions", "0"),
    ("max_replication_slots", "10"),
    ("max_wal_senders", "10"),
    ("max_worker_processes", "8"),
    ("track_commit_timestamp", "off"),
    ("wal_keep_size", "128MB"),
    ("wal_level", "replica"),
    ("wal_log_hints", "on"),
];

/// The result of a query: column names and rows.
#[derive(Default)]
pub(super) struct Rows {
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Rows {
    /// The only field of the only row.
    pub(super) fn one(value: impl Into<String>) -> Self {
        Self::named("value", value)
    }

    /// The same, by column name.
    pub(super) fn named(column: &'static str, value: impl Into<String>) -> Self {
        Self {
            columns: vec![column],
            rows: vec![vec![value.into()]],
        }
    }

    /// The rules of `pg_hba.conf`, as in PostgreSQL's own view.
    pub(super) fn rules(lines: &[Content]) -> Self {
        let row = |(at, line): (usize, &Content)| {
            let mut words = line.split_whitespace().map(str::to_owned);
            let mut next = || words.next().unwrap_or_default();
            let (kind, databases, users) = (next(), next(), next());
            let address = if kind == "local" {
                String::new()
            } else {
                next()
            };
            let (address, netmask) = match address.split_once('/') {
                Some((net, length)) => {
                    let bits = 32 - length.parse::<u32>().unwrap_or(32);
                    let mask = u32::MAX.checked_shl(bits).unwrap_or_default();
                    (net.to_owned(), Ipv4Addr::from(mask).to_string())
                }
                None => (address, String::new()),
            };
            let method = next();
            let options: Vec<String> = words.collect();
            let line = (at + 1).to_string();
            vec![
                kind,
                databases,
                users,
                address,
                netmask,
                method,
                options.join(" "),
                line,
            ]
        };
        Self {
            columns: vec![
                "type",
                "databases",
                "users",
                "address",
                "netmask",
                "method",
                "options",
                "line",
            ],
            rows: lines.iter().enumerate().map(row).collect(),
        }
    }

    /// `pg_settings`: what Patroni sets by itself, and `parameters`.
    pub(super) fn settings(parameters: &BTreeMap<String, String>) -> Self {
        let by_patroni = PATRONIS.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut all = BTreeMap::from(by_patroni);
        all.extend(parameters.clone());
        let row = |(name, value): (String, String)| {
            let (source, kind) = ("command line".to_owned(), "string".to_owned());
            vec![name, value.clone(), source, kind, value]
        };
        Self {
            columns: vec!["name", "setting", "source", "vartype", "shown"],
            rows: all.into_iter().map(row).collect(),
        }
    }

    /// As sent over the network.
    fn messages(&self) -> Vec<u8> {
        let mut messages = Vec::new();
        if !self.columns.is_empty() {
            let mut columns = count(self.columns.len());
            for name in &self.columns {
                columns.extend(name.bytes());
                // The column belongs to no table, and is text.
                columns.extend([0; 7]);
                columns.extend([0, 0, 0, 25, 255, 255, 255, 255, 255, 255, 0, 0]);
            }
            messages.extend(message(b'T', &columns));
        }
        for row in &self.rows {
            let mut fields = count(row.len());
            for value in row {
                fields.extend(u32::try_from(value.len()).unwrap_or_default().to_be_bytes());
                fields.extend(value.bytes());
            }
            messages.extend(message(b'D', &fields));
        }
        messages
    }
}

fn count(of: usize) -> Vec<u8> {
    u16::try_from(of).unwrap_or_default().to_be_bytes().into()
}

/// How a PostgreSQL server authenticates.
pub(super) struct Door {
    pub tls: Option<Arc<ServerConfig>>,
    /// Whether it refuses connections without TLS.
    pub wants_tls: bool,
}

/// The code for a TLS request, which a client sends in place of a protocol version.
const TLS_PLEASE: u32 = 80_877_103;

/// A PostgreSQL server that accepts every password.
pub(super) async fn postgres(mut stream: DuplexStream, door: Door, answer: impl Fn(&str) -> Rows) {
    let Some(asked) = startup(&mut stream).await else {
        return;
    };
    if !asked.starts_with(&TLS_PLEASE.to_be_bytes()) {
        if door.wants_tls {
            let refusal = b"SFATAL\0C28000\0Mno pg_hba.conf entry, no encryption\0\0";
            let _ = stream.write_all(&message(b'E', refusal)).await;
            return;
        }
        return session(stream, answer).await;
    }
    let Some(tls) = door.tls else {
        let _ = stream.write_all(b"N").await;
        return;
    };
    if stream.write_all(b"S").await.is_err() {
        return;
    }
    let Ok(mut stream) = TlsAcceptor::from(tls).accept(stream).await else {
        return;
    };
    if startup(&mut stream).await.is_some() {
        session(stream, answer).await;
    }
}

async fn startup(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let length = stream.read_u32().await.ok()?;
    let mut startup = vec![0; length as usize - 4];
    stream.read_exact(&mut startup).await.ok()?;
    Some(startup)
}

async fn session(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: impl Fn(&str) -> Rows) {
    let ready = message(b'Z', b"I");
    let welcome = [message(b'R', &[0; 4]), ready.clone()].concat();
    let mut next = send(&mut stream, &welcome).await;
    while next.is_ok() {
        let (Ok(kind), Ok(length)) = (stream.read_u8().await, stream.read_u32().await) else {
            return;
        };
        let mut body = vec![0; length as usize - 4];
        if stream.read_exact(&mut body).await.is_err() || kind != b'Q' {
            return;
        }
        let query = String::from_utf8_lossy(&body).into_owned();
        let mut answers = answer(query.trim_end_matches('\0')).messages();
        answers.extend(message(b'C', b"SELECT 1\0"));
        answers.extend(&ready);
        next = send(&mut stream, &answers).await;
    }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), text: &[u8]) -> std::io::Result<()> {
    stream.write_all(text).await?;
    stream.flush().await
}

/// A status and a body.
pub(super) type Answer = (u16, String);

/// An HTTP server, with or without TLS, that answers one request.
pub(super) async fn http(
    stream: DuplexStream,
    tls: Option<Arc<ServerConfig>>,
    answer: impl Fn(&str, &str) -> Answer,
) {
    match tls {
        None => serve(stream, answer).await,
        Some(tls) => {
            // A request without TLS gets no answer.
            if let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await {
                serve(stream, answer).await;
            }
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, answer: impl Fn(&str, &str) -> Answer) {
    const OF_TLS: u8 = 22;
    let mut stream = BufReader::new(stream);
    if !matches!(stream.fill_buf().await, Ok([first, ..]) if *first != OF_TLS) {
        return;
    }
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
    let body = String::from_utf8_lossy(&body);
    let (status, body) = answer(request.trim_end_matches(" HTTP/1.1\r\n"), &body);
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    // The client may be gone already. Otherwise the client closes the connection.
    if send(&mut stream, text.as_bytes()).await.is_ok() {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or_default();
    [[kind].as_slice(), &length.to_be_bytes(), body].concat()
}
