//! Replaces certificates, passwords or SSH keys while the cluster runs.
//!
//! Each stage is a complete desired state of the cluster. The planning of `up` brings it about, and the next
//! stage begins when the cluster is healthy in this one. The workspace has the present stage, so an interrupted
//! change can be continued by the next run, and an `up` in between undoes nothing.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::ssh::SshKeys;
use super::{
    authority,
    connected::Connected,
    context::Context,
    lapse,
    operator::{Question, consent},
    run::Run,
    settle::{Consent, Verb, settle},
    taken::{Leftovers, Taken},
};
use crate::{
    cluster::{Cluster, INTERIM_REPLICATION_USER, REPLICATION_USER},
    error::{Code, Error, Result},
    event::Event,
    inventory::Role,
    machine::Machine,
    plan, poll,
    quantity::count,
    services::postgres::patroni::{self, Replication},
    workspace::{AuthorityStage, SecretsStage},
};

mod ssh;

/// How long a replica may take to log in again: one loop of Patroni, and a restart of its WAL receiver.
const LOGIN: Duration = Duration::from_secs(90);

/// What to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The authority and all certificates. With `prepare`, the change stops when all hosts trust both
    /// authorities.
    Certs { prepare: bool },
    /// The passwords; with `users`, also those of applications.
    Secrets { users: bool },
    /// The SSH keys; with `host_keys`, also those of hosts that pgherd did not make.
    Ssh { host_keys: bool },
}

/// What a change means for this cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Intent {
    Trust,
    Certs,
    Secrets {
        /// The passwords that change.
        new: Vec<String>,
        /// Passwords that the user has set. They stay.
        given: Vec<String>,
        users: bool,
    },
    /// pgherd's own key and those of the hosts, or only those of the hosts.
    Ssh {
        own: bool,
    },
}

/// Carries out a change, from the cluster's present stage to the end.
pub(crate) async fn run(
    change: Change,
    context: &Context,
    cancel: &CancellationToken,
) -> Result<()> {
    let taken = Taken::by(context, "rotate", Leftovers::Leave, cancel).await?;
    context.secrets()?;
    let intent = intent(context, change)?;
    let hosts = context.host_status().await?;
    let machines = hosts.complete(context)?;
    taken
        .run(async |run| {
            let rotation = Rotation { run, machines };
            rotation.carry_out(change, &intent).await
        })
        .await
}

/// What will happen; an error if the change is not possible.
fn intent(context: &Context, change: Change) -> Result<Intent> {
    let cluster = &context.inventory.cluster;
    match change {
        Change::Certs { .. } if !context.inventory.tls.enabled => Err(Error::new(
            Code::NotPossibleNow,
            format!("{cluster} has no certificates"),
        )
        .cause("TLS is off (tls.enabled: false)")),
        Change::Certs { prepare: true } => Ok(Intent::Trust),
        Change::Certs { prepare: false } => Ok(Intent::Certs),
        Change::Ssh { host_keys } => ssh::intent(context, host_keys),
        Change::Secrets { users } => {
            let (new, given) = context.workspace.renewable_secrets(users)?;
            if new.is_empty() {
                return Err(Error::new(
                    Code::NotPossibleNow,
                    "there is no password that pgherd can change",
                )
                .cause("all of them are set by secrets.file or by variables")
                .hint(format!(
                    "change them there, then: {}",
                    context.command("up")
                )));
            }
            Ok(Intent::Secrets { new, given, users })
        }
    }
}

/// The last stage that the workspace remembers. What follows is part of every `up`.
const END: &str = "end";

/// A change on running hosts.
struct Rotation<'a> {
    run: &'a Run<'a>,
    machines: &'a [Machine],
}

