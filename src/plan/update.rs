//! The steps that bring newer packages to a host.
//!
//! No package restarts anything: what runs although its files were replaced is noted on the host, and the planning of `up`
//! restarts it in its turn.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Action, Change, Plan, Step, StepId,
    packages::{APT, INSTALL, LOCKS},
};
use crate::{
    cluster::{Cluster, Node},
    facts::{POSTGRESQL, REPLACED, Update, Upkeep},
    inventory::Role,
    remote::{PENDING, Script, quote},
    services::When,
};

const UPDATE: &str = include_str!("update.sh");

/// The source of pgBackRest's package, which must have one version on all hosts that have it.
const BACKUPS: &str = "pgbackrest";

/// Which packages are brought up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// What the cluster consists of.
    #[default]
    Own,
    /// The same, and security updates of everything else.
    Security,
    /// Everything.
    All,
}

impl Scope {
    /// The updates of a host that belong to it. Those of packages that are not installed yet come with others.
    pub fn chosen(self, upkeep: &Upkeep) -> Vec<&Update> {
        let own = |it: &Update| upkeep.packages.contains_key(&it.package);
        let wanted = |it: &&Update| match self {
            Scope::Own => own(it),
            Scope::Security => own(it) || it.is_security(),
            Scope::All => true,
        };
        upkeep.updates.iter().filter(wanted).collect()
    }
}

/// Whether a package belongs to pgBackRest.
pub fn of_backups(update: &Update, upkeep: &Upkeep) -> bool {
    let installed = upkeep.packages.get(&update.package);
    installed.is_some_and(|it| it.source == BACKUPS)
}

/// What a running service needs so that it uses its new files.
fn need(role: Role) -> &'static str {
    match role {
        // PostgreSQL itself restarts only if it is old, too.
        Role::Postgres => "exchange",
        // Its master process starts its new program, and connected clients stay with the old one.
        Role::Haproxy => "reload",
        _ => "restart",
    }
}

/// What a new version of a package restarts on a host, in words; `None` if nothing.
pub fn restarts(node: &Node, package: &str) -> Option<String> {
    let mut roles = node.roles.iter().map(|role| (*role, role.service()));
    let serves = |(role, service): (Role, &crate::services::Service)| {
        let mut packages = service.packages.iter();
        packages
            .any(|it| it.serves && it.is(package))
            .then(|| match role {
                Role::Postgres if package == "patroni" => {
                    "Patroni restarts, and PostgreSQL goes on".to_owned()
                }
                Role::Postgres => "PostgreSQL restarts".to_owned(),
                Role::Haproxy => "HAProxy reloads, and nobody is cut off".to_owned(),
                _ => format!("{} restarts", service.title),
            })
    };
    roles.find_map(serves)
}

