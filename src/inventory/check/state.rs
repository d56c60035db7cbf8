//! Checks where the workspace's secrets are shared, and with whom.

use super::{
    super::{
        State, limits,
        placed::{Placed, span_of},
        problem::{Problem, quoted},
        schema::{self, Word},
        source::Source,
    },
    Problems, files,
};
use crate::seal;

pub(super) fn check(
    problems: &mut Problems,
    source: &Source<'_>,
    written: Option<&Placed<schema::State>>,
) -> Option<State> {
    let section = written?;
    let written = &section.value;
    if written.directory.is_none() {
        problems.add(
            Problem::new(span_of(section), "`state` has no `directory`")
                .hint("for example: `directory: /mnt/team/pgherd`"),
        );
    }
    let directory = written.directory.as_ref();
    let directory = directory.and_then(|word| problems.keep(directory_of(source, word)));
    let identity = written.identity.as_ref();
    let identity = identity.and_then(|word| problems.keep(files::place(source.path, word)));
    let none = written
        .recipients
        .as_ref()
        .is_none_or(|it| it.value.is_empty());
    if none {
        problems.add(
            Problem::new(span_of(section), "`state` has no `recipients`")
                .label("nobody could read it")
                .hint("yours is shown, and made if you have none, by: pgherd state identity --new"),
        );
    }
    let words = written.recipients.iter().flat_map(|it| &it.value);
    let recipients = words.filter_map(|word| problems.keep(recipient(word)));
    let recipients: Vec<String> = recipients.collect();
    Some(State {
        directory: directory?,
        recipients,
        identity,
    })
}

fn directory_of(source: &Source<'_>, word: &Word) -> Result<std::path::PathBuf, Problem> {
    let directory = files::place(source.path, word)?;
    let is_workspace = |part: &std::ffi::OsStr| part == ".pgherd";
    match directory.iter().any(is_workspace) {
        true => Err(Problem::new(
            span_of(word),
            format!("{} is in a workspace", quoted(&word.value)),
        )
        .label("it would be lost with it")
        .hint("name a folder that other machines reach too")),
        false => Ok(directory),
    }
}

fn recipient(word: &Word) -> Result<String, Problem> {
    let value = word.value.trim();
    let why = seal::refused(value).or_else(|| {
        let fits = limits::RECIPIENT.fits(value);
        (!fits).then_some(limits::RECIPIENT.wanted)
    });
    match why {
        Some(why) => Err(Problem::new(span_of(word), "this cannot be a recipient").label(why)),
        None => Ok(value.to_owned()),
    }
}
