//! The file on a host that names the cluster that the host belongs to.

/// The content of `/etc/pgherd/cluster`: the cluster's name on the first line, its id on the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark<'a> {
    pub name: &'a str,
    pub id: &'a str,
}

impl<'a> Mark<'a> {
    /// `None` if the text does not have two lines. Comments, blank lines and blanks around a line do not count.
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut lines = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let (name, id) = (lines.next()?, lines.next()?);
        Some(Self { name, id })
    }

    /// Whether the id has the form of pgherd's ids.
    pub fn is_pgherds(&self) -> bool {
        (12..=64).contains(&self.id.len()) && self.id.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    /// Whether a mark names the cluster with this id, anywhere in the text: a user's own template may have
    /// moved it.
    pub fn names(text: &str, id: &str) -> bool {
        // The characters of an id.
        text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
            .any(|word| !word.is_empty() && word == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_however_it_is_laid_out() {
        for text in [
            "pg\n0a1b2c3d4e5f\n",
            "# ours\n\n    pg\n\t0a1b2c3d4e5f  \r\nmore\n",
        ] {
            let mark = Mark::parse(text).unwrap();
            assert_eq!((mark.name, mark.id), ("pg", "0a1b2c3d4e5f"), "{text:?}");
            assert!(mark.is_pgherds() && Mark::names(text, "0a1b2c3d4e5f"));
        }
        assert_eq!(Mark::parse("pg\n# 0a1b2c3d4e5f\n"), None);
        assert!(!Mark::parse("a note\nof somebody's\n").unwrap().is_pgherds());
    }

    #[test]
    fn a_part_of_an_id_names_nobody() {
        assert!(Mark::names("cluster=pg id=0a1b2c3d4e5f\n", "0a1b2c3d4e5f"));
        assert!(!Mark::names("pg\n0a1b2c3d4e5f00\n", "0a1b2c3d4e5f"));
        assert!(!Mark::names("pg\n0a1b2c3d4e5f\n", ""));
        assert!(Mark::names("pg\nour-own-id\n", "our-own-id"));
        assert!(!Mark::names("pg\nour-own-id\n", "own"));
    }
}
