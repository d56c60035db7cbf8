//! `recover`: makes a lost workspace again, from what the hosts have.
//!
//! Nothing on the hosts changes. pgherd only reads there, and takes its lease first, since a run that changes passwords or
//! certificates would give it halves of two states. On hosts that pgherd made, and whose key was in the workspace, the
//! provider lets a new key in.
//!
//! The new workspace is made beside its place. It is moved there when pgherd has seen the cluster with it.

use std::{collections::BTreeMap, time::Duration};

use tokio_util::sync::CancellationToken;

use self::{
    gathered::{Gathered, Password},
    told::{INTERIM_REPLICATION, INTERIM_REWIND, Told},
};
use super::{context::Context, observe::Observed};
use crate::{
    contract::MARKER,
    error::{Code, Error, Result},
    event::{Event, Events, HostState},
    inventory::HostName,
    machine::{Machine, MachineState},
    plan::membership,
    provider::Access,
    workspace::Staging,
};

mod gathered;
mod told;

/// How long a host may take to answer.
const ASK: Duration = Duration::from_secs(60);

/// A part of the workspace, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub what: String,
    pub state: State,
    /// Where it was found, or what follows from its state.
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Read back from hosts, or from the provider.
    Found,
    /// The user sets it elsewhere.
    Given,
    /// Nobody has it: it was made anew.
    Made,
    /// Nobody has it, and it cannot be made by this run.
    Lost,
}

impl State {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Given => "given",
            Self::Made => "made",
            Self::Lost => "lost",
        }
    }
}

