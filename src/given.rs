//! Files that the user names: an inventory, a key, a bundle, a template.
//!
//! A name can be that of a pipe, and reading it would wait for ever, or of a device that has no end.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read as _},
    path::Path,
};

/// In bytes; larger than any key, bundle, inventory or template.
const LARGEST: u64 = 16 << 20;

/// The bytes of a regular file within the size limit, and its metadata.
pub fn read(path: &Path) -> io::Result<(Vec<u8>, Metadata)> {
    // Checked before the file is opened, because opening a pipe would wait for a writer.
    regular(&fs::metadata(path)?)?;
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    regular(&metadata)?;
    Ok((take(file)?, metadata))
}

/// The bytes of a stream, within the same limit.
pub fn take(stream: impl io::Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than {} MiB", LARGEST >> 20),
        ));
    }
    Ok(bytes)
}

/// The same, as text.
pub fn read_text(path: &Path) -> io::Result<String> {
    let (bytes, _) = read(path)?;
    String::from_utf8(bytes).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "it holds bytes that are not UTF-8",
        )
    })
}

fn regular(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let kind = if metadata.is_dir() {
        io::ErrorKind::IsADirectory
    } else {
        io::ErrorKind::InvalidInput
    };
    Err(io::Error::new(kind, "it is not a regular file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_a_sensible_size_are_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = |name: &str| dir.path().join(name);
        fs::write(path("small"), "text").expect("written");
        assert_eq!(read_text(&path("small")).expect("read"), "text");

        let made = std::process::Command::new("mkfifo")
            .arg(path("pipe"))
            .status();
        assert!(made.expect("mkfifo runs").success());
        for name in [path("pipe"), "/dev/zero".into(), path("")] {
            let error = read(&name).expect_err("not a regular file");
            assert_eq!(error.to_string(), "it is not a regular file");
        }

        let large = File::create(path("large")).expect("made");
        large.set_len(LARGEST + 1).expect("grown");
        let error = read(&path("large")).expect_err("too large");
        assert_eq!(error.to_string(), "it is larger than 16 MiB");
        large.set_len(LARGEST).expect("shrunk");
        assert_eq!(read(&path("large")).expect("read").0.len() as u64, LARGEST);
    }
}
