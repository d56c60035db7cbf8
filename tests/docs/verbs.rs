//! docs/verbs.md, made from the arguments of the command line.

use clap::{Arg, Command, CommandFactory as _, builder::StyledStr};
use pgherd::cli::Cli;

use super::*;

const BEGIN: &str = "<!-- what follows is made from src/cli/args.rs -->\n";

#[test]
fn the_page_of_verbs_has_every_verb_and_option() {
    let mut command = Cli::command();
    command.build();
    let page = read("docs/verbs.md");
    let (prose, _) = page.split_once(BEGIN).expect("where the verbs begin");
    let mut list = "\n| verb | does |\n|---|---|\n".to_owned();
    let mut sections = String::new();
    for (name, verb) in verbs(&command) {
        list += &format!(
            "| [`{name}`](#{}) | {} |\n",
            name.replace(' ', "-"),
            cell(verb.get_about())
        );
        sections += &section(&name, verb);
    }
    let global = table(&command, Arg::is_global_set);
    let global = format!("\n## Options of every verb\n\n{global}");
    assert_page(
        "docs/verbs.md",
        &format!("{prose}{BEGIN}{list}{global}{sections}"),
    );
}

/// All verbs in their order, those with verbs of their own as two words.
fn verbs(command: &Command) -> Vec<(String, &Command)> {
    let mut verbs = Vec::new();
    for verb in command
        .get_subcommands()
        .filter(|it| it.get_name() != "help")
    {
        let name = verb.get_name();
        if verb.has_subcommands() {
            let parts = verbs_of(verb).map(|it| (format!("{name} {}", it.get_name()), it));
            verbs.extend(parts);
        } else {
            verbs.push((name.to_owned(), verb));
        }
    }
    verbs
}

fn verbs_of(verb: &Command) -> impl Iterator<Item = &Command> {
    verb.get_subcommands().filter(|it| it.get_name() != "help")
}

fn section(name: &str, verb: &Command) -> String {
    let usage = verb.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").trim();
    // No block of code: it is not a command that somebody types.
    let mut text = format!("\n## {name}\n\n{}.\n\n`{usage}`\n", plain(verb.get_about()));
    let options = table(verb, |arg| !arg.is_global_set());
    if !options.is_empty() {
        text += &format!("\n{options}");
    }
    if let Some(after) = verb.get_after_help() {
        text += &notes(&after.to_string());
    }
    text
}

/// What stands below a verb's options: sentences, and examples.
fn notes(after: &str) -> String {
    let (prose, examples) = match after.find("Example") {
        Some(at) => after.split_at(at),
        None => (after, ""),
    };
    let mut text = String::new();
    let prose = prose.trim();
    if !prose.is_empty() {
        // Angle brackets would be HTML.
        text += &format!("\n{}\n", prose.replace('<', "\\<"));
    }
    let lines: Vec<&str> = examples.lines().skip(1).map(str::trim).collect();
    if !lines.is_empty() {
        text += &format!("\n    {}\n", lines.join("\n    "));
    }
    text
}

/// A table of the options and arguments that are wanted; empty if there is none.
fn table(command: &Command, wanted: impl Fn(&Arg) -> bool) -> String {
    let rows: String = command
        .get_arguments()
        .filter(|arg| {
            wanted(arg)
                && !arg.is_hide_set()
                && !["help", "version"].contains(&arg.get_id().as_str())
        })
        .map(row)
        .collect();
    match rows.is_empty() {
        true => rows,
        false => format!("| option | what it does |\n|---|---|\n{rows}"),
    }
}

fn row(arg: &Arg) -> String {
    let value = match arg.get_value_names() {
        Some(names) if arg.get_action().takes_values() => {
            names.iter().map(|it| format!("<{it}>")).collect()
        }
        _ => String::new(),
    };
    let (short, long) = (arg.get_short(), arg.get_long());
    let mut names = Vec::new();
    names.extend(short.map(|it| format!("-{it}")));
    names.extend(long.map(|it| format!("--{it}")));
    let name = match names.is_empty() {
        true => value,
        false => format!("{} {value}", names.join(", ")).trim().to_owned(),
    };
    let mut told = cell(arg.get_help());
    let words: Vec<String> = match arg.get_action().takes_values() {
        true => arg.get_possible_values().iter().map(possible).collect(),
        false => Vec::new(),
    };
    if !words.is_empty() {
        told += &format!(": {}", words.join("; "));
    }
    let defaults: Vec<String> = arg
        .get_default_values()
        .iter()
        .map(|it| format!("`{}`", it.to_string_lossy()))
        .collect();
    let shown = arg.get_action().takes_values() && !arg.is_hide_default_value_set();
    if !defaults.is_empty() && shown {
        told += &format!(" (default {})", defaults.join(", "));
    }
    format!("| `{}` | {told} |\n", name.replace('|', "\\|"))
}

fn possible(value: &clap::builder::PossibleValue) -> String {
    match value.get_help() {
        Some(help) => format!("`{}`: {}", value.get_name(), cell(Some(help))),
        None => format!("`{}`", value.get_name()),
    }
}

fn plain(text: Option<&StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

/// A text as the cell of a table.
fn cell(text: Option<&StyledStr>) -> String {
    let text = plain(text);
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").replace('|', "\\|").replace('<', "\\<")
}
