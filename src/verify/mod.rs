//! The proof that a cluster works, seen from outside.
//!
//! It believes nobody's word alone: what Patroni says of replication is asked of PostgreSQL, and what
//! HAProxy says of its backends is tried with a row that is written and read back.

// A new kind of provider or of source is to be missed by the compiler, not by whoever adds it.
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::Serialize;

use crate::{
    cluster::Cluster,
    error::{Code, Error, Result},
    event::{Event, Events},
    facts::Facts,
    http::Http,
    inventory::{HostName, Role},
    plan::{self, Action, Change, Found, Plan},
    remote::Remote,
    render::Files,
    services::{
        Rows, haproxy,
        postgres::patroni::{self, Patroni, Status},
    },
};

pub(crate) mod alarms;
mod archive;
pub(crate) mod certificates;
mod clock;
mod disk;
mod members;
mod metadata;
mod network;
mod pause;
mod round_trip;
pub(crate) mod settings;
mod store;
mod stranded;
mod versions;

/// The name of the check of whether every member would follow another leader.
pub const FAILOVER: &str = "failover";

/// The checks that a cluster which settles does not pass by itself.
const LASTING: [&str; 5] = [
    alarms::NAME,
    metadata::NAME,
    pause::NAME,
    settings::NAME,
    versions::NAME,
];

/// One thing that must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub passed: bool,
    pub detail: String,
}

/// What all checks together say.
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

    /// Whether it fails, and only for what time does not mend.
    pub fn is_hopeless(&self) -> bool {
        let mut failed = self.checks.iter().filter(|check| !check.passed).peekable();
        failed.peek().is_some() && failed.all(|check| LASTING.contains(&check.name))
    }

    /// Whether settings fail: a Patroni that was told of others just now, by a run that then died, takes them
    /// over in its next loop.
    pub fn may_await_patroni(&self) -> bool {
        let fails = |check: &Check| !check.passed && check.name == settings::NAME;
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

    /// The error that says which checks failed; `None` when all hold.
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
            format!("the cluster {cluster} does not hold"),
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
    /// What should be on the hosts; not needed by who asks for [`Prover::stand`] alone.
    pub files: Files,
}

impl Prover {
    /// Looks once, at everything at the same time.
    ///
    /// `found` and `plan` are what the hosts were found to be just now, and what `up` would still
    /// have to do there.
    pub async fn look(&self, found: &Found, plan: &Plan) -> Proof {
        let facts = &found.facts;
        let survey = patroni::survey(&self.http, &self.cluster);
        let survey = async {
            let survey = survey.await;
            let (settings, versions, stranded, network, archive) = tokio::join!(
                settings::look(self, &survey, found),
                versions::look(self, &survey),
                stranded::look(self, &survey),
                network::look(self, &survey, facts),
                archive::look(self, &survey),
            );
            (survey, [settings, versions, network, archive], stranded)
        };
        let ((survey, of_members, stranded), paused, etcd, alarms, servers, trip) = tokio::join!(
            survey,
            pause::in_the_dcs(self),
            self.etcd(),
            alarms::look(self),
            haproxy::servers(&self.http, &self.cluster),
            round_trip::check(self),
        );
        let leader = patroni::leader_of(&survey);
        let mut checks = vec![self.units(facts), self.leader(&survey, Some(facts)).await];
        checks.push(self.members(found));
        checks.push(replication(&survey, leader, &stranded));
        checks.push(etcd);
        checks.push(trip);
        checks.push(backends(&self.cluster, &servers, leader));
        let roles = check(
            "roles",
            plan::roles_not_right(&self.cluster, found),
            "every role and database is as the inventory says".into(),
        );
        // What that check says is not said twice.
        let told: &[&str] = if roles.passed { &[] } else { &OF_ROLES };
        checks.push(configs(plan, told));
        checks.push(pending_restart(&survey));
        checks.push(clock::clock(facts));
        if self.cluster.tls.is_used() {
            let shown = self.http.lapsed();
            let now = jiff::Timestamp::now();
            checks.push(certificates::certificates(facts, &shown, now));
        }
        checks.push(roles);
        checks.push(disk::disk(&self.cluster, facts));
        checks.extend(metadata::check(&self.cluster, facts));
        checks.push(alarms);
        checks.push(pause::check(
            &survey,
            paused,
            &plan::how_to_resume(&self.cluster.inventory),
        ));
        checks.extend(of_members);
        Proof::of(checks)
    }

