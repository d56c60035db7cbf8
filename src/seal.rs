//! Encrypts to people's public keys, and decrypts with one of their private keys: the only user of `age`.
//!
//! A recipient is an age key (`age1…`) or an SSH key (`ssh-ed25519 AAAA…`); an identity is a file with the private half.

use std::{
    fmt, fs,
    io::{self, BufReader, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use age::{
    Decryptor, Encryptor,
    armor::{ArmoredReader, ArmoredWriter, Format},
    secrecy::ExposeSecret as _,
    ssh, x25519,
};

use crate::{
    error::{Code, Error, Result},
    given,
    secret::Content,
};

/// What a private key of age begins with.
const SECRET_KEY: &str = "AGE-SECRET-KEY-1";

/// Where an identity is looked for that no inventory names, below the home folder.
const USUAL: [&str; 2] = [".config/pgherd/identity", ".ssh/id_ed25519"];

/// Why a text is no recipient; `None` if it is one.
pub fn refused(recipient: &str) -> Option<&'static str> {
    if recipient.starts_with("ssh-rsa") || recipient.starts_with("ecdsa-") {
        return Some("only SSH keys of the type ssh-ed25519 can be recipients");
    }
    if recipient.starts_with(SECRET_KEY) {
        return Some("this is a private key; a recipient is the public half, `age1…`");
    }
    match parsed(recipient) {
        Some(_) => None,
        None => Some("a recipient is `age1…` or `ssh-ed25519 AAAA…`"),
    }
}

fn parsed(recipient: &str) -> Option<Box<dyn age::Recipient + Send>> {
    if recipient.starts_with("ssh-ed25519 ") {
        let key: ssh::Recipient = recipient.parse().ok()?;
        return Some(Box::new(key));
    }
    let key: x25519::Recipient = recipient.parse().ok()?;
    Some(Box::new(key))
}

/// Encrypts a text to all of `recipients`, as ASCII.
pub fn seal(text: &str, recipients: &[String]) -> Result<Vec<u8>> {
    let failed =
        |why: String| Error::new(Code::InternalError, "the state cannot be encrypted").cause(why);
    let mut keys = Vec::new();
    for recipient in recipients {
        let key = parsed(recipient).ok_or_else(|| failed(format!("no recipient: {recipient}")))?;
        keys.push(key);
    }
    let keys = keys
        .iter()
        .map(|key| -> &dyn age::Recipient { key.as_ref() });
    let encryptor = Encryptor::with_recipients(keys).map_err(|e| failed(e.to_string()))?;
    let write = || -> io::Result<Vec<u8>> {
        let armored = ArmoredWriter::wrap_output(Vec::new(), Format::AsciiArmor)?;
        let mut writer = encryptor.wrap_output(armored)?;
        writer.write_all(text.as_bytes())?;
        writer.finish()?.finish()
    };
    write().map_err(|e| failed(e.to_string()))
}

/// A private key of this user.
pub struct Identity {
    /// The file that it was read from.
    pub path: PathBuf,
    keys: Keys,
}

enum Keys {
    Age(Vec<x25519::Identity>),
    Ssh {
        key: Box<ssh::Identity>,
        public: String,
    },
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// The user's private key: the named file, else the first that is there of the usual ones.
    pub fn find(named: Option<&Path>) -> Result<Self> {
        if let Some(path) = named {
            return Self::read(path);
        }
        let usual = usual();
        match usual.iter().find(|path| path.exists()) {
            Some(path) => Self::read(path),
            None => {
                let places: Vec<String> = usual.iter().map(|it| it.display().to_string()).collect();
                Err(without(format!(
                    "there is no key of yours at {}",
                    places.join(" or ")
                )))
            }
        }
    }

    fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let (bytes, metadata) = match given::read(path) {
            Ok(read) => read,
            Err(e) => return Err(without(format!("{shown}: {e}"))),
        };
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(
                Error::new(Code::StateKeyUnusable, format!("others can read {shown}"))
                    .hint(format!("close it: chmod 600 {shown}")),
            );
        }
        let text = Content::from(String::from_utf8_lossy(&bytes).into_owned());
        let keys = match text.contains("PRIVATE KEY-----") {
            true => ssh_key(path, &text)?,
            false => Keys::Age(age_keys(path, &text)?),
        };
        let path = path.to_owned();
        Ok(Self { path, keys })
    }

    /// The text of what was encrypted to this key.
    pub fn open(&self, sealed: &[u8]) -> Result<Content> {
        let damaged = |why: String| {
            Error::new(Code::StateDamaged, "the shared state cannot be read").cause(why)
        };
        let armored = ArmoredReader::new(BufReader::new(sealed));
        let decryptor = Decryptor::new_buffered(armored).map_err(|e| damaged(e.to_string()))?;
        let opened = match &self.keys {
            Keys::Age(keys) => decryptor.decrypt(keys.iter().map(|key| key as &dyn age::Identity)),
            Keys::Ssh { key, .. } => {
                let key: &dyn age::Identity = key.as_ref();
                decryptor.decrypt(std::iter::once(key))
            }
        };
        let mut reader = opened.map_err(|error| match error {
            age::DecryptError::NoMatchingKeys => self.is_no_recipient(),
            other => damaged(other.to_string()),
        })?;
        let mut text = String::new();
        let read = reader.read_to_string(&mut text);
        read.map_err(|e| damaged(e.to_string()))?;
        Ok(text.into())
    }

    fn is_no_recipient(&self) -> Error {
        let key = self.path.display();
        Error::new(
            Code::StateKeyUnusable,
            format!("the shared state is not encrypted to the key in {key}"),
        )
        .hint("ask somebody who can read it to add your public key under state.recipients, and to run: pgherd state push")
        .hint("see your public key: pgherd state identity; or name another file: state.identity")
    }

    /// The public half, as the inventory has it under `recipients`.
    pub fn public(&self) -> String {
        match &self.keys {
            // There is at least one.
            Keys::Age(keys) => keys
                .first()
                .map(|key| key.to_public().to_string())
                .unwrap_or_default(),
            Keys::Ssh { public, .. } => public.clone(),
        }
    }
}

