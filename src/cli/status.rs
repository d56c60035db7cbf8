//! `pgherd status`.

use std::mem;

use serde_json::{Map, Value, json};

use super::{Global, PLAINTEXT, certificates, console::Console};
use crate::{
    cluster::FrontDoors,
    engine::{
        at_work::{self, AtWork},
        context::Context,
        drill::repair,
        hosts::HostStatus,
        image, prove,
        status::{self, Mark, Rows, Status},
        unfinished,
    },
    error::{Error, Result},
    inventory::HostName,
    report::{Table, Terminal, Tone},
    verify::Filesystem,
};

/// The exit code of `status --check` for a cluster that is not healthy, as of `verify`.
const NOT_HEALTHY: u8 = 3;

/// `pgherd status`; with `check`, the exit code also says whether the cluster is healthy.
pub(super) async fn run(global: &Global, check: bool, terminal: &Terminal) -> Result<u8> {
    let (context, hosts) = hosts(global, terminal).await?;
    let status = status::look(&context, &hosts).await?;
    if terminal.json {
        let mut document = whole(&status, &context, &hosts).await;
        let mut passed = true;
        if check {
            status.of_all()?;
            let proof = prove::without_writing(&context).await?;
            passed = proof.passed;
            document["checks"] = json!(proof.checks);
        }
        terminal.print_json(&document);
        return Ok(if passed { 0 } else { NOT_HEALTHY });
    }
    print(&status, &context, &hosts.absent(), terminal);
    for note in unfinished::notes(&context)? {
        terminal.say(&note);
    }
    for note in image::notes(&context).await {
        terminal.say(&format!("note: {note}"));
    }
    if !check {
        return Ok(0);
    }
    status.of_all()?;
    let proof = prove::without_writing(&context).await?;
    for failed in proof.checks.iter().filter(|it| !it.passed) {
        terminal.say(&format!("FAILED {}: {}", failed.name, failed.detail));
    }
    if proof.passed {
        terminal.say("healthy, as far as can be seen without writing");
        return Ok(0);
    }
    Ok(NOT_HEALTHY)
}

/// The whole status, as one document.
pub(super) async fn whole(status: &Status, context: &Context, hosts: &HostStatus) -> Value {
    let image = image::next(context).await;
    let image = image.map(|it| it.document(jiff::Timestamp::now()));
    let mut document = document(status, context, hosts);
    document["image"] = image.into();
    document
}

/// The cluster's hosts, at least one of which runs.
pub(super) async fn hosts(global: &Global, terminal: &Terminal) -> Result<(Context, HostStatus)> {
    let context = global.existing(&Console::new(terminal, false)).await?;
    repair::notice(&context)?;
    let hosts = context.host_status().await?;
    hosts
        .some(&context)
        .map_err(|error| at_work::explain(&context, error))?;
    Ok((context, hosts))
}

fn print(status: &Status, context: &Context, absent: &[HostName], terminal: &Terminal) {
    for (n, service) in status.services.iter().enumerate() {
        if let Some(rows) = &service.table {
            table(rows).print(terminal);
        }
        if let Some(line) = &service.instead {
            terminal.say(line);
        }
        // Shown right below the members, because this run may be changing them.
        if let Some(work) = status.at_work().filter(|_| n == 0) {
            terminal.say(&work.to_string());
        }
    }
    let mut units = Table::new(["service", "host", "state"]);
    for unit in status.units() {
        let tone = if unit.active { Tone::Plain } else { Tone::Bad };
        units.toned_row(tone, [unit.service, &unit.host, &unit.state]);
    }
    if status.units().next().is_some() {
        units.print(terminal);
    }
    for line in load_balancer(status) {
        terminal.say(&line);
    }
    if let Some(lost) = &status.lost {
        let instead = lost.hints().first();
        let instead = instead.map_or_else(String::new, |it| format!("; {it}"));
        terminal.say(&format!("! {}{instead}", lost.what()));
    }
    for finding in &status.differs {
        let instead = context.with_options(&finding.instead.replace('\n', "; "));
        terminal.say(&format!("! {}; {instead}", finding.what));
    }
    for left in status.left.iter().filter(|left| !left.member) {
        terminal.say(&format!("host {left}; `down` takes it along"));
    }
    for told in status.disks.iter().filter_map(Filesystem::nearly_full) {
        terminal.say(&format!("! {told}"));
    }
    let warnings = status.services.iter().flat_map(|it| &it.warnings);
    let differences = status.services.iter().flat_map(|it| &it.differences);
    for line in warnings.chain(differences) {
        terminal.say(line);
    }
    if let Some(text) =
        certificates::sentence(&status.certificates, context, jiff::Timestamp::now())
    {
        terminal.say(&text);
    }
    if !context.inventory.tls.enabled {
        terminal.say(PLAINTEXT);
    }
    for host in absent {
        terminal.say(&match status.lost {
            // `up` refuses; what brings them back was said above.
            Some(_) => format!("{host} does not run"),
            None => format!("{host} does not run; start it: {}", context.command("up")),
        });
    }
    for error in &status.observed.unreachable {
        terminal.say(&match error.host() {
            Some(host) => format!("! {host} was not reached: {}", error.told_of(host)),
            None => format!("! {error}"),
        });
    }
}

