//! Operations on a running cluster: what is planned, and what is refused.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Value, json};

use super::world::{FIVE, ONE, cluster};
use crate::{
    cluster::Cluster,
    error::{Code, Error, Kind, Result},
    inventory::HostName,
    plan::{
        Action, Plan,
        operate::{self, Seen, Which},
    },
    services::postgres::patroni::{Status, Topology},
};

/// node1 leads and streams to both others; with `sync`, node2 is synchronous.
pub(super) struct Told {
    pub(super) cluster: Cluster,
    pub(super) survey: BTreeMap<HostName, Result<Status>>,
    topology: Option<Topology>,
}

impl Told {
    pub(super) fn new(sync: bool) -> Self {
        let replicas = json!([
            {"application_name": "node2", "state": "streaming", "sync_state": if sync { "sync" } else { "async" }},
            {"application_name": "node3", "state": "streaming", "sync_state": "async"},
        ]);
        let survey = BTreeMap::from([
            status(
                "node1",
                json!({"state": "running", "role": "primary", "replication": replicas}),
            ),
            status("node2", json!({"state": "running", "role": "replica"})),
            status("node3", json!({"state": "running", "role": "replica"})),
        ]);
        let second = if sync { "sync_standby" } else { "replica" };
        let topology = json!({"members": [
            {"name": "node1", "role": "leader", "state": "running"},
            {"name": "node2", "role": second, "state": "streaming", "lag": 0},
            {"name": "node3", "role": "replica", "state": "streaming", "lag": 4096},
        ]});
        Self {
            cluster: cluster("", FIVE),
            survey,
            topology: Some(serde_json::from_value(topology).unwrap()),
        }
    }

    pub(super) fn seen(&self) -> Seen<'_> {
        Seen {
            cluster: &self.cluster,
            survey: &self.survey,
            topology: self.topology.as_ref(),
        }
    }

    fn says(&mut self, host: &str, told: Value) {
        self.survey.extend([status(host, told)]);
    }

    fn silent(&mut self, host: &str) {
        let error = Error::new(Code::ServiceUnreachable, "port 8008 does not answer");
        self.survey.insert(HostName::new(host), Err(error));
    }

    pub(super) fn paused(mut self) -> Self {
        for status in self.survey.values_mut().flatten() {
            status.pause = true;
        }
        self.topology.as_mut().unwrap().pause = true;
        self
    }

    /// node1 is gone, and etcd has noticed.
    fn headless(mut self) -> Self {
        self.silent("node1");
        let topology = self.topology.as_mut().unwrap();
        topology.members.retain(|member| member.name != "node1");
        self
    }
}

pub(super) fn status(host: &str, told: Value) -> (HostName, Result<Status>) {
    (
        HostName::new(host),
        Ok(serde_json::from_value(told).unwrap()),
    )
}

/// The steps, one on each line, with what they wait for.
pub(super) fn steps(plan: &Plan) -> String {
    let mut text = String::new();
    for (id, step) in plan.steps.iter().enumerate() {
        writeln!(text, "{id} {} {} {:?}", step.host, step.name, step.after).unwrap();
    }
    text
}

/// A refusal: bad input, with these words, and a hint.
pub(super) fn refused(planned: Result<Plan>, words: &str) {
    let error = planned.expect_err(words);
    assert_eq!(error.kind(), Kind::Input, "{error}");
    assert!(error.what().contains(words), "{error}");
    assert!(error.left_behind().is_some(), "{error}");
}

pub(super) fn host(name: &str) -> HostName {
    HostName::new(name)
}

