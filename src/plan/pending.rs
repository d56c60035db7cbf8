//! What a unit has not loaded yet, as noted on its host.

use crate::{
    inventory::Role,
    remote::{PENDING, Script},
    render::Effect,
};

/// Notes on the host what its unit still has to do, before any change that needs it. If the run is interrupted
/// in between, the next one knows. The unit's own step removes the note.
pub(super) fn note_pending(script: Script, role: Role, effect: Effect) -> Script {
    let note = match effect {
        Effect::Restart => "restart",
        Effect::RestartPatroniAlone => "exchange",
        Effect::Reload => "reload",
        Effect::Nothing => return script,
    };
    script
        .pending()
        .line(format!("echo {note} >{PENDING}/{}", role.unit()))
}
