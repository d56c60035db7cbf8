//! `pgherd switchover`.

use tokio_util::sync::CancellationToken;

use super::{Global, console::Console};
use crate::{
    drill::record::Drill,
    engine::{
        context::Context,
        switchover::{self, HandedOver},
    },
    error::Result,
    inventory::PoolMode,
    quantity::duration,
    report::{self, Summary, Terminal},
    switchover::Handover,
};

pub(super) async fn run(
    global: &Global,
    to: Option<&str>,
    yes: bool,
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let console = Console::new(terminal, yes);
    let context = global.existing(&console).await?;
    match switchover::run(&context, to, cancel).await? {
        None => {
            let leader = to.unwrap_or_default();
            let summary = Summary {
                settled: &format!("{leader} leads already"),
                endpoints: &[],
            };
            let run = console.ended().unwrap_or_default();
            report::print_summary(terminal, &run, &summary);
        }
        Some(HandedOver { handover, felt }) => {
            if let Some(drill) = &felt {
                terminal.explain(&told(&handover, drill));
            }
        }
    }
    Ok(())
}

/// What a handover means. It is shown before the question.
pub(super) fn outline(context: &Context, handover: &Handover) -> String {
    let Handover { from, to } = handover;
    let what = match &context.inventory.pgbouncer {
        Some(it) if it.pool_mode == PoolMode::Transaction => {
            "clients of the poolers wait for some seconds; others are disconnected, and new ones wait for about 2 s"
        }
        _ => "clients are disconnected, and new ones wait for about 2 s",
    };
    format!(
        "In the cluster {}, {from} hands over to {to}: {what}.",
        context.inventory.cluster
    )
}

fn told(handover: &Handover, drill: &Drill) -> String {
    let measured = &drill.measured;
    let Handover { from, to } = handover;
    format!(
        "{from} has handed over to {to}: no writes for {}, no reads for {}; timeline {} > {}; {} of {} \
         commits missing",
        duration(measured.write_outage),
        duration(measured.read_outage),
        measured.timeline_before.unwrap_or_default(),
        measured.timeline_after.unwrap_or_default(),
        measured.missing,
        measured.acknowledged,
    ) + &measured
        .pooled
        .as_ref()
        .map_or_else(String::new, |pooled| format!("; {}", pooled.in_words()))
}
