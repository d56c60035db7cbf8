//! The built-in templates, and the user's that replace them.
//!
//! Text is printed only through a filter that names its format. The engine's own escaping, which is for HTML,
//! is replaced by a guard: it is called for text without a filter, and there that is an error.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    sync::{Arc, OnceLock},
};

use serde_json::{Map, Value};
use tera::{Context, Tera};

use super::{files, filters, tags};
use crate::{
    error::{Code, Error, Result},
    given,
};

/// Goes before unfiltered text. No filter passes it, and no target format can hold it.
///
/// The text itself stays, because the engine compares what it would print: `a == "b"`.
const UNFILTERED: char = '\0';

/// A template's text, and the name of its file for people.
struct Source {
    shown: String,
    text: String,
    /// Whether it is the user's. The names in a built-in one are known to be right: a test checks them.
    overrides: bool,
}

/// Every template by its name, which is also its path in a folder of overrides.
pub struct Templates {
    tera: Arc<Tera>,
    sources: BTreeMap<&'static str, Source>,
}

impl Templates {
    /// The templates that are built in.
    pub fn embedded() -> Result<Self> {
        // They are the same in every run of a process, and take longer to parse than to render.
        static PARSED: OnceLock<Arc<Tera>> = OnceLock::new();
        let sources = files::templates()
            .into_iter()
            .map(|(name, text)| {
                let source = Source {
                    shown: format!("templates/{name}"),
                    text: text.into(),
                    overrides: false,
                };
                (name, source)
            })
            .collect();
        let tera = match PARSED.get() {
            Some(parsed) => parsed.clone(),
            None => {
                let parsed = Arc::new(parse(&sources)?);
                PARSED.get_or_init(|| parsed).clone()
            }
        };
        Ok(Self { tera, sources })
    }

    /// The built-in templates, replaced by the files with the same names in `dir`.
    ///
    /// A file that replaces nothing is an error, because it would have no effect.
    pub fn with_overrides(dir: &Path) -> Result<Self> {
        let mut templates = Self::embedded()?;
        let mut found = Vec::new();
        let root = fs::canonicalize(dir).map_err(|error| unreadable(dir, error))?;
        list(&root, dir, "", &mut found)?;
        for name in found {
            let shown = dir.join(&name).display().to_string();
            let Some((_, source)) = templates
                .sources
                .iter_mut()
                .find(|(known, _)| **known == name)
            else {
                return Err(unknown_template(&shown, &name, templates.sources.keys()));
            };
            let text = given::read_text(Path::new(&shown)).map_err(|error| {
                Error::new(Code::FileUnusable, format!("cannot read {shown}")).because(error)
            })?;
            *source = Source {
                shown,
                text,
                overrides: true,
            };
        }
        templates.tera = Arc::new(parse(&templates.sources)?);
        Ok(templates)
    }

    /// The names of all templates.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.sources.keys().copied()
    }

    /// The text of a template, before anything is filled in.
    pub fn text(&self, name: &str) -> &str {
        self.sources.get(name).map_or("", |source| &source.text)
    }

    /// Renders one template.
    pub(super) fn render(&self, name: &str, variables: &Variables) -> Result<String> {
        let source = self.sources.get(name).ok_or_else(|| {
            Error::new(Code::InternalError, format!("there is no template {name}"))
        })?;
        if source.overrides {
            check_names(source, variables)?;
        }
        let values = &variables.values;
        match self.tera.render(name, values) {
            Ok(text) if !text.contains(UNFILTERED) => Ok(text),
            Ok(_) => Err(refused(source, line_of_failure(&source.text, values))
                .cause("text is printed without a filter for its format")
                .hint("docs/templates.md lists the variables and the filters")),
            Err(error) => {
                let line = line_of_failure(&source.text, values);
                Err(reasons(&error)
                    .into_iter()
                    .fold(refused(source, line), Error::cause))
            }
        }
    }
}

/// Looks for what the engine does not see: unknown names, and text without a filter.
fn check_names(source: &Source, variables: &Variables) -> Result<()> {
    tags::check(&source.text, &variables.known).map_err(|finding| {
        let error = refused(source, Some(finding.line)).cause(finding.what);
        match finding.nearest {
            Some(nearest) => error.hint(format!("did you mean `{nearest}`?")),
            None => error.hint("docs/templates.md lists the variables and the filters"),
        }
    })
}

/// The names that the templates of one host know, for the engine and for the check of names.
pub(super) struct Variables {
    known: Value,
    values: Context,
}

impl Variables {
    pub(super) fn new(known: Map<String, Value>) -> Self {
        let mut values = Context::new();
        for (name, value) in &known {
            values.insert(name, value);
        }
        let known = Value::Object(known);
        Self { known, values }
    }
}

fn parse(sources: &BTreeMap<&'static str, Source>) -> Result<Tera> {
    let mut tera = engine();
    for (name, source) in sources {
        tera.add_raw_template(name, &source.text)
            .map_err(|error| syntax(source, &error))?;
    }
    Ok(tera)
}

/// An engine with the filters and the guard, and without templates.
fn engine() -> Tera {
    let mut tera = Tera::default();
    filters::register(&mut tera);
    // Rendering must not read anything but its input, and the environment may hold unrelated secrets.
    tera.register_function("get_env", |_: &HashMap<String, Value>| {
        Err(tera::Error::msg("a template cannot read the environment"))
    });
    // Every name ends like this.
    tera.autoescape_on(vec![""]);
    tera.set_escape_fn(|text| format!("{UNFILTERED}{text}"));
    tera
}