impl Rotation<'_> {
    async fn carry_out(&self, change: Change, intent: &Intent) -> Result<()> {
        let context = self.run.context;
        let workspace = &context.workspace;
        if matches!(change, Change::Certs { .. }) && lapse::note(context)?.is_some() {
            return self.lapsed().await;
        }
        let begun = match change {
            Change::Certs { .. } => workspace.authority_stage()?.is_some(),
            Change::Secrets { .. } => workspace.secrets_stage()?.is_some(),
            // After a leak, the change must not wait until the cluster is as it should be.
            Change::Ssh { .. } => true,
        };
        if begun {
            self.members_as_declared().await?;
        } else {
            self.nothing_pending().await?;
        }
        let question = Question::Rotate { context, intent };
        consent(context.operator.as_ref(), question).await?;
        match change {
            Change::Certs { prepare } => self.authority(prepare).await,
            Change::Secrets { users } => self.secrets(users).await,
            Change::Ssh { .. } => {
                let keys = SshKeys {
                    run: self.run,
                    machines: self.machines,
                };
                keys.rotate().await
            }
        }
    }

    /// If the authority is not valid, `up` replaces it, and there is nothing else to do.
    async fn lapsed(&self) -> Result<()> {
        authority::replace(self.run, self.machines).await?;
        self.converge(AuthorityStage::Issue.as_str()).await?;
        authority::complete(self.run, self.machines, Consent::Given).await
    }

    /// Refuses if a member would be left out and keep what is to be replaced.
    async fn members_as_declared(&self) -> Result<()> {
        self.on(async |connected| connected.look().await?.members_as_declared())
            .await
    }

    /// An error unless the cluster is as the inventory says: one change at a time.
    async fn nothing_pending(&self) -> Result<()> {
        let context = self.run.context;
        let plan = self
            .on(async |connected| {
                let observed = connected.look().await?.whole()?;
                let plan = observed.plan()?;
                connected.certificates_valid(&observed)?;
                Ok(plan)
            })
            .await?;
        // Every stage of a change reloads or restarts something.
        if plan.paused {
            return Err(plan::paused(&context.inventory));
        }
        if plan.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            Code::ClusterNotAsDeclared,
            "the cluster differs from the inventory, or is not healthy",
        )
        .cause(format!("{} would change", count(plan.changes(), "step")))
        .left("nothing was changed")
        .hint(format!("see: {}", context.command("plan")))
        .hint(format!("first correct that: {}", context.command("up"))))
    }

    async fn on<T>(&self, work: impl AsyncFnOnce(&Connected<'_>) -> Result<T>) -> Result<T> {
        let Run {
            context, events, ..
        } = self.run;
        context.on(self.machines, events, work).await
    }

    async fn authority(&self, prepare: bool) -> Result<()> {
        let workspace = &self.run.context.workspace;
        let begun = workspace.authority_stage()?;
        for stage in [
            AuthorityStage::Trust,
            AuthorityStage::Issue,
            AuthorityStage::Adopt,
        ] {
            if begun.is_some_and(|begun| stage < begun) {
                continue;
            }
            if begun != Some(stage) {
                workspace.advance_authority(stage)?;
            }
            self.converge(stage.as_str()).await?;
            if prepare && stage == AuthorityStage::Trust {
                return Ok(());
            }
        }
        workspace.end_authority()
    }

    async fn secrets(&self, users: bool) -> Result<()> {
        let workspace = &self.run.context.workspace;
        let begun = workspace.secrets_stage()?;
        for stage in [
            SecretsStage::Make,
            SecretsStage::Use,
            SecretsStage::Change,
            SecretsStage::Return,
        ] {
            if begun.is_some_and(|begun| stage < begun) {
                continue;
            }
            if begun != Some(stage) {
                workspace.advance_secrets(stage, users)?;
            }
            self.converge(stage.as_str()).await?;
        }
        workspace.end_secrets()?;
        self.converge(END).await
    }

    /// Brings the cluster to the workspace's stage, and verifies it.
    async fn converge(&self, stage: &'static str) -> Result<()> {
        let run = self.run;
        // This stage's secrets must be masked before anything can show them.
        run.context.secrets()?;
        run.events.emit(Event::Stage { stage });
        // Connects anew for each stage, because pgherd's own trust and certificate change with it.
        let settled = self.on(async |connected| {
            let cluster = settle(Verb::Up, connected, Consent::Given, run.cancel).await?;
            tokio::select! {
                seen = logins(connected, &cluster) => seen,
                () = run.cancel.cancelled() => Err(Error::interrupted()),
            }
        });
        settled.await.map_err(|error| {
            error.left(match stage {
                END => format!(
                    "every password is changed; to remove what is no longer needed: {}",
                    run.context.command("up")
                ),
                stage => format!(
                    "the change has reached its stage `{stage}`, in which the cluster can stay; the same command continues from there"
                ),
            })
        })
    }
}

