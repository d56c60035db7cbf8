//! The error type: what failed, where, why, what is left, and what to do.

mod code;
mod command;

use std::fmt;

pub use code::Code;
#[cfg(test)]
pub(crate) use command::VERBS;
pub(crate) use command::with_options;

use crate::host::HostName;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a run ended, as a script sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Hosts, the cloud or the cluster failed.
    Failed,
    /// Arguments, inventory or template are wrong.
    Input,
    /// `verify` or `drill`: the cluster is not healthy.
    Broken,
    /// `--check`: something would change.
    Pending,
    /// The user stopped the run.
    Interrupted,
}

impl Kind {
    /// The process's exit code; part of the command line's contract.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Failed => 1,
            Kind::Input => 2,
            Kind::Broken => 3,
            Kind::Pending => 4,
            Kind::Interrupted => 130,
        }
    }
}

/// An error of another library, kept as what it is.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// Verbatim lines from elsewhere: output of a command, a unit's journal, a line of the inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    pub title: String,
    pub text: String,
}

#[derive(Debug)]
struct Parts {
    code: Code,
    what: String,
    host: Option<HostName>,
    step: Option<String>,
    causes: Vec<String>,
    source: Option<Source>,
    excerpts: Vec<Excerpt>,
    left: Option<String>,
    hints: Vec<String>,
    failures: Vec<Error>,
    /// The options that commands in hints need, such as `-i FILE`, so that they are about the same cluster.
    options: Option<String>,
}

/// An error in parts. `report` turns it into text.
///
/// Boxed, so that a `Result` stays small.
#[derive(Debug)]
pub struct Error(Box<Parts>);

impl Error {
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            code,
            what: what.into(),
            host: None,
            step: None,
            causes: Vec::new(),
            source: None,
            excerpts: Vec::new(),
            left: None,
            hints: Vec::new(),
            failures: Vec::new(),
            options: None,
        }))
    }

    pub fn interrupted() -> Self {
        Self::new(Code::Interrupted, "interrupted")
    }

    /// Several failures of one run, sorted by host. The whole has their code, or else their kind, if they share
    /// it.
    pub fn several(what: impl Into<String>, mut failures: Vec<Error>) -> Self {
        failures.sort_by(|a, b| a.host().cmp(&b.host()));
        let mut error = Self::new(shared_code(&failures), what);
        error.0.failures = failures;
        error
    }

    /// The single failures: those of several hosts or steps, or the error itself.
    pub fn apart(self) -> Vec<Self> {
        match self.0.failures.is_empty() {
            true => vec![self],
            false => self.0.failures,
        }
    }

    pub fn on(mut self, host: &HostName) -> Self {
        self.0.host = Some(host.clone());
        self
    }

    pub fn step(mut self, step: impl Into<String>) -> Self {
        self.0.step = Some(step.into());
        self
    }

    /// Adds a cause and, after it, that cause's own sources. The first cause is kept as the error's source.
    pub fn because(mut self, cause: impl Into<Source>) -> Self {
        let cause = cause.into();
        self.0.causes.push(cause.to_string());
        // An error of pgherd already has its causes in its text.
        let mut next = match cause.is::<Error>() {
            true => None,
            false => cause.source(),
        };
        while let Some(inner) = next {
            let text = inner.to_string();
            if self.0.causes.last() != Some(&text) {
                self.0.causes.push(text);
            }
            next = inner.source();
        }
        self.0.source.get_or_insert(cause);
        self
    }

    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.0.causes.push(cause.into());
        self
    }

    /// Quotes `text`, unless it is blank.
    pub fn excerpt(mut self, title: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        if !text.trim().is_empty() {
            self.0.excerpts.push(Excerpt {
                title: title.into(),
                text,
            });
        }
        self
    }

    /// Says what state the failure leaves behind.
    pub fn left(mut self, left: impl Into<String>) -> Self {
        self.0.left = Some(left.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hints.push(hint.into());
        self
    }

    pub fn code(&self) -> Code {
        self.0.code
    }
    pub fn kind(&self) -> Kind {
        self.0.code.kind()
    }
    pub fn what(&self) -> &str {
        &self.0.what
    }
    pub fn host(&self) -> Option<&HostName> {
        self.0.host.as_ref()
    }
    pub fn failed_step(&self) -> Option<&str> {
        self.0.step.as_deref()
    }
    pub fn causes(&self) -> &[String] {
        &self.0.causes
    }
    pub fn excerpts(&self) -> &[Excerpt] {
        &self.0.excerpts
    }
    pub fn left_behind(&self) -> Option<&str> {
        self.0.left.as_deref()
    }
    pub fn hints(&self) -> &[String] {
        &self.0.hints
    }
    /// The error in one line, for a sentence that has named `host` already.
    pub fn told_of(&self, host: &HostName) -> String {
        let text = self.to_string();
        let rest = text.strip_prefix(&format!("{host}: ")).map(str::to_owned);
        match self.host() == Some(host) {
            true => rest.unwrap_or(text),
            false => text,
        }
    }
    /// What to do: the error's own hints, or else the hint of its code. If there are several failures, each has
    /// its own.
    pub fn way_forward(&self) -> Vec<String> {
        let hints = if !self.hints().is_empty() || !self.failures().is_empty() {
            self.hints().to_vec()
        } else {
            let hint = self.code().what_to_do();
            vec![match self.host() {
                Some(host) => hint.replace("HOST", host.as_str()),
                None => hint.to_owned(),
            }]
        };
        let typed = |hint: String| match &self.0.options {
            Some(options) => with_options(&hint, options),
            None => hint,
        };
        hints.into_iter().map(typed).collect()
    }

    /// Sets the options that the commands in all hints need to be about the same cluster.
    #[must_use]
    pub fn with_options(mut self, options: &str) -> Self {
        let typed = |left: String| with_options(&left, options);
        self.0.left = self.0.left.take().map(typed);
        self.0.options = Some(options.to_owned());
        let failures = std::mem::take(&mut self.0.failures).into_iter();
        self.0.failures = failures.map(|it| it.with_options(options)).collect();
        self
    }

    pub fn failures(&self) -> &[Error] {
        &self.0.failures
    }

    /// The same error for another question that has the same answer. Only its source is not in it.
    pub(crate) fn again(&self) -> Self {
        let it = &*self.0;
        Self(Box::new(Parts {
            code: it.code,
            what: it.what.clone(),
            host: it.host.clone(),
            step: it.step.clone(),
            causes: it.causes.clone(),
            source: None,
            excerpts: it.excerpts.clone(),
            left: it.left.clone(),
            hints: it.hints.clone(),
            failures: it.failures.iter().map(Self::again).collect(),
            options: it.options.clone(),
        }))
    }
}

