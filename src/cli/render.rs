//! `pgherd render` where it touches no host: what would change, or the files alone.

use std::{
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

use serde_json::json;

use super::{Global, plan as plan_verb};
use crate::{
    cluster::Address,
    engine::{
        context::{self, Base},
        hosts::Outlook,
        preview::Prospect,
    },
    error::{Error, Kind, Result},
    event::Events,
    facts::Os,
    inventory::HostName,
    provider::{Machine, MachineState},
    render::{self, File, Visibility},
    report::{self, Terminal},
    workspace::Renewal,
    workspace::Workspace,
};

/// Shows what `render` would change, on the hosts that can be reached; with `check`, anything is an
/// error of its own kind.
pub(super) async fn compare(global: &Global, check: bool, terminal: &Terminal) -> Result<()> {
    Base::there(global).await?;
    let base = Base::new(global, Workspace::preview)?;
    let outlook = base.outlook().await?;
    if outlook.running.is_empty() {
        return Err(context::no_hosts(&base.inventory));
    }
    let (events, _quiet) = Events::channel();
    let mut site = base.connect(&outlook.running, &events).await?;
    site.resting.clone_from(&outlook.stopped);
    let looked = site.look().await.and_then(|sight| {
        terminal.conceal(sight.cluster.secrets.values());
        let sight = sight.not_mixed_up()?;
        let plan = sight.plan()?;
        Ok((plan, sight.dark))
    });
    site.close().await;
    let (plan, dark) = looked?;
    let absent = outlook.absent();
    let seen = Outlook {
        stopped: Vec::new(),
        missing: Vec::new(),
        ..outlook
    };
    let seen = Prospect {
        outlook: seen,
        ..Prospect::of_plan(plan)
    };
    if terminal.json {
        let mut document = plan_verb::document(&base, &seen);
        document["not_compared"] = json!(not_compared(&dark, &absent));
        terminal.print_json(&document);
    } else {
        terminal.print(&text(&base, &seen, &dark, &absent, terminal));
    }
    if check && !seen.is_empty() {
        let render = context::typed(&base.inventory.path, "render");
        return Err(
            Error::new(Kind::Pending, "changes are pending").hint(format!("make them: {render}"))
        );
    }
    if check && !(dark.is_empty() && absent.is_empty()) {
        let names = not_compared(&dark, &absent).join(", ");
        return Err(Error::failed(format!("not compared: {names}"))
            .cause("nothing differs on the hosts that could be looked at")
            .hint(format!(
                "how they are: {}",
                context::typed(&base.inventory.path, "status")
            )));
    }
    Ok(())
}

fn text(
    base: &Base,
    seen: &Prospect,
    dark: &[Error],
    absent: &[HostName],
    terminal: &Terminal,
) -> String {
    let mut text = String::new();
    for error in dark {
        text.push_str(&format!("? {error}; not compared\n"));
    }
    for host in absent {
        text.push_str(&format!("? {host}: the host does not run; not compared\n"));
    }
    let left_out = dark.len() + absent.len();
    if seen.is_empty() && left_out > 0 {
        let rest = base.inventory.hosts.len() - left_out;
        let rest = report::count(rest, "other host");
        text.push_str(&format!("nothing to do on the {rest}\n"));
        return text;
    }
    text.push_str(&plan_verb::text(base, seen, terminal));
    text
}

fn not_compared(dark: &[Error], absent: &[HostName]) -> Vec<String> {
    let dark = dark.iter().filter_map(Error::host);
    dark.chain(absent).map(HostName::to_string).collect()
}

/// Writes every file of every host below `dir`, and asks no host for anything.
pub(super) async fn out(global: &Global, dir: &Path, terminal: &Terminal) -> Result<()> {
    let base = Base::new(global, Workspace::preview)?;
    terminal.conceal(base.workspace.secrets()?.values());
    let mut notes = Vec::new();
    if Workspace::existing(&base.inventory)?.is_none() {
        notes.push(
            "there is no such cluster yet: passwords, keys and certificates are made up for this, \
             and `up` will make others"
                .to_owned(),
        );
    }
    let machines = match base.outlook().await {
        Ok(outlook) => outlook.running,
        Err(error) => {
            notes.push(format!(
                "where the hosts are now cannot be found out: {error}"
            ));
            remembered(&base)?
        }
    };
    let os = Os::expected(&base.inventory);
    let cluster = base.cluster(&machines, base.workspace.tls()?, Renewal::Due, |_| {
        os.clone()
    })?;
    for node in cluster.nodes.values() {
        if let Address::Pending(host) = &node.address {
            notes.push(format!(
                "{host} has no address yet: its files say `{}`",
                node.address
            ));
        }
    }
    let mut written = Vec::new();
    for (host, files) in render::render(&cluster, &base.templates)? {
        for file in files {
            let path = dir
                .join(host.as_str())
                .join(file.path.trim_start_matches('/'));
            write(&path, &file)?;
            written.push(path);
        }
    }
    if terminal.json {
        terminal.print_json(&json!({"written": written, "notes": notes}));
    } else {
        for note in &notes {
            terminal.say(&format!("note: {note}"));
        }
        terminal.say(&format!(
            "wrote {} of {} below {}; no host was touched",
            report::count(written.len(), "file"),
            report::count(cluster.nodes.len(), "host"),
            dir.display()
        ));
    }
    Ok(())
}

/// The hosts where the last run had them, or where the inventory has them.
fn remembered(base: &Base) -> Result<Vec<Machine>> {
    let known = Workspace::existing(&base.inventory)?
        .map(|workspace| workspace.known_addresses())
        .transpose()?
        .unwrap_or_default();
    let hosts = base.inventory.hosts.iter();
    Ok(hosts
        .filter_map(|(name, host)| {
            let address = host.address.or(known.get(name).copied())?;
            Some(Machine {
                host: name.clone(),
                id: name.to_string(),
                state: MachineState::Running,
                address: Some(address),
                ssh_address: None,
                host_key: None,
                published_on: None,
                cluster_id: None,
            })
        })
        .collect())
}

/// Whoever may not read it on the host may not read it here either.
fn write(path: &Path, file: &File) -> Result<()> {
    let failed = |error: std::io::Error| {
        Error::failed(format!("cannot write {}", path.display())).because(error)
    };
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)
            .map_err(failed)?;
    }
    let mode = match file.visibility {
        Visibility::Public => file.mode,
        Visibility::Masked | Visibility::Hidden => 0o600,
    };
    // A file that is there keeps its mode when it is only opened.
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut opened| opened.write_all(file.content.as_bytes()))
        .map_err(failed)
}
