//! Launches the inventory's hosts, and waits until they answer on SSH.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use aws_sdk_ec2::{
    Client,
    types::{InstanceStateName as State, Reservation},
};
use futures_util::{
    future,
    stream::{FuturesUnordered, StreamExt},
};
use ipnet::Ipv4Net;
use tokio::{
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    time::{Instant, sleep},
};

use super::{
    Tags, before_doors,
    failure::{Doing, Failure, NOT_YET, insist},
    groups,
    instance::{self, ALIVE, Found},
    key_pair,
    late::{LATE, seen},
    request::{Made, Spec, run_instance},
    rival,
    rules::Sources,
    survey::Survey,
    together, user_data, volumes,
};
use crate::{
    error::{Code, Error, Result},
    event::{Events, HostState},
    inventory::{Aws, Connect, HostName, Inventory, Role},
    poll,
    provider::{Access, Arrival, Arrivals, Machine, MachineState, through_bastions::answers_by},
    quantity::count,
    workspace::Launches,
};

/// How long an instance may take to run, or to stop.
const RUNNING: Duration = Duration::from_secs(300);
/// How long a running host may take until SSH answers, unless `ssh.connect_timeout` is longer.
const BOOT: Duration = Duration::from_secs(240);
/// How long the address may still belong to a predecessor that is being terminated.
const ADDRESS: Duration = Duration::from_secs(180);

/// Launches and starts all hosts at once.
pub(super) struct Launch<'a> {
    pub(super) ec2: &'a Client,
    pub(super) inventory: &'a Inventory,
    pub(super) settings: &'a Aws,
    pub(super) tags: Tags<'a>,
    pub(super) launches: Launches,
    pub(super) access: &'a Access,
    pub(super) events: &'a Events,
    pub(super) arrivals: &'a Arrivals,
    /// The networks from which a load balancer checks its targets.
    pub(super) checked_from: &'a [Ipv4Net],
    /// The load balancer's DNS name, if the cluster is to have one.
    pub(super) balancer: Option<&'a str>,
}

