//! Launches the inventory's hosts, and waits until they answer on SSH.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bollard::errors::Error as EngineError;
use bollard::models::ContainerStateStatusEnum as Status;
use bollard::query_parameters::{StartContainerOptions, StopContainerOptionsBuilder};
use tokio::{sync::OnceCell, time::timeout};

use super::{
    account::{self, Account},
    archive::{self, Entry},
    container::{self, Found, Image, Spec},
    engine::{self, Engine},
    host_key::HostKey,
    ports, readdress,
};
use crate::{
    error::{Code, Error, Result},
    event::{Events, HostState},
    poll,
    provider::{Access, Arrival, Arrivals, Machine, ssh_probe::answers},
};

/// Boots hosts, all in parallel.
pub(super) struct Launch<'a> {
    pub(super) engine: &'a Engine,
    /// `None` if no new container is needed.
    pub(super) image: Option<Image>,
    pub(super) access: &'a Access,
    pub(super) ssh_port: u16,
    /// How long a host may take from its start until it answers.
    pub(super) timeout: Duration,
    pub(super) events: &'a Events,
    pub(super) arrivals: &'a Arrivals,
    /// New hosts come from one image, so one look is enough for all.
    pub(super) account: OnceCell<Account>,
}

impl Launch<'_> {
    /// Creates or starts the host, or uses it as it runs.
    pub(super) async fn host(&self, spec: &Spec<'_>, found: Option<Found>) -> Result<Machine> {
        let taken_up = match found {
            Some(found) if found.never_started() || found.going() => {
                container::remove(self.engine, &found.id, &found.name).await?;
                None
            }
            found => found,
        };
        let result = match taken_up {
            Some(found) => self.take_up(spec, found).await,
            None => self.make(spec).await,
        };
        result.map_err(|error| error.on(spec.host))
    }

    async fn make(&self, spec: &Spec<'_>) -> Result<Machine> {
        let image = self.image.as_ref().ok_or_else(|| {
            Error::new(Code::HostNotRunning, "its container has disappeared").hint("run `up` again")
        })?;
        self.events.host(spec.host, HostState::Creating, None);
        let name = container::name(spec.cluster, spec.host);
        let key = HostKey::generate().await?;
        let owner = &self.access.cluster_id;
        let id = container::create(self.engine, spec, image, &key.public, owner).await?;
        let started = async {
            let account = self
                .account
                .get_or_try_init(|| account::find(self.engine, &id, &self.access.user))
                .await?;
            self.furnish(&id, account, &key).await?;
            self.start(spec, &id).await?;
            self.ready(spec, &id, 0).await
        };
        match started.await {
            Ok(machine) => Ok(machine),
            Err(error) => Err(self.clean_up(spec, &id, &name, error).await),
        }
    }

    /// A host that does not run has never run, so it has nothing of value on it. One that runs but is slow may
    /// still answer.
    async fn clean_up(&self, spec: &Spec<'_>, id: &str, name: &str, error: Error) -> Error {
        match container::inspect(self.engine, id, spec.network).await {
            Ok(Some(found)) if found.running() && found.restarts == 0 => error.left(format!(
                "the container {name} runs; the next `up` continues with it, `down` removes it"
            )),
            Ok(None) => error.left(format!("there is no container {name}")),
            _ => match container::remove(self.engine, id, name).await {
                Ok(()) => error.left(format!("its container {name} was removed again")),
                Err(_) => error.left(format!(
                    "the container {name} may still be there; `down` removes it"
                )),
            },
        }
    }

    async fn take_up(&self, spec: &Spec<'_>, found: Found) -> Result<Machine> {
        let Found { id, name, .. } = &found;
        authorize(self.engine, id, self.access).await?;
        let started = async {
            match found.status {
                Status::RUNNING | Status::RESTARTING => {}
                Status::PAUSED => {
                    self.events.host(spec.host, HostState::Starting, None);
                    engine::call(
                        &format!("unpause the container {name}"),
                        self.engine.api().unpause_container(id),
                    )
                    .await?;
                }
                _ => {
                    if found.address != Some(spec.address) {
                        readdress::move_stopped(self.engine, spec, id).await?;
                    }
                    self.start(spec, id).await?;
                }
            }
            // The engine counts restarts since a container's last manual start.
            let restarts = if found.running() { found.restarts } else { 0 };
            self.ready(spec, id, restarts).await
        };
        match started.await {
            Ok(machine) => Ok(machine),
            Err(error) => Err(self.stop_looping(spec, &found, error).await),
        }
    }

    /// A host that ends as soon as it starts would be restarted for ever; its content stays.
    async fn stop_looping(&self, spec: &Spec<'_>, found: &Found, error: Error) -> Error {
        let name = &found.name;
        let now = container::inspect(self.engine, &found.id, spec.network).await;
        if let Ok(None) = now {
            return error.left(format!("there is no container {name} any more"));
        }
        if let Ok(Some(now)) = now
            && (now.status == Status::RESTARTING || now.restarts > found.restarts)
        {
            let options = StopContainerOptionsBuilder::default().t(0).build();
            let stop = self.engine.api().stop_container(&found.id, Some(options));
            if engine::call("stop a container", stop).await.is_ok() {
                return error.left(format!(
                    "the container {name} is stopped, with all its data"
                ));
            }
        }
        error.left(format!("the container {name} is there, with all its data"))
    }

    /// Puts into a new host what makes it this host: its key, pgherd's public key, and sshd's port.
    async fn furnish(&self, id: &str, account: &Account, key: &HostKey) -> Result<()> {
        let folder = format!("{}/.ssh/", account.home.trim_matches('/'));
        let authorized = format!("{folder}authorized_keys");
        let access = format!("{}\n", self.access.public_key.trim());
        let public = format!("{}\n", key.public);
        let port = format!("Port {}\n", self.ssh_port);
        let roots = |path, mode, content| Entry {
            path,
            mode,
            uid: 0,
            gid: 0,
            content: Some(content),
        };
        let users = |path, mode, content| Entry {
            path,
            mode,
            uid: account.uid,
            gid: account.gid,
            content,
        };
        let mut entries = vec![
            users(&folder, 0o700, None),
            users(&authorized, 0o600, Some(&access)),
            roots("etc/ssh/ssh_host_ed25519_key", 0o600, &key.private),
            roots("etc/ssh/ssh_host_ed25519_key.pub", 0o644, &public),
        ];
        if self.ssh_port != 22 {
            entries.push(roots(
                "etc/ssh/sshd_config.d/20-pgherd-port.conf",
                0o644,
                &port,
            ));
        }
        archive::write(self.engine, id, "/", &entries).await
    }

    async fn start(&self, spec: &Spec<'_>, id: &str) -> Result<()> {
        self.events.host(spec.host, HostState::Starting, None);
        let name = container::name(spec.cluster, spec.host);
        let starting = timeout(
            // Enough for five at once on two slow cores, with images to unpack.
            Duration::from_secs(60),
            self.engine
                .api()
                .start_container(id, None::<StartContainerOptions>),
        );
        match starting.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.not_started(spec, &name, &error).await),
            Err(_) => Err(Error::new(
                Code::HostDidNotStart,
                format!("the container engine did not start the container {name} within 60 s"),
            )),
        }
    }

    async fn not_started(&self, spec: &Spec<'_>, name: &str, error: &EngineError) -> Error {
        let said = engine::message(error);
        if said.contains("port is already allocated") || said.contains(": bind: ") {
            let containers = container::list(self.engine, None).await.unwrap_or_default();
            if let Err(conflict) = ports::check(spec.ports, &containers) {
                return conflict;
            }
        }
        let failed = engine::could_not(&format!("start the container {name}"), error);
        if said.contains("Address already in use") {
            return failed.hint(format!(
                "something else has the address {} on the network {}; see `docker network inspect {}`",
                spec.address, spec.network, spec.network
            ));
        }
        failed
    }

    /// Waits until sshd answers.
    async fn ready(&self, spec: &Spec<'_>, id: &str, restarts: i64) -> Result<Machine> {
        if let Some(found) = container::inspect(self.engine, id, spec.network).await? {
            self.arrivals.tell(Arrival::Running(found.machine()));
        }
        let pause = Duration::from_millis(50);
        let looks = AtomicU32::new(0);
        let ready = poll::until_found(self.timeout, pause, || async {
            if answers(spec.address, self.ssh_port).await {
                let found = container::inspect(self.engine, id, spec.network)
                    .await?
                    .ok_or_else(|| {
                        Error::new(Code::HostNotRunning, "its container has disappeared")
                    })?;
                let detail = spec.address.to_string();
                self.events
                    .host(spec.host, HostState::Created, Some(detail));
                let machine = found.machine();
                self.arrivals.tell(Arrival::Answers(machine.clone()));
                return Ok(Some(machine));
            }
            // A connection attempt is cheap, a question to the engine is not.
            if looks.fetch_add(1, Ordering::Relaxed).is_multiple_of(10) {
                let found = container::inspect(self.engine, id, spec.network).await?;
                match found {
                    Some(found) if found.running() && found.restarts <= restarts => {}
                    found => return Err(self.ended(id, found).await),
                }
            }
            Ok::<_, Error>(None)
        });
        match ready.await? {
            Some(machine) => Ok(machine),
            None => Err(self.silent(spec, id).await),
        }
    }

    async fn ended(&self, id: &str, found: Option<Found>) -> Error {
        let Some(found) = found else {
            return Error::new(
                Code::HostNotRunning,
                "its container was removed while it booted",
            );
        };
        let image = self.image.as_ref().map(|image| image.reference.as_str());
        // A container that the engine has just restarted again has no exit code at the moment.
        let cause = match found.running() {
            true => "its first process keeps ending, and the engine restarts it".into(),
            false => format!("its first process ended with code {}", found.exit_code),
        };
        let error = Error::new(
            Code::HostDidNotStart,
            "the host ended as soon as it was started",
        )
        .cause(cause)
        .excerpt(
            format!("the log of the container {}", found.name),
            container::log_tail(self.engine, id).await,
        );
        match image {
            Some(image) => error.hint(format!(
                "see whether the image {image} boots systemd; without provider.image, pgherd makes one that does"
            )),
            None => error.hint(format!("start it by hand to see more: docker start -a {}", found.name)),
        }
    }

    async fn silent(&self, spec: &Spec<'_>, id: &str) -> Error {
        let (address, port) = (spec.address, self.ssh_port);
        let name = container::name(spec.cluster, spec.host);
        let error = Error::new(
            Code::HostDidNotStart,
            format!(
                "the host runs, but nothing answers as SSH on {address}:{port} after {} s",
                self.timeout.as_secs()
            ),
        )
        .excerpt(
            format!("the log of the container {name}"),
            container::log_tail(self.engine, id).await,
        )
        .hint(format!(
            "see what failed: docker exec {name} systemctl --failed"
        ));
        match self.engine.local {
            true => error.hint("a rootless engine gives its containers addresses that nobody else can reach; pgherd needs one that runs as root"),
            false => error.hint("the addresses of containers are reachable only on the engine's own machine; run pgherd there"),
        }
    }
}

/// Makes an existing host accept pgherd's key, beside the present ones: the workspace, and its key, may be
/// another one than the host was created with.
pub(super) async fn authorize(engine: &Engine, id: &str, access: &Access) -> Result<()> {
    let account = account::find(engine, id, &access.user).await?;
    let path = format!("{}/.ssh/authorized_keys", account.home);
    let mut keys = archive::read(engine, id, &path).await?.unwrap_or_default();
    let key = access.public_key.trim();
    if keys.lines().any(|line| line.trim() == key) {
        return Ok(());
    }
    if !keys.is_empty() && !keys.ends_with('\n') {
        keys.push('\n');
    }
    keys.push_str(key);
    keys.push('\n');
    let entry = |path, mode, content| Entry {
        path,
        mode,
        uid: account.uid,
        gid: account.gid,
        content,
    };
    let entries = [
        entry(".ssh/", 0o700, None),
        entry(".ssh/authorized_keys", 0o600, Some(keys.as_str())),
    ];
    archive::write(engine, id, &account.home, &entries).await
}
