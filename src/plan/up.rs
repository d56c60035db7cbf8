//! The plan of `up`: from what was found to what should be.

use std::time::Duration;

use serde_json::Value;

use super::{
    Action, Change, Condition, Found, Plan, Step, StepId,
    components::{self, Component, Configured, Turn},
    config_patch, etcd_members, front_door, packages, remains, roles, surprise,
};
use crate::{
    cluster::{Cluster, ETCD_CLIENT_PORT, Node},
    error::Result,
    facts::Facts,
    inventory::{HostName, Role},
    remote::{Script, quote},
    render::Files,
    sql::literal,
};

/// How long a leader or a first replica may take.
const FORMING: Duration = Duration::from_secs(180);
/// How long a replica may copy; it is only given up when it is no longer seen to be copying.
const COPYING: Duration = Duration::from_secs(6 * 3600);

/// Plans everything that stands between `found` and the cluster as the inventory wants it.
///
/// `config` is the cluster-wide configuration as it should be in the DCS. A host of which there are
/// no facts could not be looked at: there is no step for it, nor for what only such an etcd could tell.
pub fn up(cluster: &Cluster, files: &Files, config: &Value, found: &Found) -> Result<Plan> {
    surprise::check(cluster, found)?;
    let mut plan = Plan::default();
    let mut databases: Vec<(&Node, Configured)> = Vec::new();
    let mut etcds: Vec<(&Node, Configured)> = Vec::new();
    for node in cluster.nodes.values() {
        let Some(facts) = found.facts.get(&node.name) else {
            continue;
        };
        let files = files.get(&node.name).map_or(&[][..], Vec::as_slice);
        let prepared = components::prepare(&mut plan, cluster, node, facts, files)?;
        let installed =
            packages::install(&mut plan, cluster, node, facts, Vec::from_iter(prepared));
        let base: Vec<StepId> = installed.or(prepared).into_iter().collect();
        for role in &node.roles {
            let mut after = base.clone();
            let mut venv = None;
            if *role == Role::Postgres {
                venv =
                    packages::install_patroni(&mut plan, cluster, node, facts, files, base.clone());
                after = venv.map_or(after, |venv| vec![venv]);
            }
            let component = Component {
                node,
                role: *role,
                facts,
                files,
                replaced: venv.is_some(),
            };
            let configured = components::configure(&mut plan, cluster, &component, after)?;
            match role {
                Role::Postgres => databases.push((node, configured)),
                Role::Etcd => etcds.push((node, configured)),
                Role::Haproxy => {
                    components::run_unit(&mut plan, node, *role, &configured, &[]);
                }
            }
        }
    }
    let dcs_ready = etcd(&mut plan, cluster, found, &etcds);
    let cleared = remains::clear(&mut plan, cluster, found, &etcds, &mut databases, dcs_ready);
    patroni(&mut plan, cluster, found, config, &databases, &cleared);
    Ok(plan)
}

/// Starts what does not run, all at once; restarts what must be restarted one at a time, so that a
/// quorum stays. Returns the steps after which the DCS can be used.
///
/// With a quorum the others are told of a member's new URL before it restarts; without one, or of the
/// only member, that can only follow.
fn etcd(
    plan: &mut Plan,
    cluster: &Cluster,
    found: &Found,
    etcds: &[(&Node, Configured)],
) -> Vec<StepId> {
    let (starts, others): (Vec<_>, Vec<_>) = etcds
        .iter()
        .partition(|(_, configured)| configured.turn == Turn::Start);
    // A member that is away must be back before another goes. Without a quorum there is nothing to
    // keep, and the restart may be what brings it back.
    let declared = cluster.with_role(Role::Etcd).count();
    let quorum = others.len() > declared / 2 && etcd_members::has_quorum(cluster, found);
    let mut healthy = Vec::new();
    let mut last: Vec<StepId> = Vec::new();
    for (node, configured) in starts.into_iter().chain(others) {
        let serial = configured.turn == Turn::Restart;
        let mut before = if serial { last.clone() } else { Vec::new() };
        let first = quorum && declared > 1;
        if first {
            let mut after = last.clone();
            after.extend(&configured.ready);
            before.extend(etcd_members::update(plan, cluster, found, node, &after));
        }
        let Some(step) = components::run_unit(plan, node, Role::Etcd, configured, &before) else {
            if first {
                last.extend(before);
            } else {
                healthy.extend(etcd_members::update(plan, cluster, found, node, &[]));
            }
            continue;
        };
        let wait = plan.push(Step {
            host: node.name.clone(),
            name: "await-etcd",
            why: "Patroni can only begin once the DCS answers".into(),
            after: vec![step],
            changes: Vec::new(),
            action: Action::Await(Condition::EtcdHealthy),
            limit: Duration::from_secs(60),
            units: vec!["etcd"],
        });
        let wait = if first {
            wait
        } else {
            etcd_members::update(plan, cluster, found, node, &[wait]).unwrap_or(wait)
        };
        if serial {
            last = vec![wait];
        } else if quorum {
            last.push(wait);
        }
        healthy.push(wait);
    }
    healthy
}

