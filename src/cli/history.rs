//! `pgherd history`.

use serde_json::json;

use super::{Global, console::Console};
use crate::{
    engine::history::{self, History},
    error::Result,
    history::Told,
    quantity::{count, duration},
    report::{Table, Terminal, Tone},
};

pub(super) async fn run(global: &Global, limit: usize, terminal: &Terminal) -> Result<()> {
    let context = global.existing(&Console::new(terminal, false)).await?;
    let History {
        runs,
        at_work,
        silent,
    } = history::look(&context).await?;
    for error in &silent {
        terminal.say(&format!("note: {error}"));
    }
    let shown = &runs[..limit.min(runs.len())];
    if terminal.json {
        let runs = shown.iter().map(|told| {
            let mut document = json!(told);
            document["at_work"] = json!(at_work.as_ref() == Some(&told.record.run));
            document
        });
        terminal.print_json(&json!({
            "cluster": context.inventory.cluster,
            "runs": runs.collect::<Vec<_>>(),
            "silent": silent.iter().filter_map(|error| error.host()).collect::<Vec<_>>(),
        }));
        return Ok(());
    }
    let mut table = Table::new(["began (UTC)", "by", "command", "changes", "ended"]);
    for told in shown {
        let (tone, ended) = ending(told, at_work.as_deref());
        let record = &told.record;
        let changes = record.ended.as_ref().map(|it| it.changes.to_string());
        table.toned_row(
            tone,
            [
                record.began.strftime("%Y-%m-%d %H:%M:%S").to_string(),
                record.by.clone(),
                record.command.clone(),
                changes.unwrap_or_default(),
                ended,
            ],
        );
    }
    match shown.is_empty() {
        true => terminal.say("The hosts remember no run."),
        false => table.print(terminal),
    }
    if runs.len() > shown.len() {
        let more = count(runs.len() - shown.len(), "older run");
        terminal.say(&format!("{more}: --limit {}", runs.len()));
    }
    Ok(())
}

/// How a run has ended, in words.
fn ending(told: &Told, at_work: Option<&str>) -> (Tone, String) {
    let Some(ended) = &told.record.ended else {
        return match at_work == Some(told.record.run.as_str()) {
            true => (Tone::Plain, "at work now".to_owned()),
            false => (Tone::Warn, "never: it was cut off".to_owned()),
        };
    };
    let took = duration(ended.seconds);
    match (&ended.error, ended.exit_code) {
        (None, 0) => (Tone::Plain, format!("well, after {took}")),
        (Some(word), code) => (Tone::Bad, format!("{word} ({code}), after {took}")),
        (None, code) => (Tone::Bad, format!("with {code}, after {took}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        history::{Ended, Record},
        holder::Holder,
        mask::Masks,
    };

    #[test]
    fn an_end_is_told_and_so_is_none() {
        let words = ["up".to_owned()].into_iter();
        let record = Record::of(&Holder::now("up"), "/x", words, &Masks::default());
        let told = |ended: Option<(u8, Option<&str>)>, at_work: bool| {
            let run = record.run.clone();
            let ended = ended.map(|(exit_code, error)| Ended {
                at: jiff::Timestamp::now(),
                seconds: 61.0,
                exit_code,
                error: error.map(str::to_owned),
                steps: 1,
                changes: 1,
            });
            let told = Told {
                record: Record {
                    ended,
                    ..record.clone()
                },
                hosts: Vec::new(),
            };
            ending(&told, at_work.then_some(run.as_str())).1
        };
        assert_eq!(told(None, true), "at work now");
        assert_eq!(told(None, false), "never: it was cut off");
        assert_eq!(told(Some((0, None)), true), "well, after 1 m 01 s");
        let failed = told(Some((1, Some("lease-held"))), false);
        assert_eq!(failed, "lease-held (1), after 1 m 01 s");
    }
}
