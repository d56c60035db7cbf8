//! Every link leads somewhere, and every page is in the list of the site.

use std::{collections::BTreeMap, path::Component};

use regex::Regex;

use super::*;

#[test]
fn every_link_and_anchor_leads_somewhere() {
    let mut wrong = Vec::new();
    for page in all_pages() {
        for link in links(&read(&page)) {
            if let Err(why) = follow(&page, &link) {
                wrong.push(format!("{}: {link}: {why}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_page_is_in_the_list_of_the_site_once() {
    let list = links(&read("docs/SUMMARY.md"));
    let mut wrong = Vec::new();
    for page in pages_of_the_site() {
        let name = page.strip_prefix("docs").unwrap().display().to_string();
        match list.iter().filter(|link| **link == name).count() {
            1 => {}
            0 => wrong.push(format!(
                "docs/{name} is not in docs/SUMMARY.md: add it to the part where somebody looks for it"
            )),
            count => wrong.push(format!("docs/{name} is {count} times in docs/SUMMARY.md")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Somebody who is paged finds the same things at the same places.
#[test]
fn every_how_to_says_the_same_five_things() {
    let headings = [
        "What you see",
        "What to type",
        "What you see then",
        "How long it took",
        "If it fails",
    ];
    for page in pages_of_the_site() {
        let name = page.display().to_string();
        if !name.starts_with("docs/how-to/") || name.ends_with("/what-do-you-see.md") {
            continue;
        }
        let text = read(&page);
        let mut rest = text.as_str();
        for heading in headings {
            let found = rest.split_once(&format!("# {heading}\n"));
            rest = found
                .unwrap_or_else(|| panic!("{name} lacks, or has elsewhere: {heading}"))
                .1;
        }
    }
}

/// The targets of the links of a page, without those to other sites.
fn links(text: &str) -> Vec<String> {
    let prose: Vec<&str> = lines(text)
        .into_iter()
        .filter_map(|(code, line)| (!code).then_some(line))
        .collect();
    let prose = Regex::new("`[^`]+`")
        .unwrap()
        .replace_all(&prose.join("\n"), "")
        .into_owned();
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let found = link.captures_iter(&prose).map(|it| it[1].to_owned());
    found.filter(|it| !it.contains("://")).collect()
}

fn follow(page: &Path, link: &str) -> Result<(), String> {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if path.is_empty() {
        page.to_owned()
    } else {
        joined(page.parent().unwrap(), path)
    };
    let on_the_site = |path: &Path| path.starts_with("docs");
    if on_the_site(page) && !on_the_site(&target) {
        return Err("the site has only what is in docs/: name the file without a link".to_owned());
    }
    if !root().join(&target).exists() {
        return Err("there is no such file".to_owned());
    }
    if on_the_site(page) && root().join(&target).is_dir() {
        return Err("it is a folder: name a page in it".to_owned());
    }
    if anchor.is_empty() || anchors(&read(&target)).contains(&anchor.to_owned()) {
        return Ok(());
    }
    Err(format!(
        "{} has no heading for this anchor",
        target.display()
    ))
}

/// `docs/how-to` and `../verify.md` are `docs/verify.md`.
fn joined(folder: &Path, link: &str) -> PathBuf {
    let mut path = folder.to_owned();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path
}

/// The anchors of a page's headings, as GitHub and mdBook make them.
fn anchors(text: &str) -> Vec<String> {
    let link = Regex::new(r"\[([^\]]*)\]\([^)]*\)").unwrap();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut anchors = Vec::new();
    for (code, line) in lines(text) {
        let Some(heading) = line.strip_prefix('#').filter(|_| !code) else {
            continue;
        };
        let heading = heading.trim_start_matches('#').trim();
        let heading = link.replace_all(heading, "$1").to_lowercase();
        let kept = heading.chars().filter_map(|c| match c {
            ' ' => Some('-'),
            '-' | '_' => Some(c),
            c if c.is_alphanumeric() => Some(c),
            _ => None,
        });
        let anchor: String = kept.collect();
        let count = seen.entry(anchor.clone()).or_default();
        anchors.push(match *count {
            0 => anchor,
            count => format!("{anchor}-{count}"),
        });
        *count += 1;
    }
    anchors
}

/// The tests above can fail.
#[test]
fn a_link_that_leads_nowhere_is_found() {
    let page = Path::new("docs/how-to/what-do-you-see.md");
    for right in [
        "../verify.md",
        "../verify.md#pause",
        "#what-is-safe-at-any-time",
        "host-died.md",
    ] {
        assert_eq!(follow(page, right), Ok(()), "{right}");
    }
    for wrong in [
        "verify.md",
        "../verify.md#no-such",
        "../../README.md",
        "..",
        "#no-such",
    ] {
        assert!(follow(page, wrong).is_err(), "{wrong}");
    }
    let text = "[a](b.md), `[c](d.md)`, [`e`](f.md#g)\n\n    [h](i.md)\n\n```\n[j](k.md)\n```\n[l](https://m)";
    assert_eq!(links(text), ["b.md", "f.md#g"]);
    let text = "# `up`, and *more*\n\n## up\n\n## [up](x.md)\n";
    assert_eq!(anchors(text), ["up-and-more", "up", "up-1"]);
}