/// Waits until every replica has logged in with the role of this stage. Patroni takes over another login in its
/// next loop. Only after that may the stage remove the old roles.
async fn logins(connected: &Connected<'_>, cluster: &Cluster) -> Result<()> {
    let wanted = match &cluster.secrets.interim {
        Some(interim) if interim.used => INTERIM_REPLICATION_USER,
        _ => REPLICATION_USER,
    };
    let members: Vec<&str> = cluster
        .with_role(Role::Postgres)
        .map(|node| node.name.as_str())
        .collect();
    let logged_in = poll::until(LOGIN, Duration::from_millis(300), || async {
        let survey = patroni::survey(&connected.http, cluster).await;
        let others = patroni::leader_of(&survey)
            .and_then(|leader| Some((leader, survey[leader].as_ref().ok()?)))
            .map(|(leader, status)| {
                let mut replicas = members.clone();
                replicas.retain(|name| *name != leader.as_str());
                elsewhere(&replicas, &status.replication, wanted)
            })
            .unwrap_or_default();
        match others.is_empty() {
            true => Ok(()),
            false => Err(others.join(", ")),
        }
    });
    logged_in.await.map_err(|over| {
        let (others, seconds) = (over.last, LOGIN.as_secs());
        Error::new(
            Code::RotationIncomplete,
            format!("{others} did not log in as {wanted} within {seconds} s"),
        )
    })
}

/// The replicas that are logged in with another role than `wanted`.
///
/// Other receivers of WAL are not waited for, such as a backup, or an intruder with a stolen password: they
/// could delay the change for ever. An intruder who uses a member's name does not delay it either.
fn elsewhere(replicas: &[&str], replication: &[Replication], wanted: &str) -> Vec<String> {
    let is_in = |name: &str, right: bool| {
        let mut of_name = replication.iter().filter(|it| it.application_name == name);
        of_name.any(|it| (it.usename == wanted) == right)
    };
    replicas
        .iter()
        .filter(|name| is_in(name, false) && !is_in(name, true))
        .map(|name| (*name).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_members_are_waited_for() {
        let login = |name: &str, role: &str| Replication {
            application_name: name.into(),
            usename: role.into(),
            ..Replication::default()
        };
        let new = INTERIM_REPLICATION_USER;
        let waited = |logins: &[(&str, &str)]| {
            let all: Vec<_> = logins
                .iter()
                .map(|(name, role)| login(name, role))
                .collect();
            elsewhere(&["node1", "node2"], &all, new)
        };
        assert_eq!(waited(&[("node2", REPLICATION_USER)]), ["node2"]);
        // The role is removed.
        assert_eq!(waited(&[("node2", "")]), ["node2"]);
        assert!(waited(&[("node2", new)]).is_empty());
        assert!(waited(&[]).is_empty());
        // A backup, and an intruder; also one with a member's name.
        for other in ["pg_receivewal", "node2"] {
            let all = [(other, REPLICATION_USER), ("node2", new)];
            assert!(waited(&all).is_empty(), "{other}");
        }
    }
}
