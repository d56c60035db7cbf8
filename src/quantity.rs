//! Durations, sizes and counts for people.

/// Seconds as `1.2 s`, `3 m 05 s` or `1 h 02 m`.
pub fn duration(seconds: f64) -> String {
    // `max` also turns a NaN into 0.
    let seconds = seconds.max(0.0);
    // 59.96 would print as `60.0 s`.
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    let whole = whole(seconds.round());
    if whole < 3600 {
        format!("{} m {:02} s", whole / 60, whole % 60)
    } else {
        let minutes = (whole + 30) / 60;
        format!("{} h {:02} m", minutes / 60, minutes % 60)
    }
}

/// Whole seconds, for a line that is redrawn all the time: tenths would flicker.
pub fn ticking(seconds: f64) -> String {
    let whole = whole(seconds);
    if whole < 60 {
        format!("{whole}s")
    } else {
        format!("{}m{:02}s", whole / 60, whole % 60)
    }
}

/// A long time, in its largest unit: `40 s`, `12 minutes`, `3 hours`, `17 days`.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => count(seconds / 60, "minute"),
        7200..=172_799 => count(seconds / 3600, "hour"),
        _ => count(seconds / 86_400, "day"),
    }
}

/// Bytes as `512 B`, `16.0 MiB` and so on, in powers of 1024.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would print as `1024.0`.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A number without its fraction: 0 for a negative number or NaN, the maximum for a number that is too large.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` does exactly this, and nothing else makes a whole number of a float"
)]
pub fn whole(number: f64) -> u64 {
    number as u64
}

/// A count with its noun: `1 step`, `3 steps`, `2 entries`.
pub fn count(n: impl TryInto<usize>, noun: &str) -> String {
    let n = n.try_into().unwrap_or(usize::MAX);
    match noun.strip_suffix('y') {
        _ if n == 1 => format!("1 {noun}"),
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{n} {stem}ies"),
        _ => format!("{n} {noun}s"),
    }
}

/// The word that agrees with a count: `is` for one, `are` for any other.
pub fn agree(n: impl TryInto<usize>, one: &'static str, others: &'static str) -> &'static str {
    match n.try_into() {
        Ok(1) => one,
        _ => others,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_two_significant_units() {
        for (seconds, text) in [
            (0.0, "0.0 s"),
            (-1.0, "0.0 s"),
            (f64::NAN, "0.0 s"),
            (0.94, "0.9 s"),
            (8.06, "8.1 s"),
            (59.94, "59.9 s"),
            (59.96, "1 m 00 s"),
            (185.2, "3 m 05 s"),
            (3599.7, "1 h 00 m"),
            (3725.0, "1 h 02 m"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn ticking_seconds_have_no_tenths() {
        assert_eq!(ticking(8.97), "8s");
        assert_eq!(ticking(65.0), "1m05s");
    }

    #[test]
    fn sizes_are_binary() {
        for (size, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (16_777_216, "16.0 MiB"),
            (1_048_575, "1.0 MiB"),
            (3 << 40, "3.0 TiB"),
            (5 << 50, "5120.0 TiB"),
        ] {
            assert_eq!(bytes(size), text, "{size}");
        }
    }

    #[test]
    fn counts_agree_with_their_noun() {
        assert_eq!(count(1, "step"), "1 step");
        assert_eq!(count(0, "step"), "0 steps");
        assert_eq!(count(1, "entry"), "1 entry");
        assert_eq!(count(2, "entry"), "2 entries");
        assert_eq!(count(2, "key"), "2 keys");
        assert_eq!(agree(1, "is", "are"), "is");
        assert_eq!(agree(0, "is", "are"), "are");
    }
}
