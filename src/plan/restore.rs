//! Plans a restore of the cluster in place, and tables that are taken out of a backup.
//!
//! In place, all members stop and are held: a Patroni that starts meanwhile would go on with the old history. One
//! member's data is restored, started by hand where no client reaches it, and checked. Only then the DCS forgets how far
//! the old history was, and that member leads. The others join it as replicas.

use std::time::Duration;

use super::{Action, Change, Found, Plan, Step, StepId, held::release, roles, waits::await_leader};
use crate::{
    cluster::{Cluster, Node},
    contract::{ARCHIVE_CONFIG, BACKUP_CONFIG, REHEARSAL, RESTORE_MARK as MARK, kept_dir},
    inventory::{HostName, Place, Role},
    moment::{Moment, in_full},
    remote::{Script, quote},
    services::postgres::HELD,
};

mod anew;
mod clone;
mod take_out;

pub(crate) use clone::{Origin, SOCKET, Statements};
pub(crate) use take_out::take_out;

const INSTANCE: &str = include_str!("restore/instance.sh");
const IN_PLACE: &str = include_str!("restore/in_place.sh");
const FOLLOW: &str = include_str!("restore/follow.sh");
const SEND_LAST: &str = include_str!("restore/send.sh");

/// How long PostgreSQL may take to stop.
const STOPPING: Duration = Duration::from_secs(600);
/// How long a large database takes to restore.
const RESTORING: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a member may take to lead.
const LEADING: Duration = Duration::from_secs(180);
/// How long the repository may take to receive a piece of WAL.
const CHECKING: Duration = Duration::from_secs(180);

/// Where tables are taken out.
pub(crate) const TAKEN: &str = "/var/lib/pgherd-rehearsal/taken";

/// What is restored from the repository.
#[derive(Debug, Clone)]
pub(crate) struct Wanted<'a> {
    pub to: &'a Moment,
    /// The label of the backup.
    pub set: Option<&'a str>,
    pub timeline: Option<u32>,
    /// Of two places, that of the backup first, then others from which WAL comes too. Empty if there is only one.
    pub places: &'a [Place],
}

impl Wanted<'_> {
    fn options(&self) -> Vec<String> {
        let mut options = self.to.options();
        options.extend(self.places.first().map(|it| format!("--repo={}", it.key())));
        options.extend(self.set.map(|label| format!("--set={label}")));
        options.extend(self.timeline.map(|it| format!("--target-timeline={it}")));
        options
    }

    /// The numbers of the repositories; empty if there is only one.
    fn repositories(&self) -> (&'static str, String) {
        let keys = self.places.iter().map(|it| it.key().to_string());
        ("REPOS", keys.collect::<Vec<_>>().join(" "))
    }

    /// The moment as SQL takes it; empty if it is no time.
    fn until(&self) -> String {
        self.to.time().map(in_full).unwrap_or_default()
    }
}

/// A restore of the cluster in place.
#[derive(Debug, Clone)]
pub(crate) struct InPlace<'a> {
    pub cluster: &'a Cluster,
    pub host: &'a HostName,
    /// Names this restore on the host.
    pub id: &'a str,
    pub wanted: Wanted<'a>,
    /// The old data is kept beside the new.
    pub keeps: bool,
    /// No host has the database: the identifier of the one that is restored.
    pub anew: Option<&'a str>,
    /// It comes from another cluster's repository.
    pub from: Option<&'a Origin>,
}

