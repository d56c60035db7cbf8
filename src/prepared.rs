//! Prepared images: what an image must hold for an inventory, which image is used, and when an image is too
//! old.
//!
//! Providers store the images with the same labels. Everything else about images is here.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    facts::Os,
    inventory::{Inventory, PatroniSource, PgSource, PgVersion, Role},
};

/// The template that pins the versions of Patroni's venv.
pub const REQUIREMENTS: &str = "opt/patroni/requirements.txt";

/// The label or tag with the digest of the image's contents. pgherd did not make an image without it.
pub const DIGEST: &str = "pgherd:prepared";
const MADE: &str = "pgherd:made";
const SYSTEM: &str = "pgherd:system";
const ARCHITECTURE: &str = "pgherd:architecture";
const BASE: &str = "pgherd:base";
const HOLDS: &str = "pgherd:holds";

/// From this age on, updates are probably pending for an image: both distributions publish updates in most
/// weeks.
pub const AGED_DAYS: i64 = 30;

/// What the hosts of an inventory need, as far as an image can hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// `debian 12`.
    system: String,
    /// As `uname -m` prints it.
    architecture: String,
    packages: Vec<String>,
    /// PostgreSQL comes from the PostgreSQL project's repository.
    pgdg: bool,
    /// The rendered requirements of Patroni's venv; `None` if Patroni comes from the distribution.
    requirements: Option<String>,
}

impl Recipe {
    /// `os` is the hosts' operating system and architecture; `requirements` is the text of [`REQUIREMENTS`].
    pub fn of(inventory: &Inventory, os: &Os, requirements: &str) -> Self {
        let major = match inventory.postgresql.version {
            PgVersion::Major(major) => Some(major),
            PgVersion::Distro => os.postgresql(),
        };
        let all = Role::ALL.iter().flat_map(|role| role.service().packages);
        let wanted = all.filter(|package| inventory.wants(package.when));
        let mut packages: Vec<String> = wanted.filter_map(|package| package.on(major)).collect();
        packages.sort();
        packages.dedup();
        let pypi = inventory.patroni.source == PatroniSource::Pypi;
        Self {
            system: format!("{} {}", os.id, os.version),
            architecture: os.arch.clone(),
            packages,
            pgdg: inventory.postgresql.source == PgSource::Pgdg,
            requirements: pypi.then(|| requirements.to_owned()),
        }
    }

    /// A digest that is the same for the same contents.
    pub fn digest(&self) -> String {
        let source = if self.pgdg { "pgdg" } else { "distro" };
        let text = format!(
            "1\n{}\n{}\n{source}\n{}\n\n{}",
            self.system,
            self.architecture,
            self.packages.join("\n"),
            self.requirements.as_deref().unwrap_or("distro"),
        );
        let digest = Sha256::digest(text);
        let hex = digest.iter().take(6).map(|byte| format!("{byte:02x}"));
        hex.collect()
    }

    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// `debian 12 on x86_64 with postgresql-15, etcd-server, …`.
    pub fn in_words(&self) -> String {
        let serves = |package: &&String| {
            let mut all = Role::ALL.iter().flat_map(|role| role.service().packages);
            all.any(|it| it.serves && it.is(package))
        };
        let mut parts: Vec<&str> = self
            .packages
            .iter()
            .filter(serves)
            .map(String::as_str)
            .collect();
        if self.requirements.is_some() {
            parts.push("Patroni from PyPI");
        }
        let (system, architecture) = (&self.system, &self.architecture);
        format!("{system} on {architecture} with {}", parts.join(", "))
    }
}

/// What a host holds before it becomes an image.
#[derive(Debug, Clone)]
pub struct Contents {
    pub digest: String,
    /// `Debian GNU/Linux 12 (bookworm)`.
    pub system: String,
    pub architecture: String,
    /// The packages of services, with their versions.
    pub versions: BTreeMap<String, String>,
    pub made: Timestamp,
}

impl Contents {
    /// The labels of the image that is made from the image `base`.
    pub(crate) fn labels(&self, base: &str) -> BTreeMap<&'static str, String> {
        let versions = self.versions.iter();
        let versions: Vec<String> = versions.map(|(name, it)| format!("{name} {it}")).collect();
        // EC2 limits the length of a tag's value.
        let short = |text: String| text.chars().take(255).collect::<String>();
        BTreeMap::from([
            (DIGEST, self.digest.clone()),
            (MADE, self.made.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
            (SYSTEM, short(self.system.clone())),
            (ARCHITECTURE, self.architecture.clone()),
            (BASE, short(base.to_owned())),
            (HOLDS, short(versions.join(", "))),
        ])
    }

