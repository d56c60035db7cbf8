//! `pgherd ssh` and `pgherd logs`, and the code that they share with `pgherd psql`.

use std::{path::Path, process::ExitStatus, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    signal::unix::{self, SignalKind},
    time::timeout,
};

use super::{Global, console::Console};
use crate::{
    engine::reach::{self, Reach},
    error::{Code, Error, Result},
    quantity::count,
    report::Terminal,
};

/// How long a program that is told to end may take to restore the terminal's settings.
const FAREWELL: Duration = Duration::from_secs(2);

/// `pgherd ssh`; returns the remote command's exit code.
pub(super) async fn ssh(
    global: &Global,
    host: &str,
    command: &[String],
    terminal: &Terminal,
) -> Result<u8> {
    let context = global.existing(&Console::new(terminal, false)).await?;
    let reach = Reach::of(&context, host).await?;
    let mut ssh = client(&reach.config);
    ssh.arg(reach.host.as_str());
    if let Some(line) = reach::line(command) {
        ssh.arg("--").arg(line);
    }
    there(ssh, &reach).await
}

/// `pgherd ssh --close`.
pub(super) async fn close(global: &Global, terminal: &Terminal) -> Result<()> {
    let context = global.existing(&Console::new(terminal, false)).await?;
    terminal.say(&match context.close_kept().await? {
        0 => "no connection was kept open".to_owned(),
        closed => format!("closed: {}", count(closed, "connection")),
    });
    Ok(())
}

/// `pgherd logs`; runs until the reader has seen enough.
pub(super) async fn logs(
    global: &Global,
    host: &str,
    unit: Option<&str>,
    follow: bool,
    lines: u32,
    terminal: &Terminal,
) -> Result<u8> {
    let context = global.existing(&Console::new(terminal, false)).await?;
    let reach = Reach::of(&context, host).await?;
    let journal = reach::journal(&context, &reach.host, unit, follow, lines);
    let mut ssh = client(&reach.config);
    if follow {
        // With a terminal on the host, journalctl ends when this process ends.
        ssh.arg("-tt");
    }
    ssh.arg(reach.host.as_str()).arg("--").arg(journal);
    let code = there(ssh, &reach).await?;
    match unit {
        Some(unit) if code == reach::NO_UNIT => Err(reach::no_unit(&context, &reach.host, unit)),
        _ => Ok(code),
    }
}

fn client(config: &Path) -> Command {
    let mut ssh = Command::new("ssh");
    ssh.arg("-F").arg(config);
    ssh
}

/// Waits for `ssh`. If another host answered, the error says which one.
async fn there(ssh: Command, reach: &Reach) -> Result<u8> {
    let mut endings = Endings::listen()?;
    let code = wait(ssh, "ssh", "openssh-client", &mut endings).await?;
    match reach.mistaken(code).await {
        Some(error) => Err(error),
        None => Ok(code),
    }
}

/// Waits for a program that uses the terminal. Ctrl-C goes to that program. Other signals that end pgherd end
/// the program too.
pub(super) async fn wait(
    mut program: Command,
    name: &str,
    package: &str,
    endings: &mut Endings,
) -> Result<u8> {
    let mut child = program.kill_on_drop(true).spawn().map_err(|error| {
        Error::new(Code::LocalSystemFailed, format!("cannot run {name}"))
            .because(error)
            .hint(format!("install it: package {package}"))
    })?;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            _ = tokio::signal::ctrl_c() => {}
            signal = endings.next() => {
                end(&mut child).await;
                return Ok(signal);
            }
        }
    };
    status.map(code).map_err(|error| {
        Error::new(Code::LocalSystemFailed, format!("{name} was lost")).because(error)
    })
}

/// Ends a program by SIGTERM, so that it can restore the terminal's settings.
async fn end(child: &mut Child) {
    let pid = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // The program may have ended by itself just now.
        let _ = kill_process(pid, Signal::TERM);
    }
    if timeout(FAREWELL, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

/// Signals from outside that end this process: the terminal is closed, or the system shuts down.
pub(super) struct Endings {
    hangup: unix::Signal,
    terminate: unix::Signal,
}

impl Endings {
    /// From now on, these signals do not end the process by themselves.
    pub(super) fn listen() -> Result<Self> {
        let listen = |kind| {
            unix::signal(kind).map_err(|error| {
                Error::new(Code::LocalSystemFailed, "cannot listen for signals").because(error)
            })
        };
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for the next signal. Returns its exit code as shells count: 128 and its number.
    pub(super) async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.hangup.recv() => 128 + 1,
            _ = self.terminate.recv() => 128 + 15,
        }
    }
}

fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status
        .code()
        .or(status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}