    /// The checks of whether all members are there and both ports lead where they should, which a
    /// failover breaks and which ask for no facts.
    pub async fn stand(&self) -> Vec<Check> {
        let (survey, paused, etcd, servers) = tokio::join!(
            patroni::survey(&self.http, &self.cluster),
            pause::in_the_dcs(self),
            self.etcd(),
            haproxy::servers(&self.http, &self.cluster),
        );
        let leader = patroni::leader_of(&survey);
        vec![
            pause::check(
                &survey,
                paused,
                &plan::how_to_resume(&self.cluster.inventory),
            ),
            self.leader(&survey, None).await,
            replication(&survey, leader, &BTreeMap::new()),
            etcd,
            backends(&self.cluster, &servers, leader),
            failover(&survey),
        ]
    }

    fn units(&self, facts: &BTreeMap<HostName, Facts>) -> Check {
        let mut wrong = Vec::new();
        let mut count = 0;
        for node in self.cluster.nodes.values() {
            for role in &node.roles {
                let unit = role.unit();
                count += 1;
                let fact = facts
                    .get(&node.name)
                    .map(|facts| facts.unit(unit))
                    .unwrap_or_default();
                if !fact.is_active() {
                    let state = if fact.active.is_empty() {
                        "not there"
                    } else {
                        &fact.active
                    };
                    wrong.push(format!("{unit} on {} is {state}", node.name));
                } else if !fact.is_enabled() {
                    wrong.push(format!("{unit} on {} does not start at boot", node.name));
                } else if let Some(facts) = facts.get(&node.name) {
                    let silent = self.silent_ports(*role, facts).into_iter();
                    wrong.extend(silent.map(|port| {
                        format!("{unit} on {} does not listen on port {port}", node.name)
                    }));
                }
            }
        }
        check(
            "units",
            wrong,
            format!("{count} units active, and enabled at boot"),
        )
    }

    /// The ports on which a service does not listen, of one that no other check asks anything.
    fn silent_ports(&self, role: Role, facts: &Facts) -> Vec<u16> {
        let service = role.service();
        if service.status != Rows::Unit {
            return Vec::new();
        }
        let unit = format!("{}.service", role.unit());
        let listens = |port: &u16| {
            let mut listeners = facts.listeners.iter();
            // Of another user's process, a container may not tell whose it is.
            listeners.any(|it| it.port == *port && (it.unit == unit || it.unit.is_empty()))
        };
        let ports = service.ports.iter();
        ports
            .map(|port| self.cluster.inventory.port(port.number))
            .filter(|port| !listens(port))
            .collect()
    }

    async fn leader(
        &self,
        survey: &BTreeMap<HostName, Result<Status>>,
        facts: Option<&BTreeMap<HostName, Facts>>,
    ) -> Check {
        let mut wrong: Vec<String> = survey
            .values()
            .filter_map(|status| status.as_ref().err())
            .map(Error::to_string)
            .collect();
        let asked = survey.keys().map(|host| async move {
            let leads = Patroni::on(&self.http, host).is_leader().await;
            (host, matches!(leads, Ok(true)))
        });
        let leaders: Vec<&HostName> = futures_util::future::join_all(asked)
            .await
            .into_iter()
            .filter(|(_, leads)| *leads)
            .map(|(host, _)| host)
            .collect();
        let detail = match leaders.as_slice() {
            [one] => {
                let status = survey[*one].as_ref().ok();
                let timeline = match status.and_then(|status| status.timeline) {
                    Some(timeline) => timeline.to_string(),
                    None => {
                        wrong.push(format!("{one} leads, and does not say on which timeline"));
                        String::new()
                    }
                };
                let watchdog = facts.map(|facts| {
                    match facts.get(*one).and_then(|facts| facts.watchdog_armed) {
                        Some(true) => "; its watchdog is armed",
                        Some(false) => "; its watchdog is not armed",
                        None => "; it has no watchdog",
                    }
                });
                format!(
                    "{one} leads, on timeline {timeline}{}",
                    watchdog.unwrap_or_default()
                )
            }
            [] => {
                wrong.push(match self.undeclared_leader().await {
                    Some(leader) => format!("{leader} leads, which is not in the inventory"),
                    None => "no member leads".into(),
                });
                String::new()
            }
            several => {
                let names: Vec<&str> = several.iter().map(|host| host.as_str()).collect();
                wrong.push(format!(
                    "several members say that they lead: {}",
                    names.join(", ")
                ));
                String::new()
            }
        };
        check("leader", wrong, detail)
    }
}

