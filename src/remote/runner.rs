//! Starts a script on a host, whatever the login there is like.
//!
//! Between sshd and the script are the user's login shell, which may be any, its startup files, and sudo with
//! its own settings. Each of them may print something, and each may change the environment. So the script runs
//! in its own shell with a new environment, and a mark on both streams shows where the script's output begins.
//! Everything before the mark is the login's.

use super::Output;
use crate::{
    error::{Code, Error, Result},
    inventory::HostName,
};

/// What the script's shell prints on both streams before it reads the script.
const MARK: &str = "pgherd: the script begins";

/// Reads the whole script from standard input before it runs any of it, and runs it as root. The script is
/// never an argument, so no process list shows it, and no command in it can consume the rest of it.
///
/// The login's shell sees three words in single quotes, which bash, dash, zsh, fish and csh read in the same
/// way. There is no `exec` before them, because a restricted shell refuses it.
/// - The first becomes root.
/// - The second drops every variable except those for access to the network: `BASH_ENV`, `CDPATH`, `TMPDIR`,
///   `PGOPTIONS`, `PYTHONPATH`, bash's functions and all others would affect the script's commands. Variables
///   are dropped by name, so that no value becomes an argument.
/// - The third is the shell that reads the script.
pub(super) const RUNNER: &str = concat!(
    "/bin/sh -c '",
    r#"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH; export PATH; "#,
    r#"if [ "$(id -u)" = 0 ]; then exec /bin/sh -c "$0" "$1"; else exec sudo -n /bin/sh -c "$0" "$1"; fi' '"#,
    r#"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; export PATH; umask 022; cd /; "#,
    r#"exec env $(env | sed -n "s/^\([A-Za-z_][A-Za-z0-9_%]*\)=.*/-u \1/p" "#,
    r#"| grep -vixE -e "-u ((https?|ftp|all|no)_proxy|SSL_CERT_(FILE|DIR)|PIP_(INDEX_URL|EXTRA_INDEX_URL|TRUSTED_HOST|CERT|PROXY))") "#,
    r#"PATH="$PATH" LC_ALL=C HOME=/root /bin/sh -c "$0"' '"#,
    r#"echo "pgherd: the script begins"; echo "pgherd: the script begins" >&2; eval "$(cat)"'"#,
);

/// One stream of a script, divided at the mark.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// What the login printed.
    before: String,
    pub(super) text: String,
    begun: bool,
}

impl Told {
    /// Takes a line; returns it if it is the script's.
    pub(super) fn take<'a>(&mut self, line: &'a str) -> Option<&'a str> {
        if self.begun {
            self.text.push_str(line);
            return Some(line);
        }
        // The login's last output may have had no line end.
        match line.trim_end().strip_suffix(MARK) {
            Some(rest) => {
                self.before.push_str(rest);
                self.begun = true;
            }
            None => self.before.push_str(line),
        }
        None
    }
}

