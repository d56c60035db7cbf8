//! `pgherd plan`.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{Global, PLAINTEXT, console::Console, retire};
use crate::{
    engine::{at_work::AtWork, context::Context, preview::Preview, unfinished},
    error::{Code, Error, Result},
    inventory::HostName,
    plan::{Action, Change, PAUSED, Step, how_to_resume, retire::Departures},
    quantity::{agree, count},
    report::{self, Terminal},
    workspace::{Workspace, certificates_in_words},
};

mod summary;

pub(super) async fn run(global: &Global, check: bool, terminal: &Terminal) -> Result<()> {
    let mut context = global
        .open(&Console::new(terminal, false), Workspace::preview)
        .await?;
    context.leaving = Departures::Shown;
    let preview = Preview::of_all(&context).await?;
    if let Some(work) = &preview.at_work {
        terminal.say(&format!("note: {work}"));
    }
    if let Some(note) = unfinished::lost_key(&context)? {
        terminal.say(&note);
    }
    if terminal.json {
        terminal.print_json(&document(&context, &preview));
    } else {
        terminal.print(&text(&context, &preview, terminal));
    }
    if check && !preview.is_empty() {
        let up = context.command("up");
        return Err(Error::new(Code::ChangesPending, "changes are pending")
            .hint(format!("make them: {up}")));
    }
    Ok(())
}

/// The lines about changes of membership. A line that belongs to the one before is indented.
pub(super) fn membership(words: &str) -> String {
    match words.starts_with(' ') {
        true => format!("  {words}"),
        false => format!("~ {words}"),
    }
}

/// The whole plan, as text for people.
pub(super) fn text(context: &Context, preview: &Preview, terminal: &Terminal) -> String {
    let Preview { hosts, plan, .. } = preview;
    let mut text = String::new();
    let mut line = |words: &str| {
        text.push_str(words);
        text.push('\n');
    };
    if !context.inventory.tls.enabled {
        line(PLAINTEXT);
    }
    for words in &plan.membership {
        line(&membership(words));
    }
    for departure in retire::planned(context, preview) {
        line(&departure);
    }
    for host in &hosts.missing {
        let roles: Vec<&str> = context.inventory.hosts[host]
            .roles
            .iter()
            .map(|role| role.as_str())
            .collect();
        line(&format!(
            "+ host {host} ({}) is launched by {}",
            roles.join(", "),
            context.inventory.provider.kind().as_str()
        ));
    }
    for machine in &hosts.stopped {
        line(&format!("~ host {} is started", machine.host));
    }
    for moving in &hosts.moving {
        line(&moving.to_string());
    }
    for note in &preview.notes {
        line(&format!("+ {note}"));
    }
    for doubt in &preview.doubts {
        line(&format!("  note: {doubt}"));
    }
    for drift in &preview.drift {
        line(&format!("~ {drift}"));
    }
    for left in hosts.left.iter().filter(|left| !left.member) {
        let remove = retire::command(context, left);
        line(&format!(
            "  host {left}; it is left alone, and `{remove}` removes it"
        ));
    }
    for unreachable in &preview.unreachable {
        line(&format!("  host {unreachable}"));
    }
    for host in preview.unseen() {
        line(&format!(
            "  what {host} still needs is known once pgherd can connect to it"
        ));
    }
    if plan.mounts {
        line("  what else is needed is known once the data volumes are mounted");
    } else if plan.partial {
        line("  what the databases need is known once etcd answers");
    }
    if plan.paused {
        line(&format!("! {PAUSED}"));
        line(&format!("  {}", how_to_resume(&context.inventory)));
    }
    if preview.is_empty() {
        line(&format!(
            "nothing to do: {} {} as the inventory says",
            count(context.inventory.hosts.len(), "host"),
            agree(context.inventory.hosts.len(), "is", "are")
        ));
        return text;
    }
    for (hosts, tuned) in &preview.tuning {
        let hosts: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
        line(&format!("  tuned to the size of {}:", hosts.join(", ")));
        for it in tuned {
            line(&format!("      {} = {} ({})", it.name, it.value, it.why));
        }
    }
    text.push_str(&steps_text(preview, terminal));
    text
}

/// All steps, a long plan's after what each host gets.
fn steps_text(preview: &Preview, terminal: &Terminal) -> String {
    let Preview { hosts, plan, .. } = preview;
    let mut text = String::new();
    let waits = plan.steps.len() - plan.changes();
    let all = format!(
        "{} to launch or start, {} that change something, {}, {} already right\n",
        count(hosts.absent().len(), "host"),
        count(plan.changes(), "step"),
        count(waits, "wait"),
        plan.unchanged.len()
    );
    let by_host = summary::by_host(plan);
    if !by_host.is_empty() {
        text.push_str(&format!("\n{all}{by_host}\nthe steps:\n"));
    }
    let mut shown = HashMap::new();
    for (id, step) in plan.steps.iter().enumerate() {
        text.push_str(&step_text(id, step, &mut shown, terminal));
    }
    text.push_str(&format!("\n{all}"));
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

/// Files whose change has been shown, by the host for which it was.
type Shown<'a> = HashMap<(&'a str, Option<&'a str>, Option<&'a str>), &'a HostName>;

