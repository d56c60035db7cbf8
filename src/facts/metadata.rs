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

/// Asks for rules before that one which let other users through. One of the user postgres alone, which stays when
/// networkd restarts, is the one that the unit adds.
const EXCEPTION: &str = "\
    own=$(id -u postgres 2>/dev/null || :)\n\
    through=$(ip -d rule 2>/dev/null | grep '^99:.*to 169.254.169.254' | tr -s ' \\t' ' ' | sed 's/ $//' || :)\n\
    case $through in\n\
    '') ;;\n\
    \"99: from all to 169.254.169.254 uidrange $own-$own lookup main proto kernel\") fact metadata_exception postgres ;;\n\
    *) fact metadata_exception other ;;\n\
    esac";

/// Forgets every such rule.
pub const FORGET_EXCEPTIONS: &str =
    "while ip rule del pref 99 to 169.254.169.254/32 2>/dev/null; do :; done";

/// Who besides root can talk to the metadata service although the rule of the unit is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MetadataException {
    #[default]
    Nobody,
    /// The user postgres, by a rule that stays.
    Postgres,
    /// Somebody else, or postgres until networkd restarts.
    Other,
}

impl MetadataException {
    pub(super) fn parse(word: &str) -> Self {
        match word {
            "postgres" => Self::Postgres,
            "other" => Self::Other,
            _ => Self::Nobody,
        }
    }
}

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
    script.line(SCRIPT).line(EXCEPTION)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the script says where these are the rules, and postgres has the number 105.
    fn said(rules: &str) -> String {
        let before =
            "fact() { echo \"$*\"; }\nid() { echo 105; }\nip() { printf '%s\\n' \"$RULES\"; }\n";
        let ran = std::process::Command::new("/bin/sh")
            .args(["-ec", &format!("{before}{SCRIPT}\n{EXCEPTION}")])
            .env("RULES", rules)
            .output()
            .unwrap();
        assert!(ran.status.success(), "{ran:?}");
        String::from_utf8(ran.stdout).unwrap()
    }

    #[test]
    fn an_exception_counts_only_if_it_is_of_postgres_alone_and_stays() {
        let to = "from all to 169.254.169.254";
        let guard = format!("100:\t{to} uidrange 1-4294967294 prohibit proto kernel");
        let own = format!("99:\t{to} uidrange 105-105 lookup main proto kernel");
        let others = [
            format!("99:\t{to} uidrange 105-105 lookup main"),
            format!("99:\t{to} uidrange 33-33 lookup main proto kernel"),
            format!("99:\t{to} uidrange 105-110 lookup main proto kernel"),
            format!("99:\t{to} lookup main proto kernel"),
            format!("{own}\n99:\t{to} uidrange 33-33 lookup main proto kernel"),
        ];
        let holds = "metadata_guard holds\n";
        assert_eq!(said(&guard), holds);
        assert_eq!(
            said(&format!("{own}\n{guard}")),
            format!("{holds}metadata_exception postgres\n")
        );
        for other in others {
            assert_eq!(
                said(&format!("{other}\n{guard}")),
                format!("{holds}metadata_exception other\n"),
                "{other}"
            );
        }
        assert_eq!(said(&own), "metadata_exception postgres\n");
    }
}
