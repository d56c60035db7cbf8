//! Finds and removes everything that the cluster has in the account.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aws_sdk_ec2::{
    Client,
    types::{Filter, Instance, InstanceStateName as State, Tag, Volume, VolumeState},
};
use futures_util::future;
use tokio::time::sleep;

use super::{
    attached::{Attached, is_data},
    failure::{Doing, Failure, insist},
    groups,
    instance::{self, of_cluster, tag},
    late::{LATE, seen},
    rules,
};
use crate::{
    error::{Code, Error, Result},
    event::{Event, Events, HostState},
    inventory::HostName,
    poll::{self, Pauses},
    provider::{HOST_LABEL, ID_LABEL, Resource},
    workspace::Launches,
};

pub(super) const INSTANCE: &str = "instance";
const VOLUME: &str = "volume";
const INTERFACE: &str = "network interface";
pub(super) const GROUP: &str = "security group";
const KEY_PAIR: &str = "key pair";

/// How long instances may take to terminate; those with much memory need minutes.
const ENDING: Duration = Duration::from_secs(600);
/// How long EC2 may keep the resources of terminated instances in use.
const RELEASE: Duration = Duration::from_secs(180);

fn resource(
    kind: &'static str,
    id: Option<&str>,
    name: Option<&str>,
    tags: &[Tag],
) -> Option<Resource> {
    let host = tag(tags, HOST_LABEL);
    let id = id?.to_owned();
    Some(Resource {
        kind,
        name: name.or(host).unwrap_or(&id).to_owned(),
        host: host.map(HostName::new),
        cluster_id: tag(tags, ID_LABEL).map(str::to_owned),
        keeps_data: false,
        id,
    })
}

/// Everything with the cluster's tag, in the order in which it can be removed.
///
/// Most volumes, and all interfaces, are removed with their instance, so they are listed only if they have none
/// any more. A data volume is always listed.
pub(super) async fn resources(ec2: &Client, cluster: &str) -> Result<Vec<Resource>, Failure> {
    let (instances, volumes, interfaces, groups, pairs) = tokio::try_join!(
        instances(ec2, cluster),
        volumes(ec2, cluster),
        interfaces(ec2, cluster),
        all_groups(ec2, cluster),
        pairs(ec2, cluster),
    )?;
    let stay = instances.iter().filter_map(Attached::of);
    let stay: BTreeSet<String> = stay.filter(|it| it.stays).map(|it| it.id).collect();
    let instances = instances
        .iter()
        .filter_map(|it| resource(INSTANCE, it.instance_id(), None, it.tags()))
        .collect();
    let volumes = volumes
        .iter()
        .filter_map(|it| {
            let loose = matches!(
                it.state(),
                Some(VolumeState::Available | VolumeState::Error)
            );
            let listed = resource(VOLUME, it.volume_id(), None, it.tags())?;
            let stays = stay.contains(&listed.id);
            (loose || stays).then_some(Resource {
                keeps_data: is_data(it),
                ..listed
            })
        })
        .collect();
    let mut all = Vec::new();
    for mut kind in [instances, volumes, interfaces, groups, pairs] {
        kind.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        all.append(&mut kind);
    }
    Ok(all)
}

/// Terminating instances still exist, and keep the other resources in use, until they have terminated.
async fn instances(ec2: &Client, cluster: &str) -> Result<Vec<Instance>, Failure> {
    let states = [&instance::ALIVE[..], &[State::ShuttingDown]].concat();
    let filters = vec![of_cluster(cluster), instance::in_states(&states)];
    instance::list(ec2, filters, "list the cluster's instances").await
}

async fn volumes(ec2: &Client, cluster: &str) -> Result<Vec<Volume>, Failure> {
    ec2.describe_volumes()
        .filters(of_cluster(cluster))
        .into_paginator()
        .items()
        .send()
        .collect::<Result<Vec<_>, _>>()
        .await
        .doing("list the cluster's volumes")
}

async fn interfaces(ec2: &Client, cluster: &str) -> Result<Vec<Resource>, Failure> {
    let found = ec2
        .describe_network_interfaces()
        .filters(of_cluster(cluster))
        .filters(instance::filter("status", ["available"]))
        .into_paginator()
        .items()
        .send()
        .collect::<Result<Vec<_>, _>>()
        .await
        .doing("list the cluster's network interfaces")?;
    let found = found.iter();
    Ok(found
        .filter_map(|it| resource(INTERFACE, it.network_interface_id(), None, it.tag_set()))
        .collect())
}