fn ssh_key(path: &Path, text: &str) -> Result<Keys> {
    let shown = path.display();
    let unusable = |why: &str| {
        Error::new(
            Code::StateKeyUnusable,
            format!("the SSH key in {shown} cannot decrypt the shared state"),
        )
        .cause(why)
        .hint("make a key for this alone: pgherd state identity --new; and have its public half put under state.recipients")
    };
    let key = ssh::Identity::from_buffer(text.as_bytes(), None)
        .map_err(|_| unusable("it is not a private key that age understands"))?;
    match &key {
        ssh::Identity::Unencrypted(_) => {}
        ssh::Identity::Encrypted(_) => {
            return Err(unusable(
                "it has a passphrase, and an agent cannot decrypt; pgherd asks for none",
            ));
        }
        ssh::Identity::Unsupported(_) => {
            return Err(unusable("it is of a type that age does not know"));
        }
    }
    let public = ssh::Recipient::try_from(key.clone())
        .map(|public| public.to_string().trim().to_owned())
        .map_err(|_| unusable("its public half cannot be read"))?;
    match public.starts_with("ssh-ed25519 ") {
        true => Ok(Keys::Ssh {
            key: Box::new(key),
            public,
        }),
        false => Err(unusable("it is not of the type ssh-ed25519")),
    }
}

fn age_keys(path: &Path, text: &str) -> Result<Vec<x25519::Identity>> {
    let lines = text.lines().map(str::trim);
    let mut keys = Vec::new();
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        // The parser's message could contain the key.
        let key = line.parse().map_err(|_| {
            Error::new(
                Code::StateKeyUnusable,
                format!(
                    "{} has a line that is no private key of age",
                    path.display()
                ),
            )
            .hint(format!("each line is `{SECRET_KEY}…`, or a comment"))
        })?;
        keys.push(key);
    }
    match keys.is_empty() {
        true => Err(without(format!("{} has no key", path.display()))),
        false => Ok(keys),
    }
}

fn without(why: String) -> Error {
    Error::new(
        Code::StateKeyMissing,
        "there is no key of yours that decrypts the shared state",
    )
    .cause(why)
    .hint("make one, and have its public half put under state.recipients: pgherd state identity --new")
    .hint("or name the file with yours: state: { identity: FILE }")
}

/// Where an identity is looked for that no inventory names.
fn usual() -> Vec<PathBuf> {
    let home = std::env::home_dir().unwrap_or_default();
    USUAL.iter().map(|path| home.join(path)).collect()
}