impl InPlace<'_> {
    /// Stops the members, restores one, and ends when its data has proven to be of the moment. Nobody uses it yet.
    pub(crate) fn restore(&self) -> Plan {
        let mut plan = Plan::default();
        let replicas = self
            .others()
            .map(|node| hold(&mut plan, self.cluster, node, Vec::new(), None));
        let replicas: Vec<StepId> = replicas.collect();
        let Some(node) = self.cluster.nodes.get(self.host) else {
            return plan;
        };
        let stopped = hold(&mut plan, self.cluster, node, replicas, self.sends());
        let kept = match self.keeps {
            true => format!(
                "the present data is kept in {}",
                kept_dir(&self.cluster.inventory.postgresql.data_dir)
            ),
            false if self.anew.is_some() => "there is no present data".to_owned(),
            false => "the present data is overwritten".to_owned(),
        };
        plan.push(Step {
            host: self.host.clone(),
            name: "restore",
            why: format!("you asked for {}", self.wanted.to),
            after: vec![stopped],
            changes: vec![
                Change::Other(kept),
                Change::Other(format!("the database is restored to {}", self.wanted.to)),
            ],
            action: Action::Run(self.script(node)),
            limit: RESTORING,
            units: Vec::new(),
        });
        plan
    }

    /// Of two places, one may be away. What has its last WAL sent to the others: a member that has a database, and that
    /// is restored from its own repository.
    fn sends(&self) -> Option<String> {
        let places = self.wanted.places;
        if places.is_empty() || self.from.is_some() || self.anew.is_some() {
            return None;
        }
        let (_, keys) = self.wanted.repositories();
        let stanza = quote(self.cluster.name());
        Some(format!(
            "CONFIG={ARCHIVE_CONFIG}\nSTANZA={stanza}\nREPOS={}\n{SEND_LAST}",
            quote(&keys)
        ))
    }

    /// The other members.
    fn others(&self) -> impl Iterator<Item = &Node> {
        let members = self.cluster.with_role(Role::Postgres);
        members.filter(|node| node.name != *self.host)
    }

    fn script(&self, node: &Node) -> Script {
        if let Some(origin) = self.from {
            return self.script_of_clone(node, origin);
        }
        let data = &self.cluster.inventory.postgresql.data_dir;
        let variables = [
            ("ID", self.id.to_owned()),
            ("MARK", MARK.to_owned()),
            ("DATA", data.clone()),
            ("OLD", kept_dir(data)),
            ("KEEP", if self.keeps { "yes" } else { "no" }.to_owned()),
            ("UNTIL", self.wanted.until()),
            self.wanted.repositories(),
        ];
        let success = format!(
            "[ \"$(cat {MARK} 2>/dev/null)\" = {} ]",
            quote(&format!("{} recovered", self.id))
        );
        let unit = Unit {
            name: "pgherd-restore",
            limits: "",
            success: &success,
            before: &format!("install -d -o postgres -g postgres -m 0700 {REHEARSAL}"),
        };
        unit.script(
            self.cluster,
            node,
            &[&own(self.cluster), &variables[..]].concat(),
            IN_PLACE,
            &self.wanted.options(),
        )
    }

    /// Lets the restored member lead. If it `leads` already, the DCS has only what is true of the new history.
    pub(crate) fn lead(&self, found: &Found, leads: bool) -> Plan {
        let mut plan = Plan::default();
        if leads {
            let why = ["a backup has the passwords of its time".to_owned()];
            roles::ensure(&mut plan, self.cluster, self.host, found, &why, Vec::new());
            return plan;
        }
        let Some(etcd) = self.cluster.with_role(Role::Etcd).next() else {
            return plan;
        };
        let forgotten = plan.push(Step {
            host: etcd.name.clone(),
            name: "forget-position",
            why: "by the DCS, the old history was further: nobody would be let lead".into(),
            after: Vec::new(),
            changes: vec![Change::Other(
                "the DCS forgets how far the old history was".into(),
            )],
            action: Action::ForgetPosition,
            limit: Duration::from_secs(30),
            units: vec!["etcd"],
        });
        let adopted = self.adopt(&mut plan, &etcd.name, found, forgotten);
        let started = release(
            &mut plan,
            self.host,
            None,
            "it has the restored data",
            vec![adopted],
        );
        let leads = await_leader(&mut plan, self.host, vec![started], LEADING);
        // Passwords may have changed since.
        let why = ["a backup has the passwords of its time".to_owned()];
        roles::ensure(&mut plan, self.cluster, self.host, found, &why, vec![leads]);
        plan
    }

    /// Starts the other members.
    pub(crate) fn rejoin(&self) -> Plan {
        let mut plan = Plan::default();
        for node in self.others() {
            let why = "the restored member leads";
            let released = release(&mut plan, &node.name, None, why, Vec::new());
            self.await_copy(&mut plan, node, released);
        }
        plan
    }

    /// Undoes a restore that nobody has used yet.
    pub(crate) fn back(&self) -> Plan {
        let mut plan = Plan::default();
        let data = &self.cluster.inventory.postgresql.data_dir;
        let script = Script::new()
            .alone("restore")
            .line("systemctl stop pgherd-restore 2>/dev/null || true")
            .line(format!(
                "DATA={}\nOLD={}\nMARK={MARK}\nID={}",
                quote(data),
                quote(&kept_dir(data)),
                quote(self.id)
            ))
            .line(BACK);
        let undone = plan.push(Step {
            host: self.host.clone(),
            name: "undo-restore",
            why: "you asked for the way back".into(),
            after: Vec::new(),
            changes: vec![Change::Other("the data from before is put back".into())],
            action: Action::Run(script),
            limit: STOPPING,
            units: Vec::new(),
        });
        let first = release(
            &mut plan,
            self.host,
            None,
            "its data is as before",
            vec![undone],
        );
        for node in self.others() {
            release(
                &mut plan,
                &node.name,
                None,
                "nothing is restored",
                vec![first],
            );
        }
        plan
    }

    /// The last steps: WAL of the new history gets into the repository, and a full backup begins.
    pub(crate) fn end(&self) -> Plan {
        let mut plan = Plan::default();
        plan.push(Step {
            host: self.host.clone(),
            name: "forget-restore",
            why: "the restore is complete".into(),
            after: Vec::new(),
            changes: Vec::new(),
            action: Action::Run(Script::new().line(match self.from {
                Some(_) => clone::REMOVE.to_owned(),
                None => format!("rm -f {MARK} {MARK}.json {MARK}.log {MARK}.pg"),
            })),
            limit: Duration::from_secs(30),
            units: Vec::new(),
        });
        // A clone's repository is new, and has begun already.
        if self.from.is_some() {
            return plan;
        }
        if let Some(node) = self.cluster.with_role(Role::Backup).next() {
            let backup = &self.cluster.inventory.backup;
            let script = Script::new()
                .alone("archive-again")
                .line(format!(
                    "cd /\nCONFIG={BACKUP_CONFIG}\nSTANZA={}\nPLACES={}",
                    quote(self.cluster.name()),
                    quote(&backup.place_names())
                ))
                .line(AGAIN);
            plan.push(Step {
                host: node.name.clone(),
                name: "archive-again",
                why: "what comes from now on must be restorable too".into(),
                after: Vec::new(),
                changes: vec![Change::Other(
                    "a full backup of the restored cluster begins; it is not waited for".into(),
                )],
                action: Action::Run(script),
                limit: CHECKING * u32::try_from(backup.places().len()).unwrap_or(1),
                units: vec![Role::Backup.unit()],
            });
        }
        plan
    }
}

