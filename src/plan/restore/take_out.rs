//! Plans that a table is taken out of a backup.

use super::{
    ARCHIVE_CONFIG, Action, CHECKING, Change, Cluster, HostName, Plan, REHEARSAL, RESTORING,
    Script, Step, TAKEN, Unit, Wanted, own, quote,
};
use crate::plan::local_sql::local_psql;

const TABLE: &str = include_str!("table.sh");

/// Sends the WAL of the last commits to the repository. Of two places (REPOS has the numbers of those that answer), PostgreSQL
/// may wait for one that is away, while the other one has it.
const SEND: &str = r#"as_postgres() { (cd / && setpriv --reuid=postgres --regid=postgres --init-groups "$@"); }
as_postgres /etc/pgherd/archive/heartbeat
piece=$(as_postgres mktemp -d)
trap 'rm -rf "$piece"' EXIT
is_there() {
  for key in $REPOS; do
    as_postgres pgbackrest --config="$CONFIG" --stanza="$STANZA" --repo="$key" archive-get "$segment" "$piece/$key" >/dev/null 2>&1 && return 0
  done
  return 1
}
segment=$(echo 'select pg_walfile_name(pg_switch_wal())' | local_psql "$PORT" -At)
tries=120 within='a minute'
[ -z "$REPOS" ] || tries=240 within='two minutes'
for n in $(seq $tries); do
  sent=$(echo "select last_archived_wal >= '$segment' from pg_stat_archiver" | local_psql "$PORT" -At)
  [ "$sent" != t ] || exit 0
  [ $((n % 20)) != 0 ] || ! is_there || exit 0
  sleep 0.5
done
echo "$segment did not get into the repository within $within" >&2
echo "pgherd-hint: see why: $VERIFY" >&2
exit 1"#;

/// Dumps a table as it was, into [`TAKEN`] on a host: from an instance of its own, within limits that clients do not
/// feel.
pub(crate) fn take_out(
    cluster: &Cluster,
    host: &HostName,
    wanted: &Wanted<'_>,
    (database, table): (&str, &str),
    leader: Option<&HostName>,
) -> Plan {
    const LIMITS: &str = "-p Nice=19 -p IOSchedulingClass=idle -p CPUWeight=10 -p CPUQuota=$(($(nproc) * 50))% -p MemoryMax=25%";
    let mut plan = Plan::default();
    let Some(node) = cluster.nodes.get(host) else {
        return plan;
    };
    let variables = [
        ("PLACE", TAKEN.to_owned()),
        ("DATABASE", database.to_owned()),
        ("TABLE", table.to_owned()),
        ("UNTIL", wanted.until()),
        wanted.repositories(),
    ];
    let mut options = wanted.options();
    // The others are left out, but for the system's own, and the ledger is in one of these.
    if !["postgres", "template1"].contains(&database) {
        options.push(format!("--db-include={database}"));
    }
    let unit = Unit {
        name: "pgherd-take-out",
        limits: LIMITS,
        success: &format!("[ -e {TAKEN}/dump ]"),
        // An earlier one may be for another table.
        before: &format!(
            "install -d -o postgres -g postgres -m 0700 {REHEARSAL}\nsystemctl stop pgherd-take-out 2>/dev/null || true"
        ),
    };
    let sent = leader.map(|leader| {
        let port = cluster.inventory.postgresql.port;
        let (_, keys) = wanted.repositories();
        let script = Script::new()
            .alone("send-wal")
            .line(local_psql())
            .line(format!(
                "PORT={port}\nVERIFY={}\nCONFIG={ARCHIVE_CONFIG}\nSTANZA={}\nREPOS={}\n{SEND}",
                quote(&cluster.inventory.command("verify")),
                quote(cluster.name()),
                quote(&keys)
            ));
        plan.push(Step {
            host: leader.clone(),
            name: "send-wal",
            why: "the moment may be younger than what the repository has".into(),
            after: Vec::new(),
            changes: Vec::new(),
            action: Action::Run(script),
            limit: CHECKING,
            units: vec!["patroni"],
        })
    });
    plan.push(Step {
        host: host.clone(),
        name: "take-out",
        why: "you asked for it".into(),
        after: sent.into_iter().collect(),
        changes: vec![Change::Other(format!(
            "{table} in {database}, of {}, restored beside the running database",
            wanted.to
        ))],
        action: Action::Run(unit.script(
            cluster,
            node,
            &[&own(cluster), &variables[..]].concat(),
            TABLE,
            &options,
        )),
        limit: RESTORING,
        units: Vec::new(),
    });
    plan
}
