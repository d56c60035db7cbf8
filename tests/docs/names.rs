//! Names that the code has and a page lists: a row that gets lost in a merge is missed here.

use std::collections::BTreeSet;

use super::*;

/// The files of the program below a folder, without the example of docs/contributing.md.
fn sources(folder: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            if path.ends_with("exercise") {
                continue;
            }
            if root().join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                files.push(path);
            }
        }
    }
    files
}

fn in_quotes(text: &str) -> Option<&str> {
    text.trim_start().strip_prefix('"')?.split('"').next()
}

/// The names of the checks that a file makes; a constant's value is in the same file.
fn checks(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let made = code.split("Check::of(").skip(1).map(|rest| {
        if let Some(name) = in_quotes(rest) {
            return name.to_owned();
        }
        let constant: String = rest
            .trim_start()
            .chars()
            .take_while(|it| it.is_ascii_uppercase() || *it == '_')
            .collect();
        let defined = code.split(&format!("const {constant}: &str = ")).nth(1);
        let name = defined.and_then(in_quotes);
        name.unwrap_or_else(|| panic!("the name of a check: {rest:.60}"))
            .to_owned()
    });
    made.collect()
}

/// The first words in code of the rows of a table, by its head.
fn rows(page: &str, head: &str) -> BTreeSet<String> {
    let text = read(page);
    let (_, table) = text.split_once(&format!("{head}\n")).expect(head);
    let rows = table.lines().skip(1).take_while(|it| it.starts_with('|'));
    rows.map(|row| row.split('`').nth(1).unwrap().to_owned())
        .collect()
}

#[test]
fn every_check_is_on_the_page_about_checks() {
    let files = ["src/verify", "src/services"].map(sources).concat();
    let mut made: BTreeSet<String> = files.iter().flat_map(|it| checks(&read(it))).collect();
    // Drills alone make it, while members come back.
    assert!(made.remove("failover"));
    assert!(made.len() > 25, "{made:?}");
    let told = rows(
        "docs/verify.md",
        "| check | fails when | the test that makes it fail |",
    );
    assert_eq!(told, made);
}