fn step_text<'a>(id: usize, step: &'a Step, shown: &mut Shown<'a>, terminal: &Terminal) -> String {
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
        let host = as_on(change, &step.host, shown).filter(|_| terminal.verbose == 0);
        text.push_str(&change_text(change, host, terminal));
    }
    text
}

/// The host for which the same change of a file has been shown already.
fn as_on<'a>(
    change: &'a Change,
    host: &'a HostName,
    shown: &mut Shown<'a>,
) -> Option<&'a HostName> {
    let Change::File {
        path,
        old,
        new: Some(new),
        ..
    } = change
    else {
        return None;
    };
    let key = (path.as_str(), old.as_deref(), Some(new.as_str()));
    let first = *shown.entry(key).or_insert(host);
    (first != host && old.as_ref() != Some(new)).then_some(first)
}

fn change_text(change: &Change, as_on: Option<&HostName>, terminal: &Terminal) -> String {
    let value = |value: &Option<Value>| value.as_ref().map_or("(default)".into(), Value::to_string);
    match change {
        Change::Package(package) => format!("      + package {package}\n"),
        Change::Unit { unit, verb } => format!("      ~ systemctl {verb} {unit}\n"),
        Change::Setting { key, from, to } => {
            format!("      ~ {key}: {} -> {}\n", value(from), value(to))
        }
        Change::Folder { what, .. } | Change::Other(what) => format!("      ~ {what}\n"),
        Change::File {
            path,
            old,
            new,
            note,
        } => {
            let mut text = match (new, as_on) {
                (None, _) => format!("      ~ {path} (its contents are not shown)\n"),
                (Some(_), Some(host)) => format!("      ~ {path}: as on {host}\n"),
                (Some(new), None) if old.as_ref() != Some(new) => {
                    indent(&file_diff(terminal, old.as_deref(), new, path))
                }
                (Some(_), None) if note.is_none() => {
                    format!("      ~ {path} (only secrets differ)\n")
                }
                (Some(_), None) => String::new(),
            };
            if let Some(note) = note {
                text.push_str(&format!("      ~ {path}: {note}\n"));
            }
            text
        }
    }
}

/// The diff of a file. Certificates are described in words instead of base64.
fn file_diff(terminal: &Terminal, old: Option<&str>, new: &str, path: &str) -> String {
    let told = [old.unwrap_or_default(), new].map(certificates_in_words);
    let [told_old, told_new] = &told;
    // The file has the same certificates, written differently.
    if old.is_some() && told_old == told_new {
        return report::diff(terminal, old, new, path);
    }
    report::diff(terminal, old.map(|_| told_old.as_str()), told_new, path)
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("      {line}\n")).collect()
}

/// The whole plan, as JSON for programs.
pub(super) fn document(context: &Context, preview: &Preview) -> Value {
    let Preview { hosts, plan, .. } = preview;
    let stopped = hosts.stopped.iter().map(|machine| &machine.host);
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
    let moves: Vec<Value> = hosts
        .moving
        .iter()
        .map(|it| json!({"host": it.host, "from": it.from, "to": it.to}))
        .collect();
    let hosts_leave = preview.leaving().map(|left| {
        json!({
            "host": left.name,
            "roles": left.roles,
            "stays": false,
            "lost": retire::lost(context, left),
            "command": retire::command(context, left),
        })
    });
    let roles_leave = plan.taken_off.iter().map(|taken| {
        json!({
            "host": taken.host,
            "roles": taken.roles,
            "stays": true,
            "lost": retire::lost_with(context, taken),
            "command": retire::remove(context, &taken.host),
        })
    });
    let tuning = preview.tuning.iter();
    let tuning = tuning.map(|(hosts, tuned)| json!({"hosts": hosts, "parameters": tuned}));
    let leave: Vec<Value> = hosts_leave.chain(roles_leave).collect();
    json!({
        "cluster": context.inventory.cluster,
        "tls": context.inventory.tls.enabled,
        "launch": hosts.missing,
        "start": stopped.collect::<Vec<_>>(),
        "move": moves,
        "also": preview.notes,
        "doubts": preview.doubts,
        "image": preview.image.as_ref().map(|it| it.document(jiff::Timestamp::now())),
        "amend": preview.drift,
        "unseen": preview.unseen(),
        "at_work": preview.at_work.as_ref().map(AtWork::document),
        "left_inventory": hosts.left,
        "membership": plan.membership,
        "tuning": tuning.collect::<Vec<_>>(),
        "leave": leave,
        "steps": steps,
        "unchanged": unchanged,
        "paused": plan.paused,
        "partial": plan.partial,
        "changes": plan.changes() + hosts.absent().len() + hosts.moving.len() + preview.drift.len() + leave.len(),
    })
}

