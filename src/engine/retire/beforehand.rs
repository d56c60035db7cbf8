//! What is asked and refused before any host leaves.

use super::{Agreed, Retirement, Role, Run};
use crate::{engine::ownership, error::Result, machine::Machine, plan::retire, provider::ID_LABEL};

/// Asks about the hosts that `up --remove` names, where others join before any of them leaves. Returns those that were
/// asked about.
pub(in crate::engine) async fn ask_before_others_join(run: &Run<'_>) -> Result<Agreed> {
    let context = run.context;
    let mut leaving = context.workspace.members()?;
    leaving.retain(|known| context.leaving.include(&known.name));
    for known in &mut leaving {
        let declared = context.inventory.hosts.get(&known.name);
        let keeps = |role: &Role| declared.is_some_and(|host| host.roles.contains(role));
        known.roles.retain(|role| !keeps(role));
    }
    let mut retirement = Retirement::of(run, &leaving, None).await?;
    let seen = retirement.look_first(run).await?;
    retire::refuse_too_few(&retirement.shrinking(&seen))?;
    retirement.ask(&seen, &Agreed::new()).await?;
    let hosts = retirement.leavers.into_iter().map(|it| it.host);
    Ok(hosts.collect())
}

impl Retirement {
    /// Refuses to stop or remove a machine without an id, unless its host says that it is this cluster's.
    pub(super) async fn refuse_strange(&self) -> Result<()> {
        if !self.wide.provider.owns_hosts() {
            return Ok(());
        }
        let goes = |machine: &&Machine| self.go().any(|it| it.host == machine.host);
        let mut unmarked: Vec<Machine> = self.machines.iter().filter(goes).cloned().collect();
        unmarked.retain(|machine| machine.cluster_id.is_none());
        if unmarked.is_empty() {
            return Ok(());
        }
        let ours = self.wide.secrets()?.cluster_id;
        let instead = format!(
            "if it is this cluster's: give its machine the tag {ID_LABEL} with the value {ours}, or remove it yourself, and run the same command again"
        );
        ownership::of_unmarked(&self.wide, &unmarked, &ours, &[instead]).await
    }
}
