//! Plans the repository's beginning, and backups that somebody asks for.

use std::time::Duration;

use super::{
    Action, Change, Found, Plan, Step, StepId,
    members::{RESTART_PENDING, TAKE_OVER},
    waits::AWAIT_LEADER,
};
use crate::{
    cluster::Cluster,
    contract::{BACKUP_CONFIG, REHEARSAL},
    inventory::{HostName, Place, Role},
    remote::{Script, quote},
    services::{archive::rehearsal::UNIT, postgres::PATRONI},
};

const CREATE: &str = "create-stanza";

/// Backups of a large database take this long.
const BACKING_UP: Duration = Duration::from_secs(48 * 3600);

/// Makes the repository known to the database, and ends when a piece of WAL has got there. The first backup is
/// not waited for: the cluster serves its clients meanwhile.
///
/// Exit code 50 is a lock that another command has. A database that archives already tries to send its WAL again and
/// again, and its attempts hold the same lock as `stanza-create`, each for a moment.
pub(super) const BEGIN: &str = r#"cd /
backrest() { setpriv --reuid=postgres --regid=postgres --init-groups pgbackrest --config="$CONFIG" --stanza="$STANZA" "$@"; }
if ! systemctl is-active --quiet pgherd-backup@full pgherd-backup@diff; then
  for _ in $(seq 60); do
    code=0
    said=$(backrest --log-level-console=warn --log-level-stderr=off stanza-create) || code=$?
    [ $code = 50 ] || break
    sleep 0.5
  done
  [ -z "$said" ] || printf '%s\n' "$said"
  [ $code = 0 ] || exit $code
  backrest --log-level-console=warn --log-level-stderr=off --archive-timeout=60 check
fi
# A place in which backups went on until now needs no full backup, if it has one.
last=$(ls -dt "${ARCHIVING%/*}"/.archiving* 2>/dev/null | head -n 1 || true)
install -d -o postgres -g postgres -m 0750 "$ARCHIVING"
find "${ARCHIVING%/*}" -maxdepth 1 -name '.archiving*' ! -path "$ARCHIVING" -exec rm -rf {} +
goes_on() {
  case ${last##*/}:$1 in
    :* | .archiving:disk | .archiving+*:disk) ;;
    ".archiving-$BUCKET:bucket" | ".archiving+$BUCKET:bucket") ;;
    *) return 1 ;;
  esac
  # shellcheck disable=SC2086 # words
  backrest $2 --log-level-console=off --log-level-stderr=error --output=json info | grep -q '"label":"[0-9-]*F"'
}
if [ "$PLACES" = "${PLACES% *}" ]; then
  goes_on "$PLACES" '' || systemctl start --no-block pgherd-backup@full
else
  key=0
  begin=
  for place in $PLACES; do
    key=$((key + 1))
    goes_on "$place" "--repo=$key" || begin="$begin $place"
  done
  if [ "$begin" = " $PLACES" ]; then
    systemctl start --no-block pgherd-backup@full
  elif [ -n "$begin" ]; then
    systemctl start --no-block "pgherd-backup@full-${begin# }"
  fi
fi"#;

/// Shows the journal of a backup while it is made, and fails as it does.
const FOLLOW: &str = r#"unit=pgherd-backup@$TYPE
since=$(date +%s)
journalctl -q -f -n 0 -o cat -u "$unit" &
shows=$!
code=0
systemctl start "$unit" || code=$?
sleep 0.5
kill "$shows" 2>/dev/null || true
if [ $code != 0 ]; then
  journalctl -q -o cat --since "@$since" -u "$unit" | grep -E 'ERROR|WARN' >&2 || true
  exit 1
fi"#;

impl Plan {
    /// Whether backups begin by it, in a repository that has none of the cluster yet.
    pub fn begins_repository(&self) -> bool {
        self.steps.iter().any(|step| step.name == CREATE)
    }
}

/// Plans that the repository begins, if no WAL was ever seen to get there.
pub(super) fn begin(plan: &mut Plan, cluster: &Cluster, found: &Found) {
    let Some(node) = cluster.with_role(Role::Backup).next() else {
        return;
    };
    let Some(facts) = found.facts.get(&node.name) else {
        return;
    };
    if facts
        .needs
        .folders
        .contains_key(&cluster.inventory.backup.archiving())
    {
        plan.skip(&node.name, CREATE, "WAL gets into the repository");
        return;
    }
    let after = ready(plan);
    plan.push(Step {
        host: node.name.clone(),
        name: CREATE,
        why: "the repository does not know the database yet".into(),
        after,
        changes: vec![
            Change::Other(match cluster.inventory.backup.is_in_both() {
                true => "both repositories get the cluster's WAL from now on".into(),
                false => "the repository gets the cluster's WAL from now on".into(),
            }),
            Change::Other("the first full backup begins; it is not waited for".into()),
        ],
        action: Action::Run(script(cluster, CREATE).line(BEGIN)),
        limit: Duration::from_secs(180),
        units: vec![Role::Backup.unit()],
    });
}

/// The steps after which PostgreSQL archives, and pgBackRest answers everywhere.
fn ready(plan: &Plan) -> Vec<StepId> {
    let of_units = |name: &str| {
        let units = [
            &Role::Backup.service().unit,
            &Role::Archive.service().unit,
            &PATRONI,
        ];
        units
            .iter()
            .any(|unit| [unit.start, unit.reload, unit.restart].contains(&name))
    };
    let needed =
        |name: &str| of_units(name) || [AWAIT_LEADER, RESTART_PENDING, TAKE_OVER].contains(&name);
    let steps = 0..plan.steps.len();
    steps.filter(|id| needed(plan.steps[*id].name)).collect()
}