fn action(action: &Action) -> &'static str {
    match action {
        Action::Run(_) => "run",
        Action::RunOnLeader(_) => "run_on_leader",
        Action::Await(_) => "await",
        Action::TryParameters(_) => "try_parameters",
        Action::PatchConfig(_) => "patch_config",
        Action::RestartPending => "restart_pending",
        Action::ReleaseBootstrap { .. } => "release_bootstrap",
        Action::HandOver => "hand_over",
        Action::SetPause(_) => "set_pause",
        Action::Reinitialize => "reinitialize",
        Action::RestartPostgres { .. } => "restart_postgres",
        Action::Reboot { .. } => "reboot",
        Action::FailOver => "fail_over",
        Action::ForgetMember => "forget_member",
        Action::ForgetPosition => "forget_position",
        Action::AdoptSystem { .. } => "adopt_system",
        Action::ForbidElection(_) => "forbid_election",
        Action::LeadElsewhere { .. } => "lead_elsewhere",
        Action::DropSlot { .. } => "drop_slot",
        Action::Wake => "wake",
        Action::TakeOver => "take_over",
        Action::UpdateEtcdMember { .. } => "update_etcd_member",
        Action::AddEtcdMember { .. } => "add_etcd_member",
        Action::PromoteEtcdMember => "promote_etcd_member",
        Action::RemoveEtcdMember { .. } => "remove_etcd_member",
    }
}

fn change_json(change: &Change) -> Value {
    match change {
        Change::Package(package) => json!({"kind": "package", "name": package}),
        Change::Unit { unit, verb } => json!({"kind": "unit", "unit": unit, "verb": verb}),
        Change::Setting { key, from, to } => {
            json!({"kind": "setting", "key": key, "from": from, "to": to})
        }
        Change::Folder { what, .. } | Change::Other(what) => json!({"kind": "other", "what": what}),
        Change::File {
            path,
            old,
            new,
            note,
        } => json!({"kind": "file", "path": path, "old": old, "new": new, "note": note}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = include_str!("../../tests/golden/certificates/before.crt");
    const AFTER: &str = include_str!("../../tests/golden/certificates/after.crt");
    const CA: &str = include_str!("../../tests/golden/certificates/ca.crt");

    #[test]
    fn certificates_are_told_in_words() {
        let terminal = Terminal::default();
        let told = file_diff(&terminal, Some(BEFORE), AFTER, "/server.crt");
        insta::assert_snapshot!(told, @"
        --- /server.crt
        +++ /server.crt
        @@ -1,11 +1,11 @@
         certificate: node1
        -  serial: 04:70:49:62:f1:4f:54:3f:8f:e5:9b:f1:a9:ec:05:50
        +  serial: 04:0f:fd:b0:12:46:10:ae:af:f9:00:cd:9e:44:5d:f0
           issuer: pgherd pg
           valid until: 2029-02-27 22:10 UTC
           use: server and client
           name: haproxy
           name: localhost
           name: node1
        -  address: 10.0.0.1
           address: 10.0.0.5
        +  address: 10.0.0.21
           address: 127.0.0.1
        ");
        insta::assert_snapshot!(file_diff(&terminal, None, CA, "/ca.crt"), @"
        --- /dev/null
        +++ /ca.crt
        @@ -0,0 +1,4 @@
        +authority: pgherd pg
        +  serial: 52:eb:7a:1c:ed:2a:4c:c5:1d:6c:b2:34:fb:7b:88:64:f8:a0:8a:84
        +  issuer: pgherd pg
        +  valid until: 2036-11-22 22:10 UTC
        ");
        // An authority that is being introduced, and the lines around a certificate.
        let (old, new) = (format!("a\n{CA}b\n"), format!("a\n{CA}\n{AFTER}b\n"));
        insta::assert_snapshot!(file_diff(&terminal, Some(&old), &new, "/ca.crt"), @"
        --- /ca.crt
        +++ /ca.crt
        @@ -3,4 +3,16 @@
           serial: 52:eb:7a:1c:ed:2a:4c:c5:1d:6c:b2:34:fb:7b:88:64:f8:a0:8a:84
           issuer: pgherd pg
           valid until: 2036-11-22 22:10 UTC
        +
        +certificate: node1
        +  serial: 04:0f:fd:b0:12:46:10:ae:af:f9:00:cd:9e:44:5d:f0
        +  issuer: pgherd pg
        +  valid until: 2029-02-27 22:10 UTC
        +  use: server and client
        +  name: haproxy
        +  name: localhost
        +  name: node1
        +  address: 10.0.0.5
        +  address: 10.0.0.21
        +  address: 127.0.0.1
         b
        ");
    }

    #[test]
    fn a_difference_that_words_do_not_show_is_shown_as_it_is() {
        let terminal = Terminal::default();
        let windows = CA.trim_end().replace('\n', "\r\n") + "\n";
        let told = file_diff(&terminal, Some(&windows), CA, "/ca.crt");
        assert!(told.contains("+-----BEGIN CERTIFICATE-----"), "{told}");
        let cut = &AFTER[..AFTER.len() / 2];
        let told = file_diff(&terminal, Some(cut), AFTER, "/server.crt");
        assert!(told.contains("------BEGIN CERTIFICATE-----"), "{told}");
        assert!(told.contains("+certificate: node1"), "{told}");
    }
}
