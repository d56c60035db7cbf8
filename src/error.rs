//! One error type: what failed, where, why, what is left, and what to do.

use std::fmt;

use crate::host::HostName;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a run ended, as a script sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Hosts, the cloud or the cluster failed.
    Failed,
    /// Arguments, inventory or template are wrong.
    Input,
    /// `verify` or `drill`: the cluster does not hold.
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

/// Verbatim lines from elsewhere: a command's output, a unit's journal, a line of the inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    pub title: String,
    pub text: String,
}

#[derive(Debug)]
struct Parts {
    kind: Kind,
    what: String,
    host: Option<HostName>,
    step: Option<String>,
    causes: Vec<String>,
    excerpts: Vec<Excerpt>,
    left: Option<String>,
    hints: Vec<String>,
    failures: Vec<Error>,
    unanswered: bool,
}

/// An error in parts, put into words by `report`.
///
/// Boxed, so that a `Result` stays small.
#[derive(Debug)]
pub struct Error(Box<Parts>);

impl Error {
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            kind,
            what: what.into(),
            host: None,
            step: None,
            causes: Vec::new(),
            excerpts: Vec::new(),
            left: None,
            hints: Vec::new(),
            failures: Vec::new(),
            unanswered: false,
        }))
    }

    pub fn failed(what: impl Into<String>) -> Self {
        Self::new(Kind::Failed, what)
    }

    pub fn input(what: impl Into<String>) -> Self {
        Self::new(Kind::Input, what)
    }

    pub fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "interrupted")
    }

    /// Several failures of one run, sorted by host; of their kind where they share one.
    pub fn several(what: impl Into<String>, mut failures: Vec<Error>) -> Self {
        failures.sort_by(|a, b| a.host().cmp(&b.host()));
        let kind = match failures.first().map(Error::kind) {
            Some(kind) if failures.iter().all(|failure| failure.kind() == kind) => kind,
            _ => Kind::Failed,
        };
        let mut error = Self::new(kind, what);
        error.0.failures = failures;
        error
    }

    pub fn on(mut self, host: &HostName) -> Self {
        self.0.host = Some(host.clone());
        self
    }

    pub fn step(mut self, step: impl Into<String>) -> Self {
        self.0.step = Some(step.into());
        self
    }

    /// Adds a cause and, behind it, that cause's own sources.
    pub fn because(mut self, cause: impl std::error::Error) -> Self {
        self.0.causes.push(cause.to_string());
        let mut source = cause.source();
        while let Some(inner) = source {
            let text = inner.to_string();
            if self.0.causes.last() != Some(&text) {
                self.0.causes.push(text);
            }
            source = inner.source();
        }
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

    /// Says that a question was asked and nobody answered in time: what was asked for may still come about.
    pub fn unanswered(mut self) -> Self {
        self.0.unanswered = true;
        self
    }

    pub fn is_unanswered(&self) -> bool {
        self.0.unanswered
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
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
    pub fn failures(&self) -> &[Error] {
        &self.0.failures
    }
}

/// One line: enough for a log; `report` shows the whole.
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

impl std::error::Error for Error {}
