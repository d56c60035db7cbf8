//! Scripts for what a host tells of itself, for somebody who cannot log in to it.

use crate::remote::{Script, quote};

const STATE: &str = include_str!("diagnosis.sh");
/// How many lines of each unit's journal.
const LINES: u32 = 2000;

/// The script that shows a host's state.
pub fn diagnosis(units: &[&str]) -> Script {
    Script::probe("")
        .line(format!("UNITS={}", quote(&units.join(" "))))
        .line(STATE)
}

/// The script that shows the journal of these units, one after the other.
pub fn journal(units: &[&str]) -> Script {
    let show = |unit: &&str| {
        let unit = quote(unit);
        format!(
            "printf '\\n==> %s\\n' {unit}\njournalctl --no-pager -o short-iso-precise -n {LINES} -u {unit}"
        )
    };
    let each: Vec<String> = units.iter().map(show).collect();
    Script::probe("").line(each.join("\n"))
}
