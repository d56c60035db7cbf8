//! Finds what `render` would change, or writes the files locally, without a change to any host.

use std::{
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{context::Context, hosts::HostStatus, preview::Preview};
use crate::{
    cluster::{self, Address},
    error::{Code, Error, Result},
    event::Events,
    facts::Os,
    inventory::HostName,
    machine::{Machine, MachineState},
    render::{self, File, Visibility},
    workspace::{Renewal, Workspace},
};

/// The differences on the hosts that can be reached.
pub(crate) struct Comparison {
    pub preview: Preview,
    /// Why running hosts could not be observed.
    pub unreachable: Vec<Error>,
    /// Hosts that do not run.
    pub absent: Vec<HostName>,
}

impl Comparison {
    /// Hosts that could not be observed.
    pub(crate) fn not_compared(&self) -> Vec<String> {
        let unreachable = self.unreachable.iter().filter_map(Error::host);
        let all = unreachable.chain(&self.absent);
        all.map(HostName::to_string).collect()
    }
}

/// Compares the hosts that can be reached with the inventory.
pub(crate) async fn compare(context: &Context) -> Result<Comparison> {
    let hosts = context.host_status().await?;
    let running = hosts.some(context)?;
    let (events, _quiet) = Events::channel();
    let (plan, unreachable) = context
        .on_some(running, &hosts.stopped, &events, async |connected| {
            let observed = connected
                .look()
                .await?
                .not_mixed_up()?
                .of_known_addresses()?;
            Ok((observed.plan()?, observed.unreachable))
        })
        .await?;
    let absent = hosts.absent();
    let seen = HostStatus {
        stopped: Vec::new(),
        missing: Vec::new(),
        ..hosts
    };
    Ok(Comparison {
        preview: Preview {
            hosts: seen,
            ..Preview::of_plan(plan)
        },
        unreachable,
        absent,
    })
}

/// The files of all hosts, written to this machine.
pub(crate) struct Written {
    pub files: Vec<PathBuf>,
    /// In what respects the files may differ from those of a run.
    pub notes: Vec<String>,
    /// The number of hosts with files.
    pub hosts: usize,
}

/// Writes every file of every host below `dir`, and asks no host for anything.
pub(crate) async fn write_files(context: &Context, dir: &Path) -> Result<Written> {
    let mut notes = Vec::new();
    if Workspace::existing(&context.inventory)?.is_none() {
        notes.push(
            "this cluster does not exist yet: the passwords, keys and certificates here are examples, and `up` will make others"
                .to_owned(),
        );
    }
    let machines = match context.host_status().await {
        Ok(hosts) => [hosts.running, hosts.stopped].concat(),
        Err(error) => {
            notes.push(format!(
                "the hosts' present addresses cannot be found: {error}"
            ));
            remembered(context)?
        }
    };
    let os = Os::expected(&context.inventory);
    let cluster = context.cluster(&machines, context.workspace.tls()?, Renewal::Due, |_| {
        os.clone()
    })?;
    for node in cluster.nodes.values() {
        if let Address::Pending(host) = &node.address {
            notes.push(format!(
                "{host} has no address yet: its files say `{}`",
                node.address
            ));
        }
    }
    let mut written = Vec::new();
    for (host, files) in render::render(&cluster, &context.templates)? {
        for file in files {
            let path = dir
                .join(host.as_str())
                .join(file.path.trim_start_matches('/'));
            write(&path, &file)?;
            written.push(path);
        }
    }
    Ok(Written {
        files: written,
        notes,
        hosts: cluster.nodes.len(),
    })
}

/// The hosts' addresses, from the last run or from the inventory.
fn remembered(context: &Context) -> Result<Vec<Machine>> {
    let known = Workspace::existing(&context.inventory)?
        .map(|workspace| workspace.known_addresses())
        .transpose()?
        .unwrap_or_default();
    let hosts = context.inventory.hosts.iter();
    Ok(hosts
        .filter_map(|(name, host)| {
            let address = host.address.or(known.get(name).copied())?;
            Some(Machine {
                host: name.clone(),
                id: name.to_string(),
                state: MachineState::Running,
                address: Some(address),
                ssh_address: None,
                host_key: None,
                published_on: None,
                balancer: None,
                cluster_id: None,
                data_volume: context
                    .inventory
                    .data_volume(name)
                    .map(|_| cluster::pending_data_volume(name)),
            })
        })
        .collect())
}

/// Users who may not read the file on the host must not be able to read it here.
fn write(path: &Path, file: &File) -> Result<()> {
    let failed = |error: std::io::Error| {
        Error::new(
            Code::LocalFileFailed,
            format!("cannot write {}", path.display()),
        )
        .because(error)
    };
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(failed)?;
    }
    let mode = match file.visibility {
        Visibility::Public => file.mode,
        Visibility::Masked | Visibility::Hidden => 0o600,
    };
    // Opening an existing file does not change its mode.
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut opened| opened.write_all(file.content.as_bytes()))
        .map_err(failed)
}
