//! Makes sure that a host which leaves, and cannot be reached, no longer works as a member.
//!
//! pgherd stops the machine of such a host if the machine is its own. It cannot stop other hosts. It asks the
//! remaining hosts and etcd whether such a host is still at work, and refuses to go on if it may be.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use futures_util::future::join_all;

use super::{context::Context, run::Run};
use crate::{
    error::{Code, Error, Result},
    facts,
    inventory::HostName,
    machine::Machine,
    plan::{Found, membership},
};

/// How long a host may take to try the ports of others.
const KNOCK: Duration = Duration::from_secs(30);

/// The hosts that leave, and cannot be reached.
pub(super) struct Unreachable<'a> {
    pub hosts: &'a [HostName],
    /// The cluster with these hosts in it.
    pub context: &'a Context,
    /// All machines of the cluster that run, also those of these hosts.
    pub machines: &'a [Machine],
    /// Whether a new host takes the name of each.
    pub return_anew: bool,
}

/// Stops the machines of the hosts, if pgherd can; says whether it stopped any.
pub(super) async fn stop(unreachable: &Unreachable<'_>) -> Result<bool> {
    let context = unreachable.context;
    if !context.provider.owns_hosts() {
        return Ok(false);
    }
    let mut stopped = false;
    let gone = |machine: &&Machine| unreachable.hosts.contains(&machine.host);
    for machine in unreachable.machines.iter().filter(gone) {
        context.operator.say(&format!(
            "{} cannot be reached: its machine is stopped before anything else",
            machine.host
        ));
        context.provider.crash(machine).await?;
        stopped = true;
    }
    Ok(stopped)
}

/// Refuses to go on if one of the hosts, which pgherd cannot stop, may still be at work.
pub(super) async fn refuse_if_alive(
    unreachable: &Unreachable<'_>,
    run: &Run<'_>,
    found: &Found,
) -> Result<()> {
    let open = answering(unreachable, run).await?;
    for host in unreachable.hosts {
        let refused = |cause: String| {
            Error::new(
                Code::SshUnreachable,
                "it cannot be reached over SSH, and may still be at work",
            )
            .on(host)
            .cause(cause)
            .left("nothing was changed")
            .hint("switch the host off for good, and run the same command again")
        };
        if let Some(ports) = open.get(host) {
            return Err(refused(format!("its port {ports} answers the other hosts")));
        }
        let keys = found.dcs.as_ref();
        if keys.is_some_and(|keys| keys.members.contains_key(host.as_str())) {
            let ttl = unreachable.context.inventory.patroni.ttl;
            return Err(refused(format!(
                "etcd has its entry, which its Patroni renews, and which ends {ttl} s after it has gone"
            )));
        }
        if unreachable.return_anew {
            return Err(cannot_be_made_anew(host));
        }
        run.context.operator.say(&format!(
            "note: {host} cannot be reached. Its ports are silent and etcd has no entry of it, so it is no member now. \
             pgherd cannot know what is on it: if it starts again, its Patroni starts too. \
             Switch it off for good, or run the same command once it can be reached"
        ));
    }
    Ok(())
}

fn cannot_be_made_anew(host: &HostName) -> Error {
    Error::new(
        Code::SshUnreachable,
        "it cannot be reached, and nobody but you can make it anew",
    )
    .on(host)
    .left("nothing was changed")
    .hint(format!(
        "install the host again at its address, and run `pgherd up`: it joins as {host}"
    ))
    .hint(format!(
        "or take it out: remove its line from the inventory, and run `pgherd up --remove {host}`"
    ))
}

/// Which ports of the hosts answer to any host that stays.
async fn answering(
    unreachable: &Unreachable<'_>,
    run: &Run<'_>,
) -> Result<BTreeMap<HostName, String>> {
    let Unreachable {
        hosts,
        context,
        machines,
        ..
    } = unreachable;
    let addresses: BTreeMap<Ipv4Addr, &HostName> = hosts
        .iter()
        .filter_map(|host| Some((context.inventory.hosts[host].address?, host)))
        .collect();
    let asking: Vec<Machine> = machines
        .iter()
        .filter(|it| !hosts.contains(&it.host))
        .cloned()
        .collect();
    let ports: Vec<u16> = membership::ports(&context.inventory);
    let script = facts::knock(addresses.keys().copied(), &ports);
    context
        .on(machines, &run.events, async |connected| {
            let script = &script;
            let asked = asking.iter().map(|machine| async move {
                let silent = |_, _: &str| {};
                let remote = &connected.remote;
                remote.run(&machine.host, script, KNOCK, &silent).await
            });
            let answers = join_all(asked).await.into_iter().flatten();
            let open: BTreeSet<(Ipv4Addr, u16)> = answers
                .flat_map(|output| facts::answering(&output.stdout))
                .collect();
            let mut named: BTreeMap<HostName, String> = BTreeMap::new();
            for (address, port) in open {
                if let Some(host) = addresses.get(&address) {
                    named.entry((*host).clone()).or_insert(port.to_string());
                }
            }
            Ok(named)
        })
        .await
}
