//! Replaces certificates, passwords or SSH keys while the cluster runs.
//!
//! Each stage is a cluster as it should be, which the same planning as that of `up` brings about; the
//! next one begins once the cluster is seen to hold in this one. The stages are the workspace's, so
//! that whatever cuts a run off, the next knows where to go on, and an `up` meanwhile undoes nothing.

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

/// How long a replica may take to log in anew; a loop of Patroni's, and a restart of its receiver.
const LOGIN: Duration = Duration::from_secs(90);

/// What is to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The authority and all certificates; with `prepare`, only up to where both authorities are trusted.
    Certs { prepare: bool },
    /// The passwords; with `users`, those of applications too.
    Secrets { users: bool },
    /// The SSH keys; with `host_keys`, those of hosts that pgherd did not make, too.
    Ssh { host_keys: bool },
}

/// What a change comes to on this cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Intent {
    Trust,
    Certs,
    Secrets {
        /// The passwords that change.
        new: Vec<String>,
        /// Those that somebody has given, and that stay.
        given: Vec<String>,
        users: bool,
    },
    /// pgherd's own key and those of the hosts, or of the hosts alone.
    Ssh {
        own: bool,
    },
}

/// Carries a change out, from the state in which the cluster is found to its end.
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

/// What is about to happen; an error if it cannot.
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

/// The stage after which nothing is kept in the workspace: all that is left is `up`'s to do as well.
const END: &str = "end";

/// One change on hosts that run.
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
            // A leak does not wait for a cluster that is as it should be.
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

    /// The authority is not valid: what `up` does about it is all that there is to do.
    async fn lapsed(&self) -> Result<()> {
        authority::replace(self.run, self.machines).await?;
        self.converge(AuthorityStage::Issue.as_str()).await?;
        authority::complete(self.run, self.machines, Consent::Given).await
    }

    /// Refuses where a member would be left out, and would keep what is to be replaced.
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

    /// Makes the cluster what the workspace now says, and sees that it holds.
    async fn converge(&self, stage: &'static str) -> Result<()> {
        let run = self.run;
        // Those of this stage are secret before anything can show them.
        run.context.secrets()?;
        run.events.emit(Event::Stage { stage });
        // Anew for each stage, since with it changes what pgherd itself trusts and shows.
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

/// Waits until every replica has logged in as the role that it should use now: Patroni takes another
/// login over within its next loop, and what the stage has made superfluous goes only after that.
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

/// The replicas that are logged in, and not as the role `wanted`.
///
/// Whoever else takes the WAL, a backup or somebody with a stolen password, is not waited for: he would
/// keep the passwords from changing. Nor does it help him to take a member's name.
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
        // The role is gone.
        assert_eq!(waited(&[("node2", "")]), ["node2"]);
        assert!(waited(&[("node2", new)]).is_empty());
        assert!(waited(&[]).is_empty());
        // A backup, and a thief, also under a member's name.
        for other in ["pg_receivewal", "node2"] {
            let all = [(other, REPLICATION_USER), ("node2", new)];
            assert!(waited(&all).is_empty(), "{other}");
        }
    }
}
