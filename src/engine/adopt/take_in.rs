//! Takes a cluster in, while its PostgreSQL keeps running.
//!
//! Under a pause, each Patroni gets its way to etcd's API of version 3, the leader's first; etcd keeps its data. Every
//! script can be run again, and notes on its host what it has done: an adoption that was cut off goes on with the same id.

use std::{collections::BTreeMap, time::Duration};

use super::{compare, convert, seen::Seen};
use crate::{
    cluster::Cluster,
    configs::PatroniConfig,
    contract::{MARKER, etcd_dir},
    engine::context::Context,
    error::{Code, Error, Result},
    inventory::{HostName, Role},
    machine::Machine,
    plan,
    remote::{Script, quote},
};

const REST: &str = include_str!("rest.sh");
const NOTE: &str = include_str!("note.sh");
const EXCHANGE: &str = include_str!("exchange.sh");
const HEALTH: &str = include_str!("health.sh");
const FINISH: &str = include_str!("finish.sh");

/// How long a step may take on a host.
const LIMIT: Duration = Duration::from_secs(240);

/// A cluster that is being taken in.
pub(super) struct TakeIn<'a> {
    pub(super) context: &'a Context,
    pub(super) machines: &'a [Machine],
    pub(super) hosts: &'a BTreeMap<HostName, Seen>,
    pub(super) id: &'a str,
}

