//! `pgherd init`, which writes an inventory, and `pgherd schema`, which prints its JSON Schema.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use crate::{
    error::{Code, Error, Result},
    inventory::{self, ProviderKind},
    report::Terminal,
};

/// The schema's file beside an inventory; the first line of each example names it.
const SCHEMA: &str = "pgherd.schema.json";

/// The commented example for a kind of provider. It is a file of `inventories/`, which a test loads, so
/// what `init` writes is known to work.
fn example(kind: ProviderKind) -> &'static str {
    match kind {
        ProviderKind::Docker => include_str!("../../inventories/local.yaml"),
        ProviderKind::Aws => include_str!("../../inventories/aws.yaml"),
        ProviderKind::Existing => include_str!("../../inventories/existing.yaml"),
    }
}

/// The schema as the text of a file.
pub(super) fn schema() -> String {
    format!("{:#}\n", inventory::json_schema())
}

/// Writes the example for `kind` to the file `output`, or prints it if `output` is `-`.
pub(super) fn run(
    kind: ProviderKind,
    output: &Path,
    templates: Option<&Path>,
    terminal: &Terminal,
) -> Result<()> {
    if output == Path::new("-") {
        terminal.print(example(kind));
        return Ok(());
    }
    let beside = write(kind, output)?;
    let shown = output.display();
    terminal.say(&match beside {
        Beside::Written(schema) => format!("wrote {shown}, and {} for editors", schema.display()),
        Beside::Same => format!("wrote {shown}"),
        Beside::Another(schema) => format!(
            "wrote {shown}\n{} is not this version's; `pgherd schema` prints the one that is",
            schema.display()
        ),
    });
    terminal.say(&format!(
        "next: read it, then `{}` and `{}`",
        inventory::command(output, templates, "plan"),
        inventory::command(output, templates, "up")
    ));
    Ok(())
}

/// What happened to the schema's file.
#[derive(Debug, PartialEq, Eq)]
enum Beside {
    Written(PathBuf),
    /// The same schema was there already.
    Same,
    /// A different file was there already.
    Another(PathBuf),
}

/// Writes the example, and the schema beside it. Never overwrites an existing file.
fn write(kind: ProviderKind, output: &Path) -> Result<Beside> {
    let shown = output.display();
    create(output, example(kind)).map_err(|cause| match cause.kind() {
        io::ErrorKind::AlreadyExists => {
            Error::new(Code::OutputUnwritable, format!("{shown} is already there"))
                .hint("name another file with `-o FILE`, or print the example with `-o -`")
        }
        io::ErrorKind::NotFound => Error::new(
            Code::OutputUnwritable,
            format!("the folder for {shown} does not exist"),
        )
        .hint("create it first, or name a file elsewhere with `-o FILE`"),
        _ => {
            Error::new(Code::OutputUnwritable, format!("{shown} cannot be written")).because(cause)
        }
    })?;
    let path = output.with_file_name(SCHEMA);
    let schema = schema();
    match create(&path, &schema) {
        Ok(()) => Ok(Beside::Written(path)),
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
            let same = fs::read(&path).is_ok_and(|found| found == schema.as_bytes());
            Ok(if same {
                Beside::Same
            } else {
                Beside::Another(path)
            })
        }
        Err(cause) => Err(Error::new(
            Code::OutputUnwritable,
            format!("{} cannot be written", path.display()),
        )
        .because(cause)
        .hint(format!(
            "{shown} was written, and works without it: it is only for editors"
        ))),
    }
}

/// One call creates the file only if it does not exist: with two calls, another program could write in between.
fn create(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::Kind, inventory::Inventory};

    #[test]
    fn every_kind_has_an_example_of_its_own_kind_that_names_the_schema() {
        for kind in ProviderKind::ALL {
            let text = example(*kind);
            let inventory = Inventory::parse(Path::new("x.yaml"), text).expect("a right one");
            assert_eq!(inventory.provider.kind(), *kind);
            let line = format!("# yaml-language-server: $schema={SCHEMA}\n");
            assert!(text.starts_with(&line), "{kind:?}");
        }
    }

    #[test]
    fn the_example_is_written_once_and_never_over_another_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pgherd.yaml");
        let schema = folder.path().join(SCHEMA);
        let beside = write(ProviderKind::Docker, &file).ok();
        assert_eq!(beside, Some(Beside::Written(schema.clone())));
        fs::write(&file, "mine").expect("a file");
        let error = write(ProviderKind::Docker, &file).expect_err("the file is there");
        assert_eq!(error.kind(), Kind::Input);
        assert_eq!(fs::read_to_string(&file).ok().as_deref(), Some("mine"));
        let nowhere = folder.path().join("no/such/folder.yaml");
        let error = write(ProviderKind::Docker, &nowhere).expect_err("no folder");
        assert_eq!(error.kind(), Kind::Input);
    }

    #[test]
    fn a_schema_that_is_there_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name| write(ProviderKind::Aws, &folder.path().join(name)).ok();
        let schema = folder.path().join(SCHEMA);
        assert!(matches!(write("one.yaml"), Some(Beside::Written(_))));
        assert_eq!(write("two.yaml"), Some(Beside::Same));
        fs::write(&schema, "{}").expect("a file");
        assert_eq!(write("three.yaml"), Some(Beside::Another(schema.clone())));
        assert_eq!(fs::read_to_string(&schema).ok().as_deref(), Some("{}"));
    }
}