/// A workspace that is there again.
pub(crate) struct Recovery {
    pub id: String,
    pub items: Vec<Item>,
    /// What `up` would change now: `node1 ensure-roles`, or why that is not known.
    pub pending: Vec<String>,
    /// What to do next, as commands with a reason.
    pub next: Vec<(String, &'static str)>,
}

/// Makes the workspace again. `trust` is whether host keys that nobody vouches for are accepted as hosts show them.
pub(crate) async fn run(
    context: &Context,
    trust: bool,
    cancel: &CancellationToken,
) -> Result<Recovery> {
    let lock = context.lock("recover")?;
    let staging = context.workspace.begin_recovery(lock)?;
    let (events, mut heard) = Events::channel();
    context.connections.tell(&events);
    let telling = async {
        while let Some(stamped) = heard.recv().await {
            if let Event::Host {
                host,
                state: HostState::Waiting,
                detail: Some(detail),
            } = stamped.event
            {
                context.operator.say(&format!("{host}: waiting ({detail})"));
            }
        }
        std::future::pending::<()>().await;
    };
    let done = tokio::select! {
        done = recover(context, trust, staging, &events) => done,
        () = cancel.cancelled() => Err(Error::interrupted().left("no workspace was written")),
        () = telling => unreachable!("it listens until the end"),
    };
    context.connections.conclude(done.as_ref().err()).await;
    context.connections.close(false).await;
    done.map_err(|error| context.told(error))
}

async fn recover(
    context: &Context,
    trust: bool,
    staging: Staging,
    events: &Events,
) -> Result<Recovery> {
    let workspace = &context.workspace;
    let machines = machines(context).await?;
    let admitted = admit(context, &machines).await?;
    note_changed_host_keys(context, &machines).await?;
    let keys = host_keys(context, &machines, trust)?;
    let all = ask(context, &machines).await?;
    let gathered = Gathered::of(&context.inventory, &all)?;
    of_this_cluster(&machines, &gathered.id)?;
    context.operator.conceal(&gathered.secrets());
    let made = workspace.put_back(&gathered.recovered())?;
    // Everything that was made is masked too.
    context.secrets()?;
    let observed = context
        .on(&machines, events, async |connected| connected.look().await)
        .await?
        .whole()?;
    let members = membership::remembered(&observed.cluster, &observed.found, false);
    workspace.note_members(&members)?;
    let pending = pending(&observed);
    let mut items = vec![Item {
        what: "id of the cluster".to_owned(),
        state: State::Found,
        detail: format!("{}, from {MARKER}", gathered.id),
    }];
    items.push(Item {
        what: "hosts".to_owned(),
        state: State::Found,
        detail: names(members.iter().map(|it| &it.name)),
    });
    items.extend(passwords(context, &gathered, &made)?);
    items.extend(certificates(&gathered));
    items.extend([admitted, keys]);
    items.extend(gathered.kept.iter().map(|(host, path)| Item {
        what: "way back from an upgrade".to_owned(),
        state: State::Lost,
        detail: format!(
            "{host} keeps the old version's data in {path}; remove it when nobody needs it"
        ),
    }));
    let next = next(context, &gathered, &made, !pending.is_empty());
    workspace.install(staging, &machines)?;
    context.share_new().await;
    Ok(Recovery {
        id: gathered.id,
        items,
        pending,
        next,
    })
}

/// The inventory's hosts, which must all run: what a missing one has could not be read.
pub(super) async fn machines(context: &Context) -> Result<Vec<Machine>> {
    let mut machines = context.provider.discover().await?;
    let declared = |machine: &Machine| context.inventory.hosts.contains_key(&machine.host);
    machines.retain(declared);
    if machines.is_empty() {
        return Err(context.no_hosts().left("nothing was changed"));
    }
    let runs = |host: &&HostName| {
        let mut all = machines.iter();
        all.any(|it| it.host == **host && it.state == MachineState::Running)
    };
    let absent: Vec<&HostName> = context
        .inventory
        .hosts
        .keys()
        .filter(|host| !runs(host))
        .collect();
    if absent.is_empty() {
        return Ok(machines);
    }
    Err(Error::new(
        Code::HostNotRunning,
        format!("hosts that do not run: {}", names(absent.into_iter())),
    )
    .cause("their certificates and passwords are read from them")
    .left("nothing was changed")
    .hint("start them, and run the same command again")
    .hint("or take hosts that are gone for good out of the inventory, and run it again"))
}

/// Makes the hosts accept pgherd's key, if it was in the workspace.
pub(super) async fn admit(context: &Context, machines: &[Machine]) -> Result<Item> {
    let item = |state, detail: &str| Item {
        what: "SSH key".to_owned(),
        state,
        detail: detail.to_owned(),
    };
    if !context.workspace.owns_identity()? {
        return Ok(item(State::Given, "yours, which the hosts accept"));
    }
    let identity = context.workspace.identity()?;
    let ids = machines
        .iter()
        .filter_map(|machine| machine.cluster_id.clone());
    let access = Access {
        user: context.inventory.ssh.user.clone(),
        public_key: identity.public_key,
        // Nothing is made, so nothing gets it.
        cluster_id: ids.min().unwrap_or_default(),
        holder: context.connections.holder(),
    };
    context.provider.admit(machines, &access).await?;
    Ok(item(
        State::Made,
        "a new one, which the hosts accept beside the lost one",
    ))
}

/// Notes the keys of hosts that have others than those they were made with, where the provider reads them in the hosts.
/// Only the lost workspace knew of that change.
async fn note_changed_host_keys(context: &Context, machines: &[Machine]) -> Result<()> {
    for (host, keys) in context.provider.present_host_keys(machines).await? {
        let mut all = machines.iter();
        let Some(machine) = all.find(|machine| machine.host == host) else {
            continue;
        };
        let recorded = machine.host_key.as_deref().unwrap_or_default();
        if !keys.is_empty() && !keys.iter().any(|key| recorded.starts_with(key.as_str())) {
            context.workspace.note_host_keys(machine, &keys)?;
        }
    }
    Ok(())
}

/// Pins the hosts' keys.
pub(super) fn host_keys(context: &Context, machines: &[Machine], trust: bool) -> Result<Item> {
    let workspace = &context.workspace;
    let trusted = match trust {
        true => workspace.trust_shown_keys(machines)?,
        false => BTreeMap::new(),
    };
    workspace.pin_host_keys(machines).map_err(|error| {
        error.hint(format!(
            "or trust the keys that the hosts show now, whoever answers there: {} --trust-host-keys",
            context.command("recover")
        ))
    })?;
    let shown: Vec<String> = trusted
        .iter()
        .map(|(host, prints)| format!("{host}: {}", prints.join(", ")))
        .collect();
    let (state, detail) = match shown.is_empty() {
        true => (State::Given, "known on this machine".to_owned()),
        false => (
            State::Made,
            format!("trusted as the hosts showed them: {}", shown.join("; ")),
        ),
    };
    let vouched = machines.iter().all(|machine| machine.host_key.is_some());
    Ok(Item {
        what: "host keys".to_owned(),
        state: if vouched && shown.is_empty() {
            State::Found
        } else {
            state
        },
        detail: if vouched && shown.is_empty() {
            "as the provider knows them".to_owned()
        } else {
            detail
        },
    })
}

/// Reads what every host has.
async fn ask(context: &Context, machines: &[Machine]) -> Result<Vec<(HostName, Told)>> {
    let script = told::script(&context.inventory);
    let answers = context.each(machines, &script, ASK).await?;
    let mut all = Vec::new();
    let mut failures = Vec::new();
    for (machine, answer) in machines.iter().zip(answers) {
        let host = &machine.host;
        match answer.map(|output| (Told::parse(&output.stdout), output.stderr)) {
            Ok((Some(told), _)) => all.push((host.clone(), told)),
            Ok((None, stderr)) => failures.push(
                Error::new(Code::AnswerUnusable, "the host's answer is not complete")
                    .on(host)
                    .excerpt("stderr", stderr),
            ),
            Err(error) => failures.push(another_key(context, error)),
        }
    }
    // Nobody else changes what was read, until this run ends. Where no host answered, why it did not is the error.
    if !all.is_empty() {
        context.connections.settle().await?;
    }
    match failures.len() {
        0 => Ok(all),
        1 => Err(failures.remove(0).left("nothing was changed")),
        _ => {
            Err(Error::several("several hosts cannot be read", failures)
                .left("nothing was changed"))
        }
    }
}

/// A host that shows another key than the one that it was made with need not be a stranger.
fn another_key(context: &Context, error: Error) -> Error {
    if error.code() != Code::HostKeyMismatch {
        return error;
    }
    error
        .hint("after `rotate ssh`, only the lost workspace had the host's present key: compare the key with the one on the host's own console")
        .hint(format!(
            "if they agree: {} --trust-host-keys",
            context.command("recover")
        ))
}

/// Hosts with another cluster's label would answer with that cluster's secrets.
fn of_this_cluster(machines: &[Machine], id: &str) -> Result<()> {
    let strange = |machine: &&Machine| machine.cluster_id.as_deref().is_some_and(|it| it != id);
    let Some(machine) = machines.iter().find(strange) else {
        return Ok(());
    };
    Err(Error::new(
        Code::HostOfAnotherCluster,
        "the host was made for another cluster",
    )
    .on(&machine.host)
    .cause(format!(
        "its id is {}, and the hosts have the id {id} in {MARKER}",
        machine.cluster_id.as_deref().unwrap_or_default()
    ))
    .left("nothing was changed"))
}

fn passwords(context: &Context, gathered: &Gathered, made: &[String]) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    for (name, given) in context.workspace.wanted_passwords()? {
        let found = gathered.passwords.get(name.as_str());
        let (state, detail) = match found {
            _ if given => (State::Given, "set by secrets.file or a variable".to_owned()),
            Some(password) => (State::Found, whereabouts(password)),
            None if made.contains(&name) => (State::Made, instead(&name).to_owned()),
            None => (State::Lost, "it is yours to give".to_owned()),
        };
        items.push(Item {
            what: format!("password {name}"),
            state,
            detail,
        });
    }
    for name in [INTERIM_REPLICATION, INTERIM_REWIND] {
        items.extend(gathered.passwords.get(name).map(|password| Item {
            what: format!("password {name}"),
            state: State::Found,
            detail: format!(
                "{}; a change of the passwords is under way",
                whereabouts(password)
            ),
        }));
    }
    Ok(items)
}

