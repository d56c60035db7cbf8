//! A cluster whose database no host has any more, while its repository may have backups of it.
//!
//! A member that started there would make a new, empty database under the cluster's name. So nothing is planned for such
//! a cluster until somebody restores it: then its hosts are made ready, without a database.

use std::{collections::BTreeMap, time::Duration};

use super::{Action, Found, Plan, Step, StepId, data_volume};
use crate::{
    cluster::Cluster,
    contract::{BACKUP_CONFIG, BACKUPS},
    error::{Code, Error},
    facts::{DataFact, Facts},
    inventory::{HostName, Role},
    moment::Moment,
    quantity::count,
    remote::{Script, quote},
    services::When,
};

/// What the repository keeps of a cluster whose database no host has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeps {
    /// The labels of its backups, with their ends in seconds since 1970; the oldest first.
    Backups(Vec<(String, i64)>),
    /// Why it is not known.
    Unknown(String),
}

/// How many backups an error names.
const NAMED: usize = 5;

/// Asks a repository that may be older than the cluster's hosts.
pub(super) const ASK: &str = r#"cd /
said=$(setpriv --reuid=postgres --regid=postgres --init-groups pgbackrest --config="$CONFIG" --stanza="$STANZA" \
  --log-level-console=off --log-level-stderr=error --output=json info)
labels=$(printf '%s' "$said" | grep -o '"label":"[^"]*"' | cut -d '"' -f 4 | tail -n 5 | tr '\n' ' ' || true)
if [ -n "$labels" ]; then
  echo "the repository has backups of a database of this name: $labels" >&2
  echo "pgherd-hint: have it back: $RESTORE" >&2
  echo "pgherd-hint: for a new database, give the cluster another name, or the backups another place" >&2
  exit 1
fi
case $said in
  *'"code":99'*)
    echo "pgBackRest cannot read what the repository has, so it may have backups of a database of this name: $said" >&2
    exit 1 ;;
esac"#;

/// Whether something was ever committed to a database on the host, or somebody is at work on one.
fn has_database(facts: &Facts) -> bool {
    let used = |data: &DataFact| {
        data.entries > 0 && !data.never_started && (data.has_run || !data.is_half_made())
    };
    facts.in_recovery.is_some() || facts.data_at_work || facts.data.as_ref().is_some_and(used)
}

/// Whether none of the hosts that were seen has the database.
pub(crate) fn may_be(cluster: &Cluster, facts: &BTreeMap<HostName, Facts>) -> bool {
    let members = cluster.with_role(Role::Postgres);
    let mut seen = members.filter_map(|node| facts.get(&node.name));
    seen.all(|facts| !has_database(facts))
}

/// Whether all of the members' hosts were seen, and none has the database.
pub(crate) fn is(cluster: &Cluster, found: &Found) -> bool {
    let mut members = cluster.with_role(Role::Postgres);
    members.all(|node| found.facts.contains_key(&node.name))
        && may_be(cluster, &found.facts)
        && !data_volume::is_unread(cluster, found)
}

/// The host with a repository that could not be asked.
pub(super) fn unasked<'a>(cluster: &'a Cluster, found: &Found) -> Option<&'a HostName> {
    let node = cluster.with_role(Role::Backup).next()?;
    let is_there = found.facts.contains_key(&node.name);
    (found.repository.is_none() && !is_there).then_some(&node.name)
}

/// The error of a run that would make a new database although the repository has the old one.
pub(super) fn refused(cluster: &Cluster, found: &Found) -> Option<Error> {
    match !found.restores && is(cluster, found) {
        true => told(cluster, found),
        false => None,
    }
}

/// The same if hosts that do not exist have not been looked at.
pub(crate) fn told(cluster: &Cluster, found: &Found) -> Option<Error> {
    let name = cluster.name();
    let command = |verb: &str| cluster.inventory.command(verb);
    let error = match found.repository.as_ref()? {
        Keeps::Backups(all) if all.is_empty() => return None,
        Keeps::Backups(all) => Error::new(
            Code::DatabaseLost,
            format!(
                "no host has the database of {name}, and its repository has {}",
                count(all.len(), "backup")
            ),
        )
        .cause(listed(all))
        .cause("a member that started now would make a new, empty database under the same name")
        .left("nothing was changed")
        .hint(format!("have it back: {}", command("restore --to latest")))
        .hint(format!("see what can be restored: {}", command("backups")))
        .hint(format!(
            "for a new, empty cluster, choose another name for it; or, if nobody needs the backups: {}",
            command("down --with-backups")
        )),
        Keeps::Unknown(why) => Error::new(
            Code::DatabaseLost,
            format!("no host has the database of {name}, and its repository may have backups of it"),
        )
        .cause(why.clone())
        .left("nothing was changed")
        .hint(format!("see what is wrong with it: {}", command("backups"))),
    };
    Some(error)
}

fn listed(all: &[(String, i64)]) -> String {
    let newest = all.iter().rev().take(NAMED).map(|(label, end)| {
        let end = jiff::Timestamp::from_second(*end).map(Moment::Time);
        end.map_or_else(|_| label.clone(), |end| format!("{label}, of {end}"))
    });
    let mut text = newest.collect::<Vec<_>>().join("; ");
    if all.len() > NAMED {
        text.push_str(&format!("; and {} older", all.len() - NAMED));
    }
    text
}

/// Plans that a repository which is older than its host is asked before a first database is made; returns the step.
///
/// A repository that is set up already was asked before there was a plan.
pub(super) fn ask(plan: &mut Plan, cluster: &Cluster, found: &Found) -> Option<StepId> {
    let node = cluster.with_role(Role::Backup).next()?;
    let facts = found.facts.get(&node.name)?;
    let folder = facts.needs.folders.get(BACKUPS);
    let may_have = cluster.wants(When::Bucket) || folder.is_some_and(|it| it.is_folder);
    if !may_have || found.repository.is_some() || !is(cluster, found) {
        return None;
    }
    let configured = Role::Backup.service().unit.configure;
    let after = (0..plan.steps.len())
        .filter(|id| plan.steps[*id].name == configured)
        .collect();
    let script = Script::new().line(format!(
        "CONFIG={BACKUP_CONFIG}\nSTANZA={}\nRESTORE={}\n{ASK}",
        quote(cluster.name()),
        quote(&cluster.inventory.command("restore --to latest"))
    ));
    Some(plan.push(Step {
        host: node.name.clone(),
        name: "ask-repository",
        why: "if it has backups of a database of this name, no new one is made".into(),
        after,
        changes: Vec::new(),
        action: Action::Run(script),
        limit: Duration::from_secs(120),
        units: Vec::new(),
    }))
}
