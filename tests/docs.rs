//! The documentation: its links, its list of pages, its commands, its dashboards, and what is made from the code.
//!
//! `UPDATE_DOCS=1 cargo test --test docs` writes docs/verbs.md and the tables of docs/ports.md anew; look at the diff.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{
    fs,
    path::{Path, PathBuf},
};

#[path = "docs/commands.rs"]
mod commands;
#[path = "docs/dashboards.rs"]
mod dashboards;
#[path = "docs/json.rs"]
mod json;
#[path = "docs/links.rs"]
mod links;
#[path = "docs/made.rs"]
mod made;
#[path = "docs/names.rs"]
mod names;
#[path = "docs/verbs.rs"]
mod verbs;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A page by its path from the repository's root.
fn read(page: impl AsRef<Path>) -> String {
    fs::read_to_string(root().join(page)).unwrap()
}

/// The pages of the site, such as `docs/how-to/what-do-you-see.md`.
fn pages_of_the_site() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    let mut folders = vec![PathBuf::from("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            if root().join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "md") && !path.ends_with("SUMMARY.md")
            {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// These, and the two beside them.
fn all_pages() -> Vec<PathBuf> {
    let mut pages = pages_of_the_site();
    pages.extend(["README.md", "CONTRIBUTING.md", "docs/SUMMARY.md"].map(PathBuf::from));
    pages
}

/// The lines of a page, each with whether it is in a block of code.
fn lines(text: &str) -> Vec<(bool, &str)> {
    let (mut fenced, mut indented, mut after_blank) = (false, false, true);
    let mut lines = Vec::new();
    for line in text.lines() {
        let is_fence = line.trim_start().starts_with("```");
        if is_fence {
            fenced = !fenced;
            indented = false;
        }
        let blank = line.trim().is_empty();
        if !fenced && !blank {
            indented = line.starts_with("    ") && (after_blank || indented);
        }
        lines.push((!is_fence && !blank && (fenced || indented), line));
        after_blank = blank;
    }
    lines
}

/// The page is as it should be; with `UPDATE_DOCS`, it is written first.
fn assert_page(page: &str, should: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(root().join(page), should).unwrap();
    }
    let is = read(page);
    assert!(
        is == should,
        "{page} is not what the code says; UPDATE_DOCS=1 writes it:\n{}",
        similar::TextDiff::from_lines(is.as_str(), should).unified_diff()
    );
}
