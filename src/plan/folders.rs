//! Compares the folders that pgherd makes, and corrects them as it corrects files.
//!
//! A strict umask in an earlier run, or a `chmod`, can close a folder to the service that must read it. pgherd
//! changes only folders that it makes; it reports problems of others.

use super::{Change, belongings};
use crate::{
    cluster::Cluster,
    facts::{self, Facts, Folder},
    inventory::Role,
    remote::{Script, quote},
    render::File,
    services::Data,
};

/// What a folder lacks.
pub(super) struct Repairs {
    pub changes: Vec<Change>,
    commands: Vec<String>,
}

impl Repairs {
    fn none() -> Self {
        Self {
            changes: Vec::new(),
            commands: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    pub(super) fn add_to(&self, script: Script) -> Script {
        self.commands.iter().fold(script, Script::line)
    }

    /// Corrects owner and mode. All of `modes` are acceptable; the first one is set.
    fn own(&mut self, path: &str, found: Option<&Folder>, owner: &str, modes: &[u32]) {
        let Some(found) = found.filter(|found| found.is_folder) else {
            return;
        };
        let right = found.owner == owner && found.group == owner && modes.contains(&found.mode);
        let Some(mode) = modes.first().filter(|_| !right) else {
            return;
        };
        let path_word = quote(path);
        self.commands.push(format!(
            "chown {owner}:{owner} {path_word}\nchmod {mode:04o} {path_word}"
        ));
        self.changes.push(Change::Folder {
            path: path.to_owned(),
            what: format!(
                "the folder {path}: {}:{} {:04o} becomes {owner}:{owner} {mode:04o}",
                found.owner, found.group, found.mode
            ),
        });
    }
}

/// The folders around a host's files, and Patroni's own.
pub(super) fn around_files(facts: &Facts, files: &[File]) -> Repairs {
    let mut repairs = Repairs::none();
    let needs = &facts.needs;
    let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    for path in facts::own_folders(&paths) {
        repairs.own(path, needs.folders.get(path), "root", &[0o755]);
    }
    if let Some(closed) = &needs.venv_closed {
        repairs.commands.push(
            "chown -Rh root:root /opt/patroni\nchmod -R u+rwX,go+rX,go-w /opt/patroni".into(),
        );
        repairs.changes.push(Change::Folder {
            path: closed.clone(),
            what: format!(
                "/opt/patroni becomes root's, and readable by all users ({closed} is not)"
            ),
        });
    }
    repairs
}

/// A role's data directory that pgherd made, and the folders above it.
pub(super) fn of_data(cluster: &Cluster, role: Role, facts: &Facts) -> Repairs {
    let mut repairs = Repairs::none();
    let folders = &facts.needs.folders;
    match role.service().data {
        Data::Database if is_ours(cluster, facts) => {
            let dir = &cluster.inventory.postgresql.data_dir;
            // PostgreSQL starts only with one of these two modes.
            repairs.own(dir, folders.get(dir), "postgres", &[0o700, 0o750]);
            for parent in above(dir) {
                let Some(found) = folders.get(parent).filter(|it| blocks(it)) else {
                    continue;
                };
                repairs
                    .commands
                    .push(format!("chmod a+x {}", quote(parent)));
                repairs.changes.push(Change::Folder {
                    path: parent.to_owned(),
                    what: format!(
                        "the folder {parent}, {}:{} {:04o}, lets postgres pass",
                        found.owner, found.group, found.mode
                    ),
                });
            }
        }
        Data::Store if facts.etcd_data => {
            let dir = facts::etcd_dir(cluster.name());
            repairs.own(&dir, folders.get(&dir), "etcd", &[0o700]);
        }
        Data::Folder { path, owner, mode } | Data::Kept { path, owner, mode }
            if belongings::made_tree(facts, path) =>
        {
            repairs.own(path, folders.get(path), owner, &[mode]);
        }
        Data::Database | Data::Store | Data::Folder { .. } | Data::Kept { .. } | Data::Nothing => {}
    }
    repairs
}

/// pgherd made the data directory, and the missing folders above it.
pub(super) fn is_ours(cluster: &Cluster, facts: &Facts) -> bool {
    facts.data_marker.as_ref() == Some(&cluster.secrets.cluster_id)
}

/// The folders above a path, the nearest first, without the root.
pub(super) fn above(path: &str) -> impl Iterator<Item = &str> {
    let cuts = path.match_indices('/').map(|(at, _)| &path[..at]);
    cuts.filter(|above| !above.is_empty()).rev()
}

/// Whether `postgres` cannot enter a folder, by its own test or by the folder's mode.
pub(super) fn blocks(folder: &Folder) -> bool {
    let open = folder.mode & 0o001 != 0 || folder.owner == "postgres" || folder.group == "postgres";
    folder.is_folder && !folder.passable.unwrap_or(open)
}