#[test]
fn a_pause_is_asked_for_once() {
    let running = Told::new(false);
    let plan = operate::pause(&running.seen(), true).unwrap();
    assert_eq!(steps(&plan), "0 node1 pause []\n");
    assert_eq!(plan.steps[0].action, Action::SetPause(true));
    assert!(operate::pause(&running.seen(), false).unwrap().is_empty());

    let mut paused = Told::new(false).paused();
    assert!(operate::pause(&paused.seen(), true).unwrap().is_empty());
    // A member that does not answer reads it from the DCS.
    paused.silent("node3");
    assert!(operate::pause(&paused.seen(), true).unwrap().is_empty());
    // A member that has not confirmed yet is waited for.
    paused.says("node3", json!({"state": "running", "role": "replica"}));
    assert_eq!(operate::pause(&paused.seen(), true).unwrap().steps.len(), 1);
    let plan = operate::pause(&paused.seen(), false).unwrap();
    assert_eq!(plan.steps[0].action, Action::SetPause(false));

    for host in ["node1", "node2", "node3"] {
        paused.silent(host);
    }
    let error = operate::pause(&paused.seen(), true).unwrap_err();
    assert_eq!((error.kind(), error.causes().len()), (Kind::Failed, 3));
}

#[test]
fn a_pause_needs_no_leader() {
    let headless = Told::new(false).headless();
    let plan = operate::pause(&headless.seen(), true).unwrap();
    assert_eq!(steps(&plan), "0 node2 pause []\n");
}

#[test]
fn a_replica_is_copied_anew_while_another_leads() {
    let told = Told::new(true);
    let plan = operate::reinit(&told.seen(), &host("node3")).unwrap();
    assert_eq!(
        steps(&plan),
        "0 node3 reinit []\n1 node3 await-streaming [0]\n"
    );
    refused(
        operate::reinit(&told.seen(), &host("node1")),
        "node1 is the leader",
    );
    let paused = Told::new(false).paused();
    refused(operate::reinit(&paused.seen(), &host("node3")), "is paused");
    let headless = Told::new(false).headless();
    refused(
        operate::reinit(&headless.seen(), &host("node3")),
        "no member leads",
    );
    let mut silent = Told::new(false);
    silent.silent("node3");
    let error = operate::reinit(&silent.seen(), &host("node3")).unwrap_err();
    assert_eq!(error.kind(), Kind::Failed);
    // This is for a member whose PostgreSQL cannot start.
    silent.says("node3", json!({"state": "start failed", "role": "replica"}));
    assert!(operate::reinit(&silent.seen(), &host("node3")).is_ok());
}

#[test]
fn members_restart_one_at_a_time_and_the_leader_last() {
    let told = Told::new(false);
    let plan = operate::restart(&told.seen(), Which::All, false, &[]).unwrap();
    assert_eq!(
        steps(&plan),
        "0 node2 restart-postgresql []\n1 node2 await-streaming [0]\n\
         2 node3 restart-postgresql [1]\n3 node3 await-streaming [2]\n\
         4 node1 hand-over [3]\n5 node1 await-streaming [4]\n\
         6 node1 restart-postgresql [5]\n7 node1 await-streaming [6]\n"
    );
    let leads = |action: &Action| matches!(action, Action::RestartPostgres { leads: true, .. });
    assert!(!plan.steps.iter().any(|step| leads(&step.action)));
    let node3 = host("node3");
    let plan = operate::restart(&told.seen(), Which::One(&node3), false, &[]).unwrap();
    assert_eq!(
        steps(&plan),
        "0 node3 restart-postgresql []\n1 node3 await-streaming [0]\n"
    );
}

/// Reads go elsewhere before a member stops, as long as there is another replica.
#[test]
fn front_doors_lead_no_reads_to_a_member_that_is_about_to_stop() {
    let told = Told::new(false);
    let node3 = host("node3");
    let doors = [host("haproxy")];
    let plan = operate::restart(&told.seen(), Which::One(&node3), false, &doors).unwrap();
    assert_eq!(
        steps(&plan),
        "0 haproxy drain-reads []\n1 node3 restart-postgresql [0]\n\
         2 node3 await-streaming [1]\n3 haproxy let-reads-in [2]\n"
    );
    for (step, says) in [(0, "set server read/node3 state drain"), (3, "state ready")] {
        let Action::Run(script) = &plan.steps[step].action else {
            panic!("{says}");
        };
        assert!(script.contains(says));
    }
}

