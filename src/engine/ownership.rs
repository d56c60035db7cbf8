//! Finds out which cluster hosts belong to: two clusters can have the same name, but not the same id.
//!
//! The id is in the workspace's secrets, in the label or tag of everything that pgherd made, and in a file on
//! every host. Things that earlier versions made have no such label. If their hosts name no id either, they
//! count as this workspace's cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{net::TcpStream, time::timeout};

use super::{
    connections::is_at_work,
    context::{Context, Source},
};
use crate::{
    configs::Mark,
    contract::MARKER,
    error::{Code, Error, Result},
    event::Events,
    inventory::{HostName, Inventory},
    machine::{Machine, MachineState},
    provider::Resource,
    remote::Script,
    workspace::Workspace,
};

/// The value of `--cluster-id` for things without an id.
const UNMARKED: &str = "unmarked";

/// How long a port may take to answer when only its existence matters.
const KNOCK: Duration = Duration::from_secs(1);

/// The same if the run needs the host anyway, and will say that it does not answer.
const MARKS: Duration = Duration::from_secs(10);

/// How long a host may take to say which cluster it belongs to.
const ASK: Duration = Duration::from_secs(15);

/// Things by their id; `None` for those without one.
type ById<'a> = BTreeMap<Option<&'a str>, Vec<String>>;

impl Context {
    /// For verbs that need an existing cluster: returns its workspace, or an error that says what exists
    /// instead.
    pub(crate) async fn existing(source: Source<'_>) -> Result<Self> {
        if Workspace::existing(&source.inventory)?.is_none() {
            let inventory = source.inventory.clone();
            if let Ok(preview) = Self::new(source, Workspace::preview) {
                preview.marks_are_known().await?;
            }
            return Err(no_cluster(&inventory).await);
        }
        Self::new(source, |inventory| match Workspace::existing(inventory)? {
            Some(workspace) => Ok(workspace),
            None => Workspace::open(inventory),
        })
    }
}

/// Refuses machines that were made for another cluster than the workspace's.
pub(crate) fn of_machines(context: &Context, machines: &[Machine]) -> Result<()> {
    if !context.provider.owns_hosts() {
        return Ok(());
    }
    let mut found = ById::new();
    for machine in machines {
        let id = machine.cluster_id.as_deref();
        let all = found.entry(id).or_default();
        all.push(format!("host {}", machine.host));
    }
    check(
        &context.inventory,
        &found,
        context.workspace.cluster_id()?.as_deref(),
    )
}

fn check(inventory: &Inventory, found: &ById<'_>, ours: Option<&str>) -> Result<()> {
    match ours {
        _ if found.is_empty() => Ok(()),
        None => Err(lost(inventory, found)),
        Some(ours) => {
            let strange = |id: Option<&str>| id.is_some_and(|id| id != ours);
            match found.keys().any(|id| strange(*id)) {
                true => Err(anothers(inventory, found, ours)),
                false => Ok(()),
            }
        }
    }
}

/// Asks hosts without an id which cluster they belong to: a name alone is no reason to remove anything.
///
/// # Errors
/// A host names another cluster, or cannot be asked: it may have been made from another folder. `hints` says what to do.
pub(super) async fn of_unmarked(
    context: &Context,
    machines: &[Machine],
    ours: &str,
    hints: &[String],
) -> Result<()> {
    let runs = |machine: &&Machine| machine.state == MachineState::Running;
    let unknown = |host: &HostName, why: &str| {
        let error = Error::new(Code::HostOfAnotherCluster, "it is not known which cluster this host belongs to")
            .on(host)
            .cause(format!("it has no id, like all hosts that earlier versions made, and its mark cannot be read: {why}"))
            .left("nothing was removed");
        hints.iter().fold(error, Error::hint)
    };
    if let Some(stopped) = machines.iter().find(|it| !runs(it)) {
        return Err(unknown(&stopped.host, "its machine does not run"));
    }
    let (events, _quiet) = Events::channel();
    let script = Script::probe(format!("cat {MARKER} 2>/dev/null; echo"));
    let said = context.on(machines, &events, async |connected| {
        let asked = machines.iter().map(|machine| {
            let (host, remote, script) = (&machine.host, &connected.remote, &script);
            async move {
                let silent = |_, _: &str| {};
                match timeout(ASK, remote.run(host, script, ASK, &silent)).await {
                    Ok(Ok(said)) => Ok((host, said.stdout)),
                    Ok(Err(error)) => Err((host, error.told_of(host))),
                    Err(_) => Err((host, format!("no answer within {} s", ASK.as_secs()))),
                }
            }
        });
        Ok(join_all(asked).await)
    });
    for answer in said.await? {
        let (host, why) = match answer {
            // A new host that was not taken over yet accepts this workspace's key and names no cluster.
            Ok((_, mark)) if mark.trim().is_empty() || Mark::names(&mark, ours) => continue,
            Ok((host, _)) => (host, format!("{MARKER} there names another cluster")),
            Err((host, why)) => (host, why),
        };
        return Err(unknown(host, &why));
    }
    Ok(())
}