    /// A unique name for an image.
    pub(crate) fn name(&self) -> String {
        format!(
            "prepared-{}-{}",
            self.digest,
            self.made.strftime("%Y%m%d-%H%M%S")
        )
    }
}

/// An image that pgherd has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The id by which it is removed.
    pub id: String,
    pub name: String,
    pub digest: String,
    pub made: Timestamp,
    pub system: String,
    pub architecture: String,
    /// The image that it was made from.
    pub base: String,
    /// `etcd-server 3.4.23, haproxy 2.6.12, …`.
    pub holds: String,
    pub size: Size,
    /// Existing hosts that were made from it.
    pub used_by: Vec<String>,
    /// The newer version of its base image.
    pub superseded_by: Option<String>,
    /// Why no host can be made from it, in a word or two.
    pub unfit: Option<String>,
}

/// The space that an image takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// On this machine.
    Bytes(u64),
    /// GiB of snapshots at most; snapshots are billed by the month. Blocks that were never written cost
    /// nothing.
    Snapshot(u32),
}

impl Prepared {
    /// The image with these labels; `None` if pgherd did not make it.
    pub(crate) fn read<'a>(
        id: &str,
        name: &str,
        size: Size,
        label: impl Fn(&str) -> Option<&'a str>,
    ) -> Option<Self> {
        let text = |key| label(key).unwrap_or_default().to_owned();
        Some(Self {
            id: id.to_owned(),
            name: name.to_owned(),
            digest: label(DIGEST).filter(|it| !it.is_empty())?.to_owned(),
            made: label(MADE)?.parse().ok()?,
            system: text(SYSTEM),
            architecture: text(ARCHITECTURE),
            base: text(BASE),
            holds: text(HOLDS),
            size,
            used_by: Vec::new(),
            superseded_by: None,
            unfit: None,
        })
    }

    /// Full days since it was made.
    pub fn days(&self, now: Timestamp) -> i64 {
        (now.as_second() - self.made.as_second()).max(0) / 86_400
    }

    /// The reasons to make a new image.
    pub fn aged(&self, now: Timestamp) -> Vec<String> {
        let days = self.days(now);
        let mut reasons = Vec::new();
        if days >= AGED_DAYS {
            reasons.push(format!(
                "it is {days} days old, so that security updates may be pending for what it holds"
            ));
        }
        if let Some(newer) = &self.superseded_by {
            reasons.push(format!(
                "its base image {} was superseded by {newer}",
                self.base
            ));
        }
        reasons
    }

    /// The date on which it was made.
    pub fn date(&self) -> String {
        self.made.strftime("%Y-%m-%d").to_string()
    }
}

/// The newest of `images` that holds what is needed.
pub fn newest<'a>(images: &'a [Prepared], recipe: &Recipe) -> Option<&'a Prepared> {
    let digest = recipe.digest();
    let fits = images
        .iter()
        .filter(|image| image.digest == digest && image.unfit.is_none());
    // Any order will do for images that were made in the same second, as long as it is always the same.
    fits.max_by_key(|image| (image.made, &image.id))
}

/// What `image: prepared` means for new hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// They are made from this image.
    Found(Prepared),
    /// No image holds what they need: they are made from the base image.
    Missing(Recipe),
}