#[test]
fn the_only_member_restarts_where_it_is() {
    let mut alone = Told::new(false);
    alone.cluster = cluster("", ONE);
    alone.survey = BTreeMap::from([status(
        "all",
        json!({"state": "running", "role": "primary"}),
    )]);
    let plan = operate::restart(&alone.seen(), Which::All, false, &[]).unwrap();
    assert_eq!(
        steps(&plan),
        "0 all restart-postgresql []\n1 all await-leader [0]\n"
    );
    let action = &plan.steps[0].action;
    assert!(matches!(
        action,
        Action::RestartPostgres { leads: true, .. }
    ));
}

#[test]
fn a_restart_that_would_stop_writes_for_good_is_refused() {
    let mut told = Told::new(false);
    told.says("node1", json!({"state": "running", "role": "primary"}));
    let node1 = host("node1");
    for which in [Which::All, Which::One(&node1)] {
        refused(
            operate::restart(&told.seen(), which, false, &[]),
            "no replica that could take over",
        );
    }
    let paused = Told::new(false).paused();
    refused(
        operate::restart(&paused.seen(), Which::All, false, &[]),
        "is paused",
    );
    let headless = Told::new(false).headless();
    refused(
        operate::restart(&headless.seen(), Which::All, false, &[]),
        "no member leads",
    );
    let mut silent = Told::new(false);
    silent.silent("node3");
    let error = operate::restart(&silent.seen(), Which::All, false, &[]).unwrap_err();
    assert_eq!(error.host(), Some(&host("node3")));
    let node2 = host("node2");
    assert!(operate::restart(&silent.seen(), Which::One(&node2), false, &[]).is_ok());
}

#[test]
fn only_who_waits_for_it_is_restarted_where_that_is_asked_for() {
    let mut told = Told::new(false);
    let plan = operate::restart(&told.seen(), Which::All, true, &[]).unwrap();
    assert!(plan.is_empty() && plan.unchanged.len() == 1);
    told.says(
        "node3",
        json!({"state": "running", "role": "replica", "pending_restart": true}),
    );
    let plan = operate::restart(&told.seen(), Which::All, true, &[]).unwrap();
    assert_eq!(plan.steps.len(), 1);
    assert_eq!(plan.steps[0].action, Action::RestartPending);
    let (node2, node3) = (host("node2"), host("node3"));
    assert!(
        operate::restart(&told.seen(), Which::One(&node2), true, &[])
            .unwrap()
            .is_empty()
    );
    let plan = operate::restart(&told.seen(), Which::One(&node3), true, &[]).unwrap();
    assert_eq!(plan.steps.len(), 2);
}

#[test]
fn who_may_take_over_by_force() {
    let headless = Told::new(false).headless();
    let plan = operate::failover(&headless.seen(), &host("node3"), false).unwrap();
    assert_eq!(steps(&plan), "0 node3 failover []\n");
    assert_eq!(headless.seen().lag(&host("node3")), Some(4096));
    // An unhealthy leader may still answer.
    let sick = Told::new(false);
    assert!(operate::failover(&sick.seen(), &host("node2"), false).is_ok());

    refused(
        operate::failover(&sick.seen(), &host("node1"), false),
        "node1 leads already",
    );
    refused(
        operate::failover(&headless.seen(), &host("node1"), false),
        "does not answer",
    );
    refused(
        operate::failover(&sick.seen(), &host("node9"), false),
        "is no member",
    );
    let mut stopped = Told::new(false).headless();
    stopped.says("node3", json!({"state": "stopped", "role": "replica"}));
    refused(
        operate::failover(&stopped.seen(), &host("node3"), false),
        "does not run (stopped)",
    );
    let mut blind = Told::new(false).headless();
    blind.topology = None;
    let error = operate::failover(&blind.seen(), &host("node3"), false).unwrap_err();
    assert_eq!(error.kind(), Kind::Failed);
}

