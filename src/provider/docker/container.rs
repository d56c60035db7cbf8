//! A host in the engine: a container that boots systemd.

use std::{collections::HashMap, net::Ipv4Addr, time::Duration};

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum as Status,
    ContainerSummary, EndpointIpamConfig, EndpointSettings, HostConfig, HostConfigCgroupnsModeEnum,
    HostConfigLogConfig, NetworkingConfig, RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    LogsOptionsBuilder, RemoveContainerOptionsBuilder,
};
use futures_util::{TryStreamExt, future};

use super::{
    archive,
    engine::{self, Engine},
    ports::{self, Port},
};
use crate::{
    error::Result,
    inventory::HostName,
    poll,
    provider::{CLUSTER_LABEL, HOST_LABEL, ID_LABEL, Machine, MachineState},
};

/// PID 1 if an image does not name it.
pub(super) const INIT: &str = "/sbin/pgherd-init";
/// Holds the public part of the host key that pgherd put into the container. Reading the file itself would cost
/// the engine a tenth of a second of processor time for each host.
pub(super) const HOST_KEY_LABEL: &str = "pgherd:host-key";
/// The file by which pgherd recognises its own hosts: the cluster's name, then its id.
const MARK: &str = "/etc/pgherd/cluster";
/// Seconds that `docker stop` gives a host: enough for PostgreSQL's shutdown checkpoint.
const STOP_TIMEOUT: i64 = 60;
/// How long a container that is being removed, or made by a run that died, may keep its name.
const TAKEN: Duration = Duration::from_secs(10);
/// PostgreSQL's parallel queries share memory here, and the engine's default of 64 MB is too little. This is a
/// limit, not a reservation.
const SHM_SIZE: i64 = 1 << 30;

/// An image that the engine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) reference: String,
    /// Whether it names its own program. An image that was imported from a plain tar stream does not.
    pub(super) has_command: bool,
}

/// What the inventory and the network say of one host.
pub(super) struct Spec<'a> {
    pub(super) cluster: &'a str,
    pub(super) host: &'a HostName,
    pub(super) network: &'a str,
    pub(super) address: Ipv4Addr,
    /// Published on this machine's loopback.
    pub(super) ports: &'a [Port],
}

pub(super) fn name(cluster: &str, host: &HostName) -> String {
    format!("{cluster}-{host}")
}

/// A container with the cluster's labels.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) cluster: String,
    pub(super) host: HostName,
    pub(super) status: Status,
    pub(super) exit_code: i64,
    /// How often the engine restarted it after it ended by itself.
    pub(super) restarts: i64,
    /// Running or not: the engine has it.
    pub(super) address: Option<Ipv4Addr>,
    /// Ports of this machine's loopback, sorted.
    pub(super) ports: Vec<u16>,
    /// The public half: `ssh-ed25519 AAAA…`.
    pub(super) host_key: Option<String>,
    pub(super) cluster_id: Option<String>,
}

impl Found {
    pub(super) fn running(&self) -> bool {
        self.status == Status::RUNNING
    }

    /// Created, but never started because of an interruption: nothing is on it.
    pub(super) fn never_started(&self) -> bool {
        self.status == Status::CREATED
    }

    /// The engine is removing it, or has failed to.
    pub(super) fn going(&self) -> bool {
        matches!(self.status, Status::REMOVING | Status::DEAD)
    }

    pub(super) fn machine(self) -> Machine {
        Machine {
            state: match self.running() {
                true => MachineState::Running,
                false => MachineState::Stopped,
            },
            published_on: (!self.ports.is_empty()).then_some(ports::PUBLISHED_ON),
            balancer: None,
            host: self.host,
            id: self.id,
            address: self.address,
            ssh_address: None,
            host_key: self.host_key,
            cluster_id: self.cluster_id,
            data_volume: None,
        }
    }
}

