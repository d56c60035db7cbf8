//! Gives running hosts other addresses.

use std::{collections::BTreeSet, net::Ipv4Addr, time::Duration};

use bollard::models::{NetworkConnectRequest, NetworkDisconnectRequest};
use ipnet::Ipv4Net;
use tokio::time::Instant;

use super::{
    container::{self, Found, Spec},
    engine::{self, Engine},
    network, subnet,
};
use crate::{
    error::{Code, Error, Result},
    event::{Events, HostState},
    inventory::HostName,
    poll,
    provider::{Machine, ssh_probe::answers},
};

/// The new addresses of running hosts.
///
/// A fixed address is used as it is; `provider.subnet` applies to hosts outside it.
pub(super) fn moves<'a>(
    desired: &network::Desired<'_>,
    hosts: impl Iterator<Item = &'a HostName>,
    machines: &[Machine],
) -> Result<Vec<(HostName, Ipv4Addr)>> {
    let Some(subnet) = subnet::wanted(desired.subnet, desired.fixed)? else {
        return Ok(Vec::new());
    };
    // Without `subnet:`, only fixed addresses were requested, and the others may be anywhere.
    let stays = |address: Ipv4Addr| match desired.subnet {
        Some(subnet) => subnet.contains(&address),
        None => true,
    };
    let existing = machines
        .iter()
        .filter(|machine| !desired.fixed.contains_key(&machine.host))
        .filter_map(|machine| Some((machine.host.clone(), machine.address?)))
        .filter(|(_, address)| stays(*address))
        .collect();
    let gateway = subnet::gateway(subnet, desired.fixed)?;
    let vip = BTreeSet::from_iter(desired.vip);
    let assigned = subnet::assign(subnet, gateway, hosts, desired.fixed, &existing, &vip)?;
    Ok(assigned
        .into_iter()
        .filter(|(host, to)| {
            let machine = machines.iter().find(|machine| machine.host == *host);
            machine.is_some_and(|machine| machine.address != Some(*to))
        })
        .collect())
}

