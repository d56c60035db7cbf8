//! Writes SQL with arbitrary values, and has the settings for pgherd's sessions.

/// The options that start every session of pgherd, as libpq and PostgreSQL read them.
///
/// pgherd is the superuser. With PostgreSQL's default `search_path`, a function or operator that somebody made
/// in `public` can be chosen over a polymorphic one of `pg_catalog`, and would run as the superuser. `pg_temp`
/// is named because otherwise it would be searched first for tables. The other settings can be changed by
/// `alter role … set` and `alter database … set`, and would break pgherd's statements; options of a connection
/// override both. All of them exist in every version of PostgreSQL that pgherd supports.
pub const SESSION: &str = r"-c search_path=pg_catalog,pg_temp -c role=none -c default_transaction_read_only=off -c default_transaction_isolation=read\ committed -c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 -c idle_session_timeout=0 -c local_preload_libraries=";

/// A string literal that is right for any `standard_conforming_strings`.
pub fn literal(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\'', "''");
    format!("E'{escaped}'")
}

/// An identifier, exactly as given.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A value for libpq's database name, exactly as given: libpq would parse a plain name with a `=` in it as a
/// connection string.
pub fn conninfo(database: &str) -> String {
    let escaped = database.replace('\\', "\\\\").replace('\'', "\\'");
    format!("dbname='{escaped}'")
}

/// Makes psql continue in another database, with the same other settings.
pub fn connect(database: &str) -> String {
    let word = conninfo(database)
        .replace('\\', "\\\\")
        .replace('\'', "''")
        .replace('\n', "\\n");
    format!("\\connect -reuse-previous=on '{word}'")
}

/// Literals with commas between them, for `in (…)`. The list must not be empty, because `in ()` is not valid
/// SQL.
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
        assert_eq!(conninfo(r"a'b\ =c"), r"dbname='a\'b\\ =c'");
        // psql parses it first, and libpq parses the result.
        assert_eq!(
            connect("a'b\\\nc"),
            r"\connect -reuse-previous=on 'dbname=''a\\''b\\\\\nc'''"
        );
        assert_eq!(literals(["a", "b"]), "null, E'a', E'b'");
    }
}
