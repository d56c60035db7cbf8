//! Reads from the sources which module uses which.

use super::*;

#[test]
fn the_reader_sees_what_is_there() {
    let text =
        "use crate::{\n    a::{b, c},\n    d,\n};\n/// crate::no\nfn f() { crate::e::g(); }\n";
    let text = without_comments(text);
    let seen: Vec<String> = names(&text, "crate::").into_iter().collect();
    assert_eq!(seen, ["a", "d", "e"]);
    let text = "use crate::{a, services::{Role, etcd::{Etcd, Member}}};\nuse crate::services;\n\
                fn f() { crate::services::postgres::patroni::g(crate::services::ALL) }\n";
    let seen: Vec<String> = of_services(text).into_iter().collect();
    assert_eq!(seen, ["services", "services::etcd", "services::postgres"]);
    let text =
        "use crate::services::{etcd::{Etcd, health}, postgres::health::leader, health::Check};";
    let seen: Vec<String> = of_services(text).into_iter().collect();
    assert_eq!(seen, ["services::etcd", "services::health"]);
    let text = "use super::{super::{a::B, c}, d};\npub(super) use crate::{m::{e::{F}, g}, n::h};\n\
                fn f(x: super::super::i::J) { crate::m::k::l(super::super::super::o); }\n";
    let seen: Vec<String> = named_in(text, &["m".to_owned()], 2).into_iter().collect();
    assert_eq!(seen, ["a", "c", "e", "g", "i", "k", "super"]);
    let link = |to: &str| BTreeSet::from([to.to_owned()]);
    let mut graph = Graph::from([("a".into(), link("b")), ("b".into(), link("c"))]);
    assert_eq!(cycle(&graph), None);
    graph.insert("c".into(), link("a"));
    assert!(cycle(&graph).is_some());
}

/// The files of `src` without comments and tests, by their path: `["plan", "up"]`.
pub(super) fn sources() -> Vec<(Vec<String>, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    read(&root, &root, &mut found);
    found
}

fn read(root: &Path, folder: &Path, found: &mut Vec<(Vec<String>, String)>) {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    for path in paths {
        let name = path.file_stem().unwrap().to_str().unwrap();
        if path.is_dir() && name != "tests" {
            read(root, &path, found);
        } else if path.extension().is_some_and(|it| it == "rs") && name != "tests" {
            let text = without_comments(&fs::read_to_string(&path).unwrap());
            let text = match text.find("#[cfg(test)]\nmod tests {") {
                Some(end) => text[..end].to_owned(),
                None => text,
            };
            let relative = path.strip_prefix(root).unwrap().with_extension("");
            let mut file: Vec<String> = relative
                .iter()
                .map(|part| part.to_str().unwrap().to_owned())
                .collect();
            if file.len() > 1 && file.last().is_some_and(|it| it == "mod") {
                file.pop();
            }
            found.push((file, text));
        }
    }
}

pub(super) fn without_comments(text: &str) -> String {
    let lines = text.lines().map(|line| match line.trim_start() {
        it if it.starts_with("//") => "",
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The first names after `prefix`, alone or in braces.
pub(super) fn names(text: &str, prefix: &str) -> BTreeSet<String> {
    let uses = text.match_indices(prefix);
    uses.flat_map(|(at, _)| items(&text[at + prefix.len()..]))
        .filter_map(first_name)
        .collect()
}

/// The text after a `::`: each item of a group in braces, or else the rest of the text.
pub(super) fn items(text: &str) -> Vec<&str> {
    let Some(group) = text.strip_prefix('{') else {
        return vec![text];
    };
    let mut found = Vec::new();
    let (mut depth, mut begin) = (0, 0);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => {
                found.push(group[begin..at].trim());
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(group[begin..at].trim());
                begin = at + 1;
            }
            _ => {}
        }
    }
    found
}

/// The clients' modules, with the names that they have here: `services::etcd`.
pub(super) const CLIENTS: &str = "services::";

/// The modules about health: `services/health.rs`, and each service's own.
pub(super) const HEALTH: &str = "services::health";

/// The modules of the tree. A service's folder belongs to three of them: its `mod.rs` to the table, `health` to
/// the modules about health, and the rest to the service's client.
pub(super) fn modules() -> Graph {
    let mut graph = Graph::new();
    for (file, text) in &sources() {
        let found = graph.entry(layer(file)).or_default();
        let mut named = names(text, "crate::");
        if named.remove("services") {
            found.extend(of_services(text));
        }
        found.extend(named);
    }
    let modules: BTreeSet<String> = graph.keys().cloned().collect();
    for (module, names) in &mut graph {
        names.retain(|name| modules.contains(name) && name != module);
    }
    graph
}

/// The module that a file is part of.
pub(super) fn layer(file: &[String]) -> String {
    let parts: Vec<&str> = file.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["services", "health"] | ["services", _, "health", ..] => HEALTH.to_owned(),
        ["services", service, _, ..] => format!("{CLIENTS}{service}"),
        [module, ..] => (*module).to_owned(),
        [] => String::new(),
    }
}

