//! Compares files, and plans how changed ones are installed.

use super::Change;
use crate::{
    cluster::Secrets,
    facts::Facts,
    mask,
    remote::{Script, quote},
    render::{self, Effect, File, Kind, Visibility},
};

/// A file that must be written, with its complete new content.
pub(super) struct Difference {
    pub file: File,
    pub change: Change,
    /// What it takes to load the change. Some settings of a file take more than others.
    pub effect: Effect,
}

/// The files among `files` that are not as they should be on the host.
pub(super) fn differences<'a>(
    files: impl Iterator<Item = &'a File>,
    facts: &Facts,
    cluster: &str,
    secrets: &Secrets,
) -> crate::error::Result<Vec<Difference>> {
    let mut differences = Vec::new();
    for file in files {
        let found = facts.files.get(&file.path);
        let old = found.map(|found| found.content.as_str());
        let wanted = match file.kind {
            Kind::Whole => file.content.clone(),
            Kind::Block => render::merge_block(old.unwrap_or_default(), &file.content, cluster)
                .map_err(|error| error.cause(format!("it is in {}", file.path)))?
                .into(),
        };
        let note = found.and_then(|found| attributes(file, found));
        if old == Some(wanted.as_str()) && note.is_none() {
            continue;
        }
        let show = |text: &str| match file.visibility {
            Visibility::Public => Some(text.to_owned()),
            Visibility::Masked => Some(mask::file(text, secrets)),
            Visibility::Hidden => None,
        };
        let change = Change::File {
            path: file.path.clone(),
            old: old.and_then(show),
            new: show(&wanted),
            note,
        };
        let effect = file.effect_of_change(old);
        let mode = match (file.kind, found) {
            (Kind::Block, Some(found)) => found.mode | READABLE,
            _ => file.mode,
        };
        let file = File {
            content: wanted,
            mode,
            ..file.clone()
        };
        differences.push(Difference {
            file,
            change,
            effect,
        });
    }
    Ok(differences)
}

/// The file around a block must be readable for everybody.
const READABLE: u32 = 0o444;

/// How owner and mode differ, if they do. A file with a block belongs to the host and keeps its own, as long as
/// everybody can read it.
fn attributes(file: &File, found: &crate::facts::FileFact) -> Option<String> {
    if file.kind == Kind::Block {
        return (found.mode & READABLE != READABLE)
            .then(|| format!("{:04o} becomes {:04o}", found.mode, found.mode | READABLE));
    }
    let owner = format!("{}:{}", file.owner, file.group);
    let found_owner = format!("{}:{}", found.owner, found.group);
    (owner != found_owner || file.mode != found.mode).then(|| {
        format!(
            "{found_owner} {:04o} becomes {owner} {:04o}",
            found.mode, file.mode
        )
    })
}

/// The strongest effect that the changed files need.
pub(super) fn effect(differences: &[Difference]) -> Effect {
    differences
        .iter()
        .map(|difference| difference.effect)
        .max()
        .unwrap_or(Effect::Nothing)
}

/// Adds the files to `script`. A file with a `check` is checked before it replaces a good one.
pub(super) fn put_all(mut script: Script, differences: &[Difference], check: Check<'_>) -> Script {
    for Difference { file, .. } in differences {
        match check.command_for(&file.path) {
            None => script = script.put(file),
            Some(command) => {
                let candidate = File {
                    path: format!("{}.pgherd-candidate", file.path),
                    ..file.clone()
                };
                let path = quote(&candidate.path);
                script = script
                    .put(&candidate)
                    .line(format!(
                        "check() {{ {} ; }}",
                        command.replace("$CANDIDATE", &path)
                    ))
                    .line(format!(
                        "if ! said=$(check 2>&1); then printf '%s\\n' \"$said\" >&2; rm -f {path}; \
                         echo 'the new {} was refused; the old one is untouched' >&2; exit 66; fi",
                        file.path
                    ))
                    .line(format!("mv -f {path} {}", quote(&file.path)));
            }
        }
    }
    script
}

/// The command that checks a main config; `$CANDIDATE` stands for its path.
#[derive(Clone, Copy)]
pub(super) struct Check<'a>(pub &'a [(&'a str, &'a str)]);

impl<'a> Check<'a> {
    pub(super) const NONE: Check<'static> = Check(&[]);

    fn command_for(self, path: &str) -> Option<&'a str> {
        self.0
            .iter()
            .find(|(checked, _)| *checked == path)
            .map(|(_, command)| *command)
    }
}
