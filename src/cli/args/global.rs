//! The options of every verb, and what is opened by them.

use std::{path::PathBuf, sync::Arc};

use clap::{Args, ValueHint};

use super::super::console::Console;
use crate::{
    engine::{
        context::{Context, Source},
        state,
    },
    error::Result,
    inventory::{self, Inventory},
    workspace::Workspace,
};

/// Options of every verb.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Read this inventory; - is standard input
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE",
        env = "PGHERD_INVENTORY",
        default_value = inventory::DEFAULT_PATH,
        value_hint = ValueHint::FilePath
    )]
    pub inventory: PathBuf,
    /// Print JSON on stdout: one document, or one line for each event
    #[arg(long, global = true)]
    pub json: bool,
    /// Show more; give it twice to see every line that the hosts print
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Use the templates in this folder instead of the built-in ones
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub templates: Option<PathBuf>,
}

impl Global {
    pub(in crate::cli) fn load(&self) -> Result<Inventory> {
        let mut inventory = Inventory::load(&self.inventory)?;
        inventory.templates.clone_from(&self.templates);
        Ok(inventory)
    }

    /// The context of a verb, read from the inventory and the workspace.
    pub(in crate::cli) async fn open(
        &self,
        console: &Console,
        workspace: fn(&Inventory) -> Result<Workspace>,
    ) -> Result<Context> {
        let source = self.source(console)?;
        state::arrive(&source).await?;
        Context::new(source, workspace)
    }

    /// The same, for verbs that need an existing cluster.
    pub(in crate::cli) async fn existing(&self, console: &Console) -> Result<Context> {
        let source = self.source(console)?;
        state::arrive(&source).await?;
        Context::existing(source).await
    }

    pub(in crate::cli) fn source(&self, console: &Console) -> Result<Source<'_>> {
        Ok(Source {
            inventory: self.load()?,
            templates: self.templates.as_deref(),
            operator: Arc::new(console.clone()),
        })
    }
}
