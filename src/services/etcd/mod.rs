//! etcd, the DCS in which the database members agree on the leader.

use std::time::Duration;

use super::{
    Caller, Data, Effect, Hosts, Number, Role, Service, Wait,
    file::{Entry, certificate, config, key, template},
    port::Port,
    service::{Package, unit},
};
use crate::{
    configs::Environment,
    contract::{ETCD_CLIENT_PORT, ETCD_CONFIG, ETCD_METRICS_PORT, ETCD_PEER_PORT},
};

mod client;
pub(crate) mod health;

pub use client::{Alarm, Etcd, Health, Member, PatroniKeys, View, prefix};

/// The folder of its certificates. Each service has its own folder, because each runs as another user.
const TLS: &str = "/etc/pgherd/tls/etcd";

/// A drop-in of a member that was added to an existing store. At first it makes etcd read [`JOIN`] last, and
/// not start without that file. Later it keeps etcd from starting without its data.
pub(crate) const HOLD: &str = "/etc/systemd/system/etcd.service.d/pgherd-join.conf";
/// The initial members for a new member, instead of those in its own config.
pub(crate) const JOIN: &str = "/etc/pgherd/etcd-join";

/// A drop-in that a reboot takes away: a member that leaves ends once it is removed, and is not started again. By
/// its name it comes after all others.
pub(crate) const LEAVES: &str = "/run/systemd/system/etcd.service.d/zz-pgherd-leaves.conf";

pub(super) const SERVICE: Service = Service {
    hosts: Hosts::Odd,
    rank: 0,
    // Its members look for each other by name.
    keeps_names: true,
    packages: &[
        Package::serving("etcd-server"),
        // For people on the host who want to know the state of etcd.
        Package::of("etcd-client"),
    ],
    files: &[
        // It reads its certificate and key again at every handshake, but its authority only when it starts.
        certificate(
            "/etc/pgherd/tls/etcd/ca.crt",
            template!("etc/pgherd/tls/ca.crt"),
            Effect::Restart,
        ),
        certificate(
            "/etc/pgherd/tls/etcd/server.crt",
            template!("etc/pgherd/tls/server.crt"),
            Effect::Nothing,
        ),
        key(
            "/etc/pgherd/tls/etcd/server.key",
            template!("etc/pgherd/tls/server.key"),
            Effect::Nothing,
            "etcd",
        ),
        config(
            "/etc/systemd/system/etcd.service.d/pgherd.conf",
            template!("etc/systemd/system/etcd.service.d/pgherd.conf"),
            Effect::Restart,
        ),
        Entry {
            on_change: Some(on_change),
            ..config(ETCD_CONFIG, template!("etc/default/etcd"), Effect::Restart)
        },
    ],
    // On members that were added to an existing store.
    writes: &[HOLD, JOIN],
    folders: &[TLS, "/etc/systemd/system/etcd.service.d"],
    tls: Some(TLS),
    data: Data::Store,
    ports: &[
        Port {
            from: &[Caller::Hosts(Role::Postgres)],
            asked: true,
            tells: Some("etcd"),
            ..Port::new(Number::Fixed(ETCD_CLIENT_PORT), "etcd's clients")
        },
        Port {
            from: &[Caller::Hosts(Role::Etcd)],
            ..Port::new(Number::Fixed(ETCD_PEER_PORT), "etcd's peers")
        },
        // It listens only on loopback, but no other program can then listen on this port at all addresses.
        Port::new(Number::Fixed(ETCD_METRICS_PORT), "etcd's metrics"),
    ],
    connects: true,
    is_member: true,
    taken_off: "its vote still counts in etcd's quorum",
    wait: Some(Wait {
        step: "await-etcd",
        why: "Patroni can only begin once the DCS answers",
        limit: Duration::from_secs(60),
    }),
    ports_looked_at: false,
    ..Service::new("etcd", unit!("etcd"), ETCD_CONFIG)
};

/// etcd reads the settings of its first start only while it has no data.
fn on_change(old: &str, new: &str, effect: Effect) -> Effect {
    let of_a_member = |text| Environment::parse(text).of_a_member();
    if of_a_member(old) == of_a_member(new) {
        Effect::Nothing
    } else {
        effect
    }
}
