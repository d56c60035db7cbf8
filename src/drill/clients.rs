//! How the drill's clients connect to the front door and to the members.
//!
//! A client of the cluster connects to HAProxy's own address, so this is tried first. Ports that cannot be
//! reached from this machine are reached through the host's SSH connection. With several front doors, a client
//! tries one after the other, as libpq does with several hosts in its connection string. Only addresses at
//! which SSH has confirmed the host are tried directly: a private address of a cloud may belong to another
//! machine on this network.

use std::{
    collections::BTreeMap,
    error::Error as StdError,
    io,
    net::Ipv4Addr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{net::TcpStream, time::timeout};

use super::{client_error::ClientError, record::Route};
use crate::{
    cluster::Cluster,
    contract::POOLER_USER,
    error::{Code, Error, Result},
    inventory::{HostName, PoolMode, Role},
    poll,
    provider::Machine,
    remote::{Connection, Remote},
    secret::Secret,
    services::{
        Number, Setting,
        postgres::{self, Login, Sql, login_as},
    },
};

/// How long the test of a direct connection may take, including the login.
const TRIAL: Duration = Duration::from_secs(2);
/// How long a client waits for its connection and login. HAProxy accepts a connection at once and then looks
/// for a server, so a client with a shorter timeout would measure its own timeout.
const DIRECT: Duration = Duration::from_secs(5);
/// The same through SSH, which may have to connect first.
const THROUGH_SSH: Duration = Duration::from_secs(6);
/// How long it waits at each of several front doors before it tries the next one.
const EACH: Duration = Duration::from_secs(3);
/// How long a question to the cluster may be repeated, in total.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Where a client connects to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// HAProxy's write port.
    Write,
    /// HAProxy's read port.
    Read,
    /// The pooler's port, behind which is HAProxy's write port.
    Pooled,
    /// PostgreSQL's own port on a member.
    Member(HostName),
}

/// The address by which a host is reached directly for a target.
type Ways = BTreeMap<(Target, HostName), Ipv4Addr>;

/// Opens connections like a client.
pub struct Clients {
    cluster: Arc<Cluster>,
    remote: Arc<dyn Remote>,
    tls: Option<Arc<rustls::ClientConfig>>,
    /// In the order in which they are tried; never empty. With `vip`, only one of them, because the address
    /// leads to the right one.
    doors: Vec<HostName>,
    vip: Option<Ipv4Addr>,
    /// A target that is not in here is reached through SSH.
    direct: RwLock<Ways>,
}

impl Clients {
    /// Finds out which ports can be reached from this machine.
    ///
    /// # Errors
    /// The inventory has no HAProxy.
    pub async fn find(
        cluster: Arc<Cluster>,
        remote: Arc<dyn Remote>,
        tls: Option<Arc<rustls::ClientConfig>>,
        machines: &[Machine],
    ) -> Result<Self> {
        let doors: Vec<HostName> = cluster
            .with_role(Role::Haproxy)
            .map(|node| node.name.clone())
            .collect();
        if doors.is_empty() {
            return Err(Error::new(
                Code::InternalError,
                "the inventory has no HAProxy",
            ));
        }
        let vip = cluster.inventory.haproxy.vip;
        let mut clients = Self {
            cluster,
            remote,
            tls,
            doors,
            vip,
            direct: RwLock::default(),
        };
        clients.vip = clients.try_out_vip().await;
        if clients.vip.is_some() {
            clients.doors.truncate(1);
        }
        let members = clients.members();
        let pooled = clients.pool().map(|_| Target::Pooled);
        let targets = [Target::Write, Target::Read]
            .into_iter()
            .chain(pooled)
            .chain(members.into_iter().map(Target::Member));
        let ways = targets.flat_map(|target| {
            let hosts = clients.hosts(&target);
            hosts.into_iter().map(move |host| (target.clone(), host))
        });
        let tried = join_all(ways.map(|(target, host)| {
            let (clients, machines) = (&clients, machines);
            async move {
                let address = clients.try_out(&target, &host, machines).await?;
                Some(((target, host), address))
            }
        }))
        .await;
        clients.set(tried.into_iter().flatten().collect());
        Ok(clients)
    }

    /// `haproxy.vip`, if it can be reached from this machine.
    async fn try_out_vip(&self) -> Option<Ipv4Addr> {
        let vip = self.vip.filter(|_| self.is_near())?;
        let door = self.doors.first()?;
        let tried = timeout(TRIAL, self.connect(&Target::Write, door, Some(vip))).await;
        matches!(tried, Ok(Ok(_))).then_some(vip)
    }

    /// Continues with the hosts' present addresses.
    pub fn reroute(&self, machines: &[Machine]) {
        let moved = self
            .ways()
            .into_iter()
            .map(|(way, address)| {
                if Some(address) == self.vip {
                    return (way, address);
                }
                let candidates = addresses(&way.1, machines);
                let stays = candidates.is_empty() || candidates.contains(&address);
                let now = if stays { address } else { candidates[0] };
                (way, now)
            })
            .collect();
        self.set(moved);
    }

    /// The password for logins through the poolers, if these let clients share connections. In sessions that
    /// last, a planned change of leader disconnects clients.
    pub fn pool(&self) -> Option<&Secret> {
        let pooler = self.cluster.inventory.pgbouncer.as_ref()?;
        let shares = pooler.pool_mode == PoolMode::Transaction;
        self.cluster.secrets.pooler.as_ref().filter(|_| shares)
    }

