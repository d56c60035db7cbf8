//! The dashboards: that Grafana can read them, that they name only metrics that there are, and that they agree with the
//! alerts and the runbooks.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde_json::Value;

use super::*;

#[path = "../panels/mod.rs"]
mod panels;

use panels::{DASHBOARDS, asked, metrics};

/// What every part that asks Prometheus names as its data source.
const SOURCE: &str = "${datasource}";
/// The variables of each dashboard.
const VARIABLES: [&str; 4] = ["datasource", "cluster", "host", "runbooks"];
/// What else has a dollar: Grafana's own, and a part of a regular expression.
const OF_GRAFANA: [&str; 4] = ["__rate_interval", "__value", "__all", "1"];

fn dashboards() -> impl Iterator<Item = (&'static str, Value)> {
    DASHBOARDS
        .into_iter()
        .map(|(name, text)| (name, serde_json::from_str(text).unwrap()))
}

fn list<'a>(of: &'a Value, key: &str) -> &'a [Value] {
    of[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(of: &'a Value, key: &str) -> &'a str {
    of[key].as_str().unwrap_or_default()
}

/// The values of a key, wherever they are.
fn values<'a>(of: &'a Value, key: &str) -> Vec<&'a Value> {
    match of {
        Value::Object(map) => {
            let here = map.get(key).into_iter();
            here.chain(map.values().flat_map(|it| values(it, key)))
                .collect()
        }
        Value::Array(all) => all.iter().flat_map(|it| values(it, key)).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn every_dashboard_is_what_grafana_reads() {
    let dollar = Regex::new(r"\$\{?(\w+)").unwrap();
    let known = [&VARIABLES[..], &OF_GRAFANA[..]].concat();
    let mut uids = BTreeSet::new();
    for (name, text_of) in DASHBOARDS {
        let dashboard: Value = serde_json::from_str(text_of).unwrap();
        let pretty = serde_json::to_string_pretty(&dashboard).unwrap() + "\n";
        assert_eq!(text_of, pretty, "{name}: two spaces for each level");
        assert!(dashboard["id"].is_null(), "{name}: Grafana gives the id");
        assert!(uids.insert(text(&dashboard, "uid").to_owned()), "{name}");
        // 38 is that of Grafana 10.0; later ones bring it up to theirs.
        assert_eq!(dashboard["schemaVersion"], 38, "{name}");
        for source in values(&dashboard, "datasource") {
            assert_eq!(text(source, "uid"), SOURCE, "{name}: {source}");
            assert_eq!(text(source, "type"), "prometheus", "{name}: {source}");
        }
        let variables = list(&dashboard["templating"], "list");
        let names: Vec<&str> = variables.iter().map(|it| text(it, "name")).collect();
        assert_eq!(names, VARIABLES, "{name}");
        for used in dollar.captures_iter(text_of) {
            assert!(known.contains(&&used[1]), "{name}: {}", &used[0]);
        }
    }
}

#[test]
fn every_panel_has_what_grafana_and_a_reader_need() {
    let mut wrong = Vec::new();
    for (name, dashboard) in dashboards() {
        let panels = panels::panels(&dashboard);
        let mut ids = BTreeSet::new();
        assert!(panels.len() > 30, "{name}");
        for panel in &panels {
            let mut complain = |what: &str| {
                wrong.push(format!("{name}: {}: {what}", text(panel, "title")));
            };
            if !panel["id"].as_u64().is_some_and(|it| ids.insert(it)) {
                complain("an id of its own");
            }
            if text(panel, "title").is_empty() {
                complain("a title");
            }
            match text(panel, "type") {
                "row" => continue,
                "timeseries" | "stat" | "table" => {}
                other => complain(other),
            }
            let said = text(panel, "description");
            if !said.ends_with('.') || said.contains(". ") {
                complain("a description of one sentence");
            }
            if panel["datasource"].is_null() {
                complain("a data source");
            }
            let defaults = &panel["fieldConfig"]["defaults"];
            if text(panel, "type") != "table" && text(defaults, "unit").is_empty() {
                complain("a unit");
            }
            let targets = list(panel, "targets");
            let refs: BTreeSet<&str> = targets.iter().map(|it| text(it, "refId")).collect();
            if refs.is_empty() || refs.len() < targets.len() || refs.contains("") {
                complain("a refId of its own for each target");
            }
            if targets.iter().any(|it| text(it, "expr").is_empty()) {
                complain("an expr for each target");
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The columns and rows that a panel covers.
fn cells(panel: &Value) -> Vec<(u64, u64)> {
    let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
    let (x, y, w, h) = (at("x"), at("y"), at("w"), at("h"));
    assert!(w > 0 && h > 0 && x + w <= 24, "{panel}");
    (x..x + w)
        .flat_map(|x| (y..y + h).map(move |y| (x, y)))
        .collect()
}

#[test]
fn no_panel_covers_another() {
    for (name, dashboard) in dashboards() {
        let mut covered: BTreeMap<(u64, u64), &str> = BTreeMap::new();
        for panel in list(&dashboard, "panels") {
            for cell in cells(panel) {
                let other = covered.insert(cell, text(panel, "title"));
                assert_eq!(other, None, "{name}: {}: {cell:?}", text(panel, "title"));
            }
        }
    }
}

/// The names of tests/data/metrics.txt.
fn known() -> BTreeSet<String> {
    let text = read("tests/data/metrics.txt");
    let lines = text.lines().map(str::trim);
    lines
        .filter(|it| !it.is_empty() && !it.starts_with(['#', '[']))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_metric_is_one_that_there_is() {
    let known = known();
    assert!(known.len() > 500);
    let query = Regex::new(r"^label_values\((.+), \w+\)$").unwrap();
    let mut unknown = Vec::new();
    for (name, dashboard) in dashboards() {
        let mut exprs: Vec<(String, String)> = asked(&dashboard)
            .into_iter()
            .map(|it| (it.title, it.expr))
            .collect();
        assert!(exprs.len() > 40, "{name}");
        for note in list(&dashboard["annotations"], "list") {
            exprs.push((text(note, "name").into(), text(note, "expr").into()));
        }
        for variable in list(&dashboard["templating"], "list") {
            if text(variable, "type") == "query" {
                let asks = query.captures(text(variable, "definition")).unwrap();
                exprs.push((text(variable, "name").into(), asks[1].into()));
            }
        }
        for (title, expr) in exprs {
            let named = metrics(&expr);
            assert!(!named.is_empty(), "{name}: {title}: {expr}");
            let strange = named.into_iter().filter(|it| !known.contains(it));
            unknown.extend(strange.map(|it| format!("{name}: {title}: {it}")));
        }
    }
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}

/// The list knows no metric of pgherd that pgherd does not make.
#[test]
fn every_metric_of_pgherd_is_made() {
    let collect = read("templates/etc/pgherd/metrics/collect");
    let mut made: BTreeSet<String> = Regex::new(r"pgherd_\w+")
        .unwrap()
        .find_iter(&collect)
        .map(|it| it.as_str().to_owned())
        .collect();
    let queries = read("templates/etc/pgherd/metrics/queries.yaml");
    let row = Regex::new(r"(?m)^(pgherd_\w+):|^    - (\w+): \{ usage: GAUGE").unwrap();
    let mut query = String::new();
    for found in row.captures_iter(&queries) {
        match found.get(1) {
            Some(name) => name.as_str().clone_into(&mut query),
            None => {
                made.insert(format!("{query}_{}", &found[2]));
            }
        }
    }
    let listed = known().into_iter().filter(|it| it.starts_with("pgherd_"));
    let strange: Vec<String> = listed.filter(|it| !made.contains(it)).collect();
    assert!(strange.is_empty(), "{strange:?}");
}

/// Each alert with its text.
fn alerts() -> BTreeMap<String, String> {
    let text = read("alerts/pgherd.yml");
    let alerts = text.split("- alert: ").skip(1);
    alerts
        .map(|it| {
            let (name, rest) = it.split_once('\n').unwrap();
            (name.to_owned(), rest.to_owned())
        })
        .collect()
}

/// The alerts whose sections of the runbooks a panel leads to.
fn leads_to(panel: &Value) -> Vec<String> {
    let link = |link: &Value| {
        let name = text(link, "title").strip_prefix("What to do: ").unwrap();
        let to = format!("${{runbooks:raw}}#{}", name.to_lowercase());
        assert_eq!(text(link, "url"), to, "{}", text(panel, "title"));
        name.to_owned()
    };
    list(panel, "links").iter().map(link).collect()
}

#[test]
fn every_alert_has_a_panel_that_leads_to_its_runbook() {
    let runbooks = read("docs/runbooks.md");
    let mut led = BTreeSet::new();
    for (name, dashboard) in dashboards() {
        for panel in panels::panels(&dashboard) {
            for alert in leads_to(panel) {
                assert!(
                    runbooks.contains(&format!("\n## {alert}\n")),
                    "{name}: {alert}"
                );
                led.insert(alert);
            }
        }
    }
    let all: BTreeSet<String> = alerts().into_keys().collect();
    assert_eq!(led, all, "left: what panels lead to");
}

/// Where a panel changes its colour, an alert that it leads to begins. Zero and one are what is counted: none, and any.
#[test]
fn every_threshold_is_that_of_an_alert() {
    let alerts = alerts();
    let number = Regex::new(r"[0-9]+(?:\.[0-9]+)?").unwrap();
    let mut compared = 0;
    for (name, dashboard) in dashboards() {
        for panel in panels::panels(&dashboard) {
            let of = leads_to(panel);
            let of: Vec<&str> = of.iter().map(|it| alerts[it].as_str()).collect();
            let of = of.join("\n");
            let numbers: Vec<f64> = number
                .find_iter(&of)
                .map(|it| it.as_str().parse().unwrap())
                .collect();
            let steps = values(panel, "steps");
            let steps = steps.into_iter().filter_map(Value::as_array).flatten();
            for step in steps.filter_map(|it| it["value"].as_f64()) {
                let counted = [0.0, 1.0, 2.0].contains(&step);
                if of.is_empty() || counted {
                    continue;
                }
                let title = text(panel, "title");
                assert!(numbers.contains(&step), "{name}: {title}: {step}");
                compared += 1;
            }
        }
    }
    assert!(compared > 15, "{compared}");
}

/// The tests above can fail.
#[test]
fn an_expression_names_its_metrics_and_nothing_else() {
    let named = |expr: &str| metrics(expr).into_iter().collect::<Vec<_>>().join(" ");
    let expr = r#"sum by (host, le) (rate(a_bucket{x=~"}|b(", y="c"}[5m])) / on (host) group_left d_total > 1.5e3"#;
    assert_eq!(named(expr), "a_bucket d_total");
    let expr = r#"time() - max(timestamp(e == 0)[7d:1m]) or label_replace(f, "g", "$1", "h", "(.+)") offset 5m"#;
    assert_eq!(named(expr), "e f");
    assert_eq!(named("vector(0)"), "");
}
