//! What went wrong on the way to a host that is reached through others.
//!
//! The `ssh` that connects to a host starts another one to the bastion, and knows only that this one has ended. So
//! that one's messages go to a file of the connection's own.

use std::{fs, path::Path};

use super::connect_error::{is_final, is_wrong_key};
use crate::{
    error::{Code, Error},
    inventory::HostName,
    shell::quote,
};

/// How ssh calls the other end of a connection that a command has made. Its message has it only as long as the host
/// itself has said nothing.
const UNNAMED: &str = "UNKNOWN port 65535";

/// The config, changed so that messages about the way go to the file `said`.
pub(super) fn telling(config: &str, said: &Path) -> String {
    let file = quote(&said.display().to_string()).replace('%', "%%");
    let lines = config.lines().map(|line| match is_way(line) {
        // Messages about a bastion that does not reach the host are no errors for ssh.
        true => {
            let told = line.replace("LogLevel=ERROR", "LogLevel=INFO");
            format!("{told} 2>>{file}\n")
        }
        false => format!("{line}\n"),
    });
    lines.collect()
}

fn is_way(line: &str) -> bool {
    line.trim_start().starts_with("ProxyCommand ssh ")
}

/// What was said on the way, if that is where a connection has ended; `error` is the message of the `ssh` to the
/// host. Empty if there was no answer, of whomever.
pub(super) fn said(error: &str, said: &Path) -> Option<String> {
    if !error.contains(UNNAMED) {
        return None;
    }
    let text = fs::read(said).ok()?;
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    (!text.is_empty() || error.contains("timed out")).then_some(text)
}

/// Whether waiting cannot help.
pub(super) fn ends_it(said: &str) -> bool {
    is_final(said) || is_wrong_key(said) || said.contains("administratively prohibited")
}

/// The error that names the bastion. `config` is the text of the `ssh_config`, and `path` its path if it lasts.
pub(super) fn error(host: &HostName, config: &str, path: Option<&Path>, said: &str) -> Error {
    let ways: Vec<&str> = config.lines().filter(|line| is_way(line)).collect();
    let names: Vec<&str> = names(&ways);
    let bastion = match &names[..] {
        [] => "the bastion".to_owned(),
        [one] => format!("the bastion {one}"),
        several => format!("one of the bastions {}", several.join(", ")),
    };
    let (what, hint) = found(said, &bastion, &names);
    let mut error = Error::new(Code::BastionFailed, what).on(host);
    let lines = said.lines().map(str::trim);
    // A usual key that the user does not have is no reason.
    let reasons = lines.filter(|it| !it.is_empty() && !it.starts_with("no such identity: "));
    for line in reasons {
        error = error.cause(line);
    }
    let error = error.left("nothing was sent to the host").hint(hint);
    match (path, ways.first()) {
        (Some(path), Some(way)) => {
            let arguments = way.rsplit(" -W %h:%p ").next().unwrap_or("");
            let path = quote(&path.display().to_string());
            error.hint(format!("look at it by hand: ssh -v -F {path} {arguments}"))
        }
        _ => error,
    }
}

/// The bastions, in the order in which they are passed: each line leads to the one before it in the file.
fn names<'a>(ways: &[&'a str]) -> Vec<&'a str> {
    let mut names: Vec<&str> = ways
        .iter()
        .filter_map(|way| way.split_whitespace().last())
        .collect();
    // The line of the hosts comes first, and leads to the last one.
    if !names.is_empty() {
        names.rotate_left(1);
    }
    names
}

