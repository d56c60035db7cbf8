//! Finds what would prevent a launch, before anything is created.

use super::{
    super::{CLUSTER_LABEL, HOST_LABEL},
    DockerProvider,
    container::{self, Found},
    engine::Engine,
    ports,
};
use crate::{
    error::{Code, Error, Result},
    inventory::HostName,
    services::{Number, Setting},
};

impl DockerProvider {
    /// Refuses everything that prevents the launch of `hosts`, before anything is created.
    pub(super) async fn check(
        &self,
        engine: &Engine,
        hosts: &[HostName],
        found: &[Found],
    ) -> Result<()> {
        let listed = container::list(engine, None).await?;
        for host in hosts {
            let name = container::name(&self.cluster, host);
            let foreign = listed.iter().find(|container| {
                container::listed_name(container) == name
                    && (container::label(container, CLUSTER_LABEL) != Some(&self.cluster)
                        || container::label(container, HOST_LABEL) != Some(host.as_str()))
            });
            if let Some(foreign) = foreign {
                return Err(taken(host, &name, container::label(foreign, CLUSTER_LABEL)));
            }
        }
        for container in found.iter().filter(|found| !found.never_started()) {
            self.check_ports_kept(container)?;
        }
        if let Some(publisher) = self.publisher.as_ref().filter(|host| hosts.contains(host))
            && engine.local
        {
            // If its own container runs, that container has the ports.
            let runs = found
                .iter()
                .any(|found| found.host == *publisher && found.running());
            if !runs && let Err(conflict) = ports::check(&self.ports, &listed) {
                // Another run may have started this very container since the look.
                self.refuse_if_claimed(engine).await?;
                let found = self.found(engine).await?;
                if !found
                    .iter()
                    .any(|found| found.host == *publisher && found.running())
                {
                    return Err(conflict.on(publisher));
                }
            }
        }
        Ok(())
    }

    /// An engine fixes a container's ports at its creation. The pooler may come and go later: its port is then found at
    /// the container's own address, or leads nowhere.
    fn check_ports_kept(&self, container: &Found) -> Result<()> {
        if !self.hosts.contains(&container.host) {
            return Ok(());
        }
        let mut wanted: Vec<u16> = self
            .ports_of(&container.host)
            .iter()
            .map(|port| port.number)
            .collect();
        wanted.sort_unstable();
        let pooler = self.inventory.port(Number::Set(Setting::Pgbouncer));
        let has = |port: &u16| *port == pooler || container.ports.contains(port);
        if wanted.is_empty() == container.ports.is_empty() && wanted.iter().all(has) {
            return Ok(());
        }
        let list = |ports: &[u16]| match ports {
            [] => "no ports".to_owned(),
            ports => {
                let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                format!("ports {}", ports.join(", "))
            }
        };
        Err(Error::new(Code::InfrastructureDiffers, format!(
            "the container {} publishes {} on this machine, and the inventory asks for {}",
            container.name,
            list(&container.ports),
            list(&wanted)
        ))
        .cause("the ports of a container are fixed when it is made")
        .on(&container.host)
        .left("nothing was touched")
        .hint(format!(
            "keep the old ones in the inventory, or create the host again: `docker rm -f {}`, then `up` (everything on the host is lost)",
            container.name
        )))
    }
}

fn taken(host: &HostName, name: &str, owner: Option<&str>) -> Error {
    let error = Error::new(
        Code::NameTaken,
        format!("the name {name} is taken in the engine"),
    )
    .on(host)
    .left("nothing was touched");
    match owner {
        Some(owner) => error
            .cause(format!("it is a host of the cluster {owner}"))
            .hint("give this cluster or this host another name"),
        None => error.cause("that container is not pgherd's").hint(format!(
            "remove it with `docker rm {name}`, or give the cluster another name"
        )),
    }
}