/// What to do where `down` does not know whose hosts without an id are.
pub(super) fn instead_of_down(inventory: &Inventory) -> [String; 2] {
    [copy(inventory), removal(inventory, None)]
}

/// The parts of `all` that `down` removes.
///
/// # Errors
/// Some belong to another cluster of the same name, or their cluster is not known here. The error
/// lists the ids, and the command that removes them anyway.
pub(crate) fn removable(
    inventory: &Inventory,
    all: Vec<Resource>,
    ours: Option<&str>,
    wanted: Option<&str>,
) -> Result<Vec<Resource>> {
    let ids: BTreeSet<Option<String>> = all.iter().map(|it| it.cluster_id.clone()).collect();
    let Some(wanted) = wanted else {
        let mut found = ById::new();
        for resource in &all {
            let kind = found.entry(resource.cluster_id.as_deref()).or_default();
            kind.push(format!("{} {}", resource.kind, resource.name));
        }
        check(inventory, &found, ours)?;
        return Ok(all);
    };
    let wanted = (wanted != UNMARKED).then(|| wanted.to_owned());
    let only = ids.iter().flatten().all(|id| Some(id) == wanted.as_ref());
    // Things without an id are removed too, if nobody else can have made them.
    let goes = |it: &Resource| it.cluster_id == wanted || (it.cluster_id.is_none() && only);
    if !ids.is_empty() && !all.iter().any(goes) {
        let there: Vec<&str> = ids.iter().map(|id| named(id.as_deref())).collect();
        return Err(Error::new(
            Code::InvalidArguments,
            "nothing exists of the cluster with that id",
        )
        .cause(format!(
            "the host or resource {} has the id {}",
            inventory.cluster,
            there.join(", ")
        ))
        .left("nothing was removed"));
    }
    Ok(all.into_iter().filter(goes).collect())
}

fn named(id: Option<&str>) -> &str {
    id.unwrap_or(UNMARKED)
}

/// One line for each id, with the things that have it.
fn list(found: &ById<'_>) -> String {
    let line = |(id, things): (Option<&str>, &Vec<String>)| {
        let id = match id {
            Some(id) => format!("id {id}"),
            None => "no id".to_owned(),
        };
        format!("{id}: {}\n", things.join(", "))
    };
    found
        .iter()
        .map(|(id, things)| line((*id, things)))
        .collect()
}

fn anothers(inventory: &Inventory, found: &ById<'_>, ours: &str) -> Error {
    let cluster = &inventory.cluster;
    let mut error = Error::new(
        Code::NameTaken,
        format!("another cluster has the same name, {cluster}"),
    )
    .cause(format!("the cluster of this folder has the id {ours}"))
    .excerpt("found", list(found))
    .left("nothing was touched")
    .hint(format!(
        "if it is this cluster, this folder has another's workspace: copy the right {} here",
        folder(inventory)
    ))
    .hint("otherwise give this cluster another name in the inventory");
    // Things without an id count as this cluster's.
    for id in found.keys().flatten().filter(|id| **id != ours) {
        error = error.hint(removal(inventory, Some(id)));
    }
    error
}

/// The error in a folder without a workspace, for a cluster that exists.
fn lost(inventory: &Inventory, found: &ById<'_>) -> Error {
    let error = missing(inventory, found);
    // Things without an id are removed with the others if only one id exists.
    let marked = found.keys().flatten().count();
    found
        .keys()
        .filter(|id| id.is_some() || marked != 1)
        .fold(error, |error, id| error.hint(removal(inventory, *id)))
}

/// The same for hosts that `down` does not remove.
fn missing(inventory: &Inventory, found: &ById<'_>) -> Error {
    Error::new(
        Code::WorkspaceMissing,
        format!(
            "hosts of the cluster {} are there, and its workspace is not",
            inventory.cluster
        ),
    )
    .cause(format!("{} is not there", secrets(inventory)))
    .excerpt("found", list(found))
    .left("nothing was touched")
    .hint(copy(inventory))
    .hint(recover(inventory))
    .hint("for another cluster beside it, change its name (`cluster`) in the inventory")
}

