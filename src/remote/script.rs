//! Builds shell scripts from values of any content.

use std::fmt;

use crate::{render::File, shell::quote};

/// What every script starts with: it stops at the first failure, speaks plain English, makes what
/// others may read, and can put a file in place whole or not at all. A file that is a mount point (as a container's `/etc/hosts`
/// can be) cannot be renamed over, and is written in place.
const PRELUDE: &str = r#"set -eu
umask 022
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
put() {
  [ -d "${1%/*}" ] || mkdir -p "${1%/*}"
  t=$(mktemp "$1.pgherd.XXXXXX")
  cat >"$t"
  chown "$2" "$t"
  chmod "$3" "$t"
  mv -f "$t" "$1" 2>/dev/null || { cat "$t" >"$1"; rm -f "$t"; }
}
"#;

/// Makes the folder of what pgherd notes on a host until its next boot, or closes it to everybody else:
/// whoever can open a lock file can hold its lock. Locks that others could have held do not count.
const NOTES: &str =
    "[ \"$(stat -c %a%u /run/pgherd 2>/dev/null)\" = 7000 ] || rm -f /run/pgherd/*.lock
install -d -o root -g root -m 0700 /run/pgherd";

/// What a unit has not taken over yet is noted in this folder, a file a unit.
pub const PENDING: &str = "/run/pgherd/pending";

/// A script to run as root; it may hold secrets, so it does not show itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Script(String);

impl Script {
    pub fn new() -> Self {
        Self(PRELUDE.to_owned())
    }

    /// A script that only looks: no prelude, and it goes on after a failure.
    pub fn probe(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Appends a line, or several, of shell.
    pub fn line(mut self, text: impl AsRef<str>) -> Self {
        self.0.push_str(text.as_ref());
        self.0.push('\n');
        self
    }

    /// Makes the folder of notes, for whatever comes after it.
    pub fn notes(self) -> Self {
        self.line(NOTES)
    }

    /// The same with the folder for what a unit has not taken over yet.
    pub fn pending(self) -> Self {
        self.notes()
            .line(format!("install -d -o root -g root -m 0700 {PENDING}"))
    }

    /// Makes a second run of the same step wait for the first, which may still be at work on the
    /// host after its connection broke.
    pub fn alone(self, name: &str) -> Self {
        self.notes()
            .line(format!("exec 9>/run/pgherd/{name}.lock"))
            .line(
                "flock -n 9 || { echo 'waiting for an earlier run of this step to end'; flock -w 600 9 || \
                 { echo 'it did not end within 600 s: look for it with `ls -l /proc/[0-9]*/fd/* | grep /run/pgherd/`, as root' >&2; exit 75; }; }",
            )
    }

    /// Puts `file` in place with its owner and mode.
    pub fn put(self, file: &File) -> Self {
        self.line(format!(
            "printf '%s' {} | put {} {}:{} {:04o}",
            quote(&file.content),
            quote(&file.path),
            file.owner,
            file.group,
            file.mode
        ))
    }

    /// The text, for the one place that sends it to a host.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the script holds `needle`; for tests of planning.
    #[cfg(test)]
    pub(crate) fn contains(&self, needle: &str) -> bool {
        self.0.contains(needle)
    }
}

impl Default for Script {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Script({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_value_survives_the_shell(value in "[^\0]{0,200}") {
            let output = Command::new("/bin/sh")
                .args(["-c", &format!("printf %s {}", quote(&value))])
                .output()
                .expect("sh runs");
            prop_assert_eq!(String::from_utf8_lossy(&output.stdout), value);
        }
    }

    #[test]
    fn nothing_but_one_function_makes_the_folder_of_notes() {
        use std::{fs, path::Path};
        fn look(folder: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    look(&path, found);
                    continue;
                }
                let text = fs::read_to_string(&path).unwrap_or_default();
                // An image that is being built is no host.
                let others = !path.ends_with("convert.sh") && !path.ends_with("remote/script.rs");
                let makes = |line: &&str| {
                    // Folders of other names are not that one.
                    let line = line.trim_start().replace("/run/pgherd-", "");
                    line.contains("/run/pgherd")
                        && ["mkdir", "install -d", "tmpfiles"]
                            .iter()
                            .any(|it| line.contains(it))
                };
                if others && let Some(line) = text.lines().find(makes) {
                    found.push(format!("{}: {line}", path.display()));
                }
            }
        }
        let mut found = Vec::new();
        for folder in ["src", "templates"] {
            look(
                &Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
                &mut found,
            );
        }
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn a_folder_of_notes_that_others_could_open_is_closed_and_its_locks_are_new() {
        use std::{fs, os::unix::fs::PermissionsExt};
        // Only root can give a folder to root.
        if Command::new("id").arg("-u").output().unwrap().stdout != b"0\n" {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("pgherd");
        let run = || {
            let script = Script::probe("umask 000\n").pending();
            let script = script
                .expose()
                .replace("/run/pgherd", folder.to_str().unwrap());
            let ended = Command::new("/bin/sh").args(["-euc", &script]).status();
            assert!(ended.unwrap().success());
            let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
            assert_eq!(mode(folder.join("pending")), 0o700);
            mode(folder.clone())
        };
        assert_eq!(run(), 0o700);
        let lock = folder.join("prepare.lock");
        fs::write(&lock, "").unwrap();
        assert_eq!(run(), 0o700);
        assert!(lock.exists(), "a step that runs keeps its lock");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(run(), 0o700);
        assert!(!lock.exists(), "somebody else may hold it");
    }
}
