//! Checks that PostgreSQL runs with the inventory's settings, wherever its settings come from.
//!
//! Correct files and a correct DCS prove little: `ALTER SYSTEM`, an include file, a setting of the role or the
//! database, or a missing reload can change what a server does. So each member is asked for its settings and
//! their sources (`pg_settings`, `pg_file_settings`), and for its access rules (`pg_hba_file_rules`,
//! `pg_ident_file_mappings`).

use std::{collections::BTreeMap, time::Duration};

use tokio::time::timeout;
use tokio_postgres::SimpleQueryRow;

use crate::{
    configs::{Access, PatroniConfig},
    error::{Code, Error, Result},
    inventory::HostName,
    plan::Found,
    render::{self, Files},
    services::{
        health::{Check, Look, Settles},
        postgres::{self, Survey, patroni::Status},
    },
};

mod access;
mod dcs;
mod expected;
mod tags;

use expected::{Expected, agree};

const NAME: &str = "settings";

/// How long a member may take to report its settings.
const ANSWER: Duration = Duration::from_secs(10);
/// How many differences are shown.
const MOST: usize = 8;

/// A server's settings.
const RUNNING: &str = "select name, setting, coalesce(unit, '') as unit, source, \
     coalesce(sourcefile, '') as sourcefile, coalesce(boot_val, '') as boot_val, vartype, \
     pg_catalog.current_setting(name) as shown from pg_catalog.pg_settings";
/// What its files contain beyond that: settings that were not loaded yet, or cannot be.
const FILES: &str = "select coalesce(name, '') as name, coalesce(setting, '') as setting, \
     coalesce(sourcefile, '') as sourcefile, coalesce(sourceline::pg_catalog.text, '') as sourceline, \
     applied::pg_catalog.text as applied, coalesce(error, '') as error \
     from pg_catalog.pg_file_settings";

/// One row of `pg_settings`.
#[derive(Debug, Clone, Default)]
struct Setting {
    name: String,
    value: String,
    unit: String,
    source: String,
    file: String,
    /// PostgreSQL's own default.
    built_in: String,
    kind: String,
    /// The value with its unit, as `SHOW` prints it.
    shown: String,
}

/// One row of `pg_file_settings`.
#[derive(Debug, Clone, Default)]
struct Written {
    name: String,
    value: String,
    file: String,
    line: String,
    applied: bool,
    error: String,
}

pub(super) async fn look(look: &Look<'_>, survey: &Survey) -> Check {
    let right = "every member runs with the inventory's settings and access rules";
    Check::of(NAME, differences(look, survey).await, right.into()).settles(Settles::InALoop)
}

/// The differences, one sentence each. Members that do not run are reported by other checks.
pub(super) async fn differences(look: &Look<'_>, survey: &Survey) -> Vec<String> {
    let (cluster, found) = (look.ways.cluster, look.found);
    let runs = |status: &Result<Status>| status.as_ref().is_ok_and(Status::is_running);
    let asked = survey
        .iter()
        .filter(|(_, status)| runs(status))
        .map(|(host, _)| async move { (host, ask(look, host).await) });
    // The same difference on several members is reported once.
    let mut said: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (host, answer) in futures_util::future::join_all(asked).await {
        let patronis = patronis_file(found, host);
        let mut differs = match &answer {
            Ok(answer) => {
                let node = &cluster.nodes[host];
                let expected = Expected::of(cluster, node);
                let mut differs = judge(&expected, &answer.running, &answer.written);
                differs.extend(access::judge(&wanted(look.files, host), &answer.rules));
                differs
            }
            Err(error) => vec![format!("does not report its settings: {}", error.what())],
        };
        if let Ok(status) = &survey[host] {
            differs.extend(tags::differences(patronis.as_ref(), host, &status.tags));
        }
        for difference in differs {
            said.entry(difference).or_default().push(host.as_str());
        }
    }
    let mut told: Vec<String> = said
        .into_iter()
        .map(|(what, hosts)| format!("{}: {what}", hosts.join(", ")))
        .collect();
    let dcs = found.dcs.as_ref().and_then(|keys| keys.config.as_ref());
    told.extend(dcs::differences(dcs, &crate::render::dcs_config(cluster)));
    if told.len() > MOST {
        let more = told.len() - MOST;
        told.truncate(MOST);
        told.push(format!("and {more} more"));
    }
    told
}

