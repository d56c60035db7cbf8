//! `pgherd rotate`: other certificates or passwords, while the cluster runs.
//!
//! Each stage is a cluster as it should be, which the same planning as that of `up` brings about; the
//! next one begins once the cluster is seen to hold in this one. The stages are the workspace's, so
//! that whatever cuts a run off, the next knows where to go on, and an `up` meanwhile undoes nothing.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

mod ssh;

use self::ssh::SshTurn;
use super::{
    apply::{self, Asker, Verb},
    authority,
    context::{Base, Site, typed},
    run::Session,
    tls_migration,
};
use crate::{
    cli::{Global, Rotate},
    cluster::{Cluster, INTERIM_REPLICATION_USER, REPLICATION_USER},
    error::{Error, Kind, Result},
    event::{Event, Events},
    inventory::Role,
    patroni::{self, Replication},
    plan,
    provider::Machine,
    report::{self, Expected, Summary, Terminal},
    workspace::{AuthorityStage, SecretsStage, SshStage},
};

/// How long a replica may take to log in anew; a loop of Patroni's, and a restart of its receiver.
const LOGIN: Duration = Duration::from_secs(90);

pub(crate) async fn run(
    global: &Global,
    what: Rotate,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let base = Base::there(global).await?;
    let _lock = base.lock("rotate")?;
    terminal.conceal(base.workspace.secrets()?.values());
    let intent = intent(&base, what)?;
    let outlook = base.outlook().await?;
    let machines = outlook.complete(&base.inventory)?;
    let session = Session::begin(&base, "rotate", terminal.clone(), base.hosts())?;
    let (Rotate::Certs { yes, .. } | Rotate::Secrets { yes, .. } | Rotate::Ssh { yes, .. }) = what;
    let turn = Turn {
        base: &base,
        machines,
        asker: Asker {
            verb: Verb::Up,
            terminal,
            reporter: &session.reporter,
            yes: true,
        },
        events: &session.events,
        cancel,
    };
    let result = turn.rotate(what, &intent, yes).await;
    let run = session.end(&result).await;
    let endpoints = match (&result, what) {
        (Err(_), _) => Vec::new(),
        (Ok(()), Rotate::Certs { .. }) => {
            vec![("authority", base.workspace.ca_path().display().to_string())]
        }
        (Ok(()), Rotate::Ssh { .. }) => Vec::new(),
        (Ok(()), Rotate::Secrets { .. }) => {
            let secrets = base.inventory.workspace_dir().join("secrets.yaml");
            vec![("passwords", secrets.display().to_string())]
        }
    };
    let summary = Summary {
        settled: "nothing had to change",
        endpoints: &endpoints,
    };
    report::print_summary(terminal, &run, &summary);
    if result.is_ok() {
        terminal.say(&conclusion(&base, what)?);
    }
    result
}

/// What is about to happen, in words; an error if it cannot.
fn intent(base: &Base, what: Rotate) -> Result<String> {
    let cluster = &base.inventory.cluster;
    match what {
        Rotate::Certs { .. } if !base.inventory.tls.enabled => {
            Err(Error::input(format!("{cluster} has no certificates"))
                .cause("TLS is off (tls.enabled: false)"))
        }
        Rotate::Certs { prepare: true, .. } => Ok(format!(
            "{cluster} gets a new authority, which all hosts trust beside the old one; certificates stay"
        )),
        Rotate::Certs { .. } => Ok(format!(
            "{cluster} gets a new authority, and every host a new key and certificate; clients that verify \
             need the new pki/ca.crt"
        )),
        Rotate::Ssh { host_keys, .. } => ssh::intent(base, host_keys),
        Rotate::Secrets { users, .. } => {
            let (ours, given) = base.workspace.renewable_secrets(users)?;
            if ours.is_empty() {
                return Err(Error::input("there is no password that pgherd may change")
                    .cause("all of them are given by secrets.file or by variables")
                    .hint(format!(
                        "change them there, then: {}",
                        typed(&base.inventory.path, "up")
                    )));
            }
            let mut text = format!("new passwords: {}", ours.join(", "));
            if !given.is_empty() {
                text.push_str(&format!(
                    "\nleft as they are, since you give them: {}",
                    given.join(", ")
                ));
            }
            if !users && !base.inventory.postgresql.users.is_empty() {
                text.push_str("\nthe users of applications keep theirs (--users changes them too)");
            }
            Ok(text)
        }
    }
}