/// One line, enough for a log. `report` shows everything.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = self.host() {
            write!(f, "{host}: ")?;
        }
        if let Some(step) = self.failed_step() {
            write!(f, "{step}: ")?;
        }
        f.write_str(self.what())?;
        for cause in self.causes() {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let source = self.0.source.as_deref()?;
        Some(source)
    }
}

/// The code for several failures; its kind is the kind that they share.
fn shared_code(failures: &[Error]) -> Code {
    let Some(first) = failures.first() else {
        return Code::SeveralFailures;
    };
    if failures.iter().all(|other| other.code() == first.code()) {
        return first.code();
    }
    let is_shared = failures.iter().all(|other| other.kind() == first.kind());
    match first.kind() {
        Kind::Input if is_shared => Code::SeveralMistakes,
        // A failed check or an interruption must not be reported as a failure of hosts.
        Kind::Broken | Kind::Pending | Kind::Interrupted if is_shared => first.code(),
        _ => Code::SeveralFailures,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, error::Error as _, io};

    use super::*;

    fn all() -> impl Iterator<Item = Code> {
        Code::GROUPS.iter().flat_map(|(_, codes)| *codes).copied()
    }

    #[test]
    fn words_are_told_apart_and_stay_words() {
        let words: BTreeSet<&str> = all().map(Code::word).collect();
        assert_eq!(words.len(), all().count());
        for code in all() {
            let is_word = code
                .word()
                .split('-')
                .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase()));
            assert!(is_word, "{}", code.word());
            // `SshUnreachable` is `ssh-unreachable`: a reader of a log can find the place in the source.
            let variant = format!("{code:?}").to_lowercase();
            assert_eq!(variant, code.word().replace('-', ""));
            assert!(code.meaning().ends_with('.'), "{}", code.meaning());
            assert!(!code.what_to_do().is_empty() && !code.what_to_do().ends_with('.'));
        }
    }

    #[test]
    fn a_source_is_kept_as_what_it_is() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let error = Error::new(Code::LocalFileFailed, "cannot read x").because(denied);
        let source = error.source().and_then(|it| it.downcast_ref::<io::Error>());
        assert_eq!(
            source.map(io::Error::kind),
            Some(io::ErrorKind::PermissionDenied)
        );
        // The parts of an error inside another error are shown only once.
        let outer = Error::new(Code::StatementFailed, "no checkpoint").because(error);
        assert_eq!(outer.causes(), ["cannot read x: permission denied"]);
        let inner = outer.source().and_then(|it| it.downcast_ref::<Error>());
        assert_eq!(inner.map(Error::code), Some(Code::LocalFileFailed));
    }

    #[test]
    fn several_failures_have_what_they_share() {
        let of = |codes: &[Code]| {
            let failures = codes.iter().map(|code| Error::new(*code, "x")).collect();
            let error = Error::several("several", failures);
            (error.code(), error.kind())
        };
        let held = Code::LeaseHeld;
        assert_eq!(of(&[held, held]), (held, Kind::Failed));
        assert_eq!(
            of(&[held, Code::NoLeader]),
            (Code::SeveralFailures, Kind::Failed)
        );
        assert_eq!(
            of(&[Code::InventoryInvalid, Code::SecretsInvalid]),
            (Code::SeveralMistakes, Kind::Input)
        );
        assert_eq!(
            of(&[Code::InventoryInvalid, held]),
            (Code::SeveralFailures, Kind::Failed)
        );
        let broken = of(&[Code::ProvenInPart, Code::ClusterBroken]);
        assert_eq!(broken.1, Kind::Broken);
    }
}