/// Everything about the database hosts' units, and what must be seen after them.
fn patroni(
    plan: &mut Plan,
    cluster: &Cluster,
    found: &Found,
    config: &Value,
    databases: &[(&Node, Configured)],
    dcs_ready: &[StepId],
) {
    let facts = |host: &HostName| found.facts.get(host);
    let blind = found.dcs.is_none()
        && cluster
            .with_role(Role::Etcd)
            .any(|node| facts(&node.name).is_none());
    let fresh = !databases.iter().any(|(node, _)| {
        facts(&node.name)
            .and_then(|facts| facts.data.as_ref())
            .is_some_and(|data| data.entries > 0 && !data.is_half_made())
    });
    let leader = found.dcs.as_ref().and_then(|keys| keys.leader.clone());
    // While etcd is away the one that takes writes can still be told from the databases themselves.
    let primary = databases
        .iter()
        .find(|(node, _)| facts(&node.name).is_some_and(|facts| facts.in_recovery == Some(false)));
    let Some((first, _)) = databases.first() else {
        return;
    };

    let leading = leader
        .as_deref()
        .or(primary.map(|(node, _)| node.name.as_str()));
    let exchanged = exchange_in_turn(plan, cluster, found, databases, leading, dcs_ready);

    let mut started: Vec<StepId> = Vec::new();
    let mut woken: Vec<(&Node, StepId)> = Vec::new();
    for (node, configured) in databases {
        if matches!(configured.turn, Turn::Start | Turn::Reload)
            && let Some(step) =
                components::run_unit(plan, node, Role::Postgres, configured, dcs_ready)
        {
            started.push(step);
            if configured.turn == Turn::Start {
                woken.push((node, step));
            }
        }
    }

    // What is started waits for the DCS by itself.
    let mut led: Vec<StepId> = if started.is_empty() {
        dcs_ready.to_vec()
    } else {
        started
    };
    led.extend(&exchanged);
    if !woken.is_empty() || leader.is_none() {
        led = vec![plan.push(Step {
            host: first.name.clone(),
            name: "await-leader",
            why: "one member must take writes".into(),
            after: led,
            changes: Vec::new(),
            action: Action::Await(Condition::Leader),
            limit: FORMING,
            units: vec!["patroni"],
        })];
    }

    let lacking = roles::lacking(cluster, databases.iter().map(|(node, _)| *node), found);
    let unseen = primary.is_none() && (!woken.is_empty() || leader.is_none());
    if !fresh && !blind && (!lacking.is_empty() || unseen) {
        led = vec![roles::ensure(
            plan,
            cluster,
            &first.name,
            &lacking,
            led.clone(),
        )];
    }
    roles::accounts(plan, cluster, &first.name, found, led.clone());

    led.extend(reconnect(plan, cluster, found, databases, leading, &led));
    let mut streaming: Vec<StepId> = Vec::new();
    if databases.len() > 1 {
        // Which of them leads is known when the step's turn comes; the leader itself has nothing
        // to wait for.
        let waiting: Vec<&Node> = if fresh || leader.is_none() || !lacking.is_empty() {
            databases.iter().map(|(node, _)| *node).collect()
        } else {
            woken.iter().map(|(node, _)| *node).collect()
        };
        for node in waiting {
            streaming.push(await_streaming(plan, node, led.clone()));
        }
    }

    let mut settled = if streaming.is_empty() { led } else { streaming };
    settled.extend(&exchanged);
    restart_in_turn(plan, databases, leading, &mut settled);

    if blind {
        return;
    }
    let known = found.dcs.as_ref().and_then(|keys| keys.config.as_ref());
    let (patch, mut changes) = config_patch(known, config);
    if known.is_none() {
        // The cluster begins with a short loop, so that replicas need not wait for slots; this is
        // all that differs from what it began with.
        changes
            .retain(|change| matches!(change, Change::Setting { key, .. } if key == "loop_wait"));
    }
    if !changes.is_empty() {
        let patched = plan.push(Step {
            host: first.name.clone(),
            name: "patch-config",
            why: "the cluster-wide configuration is not as the inventory says".into(),
            after: settled,
            changes,
            action: Action::PatchConfig(if known.is_none() {
                config.clone()
            } else {
                patch
            }),
            limit: Duration::from_secs(30),
            units: vec!["patroni"],
        });
        settled = vec![patched];
    } else {
        plan.skip(
            &first.name,
            "patch-config",
            "the DCS has the inventory's settings",
        );
    }
    let patched = plan.steps.iter().any(|step| step.name == "patch-config");
    let parameters = databases
        .iter()
        .any(|(_, configured)| configured.parameters);
    if !fresh && (patched || parameters) {
        plan.push(Step {
            host: first.name.clone(),
            name: "restart-pending",
            why: "some parameters only take effect when PostgreSQL starts".into(),
            after: settled,
            changes: vec![Change::Other(
                "PostgreSQL restarts where a parameter waits for it".into(),
            )],
            action: Action::RestartPending,
            limit: Duration::from_secs(600),
            units: vec!["patroni"],
        });
    }
}

