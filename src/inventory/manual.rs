//! Compares the tables of docs/inventory.md with the schema.
//!
//! `UPDATE_GOLDEN=1 cargo test --lib inventory::manual` writes them anew; look at the diff. Before each table
//! stands a comment with the table's sections: `<!-- keys of ssh -->`.

use serde_json::Value;

use super::{
    ProviderKind,
    bounds::TYPE,
    json,
    keys::{self, SECTIONS, Section, TOP},
};

/// The name of the top level in a comment.
const TOP_LEVEL: &str = "the top level";

/// A role that no user has.
const ONLY_IN_TESTS: &str = "exercise";

const OPENING: &str = "<!-- keys of ";
const CLOSING: &str = " -->";

#[test]
fn the_manuals_tables_are_those_of_the_schema() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/inventory.md");
    let manual = std::fs::read_to_string(path).unwrap();
    let mut told = Vec::new();
    let expected = with_tables(&manual, &mut told);
    let sections: Vec<&str> = SECTIONS.iter().map(|it| it.path.as_str()).collect();
    let forgotten: Vec<&&str> = sections.iter().filter(|it| !told.contains(*it)).collect();
    assert!(forgotten.is_empty(), "no table of {forgotten:?}");
    assert_eq!(
        told.len(),
        sections.len(),
        "a section has one table: {told:?}"
    );
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &expected).unwrap();
        return;
    }
    assert!(
        manual == expected,
        "docs/inventory.md is not as the schema says:\n{}",
        similar::TextDiff::from_lines(&manual, &expected).unified_diff()
    );
}

/// The manual with its tables replaced by the schema's, and the sections that have a table.
fn with_tables(manual: &str, told: &mut Vec<&'static str>) -> String {
    let mut expected = String::new();
    let mut lines = manual.lines().peekable();
    while let Some(line) = lines.next() {
        expected.push_str(line);
        expected.push('\n');
        let Some(names) = line.strip_prefix(OPENING) else {
            continue;
        };
        let names = names.strip_suffix(CLOSING).unwrap().split(", ");
        let sections: Vec<&Section> = names.map(section).collect();
        told.extend(sections.iter().map(|it| it.path.as_str()));
        while lines
            .next_if(|line| line.is_empty() || line.starts_with('|'))
            .is_some()
        {}
        expected.push_str(&format!("\n{}\n", table(&sections)));
    }
    expected
}

fn section(name: &str) -> &'static Section {
    let path = if name == TOP_LEVEL { TOP } else { name };
    let found = SECTIONS.iter().find(|section| section.path == path);
    found.unwrap_or_else(|| panic!("no section is called {name}"))
}

fn table(sections: &[&'static Section]) -> String {
    let of_all = |key: &keys::Key| key.kinds.len() == ProviderKind::ALL.len();
    let kinds = sections.iter().any(|it| !it.keys.iter().all(of_all));
    let mut table = if kinds {
        "| key | kinds | type | default | what it does |\n|---|---|---|---|---|\n".to_owned()
    } else {
        "| key | type | default | what it does |\n|---|---|---|---|\n".to_owned()
    };
    for section in sections {
        let schema = schema_of(&section.path);
        for key in &section.keys {
            let path = format!("{}.{}", section.path, key.name);
            table.push_str(&format!("| `{}` |", path.trim_start_matches('.')));
            if kinds {
                let words = key.kinds.iter().map(|it| it.as_str());
                let words = if of_all(key) {
                    String::new()
                } else {
                    quoted(words)
                };
                table.push_str(&cell(&words));
            }
            let said = &schema["properties"][&key.name];
            table.push_str(&cell(&type_of(said)));
            table.push_str(&cell(&default_of(&schema, &key.name)));
            table.push_str(&cell(said["description"].as_str().unwrap_or_default()));
            table.push('\n');
        }
    }
    table
}

fn cell(text: &str) -> String {
    let blank = if text.is_empty() { "" } else { " " };
    format!("{blank}{} |", text.replace('|', "\\|"))
}

/// The schema of a section, by its path.
fn schema_of(path: &str) -> Value {
    let mut schema = json::keys();
    for part in path.split('.').filter(|part| !part.is_empty()) {
        schema = match part {
            "<name>" => schema["additionalProperties"].take(),
            part => schema["properties"][part].take(),
        };
    }
    schema
}

fn type_of(key: &Value) -> String {
    if let Some(said) = key[TYPE].as_str() {
        return said.to_owned();
    }
    if let Some(words) = key["enum"].as_array() {
        let words = words.iter().filter_map(Value::as_str);
        return quoted(words.filter(|word| *word != ONLY_IN_TESTS));
    }
    let of = match &key["type"] {
        Value::Array(types) => types[0].as_str(),
        one => one.as_str(),
    };
    match of.unwrap() {
        "array" => format!("list of {}", type_of(&key["items"])),
        "object" if key.get("properties").is_some() => "section".to_owned(),
        "object" => "map".to_owned(),
        other => other.to_owned(),
    }
}

fn default_of(section: &Value, name: &str) -> String {
    let key = &section["properties"][name];
    let required = section["required"].as_array();
    if required.is_some_and(|keys| keys.iter().any(|it| it == name)) {
        return "required".to_owned();
    }
    if let Some(words) = key[json::DEFAULT].as_str() {
        return words.to_owned();
    }
    match &key["default"] {
        Value::Null if type_of(key) == "section" => String::new(),
        Value::Null => "none".to_owned(),
        Value::String(word) => format!("`{word}`"),
        Value::Array(words) => {
            let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
            format!("`[{}]`", words.join(", "))
        }
        other => format!("`{other}`"),
    }
}

fn quoted<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.map(|it| format!("`{it}`")).collect();
    words.join(", ")
}

/// The test above can fail: for a key without a row, a row without a key, or another default.
#[test]
fn a_table_that_is_not_the_schemas_is_found() {
    let right = format!("{OPENING}tls{CLOSING}\n\n{}\n", table(&[section("tls")]));
    let rewritten = |text: &str| with_tables(text, &mut Vec::new());
    assert_eq!(rewritten(&right), right);
    let row = right
        .lines()
        .find(|line| line.contains("`tls.enabled`"))
        .unwrap();
    for wrong in [
        right.replace(row, ""),
        right.replace(
            row,
            &format!("{row}\n{}", row.replace("enabled", "version")),
        ),
        right.replace("`true`", "`false`"),
    ] {
        assert_ne!(wrong, right);
        assert_eq!(rewritten(&wrong), right);
    }
}
