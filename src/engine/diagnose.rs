//! Collects what somebody needs who looks into a fault and cannot reach the hosts. It changes nothing.

use std::time::Duration;

use futures_util::future::join_all;

use super::{connected::Connected, context::Context, observe::Observed};
use crate::{
    error::{Error, Result},
    event::Events,
    facts,
    inventory::HostName,
    mask,
    render::Visibility,
};

/// How long a host may take for all that it tells.
const ANSWER: Duration = Duration::from_secs(120);

/// Texts, each with its path, and why others are not there.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub texts: Vec<(String, String)>,
    pub missing: Vec<String>,
}

impl Collected {
    pub(crate) fn add(&mut self, path: impl Into<String>, text: impl Into<String>) {
        self.texts.push((path.into(), text.into()));
    }

    /// Adds the text, or why it is not there.
    pub(crate) fn take(&mut self, path: &str, text: Result<String>) {
        match text {
            Ok(text) => self.add(path, text),
            Err(error) => self.lacks(path, &error),
        }
    }

    pub(crate) fn lacks(&mut self, path: &str, error: &Error) {
        self.missing.push(format!("{path}: {error}"));
    }
}

/// What the hosts that run have and say. What fails on one host does not keep the others from telling.
pub(crate) async fn of_hosts(context: &Context, collected: &mut Collected) {
    let hosts = match context.host_status().await {
        Ok(hosts) => hosts,
        Err(error) => return collected.lacks("hosts", &error),
    };
    for host in hosts.absent() {
        collected
            .missing
            .push(format!("hosts/{host}: it does not run"));
    }
    if hosts.running.is_empty() {
        return;
    }
    let (events, _quiet) = Events::channel();
    let told = context
        .on_some(&hosts.running, &hosts.stopped, &events, async |connected| {
            let machines = connected.machines.iter();
            let told = machines.map(async |it| (it.host.clone(), connected.told(&it.host).await));
            Ok((join_all(told).await, connected.look().await))
        })
        .await;
    let (told, observed) = match told {
        Ok(told) => told,
        Err(error) => return collected.lacks("hosts", &error),
    };
    for (host, told) in told {
        for (name, text) in told {
            collected.take(&format!("hosts/{host}/{name}"), text);
        }
    }
    match observed {
        Ok(observed) => configs(&observed, collected),
        Err(error) => collected.lacks("hosts/*/files", &error),
    }
}

/// The files of pgherd that are on the hosts, without passwords; files with keys are left out.
fn configs(observed: &Observed, collected: &mut Collected) {
    let secrets = &observed.cluster.secrets;
    for (host, files) in &observed.files {
        let Some(facts) = observed.found.facts.get(host) else {
            continue;
        };
        for file in files {
            let there = facts.files.get(&file.path);
            let text = there.and_then(|there| match file.visibility {
                Visibility::Public | Visibility::Masked => {
                    Some(mask::file(&there.content, secrets))
                }
                Visibility::Hidden => None,
            });
            if let Some(text) = text {
                collected.add(format!("hosts/{host}/files{}", file.path), text);
            }
        }
    }
    for error in &observed.unreachable {
        collected.lacks("hosts", error);
    }
}

impl Connected<'_> {
    /// What a host says of its state, and its units' journal.
    async fn told(&self, host: &HostName) -> [(&'static str, Result<String>); 2] {
        let roles = &self.context.inventory.hosts[host].roles;
        let units: Vec<&str> = roles.iter().map(|role| role.unit()).collect();
        let (state, journal) = (facts::diagnosis(&units), facts::journal(&units));
        let quiet = |_, _: &str| {};
        let run = async |script| {
            let said = self.remote.run(host, script, ANSWER, &quiet).await?;
            Ok(said.stdout + &said.stderr)
        };
        let (state, journal) = tokio::join!(run(&state), run(&journal));
        [("state.txt", state), ("journal.txt", journal)]
    }
}