impl Choice {
    /// The same for programs.
    pub fn document(&self, now: Timestamp) -> Value {
        match self {
            Choice::Found(image) => json!({
                "id": image.id,
                "name": image.name,
                "made": image.made,
                "holds": image.holds,
                "aged": image.aged(now),
                "missing": null,
            }),
            Choice::Missing(recipe) => json!({
                "id": null,
                "name": null,
                "made": null,
                "holds": null,
                "aged": [],
                "missing": recipe.in_words(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const CLUSTER: &str = "
cluster: pg
provider: { kind: docker, image: prepared }
hosts: { all: { roles: [postgres, etcd, haproxy] } }
";

    fn inventory(more: &str) -> Inventory {
        Inventory::parse(Path::new("pgherd.yaml"), &format!("{CLUSTER}{more}")).unwrap()
    }

    fn debian(version: &str) -> Os {
        Os {
            id: "debian".into(),
            version: version.into(),
            arch: "x86_64".into(),
            ..Os::default()
        }
    }

    fn recipe(more: &str, os: &Os, requirements: &str) -> Recipe {
        Recipe::of(&inventory(more), os, requirements)
    }

    fn image(id: &str, digest: &str, made: &str) -> Prepared {
        let contents = Contents {
            digest: digest.into(),
            system: "Debian GNU/Linux 12".into(),
            architecture: "x86_64".into(),
            versions: BTreeMap::from([("haproxy".into(), "2.6.12".into())]),
            made: made.parse().unwrap(),
        };
        let labels = contents.labels("base:1");
        let label = |key: &str| labels.get(key).map(String::as_str);
        Prepared::read(id, &contents.name(), Size::Bytes(1), label).unwrap()
    }

    #[test]
    fn what_an_image_must_hold_is_told_apart_by_all_that_an_image_can_hold() {
        let same = recipe("", &debian("12"), "patroni==1").digest();
        let arm = Os {
            arch: "aarch64".into(),
            ..debian("12")
        };
        for (what, other) in [
            ("distribution", recipe("", &debian("13"), "patroni==1")),
            ("architecture", recipe("", &arm, "patroni==1")),
            ("requirements", recipe("", &debian("12"), "patroni==2")),
            (
                "version",
                recipe("postgresql: { version: 17 }\n", &debian("12"), "patroni==1"),
            ),
            (
                "source",
                recipe(
                    "postgresql: { version: 16, source: pgdg }\n",
                    &debian("12"),
                    "patroni==1",
                ),
            ),
            (
                "Patroni's source",
                recipe("patroni: { source: distro }\n", &debian("12"), "patroni==1"),
            ),
        ] {
            assert_ne!(same, other.digest(), "{what}");
        }
    }

    #[test]
    fn what_only_a_cluster_has_makes_no_difference() {
        let same = recipe("", &debian("12"), "patroni==1").digest();
        for more in [
            "tls: { enabled: false }\n",
            "postgresql: { port: 5433 }\n",
            "haproxy: { write_port: 6000 }\n",
        ] {
            assert_eq!(same, recipe(more, &debian("12"), "patroni==1").digest());
        }
        assert_eq!(
            recipe("", &debian("12"), "").in_words(),
            "debian 12 on x86_64 with etcd-server, haproxy, postgresql-16, Patroni from PyPI"
        );
    }

    #[test]
    fn the_newest_that_fits_is_taken() {
        let recipe = recipe("", &debian("12"), "patroni==1");
        let digest = recipe.digest();
        let images = [
            image("b", &digest, "2026-02-01T00:00:00Z"),
            image("c", "0123", "2026-04-01T00:00:00Z"),
            image("a", &digest, "2026-03-01T00:00:00Z"),
        ];
        assert_eq!(newest(&images, &recipe).unwrap().id, "a");
        assert_eq!(newest(&images[1..2], &recipe), None);
        let [mut pending, ..] = images;
        pending.unfit = Some("pending".into());
        assert_eq!(newest(&[pending], &recipe), None);
    }

    #[test]
    fn an_image_ages_by_days_and_with_its_base() {
        let mut image = image("a", "0123", "2026-01-01T12:00:00Z");
        let reasons = |image: &Prepared, now: &str| image.aged(now.parse().unwrap());
        assert_eq!(image.holds, "haproxy 2.6.12");
        assert!(reasons(&image, "2026-01-31T11:59:59Z").is_empty());
        let old = reasons(&image, "2026-01-31T12:00:00Z");
        assert!(old.len() == 1 && old[0].contains("30 days old"), "{old:?}");
        image.superseded_by = Some("base:2".into());
        let superseded = reasons(&image, "2026-01-02T00:00:00Z");
        assert_eq!(
            superseded,
            ["its base image base:1 was superseded by base:2"]
        );
    }

    /// Both have the same keys, so that a program need not ask which one it has.
    #[test]
    fn a_choice_tells_programs_which_image_it_is_or_what_is_missing() {
        let now = "2026-03-01T00:00:00Z".parse().unwrap();
        let found = Choice::Found(image("a", "0123", "2026-01-01T12:00:00Z")).document(now);
        let missing = Choice::Missing(recipe("", &debian("12"), "")).document(now);
        let keys = |value: &Value| -> Vec<String> {
            let keys = value.as_object().unwrap().keys();
            keys.cloned().collect()
        };
        assert_eq!(keys(&found), keys(&missing));
        assert_eq!(
            (&found["id"], &found["missing"]),
            (&json!("a"), &Value::Null)
        );
        assert_eq!(found["aged"].as_array().unwrap().len(), 1);
        assert_eq!(missing["id"], Value::Null);
        assert!(
            missing["missing"]
                .as_str()
                .unwrap()
                .starts_with("debian 12")
        );
    }

    #[test]
    fn what_has_no_digest_is_none_of_pgherds() {
        let label = |key: &str| (key == MADE).then_some("2026-01-01T12:00:00Z");
        assert_eq!(Prepared::read("a", "a", Size::Bytes(1), label), None);
    }
}