fn await_streaming(plan: &mut Plan, node: &Node, after: Vec<StepId>) -> StepId {
    plan.push(Step {
        host: node.name.clone(),
        name: "await-streaming",
        why: "a replica counts once the leader streams to it".into(),
        after,
        changes: Vec::new(),
        action: Action::Await(Condition::Streaming),
        limit: COPYING,
        units: vec!["patroni"],
    })
}

/// Has another Patroni take over on each host where etcd is elsewhere now, one at a time.
///
/// Replicas first, unless none of the etcd hosts that the members know is left: then the leader only
/// goes on because all members vouch for it (`failsafe_mode`), so that none of them may be away
/// before it has its lock again.
fn exchange_in_turn(
    plan: &mut Plan,
    cluster: &Cluster,
    found: &Found,
    databases: &[(&Node, Configured)],
    leader: Option<&str>,
    dcs_ready: &[StepId],
) -> Vec<StepId> {
    let mut exchanges: Vec<&(&Node, Configured)> = databases
        .iter()
        .filter(|(_, configured)| configured.turn == Turn::Exchange)
        .collect();
    let lost = exchanges
        .iter()
        .any(|(node, _)| knows_no_etcd(cluster, found, node));
    exchanges.sort_by_key(|(node, _)| (Some(node.name.as_str()) == leader) != lost);
    let mut last: Vec<StepId> = Vec::new();
    for (node, configured) in exchanges {
        let mut before = last.clone();
        before.extend(dcs_ready);
        let leads = Some(node.name.as_str()) == leader;
        if leads {
            before.extend(&configured.ready);
            before.extend(front_door::hold(plan, cluster, found, node, &before));
        }
        let Some(step) = components::run_unit(plan, node, Role::Postgres, configured, &before)
        else {
            continue;
        };
        last = vec![plan.push(Step {
            host: node.name.clone(),
            name: "await-member",
            why: "the DCS must know it again before the next goes".into(),
            after: vec![step],
            changes: Vec::new(),
            action: Action::Await(Condition::Registered),
            limit: Duration::from_secs(60),
            units: vec!["patroni"],
        })];
        if leads {
            last = front_door::release(plan, cluster, found, node, &last)
                .map_or(last, |step| vec![step]);
        }
    }
    last
}

/// Ends replication over addresses that are no member's any more, so that it begins anew.
///
/// Neither end of a connection whose address is gone hears of it: both would wait for their timeouts,
/// a minute each, and until then the replica's slot is taken.
fn reconnect(
    plan: &mut Plan,
    cluster: &Cluster,
    found: &Found,
    databases: &[(&Node, Configured)],
    leader: Option<&str>,
    led: &[StepId],
) -> Vec<StepId> {
    let moved: Vec<&Node> = databases
        .iter()
        .map(|(node, _)| *node)
        .filter(|node| {
            found
                .facts
                .get(&node.name)
                .is_some_and(|facts| has_moved(node, facts))
        })
        .collect();
    let Some(first) = moved.first() else {
        return Vec::new();
    };
    // Everybody must know the new addresses first.
    let mut after: Vec<StepId> = (0..plan.steps.len())
        .filter(|id| plan.steps[*id].name == "reload-patroni")
        .collect();
    after.extend(led);
    let leader_moved = moved.iter().any(|node| Some(node.name.as_str()) == leader);
    let gone = if leader_moved {
        "true".to_owned()
    } else {
        let members: Vec<String> = cluster
            .with_role(Role::Postgres)
            .map(|node| {
                let (name, address) = (node.name.as_str(), node.address.to_string());
                format!("({}, {})", literal(name), literal(&address))
            })
            .collect();
        format!(
            "(application_name, host(client_addr)) not in ({})",
            members.join(", ")
        )
    };
    let on_leader =
        format!("select pg_terminate_backend(pid) from pg_stat_replication where {gone}");
    let freed = plan.push(Step {
        host: first.name.clone(),
        name: "free-slots",
        why: "the leader would stream to addresses that are gone until it times out".into(),
        after,
        changes: vec![Change::Other(
            "the leader gives up replication to addresses that are no member's".into(),
        )],
        action: Action::RunOnLeader(local_sql(cluster, &on_leader)),
        limit: Duration::from_secs(30),
        units: vec!["patroni"],
    });
    let mut steps = Vec::new();
    if leader_moved {
        steps.push(plan.push(Step {
            host: first.name.clone(),
            name: "wake-members",
            why: "the replicas would look for the leader only in their next loop".into(),
            after: vec![freed],
            changes: vec![Change::Other("every Patroni runs its loop now".into())],
            action: Action::Wake,
            limit: Duration::from_secs(30),
            units: vec!["patroni"],
        }));
    }
    steps.extend(moved.into_iter().map(|node| {
        plan.push(Step {
            host: node.name.clone(),
            name: "reconnect-replica",
            why: "a replica waits for its old connection until it times out".into(),
            after: vec![freed],
            changes: vec![Change::Other("replication begins anew".into())],
            // The receiver is no backend, so that pg_terminate_backend() does not know it.
            action: Action::Run(
                Script::new()
                    .line(LOCAL_PSQL)
                    .line(format!(
                        "pid=$(echo 'select pid from pg_stat_wal_receiver' | local_psql {} -At)",
                        cluster.inventory.postgresql.port
                    ))
                    .line("[ -z \"$pid\" ] || kill \"$pid\""),
            ),
            limit: Duration::from_secs(30),
            units: vec!["patroni"],
        })
    }));
    steps
}

