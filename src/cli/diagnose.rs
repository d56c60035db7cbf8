//! `pgherd diagnose`: one file for a ticket.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::json;

use super::{Global, console::Console, plan, status};
use crate::{
    engine::{
        context::Context,
        diagnose::{self, Collected},
        preview::Preview,
        prove, status as states,
    },
    error::{Code, Error, Result},
    mask,
    quantity::{bytes, count},
    report::Terminal,
    workspace::Workspace,
};

/// How many of the latest runs are taken along.
const RUNS: usize = 5;
/// The history of a run, which was masked when it was written.
const EVENTS: &str = "events.jsonl";

pub(super) async fn run(
    global: &Global,
    output: Option<PathBuf>,
    terminal: &Terminal,
) -> Result<()> {
    let context = global.existing(&Console::new(terminal, false)).await?;
    // From now on the passwords are masked.
    let secrets = context.secrets()?;
    let now = jiff::Timestamp::now();
    let cluster = &context.inventory.cluster;
    let path = output.unwrap_or_else(|| {
        format!(
            "pgherd-{cluster}-{}.tar",
            now.strftime("%Y-%m-%dT%H-%M-%SZ")
        )
        .into()
    });
    let mut collected = Collected::default();
    collected.add(
        "pgherd.txt",
        format!("pgherd {}\nat {now}\n", env!("CARGO_PKG_VERSION")),
    );
    match context.inventory.text() {
        Ok(text) => collected.add("inventory.yaml", mask::file(&text, &secrets)),
        Err(error) => collected.missing.push(format!("inventory.yaml: {error}")),
    }
    collected.take("status.json", of_status(&context).await);
    collected.take("plan.txt", of_plan(&context, terminal).await);
    let proof = prove::now(&context).await;
    collected.take("verify.json", proof.and_then(|proof| pretty(&proof)));
    diagnose::of_hosts(&context, &mut collected).await;
    runs(&context, &mut collected);
    if !collected.missing.is_empty() {
        let missing = collected.missing.join("\n");
        collected.add("missing.txt", format!("{missing}\n"));
    }
    let size = write(&path, &collected, terminal)?;
    if terminal.json {
        terminal.print_json(&json!({
            "archive": path.display().to_string(),
            "files": collected.texts.len(),
            "bytes": size,
            "missing": collected.missing,
        }));
        return Ok(());
    }
    for missing in &collected.missing {
        terminal.say(&format!("missing: {missing}"));
    }
    terminal.say(&format!(
        "{} of {}; passwords and keys are masked, but names, addresses and statements in logs are not: look through it \
         before you send it",
        count(collected.texts.len(), "file"),
        bytes(size),
    ));
    terminal.print(&path.display().to_string());
    Ok(())
}

async fn of_status(context: &Context) -> Result<String> {
    let hosts = context.host_status().await?;
    let status = states::look(context, &hosts).await?;
    pretty(&status::whole(&status, context, &hosts).await)
}

/// What `up` would change shows what differs from the inventory.
async fn of_plan(context: &Context, terminal: &Terminal) -> Result<String> {
    let preview = Preview::of_all(context).await?;
    Ok(plan::text(context, &preview, terminal))
}

fn pretty(value: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(value)
        .map_err(|error| Error::new(Code::InternalError, "it is no JSON").because(error))
}

fn runs(context: &Context, collected: &mut Collected) {
    let runs = match Workspace::kept_runs(&context.inventory) {
        Ok(runs) => runs,
        Err(error) => return collected.lacks("runs", &error),
    };
    for run in runs.iter().rev().take(RUNS) {
        let name = run.file_name().unwrap_or_default().to_string_lossy();
        if let Ok(text) = fs::read(run.join(EVENTS)) {
            let text = String::from_utf8_lossy(&text).into_owned();
            collected.add(format!("runs/{name}/{EVENTS}"), text);
        }
    }
}

/// Writes the archive, for its owner only, and returns its size. An existing file stays as it is.
fn write(path: &Path, collected: &Collected, terminal: &Terminal) -> Result<u64> {
    let failed = |error: io::Error| {
        let shown = path.display();
        match error.kind() {
            io::ErrorKind::AlreadyExists => {
                Error::new(Code::OutputUnwritable, format!("{shown} is already there"))
                    .hint("name another file with `-o FILE`")
            }
            _ => Error::new(Code::OutputUnwritable, format!("cannot write {shown}")).because(error),
        }
    };
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut archive = tar::Builder::new(options.open(path).map_err(failed)?);
    let folder = path.file_stem().unwrap_or_default();
    for (name, text) in &collected.texts {
        let text = terminal.hide(text);
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o600);
        header.set_size(text.len() as u64);
        let name = Path::new(folder).join(name);
        archive
            .append_data(&mut header, name, text.as_bytes())
            .map_err(failed)?;
    }
    let file = archive.into_inner().map_err(failed)?;
    file.sync_all().map_err(failed)?;
    file.metadata().map(|it| it.len()).map_err(failed)
}