/// What is left for a person to do.
fn conclusion(base: &Base, what: Rotate) -> Result<String> {
    Ok(match what {
        Rotate::Certs { .. } if base.workspace.authority_stage()?.is_some() => format!(
            "both authorities are trusted; give pki/ca.crt to the clients, then: {}",
            typed(&base.inventory.path, "rotate certs")
        ),
        Rotate::Certs { .. } => "the old authority is gone; nobody trusts it any more".to_owned(),
        Rotate::Ssh { .. } => {
            "every host was seen to let in the right key alone, and to show a new key of its own"
                .to_owned()
        }
        Rotate::Secrets { .. } => {
            "the passwords are new, and in .pgherd alone: give them to whoever needs them"
                .to_owned()
        }
    })
}

/// Says which change of certificates, passwords or TLS was begun and not completed.
pub(crate) fn say_unfinished(base: &Base, terminal: &Terminal) -> Result<()> {
    let authority = base.workspace.authority_stage()?;
    let secrets = base.workspace.secrets_stage()?;
    let ssh = base.workspace.ssh_stage()?;
    if let Some(tls) = base.workspace.tls_stage()? {
        let stage = tls_migration::note(tls, &base.inventory).unwrap_or_default();
        terminal.say(&format!(
            "note: {stage}; complete it: {}",
            typed(&base.inventory.path, "up")
        ));
    }
    for (what, verb, stage) in [
        (
            "authority",
            "rotate certs",
            authority.map(AuthorityStage::as_str),
        ),
        (
            "passwords",
            "rotate secrets",
            secrets.map(SecretsStage::as_str),
        ),
        ("SSH keys", "rotate ssh", ssh.map(SshStage::as_str)),
    ] {
        if let Some(stage) = stage {
            terminal.say(&format!(
                "note: a change of the {what} is under way (stage `{stage}`); complete it: {}",
                typed(&base.inventory.path, verb)
            ));
        }
    }
    Ok(())
}

/// One change, from the state in which the cluster is found to its end.
struct Turn<'a> {
    base: &'a Base,
    machines: &'a [Machine],
    asker: Asker<'a>,
    events: &'a Events,
    cancel: &'a CancellationToken,
}