/// The engine's containers, in any state; with `cluster`, only that cluster's.
pub(super) async fn list(engine: &Engine, cluster: Option<&str>) -> Result<Vec<ContainerSummary>> {
    let mut options = ListContainersOptionsBuilder::default().all(true);
    if let Some(cluster) = cluster {
        options = options.filters(&HashMap::from([(
            "label",
            vec![format!("{CLUSTER_LABEL}={cluster}")],
        )]));
    }
    engine::call(
        "list its containers",
        engine.api().list_containers(Some(options.build())),
    )
    .await
}

/// The label of a listed container.
pub(super) fn label<'a>(container: &'a ContainerSummary, label: &str) -> Option<&'a str> {
    container.labels.as_ref()?.get(label).map(String::as_str)
}

/// The name of a listed container, as people write it.
pub(super) fn listed_name(container: &ContainerSummary) -> &str {
    let names = container.names.as_deref().unwrap_or_default();
    names
        .first()
        .map_or("?", |name| name.trim_start_matches('/'))
}

/// The cluster's hosts, all inspected in parallel; `network` is the cluster's.
pub(super) async fn find_all(engine: &Engine, cluster: &str, network: &str) -> Result<Vec<Found>> {
    let listed = list(engine, Some(cluster)).await?;
    let inspections = listed
        .iter()
        .filter_map(|container| container.id.as_deref())
        .map(|id| inspect(engine, id, network));
    let found = future::try_join_all(inspections).await?;
    let mut found: Vec<Found> = found.into_iter().flatten().collect();
    for container in found.iter_mut().filter(|it| it.cluster_id.is_none()) {
        container.cluster_id = mark(engine, &container.id).await;
    }
    Ok(found)
}

/// The id of the cluster that a host itself names: hosts from earlier versions have no label with it.
pub(super) async fn mark(engine: &Engine, id: &str) -> Option<String> {
    let text = archive::read(engine, id, MARK).await.ok()??;
    let id = text.lines().nth(1)?.trim();
    (!id.is_empty()).then(|| id.to_owned())
}

/// One container; `None` if it has gone, or is not pgherd's.
pub(super) async fn inspect(engine: &Engine, id: &str, network: &str) -> Result<Option<Found>> {
    let inspected = engine::lookup(
        "inspect a container",
        engine
            .api()
            .inspect_container(id, None::<InspectContainerOptions>),
    )
    .await?;
    Ok(inspected.and_then(|inspected| found(inspected, network)))
}

/// All that the engine says of a container, pgherd's or not.
pub(super) async fn describe(engine: &Engine, id: &str) -> Result<ContainerInspectResponse> {
    let options = None::<InspectContainerOptions>;
    let inspected = engine.api().inspect_container(id, options);
    engine::call(&format!("inspect the container {id}"), inspected).await
}

/// Whether there is a container with that name, pgherd's or not.
pub(super) async fn exists(engine: &Engine, name: &str) -> Result<bool> {
    let inspected = engine::lookup(
        &format!("look for the container {name}"),
        engine
            .api()
            .inspect_container(name, None::<InspectContainerOptions>),
    )
    .await?;
    Ok(inspected.is_some())
}

fn found(container: ContainerInspectResponse, network: &str) -> Option<Found> {
    let mut labels = container.config?.labels?;
    let host = labels.remove(HOST_LABEL)?;
    let state = container.state.unwrap_or_default();
    let endpoint = container
        .network_settings
        .and_then(|settings| settings.networks?.remove(network));
    let address = endpoint.and_then(|endpoint| {
        let fixed = endpoint.ipam_config.and_then(|ipam| ipam.ipv4_address);
        [fixed, endpoint.ip_address]
            .into_iter()
            .flatten()
            .find_map(|address| address.parse().ok())
    });
    let bindings = container
        .host_config
        .and_then(|config| config.port_bindings);
    Some(Found {
        id: container.id?,
        name: container.name?.trim_start_matches('/').to_owned(),
        cluster: labels.remove(CLUSTER_LABEL)?,
        host: HostName::new(host),
        // A container that the engine is about to restart has ended just now.
        status: match state.status.unwrap_or(Status::EMPTY) {
            Status::EMPTY => Status::EXITED,
            status => status,
        },
        exit_code: state.exit_code.unwrap_or_default(),
        restarts: container.restart_count.unwrap_or_default(),
        address,
        ports: bindings.as_ref().map(ports::published).unwrap_or_default(),
        host_key: labels.remove(HOST_KEY_LABEL),
        cluster_id: labels.remove(ID_LABEL),
    })
}

