//! `runs/<time>/`: one folder for each run.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, symlink},
    path::{Path, PathBuf},
};

use super::files;
use crate::error::Result;

/// How many runs are kept; the oldest are removed first.
pub const KEPT_RUNS: u8 = 50;

const LATEST: &str = "latest";
const STAMP: &str = "%Y-%m-%dT%H-%M-%SZ";

/// Creates a new folder in `runs`, points `latest` to it, and removes all but the newest.
pub(super) fn begin(runs: &Path, now: jiff::Timestamp) -> Result<PathBuf> {
    files::private_dir(runs)?;
    let stamp = now.strftime(STAMP).to_string();
    let mut name = stamp.clone();
    let mut number = 1u32;
    let run = loop {
        let run = runs.join(&name);
        match DirBuilder::new().mode(0o700).create(&run) {
            Ok(()) => break run,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                number += 1;
                name = format!("{stamp}-{number}");
            }
            Err(e) => return Err(files::failed("cannot make the folder", &run, e)),
        }
    };
    point_latest(runs, &name)?;
    prune(runs, &name)?;
    Ok(run)
}

/// The kept runs: the one that `latest` points to is last, and the others before it by age.
pub(super) fn kept(runs: &Path) -> Result<Vec<PathBuf>> {
    let mut names = files::names(runs)?;
    names.retain(|name| order_of(name).is_some());
    names.sort_by(|a, b| order_of(a).cmp(&order_of(b)));
    // If the clock was set back, the newest name is not the latest run's.
    let latest = fs::read_link(runs.join(LATEST)).ok();
    let latest = latest.and_then(|name| names.iter().position(|known| name == Path::new(known)));
    if let Some(latest) = latest {
        let name = names.remove(latest);
        names.push(name);
    }
    Ok(names.into_iter().map(|name| runs.join(name)).collect())
}

/// Replaces the link in one step, so that it always points to a run.
fn point_latest(runs: &Path, name: &str) -> Result<()> {
    let link = runs.join(LATEST);
    let unfinished = runs.join(format!("{}{LATEST}", files::UNFINISHED));
    files::remove(&unfinished)?;
    symlink(name, &unfinished)
        .and_then(|()| fs::rename(&unfinished, &link))
        .map_err(|e| files::failed("cannot write", &link, e))
}

fn prune(runs: &Path, current: &str) -> Result<()> {
    let mut known = files::names(runs)?;
    // If the clock was set back, the current run stays, whatever its name.
    known.retain(|name| name != current && order_of(name).is_some());
    known.sort_by(|a, b| order_of(a).cmp(&order_of(b)));
    let surplus = (known.len() + 1).saturating_sub(KEPT_RUNS.into());
    for name in known.drain(..surplus) {
        let run = runs.join(name);
        // `begin` made a folder with this name; links in it are not followed.
        fs::remove_dir_all(&run).map_err(|e| files::failed("cannot remove", &run, e))?;
    }
    Ok(())
}

/// The time and number of a run; `None` if it is not the name of a run.
fn order_of(name: &str) -> Option<(&str, u32)> {
    const SHAPE: &[u8] = b"0000-00-00T00-00-00Z";
    let (stamp, rest) = name.split_at_checked(SHAPE.len())?;
    let fits = stamp.bytes().zip(SHAPE).all(|(byte, shape)| match shape {
        b'0' => byte.is_ascii_digit(),
        _ => byte == *shape,
    });
    let number = match rest {
        "" => 1,
        _ => rest.strip_prefix('-')?.parse().ok()?,
    };
    fits.then_some((stamp, number))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn at(second: i64) -> jiff::Timestamp {
        jiff::Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    #[test]
    fn runs_of_one_second_do_not_meet_and_latest_follows() {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path().join("runs");
        let first = begin(&runs, at(0)).unwrap();
        let second = begin(&runs, at(0)).unwrap();
        assert_eq!(first.file_name().unwrap(), "2026-09-21T14-13-20Z");
        assert_eq!(second.file_name().unwrap(), "2026-09-21T14-13-20Z-2");
        assert_eq!(
            fs::canonicalize(runs.join(LATEST)).unwrap(),
            fs::canonicalize(&second).unwrap()
        );
        for path in [&runs, &first, &second] {
            let mode = fs::metadata(path).unwrap().permissions().mode() & 0o7777;
            assert_eq!(mode, 0o700, "{}", path.display());
        }
    }

    #[test]
    fn the_current_run_stays_when_the_clock_was_set_back() {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path().join("runs");
        for second in 1..=i64::from(KEPT_RUNS) {
            begin(&runs, at(second)).unwrap();
        }
        assert!(begin(&runs, at(0)).unwrap().is_dir());
        let names = files::names(&runs).unwrap();
        assert_eq!(names.iter().filter(|n| order_of(n).is_some()).count(), 50);
    }

    #[test]
    fn kept_runs_are_listed_by_age_and_the_latest_is_last() {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path().join("runs");
        assert_eq!(kept(&runs).unwrap(), Vec::<PathBuf>::new());
        let second = begin(&runs, at(1)).unwrap();
        let third = begin(&runs, at(2)).unwrap();
        fs::create_dir(runs.join("kept-by-somebody")).unwrap();
        assert_eq!(kept(&runs).unwrap(), [second.clone(), third.clone()]);
        let set_back = begin(&runs, at(0)).unwrap();
        assert_eq!(kept(&runs).unwrap(), [second, third, set_back]);
    }

    #[test]
    fn the_oldest_runs_go_and_what_is_not_a_run_stays() {
        let dir = tempfile::tempdir().unwrap();
        let runs = dir.path().join("runs");
        files::private_dir(&runs).unwrap();
        fs::create_dir(runs.join("2026-kept-by-somebody")).unwrap();
        for _ in 0..12 {
            let run = begin(&runs, at(0)).unwrap();
            fs::write(run.join("node1.log"), "x").unwrap();
        }
        for second in 1..=i64::from(KEPT_RUNS - 3) {
            begin(&runs, at(second)).unwrap();
        }
        let names = files::names(&runs).unwrap();
        assert_eq!(names.iter().filter(|n| order_of(n).is_some()).count(), 50);
        // By number, not as text, `-9` is older than `-10`.
        let first_second: Vec<_> = names.iter().filter(|n| n.contains("13-20Z")).collect();
        assert_eq!(
            first_second,
            [
                "2026-09-21T14-13-20Z-10",
                "2026-09-21T14-13-20Z-11",
                "2026-09-21T14-13-20Z-12"
            ]
        );
        assert!(names.contains(&"2026-kept-by-somebody".to_owned()));
    }
}
