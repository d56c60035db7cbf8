//! `pgherd man`: one page for the command and all its verbs.

use std::io;

use clap::{Arg, Command};
use clap_mangen::Man;

/// The page, in roff.
///
/// `clap_mangen` makes one page for each verb. Here each verb is a section of one page. A section has only the
/// verb's own options, because the common options are listed at the beginning.
pub(super) fn page(command: &Command) -> io::Result<String> {
    let mut command = command.clone();
    command.build();
    let man = Man::new(command.clone());
    let mut page = section(|out| man.render_title(out))?;
    page += &section(|out| man.render_name_section(out))?;
    page += &section(|out| man.render_synopsis_section(out))?;
    page += &section(|out| man.render_options_section(out))?;
    for verb in command.get_subcommands() {
        if verb.get_name() != "help" {
            page += &of_verb(verb)?;
        }
    }
    page += &section(|out| man.render_extra_section(out))?.replace(".SH EXTRA\n", ".SH NOTES\n");
    Ok(page)
}

fn of_verb(verb: &Command) -> io::Result<String> {
    let own = |arg: Arg| {
        let shared = arg.is_global_set() || arg.get_id() == "help";
        arg.hide(shared)
    };
    let man = Man::new(verb.clone().mut_args(own));
    let mut text = format!(".SH \"PGHERD {}\"\n", verb.get_name().to_uppercase());
    text += &body(&section(|out| man.render_description_section(out))?);
    text += ".PP\n";
    text += &body(&section(|out| man.render_synopsis_section(out))?);
    text += &body(&section(|out| man.render_options_section(out))?);
    if verb.get_after_help().is_some() {
        text += ".PP\n";
        text += &body(&section(|out| man.render_extra_section(out))?);
    }
    Ok(text)
}

/// One section as `clap_mangen` writes it, with its heading.
fn section(render: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> io::Result<String> {
    let mut roff = Vec::new();
    render(&mut roff)?;
    Ok(String::from_utf8_lossy(&roff).into_owned())
}

/// A section without its heading.
fn body(section: &str) -> String {
    section
        .split_inclusive('\n')
        .filter(|line| !line.starts_with(".SH "))
        .collect()
}
