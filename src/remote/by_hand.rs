//! The command with which a person can look at a host that refuses pgherd.

use std::{collections::BTreeMap, path::Path};

use crate::{inventory::HostName, shell::quote};

/// The command for a host. The `ssh_config` of a preview no longer exists when somebody uses the command.
pub(super) fn by_hand(config: &Path, passes: bool, host: &HostName) -> String {
    let lasting = match passes {
        true => std::fs::read_link(config).ok(),
        false => Some(config.to_owned()),
    };
    let command = match lasting {
        Some(config) => format!("ssh -v -F {} {host}", quote(&config.display().to_string())),
        None => {
            let text = std::fs::read_to_string(config).unwrap_or_default();
            in_words(&text, host)
        }
    };
    format!("look at it by hand: {command}")
}

/// The same without a config, with the host's own name.
fn in_words(config: &str, host: &HostName) -> String {
    let mut pairs = config.lines().map(|line| line.trim().split_once(' '));
    pairs.find(|pair| *pair == Some(("Host", host.as_str())));
    let block: BTreeMap<&str, &str> = pairs.map_while(|pair| pair).collect();
    let of = |key| block.get(key).copied();
    let address = of("HostName").unwrap_or(host.as_str());
    let mut words = vec!["ssh -v".to_owned()];
    words.extend(
        of("Port")
            .filter(|it| *it != "22")
            .map(|port| format!("-p {port}")),
    );
    words.push(match of("User") {
        Some(user) => quote(&format!("{user}@{address}")),
        None => address.to_owned(),
    });
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_by_hand_is_there_when_somebody_takes_it() {
        let dir = tempfile::tempdir().unwrap();
        let (real, shown) = (dir.path().join("my config"), dir.path().join("shown"));
        let text = "# why\n\nHost node1\n    HostName 192.0.2.1\n    Port 22\n    User admin\n\n\
                    Host node2\n    HostName 192.0.2.2\n    Port 2222\n    User admin\n\nHost *\n    LogLevel ERROR\n";
        std::fs::write(&real, text).unwrap();
        std::os::unix::fs::symlink(&real, &shown).unwrap();
        let of = |config: &Path, passes, host: &str| by_hand(config, passes, &HostName::new(host));
        let lasting = format!("look at it by hand: ssh -v -F '{}' node1", real.display());
        assert_eq!(of(&real, false, "node1"), lasting);
        // A preview without changes has a link to the permanent file.
        assert_eq!(of(&shown, true, "node1"), lasting);
        assert_eq!(
            of(&real, true, "node1"),
            "look at it by hand: ssh -v admin@192.0.2.1"
        );
        assert_eq!(
            of(&real, true, "node2"),
            "look at it by hand: ssh -v -p 2222 admin@192.0.2.2"
        );
    }
}
