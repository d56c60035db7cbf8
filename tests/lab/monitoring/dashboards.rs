//! What the dashboards ask, asked of the Prometheus of a cluster.

use std::{
    collections::BTreeSet,
    fs, thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::prometheus;
use crate::support::{Lab, docker};

#[path = "../../panels/mod.rs"]
mod panels;

use panels::{Asked, DASHBOARDS, asked, metrics};

/// Metrics that this cluster does not have, or not yet.
const ABSENT: [(&str, &str); 4] = [
    ("ALERTS", "once an alert has been about to fire"),
    (
        "pgherd_package_behind",
        "once apt knows a newer version of a package",
    ),
    ("pgherd_pooler_waiting", "with the role pgbouncer"),
    (
        "pgherd_pooler_longest_wait_seconds",
        "with the role pgbouncer",
    ),
];

/// Panels that show nothing in a new cluster in which nothing is wrong.
const QUIET: [(&str, &str); 8] = [
    ("Alerts", "no alert fires"),
    ("Units", "no unit is stopped"),
    ("A disk is full in", "no disk fills up"),
    ("Last backup", "none was made yet"),
    ("Last proof", "no rehearsal has ended"),
    ("Proof due in", "no rehearsal has ended"),
    ("Poolers: clients that wait", "there is no pooler"),
    ("This member behind the leader", "it may be the leader"),
];

/// Asks Prometheus each line's query, on its own host.
const ASK: &str = r#"import json, ssl, urllib.error, urllib.parse, urllib.request
tls = ssl.create_default_context(cafile="/etc/pgherd/tls/monitoring/ca.crt")
answers = []
for query in json.load(open("/tmp/dashboards/queries.json")):
    url = "https://localhost:9090/api/v1/query?" + urllib.parse.urlencode({"query": query})
    try:
        answer = json.load(urllib.request.urlopen(url, timeout=20, context=tls))
        answers.append(len(answer["data"]["result"]))
    except urllib.error.HTTPError as error:
        answers.append(error.read().decode())
print(json.dumps(answers))
"#;

/// Every expression is answered, every metric that it names is there, and every panel shows something.
pub(super) fn every_panel_is_answered(lab: &Lab) {
    let all: Vec<Asked> = DASHBOARDS
        .iter()
        .flat_map(|(name, text)| filled(lab, name, text))
        .collect();
    let wanted: BTreeSet<String> = all.iter().flat_map(|it| metrics(&it.expr)).collect();
    assert!(wanted.len() > 80, "{wanted:?}");
    let queries: Vec<&str> = all.iter().map(|it| it.expr.as_str()).collect();
    copy(
        lab,
        "queries.json",
        &serde_json::to_string(&queries).unwrap(),
    );
    copy(lab, "ask.py", ASK);
    let begin = Instant::now();
    loop {
        let (absent, empty) = (absent(lab, &wanted), empty(lab, &all));
        if absent.is_empty() && empty.is_empty() {
            break;
        }
        // A rate needs a few minutes of metrics.
        assert!(
            begin.elapsed() < Duration::from_secs(300),
            "no metric {absent:?}; nothing to show in {empty:?}"
        );
        thread::sleep(Duration::from_secs(10));
    }
    println!("answered: {} expressions of dashboards", all.len());
}

/// The expressions as Grafana sends them, for the host that has most to show.
fn filled(lab: &Lab, name: &str, text: &str) -> Vec<Asked> {
    let host = match name {
        "host.json" => "db1",
        _ => ".*",
    };
    let dashboard: Value = serde_json::from_str(text).unwrap();
    let mut all = asked(&dashboard);
    for it in &mut all {
        it.expr = it
            .expr
            .replace("$cluster", &lab.name)
            .replace("$host", host)
            .replace("$__rate_interval", "1m");
    }
    all
}

fn copy(lab: &Lab, name: &str, text: &str) {
    let path = lab.file(name);
    fs::write(&path, text).unwrap();
    lab.on("watch", "mkdir -p /tmp/dashboards");
    let to = format!("{}:/tmp/dashboards/{name}", lab.container("watch"));
    docker(&["cp", path.to_str().unwrap(), &to]);
}

/// The metrics that should be there and are not.
fn absent(lab: &Lab, wanted: &BTreeSet<String>) -> Vec<String> {
    let there = prometheus(lab, "label/__name__/values");
    let there: BTreeSet<&str> = there
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let gone = wanted.iter().filter(|it| !there.contains(it.as_str()));
    gone.filter(|it| !ABSENT.iter().any(|(name, _)| name == it))
        .cloned()
        .collect()
}

/// The panels that show nothing and should; an expression that Prometheus refuses ends the test.
fn empty(lab: &Lab, all: &[Asked]) -> BTreeSet<String> {
    let said = lab.on("watch", "python3 /tmp/dashboards/ask.py");
    let answers: Vec<Value> = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
    assert_eq!(answers.len(), all.len());
    let mut shown = BTreeSet::new();
    let mut titles = BTreeSet::new();
    for (it, answer) in all.iter().zip(&answers) {
        let series = answer.as_u64();
        let series = series.unwrap_or_else(|| panic!("{}: {}: {answer}", it.title, it.expr));
        titles.insert(it.title.clone());
        if series > 0 || QUIET.iter().any(|(title, _)| *title == it.title) {
            shown.insert(it.title.clone());
        }
    }
    titles.difference(&shown).cloned().collect()
}
