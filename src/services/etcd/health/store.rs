//! Whether etcd is one healthy store of the inventory's members.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use crate::{
    error::{Error, Result},
    inventory::{HostName, Role},
    plan::store,
    services::{
        etcd::{Etcd, Health, View},
        health::{Check, Ways},
    },
};

/// The answer of one etcd host.
type Answer = (HostName, Result<Health>, Result<View>);

/// Asks every member, and compares the answers.
pub(super) async fn look(ways: &Ways<'_>) -> Check {
    let asked = ways.cluster.with_role(Role::Etcd).map(|node| async move {
        let etcd = Etcd::on(ways.http, &node.name);
        let (health, view) = tokio::join!(etcd.health(), etcd.view());
        (node.name.clone(), health, view)
    });
    judge(join_all(asked).await)
}

fn judge(answers: Vec<Answer>) -> Check {
    let declared: Vec<HostName> = answers.iter().map(|(host, ..)| host.clone()).collect();
    let declared: Vec<&HostName> = declared.iter().collect();
    let mut wrong = Vec::new();
    let mut stores: BTreeMap<HostName, View> = BTreeMap::new();
    for (host, health, view) in answers {
        match (health, view) {
            (Err(error), _) => wrong.push(error.to_string()),
            (Ok(health), _) if !health.healthy => {
                wrong.push(format!("{host} is not healthy{}", health.why()));
            }
            (Ok(_), Err(error)) => wrong.push(unlisted(&host, &error)),
            (Ok(_), Ok(view)) if view.cluster_id.is_empty() => {
                wrong.push(format!("{host} does not say which store it belongs to"));
            }
            (Ok(_), Ok(view)) => {
                stores.insert(host, view);
            }
        }
    }
    let differs = store::differences(&declared, &stores);
    wrong.extend(differs.into_iter().map(|finding| finding.what));
    let names: Vec<&str> = declared.iter().map(|host| host.as_str()).collect();
    Check::of(
        "etcd",
        wrong,
        format!(
            "healthy, one store, with the inventory's members ({})",
            names.join(", ")
        ),
    )
}

fn unlisted(host: &HostName, error: &Error) -> String {
    format!("{host} does not list its members: {}", error.told_of(host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::services::etcd::Member;

    fn view(store: &str, members: &[&str]) -> View {
        View {
            cluster_id: store.into(),
            member_id: String::new(),
            members: members
                .iter()
                .map(|name| Member {
                    id: format!("id of {name}"),
                    name: (*name).into(),
                    peer_urls: vec![format!("https://{name}:2380")],
                    client_urls: vec!["https://192.0.2.1:2379".into()],
                    is_learner: false,
                })
                .collect(),
        }
    }

    fn health(healthy: bool) -> Health {
        Health {
            healthy,
            ..Health::default()
        }
    }

    fn told(answers: &[(&str, View)]) -> Check {
        let answers = answers.iter().map(|(host, view)| {
            let view = Ok(view.clone());
            (HostName::new(*host), Ok(health(true)), view)
        });
        judge(answers.collect())
    }

    #[test]
    fn one_store_of_the_declared_members_holds() {
        let all = view("1", &["a", "b", "c"]);
        let check = told(&[("a", all.clone()), ("b", all.clone()), ("c", all)]);
        assert!(check.passed, "{}", check.detail);
    }

    /// Each of them is healthy, and the first one lists the declared members.
    #[test]
    fn two_stores_do_not_hold() {
        let new = view("2", &["a", "b", "c"]);
        let check = told(&[("b", new.clone()), ("c", new), ("a", view("1", &["a"]))]);
        assert!(!check.passed);
        insta::assert_snapshot!(check.detail, @"etcd's members do not belong to one store: a belongs to the store 1 with the members a; b belongs to the store 2 with the members a, b, c; c belongs to the store 2 with the members a, b, c");
    }

    #[test]
    fn members_that_do_not_list_each_other_do_not_hold() {
        let check = told(&[("a", view("1", &["a", "b"])), ("b", view("1", &["b"]))]);
        assert!(
            check.detail.contains("do not belong to one store"),
            "{}",
            check.detail
        );
    }

    #[test]
    fn a_member_that_is_not_declared_does_not_hold() {
        let check = told(&[("a", view("1", &["a", "b", "c"]))]);
        assert!(
            !check.passed && check.detail.starts_with("etcd's list has b, c (says a)"),
            "{}",
            check.detail
        );
    }

    /// Two members that name no store do not belong to the same one.
    #[test]
    fn members_that_do_not_say_of_which_store_they_are_do_not_hold() {
        let unsaid = view("", &["a", "b"]);
        let check = told(&[("a", unsaid.clone()), ("b", unsaid)]);
        assert!(
            !check.passed
                && check
                    .detail
                    .contains("b does not say which store it belongs to"),
            "{}",
            check.detail
        );
    }

    #[test]
    fn a_member_that_does_not_tell_its_list_does_not_hold() {
        let silent = (
            HostName::new("a"),
            Ok(health(true)),
            Err(Error::new(Code::ServiceUnreachable, "no answer")),
        );
        assert!(!judge(vec![silent]).passed);
        let sick = (HostName::new("a"), Ok(health(false)), Ok(view("1", &["a"])));
        assert!(!judge(vec![sick]).passed);
    }
}