async fn all_groups(ec2: &Client, cluster: &str) -> Result<Vec<Resource>, Failure> {
    let found = groups::list(ec2, cluster).await?;
    let found = found.iter();
    Ok(found
        .filter_map(|it| resource(GROUP, it.group_id(), it.group_name(), it.tags()))
        .collect())
}

async fn pairs(ec2: &Client, cluster: &str) -> Result<Vec<Resource>, Failure> {
    let found = ec2
        .describe_key_pairs()
        .filters(of_cluster(cluster))
        .send()
        .await
        .doing("list the cluster's key pairs")?;
    let found = found.key_pairs().iter();
    Ok(found
        .filter_map(|it| resource(KEY_PAIR, it.key_pair_id(), it.key_name(), it.tags()))
        .collect())
}

/// Waits if a run has died in the middle of a launch just now: its new resources are not listed at once.
pub(super) async fn await_launches(launches: &Launches) -> Result<()> {
    let mut under_way = launches.under_way()?.into_iter();
    if under_way.any(|age| age < super::SETTLING) {
        sleep(LATE).await;
    }
    Ok(())
}

/// Waits until removed resources are no longer listed, so that nobody takes them for leftovers.
pub(super) async fn await_forgotten(
    ec2: &Client,
    cluster: &str,
    removed: &[Resource],
) -> Result<()> {
    let forgotten = seen(LATE, || async {
        let left = resources(ec2, cluster).await?;
        let listed = left.iter().any(|it| removed.iter().any(|r| r.id == it.id));
        Ok((!listed).then_some(()))
    });
    forgotten.await?;
    Ok(())
}

/// Removes `resources` and waits until they are gone; it is no error if something has gone already.
pub(super) async fn remove(ec2: &Client, resources: &[Resource], events: &Events) -> Result<()> {
    let of = |kind| resources.iter().filter(move |it| it.kind == kind);
    let emit = |resource: &Resource, state| {
        events.emit(Event::Resource {
            kind: resource.kind.to_owned(),
            id: resource.id.clone(),
            name: resource.name.clone(),
            state,
        });
    };
    let ids: Vec<String> = of(INSTANCE).map(|it| it.id.clone()).collect();
    if !ids.is_empty() {
        of(INSTANCE).for_each(|it| emit(it, HostState::Removing));
        let go: BTreeSet<&str> = of(VOLUME).map(|it| it.id.as_str()).collect();
        let (kept, gone) = with_and_without_kept_volumes(ec2, &ids, &go).await?;
        // A clean shutdown writes data that nobody will read, and may take minutes.
        terminate(ec2, &gone, true).await?;
        terminate(ec2, &kept, false).await?;
        wait_ended(ec2, &ids, |id| {
            of(INSTANCE)
                .filter(|it| it.id == id)
                .for_each(|it| emit(it, HostState::Removed));
        })
        .await?;
    }
    let groups: Vec<&Resource> = of(GROUP).collect();
    detach_groups(ec2, &groups).await?;
    let rest = resources
        .iter()
        .filter(|it| it.kind != INSTANCE)
        .map(|it| async move {
            emit(it, HostState::Removing);
            delete(ec2, it).await?;
            emit(it, HostState::Removed);
            Ok::<_, Error>(())
        });
    let failures: Vec<Error> = future::join_all(rest)
        .await
        .into_iter()
        .filter_map(Result::err)
        .collect();
    super::together(failures, |count| {
        format!("{count} things could not be removed")
    })
}

fn with_ids(ids: &[String]) -> Filter {
    instance::filter("instance-id", ids.iter().map(String::as_str))
}

/// Separates the instances that have a volume which outlives them, and is not among those that `go`, from the
/// others.
async fn with_and_without_kept_volumes(
    ec2: &Client,
    ids: &[String],
    go: &BTreeSet<&str>,
) -> Result<(Vec<String>, Vec<String>)> {
    let filters = vec![with_ids(ids)];
    let found = instance::list(ec2, filters, "look at the instances' volumes").await?;
    let outlives = |it: &&Instance| {
        let mut volumes = it.block_device_mappings().iter().filter_map(|it| it.ebs());
        volumes.any(|it| {
            let goes = it.volume_id().is_some_and(|id| go.contains(id));
            it.delete_on_termination() != Some(true) && !goes
        })
    };
    let keepers: Vec<&str> = found
        .iter()
        .filter(outlives)
        .filter_map(|it| it.instance_id())
        .collect();
    let ids = ids.iter().cloned();
    Ok(ids.partition(|id| keepers.contains(&id.as_str())))
}

