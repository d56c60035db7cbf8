//! Runs one drill, from its first client until the cluster is whole again.

use std::{
    panic::AssertUnwindSafe,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    Clients, Crew, Fault, Load, Scenario, Standing, Tables, Tools,
    archive_outage::{self, Archiver},
    bands,
    dropped_table::{self, DroppedTable},
    judge, longest_wait, marks, measure, narrate,
    record::{self, Drill, Dropped, Limits, Measured, Outage, Span},
    recording::Recording,
    replication_hold::{self, ReplicationHold},
    samples,
    times::{Times, all_marks},
};
use crate::{
    error::{Code, Error, Result},
    event::{Event, Events, Moment},
    inventory::HostName,
    poll,
    provider::Machine,
    render::Files,
    verify::{self, Check, Prover},
    workspace::{self, Broken, BrokenHost, BrokenNote, Workspace},
};

/// How long clients work before anything is broken.
const BASELINE: Duration = Duration::from_secs(3);
/// How long they may take to connect.
const GETTING_GOING: Duration = Duration::from_secs(30);
/// How long a fault lasts after clients have recovered from it.
const LINGER: Duration = Duration::from_secs(3);
/// How long the cluster may take, in addition to `ttl`, to become whole after the repair. For `ttl` after an
/// outage of etcd, no member follows another leader.
const RECOVERY: Duration = Duration::from_secs(180);
/// How long clients continue when the cluster is whole.
const TAIL: Duration = Duration::from_secs(2);
/// How often to look at what clients get.
const LOOK: Duration = Duration::from_millis(50);
/// How often to look whether the cluster is whole.
const INSPECTION: Duration = Duration::from_millis(250);

/// What drills need.
pub struct Runner<'a> {
    pub tools: Tools<'a>,
    pub workspace: &'a Workspace,
    pub machines: &'a [Machine],
    pub events: Events,
    /// The folder for the ledgers.
    pub folder: PathBuf,
    pub limits: Limits,
    pub crew: Crew,
    /// How long replication is delayed before a host dies.
    pub lag: Option<Duration>,
    pub cancel: CancellationToken,
}