    /// The members, in the inventory's order.
    pub fn members(&self) -> Vec<HostName> {
        self.cluster
            .with_role(Role::Postgres)
            .map(|node| node.name.clone())
            .collect()
    }

    /// How clients reach HAProxy.
    pub fn route(&self) -> Route {
        let ways = self.ways();
        let mut doors = self.doors.iter();
        match doors.all(|door| ways.contains_key(&(Target::Write, door.clone()))) {
            true => Route::Direct,
            false => Route::Ssh,
        }
    }

    /// Connects and logs in, once.
    pub async fn open(&self, target: &Target) -> Result<Sql, ClientError> {
        self.attempt(target)
            .await
            .map_err(|error| ClientError::of(&*error))
    }

    async fn attempt(&self, target: &Target) -> Result<Sql, Box<dyn StdError + Send + Sync>> {
        let hosts = self.hosts(target);
        let several = hosts.len() > 1;
        let ways = self.ways();
        let mut failed = None;
        for host in hosts {
            let address = ways.get(&(target.clone(), host.clone())).copied();
            let limit = match address {
                _ if several => EACH,
                Some(_) => DIRECT,
                None => THROUGH_SSH,
            };
            match timeout(limit, self.connect(target, &host, address)).await {
                Ok(Ok(sql)) => return Ok(sql),
                Ok(Err(error)) => failed = Some(error),
                Err(_) => failed = Some(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        }
        Err(failed.unwrap_or_else(|| io::Error::from(io::ErrorKind::NotFound).into()))
    }

    /// Asks through HAProxy's write port, again and again until there is an answer.
    ///
    /// `statement` may run more than once.
    pub async fn ask(&self, statement: &str) -> Result<Vec<tokio_postgres::SimpleQueryRow>> {
        type Failure = Box<dyn StdError + Send + Sync>;
        let answer = poll::until(TIMEOUT, Duration::from_millis(200), || async {
            let sql = self.attempt(&Target::Write).await?;
            let rows = sql.query(statement).await;
            rows.map_err(|error| Failure::from(error.to_string()))
        });
        answer.await.map_err(|over| {
            Error::new(
                Code::ClientsNotServed,
                format!("the write port did not answer in {} s", TIMEOUT.as_secs()),
            )
            .on(&self.doors[0])
            .because(over.last)
        })
    }

    async fn connect(
        &self,
        target: &Target,
        host: &HostName,
        address: Option<Ipv4Addr>,
    ) -> Result<Sql, Box<dyn StdError + Send + Sync>> {
        let port = self.port(target);
        let stream: Box<dyn Connection> = match address {
            Some(address) => {
                let stream = TcpStream::connect((address, port)).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            None => self.remote.dial(host, port).await?,
        };
        if let (Target::Pooled, Some(password)) = (target, self.pool()) {
            let login = Login {
                user: POOLER_USER,
                database: "postgres",
                password,
                // PgBouncer takes no options.
                options: None,
            };
            return login_as(&login, stream, host, self.tls.as_deref()).await;
        }
        let password = &self.cluster.secrets.superuser;
        postgres::login(stream, host, password, self.tls.as_deref()).await
    }

    /// Whether SSH reaches the hosts from this machine at their own addresses. Behind a bastion, another machine may
    /// have the same address on this network, and it would get a password.
    fn is_near(&self) -> bool {
        self.cluster.inventory.ssh.is_direct()
    }

    /// The host's first address at which this port accepts a login.
    async fn try_out(
        &self,
        target: &Target,
        host: &HostName,
        machines: &[Machine],
    ) -> Option<Ipv4Addr> {
        if !self.is_near() {
            return None;
        }
        let of_door = self.vip.filter(|_| !matches!(target, Target::Member(_)));
        let candidates = match of_door {
            Some(vip) => vec![vip],
            None => addresses(host, machines),
        };
        for address in candidates {
            if let Ok(Ok(_)) = timeout(TRIAL, self.connect(target, host, Some(address))).await {
                return Some(address);
            }
        }
        None
    }

    /// The hosts that a client tries, in this order.
    fn hosts(&self, target: &Target) -> Vec<HostName> {
        match target {
            Target::Write | Target::Read | Target::Pooled => self.doors.clone(),
            Target::Member(host) => vec![host.clone()],
        }
    }

    fn port(&self, target: &Target) -> u16 {
        let inventory = &self.cluster.inventory;
        match target {
            Target::Write => inventory.haproxy.write_port,
            Target::Read => inventory.haproxy.read_port,
            Target::Pooled => inventory.port(Number::Set(Setting::Pgbouncer)),
            Target::Member(_) => inventory.postgresql.port,
        }
    }

    fn ways(&self) -> Ways {
        let ways = self.direct.read().unwrap_or_else(PoisonError::into_inner);
        ways.clone()
    }

    fn set(&self, ways: Ways) {
        *self.direct.write().unwrap_or_else(PoisonError::into_inner) = ways;
    }
}

/// The address for SSH, and then the addresses of the host's published ports.
fn addresses(host: &HostName, machines: &[Machine]) -> Vec<Ipv4Addr> {
    machines
        .iter()
        .filter(|machine| machine.host == *host)
        .flat_map(|machine| {
            [
                machine.ssh_address.or(machine.address),
                machine.published_on,
            ]
        })
        .flatten()
        .collect()
}
