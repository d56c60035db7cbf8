//! The SSH key of pgherd.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use sha2::{Digest, Sha256};
use tempfile::TempPath;

use super::files;
use crate::{
    error::{Code, Error, Result},
    given,
};

/// A private key, and its public key for hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The value of `ssh`'s `IdentityFile`.
    pub private_path: PathBuf,
    /// One line: `ssh-ed25519 AAAA… comment`.
    pub public_key: String,
}

/// The user's own key.
pub(super) fn of_user(path: &Path) -> Result<Identity> {
    let (bytes, _) =
        given::read(path).map_err(|e| files::failed("cannot read ssh.identity_file", path, e))?;
    // `ssh` accepts a public key here if an agent holds the private one.
    let itself = std::str::from_utf8(&bytes).ok().and_then(public_line);
    let public_key = match itself {
        Some(line) => line,
        None => public_half(path, &bytes)?,
    };
    Ok(Identity {
        private_path: path.to_owned(),
        public_key,
    })
}

fn public_half(path: &Path, bytes: &[u8]) -> Result<String> {
    let output = keygen(["-y", "-P", "", "-f"], path)?;
    if let Some(line) = line_of(&output) {
        return Ok(line);
    }
    let mode = fs::metadata(path).map_or(0, |m| m.permissions().mode() & 0o7777);
    let error = Error::new(
        Code::FileUnusable,
        format!(
            "ssh.identity_file: {} cannot be used as a private key",
            path.display()
        ),
    )
    .excerpt("ssh-keygen", String::from_utf8_lossy(&output.stderr));
    if mode & 0o077 != 0 {
        return Err(error.hint(format!(
            "others can read it, so ssh refuses it: chmod 600 {}",
            path.display()
        )));
    }
    if !is_private_key(bytes) {
        return Err(error.hint("name the private key, as for ssh -i"));
    }
    // The key has a passphrase: an agent must hold it, and the public key must be beside it.
    let beside = beside(path);
    match files::read(&beside)? {
        Some(text) => public_line(&text).ok_or_else(|| {
            Error::new(
                Code::FileUnusable,
                format!("{} is not a public key", beside.display()),
            )
            .hint(write_public(path, &beside))
        }),
        None => Err(error
            .cause(format!(
                "it seems to have a passphrase, and there is no {} beside it",
                beside.display()
            ))
            .hint(write_public(path, &beside))
            .hint(format!(
                "and let the agent have the key: ssh-add {}",
                path.display()
            ))),
    }
}

fn write_public(path: &Path, beside: &Path) -> String {
    format!(
        "write its public half once: ssh-keygen -y -f {} > {}",
        path.display(),
        beside.display()
    )
}

fn is_private_key(bytes: &[u8]) -> bool {
    bytes.starts_with(b"-----BEGIN ") && bytes.windows(12).any(|w| w == b"PRIVATE KEY-")
}

/// The cluster's own key at `path`, created if it is missing.
pub(super) fn of_cluster(path: &Path, cluster: &str) -> Result<Identity> {
    if !path.exists() {
        make(path, cluster)?;
    }
    let output = keygen(["-y", "-P", "", "-f"], path)?;
    let public_key = line_of(&output).ok_or_else(|| {
        Error::new(
            Code::WorkspaceDamaged,
            format!(
                "{} is no longer a private key",
                files::origin(path).display()
            ),
        )
        .excerpt("ssh-keygen", String::from_utf8_lossy(&output.stderr))
        .hint("restore it from a backup; the hosts accept no other key")
        .hint("if there are no hosts yet, remove it: the next `up` makes a new one")
    })?;
    // The private key decides; an interrupted run may have left no matching public key.
    let line = format!("{public_key}\n");
    if files::read(&beside(path))?.as_deref() != Some(&line) {
        files::write(&beside(path), files::PUBLIC, line.as_bytes())?;
    }
    Ok(Identity {
        private_path: path.to_owned(),
        public_key,
    })
}

/// Creates a key under another name and then renames it, unless another process was faster.
fn make(path: &Path, cluster: &str) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let scratch = tempfile::Builder::new()
        .prefix(files::UNFINISHED)
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(parent)
        .map_err(|e| files::failed("cannot make a folder in", parent, e))?;
    let made = scratch.path().join("key");
    let comment = format!("pgherd:{cluster}");
    let output = keygen(
        ["-q", "-t", "ed25519", "-N", "", "-C", &comment, "-f"],
        &made,
    )?;
    if !output.status.success() {
        return Err(
            Error::new(Code::LocalSystemFailed, "ssh-keygen did not make a key")
                .excerpt("ssh-keygen", String::from_utf8_lossy(&output.stderr)),
        );
    }
    let shown = fs::File::open(&made)
        .and_then(|file| file.sync_all())
        .and_then(|()| TempPath::try_from_path(&made))
        .and_then(|made| made.persist_noclobber(path).map_err(|e| e.error))
        .and_then(|()| files::sync_parent(path));
    match shown {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(files::failed("cannot write", path, e))
        }
        _ => Ok(()),
    }
}

/// `path` with `.pub` appended.
pub(super) fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    PathBuf::from(name)
}

fn keygen<const N: usize>(arguments: [&str; N], path: &Path) -> Result<Output> {
    let mut command = Command::new("ssh-keygen");
    command.args(arguments).arg(path);
    run(command)
}