fn replication(
    survey: &BTreeMap<HostName, Result<Status>>,
    leader: Option<&HostName>,
    stranded: &BTreeMap<HostName, String>,
) -> Check {
    let Some((leader, primary)) =
        leader.and_then(|leader| Some((leader, survey[leader].as_ref().ok()?)))
    else {
        return check(
            "replication",
            vec!["there is no leader to replicate from".into()],
            String::new(),
        );
    };
    let mut wrong = Vec::new();
    let mut replicas = 0;
    for (host, status) in survey.iter().filter(|(host, _)| *host != leader) {
        replicas += 1;
        if !primary.streams_to(host) {
            let why = stranded.get(host);
            let why = why.map_or(String::new(), |why| format!(": {why}"));
            wrong.push(format!("{leader} does not stream to {host}{why}"));
            continue;
        }
        // Who does not answer is another check's.
        let Ok(status) = status else { continue };
        match (status.timeline, primary.timeline) {
            (Some(theirs), Some(leaders)) if theirs == leaders => {}
            (Some(theirs), Some(leaders)) => wrong.push(format!(
                "{host} is on timeline {theirs}, and {leader} on {leaders}"
            )),
            (None, _) => wrong.push(format!("{host} does not say on which timeline it is")),
            (_, None) => wrong.push(format!("{leader} does not say on which timeline it is")),
        }
    }
    check(
        "replication",
        wrong,
        format!("{replicas} replicas stream on the leader's timeline"),
    )
}

fn backends(
    cluster: &Cluster,
    servers: &Result<Vec<haproxy::Server>>,
    leader: Option<&HostName>,
) -> Check {
    let servers = match servers {
        Ok(servers) => servers,
        Err(error) => return check("backends", vec![error.to_string()], String::new()),
    };
    let up = |listener: &str| -> Vec<&str> {
        let mut names: Vec<&str> = servers
            .iter()
            .filter(|server| server.listener == listener && server.is_up())
            .map(|server| server.name.as_str())
            .collect();
        names.sort_unstable();
        names
    };
    let mut wrong = Vec::new();
    let writes = up(haproxy::WRITE);
    if leader.is_none() {
        wrong.push("there is no leader that the write port could lead to".into());
    }
    if writes != leader.iter().map(|host| host.as_str()).collect::<Vec<_>>() {
        wrong.push(format!("the write port leads to {}", names(&writes)));
    }
    let mut replicas: Vec<&str> = cluster
        .with_role(Role::Postgres)
        .map(|node| node.name.as_str())
        .filter(|name| leader.is_none_or(|leader| leader.as_str() != *name))
        .collect();
    replicas.sort_unstable();
    let reads = up(haproxy::READ);
    if reads != replicas {
        wrong.push(format!(
            "the read port leads to {}, not {}",
            names(&reads),
            names(&replicas)
        ));
    }
    check(
        "backends",
        wrong,
        format!(
            "the write port leads to {}, the read port to {}",
            names(&writes),
            names(&reads)
        ),
    )
}

fn names(list: &[&str]) -> String {
    if list.is_empty() {
        "nobody".into()
    } else {
        list.join(", ")
    }
}

/// The steps that put right what the check `roles` tells.
const OF_ROLES: [&str; 2] = ["ensure-roles", "ensure-databases"];

