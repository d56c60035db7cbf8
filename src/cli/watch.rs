//! `pgherd status --watch`: the topology as it changes.
//!
//! Every host is asked by itself, again and again, so that one that does not answer holds up nobody.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::{join_all, pending};
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{Global, look};
use crate::{
    cluster::Cluster,
    engine::context::Site,
    error::{Error, Result},
    etcd::Etcd,
    event::Events,
    haproxy,
    inventory::{HostName, Role},
    patroni::{Patroni, Status},
    report::{Canvas, Side, Table, Terminal, Tone},
};

/// From one question to the next.
const PERIOD: Duration = Duration::from_millis(500);
/// How long an answer may take. SSH's connection to a host that died would keep a question for long.
const ANSWER: Duration = Duration::from_secs(2);
/// How often to look where hosts are that do not answer.
const SEARCH: Duration = Duration::from_secs(5);

/// What one member says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Member {
    role: String,
    state: String,
    timeline: Option<u64>,
    /// Where a leader's log ends, and to where a replica has replayed it: bytes.
    position: Option<u64>,
}

/// Everything, as it was last seen; `None` is no answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct Picture {
    members: BTreeMap<String, Option<Member>>,
    etcd: BTreeMap<String, Option<bool>>,
    /// The backends that are up, by listener; none when HAProxy does not answer.
    backends: Option<BTreeMap<String, Vec<String>>>,
}

pub(super) async fn run(
    global: &Global,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let (base, outlook) = look::hosts(global, terminal).await?;
    let (events, _quiet) = Events::channel();
    let site = base.connect(&outlook.running, &events).await?;
    let watched = async {
        let cluster = site.look().await?.cluster;
        let watcher = Watcher {
            site: &site,
            cluster,
            seen: Mutex::default(),
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = watcher.ask_all() => {}
            () = watcher.show(terminal) => {}
        }
        Ok::<_, Error>(())
    }
    .await;
    site.close().await;
    watched
}

struct Watcher<'a> {
    site: &'a Site<'a>,
    cluster: Arc<Cluster>,
    seen: Mutex<Picture>,
}

impl Watcher<'_> {
    fn seen(&self) -> MutexGuard<'_, Picture> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks everybody for ever.
    async fn ask_all(&self) {
        let http = &self.site.http;
        let members = self.cluster.with_role(Role::Postgres).map(|node| {
            let host = &node.name;
            self.ask(host, async move || {
                let status = Patroni::on(http, host).status().await;
                let member = status.ok().map(member_of);
                let answered = member.is_some();
                self.seen().members.insert(host.to_string(), member);
                answered
            })
        });
        let etcd = self.cluster.with_role(Role::Etcd).map(|node| {
            let host = &node.name;
            self.ask(host, async move || {
                let healthy = Etcd::on(http, host).healthy().await.ok();
                self.seen().etcd.insert(host.to_string(), healthy);
                healthy.is_some()
            })
        });
        let haproxy = self.cluster.with_role(Role::Haproxy).take(1).map(|node| {
            self.ask(&node.name, async move || {
                let servers = haproxy::servers(http, &self.cluster).await.ok();
                let answered = servers.is_some();
                self.seen().backends = servers.map(|servers| backends_of(&servers));
                answered
            })
        });
        tokio::join!(join_all(members), join_all(etcd), join_all(haproxy));
    }

    /// Puts one question again and again; `question` says whether there was an answer.
    async fn ask(&self, host: &HostName, question: impl AsyncFn() -> bool) {
        let mut searched = Instant::now();
        loop {
            let answered = timeout(ANSWER, question()).await;
            if answered != Ok(true) {
                if answered.is_err() {
                    self.silent(host);
                }
                self.site.remote.forget(host).await;
                if searched.elapsed() > SEARCH {
                    searched = Instant::now();
                    self.search().await;
                }
            }
            sleep(PERIOD).await;
        }
    }

    /// Nothing is known of what runs on a host that does not answer in time.
    fn silent(&self, host: &HostName) {
        let mut seen = self.seen();
        let name = host.as_str();
        if let Some(member) = seen.members.get_mut(name) {
            *member = None;
        }
        if let Some(etcd) = seen.etcd.get_mut(name) {
            *etcd = None;
        }
        let is_door = self
            .cluster
            .node(host)
            .is_some_and(|node| node.roles.contains(&Role::Haproxy));
        if is_door {
            seen.backends = None;
        }
    }

    /// Hosts may have moved.
    async fn search(&self) {
        if let Ok(outlook) = self.site.base.outlook().await {
            // One that cannot be written now is written the next time.
            let _ = self.site.base.workspace.write_ssh_config(&outlook.running);
        }
    }

    /// Shows what is seen for ever: a picture that is painted over on a terminal, else a line for
    /// each change.
    async fn show(&self, terminal: &Terminal) {
        // The first answers, so that the first picture is not empty.
        sleep(ANSWER.min(PERIOD * 2)).await;
        let name = self.cluster.name();
        let mut canvas = Canvas::new(terminal);
        let mut last = Picture::default();
        loop {
            let now = self.seen().clone();
            if terminal.json {
                if now != last {
                    terminal.print_json(
                        &serde_json::json!({"at": jiff::Timestamp::now(), "seen": now}),
                    );
                }
            } else if canvas.paints() {
                canvas.paint(|side| tables(name, &now, side));
            } else {
                let clock = jiff::Timestamp::now().strftime("%H:%M:%SZ").to_string();
                for line in changes(&last, &now) {
                    terminal.print(&format!("{clock}  {line}"));
                }
            }
            last = now;
            sleep(PERIOD).await;
            if canvas.is_gone() {
                return pending().await;
            }
        }
    }
}

