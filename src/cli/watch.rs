//! `pgherd status --watch`.

use futures_util::future::pending;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Global, keys::Keys, status};
use crate::{
    engine::watch::{self, Member, PERIOD, Picture, READ, WRITE, Watcher},
    error::Result,
    report::{Canvas, Side, Table, Terminal, Tone},
};

pub(super) async fn run(
    global: &Global,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let (context, hosts) = status::hosts(global, terminal).await?;
    // Restores the terminal when it is dropped, however this ends.
    let mut keys = (!terminal.json).then(Keys::listen).flatten();
    let quits = keys.is_some();
    watch::watch(&context, &hosts, async |watcher| {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = Keys::quit(keys.as_mut()) => {}
            () = show(watcher, terminal, quits) => {}
        }
    })
    .await
}

/// Shows the topology until the user stops it: as one picture on a terminal, otherwise one line for each
/// change.
async fn show(watcher: &Watcher<'_>, terminal: &Terminal, quits: bool) {
    // Waits for the first answers, so that the first picture is not empty.
    sleep(PERIOD * 2).await;
    let name = watcher.cluster();
    let mut canvas = Canvas::new(terminal);
    let mut last = Picture::default();
    loop {
        let now = watcher.picture();
        if terminal.json {
            if now != last {
                terminal
                    .print_json(&serde_json::json!({"at": jiff::Timestamp::now(), "seen": now}));
            }
        } else if canvas.paints() {
            canvas.paint(|side| {
                let help = if quits { "q quits\n" } else { "" };
                tables(name, &now, side) + help
            });
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
    for (port, to) in [WRITE, READ].iter().flat_map(|it| picture.leads_to(it)) {
        let tone = match to.as_str() {
            "nobody" | "no answer" => Tone::Bad,
            _ => Tone::Plain,
        };
        rest.toned_row(tone, [port, to]);
    }
    let at_work = picture.at_work.as_ref();
    let at_work = at_work.map_or(String::new(), |work| format!("{work}\n"));
    members.render(side) + &rest.render(side) + &at_work
}

fn health(healthy: Option<bool>) -> (Tone, &'static str) {
    match healthy {
        Some(true) => (Tone::Plain, "healthy"),
        Some(false) => (Tone::Bad, "without a leader"),
        None => (Tone::Bad, "no answer"),
    }
}

/// One line for each difference. A change of a replica's lag alone is not one.
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
    for listener in [WRITE, READ] {
        let was = before.leads_to(listener);
        for (port, is) in now.leads_to(listener) {
            // The first picture names everything.
            if *before == Picture::default() || was.get(&port) != Some(&is) {
                lines.push(format!("{port}: {is}"));
            }
        }
    }
    match (&before.at_work, &now.at_work) {
        (was, Some(is)) if was.as_ref() != Some(is) => lines.push(is.to_string()),
        (Some(_), None) => lines.push("no run is at work on the cluster any more".into()),
        _ => {}
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn member(role: &str, state: &str, timeline: u64, position: u64) -> Member {
        Member {
            role: role.into(),
            state: state.into(),
            timeline: Some(timeline),
            position: Some(position),
        }
    }

    fn healthy() -> Picture {
        let backends = [
            ("write".to_owned(), vec!["node1".to_owned()]),
            ("read".to_owned(), vec!["node2".to_owned()]),
        ];
        Picture {
            members: BTreeMap::from([
                ("node1".into(), Some(member("leader", "running", 1, 900))),
                ("node2".into(), Some(member("replica", "streaming", 1, 850))),
            ]),
            etcd: BTreeMap::from([("node4".into(), Some(true))]),
            backends: Some(BTreeMap::from(backends)),
            front_doors: BTreeMap::new(),
            at_work: None,
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
            .insert("node2".into(), Some(member("replica", "streaming", 1, 900)));
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
    fn each_of_several_front_doors_is_told_by_its_name() {
        let mut before = healthy();
        before.front_doors = BTreeMap::from([
            ("door1".into(), before.backends.clone()),
            ("door2".into(), before.backends.clone()),
        ]);
        let mut now = before.clone();
        now.front_doors.insert("door1".into(), None);
        assert_eq!(
            changes(&before, &now),
            [
                "write port of door1: no answer",
                "read port of door1: no answer",
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
