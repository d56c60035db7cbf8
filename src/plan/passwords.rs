//! Roles with passwords of the workspace, and whether the databases have the same passwords.

use super::Found;
use crate::{
    cluster::{
        Cluster, INTERIM_REPLICATION_USER, INTERIM_REWIND_USER, Node, POOLER_USER,
        REPLICATION_USER, REWIND_USER, SUPERUSER,
    },
    facts::{DbRole, Facts},
    scram,
    secret::Secret,
    services::When,
    sql::literal,
};

/// A role of the cluster itself.
pub(super) struct Own<'a> {
    pub(super) name: &'static str,
    pub(super) attributes: &'static str,
    pub(super) password: &'a Secret,
}

/// The cluster's own roles, which Patroni logs in with.
pub(super) fn own(cluster: &Cluster) -> Vec<Own<'_>> {
    let secrets = &cluster.secrets;
    let role = |name, attributes, password| Own {
        name,
        attributes,
        password,
    };
    let mut roles = vec![
        role(SUPERUSER, "superuser login", &secrets.superuser),
        role(REPLICATION_USER, "replication login", &secrets.replication),
        role(REWIND_USER, "login", &secrets.rewind),
    ];
    if let Some(interim) = &secrets.interim {
        roles.extend([
            role(
                INTERIM_REPLICATION_USER,
                "replication login",
                &interim.replication,
            ),
            role(INTERIM_REWIND_USER, "login", &interim.rewind),
        ]);
    }
    roles
}

/// The role that poolers log in with; `None` if there is no pooler.
pub(super) fn of_poolers(cluster: &Cluster) -> Option<Own<'_>> {
    let password = cluster.secrets.pooler.as_ref();
    let password = password.filter(|_| cluster.wants(When::Pooling))?;
    Some(Own {
        name: POOLER_USER,
        attributes: "login",
        password,
    })
}

/// Every role whose password is in the workspace.
pub(super) fn passwords(cluster: &Cluster) -> impl Iterator<Item = (&str, &Secret)> {
    let users = cluster.inventory.postgresql.users.keys();
    let of_users = users.filter_map(|name| {
        let password = cluster.secrets.users.get(name)?;
        Some((name.as_str(), password))
    });
    own(cluster)
        .into_iter()
        .chain(of_poolers(cluster))
        .map(|role| (role.name, role.password))
        .chain(of_users)
}

/// The facts of a host whose database shows the whole cluster's roles: the primary, if it is known.
pub(super) fn telling<'a>(
    databases: impl Iterator<Item = &'a Node>,
    found: &'a Found,
) -> Option<(&'a Node, &'a Facts)> {
    databases
        .filter_map(|node| Some((node, found.facts.get(&node.name)?)))
        .filter(|(_, facts)| facts.in_recovery.is_some())
        .min_by_key(|(_, facts)| facts.in_recovery)
}

/// Whether the observed role has this `password`.
pub(super) fn has_password(role: &DbRole, password: &Secret) -> bool {
    role.verifier
        .as_ref()
        .is_some_and(|verifier| scram::is_of(verifier.expose(), password))
}

/// A password's verifier as an SQL literal; always the same for the same cluster and role.
pub(super) fn verifier(cluster: &Cluster, role: &str, password: &Secret) -> String {
    let context = format!("{} {role}", cluster.secrets.cluster_id);
    literal(&scram::verifier(password, &context))
}
