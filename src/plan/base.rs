//! What a host needs before its services: its own files, its packages, and Patroni's venv.
//!
//! Except for their addresses, this does not depend on other hosts. So a new host gets it while others
//! still boot.

use super::{
    Found, Plan, StepId, components, data_volume, metadata_guard, packages, preconditions,
    requirements,
};
use crate::{
    cluster::{Cluster, Node},
    error::Result,
    facts::Facts,
    inventory::{HostName, Role},
    render::{File, Files},
};

/// The steps after which a host's services can be configured; empty if there is nothing to do.
#[derive(Clone)]
pub(super) struct Base {
    /// For services that need only packages.
    pub packages: Vec<StepId>,
    /// For Patroni.
    pub patroni: Vec<StepId>,
    /// The step that creates Patroni's venv, if there is one.
    pub venv: Option<StepId>,
}

/// Plans what one host needs before its services.
pub(super) fn plan(
    plan: &mut Plan,
    cluster: &Cluster,
    node: &Node,
    facts: &Facts,
    files: &[File],
) -> Result<Base> {
    let prepared = components::prepare(plan, cluster, node, facts, files)?;
    if cluster.inventory.profile_of(&node.name).is_none() {
        let after = Vec::from_iter(prepared);
        metadata_guard::guard(plan, cluster, node, facts, after);
        return Ok(install(plan, cluster, node, facts, files, prepared));
    }
    // The guard lets the user postgres through, which comes with a package, and pgBackRest needs that.
    let mut base = install(plan, cluster, node, facts, files, prepared);
    let guarded = metadata_guard::guard(plan, cluster, node, facts, base.packages.clone());
    base.packages.extend(guarded);
    Ok(base)
}

/// Plans a host's packages, and Patroni's venv if the host has a database. `prepared` comes before them.
pub(super) fn install(
    plan: &mut Plan,
    cluster: &Cluster,
    node: &Node,
    facts: &Facts,
    files: &[File],
    prepared: Option<StepId>,
) -> Base {
    let installed = packages::install(plan, cluster, node, facts, Vec::from_iter(prepared));
    let packages = Vec::from_iter(installed.all.or(prepared));
    let mut base = Base {
        patroni: packages.clone(),
        packages,
        venv: None,
    };
    if node.roles.contains(&Role::Postgres) {
        let python = Vec::from_iter(installed.python.or(prepared));
        base.venv = packages::install_patroni(plan, cluster, node, facts, files, python);
        if let Some(venv) = base.venv {
            // The venv needs the packages, unless both are made at the same time.
            base.patroni.retain(|_| installed.all != installed.python);
            base.patroni.push(venv);
        }
        let mounted = data_volume::mount(plan, cluster, node, facts, base.packages.clone());
        base.patroni.extend(mounted);
    }
    base
}

/// Plans what a new host needs before its services, independently of the other hosts.
///
/// `found` has the facts of this host only. If the others are as the inventory says, [`up`](super::up)
/// plans the same steps for it. It is an error if the host cannot be taken over.
pub fn ahead(cluster: &Cluster, files: &Files, found: &Found, host: &HostName) -> Result<Plan> {
    preconditions::check(
        cluster,
        files,
        found,
        requirements::findings(cluster, found),
    )?;
    let mut plan = Plan {
        at_once: packages::at_once(cluster, found),
        ..Plan::default()
    };
    if let (Some(node), Some(facts)) = (cluster.nodes.get(host), found.facts.get(host)) {
        let files = files.get(host).map_or(&[][..], Vec::as_slice);
        self::plan(&mut plan, cluster, node, facts, files)?;
    }
    Ok(plan)
}
