//! A command on a host whose input and output are a stream here.

use std::io;

use openssh::{Session, Stdio};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, copy},
    net::UnixStream,
};

use crate::{
    error::{Code, Error, Result},
    inventory::HostName,
    shell::quote,
};

/// What the command's shell prints before the command begins: whatever the login has printed before is not the command's.
const MARK: &str = "pgherd: the stream begins";
/// The login's greeting has no more bytes than this.
const GREETING: usize = 64 << 10;
/// How much of the command's errors is kept.
const SAID: u64 = 8 << 10;

/// The line for the login's shell, which runs `command` as root. It is an argument there, so it must hold no secret.
fn as_root(command: &str) -> String {
    let command = format!("cd /; echo '{MARK}'; exec {command}");
    let become_root = r#"if [ "$(id -u)" = 0 ]; then exec /bin/sh -c "$0"; else exec sudo -n /bin/sh -c "$0"; fi"#;
    format!("/bin/sh -c {} {}", quote(become_root), quote(&command))
}

/// Runs `command` as root and returns when it has ended, or the stream.
pub(super) async fn pipe(
    session: &Session,
    host: &HostName,
    command: &str,
    stream: UnixStream,
) -> Result<()> {
    let failed = |what: String| {
        Error::new(Code::SshConnectionLost, "a command on the host broke off")
            .on(host)
            .cause(what)
    };
    let spawned = session
        .raw_command(as_root(command))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .await;
    let mut child = spawned.map_err(|error| failed(error.to_string()))?;
    let (Some(mut stdin), Some(mut stdout), Some(stderr)) = (
        child.stdin().take(),
        child.stdout().take(),
        child.stderr().take(),
    ) else {
        return Err(failed("it has no input and output".into()));
    };
    let (mut from, mut to) = stream.into_split();
    let up = async {
        let _ = copy(&mut from, &mut stdin).await;
        let _ = stdin.shutdown().await;
    };
    let down = async {
        let begun = begins(&mut stdout).await;
        if begun.is_ok() {
            let _ = copy(&mut stdout, &mut to).await;
        }
        let _ = to.shutdown().await;
        begun
    };
    let mut said = String::new();
    let mut stderr = stderr.take(SAID);
    let ((), begun, _) = tokio::join!(up, down, stderr.read_to_string(&mut said));
    let status = child.wait().await;
    let ended_well = status.is_ok_and(|status| status.success());
    match begun {
        Ok(()) if ended_well => Ok(()),
        Ok(()) if said.trim().is_empty() => Ok(()),
        Ok(()) => Err(failed(said.trim().to_owned())),
        Err(error) => Err(failed(format!("{error}: {}", said.trim()))),
    }
}

/// Reads up to the mark.
async fn begins(stdout: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let end = format!("{MARK}\n");
    let mut before = Vec::new();
    while !before.ends_with(end.as_bytes()) {
        if before.len() > GREETING {
            return Err(io::Error::other("the login prints too much"));
        }
        before.push(stdout.read_u8().await?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_login_prints_is_not_the_commands() {
        let said = format!("Welcome\nno end{MARK}\nprotocol");
        let mut stdout = said.as_bytes();
        begins(&mut stdout).await.unwrap();
        assert_eq!(stdout, b"protocol");
        let mut stdout = &b"not available\n"[..];
        assert!(begins(&mut stdout).await.is_err());
    }

    #[test]
    fn a_command_of_any_words_goes_through_two_shells() {
        let line = as_root("printf '%s|' \"a b\" 'c' \"$HOME\"");
        let line = line.replace("sudo -n ", "");
        let output = std::process::Command::new("/bin/bash")
            .args(["-c", &line])
            .env("HOME", "/h")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(said, format!("{MARK}\na b|c|/h|"));
    }
}
