//! The first screenful of a long plan: what each host gets, in a line.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    inventory::HostName,
    plan::{Change, Plan, Step},
    quantity::count,
};

/// A plan with fewer steps than this is a screenful itself.
const LONG: usize = 10;
/// More packages than this are counted instead of named.
const NAMED: usize = 3;

/// What each host gets, in the order of its first step; nothing for a short plan.
pub(super) fn by_host(plan: &Plan) -> String {
    if plan.changes() < LONG {
        return String::new();
    }
    let mut hosts: Vec<&HostName> = Vec::new();
    let mut steps: BTreeMap<&HostName, Vec<&Step>> = BTreeMap::new();
    for step in plan.steps.iter().filter(|step| step.changes_something()) {
        let of_host = steps.entry(&step.host).or_default();
        if of_host.is_empty() {
            hosts.push(&step.host);
        }
        of_host.push(step);
    }
    let width = hosts.iter().map(|host| host.as_str().len()).max();
    let lines = hosts.iter().map(|host| {
        let of_host = &steps[host];
        format!(
            "  {:width$}  {:>2} {}: {}\n",
            host.as_str(),
            of_host.len(),
            if of_host.len() == 1 { "step" } else { "steps" },
            gets(of_host),
            width = width.unwrap_or_default(),
        )
    });
    format!("what each host gets:\n{}", lines.collect::<String>())
}

/// What some steps of a host change, without the details.
fn gets(steps: &[&Step]) -> String {
    let mut packages = BTreeSet::new();
    let mut files = BTreeSet::new();
    let mut units = Vec::new();
    let mut settings = 0;
    let mut others = 0;
    for change in steps.iter().flat_map(|step| &step.changes) {
        match change {
            Change::Package(package) => {
                packages.insert(package.as_str());
            }
            Change::File { path, .. } => {
                files.insert(path.as_str());
            }
            Change::Unit { unit, verb } => units.push(format!("systemctl {verb} {unit}")),
            Change::Setting { .. } => settings += 1,
            Change::Folder { .. } | Change::Other(_) => others += 1,
        }
    }
    let mut parts = Vec::new();
    match packages.len() {
        0 => {}
        1..=NAMED => parts.push(Vec::from_iter(packages).join(", ")),
        more => parts.push(count(more, "package")),
    }
    for (number, what) in [(files.len(), "file"), (settings, "setting")] {
        if number > 0 {
            parts.push(count(number, what));
        }
    }
    parts.extend(units);
    if parts.is_empty() {
        parts.push(count(others, "change"));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::world::{FIVE, World};

    #[test]
    fn a_long_plan_leads_with_what_each_host_gets() {
        insta::assert_snapshot!(by_host(&World::bare(FIVE).plan()), @r"
        what each host gets:
          node1     7 steps: 6 packages, 17 files, 1 setting, systemctl enable --now patroni
          node2     6 steps: 6 packages, 17 files, systemctl enable --now patroni
          node3     6 steps: 6 packages, 17 files, systemctl enable --now patroni
          node4     4 steps: etcd-client, etcd-server, 14 files, systemctl enable --now etcd
          haproxy   4 steps: haproxy, 12 files, systemctl enable --now haproxy
        ");
        assert_eq!(by_host(&World::settled(FIVE).plan()), "");
    }
}
