//! A drill with the checks before and after it, and the repair after a drill that was killed.

use super::{connected::Connected, run::Run};
use crate::{
    cluster::Cluster,
    drill::{Crew, Runner, Tools, record::Limits},
};
use std::sync::Arc;

pub(crate) mod play;
pub(crate) mod repair;
pub(crate) mod watch;

/// What all drills of a run share.
pub(super) fn runner<'a>(
    run: &Run<'_>,
    connected: &'a Connected<'_>,
    cluster: Arc<Cluster>,
    limits: Limits,
) -> Runner<'a> {
    Runner {
        tools: Tools {
            cluster,
            remote: connected.remote.clone(),
            http: connected.http.clone(),
            tls: connected.tls.clone(),
            provider: connected.context.provider.as_ref(),
        },
        workspace: &connected.context.workspace,
        machines: &connected.machines,
        events: connected.events.clone(),
        folder: run.folder.clone(),
        limits,
        crew: Crew::default(),
        lag: None,
        cancel: run.cancel.clone(),
    }
}
