//! Finds and removes everything that the cluster has in the engine.

use std::collections::HashMap;

use bollard::query_parameters::{InspectNetworkOptions, ListNetworksOptionsBuilder};
use futures_util::future;

use super::{
    container,
    engine::{self, Engine},
};
use crate::{
    error::{Code, Error, Result},
    event::{Event, Events, HostState},
    inventory::HostName,
    provider::{CLUSTER_LABEL, HOST_LABEL, ID_LABEL, Resource},
};

const CONTAINER: &str = "container";
const NETWORK: &str = "network";

/// Everything with the cluster's label: containers by name, then networks.
pub(super) async fn resources(engine: &Engine, cluster: &str) -> Result<Vec<Resource>> {
    let ours = HashMap::from([("label", vec![format!("{CLUSTER_LABEL}={cluster}")])]);
    let options = ListNetworksOptionsBuilder::default().filters(&ours).build();
    let (containers, networks) = tokio::try_join!(
        container::list(engine, Some(cluster)),
        engine::call(
            "list its networks",
            engine.api().list_networks(Some(options))
        )
    )?;
    let mut containers: Vec<Resource> = containers
        .into_iter()
        .filter_map(|container| {
            Some(Resource {
                keeps_data: false,
                kind: CONTAINER,
                name: container::listed_name(&container).to_owned(),
                host: container::label(&container, HOST_LABEL).map(HostName::new),
                cluster_id: container::label(&container, ID_LABEL).map(str::to_owned),
                id: container.id?,
            })
        })
        .collect();
    containers.sort_by(|a, b| a.name.cmp(&b.name));
    for container in containers.iter_mut().filter(|it| it.cluster_id.is_none()) {
        container.cluster_id = container::mark(engine, &container.id).await;
    }
    let mut networks: Vec<Resource> = networks
        .into_iter()
        .filter_map(|network| {
            Some(Resource {
                keeps_data: false,
                kind: NETWORK,
                name: network.name?,
                host: None,
                cluster_id: network.labels.and_then(|mut it| it.remove(ID_LABEL)),
                id: network.id?,
            })
        })
        .collect();
    networks.sort_by(|a, b| a.name.cmp(&b.name));
    containers.append(&mut networks);
    Ok(containers)
}

/// Removes containers, all in parallel, then networks; it is no error if something has gone already.
pub(super) async fn remove(engine: &Engine, resources: &[Resource], events: &Events) -> Result<()> {
    let mut failures = Vec::new();
    for kind in [CONTAINER, NETWORK] {
        let removals = resources
            .iter()
            .filter(|resource| resource.kind == kind)
            .map(|resource| remove_one(engine, resource, events));
        let results = future::join_all(removals).await;
        failures.extend(results.into_iter().filter_map(Result::err));
    }
    match failures.len() {
        0 => Ok(()),
        1 => Err(failures.remove(0)),
        failed => Err(Error::several(
            format!(
                "{failed} of {} things could not be removed",
                resources.len()
            ),
            failures,
        )),
    }
}

async fn remove_one(engine: &Engine, resource: &Resource, events: &Events) -> Result<()> {
    let emit = |state| {
        events.emit(Event::Resource {
            kind: resource.kind.to_owned(),
            id: resource.id.clone(),
            name: resource.name.clone(),
            state,
        });
    };
    emit(HostState::Removing);
    match resource.kind {
        CONTAINER => container::remove(engine, &resource.id, &resource.name).await,
        NETWORK => remove_network(engine, resource).await,
        other => Err(Error::new(
            Code::InternalError,
            format!("a container engine cannot remove a {other}"),
        )),
    }
    .map_err(|error| {
        let error = error.left(format!(
            "the {} {} is still there; run `down` again",
            resource.kind, resource.name
        ));
        match &resource.host {
            Some(host) => error.on(host),
            None => error,
        }
    })?;
    emit(HostState::Removed);
    Ok(())
}

async fn remove_network(engine: &Engine, network: &Resource) -> Result<()> {
    let removed = engine::lookup(
        &format!("remove the network {}", network.name),
        engine.api().remove_network(&network.id),
    )
    .await;
    let Err(error) = removed else {
        return Ok(());
    };
    let inspected = engine::lookup(
        "inspect a network",
        engine
            .api()
            .inspect_network(&network.id, None::<InspectNetworkOptions>),
    );
    let mut users: Vec<String> = match inspected.await {
        Ok(Some(inspected)) => inspected
            .containers
            .unwrap_or_default()
            .into_values()
            .filter_map(|endpoint| endpoint.name)
            .collect(),
        Ok(None) => return Ok(()),
        Err(_) => Vec::new(),
    };
    if users.is_empty() {
        return Err(error);
    }
    users.sort();
    let hints = users
        .iter()
        .map(|user| format!("docker network disconnect {} {user}", network.name));
    Err(hints.fold(
        error.cause(format!("these are still on it: {}", users.join(", "))),
        Error::hint,
    ))
}
