//! Kills hosts, or cuts them off from the network, on purpose.

use std::net::Ipv4Addr;

use bollard::models::{
    ContainerStateStatusEnum as Status, NetworkConnectRequest, NetworkDisconnectRequest,
};
use bollard::query_parameters::{
    InspectContainerOptions, KillContainerOptionsBuilder, StartContainerOptions,
};

use super::{container, engine, engine::Engine};
use crate::{
    error::{Code, Error, Result},
    provider::Machine,
};

/// Disconnects the host first: the kernel closes the connections of a killed container, and data that its
/// PostgreSQL had not sent yet would still reach the replicas. A real power cut would not do that.
pub(super) async fn crash(engine: &Engine, network: &str, machine: &Machine) -> Result<()> {
    isolate(engine, network, machine).await?;
    let options = KillContainerOptionsBuilder::default()
        .signal("SIGKILL")
        .build();
    engine::call("kill a container", async {
        match engine
            .api()
            .kill_container(&machine.id, Some(options))
            .await
        {
            // It does not run, which is the goal.
            Err(error) if engine::has_status(&error, 409) => Ok(()),
            result => result,
        }
    })
    .await
    .map_err(|error| error.on(&machine.host))
}

pub(super) async fn revive(engine: &Engine, network: &str, machine: &Machine) -> Result<()> {
    rejoin(engine, network, machine).await?;
    engine::call(
        "start a container",
        engine
            .api()
            .start_container(&machine.id, None::<StartContainerOptions>),
    )
    .await
    .map_err(|error| error.on(&machine.host))
}

pub(super) async fn isolate(engine: &Engine, network: &str, machine: &Machine) -> Result<()> {
    let request = NetworkDisconnectRequest {
        container: machine.id.clone(),
        force: Some(true),
    };
    let cut = engine::call("cut a container off", async {
        match engine.api().disconnect_network(network, request).await {
            // It is already disconnected.
            Err(error) if engine::has_status(&error, 404) => Ok(()),
            result => result,
        }
    });
    match cut.await {
        // Other engines use other codes for the same, such as 500.
        Err(_) if is_on(engine, network, machine).await == Some(false) => Ok(()),
        result => result.map_err(|error| error.on(&machine.host)),
    }
}

/// Whether the container is on the network, with any address.
async fn is_on(engine: &Engine, network: &str, machine: &Machine) -> Option<bool> {
    let options = None::<InspectContainerOptions>;
    let inspected = engine.api().inspect_container(&machine.id, options);
    let networks = inspected.await.ok()?.network_settings?.networks?;
    Some(networks.contains_key(network))
}

pub(super) async fn rejoin(engine: &Engine, network: &str, machine: &Machine) -> Result<()> {
    let connect = async {
        let address = machine
            .address
            .ok_or_else(|| Error::new(Code::InternalError, "its address is not known"))?;
        if is_connected(engine, network, machine, address).await? {
            return Ok(());
        }
        let request = NetworkConnectRequest {
            container: machine.id.clone(),
            endpoint_config: Some(container::endpoint(&machine.host, address)),
        };
        engine::call(
            "connect a container",
            engine.api().connect_network(network, request),
        )
        .await
    };
    connect.await.map_err(|error| error.on(&machine.host))
}

/// Whether the container has this address on the network; a stopped one keeps it.
async fn is_connected(
    engine: &Engine,
    network: &str,
    machine: &Machine,
    address: Ipv4Addr,
) -> Result<bool> {
    let inspected = container::describe(engine, &machine.id).await?;
    let running = inspected
        .state
        .and_then(|state| state.status)
        .is_some_and(|status| status == Status::RUNNING);
    let endpoint = inspected
        .network_settings
        .and_then(|settings| settings.networks?.remove(network));
    Ok(endpoint.is_some_and(|endpoint| {
        let fixed = endpoint.ipam_config.and_then(|ipam| ipam.ipv4_address);
        // Without a fixed address, the engine gave it another one.
        let has = |text: Option<String>| text.is_some_and(|text| text == address.to_string());
        has(endpoint.ip_address) || (!running && has(fixed))
    }))
}
