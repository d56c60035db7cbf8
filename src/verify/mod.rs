//! The proof that a cluster works, checked from outside.
//!
//! Every claim is tested from another side: what Patroni says of replication is compared with PostgreSQL, and
//! what HAProxy says of its backends is tested with a row that is written and read back.
//!
//! Checks of one service are in its folder ([`crate::services::health`]). Here are the checks of all hosts, and
//! of several services together.

// If somebody adds a kind of provider or of source, the compiler asks for the missing arms.
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

use std::sync::Arc;

use futures_util::future::join_all;
use serde::Serialize;

use crate::{
    cluster::Cluster,
    error::{Code, Error, Result},
    event::{Event, Events},
    http::Http,
    inventory::Role,
    plan::{self, Found, Plan},
    provider::Balancer,
    remote::Remote,
    render::Files,
    services::{
        When,
        health::{self, Look, Settles, Ways},
        postgres::SharedSurvey,
    },
};

pub(crate) mod certificates;
mod clock;
mod configs;
mod disk;
mod load_balancer;
mod members;
mod metadata;
mod mount;
mod network;
mod round_trip;
mod units;
mod versions;

pub(crate) use disk::{Filesystem, filesystems};
pub(crate) use load_balancer::is_coming;

pub use crate::services::{health::Check, postgres::health::FAILOVER};

/// The order of the checks in reports. Others come last, service by service.
const ORDER: [&str; 26] = [
    "units",
    "leader",
    "members",
    "replication",
    "etcd",
    "front-door",
    "load-balancer",
    "backends",
    "pgbouncer",
    "configs",
    "pending-restart",
    "clock",
    "certificates",
    "roles",
    "disk",
    "mount",
    "metadata",
    "alarms",
    "pause",
    "settings",
    "versions",
    "network",
    "archive",
    "backups",
    "metrics",
    "monitoring",
];

/// The same for the checks of [`Prover::stand`].
const STANDING: [&str; 6] = [
    "pause",
    "leader",
    "replication",
    "etcd",
    "backends",
    FAILOVER,
];

/// The result of all checks together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Proof {
    pub passed: bool,
    pub checks: Vec<Check>,
}

impl Proof {
    fn of(checks: Vec<Check>) -> Self {
        Self {
            passed: checks.iter().all(|check| check.passed),
            checks,
        }
    }

    /// The same, whatever these checks say.
    pub(crate) fn without(mut self, names: &[&str]) -> Self {
        self.checks.retain(|check| !names.contains(&check.name));
        Self::of(self.checks)
    }

    /// With what the provider says of the load balancer before the front doors, if there should be one. `up` is the
    /// command that puts right what is missing.
    pub(crate) fn with_balancer(mut self, answer: &Result<Option<Balancer>>, up: &str) -> Self {
        let check = match answer {
            Ok(None) => return self,
            Ok(Some(balancer)) => load_balancer::load_balancer(balancer, up),
            Err(error) => load_balancer::unknown(error),
        };
        self.checks.push(check);
        Self::of(in_order(self.checks, &ORDER))
    }

    /// Whether waiting cannot repair any of the failed checks.
    pub fn is_hopeless(&self) -> bool {
        let mut failed = self.checks.iter().filter(|check| !check.passed).peekable();
        failed.peek().is_some() && failed.all(|check| check.settles != Settles::Soon)
    }

    /// Whether Patroni may repair a failed check: a Patroni that got new settings just now, from a run that
    /// then died, applies them in its next loop.
    pub fn may_await_patroni(&self) -> bool {
        let fails = |check: &Check| !check.passed && check.settles == Settles::InALoop;
        self.checks.iter().any(fails)
    }

    pub fn announce(&self, events: &Events) {
        for check in &self.checks {
            events.emit(Event::Check {
                check: check.name,
                passed: check.passed,
                detail: check.detail.clone(),
            });
        }
    }

    /// The error that names the failed checks; `None` if all passed.
    pub fn error(&self, cluster: &str) -> Option<Error> {
        if self.passed {
            return None;
        }
        let failed: Vec<String> = self
            .checks
            .iter()
            .filter(|check| !check.passed)
            .map(|check| format!("{}: {}", check.name, check.detail))
            .collect();
        let mut error = Error::new(
            Code::ClusterBroken,
            format!("the cluster {cluster} is not healthy"),
        );
        for failure in failed {
            error = error.cause(failure);
        }
        Some(
            error
                .hint("what it looks like now: pgherd status")
                .hint("what differs from the inventory: pgherd plan"),
        )
    }
}

