//! Checks whether `up` would change anything.

use std::collections::BTreeSet;

use super::Check;
use crate::{
    inventory::HostName,
    plan::{Action, Change, Plan},
};

/// The steps that correct what the check `roles` reports.
pub(super) const OF_ROLES: [&str; 4] = [
    "ensure-roles",
    "ensure-databases",
    "ensure-pooler",
    "ensure-monitor",
];

/// Everything that `up` would still change, however small: wrong files and planned steps, except steps that
/// another check reports.
pub(super) fn configs(plan: &Plan, told_elsewhere: &[&str]) -> Check {
    let mut wrong = Vec::new();
    let mut told = BTreeSet::new();
    for step in &plan.steps {
        // Patroni reads its files by itself; these steps only make it do so at once.
        let hurries = matches!(step.action, Action::Wake | Action::TakeOver);
        if !step.changes_something() || hurries || told_elsewhere.contains(&step.name) {
            continue;
        }
        let (host, why) = (&step.host, step.why.as_str());
        let said: Vec<String> = step
            .changes
            .iter()
            .filter_map(|change| difference(host, change))
            .collect();
        let is_new = told.insert((host, why));
        if !said.is_empty() {
            wrong.extend(said);
        } else if is_new {
            // A unit that would load a file of this list has the same reason.
            wrong.push(format!("`up` would do {} on {host}: {why}", step.name));
        }
    }
    if plan.mounts {
        wrong.push("the rest can be compared only when every data volume is mounted".into());
    } else if plan.partial {
        wrong.push("the rest can be compared only when etcd answers and a member leads".into());
    }
    Check::of("configs", wrong, "`up` would change nothing".into())
}

fn difference(host: &HostName, change: &Change) -> Option<String> {
    match change {
        Change::File { path, .. } => Some(format!("{path} on {host} is not as rendered")),
        Change::Folder { path, .. } => Some(format!(
            "{path} on {host} does not have the owner or mode that it needs"
        )),
        Change::Package(package) => Some(format!("{package} is not installed on {host}")),
        Change::Setting { key, .. } => Some(format!("{key} in the DCS is not the inventory's")),
        Change::Unit { .. } | Change::Other(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        plan::{Condition, Step},
        remote::Script,
    };

    fn step(name: &'static str, why: &str, changes: Vec<Change>, action: Action) -> Step {
        Step {
            host: HostName::new("node2"),
            name,
            why: why.into(),
            after: Vec::new(),
            changes,
            action,
            limit: std::time::Duration::from_secs(1),
            units: Vec::new(),
        }
    }

    fn told(steps: Vec<Step>) -> Check {
        of_plan(&Plan {
            steps,
            ..Plan::default()
        })
    }

    /// Roles, folders, the venv, and files that were written and not loaded are no file, package or setting.
    #[test]
    fn whatever_up_would_change_does_not_hold() {
        assert!(told(Vec::new()).passed);
        let run = || Action::Run(Script::new());
        for (name, change) in [
            ("accounts", vec![Change::Other("the role app".into())]),
            ("install-patroni", vec![Change::Other("a venv".into())]),
            (
                "reload-patroni",
                vec![Change::Unit {
                    unit: "patroni",
                    verb: "reload",
                }],
            ),
            ("ensure-roles", Vec::new()),
        ] {
            let check = told(vec![step(name, "it lacks something", change, run())]);
            assert!(!check.passed, "{name}");
            let said = format!("`up` would do {name} on node2: it lacks something");
            assert_eq!(check.detail, said);
        }
        let leader = Action::RunOnLeader(Script::new());
        assert!(!told(vec![step("close-public", "it is open", Vec::new(), leader)]).passed);
        for waits in [
            Action::Await(Condition::Leader),
            Action::TryParameters(Script::new()),
            Action::Wake,
            Action::TakeOver,
        ] {
            assert!(told(vec![step("waits", "for others", Vec::new(), waits)]).passed);
        }
        let partial = Plan {
            partial: true,
            ..Plan::default()
        };
        assert!(!of_plan(&partial).passed, "the rest is not known");
        // What another check reports is not repeated; everything else is reported.
        let of_roles = Plan {
            steps: vec![step(
                "ensure-roles",
                "it lacks something",
                Vec::new(),
                run(),
            )],
            ..Plan::default()
        };
        assert!(configs(&of_roles, &OF_ROLES).passed);
        assert!(!configs(&partial, &OF_ROLES).passed);
    }

    fn of_plan(plan: &Plan) -> Check {
        configs(plan, &[])
    }

    #[test]
    fn a_file_and_the_unit_that_would_take_it_over_are_told_of_once() {
        let file = Change::File {
            path: "/etc/patroni.yml".into(),
            old: None,
            new: None,
            note: None,
        };
        let reload = Change::Unit {
            unit: "patroni",
            verb: "reload",
        };
        let run = || Action::Run(Script::new());
        let check = told(vec![
            step(
                "configure-patroni",
                "/etc/patroni.yml differs",
                vec![file],
                run(),
            ),
            step(
                "reload-patroni",
                "/etc/patroni.yml differs",
                vec![reload],
                run(),
            ),
        ]);
        assert_eq!(check.detail, "/etc/patroni.yml on node2 is not as rendered");
    }
}
