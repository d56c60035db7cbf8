//! Checks that no code forgets a kind of provider.

use super::*;

/// The enums of the kinds of provider, as patterns name them.
const PATTERNS: [&str; 6] = [
    "Provider::Aws(",
    "Provider::Docker(",
    "Provider::Existing",
    "ProviderKind::Aws",
    "ProviderKind::Docker",
    "ProviderKind::Existing",
];

/// A match with an arm for every kind does not compile when a kind is added. Anything else would silently treat the new
/// kind like one of the others.
#[test]
fn a_forgotten_kind_of_provider_does_not_compile() {
    for bad in [
        "if matches!(it, Provider::Aws(_)) {",
        "if let Provider::Docker(it) = it {",
        "let Provider::Aws(it) = it else {",
        "match it {\n    Provider::Aws(_) => 1,\n    _ => 2,\n}",
        "match it {\n    ProviderKind::Aws => 1,\n    other => 2,\n}",
        "a(it == ProviderKind::Aws)",
    ] {
        assert!(forgets(bad).is_some(), "{bad}");
    }
    let good = "match it {\n    Provider::Aws(_) => x(|_| 1),\n    Provider::Existing => match y {\n        _ => 2,\n    },\n}";
    assert_eq!(forgets(good), None);
    let wrong: Vec<String> = sources()
        .into_iter()
        .filter_map(|(file, text)| Some(format!("src/{}: {}", file.join("/"), forgets(&text)?)))
        .collect();
    assert!(
        wrong.is_empty(),
        "write a match with an arm for every kind: {wrong:#?}"
    );
}

/// The first line that asks for some kinds and leaves the others to chance.
fn forgets(text: &str) -> Option<&str> {
    let lines: Vec<&str> = text.lines().collect();
    (0..lines.len()).find_map(|at| {
        let line = lines[at];
        let names = PATTERNS.iter().any(|it| line.contains(it));
        let asks = [
            "matches!(",
            "if let ",
            "let Provider",
            "let inventory::Provider",
            "==",
            "!=",
        ];
        if !names {
            return None;
        }
        let is_arm = line.contains("=>");
        if !is_arm && asks.iter().any(|it| line.contains(it)) {
            return Some(line);
        }
        if line.contains("matches!(") {
            return Some(line);
        }
        let rest = lines[at + 1..]
            .iter()
            .take_while(|it| depth(it) >= depth(line) || it.trim().is_empty());
        let arms = rest.filter(|it| depth(it) == depth(line));
        let is_catch_all = |arm: &&&str| {
            let (pattern, _) = arm.split_once("=>").unwrap_or(("", ""));
            let pattern = pattern.trim();
            !pattern.is_empty()
                && pattern
                    .bytes()
                    .all(|it| it.is_ascii_lowercase() || it == b'_')
        };
        is_arm
            .then(|| arms.clone().find(is_catch_all).copied())
            .flatten()
    })
}

fn depth(line: &str) -> usize {
    line.len() - line.trim_start().len()
}
