//! pip's list of requirements.

/// The version to which `requirements` pins a package; `None` if it does not.
pub(crate) fn pinned(requirements: &str, package: &str) -> Option<String> {
    requirements.lines().find_map(|line| {
        let line = line.trim();
        let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')));
        let (name, rest) = line.split_at(end?);
        if !name.replace(['_', '.'], "-").eq_ignore_ascii_case(package) {
            return None;
        }
        // Extras stand in brackets.
        let rest = match rest.trim_start().strip_prefix('[') {
            Some(extras) => extras.split_once(']')?.1,
            None => rest,
        };
        let version = rest.trim_start().strip_prefix("==")?.trim_start();
        let end = version.find(|c: char| c.is_whitespace() || matches!(c, ';' | ',' | '#' | '\\'));
        let version = &version[..end.unwrap_or(version.len())];
        (!version.is_empty()).then(|| version.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_found_however_it_is_written() {
        for line in [
            "patroni==4.1.5 \\",
            "    Patroni[etcd3] == 4.1.5  # why",
            "\tpatroni==4.1.5; python_version > '3'",
        ] {
            let text =
                format!("# patroni==3.0\npatroni-exporter==1\n{line}\n    --hash=sha256:0a\n");
            assert_eq!(pinned(&text, "patroni").as_deref(), Some("4.1.5"), "{text}");
        }
        for text in ["patroni>=4\n", "patroni\n", "patroni==\n", ""] {
            assert_eq!(pinned(text, "patroni"), None, "{text}");
        }
    }
}
