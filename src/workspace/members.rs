//! The list of the cluster's hosts. With it, a host that leaves the inventory is still known.

use std::{net::Ipv4Addr, path::Path};

use serde::{Deserialize, Serialize};

use super::{MEMBERS, PKI, Workspace, files};
use crate::{
    cluster::KnownHost,
    error::{Code, Error, Result},
    inventory::{HostName, Role},
    tuning::Size,
};

#[derive(Serialize, Deserialize)]
struct List {
    hosts: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    name: String,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    address: Option<Ipv4Addr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<Size>,
    /// Whether a run with the host ended well.
    #[serde(default)]
    joined: bool,
}

impl Workspace {
    /// The cluster's hosts in earlier runs.
    ///
    /// A cluster of an earlier version has no list: only the names and addresses of its hosts are known, from
    /// `ssh_config`.
    pub fn members(&self) -> Result<Vec<KnownHost>> {
        if let Some(text) = files::read(&self.dir.join(MEMBERS))? {
            return read(&text, &self.dir.join(MEMBERS));
        }
        let known = self.known_addresses()?.into_iter();
        Ok(known
            .map(|(name, address)| KnownHost {
                name,
                roles: Vec::new(),
                address: Some(address),
                size: None,
                joined: false,
            })
            .collect())
    }

    /// Removes the certificate and the key of a host that is gone.
    pub fn forget_certificate(&self, host: &HostName) -> Result<()> {
        for kind in ["crt", "key"] {
            files::remove(&self.dir.join(PKI).join(format!("{host}.{kind}")))?;
        }
        Ok(())
    }

    /// Replaces the list, if it differs.
    pub fn note_members(&self, hosts: &[KnownHost]) -> Result<()> {
        let path = self.dir.join(MEMBERS);
        let list = List {
            hosts: hosts
                .iter()
                .map(|host| Entry {
                    name: host.name.to_string(),
                    roles: host.roles.iter().map(|role| role.as_str().into()).collect(),
                    address: host.address,
                    size: host.size,
                    joined: host.joined,
                })
                .collect(),
        };
        let text = serde_json::to_string_pretty(&list).map_err(|e| {
            Error::new(Code::LocalFileFailed, "cannot write the list of hosts").because(e)
        })?;
        let text = format!("{text}\n");
        if files::read(&path)?.as_deref() == Some(text.as_str()) {
            return Ok(());
        }
        files::write(&path, files::PRIVATE, text.as_bytes())
    }
}

fn read(text: &str, path: &Path) -> Result<Vec<KnownHost>> {
    let list: List = serde_json::from_str(text).map_err(|e| {
        Error::new(Code::WorkspaceDamaged, format!("{} is damaged", files::origin(path).display()))
            .because(e)
            .cause("it is the list of the hosts that belong to the cluster")
            .hint("restore it from a backup")
            .hint("or, if no host was taken out of the inventory meanwhile, remove it: the next `up` writes it again")
    })?;
    let role = |word: &String| Role::ALL.into_iter().find(|role| role.as_str() == word);
    Ok(list
        .hosts
        .into_iter()
        .map(|entry| KnownHost {
            roles: entry.roles.iter().filter_map(role).collect(),
            name: HostName::new(entry.name),
            address: entry.address,
            size: entry.size,
            joined: entry.joined,
        })
        .collect())
}