/// Whether a member runs under another address than its Patroni was told.
fn has_moved(node: &Node, facts: &Facts) -> bool {
    let told = format!("connect_address: \"{}:", node.address);
    let config = facts.files.get(components::PATRONI_CONFIG);
    facts.in_recovery.is_some() && config.is_some_and(|config| !config.content.contains(&told))
}

/// `local_psql PORT …`: psql as the superuser over the local socket, which asks for no password.
const LOCAL_PSQL: &str = r#"local_psql() {
  port=$1
  shift
  psql=$(ls /usr/lib/postgresql/*/bin/psql | sort -V | tail -n 1)
  cd /
  setpriv --reuid=postgres --regid=postgres --init-groups "$psql" -qX -h /var/run/postgresql -p "$port" -U postgres -d postgres "$@"
}"#;

/// Runs SQL as the superuser, over standard input.
pub(super) fn local_sql(cluster: &Cluster, sql: &str) -> Script {
    let port = cluster.inventory.postgresql.port;
    Script::new().line(LOCAL_PSQL).line(format!(
        "printf '%s' {} | local_psql {port} -o /dev/null",
        quote(sql),
    ))
}

/// Whether a member's Patroni has no address of any etcd that is right today.
fn knows_no_etcd(cluster: &Cluster, found: &Found, node: &Node) -> bool {
    let config = found
        .facts
        .get(&node.name)
        .and_then(|facts| facts.files.get(components::PATRONI_CONFIG));
    let Some(config) = config else {
        return true;
    };
    // A run that was cut off may have written the new list for a Patroni that has not read it yet.
    let unread = found.facts[&node.name].pending.contains_key("patroni");
    unread
        || !cluster.with_role(Role::Etcd).any(|etcd| {
            let address = format!("{}:{ETCD_CLIENT_PORT}", etcd.address);
            config.content.contains(&address)
        })
}

/// Restarts Patroni where nothing less will do: replicas first, one at a time, and the leader last,
/// after it has handed over.
fn restart_in_turn(
    plan: &mut Plan,
    databases: &[(&Node, Configured)],
    leader: Option<&str>,
    settled: &mut Vec<StepId>,
) {
    let mut restarts: Vec<&(&Node, Configured)> = databases
        .iter()
        .filter(|(_, configured)| configured.turn == Turn::Restart)
        .collect();
    restarts.sort_by_key(|(node, _)| Some(node.name.as_str()) == leader);
    for (node, configured) in restarts {
        if Some(node.name.as_str()) == leader && databases.len() > 1 {
            let mut after = settled.clone();
            after.extend(&configured.ready);
            *settled = vec![plan.push(Step {
                host: node.name.clone(),
                name: "hand-over",
                why: "a leader is not restarted while it takes writes".into(),
                after,
                changes: vec![Change::Other("another member becomes the leader".into())],
                action: Action::HandOver,
                limit: Duration::from_secs(60),
                units: vec!["patroni"],
            })];
        }
        if let Some(step) = components::run_unit(plan, node, Role::Postgres, configured, settled) {
            *settled = vec![if databases.len() > 1 {
                await_streaming(plan, node, vec![step])
            } else {
                plan.push(Step {
                    host: node.name.clone(),
                    name: "await-leader",
                    why: "one member must take writes".into(),
                    after: vec![step],
                    changes: Vec::new(),
                    action: Action::Await(Condition::Leader),
                    limit: FORMING,
                    units: vec!["patroni"],
                })
            }];
        }
    }
}