/// Runs an OpenSSH tool that asks no questions.
pub(super) fn run(mut command: Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .env("SSH_ASKPASS_REQUIRE", "never")
        .output()
        .map_err(|e| {
            let tool = command.get_program().to_string_lossy().into_owned();
            Error::new(Code::LocalSystemFailed, format!("cannot run {tool}"))
                .because(e)
                .hint("install OpenSSH's client (the package openssh-client)")
        })
}

fn line_of(output: &Output) -> Option<String> {
    output
        .status
        .success()
        .then(|| std::str::from_utf8(&output.stdout).ok())
        .flatten()
        .and_then(public_line)
}

/// The first line that is a public key: a type, its base64, and maybe a comment.
fn public_line(text: &str) -> Option<String> {
    text.lines()
        .map(str::trim)
        .find(|line| key_of(line).is_some())
        .map(str::to_owned)
}

/// `type base64` from a line in OpenSSH's public format, without its comment.
pub(super) fn key_of(line: &str) -> Option<String> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let mut words = line.split_ascii_whitespace();
    let (kind, blob) = (words.next()?, words.next()?);
    let decoded = STANDARD.decode(blob).ok()?;
    // The blob begins with the length of its type, and the type (RFC 4253, 6.6).
    let (length, rest) = decoded.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    (rest.get(..length)? == kind.as_bytes()).then(|| format!("{kind} {blob}"))
}

/// The fingerprint of a public key's base64, as `ssh-keygen -l` and sshd's log show it.
pub(crate) fn fingerprint(blob: &str) -> Option<String> {
    use base64::{
        Engine,
        engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
    };
    let digest = Sha256::digest(STANDARD.decode(blob).ok()?);
    Some(format!("SHA256:{}", STANDARD_NO_PAD.encode(digest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ssh_keygen(arguments: &[&str], path: &Path) {
        let mut command = Command::new("ssh-keygen");
        command.arg("-q").args(arguments).arg("-f").arg(path);
        assert!(run(command).unwrap().status.success());
    }

    #[test]
    fn a_key_is_made_once_and_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("id_ed25519");
        let made = of_cluster(&path, "pg").unwrap();
        assert!(made.public_key.starts_with("ssh-ed25519 AAAA"));
        assert!(made.public_key.ends_with(" pgherd:pg"));
        assert_eq!(of_cluster(&path, "pg").unwrap(), made);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(
            files::names(dir.path()).unwrap(),
            ["id_ed25519", "id_ed25519.pub"]
        );
    }

    #[test]
    fn processes_at_the_same_time_agree_on_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("id_ed25519");
        let keys: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..6)
                .map(|_| scope.spawn(|| of_cluster(&path, "pg").unwrap().public_key))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
        assert_eq!(
            files::names(dir.path()).unwrap(),
            ["id_ed25519", "id_ed25519.pub"]
        );
    }

    #[test]
    fn an_interrupted_generation_is_completed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("id_ed25519");
        let made = of_cluster(&path, "pg").unwrap();
        fs::remove_file(beside(&path)).unwrap();
        assert_eq!(of_cluster(&path, "pg").unwrap(), made);
        fs::write(beside(&path), "ssh-ed25519 half").unwrap();
        assert_eq!(of_cluster(&path, "pg").unwrap(), made);
        assert_eq!(
            fs::read_to_string(beside(&path)).unwrap().trim_end(),
            made.public_key
        );
    }

    #[test]
    fn a_broken_key_is_an_error_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("id_ed25519");
        files::write(&path, files::PRIVATE, b"-----BEGIN OPENSSH").unwrap();
        assert!(of_cluster(&path, "pg").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"-----BEGIN OPENSSH");
    }

    #[test]
    fn the_users_key_is_used_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("my key");
        ssh_keygen(&["-t", "ed25519", "-N", "", "-C", "me"], &path);
        let public = fs::read_to_string(beside(&path)).unwrap();
        fs::remove_file(beside(&path)).unwrap();
        let identity = of_user(&path).unwrap();
        assert_eq!(identity.public_key, public.trim_end());
        assert_eq!(identity.private_path, path);
        assert!(!beside(&path).exists(), "nothing is written beside it");
    }

    #[test]
    fn a_passphrase_needs_the_public_half_beside_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        ssh_keygen(&["-t", "ed25519", "-N", "hunter2", "-C", "me"], &path);
        let public = fs::read_to_string(beside(&path)).unwrap();
        assert_eq!(of_user(&path).unwrap().public_key, public.trim_end());
        // An agent may hold it, with only the public key on this machine.
        assert_eq!(
            of_user(&beside(&path)).unwrap().public_key,
            public.trim_end()
        );
        fs::remove_file(beside(&path)).unwrap();
        let error = of_user(&path).unwrap_err();
        assert!(error.hints()[0].contains("ssh-keygen -y -f"), "{error:?}");
    }

    #[test]
    fn what_is_no_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert!(
            of_user(&path)
                .unwrap_err()
                .to_string()
                .contains("identity_file")
        );
        files::write(&path, files::PRIVATE, b"hello\n").unwrap();
        assert!(of_user(&path).unwrap_err().hints()[0].contains("private key"));
        ssh_keygen(&["-t", "ed25519", "-N", ""], &dir.path().join("open"));
        let open = dir.path().join("open");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(of_user(&open).unwrap_err().hints()[0].contains("chmod 600"));
    }
}
