//! States that stop a run before it changes anything.
//!
//! Each error has the facts. Nothing is ever deleted to make way for a plan.

use std::collections::BTreeSet;

use super::{Found, belongings, bootstrap_recovery, foreign, lost};
use crate::{
    cluster::{Cluster, Node, SUPERUSER},
    configs::Mark,
    contract::MARKER,
    error::{Code, Error, Result},
    facts::Facts,
    inventory::Role,
    quantity::count,
    render::{File, Files},
    services::etcd,
};

/// Refuses states that no plan can handle safely. Reports all findings together, with those that were found
/// before.
pub(super) fn check(
    cluster: &Cluster,
    files: &Files,
    found: &Found,
    mut findings: Vec<Error>,
) -> Result<()> {
    for node in cluster.nodes.values() {
        if let Some(facts) = found.facts.get(&node.name) {
            let files = files.get(&node.name).map_or(&[][..], Vec::as_slice);
            findings.extend(
                host(cluster, node, facts, files)
                    .into_iter()
                    .map(|error| error.on(&node.name)),
            );
        }
    }
    findings.extend(superuser(cluster, found));
    findings.extend(damaged(cluster, found));
    findings.extend(versions(cluster));
    if !found.restores {
        findings.extend(lost::refused(cluster, found).or_else(|| dcs(cluster, found)));
    }
    match findings.len() {
        0 => Ok(()),
        1 => Err(findings.remove(0)),
        _ => Err(Error::several(
            "pgherd cannot take over the hosts as they are",
            findings,
        )),
    }
}

fn host(cluster: &Cluster, node: &Node, facts: &Facts, files: &[File]) -> Vec<Error> {
    let mut findings = Vec::new();
    let secrets = &cluster.secrets;
    if !facts.systemd {
        findings.push(
            Error::new(Code::SystemUnsupported, "this host does not run systemd")
                .hint("pgherd needs a host with systemd, such as Ubuntu 24.04 or Debian 12 or 13"),
        );
    }
    if !matches!(facts.os.id.as_str(), "debian" | "ubuntu") {
        let pretty = &facts.os.pretty;
        findings.push(
            Error::new(
                Code::SystemUnsupported,
                format!("unsupported distribution: {pretty}"),
            )
            .hint("Debian 12 and 13 and Ubuntu 24.04 are"),
        );
    }
    let ours = belongings::is_ours(cluster, facts);
    match facts.files.get(MARKER) {
        Some(marker)
            if !ours && Mark::parse(&marker.content).is_some_and(|mark| mark.is_pgherds()) =>
        {
            findings.push(
                Error::new(Code::HostOfAnotherCluster, "this host belongs to another cluster")
                    .excerpt(MARKER, marker.content.as_str())
                    .cause(format!("this inventory's cluster has the id {}", secrets.cluster_id))
                    .hint("if it is the same cluster, its .pgherd folder is in another place: copy it beside this inventory")
                    .hint("if that cluster is gone, run `pgherd -i FILE down` with its inventory, or use another host"),
            );
            // All other findings would only repeat this one.
            return findings;
        }
        _ => {}
    }
    let mut seen = BTreeSet::new();
    let mut named = Vec::new();
    for listener in &facts.listeners {
        // A process that listens on several addresses is one finding.
        if !seen.insert((listener.port, listener.pid)) {
            continue;
        }
        let expected = node
            .roles
            .iter()
            .any(|role| listener.unit == format!("{}.service", role.unit()));
        if !(ours && (expected || listener.unit.is_empty())) {
            named.push(listener.unit.as_str());
            findings.push(
                Error::new(
                    Code::PortInUse,
                    format!("port {} is taken by {}", listener.port, listener.who()),
                )
                .hint("stop it and keep it from starting, or choose another port in the inventory"),
            );
        }
    }
    if node.roles.iter().any(|role| role.keeps_database()) {
        findings.extend(data(cluster, node, facts));
    }
    findings.extend(foreign::findings(cluster, node, facts, files, &named));
    findings
}