/// The answer of one member.
struct Answer {
    running: Vec<Setting>,
    written: Vec<Written>,
    rules: access::Rules,
}

/// The access rules of the rendered config on `host`.
fn wanted(files: &Files, host: &HostName) -> Result<Access> {
    let files = files.get(host).map_or(&[][..], Vec::as_slice);
    let config = files
        .iter()
        .find(|file| file.path == render::PATRONI_CONFIG);
    let config = config.ok_or_else(|| {
        Error::new(
            Code::AnswerUnusable,
            "no config of Patroni's was rendered for it",
        )
    })?;
    let config = PatroniConfig::parse(&config.content);
    config
        .ok_or_else(|| {
            Error::new(
                Code::AnswerUnusable,
                "what was rendered for its Patroni is no config",
            )
        })?
        .access()
}

/// Patroni's own file as it is on the host.
fn patronis_file(found: &Found, host: &HostName) -> Option<PatroniConfig> {
    let file = found.facts.get(host)?.files.get(render::PATRONI_CONFIG)?;
    PatroniConfig::parse(&file.content)
}

/// A plain session like a client's: the settings of pgherd's own sessions would hide the server's.
pub(super) async fn connect(look: &Look<'_>, host: &HostName) -> Result<postgres::Sql> {
    let port = look.ways.cluster.inventory.postgresql.port;
    let stream = look.ways.remote.dial(host, port).await?;
    let password = &look.ways.cluster.secrets.superuser;
    postgres::login_with("", stream, host, password, look.tls)
        .await
        .map_err(|error| {
            Error::new(Code::PostgresqlUnreachable, "no connection to PostgreSQL").because(error)
        })
}

async fn ask(look: &Look<'_>, host: &HostName) -> Result<Answer> {
    let answer = async {
        let sql = connect(look, host).await?;
        let running = sql.query(RUNNING).await?.iter().map(setting).collect();
        let written = sql.query(FILES).await?.iter().map(written).collect();
        let rules = access::ask(&sql).await?;
        Ok(Answer {
            running,
            written,
            rules,
        })
    };
    timeout(ANSWER, answer).await.unwrap_or_else(|_| {
        Err(Error::new(
            Code::StatementFailed,
            "PostgreSQL did not answer in time",
        ))
    })
}

pub(super) fn field(row: &SimpleQueryRow, name: &str) -> String {
    let at = row
        .columns()
        .iter()
        .position(|column| column.name() == name);
    let value = at.and_then(|at| row.try_get(at).ok().flatten());
    value.unwrap_or_default().to_owned()
}

fn setting(row: &SimpleQueryRow) -> Setting {
    Setting {
        name: field(row, "name"),
        value: field(row, "setting"),
        unit: field(row, "unit"),
        source: field(row, "source"),
        file: field(row, "sourcefile"),
        built_in: field(row, "boot_val"),
        kind: field(row, "vartype"),
        shown: field(row, "shown"),
    }
}

fn written(row: &SimpleQueryRow) -> Written {
    Written {
        name: field(row, "name"),
        value: field(row, "setting"),
        file: field(row, "sourcefile"),
        line: field(row, "sourceline"),
        applied: matches!(field(row, "applied").as_str(), "t" | "true"),
        error: field(row, "error"),
    }
}

/// The differences on one member.
fn judge(expected: &Expected, running: &[Setting], written: &[Written]) -> Vec<String> {
    let mut wrong: Vec<String> = running
        .iter()
        .filter_map(|setting| difference(expected, setting))
        .collect();
    wrong.extend(expected.absent(running));
    wrong.extend(
        written
            .iter()
            .filter_map(|line| unread(expected, running, line)),
    );
    wrong
}

