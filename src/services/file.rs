//! The files of a service: which template becomes which file, and what must follow a change.

use super::service::When;

/// A template, by its name under `templates/`, with the text that is built in.
pub type Embedded = (&'static str, &'static str);

/// The [`Embedded`] template of a name.
macro_rules! template {
    ($name:literal) => {
        (
            $name,
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/templates/", $name)),
        )
    };
}
pub(crate) use template;

/// What a file may show of itself in a plan or a diff.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    Public,
    /// Lines that hold secrets are masked.
    Masked,
    /// Private keys: nothing is shown.
    Hidden,
}

/// When a file can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Before any package is installed.
    Prepare,
    /// Once the packages have made the users that own it.
    Configure,
}

/// How the file relates to what is on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The file is all ours.
    Whole,
    /// A marked block in a file that has other lines, which stay.
    Block,
}

/// What must happen once a file has changed, from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    Nothing,
    Reload,
    /// Patroni alone starts anew; the PostgreSQL that it runs goes on.
    RestartPatroniAlone,
    Restart,
}

/// One file, before it is rendered.
pub struct Entry {
    pub path: &'static str,
    pub template: Embedded,
    pub when: When,
    pub owner: &'static str,
    pub group: &'static str,
    pub mode: u32,
    pub visibility: Visibility,
    pub stage: Stage,
    pub kind: Kind,
    pub effect: Effect,
    /// What a change of the file asks for where not every change asks for `effect`.
    pub on_change: Option<OnChange>,
}

/// Says what it takes for the old text to become the new one; the last is the file's own effect.
pub type OnChange = fn(&str, &str, Effect) -> Effect;

/// A file before the packages: root's, 0644, nothing secret, without effect.
pub const fn early(path: &'static str, template: Embedded) -> Entry {
    Entry {
        path,
        template,
        when: When::Always,
        owner: "root",
        group: "root",
        mode: 0o644,
        visibility: Visibility::Public,
        stage: Stage::Prepare,
        kind: Kind::Whole,
        effect: Effect::Nothing,
        on_change: None,
    }
}

/// A program for people on the host. It takes precedence over the package's own on every `PATH`.
pub const fn command(path: &'static str, template: Embedded) -> Entry {
    Entry {
        mode: 0o755,
        ..early(path, template)
    }
}

/// A file that the service reads, once its package is there: root's, 0644, nothing secret.
pub const fn config(path: &'static str, template: Embedded, effect: Effect) -> Entry {
    Entry {
        stage: Stage::Configure,
        effect,
        ..early(path, template)
    }
}

/// A certificate, which everybody may read.
pub const fn certificate(path: &'static str, template: Embedded, effect: Effect) -> Entry {
    Entry {
        when: When::Tls,
        ..config(path, template, effect)
    }
}

/// A private key, which the service's own user alone may read.
pub const fn key(
    path: &'static str,
    template: Embedded,
    effect: Effect,
    owner: &'static str,
) -> Entry {
    Entry {
        owner,
        group: owner,
        mode: 0o600,
        visibility: Visibility::Hidden,
        ..certificate(path, template, effect)
    }
}
