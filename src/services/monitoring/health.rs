//! Whether Prometheus reads every target, has every alert, and knows whom to tell.

use async_trait::async_trait;
use futures_util::future::join_all;
use serde_json::{Map, json};

use super::{
    RULES,
    client::{Rule, Target, managers, ready, rules, targets},
};
use crate::{
    error::Result,
    inventory::{HostName, Role},
    quantity::count,
    services::health::{Check, Health, Look, Seen, Shown, Ways, silent, units},
};

pub(crate) const HEALTH: &dyn Health = &Watch;

const NAME: &str = "monitoring";

struct Watch;

#[async_trait]
impl Health for Watch {
    fn role(&self) -> Role {
        Role::Monitoring
    }

    async fn ready(&self, host: &HostName, ways: &Ways<'_>) -> Seen {
        match ready(ways.http, host).await {
            Ok(None) => Seen::Met,
            Ok(Some(said)) => Seen::Not(format!("Prometheus says: {said}")),
            Err(error) => Seen::Not(silent("Prometheus", &error)),
        }
    }

    async fn shown(&self, look: &Look<'_>) -> Shown {
        let mut shown = Shown {
            units: units(self.role(), look),
            ..Shown::default()
        };
        let mut documents = Vec::new();
        let active = shown.units.iter_mut().filter(|row| row.active);
        let (rows, hosts): (Vec<_>, Vec<HostName>) = active
            .map(|row| {
                let host = HostName::new(&row.host);
                (row, host)
            })
            .unzip();
        let asked = hosts.iter().map(|host| rules(look.ways.http, host));
        let said = join_all(asked).await;
        for ((row, host), rules) in rows.into_iter().zip(&hosts).zip(said) {
            match rules {
                Ok(rules) => {
                    let firing = firing(&rules);
                    row.state.push_str(&match firing.len() {
                        0 => ", no alert fires".to_owned(),
                        some => format!(", {}: {}", count(some, "alert"), firing.join(", ")),
                    });
                    documents.push(json!({"host": host, "firing": firing}));
                }
                Err(error) => {
                    row.state.push_str(", does not answer");
                    documents.push(json!({"host": host, "error": error.to_string()}));
                }
            }
        }
        shown.document = Map::from_iter([(NAME.to_owned(), documents.into())]);
        shown
    }

    async fn checks(&self, look: &Look<'_>) -> Vec<Check> {
        let cluster = look.ways.cluster;
        let wanted = cluster.targets();
        let hosts: Vec<&HostName> = cluster
            .with_role(self.role())
            .map(|node| &node.name)
            .collect();
        let asked = hosts.iter().map(|host| wrong(look, host, wanted.len()));
        let wrong = join_all(asked).await.concat();
        let right = format!(
            "Prometheus reads all {}, and {} are loaded",
            count(wanted.len(), "target"),
            count(names().count(), "alert")
        );
        vec![Check::of(NAME, wrong, right)]
    }
}

fn firing(rules: &[Rule]) -> Vec<&str> {
    let firing = rules.iter().filter(|rule| rule.state == "firing");
    firing.map(|rule| rule.name.as_str()).collect()
}

/// The names of the alerts that are built in.
fn names() -> impl Iterator<Item = &'static str> {
    let lines = RULES.1.lines();
    lines.filter_map(|line| line.trim().strip_prefix("- alert: "))
}

async fn wrong(look: &Look<'_>, host: &HostName, wanted: usize) -> Vec<String> {
    let http = look.ways.http;
    let (targets, rules, managers) =
        tokio::join!(targets(http, host), rules(http, host), managers(http, host));
    let mut wrong = Vec::new();
    let mut told = |found: Result<Vec<String>>| match found {
        Ok(found) => wrong.extend(found.into_iter().map(|it| format!("{host}: {it}"))),
        Err(error) => wrong.push(error.to_string()),
    };
    told(targets.map(|it| unread(&it, wanted)));
    told(rules.map(|it| unloaded(&it)));
    told(managers.map(|it| match it {
        0 => vec!["Prometheus has no Alertmanager to send alerts to yet".to_owned()],
        _ => Vec::new(),
    }));
    wrong
}

