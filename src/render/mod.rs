//! Renders every file that reaches a host, from the cluster and the templates.
//!
//! Pure: the same cluster gives the same files, in the same order. The only user of `tera`.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    cluster::Cluster,
    configs::PatroniConfig,
    error::{Error, Result},
    inventory::{HostName, Role},
    secret::{Content, never_shown},
};

mod block;
mod context;
mod files;
mod filters;
mod tags;
mod templates;

pub use block::{merge_block, remove_block};
pub use context::dcs_config;
pub(crate) use context::parameters;
pub(crate) use filters::inner_forms as written_forms;
pub use templates::Templates;
use templates::Variables;

pub use crate::{
    contract::{ETCD_CONFIG, PATRONI_CONFIG},
    services::{Effect, Kind, Stage, Visibility},
};

never_shown!(File);

/// A file as it should be on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub path: String,
    pub content: Content,
    pub owner: &'static str,
    pub group: &'static str,
    pub mode: u32,
    pub visibility: Visibility,
    pub stage: Stage,
    pub kind: Kind,
    /// The service that reads it; `None` for files that concern the whole host.
    pub role: Option<Role>,
    pub effect: Effect,
}

impl File {
    /// The effect of replacing `old` by this file, which may be less than [`File::effect`].
    pub fn effect_of_change(&self, old: Option<&str>) -> Effect {
        let files = self.role.map_or(&[][..], |role| role.service().files);
        let entry = files.iter().find(|entry| entry.path == self.path);
        match (old, entry.and_then(|entry| entry.on_change)) {
            (Some(old), Some(on_change)) => on_change(old, &self.content, self.effect),
            _ => self.effect,
        }
    }
}

/// Whether two of Patroni's configs set PostgreSQL's parameters differently, or may.
pub fn parameters_differ(old: &str, new: &str) -> bool {
    let both = PatroniConfig::parse(old).zip(PatroniConfig::parse(new));
    both.is_none_or(|(old, new)| !old.has_same_parameters(&new))
}

/// The paths of the files that are wholly pgherd's on a host with these roles, whatever the rest of the
/// inventory says.
pub fn paths(roles: &[Role]) -> Vec<&'static str> {
    files::paths(roles)
}

/// The paths of the files that the installation of packages and of Patroni's venv needs.
pub fn for_packages() -> Vec<&'static str> {
    files::for_packages()
}

/// The files of every host, by host, in the order in which they are written.
pub type Files = BTreeMap<HostName, Vec<File>>;

/// Renders every file of every host.
///
/// Errors are of kind `Input` and name the template and, if it is known, the line. A value that its format
/// cannot hold is such an error too. The errors of all hosts are reported.
pub fn render(cluster: &Cluster, templates: &Templates) -> Result<Files> {
    let shared = context::shared(cluster);
    let mut files = Files::new();
    let mut errors = Vec::new();
    for node in cluster.nodes.values() {
        let variables = Variables::new(context::of_host(shared.clone(), cluster, node)?);
        let mut mine = Vec::new();
        for (on, entry) in files::entries() {
            if !files::belongs_on(on, entry, node, cluster) {
                continue;
            }
            match templates.render(entry.template.0, &variables) {
                Ok(content) => mine.push(File {
                    path: entry.path.to_owned(),
                    content: content.into(),
                    owner: entry.owner,
                    group: entry.group,
                    mode: entry.mode,
                    visibility: entry.visibility,
                    stage: entry.stage,
                    kind: entry.kind,
                    role: on.role(),
                    effect: entry.effect,
                }),
                Err(error) => errors.push(error),
            }
        }
        files.insert(node.name.clone(), mine);
    }
    // A mistake in a template is the same on every host.
    let mut seen = BTreeSet::new();
    errors.retain(|error: &Error| seen.insert(error.to_string()));
    match errors.len() {
        0 => Ok(files),
        1 => Err(errors.remove(0)),
        _ => Err(Error::several("some templates cannot be rendered", errors)),
    }
}
