//! `pgherd init`: an inventory to start from.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use crate::error::{Code, Error, Result};

/// The examples by kind of provider. They are the files in `inventories/`, which a test loads, so
/// what `init` writes is known to work.
const TEMPLATES: [(&str, &str); 3] = [
    ("docker", include_str!("../../inventories/local.yaml")),
    ("aws", include_str!("../../inventories/aws.yaml")),
    ("existing", include_str!("../../inventories/existing.yaml")),
];

/// The kinds of provider that there is an example for, the default first.
pub(super) const KINDS: [&str; 3] = ["docker", "aws", "existing"];

/// What became of the example.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    File(PathBuf),
    /// The text to print, for `-o -`.
    Stdout(&'static str),
}

/// The commented example for a kind of provider.
pub(super) fn template(kind: &str) -> Option<&'static str> {
    TEMPLATES
        .iter()
        .find(|(name, _)| *name == kind)
        .map(|(_, text)| *text)
}

/// Writes the example for `kind` to `output`, or hands it over where that is `-`.
///
/// An existing file is never written over.
pub(super) fn run(kind: &str, output: &Path) -> Result<Written> {
    let text = template(kind).ok_or_else(|| {
        Error::new(
            Code::InvalidArguments,
            format!("there is no example for the provider `{kind}`"),
        )
        .hint(format!("--provider takes one of {}", KINDS.join(", ")))
    })?;
    if output == Path::new("-") {
        return Ok(Written::Stdout(text));
    }
    let shown = output.display();
    // Looking first and writing then could write over what came in between.
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(output)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|cause| match cause.kind() {
            io::ErrorKind::AlreadyExists => {
                Error::new(Code::OutputUnwritable, format!("{shown} is already there"))
                    .hint("name another file with `-o FILE`, or print the example with `-o -`")
            }
            io::ErrorKind::NotFound => Error::new(
                Code::OutputUnwritable,
                format!("there is no folder for {shown}"),
            )
            .hint("make it first, or name a file elsewhere with `-o FILE`"),
            _ => Error::new(Code::OutputUnwritable, format!("{shown} cannot be written"))
                .because(cause),
        })?;
    Ok(Written::File(output.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::Kind, inventory::Inventory};

    #[test]
    fn every_kind_has_an_example_of_its_own_kind() {
        for kind in KINDS {
            let text = template(kind).expect("an example");
            let inventory = Inventory::parse(Path::new("x.yaml"), text).expect("a right one");
            assert_eq!(inventory.provider.kind(), kind);
        }
    }

    #[test]
    fn the_example_is_written_once_and_never_over_another_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pgherd.yaml");
        assert_eq!(run("docker", &file).ok(), Some(Written::File(file.clone())));
        std::fs::write(&file, "mine").expect("a file");
        let error = run("docker", &file).expect_err("the file is there");
        assert_eq!(error.kind(), Kind::Input);
        assert_eq!(std::fs::read_to_string(&file).ok().as_deref(), Some("mine"));
        let nowhere = folder.path().join("no/such/folder.yaml");
        assert_eq!(
            run("docker", &nowhere).map_err(|it| it.kind()),
            Err(Kind::Input)
        );
    }

    #[test]
    fn a_dash_hands_the_example_over() {
        let Ok(Written::Stdout(text)) = run("aws", Path::new("-")) else {
            panic!("no text");
        };
        assert!(text.contains("kind: aws"));
    }

    #[test]
    fn an_unknown_kind_is_bad_input() {
        let error = run("azure", Path::new("-")).expect_err("no such example");
        assert_eq!(error.kind(), Kind::Input);
    }
}