/// The superuser is not as it must be. Neither pgherd nor Patroni can repair that, because both log in as
/// `postgres`.
fn superuser(cluster: &Cluster, found: &Found) -> Option<Error> {
    let lost = |node: &Node| {
        let facts = found.facts.get(&node.name)?;
        let role = facts.db_roles.get(SUPERUSER);
        let superuser = role.is_none_or(|role| role.superuser);
        let lost = facts.superuser_lost.as_deref();
        lost.or((!superuser).then_some("no-superuser"))
    };
    let (node, how) = cluster
        .with_role(Role::Postgres)
        .find_map(|node| Some((node, lost(node)?)))?;
    let what = match how {
        "no-login" => "may not log in",
        "gone" => "is not there",
        _ => "is no longer a superuser",
    };
    let leader = found.dcs.as_ref().and_then(|keys| keys.leader.as_deref());
    let leader = leader.unwrap_or("the leader");
    let version = node
        .postgresql
        .map_or("*".to_owned(), |major| major.to_string());
    let dir = &cluster.inventory.postgresql.data_dir;
    Some(
        Error::new(Code::SuperuserBroken, format!("the role {SUPERUSER} {what}"))
            .on(&node.name)
            .cause("pgherd and Patroni work as this role, so neither can restore its rights")
            .left("nothing was changed")
            .hint(format!(
                "stop PostgreSQL cleanly, the replicas first and {leader} last: sudo systemctl stop patroni"
            ))
            .hint(format!(
                "on {leader}, in single-user mode: echo 'alter role {SUPERUSER} superuser login' | \
                 sudo -u postgres /usr/lib/postgresql/{version}/bin/postgres --single -D {dir} postgres"
            ))
            .hint("then run `pgherd up`, which starts all of them"),
    )
}

/// The data directory may be empty, or hold what this cluster put there.
fn data(cluster: &Cluster, node: &Node, facts: &Facts) -> Option<Error> {
    let data = facts.data.as_ref()?;
    let dir = &cluster.inventory.postgresql.data_dir;
    if data.entries == 0 {
        return None;
    }
    let whose = match &data.version {
        Some(version) => format!(
            "{dir} holds a PostgreSQL {version} database (system {})",
            data.system_id.as_deref().unwrap_or("unknown")
        ),
        None => format!("{dir} is not empty ({})", count(data.entries, "entry")),
    };
    if facts.data_marker.as_deref() != Some(cluster.secrets.cluster_id.as_str()) {
        return Some(
            Error::new(Code::ForeignData, whose)
                .cause("pgherd did not make it for this cluster")
                .left("it was not touched")
                .hint(
                    "save it elsewhere and empty the folder, or set postgresql.data_dir to another",
                ),
        );
    }
    match (data.version, node.postgresql) {
        (Some(has), Some(wants)) if has != wants => Some(
            Error::new(Code::InventoryContradictsHosts, whose)
                .cause(format!("the inventory asks for PostgreSQL {wants}"))
                .left("it was not touched")
                .hint(match has < wants {
                    true => {
                        let verb = format!("upgrade --to {wants}");
                        let upgrade = cluster.inventory.command(&verb);
                        format!(
                            "set postgresql.version to {has}; or upgrade the cluster: {upgrade}"
                        )
                    }
                    false => format!(
                        "set postgresql.version to {has}: there is no way to an older version"
                    ),
                }),
        ),
        _ => None,
    }
}

/// A database of this cluster that is incomplete, although not from an interrupted bootstrap, while there is no
/// leader to copy from. Patroni could not use it, and it may be all that is left.
fn damaged(cluster: &Cluster, found: &Found) -> Vec<Error> {
    if found.dcs.as_ref().is_some_and(|keys| keys.leader.is_some()) {
        return Vec::new();
    }
    let dir = &cluster.inventory.postgresql.data_dir;
    let is_damaged = |node: &&Node| {
        let facts = found.facts.get(&node.name);
        facts.is_some_and(|facts| {
            let own = facts.data_marker.as_ref() == Some(&cluster.secrets.cluster_id);
            let data = facts.data.as_ref();
            own && !facts.data_at_work && data.is_some_and(|it| it.has_run && it.is_half_made())
        })
    };
    let nodes = cluster.with_role(Role::Postgres).filter(is_damaged);
    nodes
        .map(|node| {
            Error::new(Code::DataDamaged, format!("the database in {dir} is damaged"))
                .on(&node.name)
                .cause("a server has run on it, and global/pg_control or databases are missing")
                .left("it was not touched")
                .hint("restore what is missing; somebody may have moved it within the folder (global/pg_control.old)")
                .hint(format!("or, if another member has the data: move {dir} away, and run `pgherd up` again"))
        })
        .collect()
}

