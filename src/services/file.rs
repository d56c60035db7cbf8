//! The files of a service: which template becomes which file, and what must follow a change.

use super::service::When;

/// A template: its name under `templates/`, and the text that is built in.
pub type Embedded = (&'static str, &'static str);

/// The [`Embedded`] template with a name.
macro_rules! template {
    ($name:literal) => {
        (
            $name,
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/templates/", $name)),
        )
    };
}
pub(crate) use template;

/// What a plan or a diff may show of a file.
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
    /// When the packages have created the users that own it.
    Configure,
}

/// How much of the file is pgherd's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The whole file is pgherd's.
    Whole,
    /// A marked block in a file whose other lines stay.
    Block,
}

/// What must happen after a change of the file, from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    Nothing,
    Reload,
    /// Patroni restarts alone; its PostgreSQL continues.
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
    /// For files of which not every change needs `effect`: decides what a change needs.
    pub on_change: Option<OnChange>,
}

/// What it takes to get from the old text to the new one. The last argument is the file's own effect.
pub type OnChange = fn(&str, &str, Effect) -> Effect;

/// A file that is written before the packages: it belongs to root, has mode 0644, no secrets, and no effect.
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

/// A file that the service reads, written after its package is installed: it belongs to root, has mode 0644,
/// and no secrets.
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

/// A private key, which only the service's own user may read.
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
