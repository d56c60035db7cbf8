//! What a Prometheus of the user's own scrapes, and how.

use std::{fs, path::Path};

use super::context::Context;
use crate::{
    cluster::{Target, targets},
    error::{Code, Error, Result},
    inventory::HostName,
    services::When,
};

/// What a Prometheus needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Scrape {
    pub targets: Vec<Target>,
    /// The file with the authority that has signed the hosts' certificates; `None` without TLS.
    pub authority: Option<String>,
}

/// The targets of all hosts, or of `host`. Nothing is asked of the hosts.
pub(crate) async fn of(context: &Context, host: Option<&str>) -> Result<Scrape> {
    let inventory = &context.inventory;
    if !inventory.wants(When::Metrics) {
        let what = format!("the hosts of {} show no metrics", inventory.cluster);
        return Err(Error::new(Code::InvalidArguments, what)
            .cause("the inventory has no section `monitoring`")
            .hint("write `monitoring: {}` into the inventory, then: pgherd up"));
    }
    if let Some(host) = host.filter(|it| !inventory.hosts.contains_key(&HostName::new(*it))) {
        let hosts: Vec<&str> = inventory.hosts.keys().map(HostName::as_str).collect();
        let what = format!("the inventory has no host {host}");
        return Err(Error::new(Code::InvalidArguments, what)
            .hint(format!("its hosts: {}", hosts.join(", "))));
    }
    let hosts = context.host_status().await?;
    // A host that is down stays the same target: its alert must find it again.
    let addresses = context.addresses(&[hosts.running, hosts.stopped].concat())?;
    let mut targets = targets(inventory, |name| {
        let address = addresses.get(name);
        address.map_or_else(|| name.to_string(), ToString::to_string)
    });
    targets.retain(|it| host.is_none_or(|host| it.labels["host"] == host));
    let authority = inventory.tls.enabled.then(|| {
        let path = context.workspace.ca_path();
        let path = std::path::absolute(&path).unwrap_or(path);
        path.display().to_string()
    });
    Ok(Scrape { targets, authority })
}

impl Scrape {
    /// The targets as `file_sd` reads them.
    pub(crate) fn file_sd(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(&self.targets);
        text.map(|text| text + "\n")
            .map_err(|error| Error::new(Code::InternalError, "cannot write JSON").because(error))
    }

    /// The part of Prometheus' configuration that reads the targets in `files`.
    pub(crate) fn configuration(&self, files: &str) -> String {
        let (scheme, tls) = match &self.authority {
            Some(file) => {
                let file = quoted(file);
                ("https", format!("    tls_config: {{ ca_file: {file} }}\n"))
            }
            None => ("http", String::new()),
        };
        format!(
            "scrape_configs:\n  \
             # Each target says by its labels what its job is, and which of the host's metrics it is.\n  \
             - job_name: pgherd\n    scheme: {scheme}\n{tls}    metrics_path: /proxy\n    \
             file_sd_configs:\n      - files: [{}]\n",
            quoted(files)
        )
    }

    /// Writes a file for each host into `folder`; returns the hosts.
    pub(crate) fn write(&self, folder: &Path) -> Result<Vec<String>> {
        let failed = |path: &Path, error: std::io::Error| {
            let what = format!("cannot write {}", path.display());
            Error::new(Code::LocalSystemFailed, what).because(error)
        };
        fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
        let mut hosts: Vec<String> = Vec::new();
        for target in &self.targets {
            let host = &target.labels["host"];
            if !hosts.contains(host) {
                hosts.push(host.clone());
            }
        }
        for host in &hosts {
            let mut targets = self.targets.clone();
            targets.retain(|it| it.labels["host"] == *host);
            let part = Self {
                targets,
                authority: None,
            };
            // Prometheus reads the folder at any moment.
            let (path, new) = (
                folder.join(format!("{host}.json")),
                folder.join(format!(".{host}.new")),
            );
            fs::write(&new, part.file_sd()?).map_err(|error| failed(&new, error))?;
            fs::rename(&new, &path).map_err(|error| failed(&path, error))?;
        }
        Ok(hosts)
    }
}

/// A text as YAML and JSON both read it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::inventory::Inventory;

    fn scrape(authority: Option<&str>) -> Scrape {
        let text = "cluster: pg\nprovider: { kind: existing }\nmonitoring: {}\nhosts:\n  \
                    db: { roles: [postgres, etcd], address: 192.0.2.1 }\n  \
                    door: { roles: [haproxy], address: 192.0.2.2 }\n";
        let inventory = Inventory::parse(Path::new("pgherd.yaml"), text).unwrap();
        Scrape {
            targets: targets(&inventory, |host| {
                inventory.hosts[host].address.unwrap().to_string()
            }),
            authority: authority.map(str::to_owned),
        }
    }

    #[test]
    fn the_configuration_trusts_the_clusters_authority_alone() {
        let text = scrape(Some("/a \"b\"/ca.crt")).configuration("/etc/prometheus/pg/*.json");
        for line in [
            "    scheme: https\n",
            r#"    tls_config: { ca_file: "/a \"b\"/ca.crt" }"#,
            r#"      - files: ["/etc/prometheus/pg/*.json"]"#,
        ] {
            assert!(text.contains(line), "{text}");
        }
        let plain = scrape(None).configuration("x.json");
        assert!(plain.contains("scheme: http\n") && !plain.contains("tls_config"));
    }

    #[test]
    fn each_host_has_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let hosts = scrape(None).write(folder.path()).unwrap();
        assert_eq!(hosts, ["db", "door"]);
        let text = fs::read_to_string(folder.path().join("door.json")).unwrap();
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        let jobs: Vec<_> = read
            .as_array()
            .unwrap()
            .iter()
            .map(|it| &it["labels"]["job"])
            .collect();
        assert_eq!(jobs, ["node", "haproxy"]);
        assert_eq!(read[0]["targets"][0], "192.0.2.2:9998");
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            2,
            "nothing else is left"
        );
    }
}