async fn terminate(ec2: &Client, ids: &[String], at_once: bool) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let ended = ec2
        .terminate_instances()
        .set_instance_ids(Some(ids.to_vec()))
        .set_skip_os_shutdown(at_once.then_some(true))
        .send()
        .await
        .doing("terminate the instances");
    match ended {
        // One of them has been gone for so long that EC2 has forgotten it, and the call did nothing.
        Err(failure) if failure.is(&["InvalidInstanceID.NotFound"]) && ids.len() > 1 => {
            for id in ids {
                Box::pin(terminate(ec2, std::slice::from_ref(id), at_once)).await?;
            }
            Ok(())
        }
        Err(failure) if failure.is(&["InvalidInstanceID.NotFound"]) => Ok(()),
        Err(failure) => {
            let protected = failure.is(&["OperationNotPermitted"]);
            let error = Error::from(failure);
            Err(match protected {
                true => error.hint("an instance has termination protection; disable it first"),
                false => error,
            })
        }
        Ok(_) => Ok(()),
    }
}

async fn wait_ended(ec2: &Client, ids: &[String], ended: impl Fn(&str)) -> Result<()> {
    let left = Mutex::new(ids.to_vec());
    let lock = || left.lock().unwrap_or_else(PoisonError::into_inner);
    let pauses = Pauses::growing(Duration::from_millis(250), Duration::from_secs(4));
    let all = poll::until_found(ENDING, pauses, || async {
        let asked = lock().clone();
        let answer = instance::list(ec2, vec![with_ids(&asked)], "watch the instances end").await?;
        let there: Vec<&str> = answer
            .iter()
            .filter(|it| it.state().and_then(|it| it.name()) != Some(&State::Terminated))
            .filter_map(|it| it.instance_id())
            .collect();
        let mut left = lock();
        left.retain(|id| {
            let gone = !there.contains(&id.as_str());
            if gone {
                ended(id);
            }
            !gone
        });
        Ok::<_, Error>(left.is_empty().then_some(()))
    });
    match all.await? {
        Some(()) => Ok(()),
        None => Err(Error::new(
            Code::LeftoversRemain,
            format!("instances are not terminated after {} s", ENDING.as_secs()),
        )
        .cause(format!("still there: {}", lock().join(", ")))),
    }
}

/// A group that another group names cannot be deleted.
async fn detach_groups(ec2: &Client, groups: &[&Resource]) -> Result<()> {
    if groups.is_empty() {
        return Ok(());
    }
    let ids: Vec<&str> = groups.iter().map(|it| it.id.as_str()).collect();
    let found = ec2
        .describe_security_groups()
        .filters(instance::filter("group-id", ids))
        .into_paginator()
        .items()
        .send()
        .collect::<Result<Vec<_>, _>>()
        .await
        .doing("look at the security groups")?;
    let revoked = found.iter().filter_map(|group| {
        let references = rules::references(group);
        let (id, name) = (group.group_id()?, group.group_name()?);
        (!references.is_empty()).then(|| groups::revoke(ec2, id, name, references))
    });
    future::try_join_all(revoked).await?;
    Ok(())
}

async fn delete(ec2: &Client, resource: &Resource) -> Result<()> {
    let Resource { kind, id, name, .. } = resource;
    let doing = || format!("delete the {kind} {name} ({id})");
    let busy = [
        "DependencyViolation",
        "InvalidGroup.InUse",
        "VolumeInUse",
        "InvalidNetworkInterface.InUse",
    ];
    let deleted = insist(&busy, RELEASE, || async {
        match *kind {
            VOLUME => {
                let call = ec2.delete_volume().volume_id(id).send().await;
                call.doing(doing()).map(|_| ())
            }
            INTERFACE => {
                let call = ec2.delete_network_interface().network_interface_id(id);
                call.send().await.doing(doing()).map(|_| ())
            }
            GROUP => {
                let call = ec2.delete_security_group().group_id(id).send().await;
                call.doing(doing()).map(|_| ())
            }
            _ => {
                let call = ec2.delete_key_pair().key_name(name).send().await;
                call.doing(doing()).map(|_| ())
            }
        }
    })
    .await;
    let gone = [
        "InvalidGroup.NotFound",
        "InvalidGroupId.NotFound",
        "InvalidSecurityGroupID.NotFound",
        "InvalidKeyPair.NotFound",
        "InvalidVolume.NotFound",
        "InvalidNetworkInterfaceID.NotFound",
    ];
    match deleted {
        Err(failure) if !failure.is(&gone) => {
            let used = failure.is(&busy);
            let error = Error::from(failure);
            Err(match used {
                true => error.hint("something outside of the cluster uses it; see which network interfaces have it"),
                false => error,
            })
        }
        _ => Ok(()),
    }
}