fn versions(cluster: &Cluster) -> Option<Error> {
    let versions: Vec<(&Node, u16)> = cluster
        .with_role(Role::Postgres)
        .filter_map(|node| Some((node, node.postgresql?)))
        .collect();
    let (_, first) = versions.first()?;
    if versions.iter().all(|(_, version)| version == first) {
        return None;
    }
    let list: Vec<String> = versions
        .iter()
        .map(|(node, version)| format!("{}: {version}", node.name))
        .collect();
    Some(
        Error::new(
            Code::InventoryContradictsHosts,
            "the hosts' distributions have different major versions of PostgreSQL",
        )
        .cause(list.join(", "))
        .hint("name one with postgresql.version, or use hosts of one distribution"),
    )
}

/// A database on a host, by its identifier, with facts that show people which of two is the right one.
struct System<'a> {
    host: &'a Node,
    id: String,
    checkpoint: Option<&'a str>,
}

/// The databases that may hold something. Those on which no server ever came up are left out.
fn systems<'a>(cluster: &'a Cluster, found: &'a Found) -> (Vec<System<'a>>, bool) {
    let mut systems = Vec::new();
    let mut unread = false;
    let keys = found.dcs.clone().unwrap_or_default();
    for node in cluster.with_role(Role::Postgres) {
        let Some(facts) = found.facts.get(&node.name) else {
            unread = true;
            continue;
        };
        let Some(data) = &facts.data else {
            continue;
        };
        match &data.system_id {
            Some(_) if bootstrap_recovery::is_nobodys(data, &keys) => {}
            Some(id) => systems.push(System {
                host: node,
                id: id.clone(),
                checkpoint: data.checkpoint.as_deref(),
            }),
            // Without its package, nothing can read a database's identifier.
            None => unread |= data.control,
        }
    }
    (systems, unread)
}

/// What the DCS remembers must match what the hosts have.
fn dcs(cluster: &Cluster, found: &Found) -> Option<Error> {
    let (systems, unread) = systems(cluster, found);
    let keys = found.dcs.as_ref();
    // Without a configuration beside it, the identifier is from a bootstrap that never finished.
    let known = keys
        .filter(|keys| keys.config.is_some())
        .and_then(|keys| keys.initialize.as_deref())
        .filter(|id| !id.is_empty());
    let Some(known) = known else {
        return apart(&systems);
    };
    let scope = cluster.name();
    if systems.is_empty() && unread {
        return None;
    }
    if systems.is_empty() {
        return Some(
            Error::new(Code::DataDiffers, format!(
                "etcd remembers a cluster that no host has (system {known})"
            ))
            .cause(format!("the key /db/{scope}/initialize is from an earlier cluster; while it exists, no member bootstraps"))
            .left("nothing was changed")
            .hint(match lost::unasked(cluster, found) {
                Some(host) => format!("its repository may have the data: bring {host} back first"),
                None => "if its data is lost for good, forget it: etcdctl del --prefix ".to_owned() + &etcd::prefix(scope),
            }),
        );
    }
    let others: Vec<String> = systems
        .iter()
        .filter(|system| system.id != known)
        .map(|system| format!("{} has system {}", system.host.name, system.id))
        .collect();
    if others.is_empty() {
        return None;
    }
    Some(
        Error::new(Code::DataDiffers, format!(
            "not all data directories belong to the cluster that etcd knows (system {known})"
        ))
        .cause(others.join(", "))
        .left("nothing was changed")
        .hint("find out which database is the right one; move the other data directory away, and run `pgherd up` again"),
    )
}

/// Members have different databases, and etcd does not know which one is the cluster's. The first to start
/// would lead, and the others could never follow it.
fn apart(systems: &[System<'_>]) -> Option<Error> {
    let first = systems.first()?;
    if systems.iter().all(|system| system.id == first.id) {
        return None;
    }
    let mut error = Error::new(Code::DataDiffers, "the members have different databases")
        .cause("etcd does not say which of them is the cluster's")
        .left("nothing was changed")
        .hint("find out which database is the right one; move the other data directory away, and run `pgherd up` again");
    for system in systems {
        let at = system
            .checkpoint
            .map_or(String::new(), |at| format!(", its last checkpoint at {at}"));
        error = error.cause(format!("{} has system {}{at}", system.host.name, system.id));
    }
    Some(error)
}