impl Launch<'_> {
    /// Uses those of `hosts` that are `alive`, launches the others, and returns all when SSH answers.
    ///
    /// If one host fails, the others are launched all the same, so that the next run need not do it.
    pub(super) async fn hosts(
        &self,
        hosts: &[HostName],
        alive: &[Found],
        survey: Option<&Survey>,
    ) -> Result<Vec<Machine>> {
        let mut failures = Vec::new();
        let mut mine = BTreeMap::new();
        let mut ids: BTreeMap<HostName, String> = alive
            .iter()
            .filter(|it| hosts.contains(&it.host))
            .map(|it| (it.host.clone(), it.id.clone()))
            .collect();
        if let Some(survey) = survey {
            // Noted before anything is created: if this run dies, a `down` right after it knows that EC2's
            // lists may lag.
            for host in hosts.iter().filter(|it| survey.places.contains_key(it)) {
                self.launches.begin(host)?;
            }
            let (groups, ()) = tokio::try_join!(
                groups::ensure(
                    self.ec2,
                    self.inventory,
                    &survey.vpc,
                    Sources {
                        operators: Some(&survey.operators),
                        balancer: self.checked_from,
                    },
                    &self.tags
                ),
                key_pair::ensure(
                    self.ec2,
                    &self.inventory.cluster,
                    &self.access.public_key,
                    alive,
                    &self.tags
                ),
            )?;
            let made = hosts
                .iter()
                .filter(|host| survey.places.contains_key(host))
                .map(|host| self.make(host, survey, &groups));
            for made in future::join_all(made).await {
                match made {
                    Ok((host, id)) => {
                        mine.insert(host.clone(), id.clone());
                        ids.insert(host, id);
                    }
                    Err(error) => failures.push(error),
                }
            }
        }
        if let Err(error) = self.start(alive).await {
            failures.push(error);
            for found in alive.iter().filter(|it| it.is_stopped()) {
                ids.remove(&found.host);
            }
        }
        let (run, running) = mpsc::unbounded_channel();
        // A run that steps back for another one does not wait for SSH.
        let (lost, booted) = tokio::try_join!(self.wait_running(&ids, &mine, run), async {
            Ok::<_, Error>(self.boot(running).await)
        })?;
        failures.extend(lost);
        let mut machines = Vec::new();
        for booted in booted {
            match booted {
                Ok(machine) => machines.push(machine),
                Err(error) => failures.push(error),
            }
        }
        together(failures, |failed| {
            format!(
                "{failed} of {} could not be launched",
                count(hosts.len(), "host")
            )
        })?;
        Ok(machines)
    }

    /// Launches one host; returns its instance's id.
    async fn make(
        &self,
        host: &HostName,
        survey: &Survey,
        groups: &BTreeMap<Role, String>,
    ) -> Result<(HostName, String)> {
        self.events.host(host, HostState::Creating, None);
        let id = match self.run(host, survey, groups).await {
            Ok(Some(id)) => Ok(id),
            // What the token had launched has been terminated, so this token launches nothing any more.
            Ok(None) => {
                self.launches.finish(host)?;
                let again = self.run(host, survey, groups).await;
                again.and_then(|id| {
                    id.ok_or_else(|| {
                        Error::new(
                            Code::HostDidNotStart,
                            "its instance was terminated as soon as it was launched",
                        )
                    })
                })
            }
            Err(error) => Err(error),
        };
        Ok((host.clone(), id.map_err(|error| error.on(host))?))
    }

    /// `None` if the instance of the launch under way has been terminated.
    async fn run(
        &self,
        host: &HostName,
        survey: &Survey,
        groups: &BTreeMap<Role, String>,
    ) -> Result<Option<String>> {
        let launch = self.launches.begin(host)?;
        let port = self.inventory.ssh.port;
        let user_data = user_data::render(&launch, host, &self.access.user, port);
        let spec = Spec {
            host,
            desired: &self.inventory.hosts[host],
            own: &self.settings.hosts[host],
            settings: self.settings,
            profile: self.inventory.profile_of(host),
            place: &survey.places[host],
        };
        let key_name = key_pair::name(&self.inventory.cluster);
        let made = Made {
            groups,
            key_name: &key_name,
            token: &launch.token,
            host_key: &launch.public_key,
            user_data: &user_data,
            by: &self.access.holder.by,
        };
        let retried = [
            &NOT_YET[..],
            &["InvalidAMIID.NotFound", "InvalidIPAddress.InUse"],
        ]
        .concat();
        let ran = insist(&retried, ADDRESS, || {
            let call = run_instance(self.ec2, &spec, &self.tags, Some(&made));
            let doing = spec.in_words();
            async move { call.send().await.doing(doing) }
        })
        .await;
        match ran {
            Ok(reservation) => {
                let instance = reservation.instances().first();
                let state = instance.and_then(|it| it.state()).and_then(|it| it.name());
                let id = instance.and_then(|it| it.instance_id());
                let lives = state.is_none_or(|state| ALIVE.contains(state));
                Ok(id.filter(|_| lives).map(str::to_owned))
            }
            Err(failure) if failure.is(&["IdempotentInstanceTerminated"]) => Ok(None),
            // The inventory has changed since the run that died with this token.
            Err(failure) if failure.is(&["IdempotentParameterMismatch"]) => {
                let made = seen(LATE, || by_token(self.ec2, &launch.token)).await?;
                Ok(made.filter(|it| it.lives).map(|it| it.id))
            }
            Err(failure) => {
                if failure.is_final() {
                    self.launches.finish(host)?;
                }
                Err(failure.into())
            }
        }
    }

    /// Starts all stopped instances, in one call.
    async fn start(&self, alive: &[Found]) -> Result<()> {
        let stopped: Vec<&Found> = alive.iter().filter(|it| it.is_stopped()).collect();
        if stopped.is_empty() {
            return Ok(());
        }
        for found in &stopped {
            self.events.host(&found.host, HostState::Starting, None);
        }
        let ids: Vec<String> = stopped.iter().map(|it| it.id.clone()).collect();
        // An instance that is stopping can be started once it has stopped.
        insist(&["IncorrectInstanceState"], RUNNING, || {
            let call = self
                .ec2
                .start_instances()
                .set_instance_ids(Some(ids.clone()));
            async move { call.send().await.doing("start the stopped instances") }
        })
        .await?;
        Ok(())
    }

    /// Waits for each host that arrives on `running` until SSH answers there.
    async fn boot(&self, mut running: UnboundedReceiver<Found>) -> Vec<Result<Machine>> {
        let mut booting = FuturesUnordered::new();
        let mut booted = Vec::new();
        let mut all_run = false;
        while !(all_run && booting.is_empty()) {
            tokio::select! {
                found = running.recv(), if !all_run => match found {
                    Some(found) => booting.push(self.ready(found)),
                    None => all_run = true,
                },
                Some(ready) = booting.next() => booted.push(ready),
            }
        }
        booted
    }

    /// Waits until all instances have their addresses, and sends each one that does to `run`. Returns an error
    /// for each of the others.
    async fn wait_running(
        &self,
        ids: &BTreeMap<HostName, String>,
        mine: &BTreeMap<HostName, String>,
        run: UnboundedSender<Found>,
    ) -> Result<Vec<Error>> {
        const ALL: [State; 6] = [
            State::Pending,
            State::Running,
            State::Stopping,
            State::Stopped,
            State::ShuttingDown,
            State::Terminated,
        ];
        let mut waiting = ids.clone();
        let mut told = BTreeSet::new();
        let mut lost = Vec::new();
        let deadline = Instant::now() + RUNNING;
        let mut pause = Duration::from_millis(300);
        // Not `poll::until`: each look changes which hosts are waited for.
        while !waiting.is_empty() {
            let found = instance::find(self.ec2, &self.inventory.cluster, &ALL).await?;
            if let Some(first) = rival::ahead(&found, mine) {
                return Err(self.step_back(first, mine).await);
            }
            for it in found {
                if waiting.get(&it.host) != Some(&it.id) {
                    continue;
                }
                // From now on every run finds it by its tags.
                if told.insert(it.id.clone()) {
                    self.launches.finish(&it.host)?;
                }
                if !it.is_alive() {
                    waiting.remove(&it.host);
                    lost.push(ended(&it));
                } else if it.state == State::Running
                    && it.private.is_some()
                    && it.door(self.settings.connect).is_some()
                {
                    waiting.remove(&it.host);
                    let mut machine = self.machine(&it);
                    // A data volume that a predecessor left is attached next.
                    machine.state = MachineState::Running;
                    self.arrivals.tell(Arrival::Running(machine));
                    // The receiver lives until this function ends.
                    let _ = run.send(it);
                }
            }
            if Instant::now() >= deadline {
                lost.extend(waiting.iter().map(|(host, id)| self.stuck(host, id)));
                break;
            }
            if !waiting.is_empty() {
                sleep(pause).await;
                pause = (pause * 3 / 2).min(Duration::from_secs(3));
            }
        }
        Ok(lost)
    }

    /// Leaves the cluster to the run that was first, and terminates the instances of this one.
    async fn step_back(&self, first: &Found, mine: &BTreeMap<HostName, String>) -> Error {
        let error = rival::refused(&self.inventory.cluster, first);
        let ids: Vec<String> = mine.values().cloned().collect();
        let list = ids.join(", ");
        let ended = self
            .ec2
            .terminate_instances()
            .set_instance_ids(Some(ids))
            // They hold no data yet.
            .skip_os_shutdown(true)
            .send()
            .await
            .doing("terminate the instances that this run has launched");
        for host in mine.keys() {
            // Their tokens launch nothing any more.
            drop(self.launches.finish(host));
        }
        match ended {
            Ok(_) => error.left(format!("what this run had launched is terminated: {list}")),
            Err(failure) => error
                .because(Error::from(failure))
                .left(format!(
                    "what this run had launched still exists, and costs money: {list}"
                ))
                .hint(format!(
                    "terminate it: aws ec2 terminate-instances --instance-ids {}",
                    list.replace(", ", " ")
                )),
        }
    }

    fn stuck(&self, host: &HostName, id: &str) -> Error {
        let what = match self.settings.connect {
            Connect::Public => "runs with a public address",
            Connect::Private => "runs",
        };
        Error::new(Code::HostDidNotStart, format!("{id} is not one that {what} after {} s", RUNNING.as_secs()))
            .on(host)
            .hint("an instance without a public address cannot get one: create it again, or use provider.connect: private")
    }

    fn machine(&self, found: &Found) -> Machine {
        before_doors(
            found.machine(self.settings.connect),
            self.inventory,
            self.balancer,
        )
    }

    /// Waits until sshd answers. It starts once cloud-init has written its host key.
    async fn ready(&self, found: Found) -> Result<Machine> {
        let timeout = BOOT.max(Duration::from_secs(
            self.inventory.ssh.connect_timeout.into(),
        ));
        let Some(address) = found.door(self.settings.connect) else {
            return Err(self.stuck(&found.host, &found.id));
        };
        // It is empty unless the host had one before, so it may go with an instance that never runs.
        let found = volumes::give(self.ec2, &self.inventory.cluster, found).await?;
        let up = poll::until(timeout, Duration::from_millis(200), || async {
            answers_by(&self.inventory.ssh, address)
                .await
                .then_some(())
                .ok_or(())
        });
        if up.await.is_err() {
            return Err(self.silent(&found, address, timeout));
        }
        self.events
            .host(&found.host, HostState::Created, Some(address.to_string()));
        let machine = self.machine(&found);
        self.arrivals.tell(Arrival::Answers(machine.clone()));
        Ok(machine)
    }

    fn silent(&self, found: &Found, address: std::net::Ipv4Addr, timeout: Duration) -> Error {
        let port = self.inventory.ssh.port;
        let error = Error::new(
            Code::HostDidNotStart,
            format!(
                "{} runs, but nothing answers as SSH on {address}:{port} after {} s",
                found.id,
                timeout.as_secs()
            ),
        )
        .on(&found.host)
        .hint(format!(
            "its console: aws ec2 get-console-output --latest --instance-id {}",
            found.id
        ))
        .hint("networks from which it is reachable: provider.operator_cidrs");
        if let Some(login) = self.inventory.ssh.to_bastion() {
            return error.hint(format!("it is reached through the bastion: see whether {login} logs in, and whether the host is reached from there"));
        }
        match self.settings.connect {
            Connect::Public => error.hint("see whether its subnet has a route to an internet gateway"),
            Connect::Private => error.hint("private addresses are reached only from inside the VPC; elsewhere: provider.connect: public"),
        }
    }
}