/// Whether a server runs with another value than it should.
fn difference(expected: &Expected, setting: &Setting) -> Option<String> {
    // A setting of this very connection says nothing about the server.
    if matches!(setting.source.as_str(), "client" | "session") {
        return None;
    }
    let wanted = match expected.value(&setting.name) {
        Some(wanted) => {
            // -1 and 0 often mean that PostgreSQL finds a value itself.
            let found_by_itself = setting.source == "override"
                && wanted.trim().parse::<f64>().is_ok_and(|it| it <= 0.0);
            if found_by_itself || agree(setting, wanted) {
                return None;
            }
            wanted.to_owned()
        }
        None => {
            if expected.is_explained(setting) || setting.value == setting.built_in {
                return None;
            }
            format!("PostgreSQL's own {}{}", setting.built_in, setting.unit)
        }
    };
    let name = &setting.name;
    let (is, wanted) = if is_telling(name) {
        ("something else".to_owned(), "what the inventory has".into())
    } else {
        (setting.shown.clone(), wanted)
    };
    Some(format!(
        "{name} is {is}, not {wanted} ({})",
        origin(setting)
    ))
}

/// Whether its value may contain a password.
fn is_telling(name: &str) -> bool {
    ["command", "conninfo", "pass"]
        .iter()
        .any(|part| name.contains(part))
}

/// The source of a server's setting, and how to change it.
fn origin(setting: &Setting) -> String {
    let Setting {
        name, source, file, ..
    } = setting;
    match source.as_str() {
        "configuration file" if is_alter_system(file) => {
            format!(
                "by ALTER SYSTEM; undo it: alter system reset {name}, then select pg_reload_conf()"
            )
        }
        "configuration file" => format!("from {file}"),
        "user" => format!("by ALTER ROLE postgres; undo it: alter role postgres reset {name}"),
        "database" => {
            format!("by ALTER DATABASE postgres; undo it: alter database postgres reset {name}")
        }
        "database user" => format!(
            "by ALTER ROLE postgres IN DATABASE postgres; \
             undo it: alter role postgres in database postgres reset {name}"
        ),
        "global" => format!("by ALTER ROLE ALL; undo it: alter role all reset {name}"),
        "command line" => "from the command line that PostgreSQL was started with".into(),
        "default" => "its own default".into(),
        other => format!("source: {other}"),
    }
}

fn is_alter_system(file: &str) -> bool {
    file.ends_with("/postgresql.auto.conf")
}

/// A line in a file that the server has not loaded, and that would change something.
fn unread(expected: &Expected, running: &[Setting], line: &Written) -> Option<String> {
    // A parameter that was removed from the files, like those of recovery when a replica is promoted:
    // PostgreSQL lists it without a file. The server's present value is checked anyway.
    if line.file.is_empty() {
        return None;
    }
    let place = if is_alter_system(&line.file) {
        "ALTER SYSTEM".to_owned()
    } else {
        format!("{} line {}", line.file, line.line)
    };
    let setting = running
        .iter()
        .find(|setting| setting.name.eq_ignore_ascii_case(&line.name));
    let Some(setting) = setting else {
        return (!line.error.is_empty()).then(|| format!("{place}: {}", line.error));
    };
    // Changes that need a restart are reported by Patroni, and by the check `pending-restart`.
    let waits = line.error.contains("could not be applied") && !is_alter_system(&line.file);
    let is_seen = difference(expected, setting).is_some();
    let ruled_out = matches!(setting.source.as_str(), "command line" | "override");
    if waits || is_seen || ruled_out {
        return None;
    }
    if !line.error.is_empty() && !line.error.contains("could not be applied") {
        return Some(format!("{place}: {}: {}", line.name, line.error));
    }
    let has_it = agree(setting, &line.value);
    let is_last = line.applied || !line.error.is_empty();
    if has_it || !is_last || !is_alter_system(&line.file) {
        return None;
    }
    let value = if is_telling(&line.name) {
        "something else"
    } else {
        &line.value
    };
    Some(format!(
        "{} will be {value} once it is read ({place}; undo it: alter system reset {})",
        line.name, line.name
    ))
}

#[cfg(test)]
mod tests;
