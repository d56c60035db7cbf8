//! `pgherd down`.

use std::{sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use tokio_util::sync::CancellationToken;

use super::{
    context::{Base, Sight, Site},
    leaving::Leaving,
    ownership,
    run::Session,
};
use crate::{
    cli::Global,
    error::{Error, Kind, Result},
    event::{Event, Events},
    execute::{self, Context, SharedSurvey},
    facts::Removal,
    inventory::{HostName, Inventory},
    plan::{self, Change, Plan},
    provider::Resource,
    remote::Remote,
    report::{self, Expected, Handle, Summary, Terminal},
    workspace::Workspace,
};

/// What the command line asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'a> {
    pub yes: bool,
    pub keep_secrets: bool,
    pub cluster_id: Option<&'a str>,
}

pub(crate) async fn run(
    global: &Global,
    wish: Wish<'_>,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let base = Base::new(global, Workspace::open)?;
    let ours = base.workspace.cluster_id()?;
    if wish.cluster_id.is_some() && !base.provider.owns_hosts() {
        return Err(
            Error::input("--cluster-id is for hosts that pgherd has made")
                .cause("the hosts of this inventory are yours, and stay"),
        );
    }
    let lock = base.lock("down")?;
    let (base, leaving) = Leaving::of(base)?;
    let session = Session::begin(&base, "down", terminal.clone(), base.hosts())?;
    let asker = Asker {
        base: &base,
        terminal,
        reporter: &session.reporter,
        wish,
        ours: ours.as_deref(),
    };
    let mut stays = Vec::new();
    let removed = if base.provider.owns_hosts() {
        remove_hosts(&asker, &session.events, cancel).await
    } else {
        clear_hosts(&asker, &leaving, &session.events, cancel, &mut stays).await
    };
    // The workspace of another cluster than the one that went is not its own.
    let is_own = wish
        .cluster_id
        .is_none_or(|id| ours.as_deref().is_none_or(|ours| ours == id));
    let keep_secrets = wish.keep_secrets || !is_own;
    let result = removed.and_then(|()| match is_own {
        true => base.workspace.remove(&lock, keep_secrets),
        false => Ok(()),
    });
    let run = session.end(&result).await;
    if result.is_ok() {
        let cluster = &base.inventory.cluster;
        let settled = match wish.cluster_id {
            None => format!("nothing of the cluster {cluster} is left"),
            Some(id) => format!("nothing of the cluster {cluster} with the id {id} is left"),
        };
        let mut kept: Vec<(&str, String)> = stays.into_iter().map(|what| ("stays", what)).collect();
        if keep_secrets {
            kept.push(("kept", base.inventory.workspace_dir().display().to_string()));
        }
        let summary = Summary {
            settled: &settled,
            endpoints: &kept,
        };
        report::print_summary(terminal, &run, &summary);
        if !run.nothing_changed() {
            terminal.say(&settled);
        }
    }
    result
}

struct Asker<'a> {
    base: &'a Base,
    terminal: &'a Terminal,
    reporter: &'a Handle,
    wish: Wish<'a>,
    /// The id of the cluster whose workspace this is.
    ours: Option<&'a str>,
}

impl Asker<'_> {
    /// Shows what would go, and wants the cluster's name typed.
    async fn ask(&self, what: &str) -> Result<()> {
        let cluster = &self.base.inventory.cluster;
        let secrets = if self.wish.keep_secrets {
            "the cluster's secrets are kept"
        } else {
            "the cluster's secrets are removed too (--keep-secrets keeps them)"
        };
        if self.wish.yes {
            return Ok(());
        }
        let agreed = self
            .reporter
            .aside(async {
                self.terminal.say(&format!(
                    "This removes the cluster {cluster} and all of its data:\n{what}  {secrets}"
                ));
                let question = format!("Remove {cluster} for good?");
                report::confirm(self.terminal, &question, Expected::Word(cluster)).await
            })
            .await?;
        if agreed {
            Ok(())
        } else {
            Err(Error::new(Kind::Interrupted, "not confirmed").left("nothing was removed"))
        }
    }
}

/// Removes hosts that pgherd made, and looks again that nothing is left.
async fn remove_hosts(
    asker: &Asker<'_>,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<()> {
    let provider = &asker.base.provider;
    let inventory = &asker.base.inventory;
    let of_it = |all| ownership::removable(inventory, all, asker.ours, asker.wish.cluster_id);
    let resources = of_it(provider.resources().await?)?;
    if resources.is_empty() {
        return Ok(());
    }
    // What cannot be found out about hosts must not keep them from being removed.
    if let Ok(outlook) = asker.base.outlook().await {
        asker.base.claim(&outlook.running).await?;
    }
    if let (Some(ours), None) = (asker.ours, asker.wish.cluster_id) {
        let mut unmarked = provider.discover().await?;
        unmarked.retain(|machine| machine.cluster_id.is_none());
        if !unmarked.is_empty() {
            ownership::of_unmarked(asker.base, &unmarked, ours).await?;
        }
    }
    asker.ask(&list(&resources, &asker.base.inventory)).await?;
    tokio::select! {
        removed = provider.remove(&resources, events) => removed?,
        () = cancel.cancelled() => return Err(Error::interrupted()
            .left("some of it may be gone already")
            .hint("run `pgherd down` again: it removes the rest")),
    }
    let left = of_it(provider.resources().await?)?;
    if left.is_empty() {
        return Ok(());
    }
    Err(Error::failed("something is left")
        .excerpt("still there", list(&left, &asker.base.inventory))
        .hint("run `pgherd down` again"))
}

