//! What a drill that was killed has left broken: noticed, and put right.

use tokio_util::sync::CancellationToken;

use super::play::stage;
use crate::{
    cli::Global,
    drill::{Scenario, record::Limits},
    engine::{
        context::{self, Base},
        run::Session,
    },
    error::{Error, Result},
    event::Events,
    report::{self, Expected, Terminal},
    workspace::{Broken, BrokenHost, BrokenNote},
};

/// `pgherd drill --repair`.
pub(crate) async fn run(
    global: &Global,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let base = Base::there(global).await?;
    let _lock = base.lock("drill")?;
    terminal.conceal(base.workspace.secrets()?.values());
    match base.workspace.left_broken()? {
        Some((broken, note)) => mend(&base, &broken, note, terminal, cancel).await,
        None => {
            terminal.say("nothing is broken: no drill was killed here");
            Ok(())
        }
    }
}

/// Says, in verbs that only look, what a drill has left.
pub(crate) fn notice(base: &Base, terminal: &Terminal) -> Result<()> {
    if let Some((broken, _)) = base.workspace.left_broken()? {
        terminal.say(&format!(
            "note: {}\n      put it right: {}",
            describe(&broken),
            context::typed(&base.inventory.path, "drill --repair")
        ));
    }
    Ok(())
}

/// Offers, in verbs that change something, to put right what a drill has left before they begin.
pub(crate) async fn offer(
    base: &Base,
    yes: bool,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let Some((broken, note)) = base.workspace.left_broken()? else {
        return Ok(());
    };
    terminal.say(&format!("note: {}", describe(&broken)));
    if !yes && !report::confirm(terminal, "Put that right first?", Expected::Yes).await? {
        return Ok(());
    }
    mend(base, &broken, note, terminal, cancel).await
}

/// Puts it right, and returns once the cluster is whole.
pub(crate) async fn mend(
    base: &Base,
    broken: &Broken,
    note: BrokenNote,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let session = Session::begin(base, "drill", terminal.for_people(), Vec::new())?;
    terminal.say(&format!("putting right: {}", describe(broken)));
    let mended = put_right(
        base,
        broken,
        note,
        &session.events,
        session.folder.clone(),
        cancel,
    )
    .await;
    session.end(&mended).await;
    mended
}

async fn put_right(
    base: &Base,
    broken: &Broken,
    note: BrokenNote,
    events: &Events,
    folder: std::path::PathBuf,
    cancel: &CancellationToken,
) -> Result<()> {
    // Whoever plays a drill elsewhere with a copy of the note is at work, and was not killed.
    base.claim(&base.outlook().await?.running).await?;
    // The hosts first: only then can anybody be asked anything.
    for machine in broken.hosts.iter().map(BrokenHost::machine) {
        match broken.scenario {
            Scenario::CrashHost => base.provider.revive(&machine).await?,
            Scenario::IsolateLeader => base.provider.rejoin(&machine).await?,
            _ => {}
        }
    }
    let outlook = base.outlook().await?;
    let site = base
        .connect(outlook.complete(&base.inventory)?, events)
        .await?;
    let limits = Limits {
        max_outage: None,
        max_lost: 0,
    };
    let mended = async {
        let sight = site.look().await?;
        stage(&site, sight.cluster, folder, limits, cancel)
            .mend(broken, note)
            .await
    }
    .await;
    site.close().await;
    mended.map_err(|error: Error| error.hint("see what is wrong: pgherd status"))
}

fn describe(broken: &Broken) -> String {
    let hosts: Vec<&str> = broken.hosts.iter().map(|host| host.name.as_str()).collect();
    format!(
        "the drill {} was killed at its work on {}, since {}",
        broken.scenario,
        hosts.join(", "),
        broken.since.strftime("%Y-%m-%d %H:%M:%S UTC")
    )
}
