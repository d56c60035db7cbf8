//! What a prepared image holds, and what must not be in it: the plan for the host that becomes the image.

use std::time::Duration;

use super::{
    Action, Change, Found, Plan, Step, base, belongings, components,
    packages::{self, LOCKS, REQUIREMENTS},
    preconditions, requirements,
};
use crate::{
    cluster::{Cluster, Node},
    error::Result,
    facts::{self, Facts},
    inventory::Role,
    remote::{Script, quote},
    render::{self, File, Files},
};

const CLEAN: &str = include_str!("image.sh");

/// Plans the packages of all roles and Patroni's venv, with the same steps as on any host.
pub fn image(cluster: &Cluster, files: &Files, found: &Found) -> Result<Plan> {
    preconditions::check(
        cluster,
        files,
        found,
        requirements::findings(cluster, found),
    )?;
    let mut plan = Plan::default();
    for (node, facts, files) in hosts(cluster, files, found) {
        let files = of_packages(files);
        let prepared = components::prepare(&mut plan, cluster, node, facts, &files)?;
        base::install(&mut plan, cluster, node, facts, &files, prepared);
    }
    Ok(plan)
}

/// Plans the removal of everything that only one host may have: keys, identity, logs, and pgherd's own notes.
///
/// Nobody can log in afterwards.
pub fn clean_for_image(cluster: &Cluster, files: &Files, found: &Found) -> Plan {
    let mut plan = Plan::default();
    for (node, _, files) in hosts(cluster, files, found) {
        let files = of_packages(files);
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        let mut folders = Vec::from_iter(facts::own_folders(&paths));
        folders.sort_by_key(|folder| std::cmp::Reverse(folder.len()));
        let units: Vec<&str> = Role::ALL.iter().map(|role| role.unit()).collect();
        let list = |words: &[&str]| quote(&words.join(" "));
        let script = Script::new()
            .alone("clean-for-image")
            .line(format!("UNITS={}", list(&units)))
            .line(format!("FILES={}", list(&paths)))
            .line(format!("FOLDERS={}", list(&folders)))
            .line(LOCKS)
            .line(CLEAN);
        plan.push(Step {
            host: node.name.clone(),
            name: "clean-for-image",
            why: "an image is nobody's: no key, no identity, nothing of a cluster".into(),
            after: Vec::new(),
            changes: vec![Change::Other(
                "keys, identity, logs and notes are removed".into(),
            )],
            action: Action::Run(script),
            limit: Duration::from_secs(900),
            units: Vec::new(),
        });
    }
    plan
}

/// The expected facts of a host that is created from a prepared image.
pub fn prepare_facts(cluster: &Cluster, node: &Node, files: &[File], facts: &mut Facts) {
    for package in packages::wanted(cluster, node) {
        facts.packages.insert(package, String::new());
    }
    let requirements = files.iter().find(|file| file.path == REQUIREMENTS);
    if belongings::takes_venv(cluster, node) {
        facts.patroni_stamp = requirements.map(|file| packages::digest(&file.content));
    }
}

fn hosts<'a>(
    cluster: &'a Cluster,
    files: &'a Files,
    found: &'a Found,
) -> impl Iterator<Item = (&'a Node, &'a Facts, &'a [File])> {
    cluster.nodes.values().filter_map(|node| {
        let files = files.get(&node.name).map_or(&[][..], Vec::as_slice);
        Some((node, found.facts.get(&node.name)?, files))
    })
}

/// The files that the installation needs. None of them names a cluster.
fn of_packages(files: &[File]) -> Vec<File> {
    let needed = render::for_packages();
    let needed = |file: &&File| needed.contains(&file.path.as_str());
    files.iter().filter(needed).cloned().collect()
}
