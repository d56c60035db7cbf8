//! Which versions a distribution has.

use super::Facts;
use crate::inventory::{Inventory, Provider};

/// An operating system, by the fields of its `/etc/os-release`, and the architecture.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Os {
    /// `debian`, `ubuntu`, …
    pub id: String,
    /// `12`, `24.04`, …
    pub version: String,
    pub codename: String,
    pub pretty: String,
    /// As `uname -m` prints it: `x86_64`, `aarch64`; empty if it is unknown.
    pub arch: String,
}

impl Os {
    pub fn ubuntu_24_04() -> Self {
        Self {
            id: "ubuntu".into(),
            version: "24.04".into(),
            codename: "noble".into(),
            pretty: "Ubuntu 24.04".into(),
            arch: String::new(),
        }
    }

    /// This machine's own; the Docker provider makes its hosts the same.
    pub fn here() -> Self {
        let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        Self::from_release(&text)
    }

    /// What the hosts of an inventory will run, before they exist.
    pub fn expected(inventory: &Inventory) -> Self {
        match &inventory.provider {
            Provider::Docker(settings) if settings.image.is_none() || settings.is_prepared() => {
                Self::here()
            }
            Provider::Docker(_) | Provider::Aws(_) | Provider::Existing => Self::ubuntu_24_04(),
        }
    }

    /// What a host runs that does not exist or cannot be read. It is assumed to be the same as on the other
    /// hosts, because the hosts of a cluster come from one image, or at least have the same distribution.
    pub fn beside<'a>(inventory: &Inventory, seen: impl IntoIterator<Item = &'a Facts>) -> Self {
        let other = seen.into_iter().next();
        other.map_or_else(|| Self::expected(inventory), |facts| facts.os.clone())
    }

    fn from_release(text: &str) -> Self {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
                .unwrap_or_default()
                .trim_matches('"')
                .to_owned()
        };
        Self {
            id: field("ID"),
            version: field("VERSION_ID"),
            codename: field("VERSION_CODENAME"),
            pretty: field("PRETTY_NAME"),
            arch: String::new(),
        }
    }

    /// The major version of PostgreSQL in the distribution's own package sources.
    ///
    /// Source: the distributions' package lists. `None` for an unknown distribution; then the inventory must
    /// name a version.
    pub fn postgresql(&self) -> Option<u16> {
        match (self.id.as_str(), self.version.as_str()) {
            ("debian", "11") => Some(13),
            ("debian", "12") => Some(15),
            ("ubuntu", "22.04") => Some(14),
            ("ubuntu", "24.04") => Some(16),
            ("debian", "13") | ("ubuntu", "25.04" | "25.10") => Some(17),
            ("ubuntu", "26.04") => Some(18),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_is_read_with_and_without_quotes() {
        let os = Os::from_release(
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n",
        );
        assert_eq!((os.id.as_str(), os.version.as_str()), ("debian", "12"));
        assert_eq!(os.postgresql(), Some(15));
    }

    /// Otherwise, a host that is down would count as one with another version of PostgreSQL, which is refused.
    #[test]
    fn a_host_that_is_not_seen_is_taken_to_be_as_the_others() {
        let text = "cluster: pg\nprovider: { kind: docker, image: some-image }\nhosts:\n  \
                    node1: { roles: [postgres, etcd, haproxy] }\n";
        let inventory = Inventory::parse(std::path::Path::new("pgherd.yaml"), text).unwrap();
        let trixie = Os {
            id: "debian".into(),
            version: "13".into(),
            ..Os::default()
        };
        let seen = [Facts::bare(trixie.clone())];
        assert_eq!(Os::beside(&inventory, &seen), trixie);
        assert_eq!(Os::beside(&inventory, []), Os::ubuntu_24_04());
    }
}
