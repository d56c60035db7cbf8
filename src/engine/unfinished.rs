//! Changes in several stages that have begun and are not complete.

use super::{context::Context, restore::under_way, tls_migration, upgrade};
use crate::{
    error::Result,
    quantity::count,
    workspace::{AuthorityStage, SecretsStage, SshStage},
};

/// One line if the key of the certificate authority is lost, as after `recover`.
pub(crate) fn lost_key(context: &Context) -> Result<Option<String>> {
    if !context.workspace.authority_key_is_lost()? {
        return Ok(None);
    }
    let rotate = context.command("rotate certs");
    Ok(Some(format!(
        "note: the key of the certificate authority is lost, so no certificate can be issued; make a new authority: {rotate}"
    )))
}

/// One line for each incomplete change of certificates, passwords, SSH keys or TLS.
pub(crate) fn notes(context: &Context) -> Result<Vec<String>> {
    let workspace = &context.workspace;
    let mut notes = Vec::new();
    if let Some(tls) = workspace.tls_stage()? {
        let stage = tls_migration::note(tls, &context.inventory).unwrap_or_default();
        let up = context.command("up");
        notes.push(format!("note: {stage}; complete it: {up}"));
    }
    if let Some(restoring) = workspace.restoring()? {
        notes.push(under_way::note(context, &restoring));
    }
    notes.extend(upgrade::note(context)?);
    notes.extend(lost_key(context)?);
    if let Some(rebooting) = workspace.rebooting()? {
        notes.push(format!(
            "note: a reboot of {}, begun {}, is not complete; go on: {}",
            count(rebooting.hosts.len(), "host"),
            rebooting.since,
            context.command("reboot")
        ));
    }
    let authority = workspace.authority_stage()?.map(AuthorityStage::as_str);
    let secrets = workspace.secrets_stage()?.map(SecretsStage::as_str);
    let ssh = workspace.ssh_stage()?.map(SshStage::as_str);
    for (what, verb, stage) in [
        ("authority", "rotate certs", authority),
        ("passwords", "rotate secrets", secrets),
        ("SSH keys", "rotate ssh", ssh),
    ] {
        if let Some(stage) = stage {
            notes.push(format!(
                "note: a change of the {what} is under way (stage `{stage}`); complete it: {}",
                context.command(verb)
            ));
        }
    }
    Ok(notes)
}
