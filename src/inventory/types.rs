//! Parts of the JSON Schema that no Rust type can express.

use std::{borrow::Cow, collections::BTreeSet};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::{
    PgSource, PgVersion,
    bounds::TYPE,
    check::{
        parameters::names,
        postgresql::{FOREIGN, SHARED, SYSTEM},
    },
};
use crate::services;

/// Implements what is common to types that exist only for their schema.
macro_rules! schema_of {
    ($type:ident: $schema:expr) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

/// A text that may look like a number or a boolean; it is kept as written.
pub(super) struct Scalar;

schema_of! { Scalar: json_schema!({"type": ["string", "number", "boolean"]}) }

/// The etcd API. `check` also accepts `3`, which editors need not offer.
pub(super) struct Api;

schema_of! { Api: json_schema!({"type": "string", "enum": ["v3"], "default": "v3"}) }

/// A version of PostgreSQL: a number, in quotes or not, or a word.
pub(super) struct Version;

schema_of! { Version: version() }

/// The word for the distribution's own version.
const DISTRO: &str = "distro";

fn version() -> Schema {
    let (least, most) = PgVersion::MAJORS.into_inner();
    let majors: Vec<String> = PgVersion::MAJORS.map(|it| it.to_string()).collect();
    let examples = PgVersion::MAJORS.map(Value::from);
    json_schema!({
        "type": ["integer", "string"],
        "minimum": least,
        "maximum": most,
        "pattern": format!("^({}|{DISTRO})$", majors.join("|")),
        "examples": examples.chain([DISTRO.into()]).collect::<Vec<_>>(),
        (TYPE): format!("{least} to {most}, or `{DISTRO}`"),
    })
}

/// Not a folder of the system or of another program, and not a detour to one.
pub(super) fn no_folder_of_others(schema: &mut Schema) {
    let others = [&SYSTEM[..], &FOREIGN[..]].concat().join("|");
    let not = json!({"anyOf": [
        {"enum": SHARED},
        {"pattern": format!("^({others})(/|$)")},
        {"pattern": "/[.][.]?(/|$)"},
    ]});
    schema.insert("not".into(), not);
}

/// At most one of two keys with the same meaning.
pub(super) fn never_both(one: &'static str, other: &'static str) -> impl FnMut(&mut Schema) {
    move |schema| {
        let both = json!({"type": "object", "required": [one, other]});
        schema.insert("not".into(), both);
    }
}

/// A key that needs another one.
pub(super) fn only_with(key: &'static str, other: &'static str) -> impl FnMut(&mut Schema) {
    move |schema| {
        schema.insert("dependentRequired".into(), json!({key: [other]}));
    }
}

/// The PostgreSQL project's repository has all versions, so the inventory must name one.
pub(super) fn no_distro_from_pgdg(schema: &mut Schema) {
    let both = json!({
        "type": "object",
        "properties": {
            "version": {"const": DISTRO},
            "source": {"const": PgSource::Pgdg.as_str()},
        },
        "required": ["version", "source"],
    });
    schema.insert("not".into(), both);
}

/// Nobody logs in with the accounts that packages create for their services.
pub(super) fn no_service(schema: &mut Schema) {
    let files = services::all().flat_map(|service| service.files);
    let accounts: BTreeSet<&str> = files
        .flat_map(|file| [file.owner, file.group])
        .filter(|name| services::all().any(|service| service.has_account(name)))
        .collect();
    schema.insert("not".into(), json!({"enum": accounts}));
}

/// PostgreSQL's parameters: the known ones in lowercase, and any of an extension. Capitals are valid too, but
/// editors should not offer them.
pub(super) fn parameters(schema: &mut Schema) {
    let value = json!({
        "type": ["string", "number", "boolean"],
        // A value in `postgresql.conf` has no line breaks, and no control character but the tab.
        "pattern": r"^[^\u0000-\u0008\u000a-\u001f\u007f-\u009f]*$",
    });
    let names: Map<String, Value> = names().map(|it| (it.to_owned(), value.clone())).collect();
    schema.insert("properties".into(), names.into());
    schema.insert("patternProperties".into(), json!({"[.A-Z]": value}));
    schema.insert("additionalProperties".into(), false.into());
    schema.insert(TYPE.into(), "map".into());
}