/// Stops a member, and keeps everybody from starting it; then `finally` runs there.
fn hold(
    plan: &mut Plan,
    cluster: &Cluster,
    node: &Node,
    after: Vec<StepId>,
    finally: Option<String>,
) -> StepId {
    let data = quote(&cluster.inventory.postgresql.data_dir);
    let script = Script::new()
        .alone("hold-member")
        .line(format!("HELD={HELD}\nDATA={data}\n{HOLD}"))
        .line(finally.unwrap_or_default());
    plan.push(Step {
        host: node.name.clone(),
        name: "hold-member",
        why: "while it runs, it goes on with the history that is left".into(),
        after,
        changes: vec![Change::Other(
            "Patroni and PostgreSQL stop, and are not started by a reboot".into(),
        )],
        action: Action::Run(script),
        limit: STOPPING,
        units: vec!["patroni"],
    })
}

/// The last commit, of a heartbeat, is after any moment before it: without one, recovery would not find its end.
const HOLD: &str = r#"if systemctl is-active --quiet patroni; then
  setpriv --reuid=postgres --regid=postgres --init-groups /etc/pgherd/archive/heartbeat 2>/dev/null || true
fi
install -d -m 0755 "$(dirname "$HELD")"
printf '%s\n' '# The cluster is being restored. A Patroni that starts now would go on with the history that is left.' \
  '[Unit]' 'AssertPathExists=/run/pgherd/restored' | put "$HELD" root:root 0644
systemctl daemon-reload
[ "$(systemctl show -P LoadState patroni)" = not-found ] || systemctl stop patroni
pid=$(head -n 1 "$DATA/postmaster.pid" 2>/dev/null || true)
if [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = postgres ] && ! systemctl is-active --quiet pgherd-restore; then
  echo "PostgreSQL still runs, as process $pid, although Patroni has stopped" >&2
  exit 1
fi"#;

