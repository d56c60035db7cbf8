//! `pgherd replace`.

use tokio_util::sync::CancellationToken;

use super::{Global, apply, console::Console};
use crate::{engine::replace, error::Result, report::Terminal};

pub(super) async fn run(
    global: &Global,
    host: &str,
    (new_volume, yes): (bool, bool),
    terminal: &Terminal,
    cancel: &CancellationToken,
) -> Result<()> {
    let console = Console::new(terminal, yes);
    let context = global.existing(&console).await?;
    let result = replace::run(&context, host, new_volume, cancel).await;
    let settled = format!(
        "{host} is replaced, and the cluster {} is healthy",
        context.inventory.cluster
    );
    apply::tell(&console, &context, result, &settled, terminal)
}
