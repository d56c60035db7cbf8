//! HAProxy, through which clients reach the database.

use super::{
    Caller, Effect, Hosts, Number, Service, Setting, Visibility,
    file::{Entry, certificate, config, key, template},
    port::Port,
    service::{Checker, Package, When, unit},
};
use crate::contract::HAPROXY_CONFIG as CONFIG;

mod client;
pub(crate) mod drain;
pub(crate) mod health;

pub use client::{OVER_TLS, READ, Server, WRITE, everywhere, servers};

/// The folder of its certificates. Each service has its own folder, because each runs as another user.
const TLS: &str = "/etc/pgherd/tls/haproxy";
/// This file distinguishes the cluster's HAProxy from another one.
const DROP_IN: &str = "/etc/systemd/system/haproxy.service.d/pgherd.conf";
const AWAIT: &str = "/etc/haproxy/await-leader.lua";

pub(super) const SERVICE: Service = Service {
    title: "HAProxy",
    hosts: Hosts::OneOrMore,
    rank: 2,
    packages: &[Package::serving("haproxy")],
    files: &[
        config(
            DROP_IN,
            template!("etc/systemd/system/haproxy.service.d/pgherd.conf"),
            Effect::Nothing,
        ),
        certificate(
            "/etc/pgherd/tls/haproxy/ca.crt",
            template!("etc/pgherd/tls/ca.crt"),
            Effect::Reload,
        ),
        // It reads this file as root, before it changes to its own user.
        key(
            "/etc/pgherd/tls/haproxy/server.pem",
            template!("etc/pgherd/tls/server.pem"),
            Effect::Reload,
            "root",
        ),
        config(
            AWAIT,
            template!("etc/haproxy/await-leader.lua"),
            Effect::Reload,
        ),
        Entry {
            group: "haproxy",
            mode: 0o640,
            visibility: Visibility::Masked,
            ..config(CONFIG, template!("etc/haproxy/haproxy.cfg"), Effect::Reload)
        },
    ],
    mark: Some(DROP_IN),
    checkers: &[Checker {
        path: CONFIG,
        command: "haproxy -c -q -f $CANDIDATE",
        when: When::Always,
    }],
    folders: &[TLS, "/etc/systemd/system/haproxy.service.d"],
    tls: Some(TLS),
    // The options of its command line, which may name other files.
    reads: &["/etc/default/haproxy"],
    idle_by_default: true,
    ports: &[
        Port {
            from: &[Caller::Clients],
            tells: Some("HAProxy"),
            ..Port::new(Number::Set(Setting::HaproxyWrite), "HAProxy's `write_port`")
        },
        Port {
            from: &[Caller::Clients],
            ..Port::new(Number::Set(Setting::HaproxyRead), "HAProxy's `read_port`")
        },
        Port {
            from: &[Caller::Operators],
            asked: true,
            ..Port::new(Number::Set(Setting::HaproxyStats), "HAProxy's `stats_port`")
        },
    ],
    // HAProxy's checks of the members present no certificate.
    connects: false,
    faces_clients: true,
    taken_off: "clients may still use it, and no run would update it",
    ports_looked_at: false,
    ..Service::new("haproxy", unit!("haproxy"), CONFIG)
};
