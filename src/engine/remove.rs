//! `down`: removes the hosts that pgherd made, or everything that it installed on existing hosts, and checks
//! that nothing is left.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::future::try_join_all;
use tokio_util::sync::CancellationToken;

use super::{
    bucket,
    connected::Connected,
    context::Context,
    leaving::Leaving,
    observe::Observed,
    operator::{Question, consent},
    ownership,
    run::Run,
    taken::{Leftovers, Taken},
};
use crate::{
    bucket::Bucket,
    contract::BACKUPS,
    error::{Code, Error, Result},
    facts::{Facts, Removal},
    inventory::{HostName, Inventory, Role},
    plan::{self, Change, Plan},
    provider::Resource,
    services::When,
};

/// How long apt may take to say which packages others need.
const WEIGH: Duration = Duration::from_secs(120);

/// The request of the user.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    pub keep_secrets: bool,
    /// Whether the backups go too.
    pub with_backups: bool,
    /// The name of the bucket that goes too, with all backups in it.
    pub with_bucket: Option<&'a str>,
    /// The id of the cluster to remove, if it is not the workspace's.
    pub cluster_id: Option<&'a str>,
}

/// What was removed.
pub(crate) struct Removed {
    /// What stays on hosts because others need it.
    pub stays: Vec<String>,
    /// Whether the passwords, keys and certificates were kept.
    pub kept_secrets: bool,
}

/// Removes the cluster.
pub(crate) async fn run(
    request: Request<'_>,
    context: &Context,
    cancel: &CancellationToken,
) -> Result<Removed> {
    let ours = context.workspace.cluster_id()?;
    if request.cluster_id.is_some() && !context.provider.owns_hosts() {
        return Err(Error::new(
            Code::InvalidArguments,
            "--cluster-id works only for hosts that pgherd has made",
        )
        .cause("the hosts of this inventory are yours, and stay"));
    }
    let taken = Taken::by(context, "down", Leftovers::Leave, cancel).await?;
    let (wider, leaving) = Leaving::of(context)?;
    let context = wider.as_ref().unwrap_or(context);
    // The workspace of another cluster than the removed one stays.
    let is_own = request
        .cluster_id
        .is_none_or(|id| ours.as_deref().is_none_or(|ours| ours == id));
    let keep_secrets = request.keep_secrets || !is_own;
    let removed = taken
        .run_in(context, async |run| {
            let doomed = match request.with_bucket {
                Some(named) => {
                    let id = request.cluster_id.or(ours.as_deref());
                    bucket::doomed(context, named, id).await?
                }
                None => None,
            };
            let removal = Clearance {
                run,
                request,
                ours: ours.as_deref(),
                bucket: doomed.as_ref().map(Bucket::name),
                asked: AtomicBool::new(false),
            };
            let (mut stays, mut backups) = if context.provider.owns_hosts() {
                removal.remove_hosts().await?;
                (Vec::new(), false)
            } else {
                removal.clear_hosts(&leaving).await?
            };
            if let Some(bucket) = &doomed {
                removal.ask_once().await?;
                bucket.remove(&run.events).await?;
            }
            let bucket = context.inventory.backup.s3.as_ref();
            let stays_there =
                request.with_bucket.is_none() && context.inventory.wants(When::Bucket);
            if let Some(bucket) = bucket.filter(|_| stays_there) {
                backups |= !request.with_backups;
                let key = match request.with_backups {
                    true => "nobody can read them without the key, which is removed",
                    false => "their key is in secrets.yaml",
                };
                stays.push(format!("{bucket}, with all backups; {key}"));
            }
            // Nobody could read backups without the key.
            let keep_secrets = keep_secrets || backups;
            if is_own && !keep_secrets {
                context.end_state().await?;
            }
            if is_own {
                context.workspace.remove(taken.lock(), keep_secrets)?;
            }
            Ok(Removed {
                stays,
                kept_secrets: keep_secrets,
            })
        })
        .await;
    // The run's own events are among the files, so this comes last.
    context.close_kept().await?;
    removed
}

