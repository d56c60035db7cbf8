//! The folder in which a cluster's connections wait for the next run.
//!
//! It is not in the workspace, whose path may be too long for a socket. It is beside the folders of runs for
//! their sockets: in `$XDG_RUNTIME_DIR`, or in the folder for temporary files.

use std::{
    fs::{self, DirBuilder},
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

/// The folder for the cluster with this `workspace`, inside a folder in `parent` that only this user can use.
///
/// In `/tmp`, another user may have made a folder or a link with that name before. Then there is no folder.
pub(super) fn folder(parent: &Path, workspace: &Path) -> Option<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let all = parent.join(format!("pgherd-ssh-{user}"));
    let mut cluster = format!(
        "{:x}",
        Sha256::digest(workspace.as_os_str().as_encoded_bytes())
    );
    cluster.truncate(10);
    let own = all.join(cluster);
    (is_private(&all, user) && is_private(&own, user)).then_some(own)
}

/// Whether this folder exists, or could be created, and only the user can look into it.
fn is_private(path: &Path, user: u32) -> bool {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
        Err(_) => return false,
    }
    fs::symlink_metadata(path)
        .is_ok_and(|it| it.is_dir() && it.uid() == user && it.permissions().mode() & 0o077 == 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn folder_in(parent: &Path) -> Option<PathBuf> {
        folder(parent, Path::new("/w/.pgherd/pg"))
    }

    #[test]
    fn it_is_the_clusters_own_and_closed_to_others() {
        let parent = tempfile::tempdir().unwrap();
        let own = folder_in(parent.path()).unwrap();
        assert_eq!(folder_in(parent.path()), Some(own.clone()));
        for path in [own.as_path(), own.parent().unwrap()] {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o700);
        }
        let other = folder(parent.path(), Path::new("/w/.pgherd/other"));
        assert_ne!(other, Some(own));
    }

    #[test]
    fn a_folder_that_somebody_else_could_use_is_not_used() {
        let parent = tempfile::tempdir().unwrap();
        let all = folder_in(parent.path())
            .unwrap()
            .parent()
            .unwrap()
            .to_owned();
        fs::set_permissions(&all, fs::Permissions::from_mode(0o750)).unwrap();
        assert_eq!(folder_in(parent.path()), None, "open to a group");

        let elsewhere = parent.path().join("elsewhere");
        fs::rename(&all, &elsewhere).unwrap();
        fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o700)).unwrap();
        symlink(&elsewhere, &all).unwrap();
        assert_eq!(folder_in(parent.path()), None, "a link");

        fs::remove_file(&all).unwrap();
        fs::create_dir(&all).unwrap();
        fs::set_permissions(&all, fs::Permissions::from_mode(0o700)).unwrap();
        let user = rustix::process::geteuid().as_raw();
        assert!(is_private(&all, user));
        assert!(!is_private(&all, user + 1), "another user's");
    }

    /// A socket's path is limited. A run's own path is the longest, so only the kept one's is checked here.
    #[test]
    fn its_sockets_have_paths_that_are_short_enough() {
        let parent = "x".repeat(super::super::SOCKET_PATH - super::super::SOCKET_NAME - 14);
        let user = u32::MAX;
        let path = format!("{parent}/pgherd-ssh-{user}/0123456789/012345-0123456789abcdef/master");
        assert!(path.len() < super::super::SOCKET_PATH, "{}", path.len());
    }
}
