//! What all hosts together have of the workspace.

use std::collections::BTreeMap;

use super::told::{INTERIM_REPLICATION, INTERIM_REWIND, Told, Unfinished, certificates};
use crate::{
    cluster::{Certificate, Interim},
    configs::Mark,
    contract::MARKER,
    error::{Code, Error, Result},
    inventory::{HostName, Inventory},
    secret::Secret,
    workspace::{HostCertificates, Recovered, Usage},
};

/// A password, and the hosts that have it.
pub(super) struct Password {
    pub(super) value: Secret,
    pub(super) hosts: Vec<HostName>,
    /// Hosts that have another one.
    pub(super) others: Vec<HostName>,
}

/// What hosts have, and where it was found.
pub(super) struct Gathered {
    pub(super) id: String,
    pub(super) passwords: BTreeMap<&'static str, Password>,
    pub(super) certificates: Option<HostCertificates>,
    /// Hosts that keep the data of an earlier major version, and where.
    pub(super) kept: Vec<(HostName, String)>,
}

impl Gathered {
    /// # Errors
    /// The hosts are not of one cluster with the inventory's name, or a change has begun on them that only the lost
    /// workspace can complete.
    pub(super) fn of(inventory: &Inventory, all: &[(HostName, Told)]) -> Result<Self> {
        let id = cluster_id(inventory, all)?;
        let data_dir = &inventory.postgresql.data_dir;
        let mut kept = Vec::new();
        for (host, told) in all {
            match told.unfinished(data_dir) {
                None => {}
                Some(Unfinished::Kept(path)) => kept.push((host.clone(), path)),
                Some(Unfinished::Restore(mark)) => return Err(under_way(host, "restore", &mark)),
                Some(Unfinished::Upgrade(dir)) => return Err(under_way(host, "upgrade", &dir)),
            }
        }
        Ok(Self {
            id,
            passwords: passwords(all),
            certificates: found_certificates(inventory, all)?,
            kept,
        })
    }

    /// Everything that must be masked from now on.
    pub(super) fn secrets(&self) -> Vec<&Secret> {
        let keys = self.certificates.iter().flat_map(|it| &it.hosts);
        let keys = keys.map(|(_, certificate)| &certificate.key);
        let passwords = self.passwords.values().map(|it| &it.value);
        passwords.chain(keys).collect()
    }

    /// What the workspace gets.
    pub(super) fn recovered(&self) -> Recovered {
        let of = |name| self.passwords.get(name).map(|it| it.value.clone());
        let interim = of(INTERIM_REPLICATION).zip(of(INTERIM_REWIND));
        let own = self.passwords.iter();
        let own = own.filter(|(name, _)| ![INTERIM_REPLICATION, INTERIM_REWIND].contains(*name));
        Recovered {
            id: self.id.clone(),
            passwords: own
                .map(|(name, it)| ((*name).to_owned(), it.value.clone()))
                .collect(),
            interim: interim.map(|(replication, rewind)| Interim {
                used: true,
                replication,
                rewind,
            }),
            pki: self.certificates.clone(),
        }
    }
}

fn under_way(host: &HostName, what: &str, path: &str) -> Error {
    Error::new(
        Code::NotPossibleNow,
        format!("a change has begun that only the lost workspace can complete: {what}"),
    )
    .on(host)
    .cause(format!("{path} is there"))
    .left("nothing was changed")
    .hint("complete it by hand first, or undo it: docs/recovery.md")
}