fn recover(inventory: &Inventory) -> String {
    let recover = inventory.command("recover");
    format!("if the workspace is lost, read it back from the hosts: {recover}")
}

fn copy(inventory: &Inventory) -> String {
    format!(
        "copy {} from the folder or the machine where the cluster was made: it has the cluster's passwords, keys and certificates",
        folder(inventory)
    )
}

fn removal(inventory: &Inventory, id: Option<&str>) -> String {
    let down = inventory.command("down");
    format!(
        "to remove that cluster for good, with all of its data: {down} --cluster-id {}",
        named(id)
    )
}

fn folder(inventory: &Inventory) -> String {
    inventory.workspace_dir().display().to_string()
}

fn secrets(inventory: &Inventory) -> String {
    let path = inventory.workspace_dir().join("secrets.yaml");
    path.display().to_string()
}

impl Context {
    /// An error if hosts of the cluster exist and its workspace does not: new passwords would not be the
    /// cluster's.
    pub(crate) async fn not_lost(&self) -> Result<()> {
        if !self.provider.owns_hosts() || self.workspace.cluster_id()?.is_some() {
            return Ok(());
        }
        of_machines(self, &self.provider.discover().await?)
    }

    /// The same for hosts of the user: what makes them a cluster's is a file on them. Costs a connection to each host
    /// of a cluster that is not known here, which a run keeps.
    pub(super) async fn marks_are_known(&self) -> Result<()> {
        if self.provider.owns_hosts() || self.workspace.cluster_id()?.is_some() {
            return Ok(());
        }
        let mut machines = self.provider.discover().await?;
        // Keys that nobody vouches for are reported when the hosts are needed.
        let _ = self.workspace.pin_host_keys(&machines);
        let pinned = self.workspace.pinned()?;
        machines.retain(|machine| pinned.contains_key(&machine.host));
        let script = Script::probe(format!("cat {MARKER} 2>/dev/null; echo"));
        let answers = match self.each(&machines, &script, MARKS).await {
            Err(error) if is_at_work(&error) => return Err(error),
            answers => answers.unwrap_or_default(),
        };
        let texts: Vec<(&HostName, String)> = machines
            .iter()
            .zip(answers)
            .filter_map(|(machine, answer)| Some((&machine.host, answer.ok()?.stdout)))
            .collect();
        let mut found = ById::new();
        for (host, text) in &texts {
            let mark = Mark::parse(text).filter(Mark::is_pgherds);
            if let Some(mark) = mark.filter(|mark| mark.name == self.inventory.cluster) {
                let all = found.entry(Some(mark.id)).or_default();
                all.push(format!("host {host}"));
            }
        }
        match found.is_empty() {
            true => Ok(()),
            false => Err(missing(&self.inventory, &found)),
        }
    }
}

/// The error of a verb that needs a cluster, in a folder without one. It says what is known of the cluster.
async fn no_cluster(inventory: &Inventory) -> Error {
    let provider = crate::provider::from_inventory(inventory);
    if let Ok(provider) = &provider
        && provider.owns_hosts()
    {
        // If the container engine or the account does not answer, nothing is known.
        let machines = provider.discover().await.unwrap_or_default();
        let mut found = ById::new();
        for machine in &machines {
            let all = found.entry(machine.cluster_id.as_deref()).or_default();
            all.push(format!("host {}", machine.host));
        }
        if !found.is_empty() {
            return lost(inventory, &found);
        }
    }
    let error = Error::new(
        Code::ClusterNotFound,
        format!("there is no cluster {} here", inventory.cluster),
    )
    .cause(format!("{} is not there", secrets(inventory)));
    let answering = match provider.is_ok_and(|it| it.owns_hosts()) {
        true => Vec::new(),
        false => answering(inventory).await,
    };
    if answering.is_empty() {
        return error.hint(format!("create it: {}", inventory.command("up")));
    }
    error
        .cause(format!(
            "its hosts answer like hosts of a cluster: {}",
            answering.join(", ")
        ))
        .hint(copy(inventory))
        .hint(recover(inventory))
        .hint(format!(
            "if somebody made that cluster by hand, take it in: {}",
            inventory.command("adopt")
        ))
        .hint(format!(
            "to use them for this cluster, see what is in the way: {}",
            inventory.command("plan")
        ))
}

