//! `pgherd up` and `pgherd render`: what is there becomes what the inventory says, and is proven.
//!
//! One way for both. `up` also makes and starts hosts. `render` shows every diff before it asks, and
//! goes on with the hosts that it reaches: at three in the morning one that is dead must not keep the
//! others from being put right.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    authority,
    context::{self, Base, Sight, Site},
    drill,
    hosts::Outlook,
    preview::Prospect,
    rotate,
    run::Session,
    tls_migration,
};
use crate::{
    cli::{Global, plan as plan_verb},
    cluster::{Cluster, KnownHost, SUPERUSER, TlsStage},
    error::{Error, Kind, Result},
    event::{Event, Events},
    execute::{self, Context, SharedSurvey},
    inventory::{HostName, Inventory, Role},
    plan::{self, PAUSED, membership},
    provider::{Access, Machine},
    remote::Remote,
    report::{self, Expected, Handle, Summary, Terminal},
    workspace::Workspace,
};

/// How long the cluster may take to settle after the last step, until it must hold: a connection of
/// replication whose other end is gone times out after a minute.
pub(crate) const SETTLING: Duration = Duration::from_secs(75);

/// How many plans a run takes at most: until etcd answers, until a member leads, and for the rest.
const ROUNDS: usize = 3;

/// Which of the two it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Up,
    Render,
}

impl Verb {
    fn as_str(self) -> &'static str {
        match self {
            Verb::Up => "up",
            Verb::Render => "render",
        }
    }
}

pub(crate) async fn run(
    verb: Verb,
    global: &Global,
    yes: bool,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let base = match verb {
        Verb::Up => Base::new(global, Workspace::open)?,
        Verb::Render => Base::there(global).await?,
    };
    let _lock = base.lock(verb.as_str())?;
    base.not_lost().await?;
    terminal.conceal(base.workspace.secrets()?.values());
    drill::repair::offer(&base, yes, terminal, cancel).await?;
    for note in base.workspace.take_notes() {
        terminal.say(&format!("note: {note}"));
    }
    rotate::say_unfinished(&base, terminal)?;
    let session = Session::begin(&base, verb.as_str(), terminal.clone(), base.hosts())?;
    let asker = Asker {
        verb,
        terminal,
        reporter: &session.reporter,
        yes,
    };
    let result = converge(&base, &asker, &session.events, cancel).await;
    let run = session.end(&result).await;
    let endpoints = result
        .as_ref()
        .map_or(Vec::new(), |done| endpoints(&base, done));
    let settled = format!(
        "the cluster {} is as the inventory says, and holds",
        base.inventory.cluster
    );
    if !matches!(&result, Err(error) if run.nothing_changed() && error.kind() != Kind::Interrupted)
    {
        let summary = Summary {
            settled: &settled,
            endpoints: &endpoints,
        };
        report::print_summary(terminal, &run, &summary);
    }
    result.map(|_| ())
}

/// Asks before anything is made or changed.
pub(crate) struct Asker<'a> {
    pub verb: Verb,
    pub terminal: &'a Terminal,
    pub reporter: &'a Handle,
    pub yes: bool,
}

impl Asker<'_> {
    async fn ask(&self, base: &Base, prospect: &Prospect) -> Result<()> {
        if self.yes {
            return Ok(());
        }
        let text = match self.verb {
            Verb::Up => outline(base, prospect, self.terminal),
            Verb::Render => plan_verb::text(base, prospect, self.terminal),
        };
        let agreed = self
            .reporter
            .aside(async {
                self.terminal.explain(&text);
                report::confirm(self.terminal, "Do this?", Expected::Yes).await
            })
            .await?;
        if agreed {
            Ok(())
        } else {
            Err(Error::new(Kind::Interrupted, "not confirmed").left("nothing was changed"))
        }
    }
}