/// The script's result, or an error that says what prevented it.
pub(super) fn output(host: &HostName, code: i32, stdout: Told, stderr: Told) -> Result<Output> {
    if stdout.begun || stderr.begun {
        return Ok(Output {
            code,
            stdout: stdout.text,
            stderr: stderr.text,
        });
    }
    // Whatever sudo printed, it did not run anything.
    let sudo: Vec<&str> = stderr
        .before
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("sudo: ") || line.contains("sudo: not found"))
        // sudo only warns about this, and continues.
        .filter(|line| !line.starts_with("sudo: unable to resolve host"))
        .collect();
    if sudo.is_empty() {
        let hint = if stderr.before.contains("expired") || stderr.before.contains("Password change")
        {
            "renew the SSH user's password, or remove its expiry: sudo chage -M -1 USER"
        } else {
            "the SSH user needs a login shell that runs commands, and neither ForceCommand in sshd_config nor command= at its key"
        };
        return Err(Error::new(
            Code::SshLoginUnusable,
            "the login on the host did not run pgherd's command",
        )
        .on(host)
        .cause(format!(
            "it ended with exit code {code} before the script began"
        ))
        .excerpt("what it said", stderr.before)
        .excerpt("stdout", stdout.before)
        .left("nothing was done on the host")
        .hint(hint));
    }
    let said = sudo.join("; ");
    let hint = if said.contains("must have a tty") {
        "disable requiretty for this user in /etc/sudoers: Defaults:USER !requiretty"
    } else {
        "give the user passwordless sudo, or set ssh.user to root"
    };
    Err(
        Error::new(Code::NotRoot, "the SSH user may not become root")
            .on(host)
            .cause(said)
            .left("nothing was done on the host")
            .hint(hint),
    )
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    use super::*;

    fn told(lines: &[&str]) -> Told {
        let mut told = Told::default();
        for line in lines {
            told.take(line);
        }
        told
    }

    fn host() -> HostName {
        HostName::new("node1")
    }

    /// A hostile login: its variables, and what it does before the command.
    fn login(variables: &[(&str, &str)], startup: &str, script: &str) -> (Output, String) {
        let mut child = Command::new("/bin/bash")
            .args(["-c", &format!("{startup}\n{RUNNER}")])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(script.as_bytes()).unwrap();
        drop(stdin);
        let ended = child.wait_with_output().unwrap();
        let divided = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let mut told = Told::default();
            for line in text.split_inclusive('\n') {
                told.take(line);
            }
            told
        };
        let (stdout, stderr) = (divided(&ended.stdout), divided(&ended.stderr));
        let noise = format!("{}{}", stdout.before, stderr.before);
        let code = ended.status.code().unwrap();
        (output(&host(), code, stdout, stderr).unwrap(), noise)
    }

    fn is_root() -> bool {
        let id = Command::new("id").arg("-u").output().unwrap();
        String::from_utf8_lossy(&id.stdout).trim() == "0"
    }

    #[test]
    fn no_login_changes_what_a_script_does() {
        // Becoming root is sudo's part; everything after it can be tested only by root.
        if !is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let startup = dir.path().join("startup");
        std::fs::write(
            &startup,
            "echo startup noise; umask 077; cd /tmp; ls() { echo mine; }\n",
        )
        .unwrap();
        let startup = startup.display().to_string();
        let script = "cd etc && pwd; umask; ls -d /etc; echo \"[${TMPDIR-}${CDPATH-}${PGOPTIONS-}${GREETING-}]\"; \
                      echo \"$http_proxy\"; echo \"$LC_ALL $HOME\"; printf '%s' a:b | { IFS=: read x y; echo \"$x $y\"; }; \
                      echo fresh >/tmp/pgherd-login-test; echo over >/tmp/pgherd-login-test && rm /tmp/pgherd-login-test && echo written";
        let right = "/etc\n0022\n/etc\n[]\nhttp://proxy:3128\nC /root\na b\nwritten\n";
        let proxy = ("http_proxy", "http://proxy:3128");
        let table: &[(&[(&str, &str)], &str)] = &[
            (&[], ""),
            (&[], "umask 077"),
            (&[("BASH_ENV", &startup), ("ENV", &startup)], ""),
            (&[("CDPATH", "/var:/tmp"), ("IFS", "x/")], ""),
            (&[("TMPDIR", "/nowhere"), ("PGOPTIONS", "-c nonsense")], ""),
            (&[("LC_ALL", "de_DE.UTF-8"), ("LANG", "tr_TR.UTF-8")], ""),
            (&[("HOME", "/missing"), ("SHELLOPTS", "noclobber")], ""),
            (&[("GREETING", "two\nlines=of it\n-u PATH")], ""),
            (&[("BASH_FUNC_ls%%", "() { echo mine; }")], ""),
            (
                &[],
                "ls() { echo mine; }; export -f ls; alias sh=false; set -C",
            ),
            (&[], "PATH=/nowhere; export PATH"),
            (&[], "printf 'no end of line'; echo noise >&2"),
        ];
        for (variables, before) in table {
            let variables = [variables, &[proxy][..]].concat();
            let (output, _) = login(&variables, before, script);
            assert_eq!(output.stdout, right, "{variables:?} {before}");
            assert_eq!(
                (output.code, output.stderr.as_str()),
                (0, ""),
                "{variables:?} {before}"
            );
        }
        let (_, noise) = login(&[], "printf 'no end of line'; echo noise >&2", "true");
        assert_eq!(noise, "no end of linenoise\n");
    }

    #[test]
    fn what_the_login_printed_is_not_the_scripts() {
        let mark = format!("{MARK}\n");
        let stdout = told(&["Welcome to node1\n", &format!("no end{mark}"), "7\n"]);
        let stderr = told(&[
            "sudo: unable to resolve host node1: Name or service not known\n",
            &mark,
            "mkdir: no\n",
        ]);
        let output = output(&host(), 1, stdout, stderr).unwrap();
        assert_eq!(
            (output.stdout.as_str(), output.stderr.as_str()),
            ("7\n", "mkdir: no\n")
        );
    }

    #[test]
    fn who_may_not_become_root_is_told_so_with_sudos_own_words() {
        let table = [
            (vec!["sudo: a password is required\n"], "passwordless sudo"),
            (
                vec![
                    "sudo: unable to resolve host node1: Name or service not known\n",
                    "sudo: a password is required\n",
                ],
                "passwordless sudo",
            ),
            (
                vec!["sudo: sorry, you must have a tty to run sudo\n"],
                "requiretty",
            ),
            (
                vec!["/bin/sh: 1: exec: sudo: not found\n"],
                "passwordless sudo",
            ),
        ];
        for (lines, hint) in table {
            let error = output(&host(), 1, Told::default(), told(&lines)).unwrap_err();
            assert_eq!(error.what(), "the SSH user may not become root");
            let last = lines.last().unwrap().trim();
            assert!(error.causes()[0].contains(last), "{error:?}");
            assert!(error.hints()[0].contains(hint), "{error:?}");
        }
    }

    #[test]
    fn a_host_that_does_not_know_its_own_name_is_not_one_without_sudo() {
        let warned = told(&["sudo: unable to resolve host node1: Name or service not known\n"]);
        let error = output(&host(), 1, Told::default(), warned).unwrap_err();
        assert_eq!(error.code(), Code::SshLoginUnusable, "{error:?}");
        assert!(
            error.excerpts()[0].text.contains("unable to resolve"),
            "{error:?}"
        );
    }

    #[test]
    fn a_login_that_runs_something_else_is_named_with_what_it_said() {
        let stdout = told(&["This account is currently not available.\n"]);
        let error = output(&host(), 1, stdout, Told::default()).unwrap_err();
        assert!(error.what().contains("did not run"), "{error:?}");
        assert!(
            error.excerpts()[0].text.contains("not available"),
            "{error:?}"
        );
    }

    #[test]
    fn a_password_that_has_ended_is_told_as_that() {
        let stderr = told(&[
            "WARNING: Your password has expired.\n",
            "Password change required but no TTY available.\n",
        ]);
        let error = output(&host(), 1, Told::default(), stderr).unwrap_err();
        assert!(error.hints()[0].contains("chage"), "{error:?}");
    }
}
