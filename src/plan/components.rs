//! Plans each service on its host: how it is configured, started and reloaded.

use std::time::Duration;

use super::{
    Action, Change, Plan, Step, StepId, belongings, data_volume,
    files::{self, Check, Difference},
    folders, new_store,
    pending::note_pending,
    told::Told,
    trial,
};
use crate::{
    cluster::{Cluster, Node},
    error::Result,
    facts::{self, Facts, UnitFact},
    inventory::Role,
    remote::{PENDING, Script, quote},
    render::{self, Effect, File, Stage},
    services::Data,
};

/// The step that writes a host's own files, before those of its services.
pub(super) const PREPARE: &str = "prepare";

/// The step that replaces the running Patroni by a new process.
pub(super) const ALONE: &str = "restart-patroni-alone";

pub(super) use crate::render::PATRONI_CONFIG;

/// A role on a host: as observed, and as it should be.
pub(super) struct Component<'a> {
    pub node: &'a Node,
    pub role: Role,
    pub facts: &'a Facts,
    /// All of the host's files.
    pub files: &'a [File],
    /// The program itself is replaced in this plan. Its unit notices that only when it restarts.
    pub replaced: bool,
    /// etcd has another store than the one that the running Patroni knows.
    pub other_store: bool,
}

/// What happens to a component's unit in this plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It runs with the right config.
    Leave,
    Start,
    Reload,
    /// Patroni restarts, and its PostgreSQL continues without interruption.
    RestartPatroniAlone,
    Restart,
}

/// A component after its files have been planned.
#[derive(Clone)]
pub(super) struct Configured {
    pub turn: Turn,
    /// The steps after which its unit can be started, reloaded or restarted.
    pub ready: Vec<StepId>,
    pub why: String,
    /// The unit runs but is not enabled at boot.
    pub enable: bool,
    /// A PostgreSQL parameter may wait for a restart afterwards.
    pub parameters: bool,
    /// It may be unable to reach the DCS: etcd is elsewhere now, or has another store; or an interrupted run noted
    /// that it must restart, so its loaded config is unknown.
    pub unheard: bool,
    /// It is starting with old files, and a start would not change that.
    pub stuck: bool,
    /// What a start does first.
    pub first: Option<String>,
    /// The content of the data directory is removed in this plan.
    pub cleared: bool,
    /// What a running Patroni knows of addresses.
    pub told: Told,
    /// The host has a note that the unit must restart, because etcd has another store.
    pub noted: bool,
}

/// The reason of a step that only corrects folders.
const CLOSED: &str = "folders have another owner or mode than pgherd gives them";

/// Plans the files that concern the whole host and need no package.
pub(super) fn prepare(
    plan: &mut Plan,
    cluster: &Cluster,
    node: &Node,
    facts: &Facts,
    files: &[File],
) -> Result<Option<StepId>> {
    let wanted = files.iter().filter(|file| file.stage == Stage::Prepare);
    let changed = files::differences(wanted, facts, cluster.name(), &cluster.secrets)
        .map_err(|error| error.on(&node.name))?;
    let folders = folders::around_files(facts, files);
    let unclaimed = belongings::unclaimed(cluster, node, facts);
    if changed.is_empty() && folders.is_empty() && unclaimed.is_empty() {
        plan.skip(&node.name, PREPARE, "the host's own files are as rendered");
        return Ok(None);
    }
    let script = Script::new().alone(PREPARE);
    let script = belongings::claim(script, cluster, node, facts);
    let script = folders.add_to(script);
    let script = files::put_all(script, &changed, Check::NONE);
    let why = if !changed.is_empty() {
        list(&changed)
    } else if !folders.is_empty() {
        CLOSED.to_owned()
    } else {
        format!("not yet in pgherd's manifest: {}", unclaimed.join(", "))
    };
    let mut changes = folders.changes;
    changes.extend(changed.into_iter().map(|changed| changed.change));
    let taken = unclaimed
        .iter()
        .filter(|path| facts.belongings.there.contains_key(**path));
    changes.extend(
        taken.map(|path| Change::Other(format!("a copy of {path} is kept, which `down` restores"))),
    );
    if changes.is_empty() {
        changes.push(Change::Other(
            "pgherd's manifest on this host is complete".into(),
        ));
    }
    Ok(Some(plan.push(Step {
        host: node.name.clone(),
        name: PREPARE,
        why,
        after: Vec::new(),
        changes,
        action: Action::Run(script),
        limit: Duration::from_secs(60),
        units: Vec::new(),
    })))
}