/// The plan in short: what it comes to on each host. The whole of it is `plan`'s to show.
fn outline(base: &Base, prospect: &Prospect, terminal: &Terminal) -> String {
    let Prospect { outlook, plan, .. } = prospect;
    if plan.steps.len() <= 4 {
        return plan_verb::text(base, prospect, terminal);
    }
    let mut text = String::new();
    for moving in &outlook.moving {
        text.push_str(&format!("  {moving}\n"));
    }
    for note in &prospect.notes {
        text.push_str(&format!("  + {note}\n"));
    }
    for drift in &prospect.drift {
        text.push_str(&format!("  ~ {drift}\n"));
    }
    let unseen = prospect.unseen();
    for (host, desired) in &base.inventory.hosts {
        let state = if outlook.missing.contains(host) {
            "is launched; "
        } else if outlook.stopped.iter().any(|it| it.host == *host) {
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
            "what it needs is known once it can be seen".to_owned()
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
    let plan = context::typed(&base.inventory.path, "plan");
    text.push_str(&format!("  every package, file and diff of it: {plan}\n"));
    text
}

/// What a run that went well leaves.
struct Done {
    cluster: Arc<Cluster>,
    machines: Vec<Machine>,
}

async fn converge(
    base: &Base,
    asker: &Asker<'_>,
    events: &Events,
    cancel: &CancellationToken,
) -> Result<Done> {
    // What is around the hosts is `up`'s alone.
    let drift = async {
        match asker.verb {
            Verb::Up => base.provider.drift().await,
            Verb::Render => Ok(Vec::new()),
        }
    };
    let (mut outlook, drift) = tokio::try_join!(base.outlook(), drift)?;
    for left in outlook.left.iter().filter(|left| !left.member) {
        asker.terminal.say(&format!(
            "note: host {left}; it is left alone, and `down` takes it along"
        ));
    }
    let absent = outlook.absent();
    let mut agreed = false;
    if asker.verb == Verb::Render && outlook.running.is_empty() {
        return Err(context::no_hosts(&base.inventory));
    }
    if asker.verb == Verb::Up && !(absent.is_empty() && drift.is_empty()) {
        let prospect = tokio::select! {
            prospect = base.prospect(outlook, drift) => prospect?,
            () = cancel.cancelled() => return Err(Error::interrupted().left("nothing was changed")),
        };
        prospect.plan.refuse_while_paused(&base.inventory)?;
        asker.ask(base, &prospect).await?;
        // What could not be seen is asked about once it can be.
        agreed = prospect.unseen().is_empty();
        if !prospect.drift.is_empty() {
            base.provider.mend(events).await?;
        }
        outlook = prospect.outlook;
        // Before hosts are made, those that could not be seen say who the members are.
        if !(prospect.dark.is_empty() || absent.is_empty()) {
            outlook = base.prospect(outlook, Vec::new()).await?.outlook;
        }
    }
    if asker.verb == Verb::Up && !absent.is_empty() {
        let launched = launch(base, &absent, events, cancel).await?;
        outlook.running.extend(launched);
    }
    if !outlook.moving.is_empty() {
        outlook = readdress(base, outlook, asker, agreed, events).await?;
        agreed = true;
    }
    match asker.verb {
        Verb::Up => {
            let replaced =
                authority::replace(base, &outlook.running, asker, events, cancel).await?;
            agreed |= replaced;
        }
        Verb::Render => authority::lapsed(base)?.map_or(Ok(()), Err)?,
    }
    let mut site = base.connect(&outlook.running, events).await?;
    if asker.verb == Verb::Render {
        site.resting.clone_from(&outlook.stopped);
    }
    let result = settle(&site, asker, agreed, cancel).await;
    site.close().await;
    let mut cluster = result?;
    while cluster.tls.is_passing() {
        let next = cluster.tls.towards(TlsStage::of(&base.inventory));
        base.workspace.note_tls(next)?;
        // Anew, since with it changes what pgherd itself expects.
        let site = base.connect(&outlook.running, events).await?;
        let result = settle(&site, asker, true, cancel).await;
        site.close().await;
        cluster = result?;
    }
    if asker.verb == Verb::Up {
        authority::complete(base, &outlook.running, asker, events, cancel).await?;
    }
    Ok(Done {
        cluster,
        machines: outlook.running,
    })
}

/// Makes and starts the hosts that do not run.
async fn launch(
    base: &Base,
    absent: &[HostName],
    events: &Events,
    cancel: &CancellationToken,
) -> Result<Vec<Machine>> {
    let identity = base.workspace.identity()?;
    let access = Access {
        user: base.inventory.ssh.user.clone(),
        public_key: identity.public_key,
        cluster_id: base.workspace.secrets()?.cluster_id,
    };
    tokio::select! {
        launched = base.provider.launch(absent, &access, events) => launched,
        () = cancel.cancelled() => Err(Error::interrupted()
            .left("hosts that were being made may be there; the next run takes them up, and `pgherd down` removes them")),
    }
}

/// Moves hosts to the addresses that the inventory gives them; returns what is there afterwards.
async fn readdress(
    base: &Base,
    mut outlook: Outlook,
    asker: &Asker<'_>,
    agreed: bool,
    events: &Events,
) -> Result<Outlook> {
    // What would be refused afterwards is refused before anything moves.
    if !agreed {
        let site = base.connect(&outlook.running, events).await?;
        let plan = site.look().await.and_then(|sight| {
            let plan = sight.plan()?;
            plan.refuse_while_paused(&base.inventory)?;
            Ok(plan)
        });
        site.close().await;
        let prospect = Prospect {
            outlook,
            ..Prospect::of_plan(plan?)
        };
        asker.ask(base, &prospect).await?;
        outlook = prospect.outlook;
    }
    let moves: Vec<_> = outlook
        .moving
        .iter()
        .map(|it| (it.host.clone(), it.to))
        .collect();
    base.provider.readdress(&moves, events).await?;
    base.outlook().await
}

/// Everything from connected hosts to a proven cluster.
pub(crate) async fn settle(
    site: &Site<'_>,
    asker: &Asker<'_>,
    agreed: bool,
    cancel: &CancellationToken,
) -> Result<Arc<Cluster>> {
    for at in 0..ROUNDS {
        // What can be seen by now may lead to other steps than those that were agreed to.
        if let Some(cluster) = round(site, asker, agreed && at == 0, cancel).await? {
            return Ok(cluster);
        }
    }
    let status = context::typed(&site.base.inventory.path, "status");
    Err(
        Error::failed("what the databases need cannot be told, though etcd answers")
            .hint(format!("how it is: {status}")),
    )
}

/// One plan and what comes of it; `None` if more can only be told now.
async fn round(
    site: &Site<'_>,
    asker: &Asker<'_>,
    agreed: bool,
    cancel: &CancellationToken,
) -> Result<Option<Arc<Cluster>>> {
    let stop = || Error::interrupted().hint("run the same command again: it takes up from here");
    // What cannot be reached is `render`'s to name, and not to wait for.
    let whole = |sight: Sight| match asker.verb {
        Verb::Up => sight.whole(),
        Verb::Render => sight.in_part(),
    };
    let sight = tokio::select! {
        sight = site.look() => whole(sight?)?,
        () = cancel.cancelled() => return Err(stop()),
    };
    let plan = sight.plan()?;
    plan.refuse_while_paused(&site.base.inventory)?;
    if plan.paused {
        let resume = plan::how_to_resume(&site.base.inventory);
        asker.terminal.say(&format!("note: {PAUSED}; {resume}"));
    }
    site.events.emit(Event::Planned {
        steps: plan.steps.len(),
        changes: plan.changes(),
    });
    let cluster = sight.cluster.clone();
    let prospect = Prospect {
        notes: Vec::from_iter(tls_migration::note(cluster.tls, &site.base.inventory)),
        ..Prospect::of_plan(plan)
    };
    if !(agreed || prospect.plan.is_empty()) {
        asker.ask(site.base, &prospect).await?;
    }
    if cluster.tls.is_passing() {
        site.base.workspace.note_tls(cluster.tls)?;
        let stage = cluster.tls.as_str();
        site.events.emit(Event::Stage { stage });
    }
    let sight = if prospect.plan.is_empty() {
        sight
    } else {
        let begun = membership::remembered(&sight.cluster, &sight.found, false);
        keep_members(site.base, begun)?;
        let context = Context {
            cluster: cluster.clone(),
            remote: site.remote.clone() as Arc<dyn Remote>,
            http: site.http.clone(),
            events: site.events.clone(),
            survey: SharedSurvey::default(),
            cancel: cancel.clone(),
        };
        let partial = prospect.plan.partial;
        execute::execute(Arc::new(prospect.plan), &context).await?;
        if partial {
            return Ok(None);
        }
        whole(site.look().await?)?
    };
    let absent: Vec<HostName> = site.absent();
    if !sight.dark.is_empty() || !absent.is_empty() {
        return Err(left_out(sight.dark, absent, &site.base.inventory));
    }
    let settled = membership::remembered(&sight.cluster, &sight.found, true);
    let proof = tokio::select! {
        proof = site.prove(sight, SETTLING) => proof?,
        () = cancel.cancelled() => return Err(stop()),
    };
    match proof.error(&site.base.inventory.cluster) {
        None => {
            keep_members(site.base, settled)?;
            Ok(Some(cluster))
        }
        Some(error) => Err(error),
    }
}

/// Writes the list of hosts for later runs.
///
/// Hosts that pgherd makes carry the cluster's label: one that never became a member is found by it.
fn keep_members(base: &Base, mut hosts: Vec<KnownHost>) -> Result<()> {
    if base.provider.owns_hosts() {
        hosts.retain(|host| host.joined || base.inventory.hosts.contains_key(&host.name));
    }
    base.workspace.note_members(&hosts)
}

/// The error of a `render` that could not look at every host.
fn left_out(mut dark: Vec<Error>, absent: Vec<HostName>, inventory: &Inventory) -> Error {
    let up = context::typed(&inventory.path, "up");
    dark.extend(absent.iter().map(|host| {
        Error::failed("the host does not run")
            .on(host)
            .hint(format!("make or start it: {up}"))
    }));
    let render = context::typed(&inventory.path, "render");
    let error = match dark.len() {
        1 => dark.remove(0),
        count => Error::several(format!("{count} hosts could not be looked at"), dark),
    };
    error
        .left("the other hosts are as rendered; the cluster as a whole is not proven")
        .hint(format!("once they can be reached: {render}"))
}

/// How to reach the cluster.
fn endpoints(base: &Base, done: &Done) -> Vec<(&'static str, String)> {
    let haproxy = &base.inventory.haproxy;
    let Some(door) = done.cluster.with_role(Role::Haproxy).next() else {
        return Vec::new();
    };
    let machine = done
        .machines
        .iter()
        .find(|machine| machine.host == door.name);
    let address = machine
        .and_then(|machine| machine.published_on.or(machine.ssh_address))
        .map_or_else(|| door.address.to_string(), |address| address.to_string());
    let scheme = if done.cluster.tls.is_used() {
        "https"
    } else {
        "http"
    };
    let psql = |port| format!("psql -h {address} -p {port} -U {SUPERUSER}");
    vec![
        ("writes", psql(haproxy.write_port)),
        ("reads", psql(haproxy.read_port)),
        (
            "stats",
            format!("{scheme}://{address}:{}/", haproxy.stats_port),
        ),
        (
            "passwords",
            base.inventory
                .workspace_dir()
                .join("secrets.yaml")
                .display()
                .to_string(),
        ),
    ]
}