/// Whatever `up` would still change, however small it is: what a file is not and what a step would do, but for
/// the steps of which another check tells.
fn configs(plan: &Plan, told_elsewhere: &[&str]) -> Check {
    let mut wrong = Vec::new();
    let mut told = BTreeSet::new();
    for step in &plan.steps {
        // Patroni reads its files by itself; these steps only have it do so at once.
        let hurries = matches!(step.action, Action::Wake | Action::TakeOver);
        if !step.changes_something() || hurries || told_elsewhere.contains(&step.name) {
            continue;
        }
        let (host, why) = (&step.host, step.why.as_str());
        let said: Vec<String> = step
            .changes
            .iter()
            .filter_map(|change| difference(host, change))
            .collect();
        let is_new = told.insert((host, why));
        if !said.is_empty() {
            wrong.extend(said);
        } else if is_new {
            // A unit that would take over what was told of just now has the same reason.
            wrong.push(format!("`up` would do {} on {host}: {why}", step.name));
        }
    }
    if plan.partial {
        wrong.push("the rest can only be compared once etcd answers and a member leads".into());
    }
    check("configs", wrong, "`up` would change nothing".into())
}

fn difference(host: &HostName, change: &Change) -> Option<String> {
    match change {
        Change::File { path, .. } => Some(format!("{path} on {host} is not as rendered")),
        Change::Folder { path, .. } => Some(format!(
            "{path} on {host} has not the owner or the mode that it needs"
        )),
        Change::Package(package) => Some(format!("{package} is not installed on {host}")),
        Change::Setting { key, .. } => Some(format!("{key} in the DCS is not the inventory's")),
        Change::Unit { .. } | Change::Other(_) => None,
    }
}

/// After etcd was away the members go on taking the leader of that time for the leader, for up to `ttl`:
/// until then nobody would follow him.
fn failover(survey: &BTreeMap<HostName, Result<Status>>) -> Check {
    let bound = survey
        .iter()
        .filter(|(_, status)| {
            status
                .as_ref()
                .is_ok_and(|status| status.failsafe_mode_is_active)
        })
        .map(|(host, _)| format!("{host} would follow nobody yet: etcd was away"))
        .collect();
    check(
        FAILOVER,
        bound,
        "every member would follow another leader".to_owned(),
    )
}

fn pending_restart(survey: &BTreeMap<HostName, Result<Status>>) -> Check {
    let wrong = survey
        .iter()
        .filter(|(_, status)| status.as_ref().is_ok_and(|status| status.pending_restart))
        .map(|(host, _)| format!("{host} waits for a restart of PostgreSQL"))
        .collect();
    check(
        "pending-restart",
        wrong,
        "no parameter waits for a restart".into(),
    )
}