/// The one cluster that all marked hosts belong to. Hosts without a mark are new, or were never finished.
fn cluster_id(inventory: &Inventory, all: &[(HostName, Told)]) -> Result<String> {
    let mut marks: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for (host, told) in all {
        if let Some(Mark { name, id }) = told.mark() {
            marks.entry((name, id)).or_default().push(host.as_str());
        }
    }
    let wanted = &inventory.cluster;
    let list = || -> String {
        let line = |((name, id), hosts): (&(&str, &str), &Vec<&str>)| {
            format!("cluster {name}, id {id}: {}\n", hosts.join(", "))
        };
        marks.iter().map(line).collect()
    };
    match marks.keys().collect::<Vec<_>>()[..] {
        [] => Err(Error::new(
            Code::ClusterNotFound,
            format!("the hosts have no cluster {wanted}"),
        )
        .cause(format!("none of them has {MARKER}"))
        .left("nothing was changed")
        .hint(format!("create it: {}", inventory.command("up")))),
        [(name, id)] if name == wanted => Ok((*id).to_owned()),
        [(name, _)] => Err(Error::new(
            Code::InventoryContradictsHosts,
            format!("the hosts know their cluster as {name}, and the inventory calls it {wanted}"),
        )
        .excerpt(MARKER, list())
        .left("nothing was changed")
        .hint(format!(
            "write that name into the inventory: cluster: {name}"
        ))),
        _ => Err(Error::new(
            Code::HostOfAnotherCluster,
            "the hosts belong to several clusters",
        )
        .excerpt(MARKER, list())
        .left("nothing was changed")
        .hint("correct the hosts or their addresses in the inventory")),
    }
}

/// Each password as most hosts have it. While passwords change, hosts can differ.
fn passwords(all: &[(HostName, Told)]) -> BTreeMap<&'static str, Password> {
    let mut found: BTreeMap<&'static str, Vec<(Secret, Vec<HostName>)>> = BTreeMap::new();
    for (host, told) in all {
        for (name, value) in told.passwords() {
            let values = found.entry(name).or_default();
            match values.iter_mut().find(|(known, _)| *known == value) {
                Some((_, hosts)) => hosts.push(host.clone()),
                None => values.push((value, vec![host.clone()])),
            }
        }
    }
    let most = |values: Vec<(Secret, Vec<HostName>)>| {
        let mut values = values.into_iter();
        let (mut value, mut hosts) = values.next()?;
        let mut others = Vec::new();
        for (other, at) in values {
            if at.len() > hosts.len() {
                others.append(&mut hosts);
                (value, hosts) = (other, at);
            } else {
                others.extend(at);
            }
        }
        Some(Password {
            value,
            hosts,
            others,
        })
    };
    let named = found.into_iter();
    let named = named.filter_map(|(name, values)| Some((name, most(values)?)));
    named.collect()
}

/// The certificates of all hosts that have one; `None` if no host has any.
fn found_certificates(
    inventory: &Inventory,
    all: &[(HostName, Told)],
) -> Result<Option<HostCertificates>> {
    let trusted = all.iter();
    let trusted = trusted.filter_map(|(host, told)| Some((host, told.trusted()?)));
    let Some((_, most)) = trusted.clone().max_by_key(|(_, it)| certificates(it).len()) else {
        return Ok(None);
    };
    // While an authority is replaced, some hosts trust both, and others still one.
    let known = certificates(most);
    let mut strange = trusted.filter(|(_, it)| !certificates(it).is_subset(&known));
    if let Some((host, _)) = strange.next() {
        return Err(Error::new(
            Code::CertificateUnusable,
            "the hosts do not trust the same certificate authority",
        )
        .on(host)
        .cause("it trusts an authority that other hosts do not trust")
        .left("nothing was changed")
        .hint("correct the hosts or their addresses in the inventory"));
    }
    let hosts: Vec<(HostName, Certificate)> = all
        .iter()
        .filter_map(|(host, told)| Some((host.clone(), told.certificate()?)))
        .collect();
    let is_client = |host: &HostName| {
        let declared = inventory.hosts.get(host);
        declared.is_some_and(|it| Usage::of(&it.roles) == Usage::ServerAndClient)
    };
    let operator = hosts.iter().find(|(host, _)| is_client(host));
    let Some((_, operator)) = operator.cloned() else {
        return Err(Error::new(
            Code::CertificateUnusable,
            "no host has a certificate with which etcd lets pgherd in",
        )
        .left("nothing was changed")
        .hint(
            "a host with PostgreSQL or etcd must be in the inventory, and have its certificate",
        ));
    };
    Ok(Some(HostCertificates {
        trusted: format!("{}\n", most.trim()),
        hosts,
        operator,
    }))
}

#[cfg(test)]
mod tests;