/// Moves running hosts. All leave the network before the first one is connected again, because they may swap
/// addresses, and the network itself may be another one.
pub(super) async fn readdress(
    engine: &Engine,
    desired: &network::Desired<'_>,
    specs: &[Spec<'_>],
    found: &[Found],
    ssh: (u16, Duration),
    events: &Events,
) -> Result<()> {
    let mut moving = Vec::new();
    for spec in specs {
        let container = found.iter().find(|found| found.host == *spec.host);
        let container = container.ok_or_else(|| {
            Error::new(Code::HostNotRunning, "its container has disappeared").on(spec.host)
        })?;
        moving.push((spec, container));
    }
    if let Some(subnet) = subnet::wanted(desired.subnet, desired.fixed)? {
        let staying: Vec<&str> = found
            .iter()
            .filter(|found| found.running())
            .filter(|found| specs.iter().all(|spec| *spec.host != found.host))
            .filter(|found| found.address.is_some_and(|it| !subnet.contains(&it)))
            .map(|found| found.name.as_str())
            .collect();
        if !staying.is_empty() && network::is_elsewhere(engine, desired, subnet).await? {
            return Err(no_two_networks(subnet, &staying));
        }
    }
    for (spec, container) in &moving {
        if container.address.is_some() {
            leave(engine, spec, &container.id).await?;
        }
    }
    network::renumber(engine, desired).await?;
    network::ensure(engine, desired, events).await?;
    for (spec, container) in &moving {
        join(engine, spec, &container.id).await?;
    }
    let (port, timeout) = ssh;
    let deadline = Instant::now() + timeout;
    for (spec, container) in &moving {
        let left = deadline.saturating_duration_since(Instant::now());
        let reached = poll::until(left, Duration::from_millis(50), || async {
            match answers(spec.address, port).await {
                true => Ok(()),
                false => Err(()),
            }
        });
        reached.await.map_err(|_| {
            Error::new(
                Code::HostDidNotStart,
                format!(
                    "nothing answers as SSH on its new address {}:{port} after {} s",
                    spec.address,
                    timeout.as_secs()
                ),
            )
            .on(spec.host)
            .left(format!(
                "the container {} runs, and has that address",
                container.name
            ))
        })?;
        let detail = spec.address.to_string();
        events.host(spec.host, HostState::Moved, Some(detail));
    }
    Ok(())
}

fn no_two_networks(subnet: Ipv4Net, staying: &[&str]) -> Error {
    Error::new(
        Code::NetworkUnsuitable,
        format!(
            "the network cannot become {subnet} while hosts stay outside of it: {}",
            staying.join(", ")
        ),
    )
    .left("nothing was touched")
    .hint("give every host an address in the new subnet, or none at all")
}

/// Gives a stopped host another address.
pub(super) async fn move_stopped(engine: &Engine, spec: &Spec<'_>, id: &str) -> Result<()> {
    leave(engine, spec, id).await?;
    join(engine, spec, id).await
}

async fn leave(engine: &Engine, spec: &Spec<'_>, id: &str) -> Result<()> {
    engine::lookup(
        &doing(spec),
        engine.api().disconnect_network(
            spec.network,
            NetworkDisconnectRequest {
                container: id.to_owned(),
                force: Some(true),
            },
        ),
    )
    .await
    .map(|_| ())
}

async fn join(engine: &Engine, spec: &Spec<'_>, id: &str) -> Result<()> {
    engine::call(
        &doing(spec),
        engine.api().connect_network(
            spec.network,
            NetworkConnectRequest {
                container: id.to_owned(),
                endpoint_config: Some(container::endpoint(spec.host, spec.address)),
            },
        ),
    )
    .await
    .map_err(|error| {
        error
            .on(spec.host)
            .left("the host has no address until the next run gives it one")
            .hint(format!(
                "see who has {}: docker network inspect {}",
                spec.address, spec.network
            ))
    })
}

fn doing(spec: &Spec<'_>) -> String {
    let name = container::name(spec.cluster, spec.host);
    format!("give the container {name} the address {}", spec.address)
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;

    use super::*;
    use crate::provider::MachineState;

    fn machine(host: &str, address: Option<&str>) -> Machine {
        Machine {
            host: HostName::new(host),
            id: host.into(),
            state: MachineState::Running,
            address: address.map(|it| it.parse().unwrap()),
            ssh_address: None,
            host_key: None,
            published_on: None,
            balancer: None,
            cluster_id: None,
            data_volume: None,
        }
    }

    fn moved(subnet: Option<&str>, fixed: &[(&str, &str)], at: &[(&str, Option<&str>)]) -> String {
        let fixed: IndexMap<HostName, Ipv4Addr> = fixed
            .iter()
            .map(|(host, address)| (HostName::new(*host), address.parse().unwrap()))
            .collect();
        let desired = network::Desired {
            cluster: "c",
            id: None,
            subnet: subnet.map(|it| it.parse().unwrap()),
            fixed: &fixed,
            vip: None,
        };
        let machines: Vec<Machine> = at.iter().map(|(h, a)| machine(h, *a)).collect();
        let hosts: Vec<HostName> = machines.iter().map(|it| it.host.clone()).collect();
        let moves = moves(&desired, hosts.iter(), &machines).unwrap();
        let moves: Vec<String> = moves.iter().map(|(h, a)| format!("{h} {a}")).collect();
        moves.join(", ")
    }

    #[test]
    fn a_fixed_address_is_where_a_host_goes() {
        let at = [("a", Some("10.0.0.11")), ("b", Some("10.0.0.12"))];
        assert_eq!(moved(None, &[], &at), "");
        assert_eq!(moved(None, &[("b", "10.0.0.12")], &at), "");
        assert_eq!(moved(None, &[("b", "10.0.0.20")], &at), "b 10.0.0.20");
        assert_eq!(
            moved(None, &[("a", "10.0.0.12"), ("b", "10.0.0.11")], &at),
            "a 10.0.0.12, b 10.0.0.11"
        );
    }

    #[test]
    fn another_subnet_moves_whoever_is_outside_of_it() {
        let at = [("a", Some("10.0.0.11")), ("b", Some("10.9.0.12"))];
        assert_eq!(
            moved(Some("10.9.0.0/24"), &[], &at),
            "a 10.9.0.11",
            "in the order of assignment"
        );
    }

    #[test]
    fn a_move_that_was_cut_off_is_completed() {
        let at = [("a", None), ("b", Some("10.0.0.12"))];
        assert_eq!(moved(None, &[("a", "10.0.0.20")], &at), "a 10.0.0.20");
        assert_eq!(moved(Some("10.0.0.0/24"), &[], &at), "a 10.0.0.11");
    }
}