/// Plans a component's files on one host.
pub(super) fn configure(
    plan: &mut Plan,
    cluster: &Cluster,
    component: &Component<'_>,
    after: Vec<StepId>,
) -> Result<Configured> {
    let Component {
        node, role, facts, ..
    } = *component;
    let service = role.service();
    let names = &service.unit;
    let wanted = component
        .files
        .iter()
        .filter(|file| file.stage == Stage::Configure && file.role == Some(role));
    let changed = files::differences(wanted, facts, cluster.name(), &cluster.secrets)
        .map_err(|error| error.on(&node.name))?;
    let unit_fact = facts.unit(role.unit());
    let pending = not_taken_over(facts, role);
    let only_if = |is: bool, effect| if is { effect } else { Effect::Nothing };
    let other_store = only_if(component.other_store, Effect::RestartPatroniAlone);
    let effect = files::effect(&changed)
        .max(pending)
        .max(only_if(component.replaced, Effect::Restart))
        .max(other_store);
    // Also where no file changes: the store has keys again once the first member has restarted.
    let noted = other_store > pending;
    // Files that an earlier run wrote and that were never loaded can have any content.
    let unheard = matches!(pending, Effect::Reload | Effect::RestartPatroniAlone);
    let parameters = role == Role::Postgres
        && (unheard || changed.iter().any(|it| changes_parameters(it, facts)));
    let elsewhere = changed
        .iter()
        .any(|it| it.file.path == PATRONI_CONFIG && it.effect >= Effect::RestartPatroniAlone);
    let dirs = directories(cluster, node, role, facts);
    let folders = folders::of_data(cluster, role, facts);
    let mut ready = after.clone();
    let mut why = reason(component, &changed, &folders);
    if changed.is_empty() && dirs.is_none() && folders.is_empty() && !noted {
        plan.skip(&node.name, names.configure, "the files are as rendered");
    } else {
        let mut script = note_pending(Script::new().alone(names.configure), role, effect);
        if let Some(dirs) = &dirs {
            script = script.line(dirs);
        }
        script = folders.add_to(script);
        script = files::put_all(script, &changed, Check(&checks(cluster, role)));
        if changed
            .iter()
            .any(|changed| changed.file.path.starts_with("/etc/systemd/"))
        {
            script = script.line("systemctl daemon-reload");
        }
        let mut changes: Vec<Change> = changed.into_iter().map(|changed| changed.change).collect();
        if dirs.is_some() {
            changes.push(Change::Other(format!(
                "a data directory for {}",
                role.unit()
            )));
            if changes.len() == 1 {
                why = "its data directory is missing".into();
            }
        }
        changes.extend(folders.changes);
        let note = || Change::Other(format!("a note that {} must restart", role.unit()));
        changes.extend(noted.then(note));
        ready = vec![plan.push(Step {
            host: node.name.clone(),
            name: names.configure,
            why: why.clone(),
            after,
            changes,
            action: Action::Run(script),
            limit: Duration::from_secs(90),
            units: Vec::new(),
        })];
    }
    let turn = turn(&unit_fact, effect);
    if turn == Turn::Start {
        why = match unit_fact.active.as_str() {
            "" | "inactive" => "the unit does not run".into(),
            state if !unit_fact.is_active() => format!("the unit is {state}"),
            _ => "the unit is not enabled at boot".into(),
        };
    }
    if turn == Turn::Leave {
        plan.skip(&node.name, names.start, "the unit is active and enabled");
    }
    Ok(Configured {
        turn,
        ready,
        why,
        enable: !unit_fact.is_enabled(),
        parameters,
        unheard: pending.max(other_store) >= Effect::RestartPatroniAlone || elsewhere,
        stuck: unit_fact.active == "activating" && effect > Effect::Nothing,
        first: match role.service().data {
            Data::Database => trial::before_the_first_start(cluster, node, facts),
            Data::Store => new_store::before_it_begins(facts),
            Data::Folder { .. } | Data::Kept { .. } | Data::Nothing => None,
        },
        cleared: false,
        told: told(component),
        noted: component.other_store,
    })
}

/// Why a component's files or its unit are not left as they are.
fn reason(component: &Component<'_>, changed: &[Difference], folders: &folders::Repairs) -> String {
    if !changed.is_empty() {
        list(changed)
    } else if !folders.is_empty() {
        CLOSED.to_owned()
    } else if component.replaced {
        format!("{} itself is replaced", component.role.unit())
    } else if component.other_store {
        new_store::WHY.to_owned()
    } else {
        "an earlier run was interrupted before the unit loaded its config".to_owned()
    }
}

