//! The codes of errors, and docs/errors.md.

use super::*;

/// `UPDATE_DOCS=1 cargo test --test cli` writes docs/errors.md anew.
#[test]
fn the_manual_has_every_code_of_an_error() {
    const BEGIN: &str = "<!-- what follows is made from src/error/code.rs -->\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md");
    let written = fs::read_to_string(&path).unwrap();
    let (prose, _) = written.split_once(BEGIN).expect("where the tables begin");
    let should = format!("{prose}{BEGIN}{}", tables_of_codes());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &should).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap();
    assert!(
        written == should,
        "docs/errors.md is not what the codes say; UPDATE_DOCS=1 writes it:\n{}",
        similar::TextDiff::from_lines(&written, &should).unified_diff()
    );
}

fn tables_of_codes() -> String {
    let mut text = String::new();
    for (title, codes) in Code::GROUPS {
        text += &format!(
            "\n## {title}\n\n| code | exit | what it means | what to do |\n|---|---|---|---|\n"
        );
        for code in *codes {
            // A bar would end the cell.
            let cell = |words: &str| words.replace('|', "\\|");
            text += &format!(
                "| `{}` | {} | {} | {} |\n",
                code.word(),
                code.kind().exit_code(),
                cell(code.meaning()),
                cell(code.what_to_do())
            );
        }
    }
    text
}

#[test]
fn what_to_do_names_pages_and_verbs_that_there_are() {
    for code in Code::GROUPS.iter().flat_map(|(_, codes)| *codes) {
        let hint = code.what_to_do();
        for (at, _) in hint.match_indices("docs/") {
            let end = hint[at..]
                .find([' ', ',', ';'])
                .map_or(hint.len(), |end| at + end);
            assert!(
                Path::new(&hint[at..end]).exists(),
                "{}: {hint}",
                code.word()
            );
        }
        for (at, word) in hint.match_indices("pgherd ") {
            let verb = hint[at + word.len()..].split([' ', '`', ';', ',']).next();
            let is_prose = hint[..at].ends_with("run ") || hint[..at].ends_with("of ");
            let is_verb = verb.is_some_and(|verb| VERBS.contains(&verb));
            assert!(is_verb || is_prose, "{}: {hint}", code.word());
        }
    }
}