fn check(name: &'static str, wrong: Vec<String>, right: String) -> Check {
    let wrong = wrong.into_iter().reduce(|all, one| all + "; " + &one);
    Check {
        name,
        passed: wrong.is_none(),
        detail: wrong.unwrap_or(right),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        plan::{
            Condition, Step,
            tests::world::{FIVE, cluster},
        },
        remote::Script,
    };

    #[test]
    fn a_member_that_keeps_to_a_leaders_word_would_follow_nobody() {
        let status = |active| -> Result<Status> {
            let told = serde_json::json!({"state": "running", "failsafe_mode_is_active": active});
            Ok(serde_json::from_value(told).unwrap())
        };
        let mut survey = BTreeMap::from([
            (HostName::new("node1"), status(false)),
            (
                HostName::new("node2"),
                Err(Error::new(Code::ServiceUnreachable, "no answer")),
            ),
        ]);
        assert!(failover(&survey).passed, "who is silent is another check's");
        survey.insert(HostName::new("node3"), status(true));
        let check = failover(&survey);
        assert!(
            !check.passed && check.detail.contains("node3"),
            "{}",
            check.detail
        );
    }

    fn step(name: &'static str, why: &str, changes: Vec<Change>, action: Action) -> Step {
        Step {
            host: HostName::new("node2"),
            name,
            why: why.into(),
            after: Vec::new(),
            changes,
            action,
            limit: std::time::Duration::from_secs(1),
            units: Vec::new(),
        }
    }

    fn told(steps: Vec<Step>) -> Check {
        of_plan(&Plan {
            steps,
            ..Plan::default()
        })
    }

    /// Roles, folders, the venv and what was written and not taken over are no file, package or setting.
    #[test]
    fn whatever_up_would_change_does_not_hold() {
        assert!(told(Vec::new()).passed);
        let run = || Action::Run(Script::new());
        for (name, change) in [
            ("accounts", vec![Change::Other("the role app".into())]),
            ("install-patroni", vec![Change::Other("a venv".into())]),
            (
                "reload-patroni",
                vec![Change::Unit {
                    unit: "patroni",
                    verb: "reload",
                }],
            ),
            ("ensure-roles", Vec::new()),
        ] {
            let check = told(vec![step(name, "it lacks something", change, run())]);
            assert!(!check.passed, "{name}");
            let said = format!("`up` would do {name} on node2: it lacks something");
            assert_eq!(check.detail, said);
        }
        let leader = Action::RunOnLeader(Script::new());
        assert!(!told(vec![step("close-public", "it is open", Vec::new(), leader)]).passed);
        for waits in [
            Action::Await(Condition::Leader),
            Action::TryParameters(Script::new()),
            Action::Wake,
            Action::TakeOver,
        ] {
            assert!(told(vec![step("waits", "for others", Vec::new(), waits)]).passed);
        }
        let partial = Plan {
            partial: true,
            ..Plan::default()
        };
        assert!(!of_plan(&partial).passed, "the rest is not known");
        // What another check says is not said twice; the rest is.
        let of_roles = Plan {
            steps: vec![step(
                "ensure-roles",
                "it lacks something",
                Vec::new(),
                run(),
            )],
            ..Plan::default()
        };
        assert!(configs(&of_roles, &OF_ROLES).passed);
        assert!(!configs(&partial, &OF_ROLES).passed);
    }

    fn of_plan(plan: &Plan) -> Check {
        configs(plan, &[])
    }

    #[test]
    fn a_file_and_the_unit_that_would_take_it_over_are_told_of_once() {
        let file = Change::File {
            path: "/etc/patroni.yml".into(),
            old: None,
            new: None,
            note: None,
        };
        let reload = Change::Unit {
            unit: "patroni",
            verb: "reload",
        };
        let run = || Action::Run(Script::new());
        let check = told(vec![
            step(
                "configure-patroni",
                "/etc/patroni.yml differs",
                vec![file],
                run(),
            ),
            step(
                "reload-patroni",
                "/etc/patroni.yml differs",
                vec![reload],
                run(),
            ),
        ]);
        assert_eq!(check.detail, "/etc/patroni.yml on node2 is not as rendered");
    }

    fn member(role: &str, timeline: Option<u64>) -> Status {
        let told = serde_json::json!({
            "state": "running", "role": role, "timeline": timeline,
            "replication": [{"application_name": "node2", "state": "streaming"}],
        });
        serde_json::from_value(told).unwrap()
    }

    #[test]
    fn a_timeline_that_nobody_tells_is_not_the_same() {
        let leader = HostName::new("node1");
        let judged = |primary, replica| {
            let survey = BTreeMap::from([
                (leader.clone(), Ok(member("primary", primary))),
                (HostName::new("node2"), Ok(member("replica", replica))),
            ]);
            replication(&survey, Some(&leader), &BTreeMap::new())
        };
        assert!(judged(Some(3), Some(3)).passed);
        for (primary, replica, says) in [
            (None, None, "node2 does not say on which timeline it is"),
            (None, Some(3), "node1 does not say on which timeline it is"),
            (Some(3), None, "node2 does not say on which timeline it is"),
            (Some(3), Some(2), "node2 is on timeline 2, and node1 on 3"),
        ] {
            let check = judged(primary, replica);
            assert!(!check.passed, "{primary:?} {replica:?}");
            assert_eq!(check.detail, says);
        }
    }

    #[test]
    fn a_write_port_that_leads_to_nobody_does_not_hold() {
        let cluster = cluster("", FIVE);
        let check = backends(&cluster, &Ok(Vec::new()), None);
        assert!(
            check.detail.contains("there is no leader"),
            "{}",
            check.detail
        );
    }
}