fn script(cluster: &Cluster, name: &str) -> Script {
    let backup = &cluster.inventory.backup;
    Script::new()
        .alone(name)
        .line(format!("CONFIG={BACKUP_CONFIG}"))
        .line(format!("STANZA={}", quote(cluster.name())))
        .line(format!(
            "ARCHIVING={}\nPLACES={}",
            quote(&backup.archiving()),
            quote(&backup.place_names())
        ))
        // What distinguishes one bucket from another.
        .line("BUCKET=${ARCHIVING##*/.archiving?}")
}

/// Has the host's unit rehearse a restore, and shows its journal. It goes on if pgherd is cut off; then the same step
/// waits for the rest of it. What the step asks for is in the file `wanted`, until the unit is done: the moment, and the
/// place if there are two.
const REHEARSE: &str = r#"cd "$PLACE"
state=$(systemctl show -P ActiveState $UNIT)
case $state in
  activating | deactivating) present=$(cat wanted 2>/dev/null || true) ;;
  *) present= ;;
esac
if [ -z "$present" ]; then
  printf '%s\n' "$MOMENT" $FROM | setpriv --reuid=postgres --regid=postgres --init-groups sh -c 'umask 077; cat >wanted.new && mv wanted.new wanted'
else
  moment=$(printf '%s\n' "$present" | sed -n 1p)
  from=$(printf '%s\n' "$present" | sed -n 2p)
  if { [ "$MOMENT" = random ] || [ "$MOMENT" = "$moment" ]; } && { [ -z "$FROM" ] || [ "$FROM" = "$from" ]; }; then
    echo "taken up again: a rehearsal that was begun before"
  else
    echo "another rehearsal is at work here ($moment${from:+, from the $from}): wait for it, or end it: systemctl stop $UNIT" >&2
    exit 1
  fi
fi
since=$(date +%s)
journalctl -q -f -n 0 -o cat -u $UNIT &
shows=$!
code=0
# The timer may have started the unit a moment before, which then ends without a look at what is wanted.
for _ in 1 2; do
  if [ $code = 0 ] && [ -e wanted ]; then systemctl start $UNIT || code=$?; fi
done
sleep 0.5
kill "$shows" 2>/dev/null || true
if [ $code != 0 ]; then
  journalctl -q -o cat --since "@$since" -u $UNIT | tail -n 8 >&2 || true
  exit 1
fi
if [ -e refused ]; then
  cat refused >&2
  exit 1
fi"#;

/// A rehearsal of a restore on this host, to a moment, the `latest` state, or one at `random`. `from` says from which of
/// two places.
pub fn rehearse(host: &HostName, moment: &str, from: Option<Place>) -> Plan {
    let mut plan = Plan::default();
    let mut what = match moment {
        "random" => "a moment of those that can be restored".to_owned(),
        "latest" => "the newest state that can be restored".to_owned(),
        moment => moment.to_owned(),
    };
    if let Some(from) = from {
        what.push_str(&format!(", of what is {}", from.inside()));
    }
    plan.push(Step {
        host: host.clone(),
        name: "rehearse",
        why: "a backup counts once a restore of it was seen to work".into(),
        after: Vec::new(),
        changes: vec![Change::Other(format!(
            "{what}, restored beside the running database, checked, and removed"
        ))],
        action: Action::Run(
            // Not alone: a script whose pgherd is gone may still wait for the unit.
            Script::new()
                .line(format!("PLACE={REHEARSAL}"))
                .line(format!("UNIT={UNIT}"))
                .line(format!("MOMENT={}", quote(moment)))
                .line(format!("FROM={}", from.map_or("", Place::as_str)))
                .line(REHEARSE),
        ),
        limit: BACKING_UP,
        units: Vec::new(),
    });
    plan
}

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    Everything,
    /// What has changed since the last full backup.
    SinceFull,
    /// What has changed since the last backup of any type.
    SinceLast,
}

/// A backup, made now. `only` says in which of two places; without it, in each.
pub(crate) fn now(host: &HostName, holds: Holds, only: Option<Place>) -> Plan {
    let (kind, word) = match holds {
        Holds::Everything => ("full", "a full backup"),
        Holds::SinceFull => (
            "diff",
            "a backup of what has changed since the last full one",
        ),
        Holds::SinceLast => ("incr", "a backup of what has changed since the last one"),
    };
    let mut plan = Plan::default();
    plan.push(Step {
        host: host.clone(),
        name: "backup",
        why: "you asked for it".into(),
        after: Vec::new(),
        changes: vec![Change::Other(match only {
            Some(only) => format!("{word}, {}", only.inside()),
            None => word.to_owned(),
        })],
        action: Action::Run(
            // Not alone: systemd makes a second run wait for the backup that the first one began.
            Script::new()
                .line(match only {
                    Some(only) => format!("TYPE={kind}-{}", only.as_str()),
                    None => format!("TYPE={kind}"),
                })
                .line(FOLLOW),
        ),
        limit: BACKING_UP,
        units: Vec::new(),
    });
    plan
}
