//! Commands in hints, with the options that the user needs to type.

/// The verbs that take an inventory.
pub(crate) const VERBS: [&str; 34] = [
    "plan",
    "up",
    "replace",
    "render",
    "status",
    "verify",
    "switchover",
    "pause",
    "resume",
    "reinit",
    "restart",
    "reboot",
    "update",
    "failover",
    "drill",
    "image",
    "rotate",
    "backup",
    "backups",
    "rehearse",
    "restore",
    "upgrade",
    "ssh",
    "psql",
    "connect",
    "targets",
    "logs",
    "diagnose",
    "down",
    "report",
    "recover",
    "adopt",
    "history",
    "state",
];

/// Returns the text with `options` in every command that takes an inventory and does not name one.
pub(crate) fn with_options(text: &str, options: &str) -> String {
    const NAME: &str = "pgherd ";
    let mut told = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(NAME) {
        // `.pgherd` is a folder, not a command.
        let is_word = !rest[..at].ends_with(|c: char| c.is_alphanumeric() || "./-_".contains(c));
        let (before, after) = rest.split_at(at + NAME.len());
        told.push_str(before);
        let verb = after.split(|c: char| !c.is_ascii_lowercase()).next();
        if is_word && verb.is_some_and(|verb| VERBS.contains(&verb)) {
            told.push_str(options);
            told.push(' ');
        }
        rest = after;
    }
    told.push_str(rest);
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_gets_its_inventory_and_only_that() {
        for (text, told) in [
            (
                "make them: pgherd up",
                "make them: pgherd -i 'my db.yaml' up",
            ),
            (
                "run `pgherd down` again; see: pgherd logs node1 etcd",
                "run `pgherd -i 'my db.yaml' down` again; see: pgherd -i 'my db.yaml' logs node1 etcd",
            ),
            ("pgherd -i other.yaml up", "pgherd -i other.yaml up"),
            (
                "write one with `pgherd init`",
                "write one with `pgherd init`",
            ),
            ("pgherd needs systemd", "pgherd needs systemd"),
            ("copy that .pgherd up there", "copy that .pgherd up there"),
            ("pgherd upgrades nothing", "pgherd upgrades nothing"),
        ] {
            assert_eq!(with_options(text, "-i 'my db.yaml'"), told);
        }
    }
}