/// The services that answer at the inventory's addresses: `node1 on port 8008 (Patroni)`.
async fn answering(inventory: &Inventory) -> Vec<String> {
    if !inventory.ssh.is_direct() {
        // Such an address may be somebody else's on this network.
        return Vec::new();
    }
    let knock = |host: HostName, address: Ipv4Addr, port: u16, service: &'static str| async move {
        let connecting = TcpStream::connect(SocketAddr::from((address, port)));
        match timeout(KNOCK, connecting).await {
            Ok(Ok(_)) => Some(format!("{host} on port {port} ({service})")),
            _ => None,
        }
    };
    let mut knocks = Vec::new();
    for (name, host) in &inventory.hosts {
        let Some(address) = host.address else {
            continue;
        };
        for port in host.roles.iter().flat_map(|role| role.service().ports) {
            let number = inventory.port(port.number);
            let tells = port.tells.into_iter();
            knocks.extend(tells.map(|it| knock(name.clone(), address, number, it)));
        }
    }
    join_all(knocks).await.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::world::{FIVE, cluster};

    fn inventory() -> Inventory {
        cluster("", FIVE).inventory
    }

    fn resource(name: &str, id: Option<&str>) -> Resource {
        Resource {
            keeps_data: false,
            kind: "container",
            id: name.into(),
            name: name.into(),
            host: None,
            cluster_id: id.map(str::to_owned),
        }
    }

    /// The names of the things to remove, or the whole error.
    fn removed(
        all: &[(&str, Option<&str>)],
        ours: Option<&str>,
        wanted: Option<&str>,
    ) -> Result<Vec<String>, String> {
        let all = all.iter().map(|(name, id)| resource(name, *id)).collect();
        match removable(&inventory(), all, ours, wanted) {
            Ok(some) => Ok(some.into_iter().map(|it| it.name).collect()),
            Err(error) => {
                let excerpts = error.excerpts().iter().map(|it| it.text.clone());
                let hints = error.hints().iter().cloned();
                let all: Vec<String> = [error.to_string()]
                    .into_iter()
                    .chain(excerpts)
                    .chain(hints)
                    .collect();
                Err(all.join("\n"))
            }
        }
    }

    #[test]
    fn what_has_the_id_of_the_workspace_goes_and_so_does_what_says_none() {
        let all = [("a", Some("aa")), ("net", None)];
        assert_eq!(removed(&all, Some("aa"), None).unwrap(), ["a", "net"]);
        assert_eq!(removed(&[("a", None)], Some("aa"), None).unwrap(), ["a"]);
        assert_eq!(removed(&[], None, None).unwrap(), [""; 0]);
    }

    #[test]
    fn what_has_another_id_is_refused_and_both_are_named() {
        let error = removed(&[("a", Some("aa")), ("b", Some("bb"))], Some("aa"), None).unwrap_err();
        for part in [
            "has the id aa",
            "id bb: container b",
            "down --cluster-id bb",
        ] {
            assert!(error.contains(part), "{part} is missing in: {error}");
        }
        assert!(!error.contains("--cluster-id aa"), "{error}");
    }

    #[test]
    fn without_a_workspace_nothing_goes_by_its_name_alone() {
        for (id, shown) in [(Some("bb"), "bb"), (None, "unmarked")] {
            let error = removed(&[("b", id)], None, None).unwrap_err();
            assert!(error.contains("secrets.yaml is not there"), "{error}");
            assert!(error.contains(&format!("--cluster-id {shown}")), "{error}");
            assert_eq!(removed(&[("b", id)], None, Some(shown)).unwrap(), ["b"]);
        }
    }

    #[test]
    fn an_id_that_is_typed_removes_its_own_and_no_other() {
        let all = [("a", Some("aa")), ("b", Some("bb")), ("net", None)];
        assert_eq!(removed(&all, Some("aa"), Some("bb")).unwrap(), ["b"]);
        assert_eq!(removed(&all, None, Some("unmarked")).unwrap(), ["net"]);
        assert_eq!(
            removed(&[("b", Some("bb")), ("net", None)], None, Some("bb")).unwrap(),
            ["b", "net"],
            "an older network of the same hosts"
        );
        let error = removed(&all, None, Some("cc")).unwrap_err();
        assert!(error.contains("has the id unmarked, aa, bb"), "{error}");
    }
}
