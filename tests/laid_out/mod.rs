//! The built-in templates with another layout, as a user might write them.
//!
//! What the files say is the same, for the programs that read them: indentation, quotes, comments, blank lines.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Writes every built-in template in its other layout below `dir`; returns their names.
pub(crate) fn write(dir: &Path) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
    let mut names = Vec::new();
    list(&root, &mut names);
    let names: Vec<String> = names
        .iter()
        .map(|path| path.strip_prefix(&root).unwrap().to_str().unwrap().into())
        .collect();
    for name in &names {
        let text = fs::read_to_string(root.join(name)).unwrap();
        let other = laid_out(name, &text);
        assert_ne!(other, text, "{name}");
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, other).unwrap();
    }
    names
}

fn list(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => list(&path, found),
            false => found.push(path),
        }
    }
}

fn laid_out(name: &str, text: &str) -> String {
    match name {
        "etc/patroni.yml" => {
            let wide = wider(text).replace("indent=4", "indent=8");
            let wide = wide.replace(
                "protocol: https",
                "\"protocol\":   'https' # as etcd listens",
            );
            format!("---\n# Ours.\n\n{wide}\n...\n")
        }
        "etc/default/etcd" => indented(text, "  ").replace("}}\"\n", "}}\"  \n"),
        "etc/haproxy/haproxy.cfg" => text.replace("    ", "\t"),
        // pgherd's own: a name, and an id.
        "etc/pgherd/cluster" => format!("# Whose host this is.\n\n{}", indented(text, "    ")),
        // The one is a copy of the other, between marks.
        "etc/hosts" | "etc/pgherd/hosts" => text
            .replace("hosts -%}\n", "hosts %}    ")
            .replace("endfor -%}\n", "endfor %}"),
        _ if name.contains("/tls/") || name.ends_with(".crt") => format!("Ours:\n\n{text}"),
        _ if text.starts_with("#!") || name.ends_with(".py") => wider(text),
        _ => indented(text, "  "),
    }
}

/// Twice as far in as it was.
fn wider(text: &str) -> String {
    let lines = text.split_inclusive('\n').map(|line| {
        let blanks = line.len() - line.trim_start_matches(' ').len();
        format!("{}{line}", " ".repeat(blanks))
    });
    lines.collect()
}

fn indented(text: &str, by: &str) -> String {
    let lines = text
        .split_inclusive('\n')
        .map(|line| match line.trim().is_empty() {
            true => line.to_owned(),
            false => format!("{by}{line}"),
        });
    lines.collect()
}