/// What is before the front doors, a line for it and one for each that it leads no client to.
fn load_balancer(status: &Status) -> Vec<String> {
    let balancer = match &status.balancer {
        Ok(None) => return Vec::new(),
        Ok(Some(balancer)) => balancer,
        Err(error) => return vec![format!("the load balancer: {error}")],
    };
    let Some(address) = &balancer.address else {
        return vec![format!("load balancer {}: it is not there", balancer.name)];
    };
    let healthy = balancer.targets.iter().filter(|it| it.healthy);
    let healthy: Vec<String> = healthy
        .map(|it| format!("{}:{}", it.host, it.port))
        .collect();
    let mut lines = vec![format!(
        "load balancer {address} ({}) leads to {}",
        balancer.state,
        match healthy.as_slice() {
            [] => "no front door".to_owned(),
            some => some.join(", "),
        }
    )];
    let ill = balancer.targets.iter().filter(|it| !it.healthy);
    lines.extend(ill.map(|it| {
        let why = it.why.as_ref();
        let why = why.map_or_else(String::new, |why| format!(" ({why})"));
        format!(
            "! it leads no client to {}:{}: {}{why}",
            it.host, it.port, it.state
        )
    }));
    lines
}

fn balancer_document(status: &Status) -> Value {
    match &status.balancer {
        Ok(None) => Value::Null,
        Err(error) => json!({"error": error.to_string()}),
        Ok(Some(balancer)) => json!({
            "name": balancer.name,
            "address": balancer.address,
            "state": balancer.state,
            "targets": balancer.targets.iter().map(|it| json!({
                "host": it.host,
                "port": it.port,
                "state": it.state,
                "why": it.why,
            })).collect::<Vec<_>>(),
        }),
    }
}

fn disk(disk: &Filesystem) -> Value {
    json!({
        "host": disk.host,
        "filesystem": disk.target,
        "holds": disk.holds,
        "used_percent": disk.used_percent,
        "free_mib": disk.free_mib,
        "nearly_full": disk.nearly_full().is_some(),
    })
}

fn table(rows: &Rows) -> Table {
    let mut table = Table::new(rows.head.iter().copied());
    if let Some(title) = &rows.title {
        table = table.title(title);
    }
    for (mark, cells) in &rows.body {
        let tone = match mark {
            Mark::Plain => Tone::Plain,
            Mark::Good => Tone::Good,
            Mark::Bad => Tone::Bad,
            Mark::Idle => Tone::Dim,
        };
        table.toned_row(tone, cells);
    }
    table
}

fn document(status: &Status, context: &Context, hosts: &HostStatus) -> Value {
    let ports = &context.inventory.haproxy;
    let doors = FrontDoors::of(&context.inventory, &hosts.running);
    let mut document = Map::from_iter([(
        "cluster".to_owned(),
        context.inventory.cluster.as_str().into(),
    )]);
    for service in &status.services {
        document.extend(service.document.clone());
    }
    let mut rest = json!({
        "at_work": status.at_work().as_ref().map(AtWork::document),
        "tls": context.inventory.tls.enabled,
        "certificates": certificates::document(&status.certificates),
        "left_inventory": status.left,
        "membership": status.differs.iter().map(|finding| &finding.what).collect::<Vec<_>>(),
        "not_running": hosts.absent(),
        "connect": {
            "write": doors.to_write(ports.write_port),
            "read": doors.to_read(ports.read_port),
        },
        "disks": status.disks.iter().map(disk).collect::<Vec<_>>(),
        "unreachable": status.observed.unreachable.iter().map(Error::to_string).collect::<Vec<_>>(),
    });
    if let Some(pooler) = &context.inventory.pgbouncer {
        rest["connect"]["pooler"] = doors.to_pooler(pooler.port).into();
    }
    document.extend(rest.as_object_mut().map(mem::take).unwrap_or_default());
    if let Some(lost) = &status.lost {
        document.insert("database_lost".into(), lost.what().into());
    }
    let balancer = balancer_document(status);
    if !balancer.is_null() {
        document.insert("load_balancer".into(), balancer);
    }
    let units: Vec<Value> = status
        .units()
        .map(|unit| json!({"service": unit.service, "host": unit.host, "state": unit.state}))
        .collect();
    if !units.is_empty() {
        document.insert("services".into(), units.into());
    }
    document.into()
}
