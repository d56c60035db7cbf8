//! The command line: which verbs there are, and what each runs.

use tokio_util::sync::CancellationToken;

pub use self::{
    args::{Cli, Global, Image, Rotate, State, Verb},
    mistyped::parse,
};
use crate::{
    engine::{apply::Verb as Applying, operate::Operation, psql::Entrance, remove},
    error::{Code, Error, Result},
    inventory,
    report::Terminal,
};

mod adopt;
mod apply;
mod args;
mod backup;
mod certificates;
mod clone;
mod connect;
mod console;
mod diagnose;
mod down;
mod drill;
mod endpoint;
mod history;
mod image;
mod init;
mod keys;
mod manual;
mod mistyped;
mod operate;
mod operator;
mod plan;
mod psql;
mod reboot;
mod recover;
mod render;
mod replace;
mod report;
mod restore;
mod retire;
mod rotate;
mod state;
mod status;
mod switchover;
mod targets;
mod update;
mod upgrade;
mod verify;
mod watch;

/// The warning that every verb shows while `tls` is off.
const PLAINTEXT: &str =
    "! TLS is off (tls.enabled: false): everything except passwords is sent in plaintext";

/// Runs the verb of the command line. Returns the exit code of a verb that succeeded.
pub async fn run(cli: Cli, terminal: &Terminal, cancel: &CancellationToken) -> Result<u8> {
    let global = &cli.global;
    let options = inventory::options(&global.inventory, global.templates.as_deref());
    let done = verb(cli, terminal, cancel).await;
    done.map_err(|error| match options {
        Some(options) => error.with_options(&options),
        None => error,
    })
}