impl Runner<'_> {
    /// Runs `scenario` once. Whatever happens, everything broken is repaired before this returns, or the error
    /// says that it could not be repaired.
    pub async fn play(&self, scenario: Scenario, run: usize, runs: usize) -> Result<Drill> {
        let fault = Fault {
            lag: self.lag,
            ..Fault::aim(scenario, &self.tools).await?
        };
        self.play_fault(fault, run, runs).await
    }

    /// The same with a fault whose hosts are already chosen.
    pub async fn play_fault(&self, fault: Fault, run: usize, runs: usize) -> Result<Drill> {
        let scenario = fault.scenario;
        self.events.emit(Event::DrillStarted {
            scenario: scenario.as_str(),
            run,
            runs,
            hosts: fault.hosts.clone(),
        });
        self.until_followed().await?;
        let clients = Arc::new(self.clients().await?);
        let folder = self.folder.join(format!("{scenario}-{run}"));
        workspace::private_folder(&folder)?;
        if let (Scenario::DropTable, Some(host)) = (scenario, fault.hosts.first()) {
            dropped_table::is_possible(&self.tools, host).await?;
        }
        fault.prepare(&self.tools).await?;
        let load = Load::start(clients.clone(), &folder, &self.crew, Standing::Leased).await?;
        let begun = load.recorder().begun();
        let mut times = Times::default();
        let acted = tokio::select! {
            acted = self.act(&fault, &load, &mut times) => acted,
            never = narrate(&load, &self.events) => match never {},
        };
        if let Err(error) = acted {
            let tables = load.tables().clone();
            drop(load);
            // The cleanup may fail; the first error is what matters.
            let _ = tables.drop(&clients).await;
            return Err(error);
        }
        let (recording, balance) = load.stop().await?;
        self.tell(Moment::End);
        let at = times.fault.unwrap_or_default();
        let measured = Measured {
            whole: times.whole.map(|whole| whole - times.repair.unwrap_or(at)),
            ..measure(&recording, at, &balance)
        };
        let mut failures = judge(scenario, &measured, &self.limits);
        failures.extend(times.archive.iter().flat_map(Outage::failures));
        failures.extend(times.dropped.iter().flat_map(Dropped::failures));
        self.events.emit(Event::DrillFinished {
            scenario: scenario.as_str(),
            passed: failures.is_empty(),
            write_outage: measured.write_outage,
            read_outage: measured.read_outage,
            acknowledged: measured.acknowledged,
            missing: measured.missing,
        });
        Ok(Drill {
            scenario,
            run,
            hosts: fault.hosts.iter().map(ToString::to_string).collect(),
            begun,
            route: clients.route(),
            bound: fault.bound(&self.tools.cluster.inventory),
            hold: self.held(&times, &recording),
            archive: times.archive.clone(),
            dropped: times.dropped.clone(),
            failures,
            samples: samples(&recording),
            marks: all_marks(&fault, &times, marks(&recording, at), recording.length),
            bands: bands(&recording),
            measured,
        })
    }

    /// Repairs what a killed drill left broken.
    pub async fn repair_left(&self, broken: &Broken, note: BrokenNote) -> Result<()> {
        let fault = Fault {
            scenario: broken.scenario,
            candidate: None,
            // The planned duration does not matter any more.
            lag: broken.held_up.then_some(Duration::ZERO),
            hosts: broken
                .hosts
                .iter()
                .map(|host| host.machine().host)
                .collect(),
        };
        let machines: Vec<Machine> = broken.hosts.iter().map(BrokenHost::machine).collect();
        self.tell(Moment::Repair);
        self.repair(&fault, &machines).await?;
        if self.until_whole(None, None).await.is_none() {
            return Err(self.not_whole());
        }
        self.tell(Moment::Whole);
        // What cannot be cleared now is cleared next time.
        drop(Tables::clear(&self.clients().await?, Standing::Leased).await);
        note.clear()
    }

    async fn repair(&self, fault: &Fault, machines: &[Machine]) -> Result<()> {
        fault.repair(&self.tools, machines).await?;
        // A cloud may have given a restarted host another public address.
        let machines = self.tools.provider.discover().await?;
        self.workspace.write_ssh_config(&machines)?;
        if let (Some(_), Some(host)) = (fault.lag, fault.hosts.first()) {
            replication_hold::release(&self.tools, host).await?;
        }
        Ok(())
    }

    async fn clients(&self) -> Result<Clients> {
        Clients::find(
            self.tools.cluster.clone(),
            self.tools.remote.clone(),
            self.tools.tls.clone(),
            self.machines,
        )
        .await
    }

    async fn act(&self, fault: &Fault, load: &Load, times: &mut Times) -> Result<()> {
        self.get_going(load).await?;
        self.tell(Moment::Load);
        self.pause(BASELINE).await?;
        let broken = Broken {
            scenario: fault.scenario,
            since: jiff::Timestamp::now(),
            hosts: self
                .machines
                .iter()
                .filter(|machine| fault.hosts.contains(&machine.host))
                .map(BrokenHost::of)
                .collect(),
            held_up: fault.lag.is_some(),
        };
        let note = self.workspace.note_broken(&broken)?;
        if let Err(error) = self.tools.remote.ready().await {
            note.clear()?;
            return Err(error.left("nothing was broken"));
        }
        // From here on, everything is repaired in any case.
        let suffered = AssertUnwindSafe(self.suffer(fault, load, times))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| {
                Err(Error::new(
                    Code::InternalError,
                    "the drill itself failed (a panic)",
                ))
            });
        let interrupted = self.cancel.is_cancelled();
        if times.repair.is_none() && (lifts(fault.scenario) || suffered.is_err()) {
            times.repair = Some(load.recorder().now());
            self.tell(Moment::Repair);
        }
        let repaired = self.repair(fault, self.machines).await;
        if let Err(error) = repaired {
            return Err(still_broken(error, &broken));
        }
        if times.whole.is_none() {
            let timeline = None;
            times.whole = self.until_whole(Some(load), timeline).await;
        }
        let mut sent = Ok(true);
        if let (Some(outage), Some(_)) = (&mut times.archive, times.whole) {
            sent = outage.end(&self.tools, load.clients()).await;
            let in_time = matches!(sent, Ok(true));
            times.whole = in_time.then(|| load.recorder().now());
        }
        if times.whole.is_some() {
            self.tell(Moment::Whole);
        }
        note.clear()?;
        suffered.and(sent)?;
        if interrupted {
            return Err(Error::interrupted().left("the fault has been repaired"));
        }
        self.pause(TAIL).await
    }

    /// Breaks it, and waits until clients have recovered, or long enough.
    async fn suffer(&self, fault: &Fault, load: &Load, times: &mut Times) -> Result<()> {
        let before = load.view();
        let table = match fault.scenario {
            Scenario::DropTable => Some(DroppedTable::fill(load.clients()).await?),
            _ => None,
        };
        if let (Some(lag), Some(host)) = (fault.lag, fault.hosts.first()) {
            self.hold_up(host, lag, load, times).await?;
        }
        self.events.emit(Event::DrillMoment {
            moment: Moment::Fault,
            host: fault.hosts.first().cloned(),
        });
        times.fault = Some(load.recorder().now());
        fault.inject(&self.tools, self.machines).await?;
        if let (Some(table), Some(host)) = (&table, fault.hosts.first()) {
            return self.bring_back(table, host, load, times).await;
        }
        let scenario = fault.scenario;
        let patroni = &self.tools.cluster.inventory.patroni;
        let bound = Duration::from_secs_f64(fault.bound(&self.tools.cluster.inventory));
        if !lifts(scenario) {
            let newer = scenario.moves_leader().then_some(before.timeline).flatten();
            times.whole = self.until_whole(Some(load), newer).await;
            return Ok(());
        }
        let injected = Instant::now();
        if scenario == Scenario::ArchiveDown {
            return self.pile_up(load, times).await;
        }
        if scenario.moves_leader() {
            let timeout = bound + Duration::from_secs(60);
            while injected.elapsed() < timeout {
                let view = load.view();
                if view.timeline > before.timeline && view.last_write + 0.5 > view.t {
                    break;
                }
                self.pause(LOOK).await?;
            }
            return self.pause(LINGER).await;
        }
        // The leader may stay. This is long enough for a leader that steps down.
        let long_enough = match scenario {
            Scenario::EtcdDown => patroni.ttl + patroni.loop_wait,
            // By then, clients that time out have done so twice.
            Scenario::HaproxyDown => 12,
            _ => patroni.loop_wait + 5,
        };
        self.pause(Duration::from_secs(long_enough.into())).await
    }

    /// Drops the table, and has its rows back.
    async fn bring_back(
        &self,
        table: &DroppedTable,
        host: &HostName,
        load: &Load,
        times: &mut Times,
    ) -> Result<()> {
        let moment = table.lose().await?;
        let back = table.bring_back(&self.tools, load.clients(), host, moment);
        times.dropped = tokio::select! {
            back = back => Some(back?),
            () = self.cancel.cancelled() => return Err(Error::interrupted()
                .left("what was restored is removed")),
        };
        times.whole = Some(load.recorder().now());
        Ok(())
    }

    /// Has WAL wait for the repository.
    async fn pile_up(&self, load: &Load, times: &mut Times) -> Result<()> {
        let archiver = Archiver::of_leader(&self.tools, load.clients()).await?;
        for _ in 0..archive_outage::SEGMENTS {
            self.pause(archive_outage::PAUSE).await?;
            archiver.end_segment().await?;
        }
        self.pause(LINGER).await?;
        times.archive = Some(Outage {
            waited: archiver.waiting().await?,
            ..Outage::default()
        });
        Ok(())
    }

    /// Lets the replicas of `host` fall behind for the requested time, but never so far that none of them could
    /// take over.
    async fn hold_up(
        &self,
        host: &HostName,
        lag: Duration,
        load: &Load,
        times: &mut Times,
    ) -> Result<()> {
        let most = self.tools.cluster.inventory.patroni.maximum_lag_on_failover / 2;
        let hold = ReplicationHold::begin(&self.tools, load.clients(), host, lag).await?;
        let begin = Instant::now();
        times.held_up = Some(load.recorder().now());
        self.events.emit(Event::DrillMoment {
            moment: Moment::HeldUp,
            host: Some(host.clone()),
        });
        while begin.elapsed() < lag && times.behind < most {
            self.pause(LOOK).await?;
            times.behind = hold.behind().await?;
        }
        Ok(())
    }

    fn held(&self, times: &Times, recording: &Recording) -> Option<record::Hold> {
        let (from, to) = (times.held_up?, times.fault?);
        Some(record::Hold {
            from,
            to,
            behind: times.behind,
            limit: self.tools.cluster.inventory.patroni.maximum_lag_on_failover,
            waited: longest_wait(recording, Span { from, to }),
        })
    }

    /// Waits for the first writes.
    async fn get_going(&self, load: &Load) -> Result<()> {
        let begin = Instant::now();
        while load.view().writes < 20 || load.view().reads < 20 {
            if begin.elapsed() > GETTING_GOING {
                return Err(Error::new(
                    Code::DrillAborted,
                    format!(
                        "clients completed {} writes and {} reads in {} s",
                        load.view().writes,
                        load.view().reads,
                        GETTING_GOING.as_secs()
                    ),
                )
                .left("nothing was broken"));
            }
            self.pause(LOOK).await?;
        }
        Ok(())
    }

    /// Waits until the cluster is whole and, with `newer`, on a later timeline; returns when that was, by the
    /// clock of the load. An interruption does not end this wait, but waits for it.
    async fn until_whole(&self, load: Option<&Load>, newer: Option<u32>) -> Option<f64> {
        let prover = self.prover();
        let begin = Instant::now();
        let clock = || load.map_or(begin.elapsed().as_secs_f64(), |load| load.recorder().now());
        let whole = poll::until(RECOVERY + self.ttl(), INSPECTION, || async {
            let seen = clock();
            let moved = newer
                .is_none_or(|newer| load.is_some_and(|load| load.view().timeline > Some(newer)));
            match moved && prover.stand().await.iter().all(|check| check.passed) {
                true => Ok(seen),
                false => Err(()),
            }
        });
        whole.await.ok()
    }

    /// Waits until every member would follow another leader. Otherwise an earlier outage of etcd would be
    /// measured too, or would make a planned change of leader longer.
    async fn until_followed(&self) -> Result<()> {
        let prover = self.prover();
        let begin = Instant::now();
        while begin.elapsed() < self.ttl() {
            let bound = |check: &Check| check.name == verify::FAILOVER && !check.passed;
            if !prover.stand().await.iter().any(bound) {
                break;
            }
            self.pause(INSPECTION).await?;
        }
        Ok(())
    }

    fn prover(&self) -> Prover {
        Prover {
            cluster: self.tools.cluster.clone(),
            remote: self.tools.remote.clone(),
            http: self.tools.http.clone(),
            tls: self.tools.tls.clone(),
            files: Files::new(),
            writes: true,
        }
    }

    fn ttl(&self) -> Duration {
        Duration::from_secs(self.tools.cluster.inventory.patroni.ttl.into())
    }

    fn not_whole(&self) -> Error {
        Error::new(
            Code::ClusterNotRestored,
            format!(
                "the cluster did not become whole again in {} s",
                (RECOVERY + self.ttl()).as_secs()
            ),
        )
        .hint("what is wrong: pgherd status")
    }

    async fn pause(&self, length: Duration) -> Result<()> {
        tokio::select! {
            () = sleep(length) => Ok(()),
            () = self.cancel.cancelled() => Err(Error::interrupted()
                .left("the fault has been repaired")),
        }
    }

    fn tell(&self, moment: Moment) {
        self.events.emit(Event::DrillMoment { moment, host: None });
    }
}

/// Whether the fault lasts until it is repaired.
fn lifts(scenario: Scenario) -> bool {
    match scenario {
        Scenario::Switchover
        | Scenario::HaproxyRestart
        | Scenario::DropTable
        | Scenario::KillLeader
        | Scenario::Watch => false,
        Scenario::ReplicaDown
        | Scenario::HaproxyDown
        | Scenario::ArchiveDown
        | Scenario::EtcdDown
        | Scenario::StopLeader
        | Scenario::CrashHost
        | Scenario::IsolateLeader => true,
    }
}

fn still_broken(error: Error, broken: &Broken) -> Error {
    let hosts: Vec<&str> = broken.hosts.iter().map(|host| host.name.as_str()).collect();
    error
        .left(format!(
            "the fault of {} on {} is not repaired",
            broken.scenario,
            hosts.join(", ")
        ))
        .hint("try again: pgherd drill --repair")
}