#[test]
fn only_a_synchronous_standby_takes_over_unless_it_is_forced() {
    for told in [Told::new(true), Told::new(true).headless()] {
        assert!(operate::failover(&told.seen(), &host("node2"), false).is_ok());
        let planned = operate::failover(&told.seen(), &host("node3"), false);
        let error = planned.unwrap_err();
        assert!(error.causes()[0].contains("synchronous: node2"), "{error}");
        assert!(error.hints()[0].contains("--force"));
        assert!(operate::failover(&told.seen(), &host("node3"), true).is_ok());
    }
    // The setting counts too: for a moment, no member may be synchronous.
    let mut told = Told::new(false).headless();
    told.cluster.inventory.patroni.synchronous = true;
    refused(
        operate::failover(&told.seen(), &host("node3"), false),
        "not a synchronous standby",
    );
}

/// Between a question and its answer, an hour may pass.
#[test]
fn what_was_agreed_to_is_not_done_to_another_cluster() {
    let to = host("node2");
    let failover = |told: &Told| operate::failover(&told.seen(), &to, false).unwrap();
    let before = Told::new(false).headless();
    let agreed = failover(&before);
    let seen = before.seen();
    let judge =
        |now: &Told| operate::still((&seen, &agreed), (&now.seen(), &failover(now)), Some(&to));
    assert!(judge(&Told::new(false).headless()).is_ok());
    // The leader is back.
    let error = judge(&Told::new(false)).unwrap_err();
    assert!(
        error.causes()[0].contains("nobody led when you were asked, and node1 leads now"),
        "{error}"
    );
    assert_eq!(error.left_behind(), Some("nothing was changed"));
    // It has fallen back.
    let mut behind = Told::new(false).headless();
    let lag = |told: &mut Told, lag: Value| {
        let members = &mut told.topology.as_mut().unwrap().members;
        let member = members.iter_mut().find(|it| it.name == "node2").unwrap();
        member.lag = Some(lag);
    };
    lag(&mut behind, json!(1000));
    assert!(judge(&behind).is_ok(), "that much comes and goes");
    lag(&mut behind, json!(1 << 30));
    assert!(
        judge(&behind)
            .unwrap_err()
            .to_string()
            .contains("1073741824 bytes")
    );
    lag(&mut behind, json!("unknown"));
    assert!(judge(&behind).is_err());

    // A standby that is no longer synchronous.
    let before = Told::new(true);
    let forced = |told: &Told| operate::failover(&told.seen(), &to, true).unwrap();
    let now = Told::new(false);
    let judged = operate::still(
        (&before.seen(), &forced(&before)),
        (&now.seen(), &forced(&now)),
        Some(&to),
    );
    assert!(
        judged
            .unwrap_err()
            .to_string()
            .contains("no longer a synchronous standby")
    );

    // Another member waits for a restart than the one in the question.
    let replica = |told: &Told| {
        operate::restart(&told.seen(), Which::One(&host("node3")), false, &[]).unwrap()
    };
    let before = Told::new(false);
    let mut now = Told::new(false);
    now.says(
        "node3",
        json!({"state": "running", "role": "replica", "postmaster_start_time": "today"}),
    );
    let judged = operate::still(
        (&before.seen(), &replica(&before)),
        (&now.seen(), &replica(&now)),
        Some(&host("node3")),
    );
    assert!(
        judged
            .unwrap_err()
            .to_string()
            .contains("the steps would differ")
    );
}

#[test]
fn a_leader_that_waits_is_not_restarted_without_a_successor() {
    let mut told = Told::new(false);
    let lonely = json!({"state": "running", "role": "primary", "pending_restart": true});
    told.says("node1", lonely);
    refused(
        operate::restart(&told.seen(), Which::All, true, &[]),
        "no replica that could take over",
    );
    // No member has to replace a replica, or an only member.
    let mut replica = Told::new(false);
    let waits = json!({"state": "running", "role": "replica", "pending_restart": true});
    replica.says("node2", waits);
    assert_eq!(
        steps(&operate::restart(&replica.seen(), Which::All, true, &[]).unwrap()),
        "0 node1 restart-pending []\n"
    );
}