fn member_of(status: Status) -> Member {
    let leads = status.is_primary();
    Member {
        role: match status.role.as_str() {
            "primary" | "master" => "leader".to_owned(),
            role => role.to_owned(),
        },
        state: match status.replication_state {
            Some(state) if status.state == "running" => state,
            _ => status.state,
        },
        timeline: status.timeline,
        position: if leads {
            status.xlog.location
        } else {
            status.xlog.replayed_location
        },
    }
}

fn backends_of(servers: &[haproxy::Server]) -> BTreeMap<String, Vec<String>> {
    let mut backends = BTreeMap::from([
        (haproxy::WRITE.to_owned(), Vec::new()),
        (haproxy::READ.to_owned(), Vec::new()),
    ]);
    for server in servers.iter().filter(|server| server.is_up()) {
        backends
            .entry(server.listener.clone())
            .or_default()
            .push(server.name.clone());
    }
    backends
}

impl Picture {
    /// How far a replica is behind the leader: bytes.
    fn lag(&self, member: &Member) -> Option<u64> {
        let leader = self
            .members
            .values()
            .flatten()
            .find(|member| member.role == "leader")?;
        (member.role != "leader")
            .then(|| Some(leader.position?.saturating_sub(member.position?)))
            .flatten()
    }

    fn leads_to(&self, listener: &str) -> String {
        match &self.backends {
            None => "no answer".to_owned(),
            Some(backends) => match backends.get(listener).map(Vec::as_slice) {
                None | Some([]) => "nobody".to_owned(),
                Some(names) => names.join(", "),
            },
        }
    }
}