fn list(resources: &[Resource], inventory: &Inventory) -> String {
    let declared = |host: &HostName| inventory.hosts.contains_key(host);
    resources
        .iter()
        .map(|resource| {
            let left = match &resource.host {
                Some(host) if !declared(host) => ", not in the inventory any more",
                _ => "",
            };
            let Resource { kind, name, id, .. } = resource;
            format!("  {kind} {name} ({id}){left}\n")
        })
        .collect()
}

/// How long apt may take to say what others need.
const WEIGH: Duration = Duration::from_secs(120);

/// Asks every host which of the packages that came with pgherd nobody else needs.
async fn weigh(site: &Site<'_>, sight: &mut Sight) -> Result<()> {
    let cluster = sight.cluster.clone();
    let asked = sight.found.facts.iter_mut().filter_map(|(host, facts)| {
        let script = plan::weigh_packages(&cluster, cluster.nodes.get(host)?, facts);
        Some(async move {
            let silent = |_, _: &str| {};
            let output = site.remote.run(host, &script, WEIGH, &silent).await?;
            facts.removal = Removal::parse(&output.stdout);
            Ok::<_, Error>(())
        })
    });
    try_join_all(asked).await?;
    Ok(())
}

/// What stays on the hosts because others need it.
fn staying(sight: &Sight) -> Vec<String> {
    let facts = sight.found.facts.iter();
    facts
        .flat_map(|(host, facts)| {
            let words = plan::stays(facts).into_iter();
            words.map(move |what| format!("{host}: {what}"))
        })
        .collect()
}

/// Takes off hosts that are not pgherd's what it put on them, and looks again that nothing is left.
///
/// Those that left the inventory are cleared like the others; where one cannot be, the error says so,
/// and the next run needs nothing but that host.
async fn clear_hosts(
    asker: &Asker<'_>,
    leaving: &Leaving,
    events: &Events,
    cancel: &CancellationToken,
    stays: &mut Vec<String>,
) -> Result<()> {
    let base = asker.base;
    let outlook = base.outlook().await?;
    let site = base
        .connect(outlook.complete(&base.inventory)?, events)
        .await?;
    let result = async {
        let (mut sight, remaining) = leaving.seen(site.look().await?)?;
        weigh(&site, &mut sight).await?;
        asker.terminal.conceal(sight.cluster.secrets.values());
        let plan = plan::down(&sight.cluster, &sight.files, &sight.found)?;
        if plan.is_empty() {
            return leaving.end(remaining, base);
        }
        *stays = staying(&sight);
        let told = format!(
            "{}{}",
            describe(&plan, leaving),
            leaving.describe(&remaining)
        );
        asker.ask(&told).await?;
        events.emit(Event::Planned {
            steps: plan.steps.len(),
            changes: plan.changes(),
        });
        let context = Context {
            cluster: sight.cluster.clone(),
            remote: site.remote.clone() as Arc<dyn Remote>,
            http: site.http.clone(),
            events: events.clone(),
            survey: SharedSurvey::default(),
            cancel: cancel.clone(),
        };
        execute::execute(Arc::new(plan), &context).await?;
        let (after, remaining) = leaving.seen(site.look().await?)?;
        let left = plan::down(&after.cluster, &after.files, &after.found)?;
        if left.is_empty() {
            return leaving.end(remaining, base);
        }
        Err(Error::failed("something is left")
            .excerpt("still there", describe(&left, leaving))
            .hint("run `pgherd down` again"))
    }
    .await;
    site.close().await;
    result
}

fn describe(plan: &Plan, leaving: &Leaving) -> String {
    let mut text = String::new();
    let mut last: Option<&HostName> = None;
    for step in &plan.steps {
        if last != Some(&step.host) {
            let left = if leaving.has(&step.host) {
                ", which left the inventory"
            } else {
                ""
            };
            text.push_str(&format!("  {}{left}:\n", step.host));
            last = Some(&step.host);
        }
        for change in &step.changes {
            match change {
                Change::Unit { unit, .. } => {
                    text.push_str(&format!("    {unit} is stopped and disabled\n"))
                }
                Change::Other(what) => text.push_str(&format!("    {what}\n")),
                _ => {}
            }
        }
    }
    text
}
