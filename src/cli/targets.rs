//! `pgherd targets`.

use std::path::PathBuf;

use clap::ValueHint;

use super::{Global, console::Console};
use crate::{engine::targets, error::Result, quantity::count, report::Terminal};

/// The arguments of `pgherd targets`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only this host [default: all]
    host: Option<String>,
    /// Print the `scrape_configs` that read the targets, instead of the targets
    #[arg(long)]
    prometheus: bool,
    /// Write a file for each host into DIR
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    output: Option<PathBuf>,
}

pub(super) async fn run(global: &Global, arguments: Arguments, terminal: &Terminal) -> Result<()> {
    let context = global.existing(&Console::new(terminal, false)).await?;
    let scrape = targets::of(&context, arguments.host.as_deref()).await?;
    if let Some(folder) = &arguments.output {
        let hosts = scrape.write(folder)?;
        let what = count(hosts.len(), "file");
        terminal.say(&format!("written: {what} in {}", folder.display()));
        if !arguments.prometheus {
            return Ok(());
        }
    }
    if arguments.prometheus {
        let folder = arguments.output.unwrap_or_else(|| "targets".into());
        let folder = std::path::absolute(&folder).unwrap_or(folder);
        let files = folder.join("*.json").display().to_string();
        terminal.print(scrape.configuration(&files).trim_end());
    } else {
        terminal.print(scrape.file_sd()?.trim_end());
    }
    Ok(())
}
