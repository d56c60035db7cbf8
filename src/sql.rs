//! SQL text made of values of any content.

/// A string literal, whatever `standard_conforming_strings` says.
pub fn literal(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\'', "''");
    format!("E'{escaped}'")
}

/// A name, exactly as it is.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Literals between commas, for `in (…)`; never empty, since that is no SQL.
pub fn literals<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut list = vec!["null".to_owned()];
    list.extend(texts.into_iter().map(literal));
    list.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_are_kept() {
        assert_eq!(literal(r"it's \n"), r"E'it''s \\n'");
        assert_eq!(identifier(r#"a"b\"#), r#""a""b\""#);
        assert_eq!(literals([]), "null");
        assert_eq!(literals(["a", "b"]), "null, E'a', E'b'");
    }
}