/// What a token has launched.
struct Launched {
    id: String,
    lives: bool,
}

/// The instance that a token has launched, even if it has been terminated. `None` if there is none, or if it
/// was launched so recently that it is not listed yet.
async fn by_token(ec2: &Client, token: &str) -> Result<Option<Launched>, Failure> {
    let answer = ec2
        .describe_instances()
        .filters(instance::filter("client-token", [token]))
        .send()
        .await
        .doing("look for an instance that an earlier run has launched")?;
    let mut all = answer
        .reservations()
        .iter()
        .flat_map(Reservation::instances);
    Ok(all.find_map(|it| {
        let state = it.state().and_then(|it| it.name());
        Some(Launched {
            id: it.instance_id()?.to_owned(),
            lives: state.is_none_or(|state| ALIVE.contains(state)),
        })
    }))
}

fn ended(found: &Found) -> Error {
    let error = Error::new(
        Code::HostDidNotStart,
        format!("{} was terminated as soon as it was launched", found.id),
    )
    .on(&found.host);
    let Some(reason) = &found.reason else {
        return error;
    };
    // EC2's message if the volume's key cannot be used.
    let about_the_key = reason.contains("Client.InternalError") || reason.contains("KMS");
    let error = error.cause(reason.clone());
    match about_the_key {
        true => error.hint("if the account's default key for EBS is one of your own, its use needs docs/iam-policy-own-key.json"),
        false => error,
    }
}