/// Brings these packages of a host up to date, and notes which of its services must restart. With no packages, only
/// the note is made. `None` if there is nothing to do.
pub fn host(
    plan: &mut Plan,
    cluster: &Cluster,
    node: &Node,
    updates: &[&Update],
    upkeep: &Upkeep,
    after: Vec<StepId>,
) -> Option<StepId> {
    let installed = updates.iter().filter(|it| it.from.is_some());
    let names: BTreeSet<&str> = installed.map(|it| it.package.as_str()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let outdated: Vec<&str> = upkeep.outdated().map(|it| it.unit.as_str()).collect();
    if names.is_empty() && outdated.is_empty() {
        return None;
    }
    let units: Vec<String> = node
        .roles
        .iter()
        .map(|role| format!("{}:{}", role.unit(), need(*role)))
        .collect();
    let own_boot = if cluster.wants(When::Ec2) { "yes" } else { "" };
    let mut script = Script::new()
        .alone(INSTALL)
        .pending()
        .line(format!("PACKAGES={}", quote(&names.join(" "))))
        .line(format!("UNITS={}", quote(&units.join(" "))))
        .line(format!("PENDING={PENDING}"))
        .line(REPLACED);
    if !names.is_empty() {
        script = script
            .line(format!("OWN_BOOT={own_boot}"))
            .line(LOCKS)
            .line(APT);
    }
    let changes = match names.is_empty() {
        true => vec![Change::Other(
            "a note on the host of what must restart".into(),
        )],
        false => updates
            .iter()
            .map(|it| Change::Package(format!("{} {}", it.package, it.to)))
            .collect(),
    };
    Some(plan.push(Step {
        host: node.name.clone(),
        name: if names.is_empty() {
            "note-restarts"
        } else {
            "update-packages"
        },
        why: if names.is_empty() {
            format!("replaced while they run: {}", outdated.join(", "))
        } else {
            "newer versions are there".into()
        },
        after,
        changes,
        action: Action::Run(script.line(UPDATE)),
        limit: Duration::from_secs(1800),
        units: Vec::new(),
    }))
}

/// Whether PostgreSQL on a host must restart.
pub fn postgresql_is_old(upkeep: &Upkeep) -> bool {
    upkeep.outdated().any(|it| it.unit == POSTGRESQL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        facts::parse_upkeep,
        inventory::HostName,
        plan::tests::world::{FIVE, cluster},
    };

    fn upkeep(more: &str) -> Upkeep {
        let text = format!(
            "boot\tid\npackage\tpostgresql-15\tpostgresql-15\t15.13\t1\tinstall\n\
             update\tpostgresql-15\t15.13\t15.14\tDebian:12\n\
             update\topenssl\t3.0.15\t3.0.16\tDebian-Security:12/stable-security\n\
             update\tlinux-image-7\t\t7\tDebian-Security:12/stable-security\n\
             update\ttzdata\t1\t2\tDebian:12\n{more}end\n"
        );
        parse_upkeep(&text).unwrap()
    }

    fn names(scope: Scope) -> Vec<String> {
        let upkeep = upkeep("");
        let chosen = scope.chosen(&upkeep).into_iter();
        chosen.map(|it| it.package.clone()).collect()
    }

    #[test]
    fn a_scope_chooses_packages() {
        assert_eq!(names(Scope::Own), ["postgresql-15"]);
        assert_eq!(
            names(Scope::Security),
            ["postgresql-15", "openssl", "linux-image-7"]
        );
        assert_eq!(names(Scope::All).len(), 4);
    }

    #[test]
    fn what_is_installed_is_named_to_apt_and_what_is_old_is_noted() {
        let cluster = cluster("", FIVE);
        let node = &cluster.nodes[&HostName::new("node1")];
        let now = upkeep("");
        let mut plan = Plan::default();
        let chosen = Scope::Security.chosen(&now);
        host(&mut plan, &cluster, node, &chosen, &now, Vec::new()).unwrap();
        let Action::Run(script) = &plan.steps[0].action else {
            panic!("a script");
        };
        assert!(script.contains("PACKAGES='openssl postgresql-15'"));
        assert!(script.contains("patroni:exchange"));
        assert!(script.contains("policy-rc.d"));

        let mut plan = Plan::default();
        assert!(host(&mut plan, &cluster, node, &[], &now, Vec::new()).is_none());
        let old = upkeep("process\tpostgresql\t1\treplaced\t/usr/lib/postgres\n");
        assert!(postgresql_is_old(&old) && !postgresql_is_old(&now));
        host(&mut plan, &cluster, node, &[], &old, Vec::new()).unwrap();
        assert_eq!(plan.steps[0].name, "note-restarts");
        let Action::Run(script) = &plan.steps[0].action else {
            panic!("a script");
        };
        assert!(!script.contains("policy-rc.d"), "apt is not called");
    }

    #[test]
    fn what_restarts_is_told() {
        let cluster = cluster("", FIVE);
        let node = &cluster.nodes[&HostName::new("node1")];
        let told = restarts(node, "postgresql-15");
        assert_eq!(told.as_deref(), Some("PostgreSQL restarts"));
        assert_eq!(restarts(node, "libpq5"), None);
        assert_eq!(restarts(node, "haproxy"), None, "it is on another host");
    }
}