fn unread(targets: &[Target], wanted: usize) -> Vec<String> {
    let mut wrong: Vec<String> = targets
        .iter()
        .filter(|it| it.health != "up")
        .map(|it| {
            let Target {
                labels,
                health,
                last_error,
            } = it;
            let why = match last_error.as_str() {
                "" => health.clone(),
                error => error.to_owned(),
            };
            format!(
                "the metrics `{}` of {} are not read: {why}",
                labels.job, labels.host
            )
        })
        .collect();
    if targets.len() != wanted {
        wrong.push(format!(
            "Prometheus has {}, and the inventory has {wanted}",
            count(targets.len(), "target")
        ));
    }
    wrong
}

fn unloaded(rules: &[Rule]) -> Vec<String> {
    let missing: Vec<&str> = names()
        .filter(|name| !rules.iter().any(|rule| rule.name == *name))
        .collect();
    let mut wrong = Vec::new();
    if !missing.is_empty() {
        wrong.push(format!("alerts are not loaded: {}", missing.join(", ")));
    }
    let failed = rules.iter().filter(|rule| rule.health == "err");
    wrong.extend(failed.map(|rule| format!("the alert {} cannot be evaluated", rule.name)));
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(host: &str, health: &str, error: &str) -> Target {
        serde_json::from_value(json!({
            "labels": {"host": host, "job": "node"}, "health": health, "lastError": error,
        }))
        .unwrap()
    }

    #[test]
    fn a_target_that_is_not_read_is_named_with_the_reason() {
        let all = [target("db1", "up", ""), target("db2", "down", "refused")];
        assert_eq!(
            unread(&all, 3),
            [
                "the metrics `node` of db2 are not read: refused",
                "Prometheus has 2 targets, and the inventory has 3",
            ]
        );
        assert!(unread(&all[..1], 1).is_empty());
    }

    #[test]
    fn an_alert_that_is_not_loaded_is_named() {
        let mut rules: Vec<Rule> = names()
            .map(|name| Rule {
                name: name.to_owned(),
                health: "ok".into(),
                state: "inactive".into(),
            })
            .collect();
        assert!(rules.len() > 10 && unloaded(&rules).is_empty());
        rules[0].state = "firing".into();
        assert_eq!(firing(&rules), [rules[0].name.as_str()]);
        let gone = rules.pop().unwrap().name;
        assert_eq!(unloaded(&rules), [format!("alerts are not loaded: {gone}")]);
    }

    #[test]
    fn each_alert_has_a_runbook_and_a_case_in_which_it_fires() {
        let runbooks = include_str!("../../../docs/runbooks.md");
        let cases = concat!(
            include_str!("../../../alerts/tests.yml"),
            include_str!("../../../alerts/tests-slow.yml")
        );
        for name in names() {
            assert!(runbooks.contains(&format!("\n## {name}\n")), "{name}");
            let link = format!("docs/runbooks.md#{}\n", name.to_lowercase());
            assert!(RULES.1.contains(&link), "{link}");
            let case = format!("alertname: {name}\n        exp_alerts:\n          - exp_labels:");
            assert!(cases.contains(&case), "{name}");
        }
        let sections = runbooks.matches("\n## ").count();
        assert_eq!(sections, names().count(), "a runbook is about no alert");
    }

    #[test]
    fn every_metric_of_pgherds_own_in_an_alert_is_written_by_a_template() {
        let queries = include_str!("../../../templates/etc/pgherd/metrics/queries.yaml");
        let mut written: Vec<String> = Vec::new();
        let mut query = "";
        for line in queries.lines() {
            if let Some(name) = line
                .strip_suffix(':')
                .filter(|it| !it.starts_with([' ', '#']))
            {
                query = name;
            } else if let Some((column, _)) = line
                .trim()
                .strip_prefix("- ")
                .and_then(|it| it.split_once(':'))
            {
                written.push(format!("{query}_{column}"));
            }
        }
        let collect = include_str!("../../../templates/etc/pgherd/metrics/collect");
        let gauges = collect
            .lines()
            .filter_map(|it| it.trim().strip_prefix("gauge "));
        written.extend(gauges.map(str::to_owned));
        let words = RULES
            .1
            .split(|it: char| !(it.is_ascii_alphanumeric() || it == '_'));
        let named: Vec<&str> = words.filter(|it| it.starts_with("pgherd_")).collect();
        assert!(named.len() > 20, "{named:?}");
        for name in named {
            assert!(written.iter().any(|it| it == name), "{name} in {written:?}");
        }
    }
}