/// What the unit still needs because of files that earlier runs wrote.
fn not_taken_over(facts: &Facts, role: Role) -> Effect {
    match facts.pending.get(role.unit()).map(String::as_str) {
        Some("exchange") if role == Role::Postgres => Effect::RestartPatroniAlone,
        Some("restart" | "exchange") => Effect::Restart,
        Some(_) => Effect::Reload,
        None => Effect::Nothing,
    }
}

fn told(component: &Component<'_>) -> Told {
    let config = component
        .files
        .iter()
        .find(|file| file.path == PATRONI_CONFIG);
    let told = match config {
        Some(file) if component.role.keeps_database() => Told::of(component.facts, &file.content),
        _ => Told::default(),
    };
    Told {
        lost: told.lost || component.other_store,
        ..told
    }
}

/// A database that does not exist yet starts with the right config.
fn changes_parameters(difference: &Difference, facts: &Facts) -> bool {
    let file = &difference.file;
    file.path == PATRONI_CONFIG
        && facts
            .files
            .get(PATRONI_CONFIG)
            .map_or(facts.unit("patroni").is_active(), |old| {
                render::parameters_differ(&old.content, &file.content)
            })
}

fn turn(unit: &UnitFact, effect: Effect) -> Turn {
    if !unit.is_active() {
        return Turn::Start;
    }
    match effect {
        Effect::Nothing if !unit.is_enabled() => Turn::Start,
        Effect::Nothing => Turn::Leave,
        Effect::Reload => Turn::Reload,
        Effect::RestartPatroniAlone => Turn::RestartPatroniAlone,
        Effect::Restart => Turn::Restart,
    }
}

/// Replaces the running Patroni by a new process, while PostgreSQL continues.
///
/// When Patroni is asked to end, it stops PostgreSQL, unless the cluster is paused. A pause needs a DCS that
/// answers, and somebody to end the pause. So Patroni is not asked: systemd kills only Patroni and starts its
/// successor, which takes over the running PostgreSQL. This is one script on the host, and it runs to its end
/// whatever happens to pgherd. The unit's normal way of stopping is restored after it, and after a reboot.
///
/// Processes that Patroni runs beside PostgreSQL must end too: its successor would start the same ones in the
/// same folder.
pub(crate) const RESTART_PATRONI_ALONE: &str = r#"drop=/run/systemd/system/patroni.service.d
as_before() {
  rm -f "$drop/pgherd-exchange.conf"
  rmdir "$drop" 2>/dev/null || true
  systemctl daemon-reload
}
trap '' HUP PIPE TERM INT
trap as_before EXIT
if ! grep -qsxE 'initdb|pg_basebackup|pg_rewind' /proc/[0-9]*/comm; then
  mkdir -p "$drop"
  printf '[Service]\nKillMode=process\nKillSignal=SIGKILL\n' >"$drop/pgherd-exchange.conf"
fi
systemctl daemon-reload
systemctl restart patroni"#;