impl Turn<'_> {
    async fn rotate(&self, what: Rotate, intent: &str, yes: bool) -> Result<()> {
        let workspace = &self.base.workspace;
        if matches!(what, Rotate::Certs { .. }) && authority::note(self.base)?.is_some() {
            let asker = Asker { yes, ..self.asker };
            return self.lapsed(&asker).await;
        }
        let begun = match what {
            Rotate::Certs { .. } => workspace.authority_stage()?.is_some(),
            Rotate::Secrets { .. } => workspace.secrets_stage()?.is_some(),
            // A leak does not wait for a cluster that is as it should be.
            Rotate::Ssh { .. } => true,
        };
        if begun {
            self.members_as_declared().await?;
        } else {
            self.nothing_pending().await?;
        }
        self.ask(intent, yes).await?;
        match what {
            Rotate::Certs { prepare, .. } => self.authority(prepare).await,
            Rotate::Secrets { users, .. } => self.secrets(users).await,
            Rotate::Ssh { .. } => {
                let turn = SshTurn {
                    base: self.base,
                    machines: self.machines,
                    events: self.events,
                    cancel: self.cancel,
                };
                turn.rotate().await
            }
        }
    }

    /// The authority is not valid: what `up` does about it is all that there is to do.
    async fn lapsed(&self, asker: &Asker<'_>) -> Result<()> {
        let (base, machines) = (self.base, self.machines);
        authority::replace(base, machines, asker, self.events, self.cancel).await?;
        self.converge(AuthorityStage::Issue.as_str()).await?;
        authority::complete(base, machines, &self.asker, self.events, self.cancel).await
    }

    /// Refuses where a member would be left out, and would keep what is to be replaced.
    async fn members_as_declared(&self) -> Result<()> {
        let site = self.base.connect(self.machines, self.events).await?;
        let sight = site.look().await;
        site.close().await;
        sight?.members_as_declared()
    }

    /// An error unless the cluster is as the inventory says: one change at a time.
    async fn nothing_pending(&self) -> Result<()> {
        let site = self.base.connect(self.machines, self.events).await?;
        let plan = match site.look().await {
            Ok(sight) => sight.whole().and_then(|sight| {
                let plan = sight.plan()?;
                site.certificates_valid(&sight)?;
                // Every stage of a change reloads or restarts something.
                if plan.paused {
                    return Err(plan::paused(&self.base.inventory));
                }
                Ok(plan)
            }),
            Err(error) => Err(error),
        };
        site.close().await;
        let plan = plan?;
        if plan.is_empty() {
            return Ok(());
        }
        Err(
            Error::failed("the cluster is not as the inventory says, or not as it should be")
                .cause(format!(
                    "{} would change",
                    report::count(plan.changes(), "step")
                ))
                .left("nothing was changed")
                .hint(format!("see: {}", typed(&self.base.inventory.path, "plan")))
                .hint(format!(
                    "first make it so: {}",
                    typed(&self.base.inventory.path, "up")
                )),
        )
    }

    async fn ask(&self, intent: &str, yes: bool) -> Result<()> {
        if yes {
            return Ok(());
        }
        let agreed = self
            .asker
            .reporter
            .aside(async {
                self.asker.terminal.explain(intent);
                report::confirm(self.asker.terminal, "Do this?", Expected::Yes).await
            })
            .await?;
        if agreed {
            Ok(())
        } else {
            Err(Error::new(Kind::Interrupted, "not confirmed").left("nothing was changed"))
        }
    }

    async fn authority(&self, prepare: bool) -> Result<()> {
        let workspace = &self.base.workspace;
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
        let workspace = &self.base.workspace;
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
        self.converge("end").await
    }

    /// Makes the cluster what the workspace now says, and sees that it holds.
    async fn converge(&self, stage: &'static str) -> Result<()> {
        self.asker
            .terminal
            .conceal(self.base.workspace.secrets()?.values());
        self.events.emit(Event::Stage { stage });
        // Anew for each stage, since with it changes what pgherd itself trusts and shows.
        let site = self.base.connect(self.machines, self.events).await?;
        let settled = async {
            let cluster = apply::settle(&site, &self.asker, true, self.cancel).await?;
            tokio::select! {
                seen = logins(&site, &cluster) => seen,
                () = self.cancel.cancelled() => Err(Error::interrupted()),
            }
        }
        .await;
        site.close().await;
        settled.map_err(|error| {
            error.left(format!(
                "the change has come to its stage `{stage}`, in which the cluster can stay; the same \
                 command goes on from there"
            ))
        })
    }
}

/// Waits until every replica has logged in as the role that it should use now: Patroni takes another
/// login over within its next loop, and what the stage has made superfluous goes only after that.
async fn logins(site: &Site<'_>, cluster: &Cluster) -> Result<()> {
    let wanted = match &cluster.secrets.interim {
        Some(interim) if interim.used => INTERIM_REPLICATION_USER,
        _ => REPLICATION_USER,
    };
    let members: Vec<&str> = cluster
        .with_role(Role::Postgres)
        .map(|node| node.name.as_str())
        .collect();
    let deadline = Instant::now() + LOGIN;
    loop {
        let survey = patroni::survey(&site.http, cluster).await;
        let others = patroni::leader_of(&survey)
            .and_then(|leader| Some((leader, survey[leader].as_ref().ok()?)))
            .map(|(leader, status)| {
                let mut replicas = members.clone();
                replicas.retain(|name| *name != leader.as_str());
                elsewhere(&replicas, &status.replication, wanted)
            })
            .unwrap_or_default();
        if others.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Error::failed(format!(
                "{} did not log in as {wanted} within {} s",
                others.join(", "),
                LOGIN.as_secs()
            )));
        }
        sleep(Duration::from_millis(300)).await;
    }
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