fn whereabouts(password: &Password) -> String {
    let from = format!("from {}", names(password.hosts.iter()));
    match password.others.is_empty() {
        true => from,
        false => format!(
            "{from}; another one on {}, which `up` replaces",
            names(password.others.iter())
        ),
    }
}

/// What follows from a password that was made anew.
fn instead(name: &str) -> &'static str {
    match name {
        "backup" => "no host has it: backups that were made with the old one cannot be read",
        it if it.starts_with("users.") => {
            "the database keeps only a verifier. From the next `up` on, applications need the new one; or set the one that they have: secrets.file"
        }
        _ => "no host has it; `up` changes it where it is used",
    }
}

fn certificates(gathered: &Gathered) -> Vec<Item> {
    let Some(found) = &gathered.certificates else {
        return Vec::new();
    };
    let item = |what: &str, state, detail: String| Item {
        what: what.to_owned(),
        state,
        detail,
    };
    vec![
        item(
            "certificates",
            State::Found,
            format!("from {}", names(found.hosts.iter().map(|(host, _)| host))),
        ),
        item(
            "key of the authority",
            State::Lost,
            "no host has it; until there is a new authority, no certificate can be issued"
                .to_owned(),
        ),
    ]
}

/// What `up` would change, as far as that can be said.
pub(super) fn pending(observed: &Observed) -> Vec<String> {
    match observed.plan() {
        Err(error) => vec![error.to_string()],
        Ok(plan) => {
            let changes = plan.steps.iter().filter(|step| !step.changes.is_empty());
            let named = changes.map(|step| format!("{} {}", step.host, step.name));
            plan.membership.iter().cloned().chain(named).collect()
        }
    }
}

fn next(
    context: &Context,
    gathered: &Gathered,
    made: &[String],
    pending: bool,
) -> Vec<(String, &'static str)> {
    let mut next = Vec::new();
    let interim = gathered.passwords.contains_key(INTERIM_REPLICATION);
    if interim {
        next.push((
            context.command("rotate secrets"),
            "completes the change of the passwords",
        ));
    }
    if pending && !interim {
        let (see, make) = match made.is_empty() {
            true => (
                "shows what differs",
                "corrects it, before anything else changes",
            ),
            false => (
                "shows which passwords `up` would change",
                "changes them, before anything else changes",
            ),
        };
        next.push((context.command("plan"), see));
        next.push((context.command("up"), make));
    }
    if gathered.certificates.is_some() {
        next.push((
            context.command("rotate certs"),
            "makes a new authority while the cluster runs",
        ));
    }
    next.push((
        context.command("rotate secrets --users"),
        "if somebody else may have the lost workspace: makes every password anew",
    ));
    if context.workspace.owns_identity().unwrap_or_default() {
        next.push((
            context.command("ssh HOST"),
            "in that case too: remove the lost key from ~/.ssh/authorized_keys, on every host",
        ));
    }
    next
}

fn names<'a>(hosts: impl Iterator<Item = &'a HostName>) -> String {
    let names: Vec<&str> = hosts.map(HostName::as_str).collect();
    names.join(", ")
}
