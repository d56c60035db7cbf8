//! The JSON Schema of an inventory. With it, editors complete keys and mark mistakes.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{ProviderKind, bounds::TYPE, choice::Choice as _, limits, schema::Document};

/// The schema's `$id`, for programs that keep several schemas.
const ID: &str = "urn:pgherd:inventory";

/// What happens without the key, in words.
pub(super) const DEFAULT: &str = "x-default";

/// The kinds of provider that take a key.
const KINDS: &str = "x-kinds";

/// The schema of an inventory, of the 2020-12 draft.
pub fn json_schema() -> Value {
    let mut schema = keys();
    let kinds = ProviderKind::ALL.iter();
    let rules: Vec<Value> = kinds.map(|kind| of_kind(*kind, &schema)).collect();
    for_editors(&mut schema);
    schema["allOf"] = rules.into();
    let mut whole = json!({
        "$schema": schema["$schema"],
        "$id": ID,
        "title": "A pgherd inventory",
    });
    if let (Value::Object(whole), Value::Object(schema)) = (&mut whole, schema) {
        for (key, value) in schema {
            whole.entry(key).or_insert(value);
        }
    }
    whole
}

/// The rules for one kind of provider.
fn of_kind(kind: ProviderKind, keys: &Value) -> Value {
    let mut provider = not_of(kind, &keys["properties"]["provider"]);
    let haproxy = not_of(kind, &keys["properties"]["haproxy"]);
    let bucket = not_of(kind, &keys["properties"]["backup"]["properties"]["s3"]);
    let mut hosts = json!({
        "properties": not_of(kind, &keys["properties"]["hosts"]["additionalProperties"]),
    });
    match kind {
        ProviderKind::Docker => {
            provider.insert("image".into(), limits::CONTAINER_IMAGE.of_text().into());
        }
        ProviderKind::Aws => {
            provider.insert("image".into(), limits::AMI.of_text().into());
        }
        ProviderKind::Existing => hosts["required"] = json!(["address"]),
    }
    let mut then = json!({
        "provider": {"properties": provider},
        "hosts": {"additionalProperties": hosts},
    });
    if !haproxy.is_empty() {
        then["haproxy"] = json!({"properties": haproxy});
    }
    if !bucket.is_empty() {
        then["backup"] = json!({"properties": {"s3": {"properties": bucket}}});
    }
    json!({
        "if": {
            "properties": {"provider": {
                "properties": {"kind": {"const": kind.as_str()}},
                "required": ["kind"],
            }},
            "required": ["provider"],
        },
        "then": {"properties": then},
    })
}

/// The keys of a section that a kind does not accept; each is refused.
fn not_of(kind: ProviderKind, section: &Value) -> Map<String, Value> {
    let keys = section["properties"].as_object().into_iter().flatten();
    keys.filter(|(_, key)| !kinds(key).contains(&kind))
        .map(|(key, _)| (key.clone(), Value::Bool(false)))
        .collect()
}

/// The kinds of provider that take a key.
pub(super) fn kinds(key: &Value) -> Vec<ProviderKind> {
    let Some(words) = key.get(KINDS).and_then(Value::as_array) else {
        return ProviderKind::ALL.to_vec();
    };
    let words = words.iter().filter_map(Value::as_str);
    words.filter_map(ProviderKind::of).collect()
}

/// Adds to a key's description what JSON Schema cannot express.
fn for_editors(schema: &mut Value) {
    let kinds = kinds(schema);
    match schema {
        Value::Object(object) => {
            let default = object.shift_remove(DEFAULT);
            if let Some(Value::String(description)) = object.get_mut("description") {
                if kinds.len() < ProviderKind::ALL.len() {
                    let kinds: Vec<&str> = kinds.iter().map(|it| it.as_str()).collect();
                    description.push_str(&format!(" Only for `{}`.", kinds.join("` and `")));
                }
                if let Some(Value::String(default)) = default {
                    description.push_str(&format!(" Default: {default}."));
                }
            }
            object.shift_remove(KINDS);
            object.shift_remove(TYPE);
            object.values_mut().for_each(for_editors);
        }
        Value::Array(array) => array.iter_mut().for_each(for_editors),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// All keys with everything that `schema` says of them; sections are nested.
pub(super) fn keys() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
    });
    let mut schema = Value::from(settings.into_generator().into_root_schema_for::<Document>());
    simplify(&mut schema);
    schema
}

/// Removes Rust's own formats of numbers, and joins each description into one paragraph.
fn simplify(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            let of_rust = |format: &Value| format.as_str().is_some_and(|it| it.starts_with("int"));
            if object.get("format").is_some_and(of_rust) {
                object.shift_remove("format");
            }
            if let Some(Value::String(description)) = object.get_mut("description") {
                *description = description.replace('\n', " ");
            }
            unwrap_null(object);
            object.values_mut().for_each(simplify);
        }
        Value::Array(array) => array.iter_mut().for_each(simplify),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Replaces "this or null" by the type itself, so that every section has its keys in `properties`.
fn unwrap_null(object: &mut Map<String, Value>) {
    let Some(Value::Array(either)) = object.get_mut("anyOf") else {
        return;
    };
    let [Value::Object(section), null] = &mut either[..] else {
        return;
    };
    if *null != json!({"type": "null"}) {
        return;
    }
    let section = std::mem::take(section);
    object.shift_remove("anyOf");
    for (key, value) in section {
        // The key's own attributes come first.
        object.entry(key).or_insert(value);
    }
    match object.get_mut("type") {
        Some(Value::Array(types)) => types.push("null".into()),
        Some(one) => *one = json!([one, "null"]),
        None => {}
    }
}
