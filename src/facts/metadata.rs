//! Which users of a host can talk to EC2's metadata service.

use crate::remote::Script;

/// The unit, without `.service`, that blocks all users but root from the metadata service.
pub const UNIT: &str = "pgherd-metadata-guard";

/// Asks for the rule of that unit. `ip` shows who made a rule only with `-d`.
const SCRIPT: &str = "\
    case $(ip -d rule 2>/dev/null) in\n\
    *'to 169.254.169.254 uidrange 1-4294967294 prohibit proto kernel'*) fact metadata_guard holds ;;\n\
    *'to 169.254.169.254 uidrange 1-4294967294 prohibit'*) fact metadata_guard fragile ;;\n\
    esac";

/// Whether a rule blocks all users but root from the metadata service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MetadataGuard {
    #[default]
    Absent,
    /// networkd removes the rule when it configures a link again.
    Fragile,
    Holds,
}

impl MetadataGuard {
    pub(super) fn parse(word: &str) -> Self {
        match word {
            "holds" => Self::Holds,
            "fragile" => Self::Fragile,
            _ => Self::Absent,
        }
    }
}

pub(super) fn ask(script: Script) -> Script {
    script.line(SCRIPT)
}
