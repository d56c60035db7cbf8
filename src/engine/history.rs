//! `history`: who changed the cluster, as the hosts remember it.

use std::time::Duration;

use super::context::Context;
use crate::{
    error::{Error, Result},
    facts,
    history::{self, HISTORY, Told},
    inventory::HostName,
    remote::Output,
};

/// How long a host may take to answer.
const ASK: Duration = Duration::from_secs(30);

/// The runs of a cluster, the newest first.
pub(crate) struct History {
    pub runs: Vec<Told>,
    /// The run that is at work now.
    pub at_work: Option<String>,
    /// Hosts that could not be asked, and why.
    pub silent: Vec<Error>,
}

/// Asks every host that runs; an error if none answers.
pub(crate) async fn look(context: &Context) -> Result<History> {
    let hosts = context.host_status().await?;
    let machines = hosts.some(context)?;
    context.workspace.pin_host_keys(machines)?;
    // Root alone may read it.
    let script = facts::lease().line(format!("cat {HISTORY} 2>/dev/null || true"));
    let answers = context.each(machines, &script, ASK).await?;
    let mut told: Vec<(&HostName, Output)> = Vec::new();
    let mut silent = Vec::new();
    for (machine, answer) in machines.iter().zip(answers) {
        match answer {
            Ok(output) => told.push((&machine.host, output)),
            Err(error) => silent.push(error),
        }
    }
    if told.is_empty() {
        return Err(match silent.len() {
            1 => silent.remove(0),
            _ => Error::several("no host can be asked", silent),
        });
    }
    let lines = told
        .iter()
        .flat_map(|(host, output)| output.stdout.lines().map(|line| (*host, line)));
    let mut tenants = told.iter().filter_map(|(_, it)| facts::leased(&it.stdout));
    Ok(History {
        runs: history::merged(lines),
        at_work: tenants.next().map(|tenant| tenant.holder.run),
        silent,
    })
}
