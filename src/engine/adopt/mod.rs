//! `adopt`: takes in a cluster that somebody made by hand.
//!
//! First everything is read, and compared with what pgherd would make: nothing changes. Then the cluster is taken in while
//! its PostgreSQL keeps running ([`take_in`]). What differs afterwards is the work of `up`, like any other difference.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use tokio_util::sync::CancellationToken;

pub(crate) use self::difference::{Difference, Fate};
use self::{
    compare::{Scene, compare},
    seen::Seen,
    take_in::TakeIn,
};
use super::{context::Context, recover};
use crate::{
    cluster::{Cluster, TlsStage},
    error::{Code, Error, Result},
    event::Events,
    inventory::{HostName, Role},
    machine::Machine,
    plan::membership,
    quantity::count,
    render,
    secret::Secret,
    workspace::{Recovered, Renewal, Staging, Workspace},
};

mod compare;
mod convert;
mod difference;
mod seen;
mod take_in;

/// How long a host may take to answer.
const ASK: Duration = Duration::from_secs(90);

/// A cluster that was taken in.
pub(crate) struct Adoption {
    pub id: String,
    pub differences: Vec<Difference>,
    /// Hosts whose PostgreSQL was started again meanwhile.
    pub restarted: Vec<HostName>,
    /// What `up` would change now: `node1 configure-patroni`, or why that is not known.
    pub pending: Vec<String>,
}

/// The hosts, and what each of them has.
struct Survey {
    machines: Vec<Machine>,
    hosts: BTreeMap<HostName, Seen>,
}

/// Only looks: says what is there, and what would become of it.
pub(crate) async fn look(context: &Context) -> Result<Vec<Difference>> {
    is_new(context)?;
    let machines = recover::machines(context).await?;
    context.workspace.pin_host_keys(&machines)?;
    let survey = ask(context, machines).await?;
    survey.is_nobodys(context)?;
    survey.compare(context).map(|(_, differences)| differences)
}

/// Takes the cluster in. `trust` is whether host keys that nobody vouches for are accepted as hosts show them.
pub(crate) async fn run(
    context: &Context,
    trust: bool,
    cancel: &CancellationToken,
) -> Result<Adoption> {
    is_new(context)?;
    let lock = context.lock("adopt")?;
    let staging = context.workspace.begin_recovery(lock)?;
    let done = tokio::select! {
        done = adopt(context, trust, staging) => done,
        () = cancel.cancelled() => Err(take_in::cut_off(context, Error::interrupted())),
    };
    context.connections.conclude(done.as_ref().err()).await;
    context.connections.close(false).await;
    done.map_err(|error| context.told(error))
}

async fn adopt(context: &Context, trust: bool, staging: Staging) -> Result<Adoption> {
    let machines = recover::machines(context).await?;
    recover::host_keys(context, &machines, trust)?;
    let survey = ask(context, machines).await?;
    // Nobody else changes what was read, until this run ends.
    context.connections.settle().await?;
    survey.is_nobodys(context)?;
    let noted = survey.hosts.values().find_map(Seen::adopting);
    let id = noted.map_or_else(Workspace::new_cluster_id, |id| Ok(id.to_owned()))?;
    let passwords = survey.passwords();
    context
        .operator
        .conceal(&passwords.values().collect::<Vec<_>>());
    context.workspace.put_back(&Recovered {
        id: id.clone(),
        passwords,
        interim: None,
        pki: None,
    })?;
    let (cluster, differences) = survey.compare(context)?;
    refused(context, &differences)?;
    let take_in = TakeIn {
        context,
        machines: &survey.machines,
        hosts: &survey.hosts,
        id: &id,
    };
    let work = async {
        take_in.run(&cluster).await?;
        let after = ask(context, survey.machines.clone()).await?;
        let (events, _quiet) = Events::channel();
        let observed = context
            .on(&survey.machines, &events, async |connected| {
                connected.look().await
            })
            .await?
            .whole()?;
        let members = membership::remembered(&observed.cluster, &observed.found, false);
        context.workspace.note_members(&members)?;
        // The workspace comes last: a cluster with its marks and without a workspace can be recovered.
        take_in.conclude().await?;
        context.workspace.install(staging, &survey.machines)?;
        context.share_new().await;
        Ok((after, recover::pending(&observed)))
    };
    let (after, pending) = work
        .await
        .map_err(|error| take_in::cut_off(context, error))?;
    let restarted = survey.hosts.iter().filter(|(host, seen)| {
        let now = after.hosts.get(*host).and_then(Seen::started);
        seen.started().is_some() && seen.started() != now
    });
    Ok(Adoption {
        restarted: restarted.map(|(host, _)| host.clone()).collect(),
        id,
        differences,
        pending,
    })
}

