//! Documents of `--json` against docs/json, strictly: a name that a schema lacks is a mistake of the documentation.
//!
//! For users the schemas allow more names, because later versions add some.

use std::{collections::BTreeMap, fs, path::Path, sync::LazyLock};

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::Value;

/// All schemas, compiled once for each process.
static STRICT: LazyLock<(Schemas, BTreeMap<String, SchemaIndex>)> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json");
    let mut compiler = Compiler::new();
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).expect("docs/json") {
        let path = entry.expect("a file").path();
        let text = fs::read_to_string(&path).expect("a file");
        let mut schema: Value = serde_json::from_str(&text).expect("a schema is JSON");
        close(&mut schema);
        let name = path.file_name().expect("a name").to_string_lossy();
        compiler.add_resource(&name, schema).expect("a schema");
        names.push(name.into_owned());
    }
    let mut schemas = Schemas::new();
    let mut compiled = BTreeMap::new();
    for name in names {
        let index = compiler.compile(&name, &mut schemas);
        let index = index.unwrap_or_else(|error| panic!("{name}: {error:#}"));
        compiled.insert(name.trim_end_matches(".json").to_owned(), index);
    }
    (schemas, compiled)
});

/// Forbids every name that a schema does not have, at any depth.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(keys) => {
            keys.values_mut().for_each(close);
            let is_schema = keys.get("properties").is_some_and(Value::is_object);
            if is_schema && keys.contains_key("required") {
                keys.insert("additionalProperties".into(), false.into());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// What a verb prints with `--json`, by its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    One(&'static str),
    Lines(&'static str),
    /// It is no document of pgherd's, or has a schema of its own.
    Other,
}

pub(crate) fn shape(words: &[&str]) -> Shape {
    let own: Vec<&str> = own(words).collect();
    let has = |option: &str| own.contains(&option);
    let mut plain = Vec::new();
    let mut left = own.iter();
    while let Some(word) = left.next() {
        match *word {
            "-i" | "--inventory" | "--templates" => {
                left.next();
            }
            word if word.starts_with('-') => {}
            word => plain.push(word),
        }
    }
    let what = plain.get(1).copied().unwrap_or_default();
    match plain.first().copied().unwrap_or_default() {
        "status" if has("--watch") => Shape::Lines("status-watch"),
        "status" => Shape::One("status"),
        "verify" => Shape::One("verify"),
        "plan" => Shape::One("plan"),
        "render" if has("--out") => Shape::One("render-out"),
        "render" if has("--check") || has("--dry-run") => Shape::One("plan"),
        "backups" => Shape::One("backups"),
        "history" => Shape::One("history"),
        "report" if has("--list") => Shape::One("report-list"),
        "report" => Shape::One("report"),
        "connect" => Shape::One("connect"),
        "targets" if !has("--prometheus") => Shape::One("targets"),
        "update" if has("--check") => Shape::One("update-check"),
        "reboot" if has("--dry-run") => Shape::One("reboot-dry-run"),
        "restore" if has("--dry-run") && has("--into") => Shape::One("restore-into-dry-run"),
        "restore" if has("--dry-run") => Shape::One("restore-dry-run"),
        "upgrade" if has("--dry-run") => Shape::One("upgrade-dry-run"),
        "drill" => Shape::One("drill"),
        "adopt" => Shape::One("adopt"),
        "recover" => Shape::One("recover"),
        "diagnose" => Shape::One("diagnose"),
        "state" => Shape::One(match what {
            "init" | "push" => "state-push",
            "pull" => "state-pull",
            "identity" => "state-identity",
            _ => "state",
        }),
        "image" if what == "list" => Shape::One("image-list"),
        "image" if what == "remove" => Shape::One("image-remove"),
        "targets" | "schema" | "init" | "completions" | "man" | "psql" | "ssh" | "logs" => {
            Shape::Other
        }
        _ => Shape::Lines("events"),
    }
}

/// The words for pgherd itself.
fn own<'a>(words: &[&'a str]) -> impl Iterator<Item = &'a str> {
    words.iter().copied().take_while(|word| *word != "--")
}

/// Checks what `pgherd WORDS` has printed on stdout, if it was asked for JSON.
pub(crate) fn check_if_json(words: &[&str], stdout: &[u8]) {
    let text = own(words).any(|word| ["--help", "-h", "--version", "-V"].contains(&word));
    if !text && own(words).any(|word| word == "--json") {
        check(words, stdout);
    }
}

/// Checks what `pgherd WORDS` has printed on stdout.
pub(crate) fn check(words: &[&str], stdout: &[u8]) {
    let shape = shape(words);
    if shape == Shape::Other {
        return;
    }
    let told = || format!("{words:?}\n{}", String::from_utf8_lossy(stdout));
    let documents = serde_json::Deserializer::from_slice(stdout).into_iter::<Value>();
    let documents: Vec<Value> = documents
        .map(|it| it.unwrap_or_else(|error| panic!("it is no JSON: {error}: {}", told())))
        .collect();
    let alone = matches!(shape, Shape::One(_));
    assert!(!alone || documents.len() <= 1, "one document: {}", told());
    for document in &documents {
        check_one(words, document);
    }
}

/// The same for one document, or one line of several.
pub(crate) fn check_one(words: &[&str], document: &Value) {
    let name = match shape(words) {
        Shape::One(name) | Shape::Lines(name) => name,
        Shape::Other => return,
    };
    let wrong = match document["event"] == "error" {
        true => against("error", document),
        false => against(name, document),
    };
    if let Some(wrong) = wrong {
        panic!("pgherd {}: {wrong}", words.join(" "));
    }
}

/// What the strict schema of this name says against a document, if anything.
pub(crate) fn against(name: &str, document: &Value) -> Option<String> {
    let (schemas, compiled) = &*STRICT;
    let refused = schemas.validate(document, compiled[name]);
    // One mistake in a long document: where, and then all of it.
    let error = refused.err()?;
    Some(format!("docs/json/{name}.json: {error:#}\n{document:#}"))
}