/// Plans what `configured` needs; returns the step, if there is one.
pub(super) fn run_unit(
    plan: &mut Plan,
    node: &Node,
    role: Role,
    configured: &Configured,
    after: &[StepId],
) -> Option<StepId> {
    let names = &role.service().unit;
    let unit = names.name;
    let (name, verb, commands): (_, _, &[&str]) = match configured.turn {
        Turn::Leave => return None,
        Turn::RestartPatroniAlone => (ALONE, "restart", &[RESTART_PATRONI_ALONE]),
        Turn::Start if configured.stuck => (
            names.start,
            "restart",
            &[
                "systemctl daemon-reload",
                "systemctl reset-failed UNIT 2>/dev/null || true",
                "systemctl enable --quiet UNIT",
                "systemctl restart --no-block UNIT",
            ],
        ),
        // A unit that failed too often does not start before its counter is reset. An etcd unit (Type=notify)
        // counts as started only when there is a quorum, so this script does not wait for it.
        Turn::Start => (
            names.start,
            "enable --now",
            &[
                "systemctl daemon-reload",
                "systemctl reset-failed UNIT 2>/dev/null || true",
                "systemctl enable --quiet UNIT",
                "systemctl start --no-block UNIT",
            ],
        ),
        // Earlier crashes say nothing about the present state.
        Turn::Reload => (
            names.reload,
            "reload",
            &[
                "systemctl reset-failed UNIT 2>/dev/null || true",
                "systemctl reload UNIT",
            ],
        ),
        // An interrupted run may have left a unit file that systemd has not read.
        Turn::Restart => (
            names.restart,
            "restart",
            &[
                "systemctl daemon-reload",
                "systemctl reset-failed UNIT 2>/dev/null || true",
                "systemctl restart UNIT",
            ],
        ),
    };
    let mut script = Script::new().alone(name);
    let mut changes = vec![match configured.turn {
        Turn::RestartPatroniAlone => {
            Change::Other("Patroni restarts; PostgreSQL keeps running".into())
        }
        Turn::Leave | Turn::Start | Turn::Reload | Turn::Restart => Change::Unit { unit, verb },
    }];
    if configured.enable && configured.turn != Turn::Start {
        script = script.line(format!("systemctl enable --quiet {unit}"));
        changes.push(Change::Unit {
            unit,
            verb: "enable",
        });
    }
    if let (Some(first), Turn::Start) = (&configured.first, configured.turn) {
        script = script.line(first);
    }
    for command in commands {
        script = script.line(command.replace("UNIT", unit));
    }
    script = script.line(format!("rm -f {PENDING}/{unit}"));
    let mut waits = configured.ready.clone();
    waits.extend(after);
    Some(plan.push(Step {
        host: node.name.clone(),
        name,
        why: configured.why.clone(),
        after: waits,
        changes,
        action: Action::Run(script),
        limit: Duration::from_secs(180),
        units: vec![unit],
    }))
}

/// The commands that create a missing data directory. They never change an existing one.
///
/// A missing parent folder is created for PostgreSQL too: Patroni renames the data directory of a failed
/// bootstrap.
fn directories(cluster: &Cluster, node: &Node, role: Role, facts: &Facts) -> Option<String> {
    let mounted = data_volume::only_if_mounted(cluster, node).unwrap_or_default();
    let id = &cluster.secrets.cluster_id;
    match role.service().data {
        Data::Database => {
            let dir = quote(&cluster.inventory.postgresql.data_dir);
            (facts.data.is_none() || facts.data_marker.as_ref() != Some(id)).then(|| {
                format!(
                    "{mounted}parent=$(dirname {dir})\n\
                     [ -d \"$parent\" ] || {{ mkdir -p \"$(dirname \"$parent\")\"; install -d -o postgres -g postgres -m 0755 \"$parent\"; }}\n\
                     [ -d {dir} ] || install -d -o postgres -g postgres -m 0700 {dir}\n\
                     chown postgres:postgres {dir}\nchmod 0700 {dir}\n\
                     # The folder above may be PostgreSQL's own: root follows no link there.\n\
                     rm -f {dir}.pgherd\n(set -C; echo {} >{dir}.pgherd)",
                    quote(id)
                )
            })
        }
        Data::Store => (!facts.etcd_data && !facts.unit(role.unit()).is_active()).then(|| {
            let dir = quote(&facts::etcd_dir(cluster.name()));
            format!("install -d -o etcd -g etcd -m 0700 {dir}")
        }),
        Data::Folder { path, owner, mode } | Data::Kept { path, owner, mode } => {
            (!is_folder(facts, path)).then(|| {
                let noted = belongings::note_tree(path);
                let dir = quote(path);
                format!("{noted}\ninstall -d -o {owner} -g {owner} -m {mode:04o} {dir}")
            })
        }
        Data::Nothing => None,
    }
}

/// How a role's files are checked before they replace good ones.
fn checks(cluster: &Cluster, role: Role) -> Vec<(&'static str, &'static str)> {
    let checkers = role.service().checkers.iter();
    checkers
        .filter(|it| cluster.wants(it.when))
        .map(|it| (it.path, it.command))
        .collect()
}

fn is_folder(facts: &Facts, path: &str) -> bool {
    let found = facts.needs.folders.get(path);
    found.is_some_and(|found| found.is_folder)
}

fn list(changed: &[Difference]) -> String {
    let paths: Vec<&str> = changed
        .iter()
        .map(|changed| changed.file.path.as_str())
        .collect();
    match paths.len() {
        0..=2 => format!("not as rendered: {}", paths.join(", ")),
        more => format!("not as rendered: {}, and {} more", paths[0], more - 1),
    }
}
