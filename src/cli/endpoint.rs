//! `pgherd connect`.

use std::path::PathBuf;

use clap::{ValueEnum, builder::PossibleValue};

use super::{Global, console::Console};
use crate::{
    engine::endpoint::{self, Format, Wish},
    error::{Code, Error, Result},
    report::Terminal,
};

impl ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = match self {
            Format::Libpq => ("libpq", "libpq's connection string: psql \"...\""),
            Format::Uri => ("uri", "A URI, as DATABASE_URL often has it"),
            Format::Env => ("env", "Variables: PGHOST, PGUSER, ..."),
            Format::Service => ("service", "A section of ~/.pg_service.conf"),
            Format::Pgpass => ("pgpass", "Lines of ~/.pgpass"),
            Format::Jdbc => ("jdbc", "A URL for JDBC"),
        };
        Some(PossibleValue::new(name).help(help))
    }
}

/// The arguments of `pgherd connect`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// One of `postgresql.users`, or `postgres` [default: the only user]
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The database [default: the user's own]
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Connect to a replica
    #[arg(long)]
    read: bool,
    /// Use HAProxy's port although there is a pooler
    #[arg(long)]
    direct: bool,
    /// How the program takes it
    #[arg(long, value_enum, default_value = "libpq")]
    format: Format,
    /// Write it to FILE, which only its owner may read, with the password if the format holds one
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) async fn run(global: &Global, arguments: Arguments, terminal: &Terminal) -> Result<()> {
    let context = global.existing(&Console::new(terminal, false)).await?;
    let Arguments {
        user,
        database,
        read,
        direct,
        format,
        output,
    } = arguments;
    let wish = Wish {
        user,
        database,
        read,
        direct,
    };
    let found = endpoint::of(&context, &wish).await?;
    if let Some(path) = output {
        endpoint::write(&path, &format.text(&found, true))?;
        terminal.say(&format!("written: {}", path.display()));
        return Ok(());
    }
    if terminal.json {
        terminal.print_json(&endpoint::document(&found));
        return Ok(());
    }
    // Whoever looks over a shoulder reads along; a pipe leads to a program.
    let seen = terminal.shows_output();
    if seen && format == Format::Pgpass {
        return Err(Error::new(
            Code::InvalidArguments,
            "a password is not shown on a terminal",
        )
        .hint(format!(
            "into a file that only you can read: {} -o FILE",
            context.command("connect --format pgpass")
        )));
    }
    terminal.hand_over(format.text(&found, !seen).trim_end());
    if seen && format.holds_password() {
        terminal.explain("note: the password is left out on a terminal; -o FILE or a pipe gets it");
    }
    Ok(())
}
