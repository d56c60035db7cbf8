//! Copies files into and out of containers, running or not, with the engine's archive interface.

use std::{io::Read, path::Path};

use bollard::query_parameters::{
    DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use futures_util::TryStreamExt;

use super::engine::{self, Engine};
use crate::error::{Code, Error, Result};

/// A file or folder to put into a container.
pub(super) struct Entry<'a> {
    /// Relative to the folder of the upload.
    pub(super) path: &'a str,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    /// `None` for a folder.
    pub(super) content: Option<&'a str>,
}

/// Reads a text file of a container; `None` if there is no such file.
pub(super) async fn read(engine: &Engine, container: &str, path: &str) -> Result<Option<String>> {
    let options = DownloadFromContainerOptionsBuilder::default()
        .path(path)
        .build();
    let stream = engine
        .api()
        .download_from_container(container, Some(options));
    let bytes = engine::lookup(
        &format!("read {path} in a host"),
        stream.try_fold(Vec::new(), |mut bytes, chunk| async move {
            bytes.extend_from_slice(&chunk);
            Ok(bytes)
        }),
    )
    .await?;
    bytes
        .map(|bytes| first_file(&bytes))
        .transpose()
        .map_err(|error| {
            Error::new(
                Code::EngineFailed,
                format!("the container engine sent {path} garbled"),
            )
            .because(error)
        })
}

fn first_file(archive: &[u8]) -> std::io::Result<String> {
    let mut archive = tar::Archive::new(archive);
    let mut text = String::new();
    if let Some(entry) = archive.entries()?.next() {
        entry?.read_to_string(&mut text)?;
    }
    Ok(text)
}

/// Puts `entries` into `folder`, which must exist, and replaces what is there.
pub(super) async fn write(
    engine: &Engine,
    container: &str,
    folder: &str,
    entries: &[Entry<'_>],
) -> Result<()> {
    let archive = pack(entries).map_err(|error| {
        Error::new(Code::LocalSystemFailed, "could not pack files for a host").because(error)
    })?;
    let options = UploadToContainerOptionsBuilder::default()
        .path(folder)
        .build();
    engine::call(
        &format!("write to {folder} in a host"),
        engine.api().upload_to_container(
            container,
            Some(options),
            bollard::body_full(archive.into()),
        ),
    )
    .await
}

fn pack(entries: &[Entry<'_>]) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for entry in entries {
        let content = entry.content.unwrap_or_default().as_bytes();
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(match entry.content {
            Some(_) => tar::EntryType::Regular,
            None => tar::EntryType::Directory,
        });
        header.set_mode(entry.mode);
        header.set_uid(entry.uid);
        header.set_gid(entry.gid);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, Path::new(entry.path), content)?;
    }
    archive.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_read_back() {
        let archive = pack(&[Entry {
            path: "authorized_keys",
            mode: 0o600,
            uid: 1000,
            gid: 1000,
            content: Some("ssh-ed25519 AAAA\n"),
        }])
        .unwrap();
        assert_eq!(first_file(&archive).unwrap(), "ssh-ed25519 AAAA\n");
    }
}