fn tables(cluster: &str, picture: &Picture, side: &Side) -> String {
    let mut members = Table::new(["member", "role", "state", "TL", "lag (bytes)"])
        .title(format!("cluster {cluster}"));
    for (name, member) in &picture.members {
        match member {
            None => members.toned_row(Tone::Bad, [name, "", "no answer", "", ""]),
            Some(member) => {
                let tone = match (member.role.as_str(), member.state.as_str()) {
                    ("leader", "running") => Tone::Good,
                    (_, "streaming" | "running") => Tone::Plain,
                    _ => Tone::Warn,
                };
                let number = |number: Option<u64>| number.map_or(String::new(), |n| n.to_string());
                members.toned_row(
                    tone,
                    [
                        name.clone(),
                        member.role.clone(),
                        member.state.clone(),
                        number(member.timeline),
                        number(picture.lag(member)),
                    ],
                )
            }
        };
    }
    let mut rest = Table::new(["", "state"]);
    for (host, healthy) in &picture.etcd {
        let (tone, word) = health(*healthy);
        rest.toned_row(tone, [format!("etcd on {host}"), word.to_owned()]);
    }
    for (port, listener) in [("write port", haproxy::WRITE), ("read port", haproxy::READ)] {
        let to = picture.leads_to(listener);
        let tone = match to.as_str() {
            "nobody" | "no answer" => Tone::Bad,
            _ => Tone::Plain,
        };
        rest.toned_row(tone, [port.to_owned(), to]);
    }
    members.render(side) + &rest.render(side)
}

fn health(healthy: Option<bool>) -> (Tone, &'static str) {
    match healthy {
        Some(true) => (Tone::Plain, "healthy"),
        Some(false) => (Tone::Bad, "without a leader"),
        None => (Tone::Bad, "no answer"),
    }
}

/// A line for each thing that is not as it was; how far replicas have come is none.
fn changes(before: &Picture, now: &Picture) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, member) in &now.members {
        let told = |member: &Option<Member>| match member {
            None => "no answer".to_owned(),
            Some(member) => {
                let timeline = member
                    .timeline
                    .map_or(String::new(), |timeline| format!(", timeline {timeline}"));
                format!("{}, {}{timeline}", member.role, member.state)
            }
        };
        let (was, is) = (before.members.get(name).map(told), told(member));
        if was.as_ref() != Some(&is) {
            lines.push(format!("{name}: {is}"));
        }
    }
    for (name, healthy) in &now.etcd {
        if before.etcd.get(name) != Some(healthy) {
            lines.push(format!("etcd on {name}: {}", health(*healthy).1));
        }
    }
    for listener in [haproxy::WRITE, haproxy::READ] {
        let is = now.leads_to(listener);
        // The very first picture has something to say of everything.
        if *before == Picture::default() || before.leads_to(listener) != is {
            lines.push(format!("{listener} port: {is}"));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(role: &str, state: &str, timeline: u64, position: u64) -> Option<Member> {
        Some(Member {
            role: role.into(),
            state: state.into(),
            timeline: Some(timeline),
            position: Some(position),
        })
    }

    fn healthy() -> Picture {
        let backends = [
            ("write".to_owned(), vec!["node1".to_owned()]),
            ("read".to_owned(), vec!["node2".to_owned()]),
        ];
        Picture {
            members: BTreeMap::from([
                ("node1".into(), member("leader", "running", 1, 900)),
                ("node2".into(), member("replica", "streaming", 1, 850)),
            ]),
            etcd: BTreeMap::from([("node4".into(), Some(true))]),
            backends: Some(BTreeMap::from(backends)),
        }
    }

    #[test]
    fn only_what_changed_is_told() {
        let first = changes(&Picture::default(), &healthy());
        assert_eq!(
            first,
            [
                "node1: leader, running, timeline 1",
                "node2: replica, streaming, timeline 1",
                "etcd on node4: healthy",
                "write port: node1",
                "read port: node2",
            ]
        );
        let mut now = healthy();
        now.members
            .insert("node2".into(), member("replica", "streaming", 1, 900));
        assert_eq!(changes(&healthy(), &now), [""; 0]);
        now.members.insert("node1".into(), None);
        now.etcd.insert("node4".into(), Some(false));
        now.backends = None;
        assert_eq!(
            changes(&healthy(), &now),
            [
                "node1: no answer",
                "etcd on node4: without a leader",
                "write port: no answer",
                "read port: no answer",
            ]
        );
    }

    #[test]
    fn lag_is_what_the_leader_has_more() {
        let picture = healthy();
        let lags: Vec<Option<u64>> = picture
            .members
            .values()
            .flatten()
            .map(|member| picture.lag(member))
            .collect();
        assert_eq!(lags, [None, Some(50)]);
    }
}
