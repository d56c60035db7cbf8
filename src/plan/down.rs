//! The plan of `down` on hosts that are not pgherd's: what `up` put on them is taken off again.

use std::time::Duration;

use super::{Action, Change, Found, Plan, Step, packages, surprise};
use crate::{
    cluster::Cluster,
    error::{Error, Result},
    facts,
    inventory::Role,
    remote::{Script, quote},
    render::{Files, Kind},
};

const PURGE: &str = r#"
if [ -s /var/lib/pgherd/packages.brought ]; then
  brought=$(sort -u /var/lib/pgherd/packages.brought | grep -vxFf /var/lib/pgherd/packages.before || true)
  here=$(for p in $brought; do
    [ -z "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null || true)" ] || printf '%s ' "$p"
  done)
  if [ -n "$here" ]; then
    with_locks env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=60 -o Dpkg::Use-Pty=0 purge $here
  fi
fi
"#;
/// Plans the removal on every host that carries this cluster's mark; a host without it is left alone.
pub fn down(cluster: &Cluster, files: &Files, found: &Found) -> Result<Plan> {
    let mut plan = Plan::default();
    for node in cluster.nodes.values() {
        let Some(facts) = found.facts.get(&node.name) else {
            continue;
        };
        match facts.files.get(surprise::MARKER) {
            None => {
                plan.skip(&node.name, "clear", "pgherd has nothing here");
                continue;
            }
            Some(marker) if !marker.content.contains(&cluster.secrets.cluster_id) => {
                return Err(Error::failed("this host belongs to another cluster")
                    .on(&node.name)
                    .excerpt(surprise::MARKER, marker.content.clone())
                    .left("nothing was removed anywhere"));
            }
            Some(_) => {}
        }
        let mut script = Script::new().alone("clear");
        let mut changes = Vec::new();
        for role in &node.roles {
            let unit = surprise::unit(*role);
            if facts.unit(unit).loaded {
                script = script.line(format!(
                    "systemctl disable --quiet --now {unit} || systemctl stop {unit}"
                ));
                changes.push(Change::Unit {
                    unit,
                    verb: "disable --now",
                });
            }
            let data = match role {
                Role::Postgres
                    if facts.data_marker.as_deref()
                        == Some(cluster.secrets.cluster_id.as_str()) =>
                {
                    let dir = &cluster.inventory.postgresql.data_dir;
                    script = script.line(format!("rm -rf {0} {0}.pgherd {0}.failed", quote(dir)));
                    Some(dir.clone())
                }
                Role::Etcd if facts.etcd_data => {
                    let dir = facts::etcd_dir(cluster.name());
                    script = script.line(format!("rm -rf {}", quote(&dir)));
                    Some(dir)
                }
                _ => None,
            };
            changes
                .extend(data.map(|dir| Change::Other(format!("all data in {dir} is destroyed"))));
        }
        script = script
            .line("rm -rf /opt/patroni")
            .line(packages::LOCKS)
            .line(PURGE);
        let mine = files.get(&node.name).map_or(&[][..], Vec::as_slice);
        for file in mine.iter().filter(|file| file.path != surprise::MARKER) {
            let Some(here) = facts.files.get(&file.path) else {
                continue;
            };
            match file.kind {
                Kind::Whole => {
                    script = script.line(format!("rm -f {}", quote(&file.path)));
                    changes.push(Change::Other(format!("{} is removed", file.path)));
                }
                Kind::Block => {
                    let rest = crate::render::remove_block(&here.content, cluster.name()).map_err(
                        |error| {
                            error
                                .on(&node.name)
                                .cause(format!("it is in {}", file.path))
                        },
                    )?;
                    if rest == here.content {
                        continue;
                    }
                    let file = crate::render::File {
                        content: rest,
                        mode: here.mode,
                        ..file.clone()
                    };
                    script = script.put(&file);
                    changes.push(Change::Other(format!(
                        "pgherd's lines in {} are removed",
                        file.path
                    )));
                }
            }
        }
        // The mark goes last: until then, a `down` that was cut off finds its way back.
        script = script
            .line("systemctl daemon-reload")
            .line("rm -rf /var/lib/pgherd /run/pgherd")
            .line("rmdir -p /etc/systemd/system/etcd.service.d /etc/postgresql-common/createcluster.d /etc/needrestart/conf.d /etc/motd.d 2>/dev/null || true")
            .line("rm -rf /etc/pgherd");
        plan.push(Step {
            host: node.name.clone(),
            name: "clear",
            why: "pgherd put it there".into(),
            after: Vec::new(),
            changes,
            action: Action::Run(script),
            // Ten minutes of it may be somebody else's, who holds dpkg's lock.
            limit: Duration::from_secs(1200),
            units: Vec::new(),
        });
    }
    Ok(plan)
}