struct Clearance<'a> {
    run: &'a Run<'a>,
    request: Request<'a>,
    /// The id of this workspace's cluster.
    ours: Option<&'a str>,
    /// The bucket that goes at the end.
    bucket: Option<&'a str>,
    asked: AtomicBool,
}

impl Clearance<'_> {
    async fn ask(&self, what: &str) -> Result<()> {
        let context = self.run.context;
        let bucket = self.bucket.map(|name| {
            format!("  bucket {name}, with all backups in it and all of their versions\n")
        });
        let what = format!("{what}{}", bucket.unwrap_or_default());
        let question = Question::Remove {
            context,
            what: &what,
            keep_secrets: self.request.keep_secrets,
        };
        consent(context.operator.as_ref(), question).await?;
        self.asked.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Asks if nothing else was there to ask about.
    async fn ask_once(&self) -> Result<()> {
        match self.asked.load(Ordering::Relaxed) {
            true => Ok(()),
            false => self.ask("").await,
        }
    }

    /// Refuses to remove the host that keeps the backups, unless the user has named them.
    fn refuse_backups(&self, resources: &[Resource]) -> Result<()> {
        let Context {
            inventory,
            workspace,
            ..
        } = self.run.context;
        if inventory.wants(When::Bucket) {
            return Ok(());
        }
        // One that left the inventory has its backups still.
        let known = workspace.members()?;
        let mut keepers: Vec<&HostName> = inventory.with_role(Role::Backup).collect();
        let had = known.iter().filter(|it| it.roles.contains(&Role::Backup));
        keepers.extend(had.map(|it| &it.name));
        let has_backups = |resource: &&Resource| {
            let host = resource.host.as_ref();
            host.is_some_and(|host| keepers.contains(&host))
        };
        match resources.iter().find(has_backups) {
            Some(Resource {
                host: Some(host), ..
            }) if !self.request.with_backups => Err(Error::new(
                Code::InvalidArguments,
                format!("all backups of the cluster are on {host}, which would be removed"),
            )
            .left("nothing was removed")
            .hint("remove them too: pgherd down --with-backups")
            .hint(format!(
                "or copy {BACKUPS} away first, and the key `backup` in secrets.yaml with it"
            ))),
            _ => Ok(()),
        }
    }

    /// Removes hosts that pgherd made, and checks that nothing is left.
    async fn remove_hosts(&self) -> Result<()> {
        let context = self.run.context;
        let (provider, inventory) = (&context.provider, &context.inventory);
        let of_it = |all| ownership::removable(inventory, all, self.ours, self.request.cluster_id);
        let resources = of_it(provider.resources().await?)?;
        if resources.is_empty() {
            return Ok(());
        }
        self.refuse_backups(&resources)?;
        // Hosts are removed even if their state cannot be found out.
        if let Ok(hosts) = context.host_status().await {
            context.claim(&hosts.running).await?;
        }
        if let (Some(ours), None) = (self.ours, self.request.cluster_id) {
            let mut unmarked = provider.discover().await?;
            unmarked.retain(|machine| machine.cluster_id.is_none());
            if !unmarked.is_empty() {
                let instead = ownership::instead_of_down(inventory);
                ownership::of_unmarked(context, &unmarked, ours, &instead).await?;
            }
        }
        self.ask(&list(&resources, inventory)).await?;
        tokio::select! {
            removed = provider.remove(&resources, &self.run.events) => removed?,
            () = self.run.cancel.cancelled() => return Err(Error::interrupted()
                .left("some of it may be gone already")
                .hint("run `pgherd down` again: it removes the rest")),
        }
        let left = of_it(provider.resources().await?)?;
        if left.is_empty() {
            return Ok(());
        }
        Err(Error::new(Code::LeftoversRemain, "something is left")
            .excerpt("still there", list(&left, inventory))
            .hint("run `pgherd down` again"))
    }

    /// Removes everything that pgherd installed from existing hosts, and checks that nothing is left. Returns
    /// what stays there because others need it, and whether the backups stay.
    ///
    /// Hosts that left the inventory are cleared like the others. If one cannot be cleared, the error names it,
    /// and the next run needs only that host.
    async fn clear_hosts(&self, leaving: &Leaving) -> Result<(Vec<String>, bool)> {
        let Run {
            context,
            events,
            cancel,
            ..
        } = self.run;
        let hosts = context.host_status().await?;
        let machines = hosts.complete(context)?;
        let work = async |connected: &Connected<'_>| {
            let (mut observed, remaining) = leaving.seen(connected.look().await?)?;
            refuse_adopted(context, &observed)?;
            weigh(connected, &mut observed).await?;
            observed.found.without_backups = self.request.with_backups;
            let mut all = observed.found.facts.iter();
            let keeper = all.find(|(_, facts)| facts.needs.folders.contains_key(BACKUPS));
            let keeper = keeper.filter(|_| !self.request.with_backups);
            let keeper = keeper.map(|(host, _)| host.clone());
            let backups = keeper.is_some();
            let plan = plan::down(&observed.cluster, &observed.files, &observed.found)?;
            if plan.is_empty() {
                Leaving::end(remaining, context)?;
                return Ok((Vec::new(), backups));
            }
            let mut stays = staying(&observed);
            stays.extend(keeper.map(|host| {
                format!("{host}: {BACKUPS}, with all backups; their key is in secrets.yaml")
            }));
            let told = format!(
                "{}{}",
                describe(&plan, leaving),
                Leaving::describe(&remaining)
            );
            self.ask(&told).await?;
            connected.announce(&plan);
            connected.carry_out(plan, &observed.cluster, cancel).await?;
            let (after, remaining) = leaving.seen(connected.look().await?)?;
            let left = plan::down(&after.cluster, &after.files, &after.found)?;
            if left.is_empty() {
                Leaving::end(remaining, context)?;
                return Ok((stays, backups));
            }
            Err(Error::new(Code::LeftoversRemain, "something is left")
                .excerpt("still there", describe(&left, leaving))
                .hint("run `pgherd down` again"))
        };
        context.on(machines, events, work).await
    }
}

