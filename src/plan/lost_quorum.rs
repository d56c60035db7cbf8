//! Changes that several etcd members cannot survive together.
//!
//! Members find each other under URLs that etcd remembers, and it takes a majority to change one. A
//! change of the URLs of most members at once would leave none that could be asked.

use super::Found;
use crate::{
    cluster::{Cluster, ETCD_PEER_PORT, Node},
    error::Error,
    facts::Facts,
    inventory::Role,
};

const ENVIRONMENT: &str = "/etc/default/etcd";

/// The refusal, if what is wanted would cost etcd its quorum.
pub(super) fn check(cluster: &Cluster, found: &Found) -> Option<Error> {
    let members: Vec<&Node> = cluster.with_role(Role::Etcd).collect();
    if members.len() < 2 {
        return None;
    }
    let told: Vec<(&Node, &str)> = members
        .iter()
        .filter_map(|node| Some((*node, advertised(found.facts.get(&node.name)?)?)))
        .collect();
    let scheme = if cluster.ca.is_some() {
        "https://"
    } else {
        "http://"
    };
    if told.iter().any(|(_, url)| !url.starts_with(scheme)) {
        let (now, then) = match cluster.ca {
            Some(_) => ("off", "on"),
            None => ("on", "off"),
        };
        return Some(
            Error::input(format!("tls is {now} in this cluster and cannot be turned {then}"))
                .cause("etcd's members would no longer find each other, one after the other, and there are several")
                .left("nothing was changed")
                .hint("keep tls.enabled as it was"),
        );
    }
    let moved: Vec<&str> = told
        .iter()
        .filter(|(node, url)| *url != format!("{scheme}{}:{ETCD_PEER_PORT}", node.address))
        .map(|(node, _)| node.name.as_str())
        .collect();
    if moved.len() <= members.len() / 2 {
        return None;
    }
    Some(
        Error::failed(format!(
            "most of etcd's hosts have other addresses than their peers know: {}",
            moved.join(", ")
        ))
        .cause("it takes a majority of etcd's members to tell them where another one is")
        .left("nothing was changed")
        .hint("give all but one of them their old addresses back and run this again, then move the next"),
    )
}

/// The URL under which the member on a host that has etcd's data was to be found by its peers.
fn advertised(facts: &Facts) -> Option<&str> {
    if !facts.etcd_data {
        return None;
    }
    let environment = facts.files.get(ENVIRONMENT)?;
    environment
        .content
        .lines()
        .find_map(|line| line.strip_prefix("ETCD_INITIAL_ADVERTISE_PEER_URLS="))
        .map(|url| url.trim_matches('"'))
}