/// What verification needs.
pub struct Prover {
    pub cluster: Arc<Cluster>,
    pub remote: Arc<dyn Remote>,
    pub http: Http,
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// The files that should be on the hosts; not needed for [`Prover::stand`].
    pub files: Files,
    /// Whether it writes a row through the write port. If not, there is no check `front-door`.
    pub writes: bool,
}

impl Prover {
    /// Makes all checks once, in parallel.
    ///
    /// `found` is the latest observation of the hosts, and `plan` is what `up` would still have to do there.
    pub async fn look(&self, found: &Found, plan: &Plan) -> Proof {
        let facts = &found.facts;
        let survey = SharedSurvey::once();
        let look = self.observation(found, &survey);
        let ways = look.ways;
        let of_services = self.roles().map(|role| health::of(role).checks(&look));
        let of_hosts = async {
            let survey = ways.survey().await;
            tokio::join!(
                versions::look(self, &survey),
                network::look(self, &survey, facts),
            )
        };
        let trip = async {
            match self.writes {
                true => Some(round_trip::check(self).await),
                false => None,
            }
        };
        let (of_services, (versions, network), trip) =
            tokio::join!(join_all(of_services), of_hosts, trip);
        let roles = Check::of(
            "roles",
            plan::roles_not_right(&self.cluster, found),
            "every role and database is as the inventory says".into(),
        );
        // What that check reports is not repeated here.
        let told: &[&str] = if roles.passed {
            &[]
        } else {
            &configs::OF_ROLES
        };
        let mut checks = of_services.concat();
        checks.extend([
            units::units(&self.cluster, facts),
            self.members(found),
            configs::configs(plan, told),
            clock::clock(facts),
            roles,
            disk::disk(&self.cluster, facts),
            versions,
            network,
        ]);
        checks.extend(trip);
        checks.extend(metadata::check(&self.cluster, facts));
        checks.extend(mount::check(&self.cluster, facts));
        if !self.cluster.inventory.wants(When::Backups) {
            let none = "there are none: no host has the role `backup`";
            checks.push(Check::of("backups", Vec::new(), none.into()));
        }
        if self.cluster.tls.is_used() {
            let shown = self.http.lapsed();
            let now = jiff::Timestamp::now();
            checks.push(certificates::certificates(facts, &shown, now));
        }
        Proof::of(in_order(checks, &ORDER))
    }

    /// The checks that all members are there and both ports lead where they should. A failover breaks these
    /// checks, and they need no facts.
    pub async fn stand(&self) -> Vec<Check> {
        let survey = SharedSurvey::once();
        let ways = self.ways(&survey);
        let checks = self.roles().map(|role| health::of(role).standing(&ways));
        in_order(join_all(checks).await.concat(), &STANDING)
    }

    /// The cluster's services.
    fn roles(&self) -> impl Iterator<Item = Role> {
        let has = |role: &Role| self.cluster.with_role(*role).next().is_some();
        Role::ALL.into_iter().filter(has)
    }

    fn ways<'a>(&'a self, survey: &'a SharedSurvey) -> Ways<'a> {
        Ways {
            cluster: &self.cluster,
            remote: &*self.remote,
            http: &self.http,
            survey,
        }
    }

    /// How to ask services in an observation.
    fn observation<'a>(&'a self, found: &'a Found, survey: &'a SharedSurvey) -> Look<'a> {
        Look {
            ways: self.ways(survey),
            tls: self.tls.as_deref(),
            files: &self.files,
            found,
        }
    }

    /// What `status` shows of each of the cluster's services.
    pub(crate) async fn show(&self, found: &Found) -> Vec<health::Shown> {
        let survey = SharedSurvey::once();
        let look = self.observation(found, &survey);
        join_all(self.roles().map(|role| health::of(role).shown(&look))).await
    }
}

fn in_order(mut checks: Vec<Check>, order: &[&str]) -> Vec<Check> {
    let place = |check: &Check| order.iter().position(|name| *name == check.name);
    checks.sort_by_key(|check| place(check).unwrap_or(order.len()));
    checks
}