/// Creates the container and returns its id; does not start it.
pub(super) async fn create(
    engine: &Engine,
    spec: &Spec<'_>,
    image: &Image,
    host_key: &str,
    cluster_id: &str,
) -> Result<String> {
    let name = name(spec.cluster, spec.host);
    let doing = format!("create the container {name}");
    let created = poll::until(TAKEN, Duration::from_millis(200), || async {
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let create = engine
            .api()
            .create_container(Some(options), body(spec, image, host_key, cluster_id));
        let answer = engine::call(&doing, async {
            match create.await {
                Ok(response) => Ok(Ok(response.id)),
                Err(error) if engine::has_status(&error, 409) => Ok(Err(error)),
                Err(error) => Err(error),
            }
        });
        let taken = match answer.await {
            Ok(Ok(id)) => return Ok(Ok(id)),
            Ok(Err(taken)) => taken,
            Err(error) => return Ok(Err(error)),
        };
        match remove_requested(engine, &name, spec).await {
            Ok(()) => Err(taken),
            Err(error) => Ok(Err(error)),
        }
    });
    let created = created.await;
    created.unwrap_or_else(|over| Err(engine::could_not(&doing, &over.last)))
}

/// Removes a container that an interrupted `up` requested a moment ago. The engine continues alone, reserves
/// the name at once, and shows the container later.
async fn remove_requested(engine: &Engine, name: &str, spec: &Spec<'_>) -> Result<()> {
    match inspect(engine, name, spec.network).await? {
        Some(found) if found.never_started() && found.cluster == spec.cluster => {
            remove(engine, &found.id, name).await
        }
        _ => Ok(()),
    }
}

fn body(spec: &Spec<'_>, image: &Image, host_key: &str, cluster_id: &str) -> ContainerCreateBody {
    let strings = |strings: &[&str]| -> Option<Vec<String>> {
        Some(strings.iter().map(|&string| string.to_owned()).collect())
    };
    let bindings = ports::bindings(spec.ports);
    let mut exposed: Vec<String> = bindings.keys().cloned().collect();
    exposed.sort();
    let host_config = HostConfig {
        // What systemd needs as PID 1. This is far less than --privileged, which would give it the machine's
        // devices and which some engines refuse.
        cap_add: strings(&["SYS_ADMIN", "NET_ADMIN"]),
        security_opt: strings(&["seccomp=unconfined", "apparmor=unconfined"]),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        tmpfs: Some(HashMap::from([
            ("/run".into(), String::new()),
            ("/run/lock".into(), String::new()),
        ])),
        // An engine may be configured to put its own init first; systemd must be PID 1.
        init: Some(false),
        shm_size: Some(SHM_SIZE),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("local".into()),
            config: Some(HashMap::from([
                ("max-size".into(), "10m".into()),
                ("max-file".into(), "2".into()),
            ])),
        }),
        port_bindings: (!bindings.is_empty()).then_some(bindings),
        network_mode: Some(spec.network.to_owned()),
        ..Default::default()
    };
    ContainerCreateBody {
        image: Some(image.reference.clone()),
        hostname: Some(spec.host.to_string()),
        entrypoint: (!image.has_command).then(|| vec![INIT.to_owned()]),
        env: strings(&["container=docker"]),
        exposed_ports: (!exposed.is_empty()).then_some(exposed),
        stop_signal: Some("SIGRTMIN+3".into()),
        stop_timeout: Some(STOP_TIMEOUT),
        labels: Some(HashMap::from([
            (CLUSTER_LABEL.into(), spec.cluster.into()),
            (HOST_LABEL.into(), spec.host.to_string()),
            (HOST_KEY_LABEL.into(), host_key.to_owned()),
            (ID_LABEL.into(), cluster_id.to_owned()),
        ])),
        host_config: Some(host_config),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(
                spec.network.to_owned(),
                endpoint(spec.host, spec.address),
            )])),
        }),
        ..Default::default()
    }
}

