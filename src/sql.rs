//! Writes SQL with values of any content, and the settings of pgherd's sessions.

/// The options with which every session of pgherd's own begins, as libpq and PostgreSQL take them.
///
/// pgherd is the superuser. With PostgreSQL's own `search_path` a function or an operator that somebody
/// made in `public` is preferred to a polymorphic one of `pg_catalog`, and would run as the superuser.
/// `pg_temp` is named, since it would be searched first for tables if it were not. The others are what
/// `alter role … set` and `alter database … set` may have changed for people, and what would break
/// pgherd's statements; options of a connection outweigh both. All of them are known to every
/// PostgreSQL that pgherd takes.
pub const SESSION: &str = r"-c search_path=pg_catalog,pg_temp -c role=none -c default_transaction_read_only=off -c default_transaction_isolation=read\ committed -c statement_timeout=0 -c lock_timeout=0 -c idle_in_transaction_session_timeout=0 -c idle_session_timeout=0 -c local_preload_libraries=";

/// A string literal, whatever `standard_conforming_strings` says.
pub fn literal(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\'', "''");
    format!("E'{escaped}'")
}

/// A name, exactly as it is.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What libpq takes as the name of a database, exactly as it is: a bare one with a `=` in it would be
/// read as something else.
pub fn conninfo(database: &str) -> String {
    let escaped = database.replace('\\', "\\\\").replace('\'', "\\'");
    format!("dbname='{escaped}'")
}

/// What has psql go on in another database, with all else as it is.
pub fn connect(database: &str) -> String {
    let word = conninfo(database)
        .replace('\\', "\\\\")
        .replace('\'', "''")
        .replace('\n', "\\n");
    format!("\\connect -reuse-previous=on '{word}'")
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
        assert_eq!(conninfo(r"a'b\ =c"), r"dbname='a\'b\\ =c'");
        // Read by psql first, and what that makes of it by libpq.
        assert_eq!(
            connect("a'b\\\nc"),
            r"\connect -reuse-previous=on 'dbname=''a\\''b\\\\\nc'''"
        );
        assert_eq!(literals(["a", "b"]), "null, E'a', E'b'");
    }
}
