//! `pgherd plan`.

use serde_json::{Value, json};

use super::{
    Global,
    prospect::Prospect,
    site::{self, Base},
};
use crate::{
    error::{Error, Kind, Result},
    plan::{Action, Change, Step},
    report::{self, Terminal},
    workspace::Workspace,
};

pub(super) async fn run(global: &Global, check: bool, terminal: &Terminal) -> Result<()> {
    let base = Base::new(global, Workspace::preview)?;
    let (outlook, drift) = tokio::try_join!(base.outlook(), base.provider.drift())?;
    let prospect = base.prospect(outlook, drift).await?;
    terminal.conceal(base.workspace.secrets()?.values());
    if terminal.json {
        terminal.print_json(&document(&base, &prospect));
    } else {
        terminal.print(&text(&base, &prospect, terminal));
    }
    if check && !prospect.is_empty() {
        let up = site::typed(&base.inventory.path, "up");
        return Err(
            Error::new(Kind::Pending, "changes are pending").hint(format!("make them: {up}"))
        );
    }
    Ok(())
}

/// The whole plan, for people.
pub(super) fn text(base: &Base, prospect: &Prospect, terminal: &Terminal) -> String {
    let Prospect { outlook, plan, .. } = prospect;
    let mut text = String::new();
    let mut line = |words: &str| {
        text.push_str(words);
        text.push('\n');
    };
    if !base.inventory.tls.enabled {
        line(site::PLAINTEXT);
    }
    for host in &outlook.missing {
        let roles: Vec<&str> = base.inventory.hosts[host]
            .roles
            .iter()
            .map(|role| role.as_str())
            .collect();
        line(&format!(
            "+ host {host} ({}) is launched by {}",
            roles.join(", "),
            base.inventory.provider.kind()
        ));
    }
    for machine in &outlook.stopped {
        line(&format!("~ host {} is started", machine.host));
    }
    for moving in &outlook.moving {
        line(&moving.to_string());
    }
    for note in &prospect.notes {
        line(&format!("+ {note}"));
    }
    for drift in &prospect.drift {
        line(&format!("~ {drift}"));
    }
    for host in &outlook.strangers {
        line(&format!(
            "  host {host} belongs to the cluster and is not in the inventory; it is left alone"
        ));
    }
    for dark in &prospect.dark {
        line(&format!("  host {dark}"));
    }
    for host in prospect.unseen() {
        line(&format!(
            "  what {host} still needs is known once it can be seen"
        ));
    }
    if prospect.is_empty() {
        line(&format!(
            "nothing to do: {} are as the inventory says",
            report::count(base.inventory.hosts.len(), "host")
        ));
        return text;
    }
    for (id, step) in plan.steps.iter().enumerate() {
        text.push_str(&step_text(id, step, terminal));
    }
    let waits = plan.steps.len() - plan.changes();
    text.push_str(&format!(
        "\n{} to launch or start, {} that change something, {}, {} already right\n",
        report::count(outlook.absent().len(), "host"),
        report::count(plan.changes(), "step"),
        report::count(waits, "wait"),
        plan.unchanged.len()
    ));
    if terminal.verbose > 0 {
        for right in &plan.unchanged {
            text.push_str(&format!(
                "= {} {}: {}\n",
                right.host, right.name, right.reason
            ));
        }
    }
    text
}

fn step_text(id: usize, step: &Step, terminal: &Terminal) -> String {
    let mark = if step.changes_something() { '~' } else { ' ' };
    let after: Vec<String> = step.after.iter().map(|id| (id + 1).to_string()).collect();
    let after = if after.is_empty() {
        String::new()
    } else {
        format!("  [after {}]", after.join(", "))
    };
    let mut text = format!(
        "{mark} {:>2}. {} {}: {}{after}\n",
        id + 1,
        step.host,
        step.name,
        step.why
    );
    for change in &step.changes {
        text.push_str(&change_text(change, terminal));
    }
    text
}

fn change_text(change: &Change, terminal: &Terminal) -> String {
    let value = |value: &Option<Value>| value.as_ref().map_or("(default)".into(), Value::to_string);
    match change {
        Change::Package(package) => format!("      + package {package}\n"),
        Change::Unit { unit, verb } => format!("      ~ systemctl {verb} {unit}\n"),
        Change::Setting { key, from, to } => {
            format!("      ~ {key}: {} -> {}\n", value(from), value(to))
        }
        Change::Other(what) => format!("      ~ {what}\n"),
        Change::File {
            path,
            old,
            new,
            note,
        } => {
            let mut text = match new {
                None => format!("      ~ {path} (its contents are not shown)\n"),
                Some(new) if old.as_ref() != Some(new) => {
                    indent(&report::diff(terminal, old.as_deref(), new, path))
                }
                Some(_) if note.is_none() => format!("      ~ {path} (only secrets differ)\n"),
                Some(_) => String::new(),
            };
            if let Some(note) = note {
                text.push_str(&format!("      ~ {path}: {note}\n"));
            }
            text
        }
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("      {line}\n")).collect()
}

/// The whole plan, for programs.
pub(super) fn document(base: &Base, prospect: &Prospect) -> Value {
    let Prospect { outlook, plan, .. } = prospect;
    let stopped = outlook.stopped.iter().map(|machine| &machine.host);
    let steps: Vec<Value> = plan
        .steps
        .iter()
        .enumerate()
        .map(|(id, step)| {
            json!({
                "id": id,
                "host": step.host,
                "name": step.name,
                "why": step.why,
                "after": step.after,
                "action": action(&step.action),
                "changes": step.changes.iter().map(change_json).collect::<Vec<_>>(),
            })
        })
        .collect();
    let unchanged: Vec<Value> = plan
        .unchanged
        .iter()
        .map(|right| json!({"host": right.host, "name": right.name, "reason": right.reason}))
        .collect();
    let moves: Vec<Value> = outlook
        .moving
        .iter()
        .map(|it| json!({"host": it.host, "from": it.from, "to": it.to}))
        .collect();
    json!({
        "cluster": base.inventory.cluster,
        "tls": base.inventory.tls.enabled,
        "launch": outlook.missing,
        "start": stopped.collect::<Vec<_>>(),
        "move": moves,
        "also": prospect.notes,
        "amend": prospect.drift,
        "unseen": prospect.unseen(),
        "steps": steps,
        "unchanged": unchanged,
        "changes": plan.changes() + outlook.absent().len() + outlook.moving.len() + prospect.drift.len(),
    })
}

fn action(action: &Action) -> &'static str {
    match action {
        Action::Run(_) => "run",
        Action::RunOnLeader(_) => "run_on_leader",
        Action::Await(_) => "await",
        Action::PatchConfig(_) => "patch_config",
        Action::RestartPending => "restart_pending",
        Action::ReleaseBootstrap { .. } => "release_bootstrap",
        Action::HandOver => "hand_over",
        Action::ForgetMember => "forget_member",
        Action::Wake => "wake",
        Action::TakeOver => "take_over",
        Action::UpdateEtcdMember { .. } => "update_etcd_member",
    }
}

fn change_json(change: &Change) -> Value {
    match change {
        Change::Package(package) => json!({"kind": "package", "name": package}),
        Change::Unit { unit, verb } => json!({"kind": "unit", "unit": unit, "verb": verb}),
        Change::Setting { key, from, to } => {
            json!({"kind": "setting", "key": key, "from": from, "to": to})
        }
        Change::Other(what) => json!({"kind": "other", "what": what}),
        Change::File {
            path,
            old,
            new,
            note,
        } => json!({"kind": "file", "path": path, "old": old, "new": new, "note": note}),
    }
}