/// An address that the host keeps over restarts, and its name on the network.
pub(super) fn endpoint(host: &HostName, address: Ipv4Addr) -> EndpointSettings {
    EndpointSettings {
        ipam_config: Some(EndpointIpamConfig {
            ipv4_address: Some(address.to_string()),
            ..Default::default()
        }),
        aliases: Some(vec![host.to_string()]),
        ..Default::default()
    }
}

/// The last lines of the container's output.
pub(super) async fn log_tail(engine: &Engine, id: &str) -> String {
    let options = LogsOptionsBuilder::default()
        .stdout(true)
        .stderr(true)
        .tail("20")
        .build();
    let log = engine::call(
        "read a container's log",
        engine
            .api()
            .logs(id, Some(options))
            .try_fold(String::new(), |mut text, line| async move {
                text.push_str(&line.to_string());
                Ok(text)
            }),
    );
    // It is only an addition to a more important error.
    log.await.unwrap_or_default()
}

/// Removes a container, running or not, with its anonymous volumes, and waits until it is gone.
pub(super) async fn remove(engine: &Engine, id: &str, name: &str) -> Result<()> {
    let options = RemoveContainerOptionsBuilder::default()
        .force(true)
        .v(true)
        .build();
    let doing = format!("remove the container {name}");
    engine::lookup(&doing, async {
        match engine.api().remove_container(id, Some(options)).await {
            // Another process is already removing it.
            Err(error) if engine::has_status(&error, 409) => Ok(()),
            result => result,
        }
    })
    .await?;
    engine::call(&doing, async {
        let pause = Duration::from_millis(100);
        let gone = poll::until_found(engine::CALL_TIMEOUT, pause, || async {
            let inspected = engine
                .api()
                .inspect_container(id, None::<InspectContainerOptions>);
            match inspected.await {
                Err(error) if engine::has_status(&error, 404) => Ok(Some(())),
                Err(error) => Err(error),
                Ok(_) => Ok(None),
            }
        });
        gone.await.map(|_| ())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Haproxy;

    fn spec<'a>(host: &'a HostName, ports: &'a [Port]) -> Spec<'a> {
        Spec {
            cluster: "pg",
            host,
            network: "pg-net",
            address: Ipv4Addr::new(10, 83, 1, 11),
            ports,
        }
    }

    fn image(has_command: bool) -> Image {
        Image {
            reference: "pgherd-host:x".into(),
            has_command,
        }
    }

    #[test]
    fn a_host_is_never_privileged() {
        let host = HostName::new("node1");
        let body = body(&spec(&host, &[]), &image(false), "ssh-ed25519 A", "0a1b");
        assert_eq!(body.labels.as_ref().unwrap()[ID_LABEL], "0a1b");
        assert_eq!(body.entrypoint, Some(vec![INIT.to_owned()]));
        let config = body.host_config.unwrap();
        assert_eq!(config.privileged, None);
        assert_eq!(config.binds, None);
        assert_eq!(config.port_bindings, None);
    }

    #[test]
    fn published_ports_are_on_loopback_only() {
        let host = HostName::new("haproxy");
        let ports = ports::of(&Haproxy::default(), None);
        let body = body(&spec(&host, &ports), &image(true), "ssh-ed25519 A", "0a1b");
        assert_eq!(body.entrypoint, None);
        let bindings = body.host_config.unwrap().port_bindings.unwrap();
        assert_eq!(bindings.len(), 3);
        for binding in bindings.into_values().flatten().flatten() {
            assert_eq!(binding.host_ip.as_deref(), Some("127.0.0.1"));
        }
    }
}