/// Makes a private key, at `named` or the usual place, and returns the file; one that is there stays.
pub fn make(named: Option<&Path>) -> Result<PathBuf> {
    let path = named.map_or_else(|| usual().swap_remove(0), Path::to_owned);
    let failed = |e: io::Error| {
        Error::new(
            Code::OutputUnwritable,
            format!("cannot write {}", path.display()),
        )
        .because(e)
    };
    if let Some(folder) = path.parent() {
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder);
        made.map_err(failed)?;
    }
    let key = x25519::Identity::generate();
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path);
    let mut file = file.map_err(failed)?;
    let public = key.to_public();
    let secret = key.to_string();
    let written = writeln!(file, "# public key: {public}\n{}", secret.expose_secret());
    written.and_then(|()| file.sync_all()).map_err(failed)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn identity(folder: &Path, name: &str) -> Identity {
        let path = make(Some(&folder.join(name))).unwrap();
        Identity::find(Some(&path)).unwrap()
    }

    #[test]
    fn every_recipient_reads_it_and_nobody_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let [ann, bob, eve] = ["ann", "bob", "eve"].map(|name| identity(dir.path(), name));
        let recipients = [&ann, &bob].map(Identity::public);
        let sealed = seal("hunter2", &recipients).unwrap();
        assert!(!String::from_utf8_lossy(&sealed).contains("hunter2"));
        for who in [&ann, &bob] {
            assert_eq!(who.open(&sealed).unwrap().as_str(), "hunter2");
        }
        let error = eve.open(&sealed).unwrap_err();
        assert_eq!(error.code(), Code::StateKeyUnusable);
        assert!(error.hints()[0].contains("state.recipients"), "{error}");
    }

    #[test]
    fn an_ssh_key_is_an_identity_unless_it_has_a_passphrase() {
        let dir = tempfile::tempdir().unwrap();
        let key = |name: &str, kind: &str, passphrase: &str| {
            let path = dir.path().join(name);
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", kind, "-N", passphrase, "-f"])
                .arg(&path)
                .status();
            assert!(made.unwrap().success());
            path
        };
        let open = Identity::find(Some(&key("open", "ed25519", ""))).unwrap();
        let public = open.public();
        assert_eq!(refused(&public), None);
        let sealed = seal("hunter2", &[public]).unwrap();
        assert_eq!(open.open(&sealed).unwrap().as_str(), "hunter2");
        for (path, why) in [
            (key("closed", "ed25519", "hunter2"), "passphrase"),
            (key("rsa", "rsa", ""), "ssh-ed25519"),
        ] {
            let error = Identity::find(Some(&path)).unwrap_err();
            assert_eq!(error.code(), Code::StateKeyUnusable);
            assert!(error.causes()[0].contains(why), "{error}");
        }
        let rsa = fs::read_to_string(dir.path().join("rsa.pub")).unwrap();
        assert!(refused(&rsa).unwrap().contains("ssh-ed25519"));
    }

    #[test]
    fn what_is_no_key_is_told_and_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = make(Some(&dir.path().join("key"))).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            make(Some(&path)).unwrap_err().code(),
            Code::OutputUnwritable
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "it stays");

        let key = text.lines().last().unwrap();
        assert!(refused(key).unwrap().contains("private key"));
        let broken = format!("{}x\n", &key[..key.len() - 4]);
        fs::write(&path, &broken).unwrap();
        let error = Identity::find(Some(&path)).unwrap_err();
        assert!(!format!("{error}{error:?}").contains(&key[20..30]));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = Identity::find(Some(&path)).unwrap_err();
        assert!(error.hints()[0].contains("chmod 600"), "{error}");
        let none = Identity::find(Some(&dir.path().join("none"))).unwrap_err();
        assert_eq!(none.code(), Code::StateKeyMissing);
        for text in ["", "age1abc", "ssh-ed25519 AAAA", "hello"] {
            assert!(refused(text).is_some(), "{text}");
        }
    }

    #[test]
    fn damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let ann = identity(dir.path(), "ann");
        let sealed = seal("hunter2", &[ann.public()]).unwrap();
        for cut in [0, 20, sealed.len() / 2, sealed.len() - 40] {
            let error = ann.open(&sealed[..cut]).unwrap_err();
            assert_eq!(error.code(), Code::StateDamaged, "{cut}: {error}");
        }
    }
}