/// Until the old data is in its place, `OLD` is there; from then on `MARK` says that this is it, and not what was restored.
const BACK: &str = r#"if [ -e "$OLD" ]; then
  echo "$ID undoing" >"$MARK"
  rm -rf "$DATA.undone"
  [ ! -e "$DATA" ] || mv "$DATA" "$DATA.undone"
  mv "$OLD" "$DATA"
elif [ -e "$MARK" ] && ! grep -qxF -e "$ID begun" -e "$ID undoing" "$MARK"; then
  echo 'the data from before was not kept, and is partly overwritten' >&2
  exit 1
fi
rm -f "$MARK" "$MARK.json" "$MARK.log" "$MARK.pg"
rm -rf "$DATA.undone""#;

/// Of two places, one may still be away, which may be why the other one was restored. `check` is of all repositories in a
/// config.
const AGAIN: &str = r#"as_postgres() { setpriv --reuid=postgres --regid=postgres --init-groups pgbackrest --stanza="$STANZA" --log-level-console=warn --log-level-stderr=off "$@"; }
if [ "$PLACES" = "${PLACES% *}" ]; then
  as_postgres --config="$CONFIG" --archive-timeout=90 check
else
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  chown postgres:postgres "$folder"
  only=$folder/pgbackrest.conf
  install -o postgres -g postgres -m 0600 /dev/null "$only"
  key=0
  good=
  for place in $PLACES; do
    key=$((key + 1))
    sed -E "/^repo[^$key]-/d" "$CONFIG" >"$only"
    if as_postgres --config="$only" --io-timeout=10 --archive-timeout=90 check; then
      good=$place
    else
      echo "WARN: WAL does not get into the $place"
    fi
  done
  [ -n "$good" ] || exit 1
fi
systemctl is-active --quiet pgherd-backup@full || systemctl start --no-block pgherd-backup@full"#;

/// The settings of a restore from the cluster's own repository.
fn own(cluster: &Cluster) -> [(&'static str, String); 4] {
    [
        ("CONFIG", ARCHIVE_CONFIG.to_owned()),
        ("STANZA", cluster.name().to_owned()),
        ("LOG", format!("{MARK}.pg")),
        ("MOST", "8".to_owned()),
    ]
}

/// A program that goes on if pgherd is cut off.
struct Unit<'a> {
    name: &'static str,
    /// Options of systemd-run.
    limits: &'a str,
    /// A command that says whether it has succeeded.
    success: &'a str,
    before: &'a str,
}

impl Unit<'_> {
    fn script(
        &self,
        cluster: &Cluster,
        node: &Node,
        variables: &[(&str, String)],
        program: &str,
        options: &[String],
    ) -> Script {
        let version = node.postgresql.map(|it| it.to_string()).unwrap_or_default();
        let common = [
            ("BIN", format!("/usr/lib/postgresql/{version}/bin")),
            ("PORT", cluster.inventory.postgresql.port.to_string()),
        ];
        let settings = common.iter().chain(variables);
        let settings: Vec<String> = settings
            .map(|(name, value)| quote(&format!("--setenv={name}={value}")))
            .collect();
        let options: Vec<String> = options.iter().map(|it| quote(it)).collect();
        Script::new()
            .alone(self.name)
            .line(format!(
                "UNIT={}\nSUCCESS={}",
                self.name,
                quote(self.success)
            ))
            .line(format!(
                "begin() {{\n  systemd-run --quiet --unit={name} --description={name} -p User=postgres -p Group=postgres -p UMask=0077 {} {} \\\n    /bin/bash -c {} {name} \"$@\"\n}}",
                self.limits,
                settings.join(" "),
                quote(&format!("{INSTANCE}\n{program}")),
                name = self.name,
            ))
            .line(self.before)
            .line(format!("set -- {}", options.join(" ")))
            .line(FOLLOW)
    }
}

/// Removes the data that a restore has kept.
pub(crate) fn discard(cluster: &Cluster, host: &HostName) -> Plan {
    let dir = kept_dir(&cluster.inventory.postgresql.data_dir);
    let mut plan = Plan::default();
    plan.push(Step {
        host: host.clone(),
        name: "discard-old",
        why: "you asked for it".into(),
        after: Vec::new(),
        changes: vec![Change::Other(format!("{dir} is removed"))],
        action: Action::Run(
            Script::new()
                .alone("discard-old")
                .line(format!("rm -rf {}", quote(&dir))),
        ),
        limit: STOPPING,
        units: Vec::new(),
    });
    plan
}