/// What is wrong, and what helps.
fn found(said: &str, bastion: &str, names: &[&str]) -> (String, String) {
    if said.is_empty() {
        return (
            format!("no answer through {bastion}"),
            "check that both run, that the host has this address and ssh.port, and that its firewall lets the bastion in".to_owned(),
        );
    }
    if is_wrong_key(said) {
        return (
            format!("{bastion} shows a host key that you have not accepted"),
            format!(
                "compare its key with the one on its own console, and accept it: ssh {}",
                names.first().unwrap_or(&"")
            ),
        );
    }
    if said.contains("Permission denied") || said.contains("Too many authentication") {
        return (
            format!("{bastion} refuses the login"),
            "it is offered the keys of your own ssh, of the agent and of ssh.identity_file; its user is that of ssh.proxy_jump, or of your ssh settings".to_owned(),
        );
    }
    if said.contains("administratively prohibited") {
        return (
            format!("{bastion} does not forward connections"),
            "allow it in the bastion's sshd_config (AllowTcpForwarding yes or local, no PermitOpen that leaves the host out), and at your key there".to_owned(),
        );
    }
    if said.contains("open failed") || said.contains("stdio forwarding failed") {
        return (
            format!("{bastion} cannot reach the host"),
            "check that the host runs, its address and ssh.port, and that its firewall lets the bastion in".to_owned(),
        );
    }
    (
        format!("{bastion} cannot be reached"),
        "check that it runs, and its name in ssh.proxy_jump".to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "\nHost node1\n    HostName 10.0.0.1\n\nHost node1\n    \
        ProxyCommand ssh -F /w/ssh_config -o BatchMode=yes -o LogLevel=ERROR -W %h:%p -l me inner\n    \
        LogLevel ERROR\n\nHost outer\n    StrictHostKeyChecking yes\n\nHost inner\n    \
        ProxyCommand ssh -F /w/ssh_config -o BatchMode=yes -o LogLevel=ERROR -W %h:%p -p 2222 outer\n";

    fn told(said: &str) -> (String, String) {
        let (config, _) = CONFIG.split_once("\nHost outer").unwrap();
        let error = error(
            &HostName::new("node1"),
            config,
            Some(Path::new("/w/ssh_config")),
            said,
        );
        assert_eq!(error.code(), Code::BastionFailed);
        (error.what().to_owned(), error.hints().join("\n"))
    }

    #[test]
    fn the_bastion_is_named_with_what_it_said() {
        for (said, what, hint) in [
            (
                "Host key verification failed.",
                "the bastion inner shows a host key that you have not accepted",
                "accept it: ssh inner",
            ),
            (
                "me@inner: Permission denied (publickey).",
                "the bastion inner refuses the login",
                "the agent",
            ),
            (
                "channel 0: open failed: administratively prohibited: open failed\nstdio forwarding failed",
                "the bastion inner does not forward connections",
                "AllowTcpForwarding",
            ),
            (
                "channel 0: open failed: connect failed: Connection refused\nstdio forwarding failed",
                "the bastion inner cannot reach the host",
                "firewall",
            ),
            (
                "ssh: connect to host inner port 22: Connection refused",
                "the bastion inner cannot be reached",
                "ssh -v -F /w/ssh_config -l me inner",
            ),
            ("", "no answer through the bastion inner", "firewall"),
        ] {
            let told = told(said);
            assert_eq!(told.0, what);
            assert!(told.1.contains(hint), "{}", told.1);
        }
    }

    #[test]
    fn of_several_all_are_named_in_their_order() {
        let error = error(&HostName::new("node1"), CONFIG, None, "x");
        assert!(
            error.what().contains("one of the bastions outer, inner"),
            "{error}"
        );
    }

    #[test]
    fn only_the_way_is_told() {
        let told = telling(CONFIG, Path::new("/tmp/a b/said"));
        assert_eq!(told.matches(" 2>>'/tmp/a b/said'\n").count(), 2, "{told}");
        assert_eq!(told.matches("LogLevel=INFO").count(), 2, "{told}");
        assert!(told.contains("    LogLevel ERROR\n"), "{told}");
    }

    #[test]
    fn what_the_host_itself_says_is_not_the_bastions() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("said");
        fs::write(&file, "a banner\n").unwrap();
        let of = |error| said(error, &file);
        assert_eq!(of("ubuntu@10.0.0.1: Permission denied (publickey)."), None);
        let cut = "Connection closed by UNKNOWN port 65535";
        assert_eq!(of(cut).as_deref(), Some("a banner"));
        fs::write(&file, "").unwrap();
        assert_eq!(of(cut), None, "the host may have closed it");
        let silent = "Connection to UNKNOWN port 65535 timed out";
        assert_eq!(of(silent).as_deref(), Some(""));
        fs::remove_file(&file).unwrap();
        assert_eq!(of(silent), None, "a way of the user's own");
    }

    #[test]
    fn what_nobody_can_wait_for_ends_it() {
        for (said, ends) in [
            ("Host key verification failed.", true),
            ("me@jump: Permission denied (publickey).", true),
            (
                "open failed: administratively prohibited: open failed",
                true,
            ),
            (
                "ssh: connect to host jump port 22: Connection refused",
                false,
            ),
            ("open failed: connect failed: No route to host", false),
        ] {
            assert_eq!(ends_it(said), ends, "{said}");
        }
    }
}
