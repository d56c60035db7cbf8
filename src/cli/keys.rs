//! Keys that somebody presses while something is shown.

use std::{
    fs,
    future::pending,
    io::{self, IsTerminal as _, Read as _},
    process::{Command, Stdio},
    thread,
};

use tokio::sync::mpsc;

/// Keys come one by one and are not shown, until this is dropped.
pub(super) struct Keys {
    /// The terminal's settings before, in the words of `stty`.
    before: String,
    pressed: mpsc::UnboundedReceiver<u8>,
}

impl Keys {
    /// `None` if nobody can press any: standard input is no terminal, or this process runs in the background, where
    /// it would be stopped.
    pub(super) fn listen() -> Option<Self> {
        let process = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        if !io::stdin().is_terminal() || !is_in_foreground(&process) {
            return None;
        }
        let before = stty(&["-g"])?.trim().to_owned();
        // Ctrl-C and Ctrl-Z stay what they are.
        stty(&["-icanon", "-echo", "min", "1"])?;
        let (press, pressed) = mpsc::unbounded_channel();
        // A thread of its own, which ends with the process: a read cannot be given up.
        thread::spawn(move || {
            let mut key = [0];
            while io::stdin().lock().read_exact(&mut key).is_ok() && press.send(key[0]).is_ok() {}
        });
        Some(Self { before, pressed })
    }

    /// Waits until `q` is pressed.
    pub(super) async fn quit(keys: Option<&mut Self>) {
        if let Some(keys) = keys {
            while let Some(key) = keys.pressed.recv().await {
                if key.eq_ignore_ascii_case(&b'q') {
                    return;
                }
            }
        }
        pending::<()>().await;
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // A terminal that is gone needs no settings.
        let _ = stty(&[&self.before]);
    }
}

/// Runs `stty` on this terminal; returns what it prints.
fn stty(words: &[&str]) -> Option<String> {
    let output = Command::new("stty")
        .args(words)
        .stdin(Stdio::inherit())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(printed)
}

/// Whether a process has the terminal, according to its `/proc/PID/stat`: its group is the terminal's.
fn is_in_foreground(stat: &str) -> bool {
    // The command's name, in parentheses, may have blanks.
    let Some((_, rest)) = stat.rsplit_once(')') else {
        return false;
    };
    let mut words = rest.split_whitespace().skip(2);
    let (group, _session, _terminal) = (words.next(), words.next(), words.next());
    group.is_some() && group == words.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_background_no_key_is_waited_for() {
        let rest = "0 -1 4194304 1 2";
        assert!(is_in_foreground(&format!(
            "42 (pg) herd) R 7 42 7 34816 42 {rest}"
        )));
        assert!(!is_in_foreground(&format!(
            "42 (pgherd) R 7 42 7 34816 7 {rest}"
        )));
        assert!(!is_in_foreground(&format!(
            "42 (pgherd) R 7 42 7 0 -1 {rest}"
        )));
        assert!(!is_in_foreground(""));
    }
}