impl TakeIn<'_> {
    /// Everything up to the end of the pause.
    pub(super) async fn run(&self, cluster: &Cluster) -> Result<()> {
        self.say("every host notes that it is being adopted");
        self.on(None, |host, _| Some(self.note(host))).await?;
        self.say("the cluster is paused: Patroni starts, stops and promotes nothing");
        let members = Some(Role::Postgres);
        self.on(members, |host, _| Some(self.pause(host))).await?;
        // Its Patroni answers no checks for a moment, and the leader cannot change.
        self.doors_look("disable").await?;
        let led = self.exchange_all(true).await;
        self.doors_look("enable").await?;
        led?;
        self.exchange_all(false).await?;
        self.say("every host gets the marks of its cluster");
        let finish = |host: &HostName, seen: &Seen| Some(self.finish(cluster, host, seen));
        self.on(None, finish).await?;
        self.say("the pause ends");
        for leads in [true, false] {
            let resume = |host: &HostName, seen: &Seen| {
                ((seen.leads() == Some(true)) == leads).then(|| self.resume(host, leads))
            };
            self.on(members, resume).await?;
        }
        Ok(())
    }

    /// Gives every Patroni that leads, or does not, its new way to etcd, one at a time.
    async fn exchange_all(&self, leads: bool) -> Result<()> {
        for (host, seen) in self.members() {
            if (seen.leads() == Some(true)) == leads {
                self.say(&format!(
                    "{host}: Patroni starts with its new way to etcd; PostgreSQL keeps running"
                ));
                let only =
                    |name: &HostName, _: &Seen| (name == host).then(|| self.exchange(host, seen));
                self.on(Some(Role::Postgres), only).await?;
            }
        }
        Ok(())
    }

    /// Whether HAProxy looks at the leader's health: `enable` or `disable`.
    async fn doors_look(&self, verb: &str) -> Result<()> {
        let leader = self.members().find(|(_, seen)| seen.leads() == Some(true));
        let address = leader.and_then(|(host, _)| {
            let mut machines = self.machines.iter();
            machines.find(|it| it.host == *host)?.address
        });
        let Some(address) = address else {
            return Ok(());
        };
        let script = |_: &HostName, _: &Seen| {
            let script = Script::new().alone("adopt");
            Some(
                script
                    .line(format!("VERB={verb} LEADER={address}"))
                    .line(HEALTH),
            )
        };
        self.on(Some(Role::Haproxy), script).await
    }

    /// Marks the hosts, and takes the notes away: the adoption is complete but for its workspace.
    pub(super) async fn conclude(&self) -> Result<()> {
        let script = |_: &HostName, _: &Seen| {
            let mark = format!("{}\n{}\n", self.context.inventory.cluster, self.id);
            Some(
                Script::new()
                    .line(format!(
                        "[ -s {MARKER} ] || printf '%s' {} | put {MARKER} root:root 0644",
                        quote(&mark)
                    ))
                    .line("rm -f /var/lib/pgherd/adopting /var/lib/pgherd/adopted/exchanged"),
            )
        };
        self.on(None, script).await
    }

    fn say(&self, line: &str) {
        self.context.operator.say(line);
    }

    fn members(&self) -> impl Iterator<Item = (&HostName, &Seen)> {
        let names = self.context.inventory.with_role(Role::Postgres);
        names.filter_map(|host| self.hosts.get_key_value(host))
    }

    /// Runs a script on every host with a role that has one, at the same time.
    async fn on(
        &self,
        role: Option<Role>,
        script: impl Fn(&HostName, &Seen) -> Option<Script>,
    ) -> Result<()> {
        let inventory = &self.context.inventory;
        let mut failures = Vec::new();
        let mut asked = Vec::new();
        for machine in self.machines {
            let host = &machine.host;
            let has = role.is_none_or(|role| inventory.hosts[host].roles.contains(&role));
            let Some(script) = self
                .hosts
                .get(host)
                .filter(|_| has)
                .and_then(|seen| script(host, seen))
            else {
                continue;
            };
            asked.push(async move {
                let one = std::slice::from_ref(machine);
                self.context.each(one, &script, LIMIT).await
            });
        }
        for answers in futures_util::future::join_all(asked).await {
            failures.extend(answers?.into_iter().filter_map(Result::err));
        }
        match failures.len() {
            0 => Ok(()),
            1 => Err(failures.remove(0)),
            _ => Err(Error::several(
                "several hosts could not be adopted",
                failures,
            )),
        }
    }

    fn note(&self, host: &HostName) -> Script {
        let config = self.hosts[host].config();
        let path = config.map(|(path, _)| path.to_owned()).unwrap_or_default();
        Script::new()
            .alone("adopt")
            .line(format!("ID={} CONFIG={}", quote(self.id), quote(&path)))
            .line(NOTE)
    }

    /// A script that can ask the REST interface of a host's Patroni.
    fn asks(&self, host: &HostName) -> Script {
        let seen = &self.hosts[host];
        let config = seen.settings_of_patroni();
        let config = config.as_ref();
        let user = config.and_then(|it| {
            it.value(&["restapi", "authentication", "username"])
                .as_str()
        });
        let password = config.and_then(PatroniConfig::rest_password);
        Script::new()
            .alone("adopt")
            .line(format!("REST={}", quote(seen.rest().unwrap_or_default())))
            .line(format!("REST_USER={}", quote(user.unwrap_or_default())))
            .line(format!(
                "REST_PASSWORD={}",
                quote(password.as_ref().map_or("", |it| it.expose()))
            ))
            .line(REST)
    }

    fn pause(&self, host: &HostName) -> Script {
        self.asks(host)
            .line("is_paused || rest PATCH config '{\"pause\": true}' >/dev/null")
            .line("await 'Patroni is not paused' is_paused")
    }

    /// The tutorial's `use_pg_rewind` is in the wrong place, where Patroni does not read it: it goes with the pause.
    /// `leads` is whether this member does: the others only see the pause end.
    fn resume(&self, host: &HostName, leads: bool) -> Script {
        let script = self.asks(host);
        let script = match leads {
            true => {
                script.line("is_not_paused || rest PATCH config '{\"pause\": null, \"use_pg_rewind\": null}' >/dev/null")
            }
            false => script,
        };
        script.line("await 'the pause does not end' is_not_paused")
    }

    fn exchange(&self, host: &HostName, seen: &Seen) -> Script {
        let (path, text) = seen.config().unwrap_or(("", String::new().into()));
        let new = convert::converted(&text).unwrap_or(text);
        let (data, _) = seen.data().unwrap_or_default();
        let leads = if seen.leads() == Some(true) {
            "yes"
        } else {
            ""
        };
        self.asks(host)
            .line(format!(
                "restart_patroni_alone() {{\n{}\n}}",
                plan::RESTART_PATRONI_ALONE
            ))
            .line(format!(
                "CONFIG={} DATA={} LEADS={leads}",
                quote(path),
                quote(data)
            ))
            .line(format!("NEW={}", quote(&new)))
            .line(EXCHANGE)
    }

    fn finish(&self, cluster: &Cluster, host: &HostName, seen: &Seen) -> Script {
        let roles = &self.context.inventory.hosts[host].roles;
        let of = |role: Role, path: Option<&str>| match roles.contains(&role) {
            true => quote(path.unwrap_or_default()),
            false => quote(""),
        };
        let data = seen.data().map(|(dir, _)| dir);
        let is_named = seen.etcd("ETCD_NAME") == Some(host.as_str());
        let name = if is_named { "" } else { host.as_str() };
        plan::take_over(cluster, &cluster.nodes[host])
            .line(format!("ID={}", quote(self.id)))
            .line(format!("DATA={}", of(Role::Postgres, data)))
            .line(format!("NAME={}", quote(name)))
            .line(format!("PORT={}", self.context.inventory.postgresql.port))
            .line(format!("ETCD={}", of(Role::Etcd, compare::etcd_data(seen))))
            .line(format!(
                "LINK={}",
                quote(&etcd_dir(&self.context.inventory.cluster))
            ))
            .line(FINISH)
    }
}

/// An adoption that ended in the middle.
pub(super) fn cut_off(context: &Context, error: Error) -> Error {
    let again = context.command("adopt --yes");
    let error = match error.code() {
        Code::LeaseHeld => return error,
        _ => error.left(
            "no workspace was written; the cluster may be paused, and its clients are served",
        ),
    };
    error.hint(format!(
        "complete it: {again}; until then nothing fails over"
    ))
}