/// The modules of `crate::services` that are named.
fn of_services(text: &str) -> BTreeSet<String> {
    let uses = text.match_indices("crate::");
    let named = uses.flat_map(|(at, word)| items(&text[at + word.len()..]));
    let mut found = BTreeSet::new();
    for item in named.filter_map(|item| item.strip_prefix("services")) {
        match item.strip_prefix("::") {
            None => {
                found.insert("services".to_owned());
            }
            Some(rest) => found.extend(items(rest).into_iter().flat_map(of_service)),
        }
    }
    found
}

/// The same for the text after `services::`: `etcd::{Etcd, health}`.
fn of_service(item: &str) -> BTreeSet<String> {
    let name = word(item);
    if name == "health" {
        return BTreeSet::from([HEALTH.to_owned()]);
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/services");
    if !folder.join(&name).is_dir() {
        return BTreeSet::from(["services".to_owned()]);
    }
    let client = || format!("{CLIENTS}{name}");
    let Some(rest) = item[name.len()..].strip_prefix("::") else {
        return BTreeSet::from([client()]);
    };
    let parts = items(rest).into_iter().map(word);
    parts
        .map(|part| match part.as_str() {
            "health" => HEALTH.to_owned(),
            _ => client(),
        })
        .collect()
}

fn word(text: &str) -> String {
    let is_part = |it: &char| it.is_ascii_alphanumeric() || *it == '_';
    text.chars().take_while(is_part).collect()
}

fn first_name(text: &str) -> Option<String> {
    let name: String = text
        .trim_start()
        .chars()
        .take_while(|it| it.is_ascii_lowercase() || *it == '_' || it.is_ascii_digit())
        .collect();
    (!name.is_empty()).then_some(name)
}

/// For each module that is a folder, by its path: its files, and which of them name which others.
///
/// A file and its folder count as one. Every file may name what its parent's `mod.rs` has. The folders of
/// `services` belong to several modules (see [`layer`]), and there must be no cycle between those either.
pub(super) fn files_by_module() -> BTreeMap<String, Graph> {
    let mut graphs: BTreeMap<String, Graph> = BTreeMap::new();
    let sources = sources();
    for (file, text) in &sources {
        let first = if file[0] == "services" { 2 } else { 1 };
        for depth in first..file.len() {
            let (module, below) = file.split_at(depth);
            let graph = graphs.entry(module.join("/")).or_default();
            let named = named_in(text, module, below.len());
            graph.entry(below[0].clone()).or_default().extend(named);
        }
    }
    for graph in graphs.values_mut() {
        let files: BTreeSet<String> = graph.keys().cloned().collect();
        for (file, names) in graph {
            names.retain(|name| files.contains(name) && name != file);
        }
    }
    graphs
}

/// What a file names of `module`, which is `above` levels above it.
fn named_in(text: &str, module: &[String], above: usize) -> BTreeSet<String> {
    let path: Vec<&str> = module.iter().map(String::as_str).collect();
    let up = vec!["super"; above - 1];
    let mut found = BTreeSet::new();
    let (uses, code) = without_uses(text);
    for statement in &uses {
        for (begin, way) in [("crate::", &path), ("super::", &up)] {
            if let Some(rest) = statement.strip_prefix(begin) {
                found.extend(at_the_end(rest, way));
            }
        }
    }
    for (begin, way) in [("crate::", &path), ("super::", &up)] {
        for (at, _) in code.match_indices(begin) {
            if !code[..at].ends_with("::") {
                found.extend(at_the_end(&code[at + begin.len()..], way));
            }
        }
    }
    found
}

/// The names after `way`, such as `b` and `c` after `a` in `{x, a::{b::D, c}}`.
fn at_the_end(text: &str, way: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for item in items(text) {
        match way.split_first() {
            None => found.push(word(item.trim_start())),
            Some((first, rest)) => {
                let behind = item.trim_start().strip_prefix(first);
                if let Some(behind) = behind.and_then(|it| it.strip_prefix("::")) {
                    found.extend(at_the_end(behind, rest));
                }
            }
        }
    }
    found
}

/// The paths of all `use`, and the code without them.
fn without_uses(text: &str) -> (Vec<&str>, String) {
    let (mut uses, mut code) = (Vec::new(), String::new());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("use ") {
        code.push_str(before);
        let line = before.rsplit('\n').next().unwrap_or_default().trim_start();
        let is_use = line.is_empty() || (line.starts_with("pub") && line.ends_with(' '));
        match after.split_once(';').filter(|_| is_use) {
            Some((path, behind)) => {
                uses.push(path);
                rest = behind;
            }
            None => rest = after,
        }
    }
    code.push_str(rest);
    (uses, code)
}

/// A path from a module back to itself.
pub(super) fn cycle(graph: &Graph) -> Option<Vec<String>> {
    fn walk(graph: &Graph, way: &mut Vec<String>, done: &mut BTreeSet<String>) -> bool {
        let here = way[way.len() - 1].clone();
        for next in graph.get(&here).into_iter().flatten() {
            if way.contains(next) {
                way.push(next.clone());
                return true;
            }
            if done.contains(next) {
                continue;
            }
            way.push(next.clone());
            if walk(graph, way, done) {
                return true;
            }
            way.pop();
        }
        done.insert(here);
        false
    }
    let mut done = BTreeSet::new();
    for module in graph.keys() {
        let mut way = vec![module.clone()];
        if !done.contains(module) && walk(graph, &mut way, &mut done) {
            return Some(way);
        }
    }
    None
}