/// Only hosts of somebody's own can have a cluster that pgherd did not make.
fn is_new(context: &Context) -> Result<()> {
    let inventory = &context.inventory;
    if context.provider.owns_hosts() {
        return Err(Error::new(
            Code::Unsupported,
            "pgherd makes the hosts of this inventory itself",
        )
        .cause("only a cluster on hosts of your own can be adopted: provider: { kind: existing }")
        .hint(format!("make the cluster: {}", context.command("up"))));
    }
    let Some(workspace) = Workspace::existing(inventory)? else {
        return Ok(());
    };
    let folder = inventory.workspace_dir();
    if workspace.members()?.iter().all(|host| !host.joined) {
        let folder = folder.display();
        return Err(Error::new(
            Code::WorkspaceExists,
            format!("{folder} is a workspace already, of a cluster that was never made"),
        )
        .cause("a run of `up` that was refused has left it, with new passwords, which no host has")
        .left("nothing was changed")
        .hint(format!(
            "move it away, and run the same command again: mv {folder} {folder}.unused"
        )));
    }
    Err(Error::new(
        Code::WorkspaceExists,
        format!("the cluster {} is pgherd's already", inventory.cluster),
    )
    .cause(format!("{} is there", folder.display()))
    .left("nothing was changed")
    .hint(format!("see what differs: {}", context.command("plan"))))
}

/// Reads what every host has.
async fn ask(context: &Context, machines: Vec<Machine>) -> Result<Survey> {
    let answers = context.each(&machines, &seen::script(), ASK).await?;
    let mut hosts = BTreeMap::new();
    let mut failures = Vec::new();
    for (machine, answer) in machines.iter().zip(answers) {
        let host = &machine.host;
        match answer.map(|output| (Seen::parse(&output.stdout), output.stderr)) {
            Ok((Some(seen), _)) => {
                hosts.insert(host.clone(), seen);
            }
            Ok((None, stderr)) => failures.push(
                Error::new(Code::AnswerUnusable, "the host's answer is not complete")
                    .on(host)
                    .excerpt("stderr", stderr),
            ),
            Err(error) => failures.push(error),
        }
    }
    match failures.len() {
        0 => Ok(Survey { machines, hosts }),
        1 => Err(failures.remove(0).left("nothing was changed")),
        _ => {
            Err(Error::several("several hosts cannot be read", failures)
                .left("nothing was changed"))
        }
    }
}

impl Survey {
    /// Refuses hosts that pgherd has made a part of a cluster, and hosts without one.
    fn is_nobodys(&self, context: &Context) -> Result<()> {
        let noted: BTreeSet<&str> = self.hosts.values().filter_map(Seen::adopting).collect();
        for (host, seen) in &self.hosts {
            if let Some(id) = seen.pgherds().filter(|id| !noted.contains(id)) {
                return Err(Error::new(
                    Code::HostOfAnotherCluster,
                    "pgherd has made this host a part of a cluster already",
                )
                .on(host)
                .cause(format!("that cluster has the id {id}"))
                .left("nothing was changed")
                .hint(format!(
                    "if its workspace is lost, read it back: {}",
                    context.command("recover")
                )));
            }
        }
        let members = context.inventory.with_role(Role::Postgres);
        let any = |host: &HostName| {
            let seen = self.hosts.get(host);
            seen.is_some_and(|it| it.runs("patroni") || it.elsewhere().is_some())
        };
        if members.into_iter().any(any) {
            return Ok(());
        }
        Err(Error::new(Code::ClusterNotFound, "no host runs Patroni")
            .cause("only a cluster that runs can be adopted")
            .left("nothing was changed")
            .hint(format!(
                "make a new cluster on these hosts: {}",
                context.command("up")
            )))
    }

    /// The passwords that pgherd goes on with, by the names of `secrets.yaml`.
    fn passwords(&self) -> BTreeMap<String, Secret> {
        let mut all = BTreeMap::new();
        for config in self.hosts.values().filter_map(Seen::settings_of_patroni) {
            for purpose in ["superuser", "replication", "rewind"] {
                if let Some((_, password)) = config.login(purpose) {
                    all.entry(purpose.to_owned()).or_insert(password);
                }
            }
        }
        all
    }

    /// The cluster as pgherd would make it, and everything that was found.
    fn compare(&self, context: &Context) -> Result<(Cluster, Vec<Difference>)> {
        let os = |host: &HostName| self.hosts[host].os();
        let cluster = context.cluster(&self.machines, TlsStage::Off, Renewal::Never, os)?;
        let files = render::render(&cluster, &context.templates)?;
        let machines = self.machines.iter();
        let addresses: BTreeMap<HostName, Ipv4Addr> = machines
            .filter_map(|machine| Some((machine.host.clone(), machine.address?)))
            .collect();
        let differences = compare(&Scene {
            inventory: &context.inventory,
            hosts: &self.hosts,
            addresses: &addresses,
            files: &files,
            config: &render::dcs_config(&cluster),
        });
        Ok((cluster, differences))
    }
}

/// An error if anything cannot be taken in.
pub(crate) fn refused(context: &Context, differences: &[Difference]) -> Result<()> {
    let refused: Vec<&Difference> = differences
        .iter()
        .filter(|it| it.fate == Fate::Refused)
        .collect();
    if refused.is_empty() {
        return Ok(());
    }
    let lines = refused.iter().map(|it| {
        let host = it.host.as_ref().map_or("the cluster", HostName::as_str);
        format!("{host}: {}: {}: {}\n", it.what, it.found, it.becomes)
    });
    let things = count(refused.len(), "finding");
    Err(Error::new(
        Code::ForeignSoftware,
        format!("the cluster cannot be adopted as it is: {things}"),
    )
    .excerpt("refused", lines.collect::<String>())
    .left("nothing was changed")
    .hint(format!(
        "change what is named, and look again: {}",
        context.command("adopt")
    )))
}
