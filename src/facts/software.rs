//! Which services are installed, and in which version.

use std::collections::BTreeMap;

use super::Facts;
use crate::{configs::pinned, contract::REQUIREMENTS, services};

impl Facts {
    /// The packages that make up the cluster, with their versions.
    ///
    /// Of a Patroni in a venv it is the version that the venv was made for.
    pub fn software(&self) -> BTreeMap<String, String> {
        let serves = |package: &str| {
            let mut packages = services::all().flat_map(|service| service.packages);
            packages.any(|it| it.serves && it.is(package))
        };
        let mut software: BTreeMap<String, String> = self
            .packages
            .iter()
            .filter(|(package, _)| serves(package))
            .map(|(package, version)| (package.clone(), version.clone()))
            .collect();
        if self.patroni_stamp.is_some()
            && let Some(version) = self.pinned_patroni()
        {
            software.insert("patroni".into(), version);
        }
        software
    }

    fn pinned_patroni(&self) -> Option<String> {
        pinned(&self.files.get(REQUIREMENTS)?.content, "patroni")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::FileFact;

    fn facts(packages: &[(&str, &str)]) -> Facts {
        Facts {
            packages: packages
                .iter()
                .map(|(package, version)| ((*package).into(), (*version).into()))
                .collect(),
            ..Facts::default()
        }
    }

    fn named(facts: &Facts) -> Vec<String> {
        let name = |(package, version)| format!("{package} {version}");
        facts.software().into_iter().map(name).collect()
    }

    #[test]
    fn what_serves_is_named_and_what_helps_is_not() {
        let facts = facts(&[
            ("postgresql-15", "15.14-0+deb12u1"),
            ("postgresql-common", "248"),
            ("python3", "3.11.2-1"),
            ("etcd-server", "3.4.23-4"),
        ]);
        assert_eq!(
            named(&facts),
            ["etcd-server 3.4.23-4", "postgresql-15 15.14-0+deb12u1"]
        );
    }

    #[test]
    fn a_patroni_in_a_venv_is_the_one_that_runs() {
        let mut facts = facts(&[("patroni", "3.0.2-1")]);
        let requirements = "click==8.5.1 \\\n    --hash=x\npatroni==4.1.5 \\\n    --hash=y\n";
        facts.files.insert(
            REQUIREMENTS.into(),
            FileFact {
                owner: "root".into(),
                group: "root".into(),
                mode: 0o644,
                content: requirements.into(),
            },
        );
        assert_eq!(named(&facts), ["patroni 3.0.2-1"]);
        facts.patroni_stamp = Some("digest".into());
        assert_eq!(named(&facts), ["patroni 4.1.5"]);
    }
}