/// Refuses to remove a cluster whose data was there before pgherd.
fn refuse_adopted(context: &Context, observed: &Observed) -> Result<()> {
    let is_adopted = |facts: &Facts| {
        let manifest = facts.belongings.manifest.as_ref();
        manifest.is_some_and(|manifest| manifest.adopted)
    };
    let hosts = observed.found.facts.iter();
    let adopted: Vec<&str> = hosts
        .filter(|(_, facts)| is_adopted(facts))
        .map(|(host, _)| host.as_str())
        .collect();
    if adopted.is_empty() {
        return Ok(());
    }
    let cluster = &context.inventory.cluster;
    Err(Error::new(
        Code::ForeignData,
        format!("the cluster {cluster} was adopted: its data was there before pgherd, which does not remove it"),
    )
    .cause(format!("/var/lib/pgherd/manifest says so on {}", adopted.join(", ")))
    .left("nothing was removed")
    .hint("remove it by hand, or have pgherd forget it: docs/adopting.md"))
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

/// Asks every host which of the packages that pgherd installed are needed by nobody else.
pub(super) async fn weigh(connected: &Connected<'_>, observed: &mut Observed) -> Result<()> {
    let cluster = observed.cluster.clone();
    let asked = observed.found.facts.iter_mut().filter_map(|(host, facts)| {
        let script = plan::weigh_packages(&cluster, cluster.nodes.get(host)?, facts);
        Some(async move {
            let silent = |_, _: &str| {};
            let output = connected.remote.run(host, &script, WEIGH, &silent).await?;
            facts.removal = Removal::parse(&output.stdout);
            Ok::<_, Error>(())
        })
    });
    try_join_all(asked).await?;
    Ok(())
}

/// What stays on the hosts because others need it.
fn staying(observed: &Observed) -> Vec<String> {
    let facts = observed.found.facts.iter();
    facts
        .flat_map(|(host, facts)| {
            let words = plan::stays(facts).into_iter();
            words.map(move |what| format!("{host}: {what}"))
        })
        .collect()
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
                    text.push_str(&format!("    {unit} is stopped and disabled\n"));
                }
                Change::Other(what) => text.push_str(&format!("    {what}\n")),
                _ => {}
            }
        }
    }
    text
}
