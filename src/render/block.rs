//! A marked block in a file whose other lines stay as they are.

use crate::error::{Code, Error, Result};

/// Puts `block` between this cluster's markers in `old`, and replaces what was there.
///
/// If `old` has no markers, the block goes to the end. Lines outside are kept byte for byte; only a missing
/// newline at the very end is added. An error if the markers in `old` do not match, because the owner of the
/// lines is unknown then.
pub fn merge_block(old: &str, block: &str, cluster: &str) -> Result<String> {
    let markers = Markers::of(cluster);
    let inner: Vec<&str> = block.lines().collect();
    if inner.iter().any(|line| markers.is(line)) {
        return Err(Error::new(
            Code::InternalError,
            format!("a block for {cluster} may not hold its own markers"),
        ));
    }
    let mut fresh = format!("{}\n", markers.begin);
    for line in inner {
        fresh.push_str(line);
        fresh.push('\n');
    }
    fresh.push_str(&markers.end);
    fresh.push('\n');

    let (mut rest, at) = split(old, &markers)?;
    match at {
        Some(at) => rest.insert_str(at, &fresh),
        None => {
            if !rest.is_empty() && !rest.ends_with('\n') {
                rest.push('\n');
            }
            rest.push_str(&fresh);
        }
    }
    Ok(rest)
}

/// Removes this cluster's block from `old`, if it is there; other lines are kept byte for byte.
pub fn remove_block(old: &str, cluster: &str) -> Result<String> {
    split(old, &Markers::of(cluster)).map(|(rest, _)| rest)
}

struct Markers {
    begin: String,
    end: String,
}

impl Markers {
    fn of(cluster: &str) -> Self {
        Self {
            begin: format!("# pgherd: begin {cluster}"),
            end: format!("# pgherd: end {cluster}"),
        }
    }

    fn is(&self, line: &str) -> bool {
        let line = line.trim_end();
        line == self.begin || line == self.end
    }
}

/// `old` without this cluster's blocks, and the place of the first of them.
fn split(old: &str, markers: &Markers) -> Result<(String, Option<usize>)> {
    let mut rest = String::with_capacity(old.len());
    let mut at = None;
    let mut inside = None;
    for (number, line) in (1..).zip(old.split_inclusive('\n')) {
        let bare = line.trim_end();
        match inside {
            None if bare == markers.begin => {
                inside = Some(number);
                at.get_or_insert(rest.len());
            }
            None if bare == markers.end => return Err(unpaired(number, "no begin before it")),
            None => rest.push_str(line),
            Some(_) if bare == markers.end => inside = None,
            Some(begin) if bare == markers.begin => return Err(unpaired(begin, "no end after it")),
            Some(_) => {}
        }
    }
    match inside {
        Some(begin) => Err(unpaired(begin, "no end after it")),
        None => Ok((rest, at)),
    }
}

fn unpaired(line: usize, what: &str) -> Error {
    Error::new(
        Code::AnswerUnusable,
        format!("the marker on line {line} has {what}"),
    )
    .left("the file was not touched")
    .hint("somebody has edited pgherd's block: delete what is left of it, markers too")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK: &str = "192.0.2.1  node1\n192.0.2.2  node2\n";

    #[test]
    fn a_block_goes_to_the_end_and_is_replaced_in_place() {
        let first = merge_block("127.0.0.1 localhost", BLOCK, "pg").unwrap();
        assert_eq!(
            first,
            "127.0.0.1 localhost\n# pgherd: begin pg\n192.0.2.1  node1\n192.0.2.2  node2\n# pgherd: end pg\n"
        );
        let second = merge_block(&format!("{first}::1 six\n"), "192.0.2.9  node1\n", "pg").unwrap();
        assert_eq!(
            second,
            "127.0.0.1 localhost\n# pgherd: begin pg\n192.0.2.9  node1\n# pgherd: end pg\n::1 six\n"
        );
    }

    #[test]
    fn clusters_do_not_touch_each_other() {
        let one = merge_block("", BLOCK, "pg").unwrap();
        let two = merge_block(&one, "192.0.2.3  node3\n", "pg-2").unwrap();
        assert_eq!(remove_block(&two, "pg-2").unwrap(), one);
        assert!(
            remove_block(&two, "pg")
                .unwrap()
                .starts_with("# pgherd: begin pg-2\n")
        );
    }

    #[test]
    fn markers_that_do_not_pair_up_are_an_error() {
        for broken in [
            "# pgherd: begin pg\n192.0.2.1 mine\n10.0.0.1 not-mine\n",
            "10.0.0.1 not-mine\n# pgherd: end pg\n",
            "# pgherd: begin pg\n# pgherd: begin pg\n# pgherd: end pg\n",
        ] {
            assert!(merge_block(broken, BLOCK, "pg").is_err(), "{broken}");
            assert!(remove_block(broken, "pg").is_err(), "{broken}");
        }
    }

    #[test]
    fn windows_line_ends_do_not_hide_the_markers() {
        let old = "a\r\n# pgherd: begin pg\r\nold\r\n# pgherd: end pg\r\nb\r\n";
        assert_eq!(remove_block(old, "pg").unwrap(), "a\r\nb\r\n");
    }

    /// Lines with every kind of line end, including lines that look like markers and are not.
    fn foreign() -> impl Strategy<Value = String> {
        let line = prop_oneof![
            "[^\n]{0,30}",
            Just("# pgherd: begin other".to_owned()),
            Just("# pgherd: end pg2".to_owned()),
            Just(" # pgherd: begin pg".to_owned()),
        ];
        let ends = prop_oneof![Just("\n"), Just("\r\n"), Just("\n\n")];
        (proptest::collection::vec((line, ends), 0..8), "[^\n]{0,10}").prop_map(|(lines, last)| {
            let mut text: String = lines.into_iter().flat_map(|(l, e)| [l, e.into()]).collect();
            text.push_str(&last);
            text
        })
    }

    proptest! {
        #[test]
        fn foreign_lines_stay_byte_for_byte(before in foreign(), after in foreign(), block in "([^\n\r]{0,20}\n){0,4}") {
            let merged = merge_block(&before, &block, "pg").unwrap();
            prop_assert_eq!(&merge_block(&merged, &block, "pg").unwrap(), &merged, "idempotent");
            prop_assert!(merged.starts_with(&before));

            let whole = format!("{merged}{after}");
            let other = merge_block(&whole, "something else\n", "pg").unwrap();
            prop_assert!(other.starts_with(&before) && other.ends_with(&after));
            prop_assert_eq!(&merge_block(&other, &block, "pg").unwrap(), &whole, "there and back");

            let newline = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
            prop_assert_eq!(remove_block(&whole, "pg").unwrap(), format!("{before}{newline}{after}"));
        }
    }
}
