//! `pgherd up` and `pgherd render`, where they change something.

use tokio_util::sync::CancellationToken;

use super::{Global, console::Console, plan};
use crate::{
    cluster::{FrontDoors, SUPERUSER},
    engine::{
        apply::{self, Applied, Verb},
        context::Context,
        preview::Preview,
        upgrade,
    },
    error::{Kind, Result},
    inventory::HostName,
    plan::retire::Departures,
    report::{self, Summary, Terminal},
    workspace::Workspace,
};

/// The options of the verb.
pub(super) struct Wish {
    pub yes: bool,
    /// Hosts that may leave the cluster.
    pub remove: Vec<String>,
}

impl Wish {
    /// Without options, but for the answer.
    pub(super) fn answering(yes: bool) -> Self {
        Self {
            yes,
            remove: Vec::new(),
        }
    }
}

pub(super) async fn run(
    verb: Verb,
    global: &Global,
    wish: Wish,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let console = Console::new(terminal, wish.yes);
    let mut context = match verb {
        Verb::Up => global.open(&console, Workspace::open).await?,
        Verb::Render => global.existing(&console).await?,
    };
    if !wish.remove.is_empty() {
        let hosts = wish.remove.into_iter().map(HostName::new);
        context.leaving = Departures::Agreed(hosts.collect());
    }
    let result = apply::run(verb, &context, cancel).await;
    let settled = format!(
        "the cluster {} is as the inventory says, and healthy",
        context.inventory.cluster
    );
    tell(&console, &context, result, &settled, terminal)
}

/// Reports how a run ended that brings the cluster to the inventory's state.
pub(super) fn tell(
    console: &Console,
    context: &Context,
    result: Result<Applied>,
    settled: &str,
    terminal: &Terminal,
) -> Result<()> {
    let Some(run) = console.ended() else {
        return result.map(|_| ());
    };
    let endpoints = result
        .as_ref()
        .map_or(Vec::new(), |applied| endpoints(context, applied));
    if !matches!(&result, Err(error) if run.nothing_changed() && error.kind() != Kind::Interrupted)
    {
        let summary = Summary {
            settled,
            endpoints: &endpoints,
        };
        report::print_summary(terminal, &run, &summary);
    }
    if result.is_ok()
        && let Some(note) = upgrade::note(context)?
    {
        terminal.say(&note);
    }
    result.map(|_| ())
}

/// What is shown of a plan before somebody agrees to it.
pub(super) fn outline(
    verb: Verb,
    context: &Context,
    preview: &Preview,
    terminal: &Terminal,
) -> String {
    match verb {
        Verb::Up => in_short(context, preview, terminal),
        Verb::Render => plan::text(context, preview, terminal),
    }
}

/// A short form of the plan: the steps of each host. `plan` shows all of it.
fn in_short(context: &Context, preview: &Preview, terminal: &Terminal) -> String {
    let Preview { hosts, plan, .. } = preview;
    if plan.steps.len() <= 4 {
        return plan::text(context, preview, terminal);
    }
    let mut text = String::new();
    for words in &plan.membership {
        text.push_str(&format!("  {}\n", plan::membership(words)));
    }
    for moving in &hosts.moving {
        text.push_str(&format!("  {moving}\n"));
    }
    for note in &preview.notes {
        text.push_str(&format!("  + {note}\n"));
    }
    for doubt in &preview.doubts {
        text.push_str(&format!("  note: {doubt}\n"));
    }
    for drift in &preview.drift {
        text.push_str(&format!("  ~ {drift}\n"));
    }
    let unseen = preview.unseen();
    for (host, desired) in &context.inventory.hosts {
        let state = if hosts.missing.contains(host) {
            "is launched; "
        } else if hosts.stopped.iter().any(|it| it.host == *host) {
            "is started; "
        } else {
            ""
        };
        let roles: Vec<&str> = desired.roles.iter().map(|role| role.as_str()).collect();
        let steps: Vec<&str> = plan
            .steps
            .iter()
            .filter(|step| step.host == *host && step.changes_something())
            .map(|step| step.name)
            .collect();
        let steps = if unseen.contains(&host) {
            "what it needs is known once pgherd can connect to it".to_owned()
        } else if steps.is_empty() {
            "nothing to do".to_owned()
        } else {
            steps.join(", ")
        };
        text.push_str(&format!(
            "  {host} ({}): {state}{steps}\n",
            roles.join(", ")
        ));
    }
    let plan = context.command("plan");
    text.push_str(&format!("  every package, file and diff of it: {plan}\n"));
    text
}

/// How to reach the cluster.
fn endpoints(context: &Context, applied: &Applied) -> Vec<(&'static str, String)> {
    let haproxy = &context.inventory.haproxy;
    let doors = FrontDoors::of(&context.inventory, &applied.machines);
    let scheme = if applied.cluster.tls.is_used() {
        "https"
    } else {
        "http"
    };
    let psql = |string: String| match string.contains(',') {
        true => format!("psql \"{string} user={SUPERUSER}\""),
        false => {
            let option = string.replace("host=", "-h ").replace("port=", "-p ");
            format!("psql {option} -U {SUPERUSER}")
        }
    };
    let stats: Vec<String> = doors
        .addresses()
        .map(|address| format!("{scheme}://{address}:{}/", haproxy.stats_port))
        .collect();
    let mut endpoints = vec![
        ("writes", psql(doors.to_write(haproxy.write_port))),
        ("reads", psql(doors.to_read(haproxy.read_port))),
    ];
    if let Some(pooler) = &context.inventory.pgbouncer {
        // No superuser gets in there.
        let databases = &context.inventory.postgresql.databases;
        let plain = |name: &str| {
            name.bytes()
                .all(|it| it.is_ascii_alphanumeric() || it == b'_')
        };
        let example = databases
            .iter()
            .find(|(name, it)| plain(name) && plain(&it.owner));
        let (database, user) = example.map_or(("DATABASE", "USER"), |(name, it)| {
            (name.as_str(), it.owner.as_str())
        });
        let pooled = doors.to_pooler(pooler.port);
        let line = format!("psql \"{pooled} user={user} dbname={database}\"");
        endpoints.push(("pooled", line));
    }
    endpoints.extend([
        ("stats", stats.join(" ")),
        (
            "passwords",
            context
                .inventory
                .workspace_dir()
                .join("secrets.yaml")
                .display()
                .to_string(),
        ),
    ]);
    endpoints
}
