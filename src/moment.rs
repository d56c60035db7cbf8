//! A moment to which a cluster is restored.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Where recovery ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Moment {
    /// The newest state that the repository has.
    Latest,
    /// Whatever was committed by then.
    Time(jiff::Timestamp),
    /// A position in the WAL, such as `0/3000060`.
    Lsn(String),
    /// Whatever was committed before this transaction was.
    BeforeXid(u64),
}

impl Moment {
    /// Where a time is meant, that time.
    pub(crate) fn time(&self) -> Option<jiff::Timestamp> {
        match self {
            Self::Time(at) => Some(*at),
            Self::Latest | Self::Lsn(_) | Self::BeforeXid(_) => None,
        }
    }

    /// pgBackRest's options.
    pub(crate) fn options(&self) -> Vec<String> {
        let target = |kind: &str, target: &str| {
            vec![
                format!("--type={kind}"),
                format!("--target={target}"),
                "--target-action=promote".to_owned(),
            ]
        };
        match self {
            Self::Latest => Vec::new(),
            Self::Time(at) => target("time", &in_full(*at)),
            Self::Lsn(position) => target("lsn", position),
            Self::BeforeXid(xid) => {
                let mut options = target("xid", &xid.to_string());
                options.push("--target-exclusive".to_owned());
                options
            }
        }
    }
}

/// A time as PostgreSQL and pgBackRest take it, with a fraction: a commit of that very second is included.
pub(crate) fn in_full(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S.%6f+00").to_string()
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Time(at) => {
                let whole = at.subsec_nanosecond() == 0;
                let form = if whole {
                    "%Y-%m-%d %H:%M:%S+00"
                } else {
                    "%Y-%m-%d %H:%M:%S.%6f+00"
                };
                write!(f, "{}", at.strftime(form))
            }
            Self::Lsn(position) => write!(f, "lsn {position}"),
            Self::BeforeXid(xid) => write!(f, "before-xid {xid}"),
        }
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text == "latest" {
            return Ok(Self::Latest);
        }
        if let Some(position) = text.strip_prefix("lsn ") {
            let half =
                |it: &str| (1..=8).contains(&it.len()) && u32::from_str_radix(it, 16).is_ok();
            return match position.trim().split_once('/') {
                Some((high, low)) if half(high) && half(low) => {
                    Ok(Self::Lsn(format!("{high}/{low}").to_ascii_uppercase()))
                }
                _ => Err(format!(
                    "{position} is no position in the WAL, such as 0/3000060"
                )),
            };
        }
        if let Some(xid) = text.strip_prefix("before-xid ") {
            let xid = xid.trim();
            return match xid.parse() {
                Ok(number) if number > 2 => Ok(Self::BeforeXid(number)),
                _ => Err(format!("{xid} is no transaction's number")),
            };
        }
        let civil: Result<jiff::civil::DateTime, _> = text.parse();
        text.parse().map(Self::Time).map_err(|_| match civil {
            Ok(_) => format!(
                "{text} has no time zone: add it, such as {text}+00 for UTC, or {text}{}",
                jiff::Zoned::now().strftime("%:z")
            ),
            Err(_) => "it is `latest`, `lsn 0/3000060`, `before-xid 1234`, or a time with its zone, such as \
                       '2026-11-26 14:03:07+01'"
                .to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        text.parse::<Moment>()
            .map_or_else(|error| error, |it| it.to_string())
    }

    #[test]
    fn a_moment_is_read_and_told() {
        for (text, expected) in [
            ("latest", "latest"),
            ("2026-11-26 14:03:07+01", "2026-11-26 13:03:07+00"),
            ("2026-11-26T14:03:07.25Z", "2026-11-26 14:03:07.250000+00"),
            (
                "2026-11-26 14:03:07.000001+05:30",
                "2026-11-26 08:33:07.000001+00",
            ),
            ("lsn 0/3000060", "lsn 0/3000060"),
            ("lsn 1a/ff", "lsn 1A/FF"),
            ("before-xid 750", "before-xid 750"),
        ] {
            assert_eq!(told(text), expected);
            assert_eq!(told(&told(text)), expected, "it is read as it is told");
        }
        for wrong in [
            "",
            "yesterday",
            "lsn 0",
            "lsn x/1",
            "before-xid 1",
            "before-xid -3",
            "14:03",
        ] {
            assert!(wrong.parse::<Moment>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_time_without_a_zone_is_refused() {
        assert!(told("2026-11-26 14:03:07").contains("has no time zone"));
    }

    #[test]
    fn recovery_takes_over_at_the_target() {
        let options = |text: &str| text.parse::<Moment>().unwrap().options();
        assert!(options("latest").is_empty());
        assert_eq!(
            options("2026-11-26 14:03:07+01"),
            [
                "--type=time",
                "--target=2026-11-26 13:03:07.000000+00",
                "--target-action=promote"
            ]
        );
        assert_eq!(options("before-xid 750")[3], "--target-exclusive");
    }
}
