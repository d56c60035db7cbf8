//! `pgherd update`.

use clap::Args;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Global, console::Console};
use crate::{
    engine::{
        context::Context,
        update::{self, Outdated, Outlook, Update},
    },
    error::{Code, Error, Result},
    plan::update::{Scope, restarts},
    quantity::{agree, count, span},
    report::Terminal,
};

/// The arguments of `pgherd update`.
#[derive(Debug, Args)]
pub struct Wish {
    /// Also security updates of all other packages on the hosts
    #[arg(long, conflicts_with = "all")]
    security: bool,
    /// All packages on the hosts
    #[arg(long)]
    all: bool,
    /// Also build indexes anew whose collations have changed with libc or ICU, while clients go on
    #[arg(long)]
    reindex: bool,
    /// Only show what there is, and exit with 4 if there is anything to do
    #[arg(long, conflicts_with = "yes")]
    check: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Wish {
    fn asked(&self) -> update::Wish {
        update::Wish {
            scope: match (self.security, self.all) {
                (_, true) => Scope::All,
                (true, false) => Scope::Security,
                (false, false) => Scope::Own,
            },
            reindex: self.reindex,
        }
    }
}

pub(super) async fn run(
    global: &Global,
    wish: Wish,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let console = Console::new(terminal, wish.yes);
    let context = global.existing(&console).await?;
    if wish.check {
        return check(&context, wish.asked(), terminal).await;
    }
    console.conclude_changes(update::run(&context, wish.asked(), cancel).await)
}

async fn check(context: &Context, wish: update::Wish, terminal: &Terminal) -> Result<()> {
    let outlook = update::check(context, wish).await?;
    if terminal.json {
        terminal.print_json(&document(context, &outlook));
    } else {
        for host in &outlook.hosts {
            terminal.print(&text(host));
        }
        for line in update::collations_in_words(&outlook.collations) {
            terminal.print(&format!("! {line}\n"));
        }
    }
    if !outlook.hosts_are_due() && outlook.collations.is_empty() {
        return Ok(());
    }
    let mut update = match wish.scope {
        Scope::Own => "update",
        Scope::Security => "update --security",
        Scope::All => "update --all",
    }
    .to_owned();
    if !outlook.collations.is_empty() {
        update.push_str(" --reindex");
    }
    Err(Error::new(
        Code::ChangesPending,
        "there are newer versions, or old ones still run",
    )
    .hint(format!("bring them: {}", context.command(&update))))
}

/// What an update means. It is shown before the question.
pub(super) fn outline(cluster: &str, outlook: &Outlook) -> String {
    let mut text = format!("In the cluster {cluster} these hosts are updated, one at a time:\n");
    for host in outlook.hosts.iter().filter(|it| it.is_due()) {
        text.push_str(&lines(host));
    }
    if outlook.pending > 0 {
        text.push_str(&format!(
            "first, {} as the inventory says, as by `up`\n",
            match outlook.pending {
                1 => "1 thing is made".to_owned(),
                more => format!("{more} things are made"),
            }
        ));
    }
    if outlook.reindex && !outlook.collations.is_empty() {
        for line in update::collations_in_words(&outlook.collations) {
            text.push_str(&format!("! {line}\n"));
        }
    }
    text.push_str("A leader hands over before it restarts. The run stops at the first host that fails, and the others serve.");
    text
}

/// All of a host, as text for people.
fn text(host: &Outdated) -> String {
    let mut text = lines(host);
    let upkeep = &host.upkeep;
    let now = jiff::Timestamp::now().as_second();
    for (name, package) in &upkeep.packages {
        if host.updates.iter().any(|it| it.package == *name) {
            continue;
        }
        let held = if package.held {
            ", held by apt-mark"
        } else {
            ""
        };
        text.push_str(&format!(
            "  = {name} {}{}{held}\n",
            package.version,
            age(package.since, now)
        ));
    }
    let others: Vec<&Update> = upkeep.other_updates().collect();
    let security = others.iter().filter(|it| it.is_security()).count();
    text.push_str(&match others.len() {
        0 => "    all other packages are up to date\n".to_owned(),
        some => format!(
            "    {} {} an update, {security} of them for security\n",
            count(some, "other package"),
            agree(some, "has", "have")
        ),
    });
    for reason in upkeep.reboot_reasons() {
        text.push_str(&format!("  ! a reboot waits: {reason}\n"));
    }
    if let Some(why) = &upkeep.stale {
        let age = upkeep.lists.map_or("unknown age".to_owned(), span);
        text.push_str(&format!(
            "  ! the lists of packages ({age}) could not be fetched: {why}\n"
        ));
    }
    text
}

fn age(since: Option<i64>, now: i64) -> String {
    let seconds = since.and_then(|since| u64::try_from(now - since).ok());
    seconds.map_or_else(String::new, |it| format!(", installed {} ago", span(it)))
}

/// What would come to a host.
fn lines(host: &Outdated) -> String {
    let roles: Vec<&str> = host.node.roles.iter().map(|role| role.as_str()).collect();
    let leads = if host.leads { ", leads" } else { "" };
    let mut text = format!("{} ({}{leads})\n", host.node.name, roles.join(", "));
    let now = jiff::Timestamp::now().as_second();
    for update in &host.updates {
        let installed = host.upkeep.packages.get(&update.package);
        let since = installed.and_then(|it| it.since);
        let restarts = restarts(&host.node, &update.package);
        let restarts = restarts.map_or_else(String::new, |it| format!("; {it}"));
        text.push_str(&match &update.from {
            Some(from) => format!(
                "  ~ {} {from} -> {} from {}{}{restarts}\n",
                update.package,
                update.to,
                update.origin,
                age(since, now)
            ),
            None => format!(
                "  + {} {} from {}\n",
                update.package, update.to, update.origin
            ),
        });
    }
    if let Some((from, to)) = &host.patroni {
        text.push_str(&format!(
            "  ~ patroni {from} -> {to}, which pgherd pins; Patroni and PostgreSQL restart\n"
        ));
    }
    for process in host.upkeep.outdated() {
        let file = process.replaced.as_deref().unwrap_or_default();
        text.push_str(&format!(
            "  ! {} still uses {file}, which was replaced; it restarts\n",
            process.unit
        ));
    }
    text
}

fn document(context: &Context, outlook: &Outlook) -> Value {
    let hosts: Vec<Value> = outlook.hosts.iter().map(host_document).collect();
    let collations = outlook.collations.iter().map(|(database, old)| {
        let named = old
            .collations
            .iter()
            .map(|(name, was, is)| json!({"name": name, "recorded": was, "actual": is}));
        json!({
            "database": database,
            "own": old.database.as_ref().map(|(was, is)| json!({"recorded": was, "actual": is})),
            "collations": named.collect::<Vec<_>>(),
            "indexes": old.indexes,
        })
    });
    let collations: Vec<Value> = collations.collect();
    json!({
        "cluster": context.inventory.cluster,
        "due": outlook.hosts_are_due() || !outlook.collations.is_empty(),
        "pending": outlook.pending,
        "collations": collations,
        "hosts": hosts,
    })
}

fn host_document(host: &Outdated) -> Value {
    let upkeep = &host.upkeep;
    let installed = upkeep.packages.iter().map(|(name, package)| {
        json!({
            "name": name,
            "version": package.version,
            "installed_at": package.since,
            "held": package.held,
        })
    });
    let updates = host.updates.iter().map(|it| {
        json!({
            "name": it.package,
            "from": it.from,
            "to": it.to,
            "origin": it.origin,
            "security": it.is_security(),
            "restarts": restarts(&host.node, &it.package),
        })
    });
    let others: Vec<&Update> = upkeep.other_updates().collect();
    let processes = upkeep
        .processes
        .iter()
        .map(|it| json!({"unit": it.unit, "since": it.since, "replaced": it.replaced}));
    json!({
        "host": host.node.name,
        "roles": host.node.roles,
        "leads": host.leads,
        "due": host.is_due(),
        "installed": installed.collect::<Vec<_>>(),
        "updates": updates.collect::<Vec<_>>(),
        "patroni": host.patroni.as_ref().map(|(from, to)| json!({"from": from, "to": to})),
        "processes": processes.collect::<Vec<_>>(),
        "other_updates": others.len(),
        "other_security_updates": others.iter().filter(|it| it.is_security()).count(),
        "reboot": upkeep.reboot_reasons(),
        "up_seconds": upkeep.up,
        "lists_seconds": upkeep.lists,
        "lists_error": upkeep.stale,
    })
}