fn unreadable(path: &Path, error: std::io::Error) -> Error {
    Error::new(
        Code::FileUnusable,
        format!("cannot read {}", path.display()),
    )
    .because(error)
}

/// The files below `dir`, relative to it, sorted.
///
/// A link is followed only inside `root`: a folder from somebody else must not be able to put any file of this
/// machine onto hosts.
fn list(root: &Path, dir: &Path, prefix: &str, found: &mut Vec<String>) -> Result<()> {
    let unreadable = |error| unreadable(dir, error);
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        entries.push(entry.map_err(unreadable)?);
    }
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        let real = fs::canonicalize(&path).map_err(|error| {
            Error::new(
                Code::FileUnusable,
                format!("cannot read {}", path.display()),
            )
            .because(error)
        })?;
        if !real.starts_with(root) {
            return Err(Error::new(
                Code::TemplateInvalid,
                format!(
                    "{} leads outside of the folder of templates",
                    path.display()
                ),
            )
            .cause(format!("it is a link to {}", real.display()))
            .hint("put a copy of the file there"));
        }
        if path.is_dir() {
            list(root, &path, &format!("{prefix}{name}/"), found)?;
        } else {
            found.push(format!("{prefix}{name}"));
        }
    }
    Ok(())
}

fn unknown_template<'a>(
    shown: &str,
    name: &str,
    known: impl Iterator<Item = &'a &'static str>,
) -> Error {
    let known: Vec<&str> = known.copied().collect();
    let error = Error::new(
        Code::TemplateInvalid,
        format!("{shown} replaces no template"),
    );
    match tags::nearest(name, known.iter().copied()) {
        Some(nearest) => error.hint(format!("did you mean `{nearest}`?")),
        None => error.hint(format!("there are {}", known.join(", "))),
    }
}

/// The error for a template that cannot be used, with the line itself if it is known.
fn refused(source: &Source, line: Option<usize>) -> Error {
    match line {
        None => Error::new(
            Code::TemplateInvalid,
            format!("{} cannot be rendered", source.shown),
        ),
        Some(number) => {
            let line = source.text.lines().nth(number - 1).unwrap_or_default();
            let place = format!("{}, line {number}", source.shown);
            Error::new(
                Code::TemplateInvalid,
                format!("{place}, cannot be rendered"),
            )
            .excerpt(place, line)
        }
    }
}

/// The parser gives the line only in its text: ` --> 12:5`.
fn syntax(source: &Source, error: &tera::Error) -> Error {
    let reasons = reasons(error);
    let line = reasons.iter().find_map(|reason| {
        let (_, place) = reason.split_once("--> ")?;
        place.split(':').next()?.trim().parse().ok()
    });
    let expected = reasons.iter().find_map(|reason| {
        reason
            .lines()
            .rev()
            .find_map(|line| line.trim().strip_prefix("= "))
    });
    match expected {
        Some(expected) => refused(source, line).cause(expected),
        None => reasons
            .into_iter()
            .fold(refused(source, line), Error::cause),
    }
}

/// The engine's message, without its frame.
fn reasons(error: &tera::Error) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !text.starts_with("Failed to render") {
            reasons.push(text);
        }
        next = error.source();
    }
    reasons
}

/// Renders once more with a line number before each tag; the last number in the output is the line of the
/// error.
fn line_of_failure(text: &str, values: &Context) -> Option<usize> {
    let mut tera = engine();
    tera.add_raw_template("marked", &tags::marked(text)).ok()?;
    let mut out = Vec::new();
    // It fails again, and what matters is how far it got.
    let _ = tera.render_to("marked", values, &mut out);
    let out = String::from_utf8_lossy(&out);
    tags::last_mark(out.split(UNFILTERED).next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        plan::tests::world::{FIVE, cluster},
        render::context,
    };

    #[test]
    fn the_built_in_templates_use_only_names_that_there_are() {
        let keeper = "  keeper: { roles: [backup], address: 192.0.2.6 }\n";
        let bucket = "backup: { s3: { bucket: backups, region: eu-central-1 } }";
        let mut checked = 0;
        for (extra, hosts) in [
            ("", FIVE.to_owned()),
            ("tls: { enabled: false }", FIVE.to_owned()),
            (
                "haproxy: { vip: 192.0.2.100 }",
                format!("{FIVE}  other: {{ roles: [haproxy], address: 192.0.2.7 }}\n"),
            ),
            (bucket, format!("{FIVE}{keeper}")),
        ] {
            let cluster = cluster(extra, &hosts);
            let shared = context::shared(&cluster);
            for node in cluster.nodes.values() {
                let known = context::of_host(shared.clone(), &cluster, node).unwrap();
                let variables = Variables::new(known);
                for (name, source) in Templates::embedded().unwrap().sources {
                    let found = check_names(&source, &variables);
                    assert!(
                        found.is_ok(),
                        "{name}: {:?}",
                        found.map_err(|it| it.to_string())
                    );
                    checked += 1;
                }
            }
        }
        assert!(checked > 500, "{checked}");
    }
}
