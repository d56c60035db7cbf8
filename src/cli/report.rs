//! `pgherd report`: a finished run, as its page, in the terminal or as a document.

use std::path::{Path, PathBuf};

use super::Global;
use crate::{
    error::{Code, Error, Result},
    inventory::Inventory,
    quantity::{count, duration},
    report::{KeptRun, Table, Terminal},
    workspace::Workspace,
};

/// How many runs an error lists if the requested run does not exist.
const NAMED: usize = 8;

pub(super) fn run(
    global: &Global,
    run: Option<&str>,
    text: bool,
    terminal: &Terminal,
) -> Result<()> {
    let inventory = global.load()?;
    let runs = Workspace::kept_runs(&inventory)?;
    let folder = choose(&runs, run, &inventory)?;
    let kept = KeptRun::read(folder)?;
    // Needed for text only too: a run that was killed has no page until somebody asks for its report.
    let page = kept.page()?;
    if terminal.json {
        terminal.print_json(&kept.document(&page));
    } else if text {
        terminal.print(&kept.text(&terminal.stdout));
        terminal.say(&format!("report: {}", page.display()));
    } else {
        terminal.print(&page.display().to_string());
    }
    Ok(())
}

/// `pgherd report --list`.
pub(super) fn list(global: &Global, terminal: &Terminal) -> Result<()> {
    let inventory = global.load()?;
    let runs = Workspace::kept_runs(&inventory)?;
    // A folder without events is that of a run that has not begun.
    let kept: Vec<KeptRun> = runs
        .iter()
        .rev()
        .filter_map(|run| KeptRun::read(run).ok())
        .collect();
    if terminal.json {
        let lines: Vec<_> = kept.iter().map(KeptRun::line).collect();
        terminal.print_json(&lines);
        return Ok(());
    }
    if kept.is_empty() {
        return Err(none(&inventory));
    }
    let mut table = Table::new(["run", "verb", "took", "ended"]);
    for line in kept.iter().map(KeptRun::line) {
        let took = duration(line.seconds);
        table.row([line.run, line.verb, &took, line.verdict]);
    }
    table.print(terminal);
    Ok(())
}

fn none(inventory: &Inventory) -> Error {
    Error::new(
        Code::RunNotKept,
        format!("no run of the cluster {} is kept here", inventory.cluster),
    )
    .hint(format!("start a run: {}", inventory.command("up")))
}

/// Finds the requested run: by its whole name, by the beginning of its name, or the latest.
fn choose<'a>(
    runs: &'a [PathBuf],
    wanted: Option<&str>,
    inventory: &Inventory,
) -> Result<&'a Path> {
    let Some(latest) = runs.last() else {
        return Err(none(inventory));
    };
    let wanted = match wanted {
        None | Some("latest") => return Ok(latest),
        Some(wanted) => wanted,
    };
    if let Some(run) = runs.iter().find(|run| name(run) == wanted) {
        return Ok(run);
    }
    let begin_so: Vec<&PathBuf> = runs
        .iter()
        .filter(|run| name(run).starts_with(wanted))
        .collect();
    match begin_so.as_slice() {
        [one] => Ok(one),
        [] => Err(
            Error::new(Code::RunUnknown, format!("there is no run `{wanted}`"))
                .excerpt("the latest runs", names(runs.iter())),
        ),
        several => Err(Error::new(
            Code::RunUnknown,
            format!("{} begin with `{wanted}`", count(several.len(), "run")),
        )
        .excerpt("the latest of them", names(several.iter().copied()))),
    }
}

fn name(run: &Path) -> std::borrow::Cow<'_, str> {
    run.file_name().unwrap_or_default().to_string_lossy()
}

/// The newest first.
fn names<'a>(runs: impl DoubleEndedIterator<Item = &'a PathBuf>) -> String {
    let names: Vec<_> = runs.rev().take(NAMED).map(|run| name(run)).collect();
    names.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn inventory() -> Inventory {
        let text = "cluster: postgres\nprovider: { kind: docker }\nhosts:\n  a: { roles: [postgres, etcd, haproxy] }\n";
        Inventory::parse(Path::new("pgherd.yaml"), text).unwrap()
    }

    fn chosen(wanted: Option<&str>) -> Result<String> {
        let runs = [
            "2026-09-21T14-13-20Z",
            "2026-09-21T14-13-20Z-2",
            "2026-09-22T08-00-00Z",
        ];
        let runs: Vec<PathBuf> = runs.iter().map(|run| Path::new("runs").join(run)).collect();
        choose(&runs, wanted, &inventory()).map(|run| name(run).into_owned())
    }

    #[test]
    fn a_run_is_known_by_its_name_or_the_begin_of_it() {
        for (wanted, run) in [
            (None, "2026-09-22T08-00-00Z"),
            (Some("latest"), "2026-09-22T08-00-00Z"),
            (Some("2026-09-22"), "2026-09-22T08-00-00Z"),
            // A whole name wins, even if another run's name begins with it.
            (Some("2026-09-21T14-13-20Z"), "2026-09-21T14-13-20Z"),
        ] {
            assert_eq!(chosen(wanted).unwrap(), run);
        }
    }

    #[test]
    fn a_run_that_is_not_there_or_not_clear_is_bad_input() {
        for wanted in ["2025", "2026-09-21"] {
            let error = chosen(Some(wanted)).unwrap_err();
            assert_eq!(error.kind(), Kind::Input);
            assert!(error.excerpts()[0].text.contains("2026-09-21T14-13-20Z-2"));
        }
    }

    #[test]
    fn without_any_run_there_is_nothing_to_report() {
        let error = choose(&[], None, &inventory()).unwrap_err();
        assert_eq!(error.kind(), Kind::Failed);
        assert_eq!(error.hints(), ["start a run: pgherd up"]);
    }
}