#[expect(clippy::too_many_lines, reason = "an arm for each verb")]
async fn verb(cli: Cli, terminal: &Terminal, cancel: &CancellationToken) -> Result<u8> {
    let global = &cli.global;
    match cli.verb {
        Verb::Init { provider, output } => {
            let output = output.as_deref().unwrap_or(&global.inventory);
            init::run(provider, output, global.templates.as_deref(), terminal)?;
        }
        Verb::Plan { check } => plan::run(global, check, terminal).await?,
        Verb::Up { yes, remove } => {
            let wish = apply::Wish { yes, remove };
            apply::run(Applying::Up, global, wish, terminal, cancel).await?;
        }
        Verb::Replace {
            host,
            new_volume,
            yes,
        } => replace::run(global, &host, (new_volume, yes), terminal, cancel).await?,
        Verb::Render {
            dry_run,
            out,
            check,
            yes,
        } => match (out, dry_run || check) {
            (Some(dir), _) => render::out(global, &dir, terminal).await?,
            (None, true) => render::compare(global, check, terminal).await?,
            (None, false) => {
                let wish = apply::Wish::answering(yes);
                apply::run(Applying::Render, global, wish, terminal, cancel).await?;
            }
        },
        Verb::Status { watch: true, .. } => watch::run(global, terminal, cancel).await?,
        Verb::Status { check, .. } => return status::run(global, check, terminal).await,
        Verb::Verify => verify::run(global, terminal).await?,
        Verb::Switchover { to, yes } => {
            switchover::run(global, to.as_deref(), yes, terminal, cancel).await?;
        }
        Verb::Pause { yes } => {
            operate::run(&Operation::Pause, global, yes, terminal, cancel).await?;
        }
        Verb::Resume { yes } => {
            operate::run(&Operation::Resume, global, yes, terminal, cancel).await?;
        }
        Verb::Reinit { host, yes } => {
            operate::run(&Operation::Reinit(host), global, yes, terminal, cancel).await?;
        }
        Verb::Restart { host, pending, yes } => {
            let operation = Operation::Restart { host, pending };
            operate::run(&operation, global, yes, terminal, cancel).await?;
        }
        Verb::Update(wish) => update::run(global, wish, terminal, cancel).await?,
        Verb::Reboot(wish) => reboot::run(global, wish, terminal, cancel).await?,
        Verb::Failover { to, force, yes } => {
            let operation = Operation::Failover { to, force };
            operate::run(&operation, global, yes, terminal, cancel).await?;
        }
        Verb::Drill(wish) => drill::run(global, &wish, terminal, cancel).await?,
        Verb::Rotate { what } => rotate::run(global, what, terminal, cancel).await?,
        Verb::Image { what } => image::run(global, &what, terminal, cancel).await?,
        Verb::Backup {
            full,
            incremental,
            only,
        } => {
            let wish = (full, incremental, only.as_deref());
            backup::run(global, wish, terminal, cancel).await?;
        }
        Verb::Backups => backup::list(global, terminal).await?,
        Verb::Rehearse { at, from } => {
            backup::rehearse(global, (&at, from.as_deref()), terminal, cancel).await?;
        }
        Verb::Restore(wish) => restore::run(global, wish, terminal, cancel).await?,
        Verb::Upgrade(wish) => upgrade::run(global, &wish, terminal, cancel).await?,
        Verb::Ssh {
            host: Some(host),
            command,
            ..
        } => return connect::ssh(global, &host, &command, terminal).await,
        Verb::Ssh { host: None, .. } => connect::close(global, terminal).await?,
        Verb::Psql { read, pooled, args } => {
            return psql::run(global, &Entrance::of(pooled, read), &args, terminal).await;
        }
        Verb::Targets(arguments) => targets::run(global, arguments, terminal).await?,
        Verb::Connect(arguments) => endpoint::run(global, arguments, terminal).await?,
        Verb::Logs {
            host,
            unit,
            follow,
            lines,
        } => {
            let unit = unit.as_deref();
            return connect::logs(global, &host, unit, follow, lines, terminal).await;
        }
        Verb::Down {
            yes,
            keep_secrets,
            with_backups,
            with_bucket,
            cluster_id,
        } => {
            let request = remove::Request {
                keep_secrets,
                // They are in the bucket.
                with_backups: with_backups || with_bucket.is_some(),
                with_bucket: with_bucket.as_deref(),
                cluster_id: cluster_id.as_deref(),
            };
            down::run(global, request, yes, terminal, cancel).await?;
        }
        Verb::State { what } => state::run(global, what, terminal).await?,
        Verb::History { limit } => history::run(global, limit, terminal).await?,
        Verb::Adopt {
            yes,
            trust_host_keys,
        } => adopt::run(global, yes, trust_host_keys, terminal, cancel).await?,
        Verb::Recover { trust_host_keys } => {
            recover::run(global, trust_host_keys, terminal, cancel).await?;
        }
        Verb::Diagnose { output } => diagnose::run(global, output, terminal).await?,
        Verb::Report { list: true, .. } => report::list(global, terminal)?,
        Verb::Report { run, text, .. } => report::run(global, run.as_deref(), text, terminal)?,
        Verb::Schema => terminal.print(&init::schema()),
        Verb::Completions { shell } => completions(shell, terminal),
        Verb::Man => man(terminal)?,
    }
    Ok(0)
}

fn completions(shell: clap_complete::Shell, terminal: &Terminal) {
    let mut script = Vec::new();
    let mut command = <Cli as clap::CommandFactory>::command();
    clap_complete::generate(shell, &mut command, "pgherd", &mut script);
    terminal.print(&String::from_utf8_lossy(&script));
}

fn man(terminal: &Terminal) -> Result<()> {
    let command = <Cli as clap::CommandFactory>::command();
    let page = manual::page(&command).map_err(|error| {
        Error::new(Code::LocalSystemFailed, "cannot make the manual page").because(error)
    })?;
    terminal.print(&page);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::VERBS;

    #[test]
    fn hints_know_which_verbs_take_an_inventory() {
        let command = <Cli as clap::CommandFactory>::command();
        let verbs = command.get_subcommands().map(clap::Command::get_name);
        let none = ["init", "schema", "completions", "man", "help"];
        let mut verbs: Vec<&str> = verbs.filter(|verb| !none.contains(verb)).collect();
        let mut known = VERBS.to_vec();
        verbs.sort_unstable();
        known.sort_unstable();
        assert_eq!(known, verbs);
    }
}
