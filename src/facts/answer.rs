//! Reads the output of the probe script, line by line.

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    DataFact, DbRole, Facts, FileFact, Listener, MetadataException, MetadataGuard, Os, UnitFact,
    etcd_log,
};
use crate::{
    configs::PatroniConfig,
    error::{Code, Error, Result},
    holder::{Holder, Tenant},
    secret::Secret,
};

/// Facts that may hold secrets: errors about an answer leave them out.
const SECRETS: [&str; 4] = ["role\t", "file\t", "contents\t", "patroni-config\t"];

/// Reads the output of the probe script.
pub fn parse(text: &str) -> Result<Facts> {
    let mut facts = Facts::default();
    let mut unit = (String::new(), UnitFact::default());
    let mut complete = false;
    let mut lengths = Lengths::default();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields.as_slice() {
            ["end"] => complete = true,
            ["unit", key, value] => read_unit(&mut unit, key, value),
            ["unit-end"] => {
                let (name, read) = std::mem::take(&mut unit);
                if !name.is_empty() {
                    facts.units.insert(name, read);
                }
            }
            ["length", path, owner, group, mode, length, _] => {
                lengths.add(path, file_fact(owner, group, mode), length);
            }
            ["contents", contents] => facts.files.extend(lengths.cut(contents)?),
            fields => facts.read(fields),
        }
    }
    if complete && lengths.0.is_empty() {
        Ok(facts)
    } else {
        let came: Vec<&str> = text
            .lines()
            .filter(|line| !SECRETS.iter().any(|fact| line.starts_with(fact)))
            .collect();
        Err(Error::new(
            Code::AnswerUnusable,
            "the host's facts came back incomplete",
        )
        .excerpt("what came", came.join("\n")))
    }
}

/// Files with their lengths. The host prints all lengths first, and then all contents together.
#[derive(Default)]
struct Lengths(Vec<(String, FileFact, Option<usize>)>);

impl Lengths {
    fn add(&mut self, path: &str, file: FileFact, length: &str) {
        self.0.push((path.to_owned(), file, length.parse().ok()));
    }

    /// The files, each with its part of `contents`.
    fn cut(&mut self, contents: &str) -> Result<Vec<(String, FileFact)>> {
        let bytes = BASE64_STANDARD.decode(contents).unwrap_or_default();
        let mut rest = bytes.as_slice();
        let mut files = Vec::new();
        for (path, mut file, length) in self.0.drain(..) {
            let part = length.and_then(|length| rest.split_at_checked(length));
            let Some((content, after)) = part else {
                return Err(torn(&path));
            };
            file.content = String::from_utf8_lossy(content).into_owned().into();
            rest = after;
            files.push((path, file));
        }
        match files.last() {
            Some((path, _)) if !rest.is_empty() => Err(torn(path)),
            _ => Ok(files),
        }
    }
}

fn torn(path: &str) -> Error {
    Error::new(
        Code::AnswerUnusable,
        format!("what the host sent of its files is not as long as it said, at {path}"),
    )
}

fn file_fact(owner: &str, group: &str, mode: &str) -> FileFact {
    FileFact {
        owner: owner.into(),
        group: group.into(),
        mode: u32::from_str_radix(mode, 8).unwrap_or_default(),
        content: String::new().into(),
    }
}

impl Facts {
    /// Reads a line. An unknown line is from a newer probe.
    fn read(&mut self, fields: &[&str]) {
        let _ = self.belongings.read(fields)
            || self.read_host(fields)
            || self.read_data(fields)
            || self.read_database(fields)
            || self.disks.read(fields)
            || self.needs.read(fields);
    }

    /// What the host is, and what runs on it.
    fn read_host(&mut self, fields: &[&str]) -> bool {
        match fields {
            ["os", id, version, codename, pretty] => {
                self.os = Os {
                    id: (*id).into(),
                    version: (*version).into(),
                    codename: (*codename).into(),
                    pretty: (*pretty).into(),
                    arch: std::mem::take(&mut self.os.arch),
                };
            }
            ["arch", arch] => self.os.arch = (*arch).into(),
            ["cores", count] => self.cores = count.parse().unwrap_or_default(),
            ["clock", nanoseconds] => {
                self.clock = nanoseconds.parse::<i64>().ok().map(|it| it / 1_000_000);
            }
            ["identity", mark] => self.system = Some((*mark).into()),
            ["systemd", "yes"] => self.systemd = true,
            ["package", name, "installed", version] => {
                self.packages.insert((*name).into(), (*version).into());
            }
            ["file", path, owner, group, mode, content] => {
                let mut file = file_fact(owner, group, mode);
                file.content = decode(content).into();
                self.files.insert((*path).into(), file);
            }
            ["pending", unit, effect] => {
                self.pending.insert((*unit).into(), (*effect).into());
            }
            ["patroni-stamp", stamp] => self.patroni_stamp = Some((*stamp).into()),
            ["metadata_guard", word] => self.metadata_guard = MetadataGuard::parse(word),
            ["metadata_exception", word] => {
                self.metadata_exception = MetadataException::parse(word);
            }
            ["watchdog", state] => self.watchdog_armed = Some(*state == "armed"),
            ["listener", port, pid, process, unit] => self.listeners.push(Listener {
                port: port.parse().unwrap_or_default(),
                pid: pid.parse().ok(),
                process: (*process).into(),
                unit: (*unit).into(),
            }),
            ["lease", silent, holder] => {
                self.tenant = tenant(silent, holder);
            }
            _ => return false,
        }
        true
    }

    /// The content of the data directories, whether or not a server runs.
    fn read_data(&mut self, fields: &[&str]) -> bool {
        match fields {
            ["data", owner, entries, version] => {
                self.data = Some(DataFact {
                    owner: (*owner).into(),
                    entries: entries.parse().unwrap_or_default(),
                    version: version.parse().ok(),
                    ..DataFact::default()
                });
            }
            ["data-outside", folder] if !folder.is_empty() => {
                self.data_outside.insert((*folder).into());
            }
            ["patroni-config", text] => {
                let config = PatroniConfig::parse(&decode(text));
                self.patroni_data_dir = config.and_then(|it| it.data_dir().map(str::to_owned));
            }
            ["data-at-work", _] => self.data_at_work = true,
            ["data-marker", id] => self.data_marker = Some((*id).into()),
            ["etcd-data", _] => self.etcd_data = true,
            ["etcd-log", text] => self.etcd_identity = etcd_log::identity(text),
            [what, value] => {
                return self
                    .data
                    .as_mut()
                    .is_some_and(|data| data.note(what, value));
            }
            _ => return false,
        }
        true
    }

    /// What the running database says of itself.
    fn read_database(&mut self, fields: &[&str]) -> bool {
        match fields {
            ["role", name, superuser, replication, login, verifier] => {
                let is = |field: &str| field == "t" || field == "true";
                self.db_roles.insert(
                    (*name).into(),
                    DbRole {
                        superuser: is(superuser),
                        replication: is(replication),
                        login: is(login),
                        verifier: (!verifier.is_empty()).then(|| Secret::new(*verifier)),
                        ..DbRole::default()
                    },
                );
            }
            // After the roles themselves.
            ["member", name, role, ..] => {
                if let Some(member) = self.db_roles.get_mut(*name) {
                    member.member_of.insert((*role).into());
                }
            }
            ["flaw", name, flaw, what, ..] => {
                if let Some(role) = self.db_roles.get_mut(*name) {
                    role.note(flaw, what);
                }
            }
            ["superuser-lost", how] => self.superuser_lost = Some((*how).into()),
            ["database", name, owner, ..] => {
                self.databases.insert((*name).into(), (*owner).into());
            }
            ["old-sessions", name] => {
                self.old_sessions.insert(decode(name));
            }
            ["no-lookup", name] => {
                self.no_lookup.insert((*name).into());
            }
            ["open-public", name] => {
                self.open_public.insert((*name).into());
            }
            ["recovery", value, ..] => {
                self.in_recovery = Some(matches!(*value, "t" | "true"));
            }
            _ => return false,
        }
        true
    }
}

impl DataFact {
    fn note(&mut self, what: &str, value: &str) -> bool {
        match what {
            "system-id" => self.system_id = Some(value.into()),
            "pg-control" => self.control = true,
            "bases" => self.bases = value.parse().unwrap_or_default(),
            "has-run" => self.has_run = true,
            "never-started" => self.never_started = true,
            "checkpoint" => self.checkpoint = Some(value.into()),
            // A standby is "in archive recovery" or "shut down in recovery".
            "data-state" => {
                self.led = matches!(
                    value,
                    "in production" | "shut down" | "shutting down" | "in crash recovery"
                );
            }
            "data-timeline" => self.timeline = self.timeline.max(value.parse().ok()),
            "data-position" => self.position = self.position.max(wal_position(value)),
            _ => return false,
        }
        true
    }
}

impl DbRole {
    fn note(&mut self, flaw: &str, what: &str) {
        match flaw {
            "expired" => self.expired = true,
            "connections" => self.connection_limit = what.parse().ok(),
            "setting" => {
                self.settings.insert(what.into());
            }
            "functions" => self.lacks_functions = true,
            _ => {}
        }
    }
}

/// A position in the WAL, as PostgreSQL writes it: `0/3000148`.
fn wal_position(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let part = |text| u64::from_str_radix(text, 16).ok();
    Some((part(high)? << 32) + part(low)?)
}

fn read_unit(unit: &mut (String, UnitFact), key: &str, value: &str) {
    match key {
        "Id" => unit.0 = value.trim_end_matches(".service").into(),
        "LoadState" => unit.1.loaded = value == "loaded",
        "ActiveState" => unit.1.active = value.into(),
        "SubState" => unit.1.sub = value.into(),
        "UnitFileState" => unit.1.enabled = value.into(),
        "NRestarts" => unit.1.restarts = value.parse().unwrap_or_default(),
        "MainPID" => unit.1.main_pid = value.parse().unwrap_or_default(),
        _ => {}
    }
}

/// The holder of a host's lease, from the output of the script that asks for nothing else.
pub(crate) fn leased(text: &str) -> Option<Tenant> {
    let line = text.lines().find_map(|line| line.strip_prefix("lease\t"));
    let (silent, holder) = line?.split_once('\t')?;
    tenant(silent, holder)
}

fn tenant(silent: &str, holder: &str) -> Option<Tenant> {
    Holder::parse(&decode(holder)).map(|holder| Tenant {
        holder,
        // If a clock was set back, the sign of life may be in the future.
        silent: silent.parse().unwrap_or_default(),
    })
}

fn decode(field: &str) -> String {
    let bytes = BASE64_STANDARD.decode(field).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "version\t1\nos\tdebian\t12\tbookworm\tDebian\narch\tx86_64\n\
            package\tetcd-server\tinstalled\t3.4.23\npackage\thaproxy\tconfig-files\t2.6\n\
            file\t/etc/hosts\troot\troot\t644\tMTI3LjAuMC4xIGxvY2FsaG9zdAo=\n\
            unit\tId\tpatroni.service\nunit\tActiveState\tactive\nunit\tUnitFileState\tenabled\nunit-end\n\
            pending\tpatroni\treload\ndata\tpostgres\t23\t15\nsystem-id\t7506492390881896645\nnever-started\tyes\ncheckpoint\tThu Nov 26\n\
            listener\t5432\t812\tpostgres\tpatroni.service\nrole\tpostgres\ttrue\ttrue\ttrue\tSCRAM-SHA-256$4096:x\n\
            role\tan app\tfalse\tfalse\ttrue\t\nmember\tan app\tpg_monitor\t\t\t\nflaw\tan app\texpired\t\t\t\nflaw\tan app\tconnections\t0\t\t\nflaw\tpostgres\tsetting\tsearch_path\t\t\n\
            identity\ta boot, a namespace\nsystem\trunning\nhas-run\tyes\ndata-outside\t/ssd\npatroni-config\tcG9zdGdyZXNxbDoKICAgIGRhdGFfZGlyOiAnL3Nydi9vbGQnCg==\n\
            database\tshop\tan app\t\t\t\nopen-public\tshop\nno-lookup\tshop\nold-sessions\tYW4gYXBw\n\
            lease\t2\teyJwaWQiOjEsInZlcmIiOiJ1cCIsInNpbmNlIjoiMjAyNi0xMS0yNlQxMjowMDowMFoiLCJieSI6ImFAYiJ9\nrecovery\tfalse\t\t\t\t\nend\n";

    #[test]
    fn files_that_come_in_one_go_are_told_apart_by_their_lengths() {
        let lengths = "length\t/etc/one\troot\troot\t644\t4\tnow\n\
                       length\t/etc/none\troot\troot\t600\t0\tnow\n\
                       length\t/etc/two\tpostgres\tpostgres\t640\t3\tnow\n";
        let said = |contents: &str| {
            let contents = BASE64_STANDARD.encode(contents);
            parse(&format!("{lengths}contents\t{contents}\nend\n"))
        };
        let facts = said("a\nb\n\nc\n").unwrap();
        let content = |path: &str| facts.files[path].content.as_str();
        assert_eq!(content("/etc/one"), "a\nb\n");
        assert_eq!(content("/etc/none"), "");
        assert_eq!(content("/etc/two"), "\nc\n");
        assert_eq!(facts.files["/etc/two"].mode, 0o640);
        assert_eq!(facts.files["/etc/two"].owner, "postgres");
        // A file that changed while it was read would have part of another file's text.
        for torn in ["a\nb\n\nc", "a\nb\n\nc\n\n"] {
            assert!(said(torn).is_err(), "{torn:?}");
        }
        assert!(parse(&format!("{lengths}end\n")).is_err());
    }

    #[test]
    fn a_whole_answer_is_read() -> Result<()> {
        let facts = parse(WHOLE)?;
        assert_eq!(facts.os.pretty, "Debian");
        assert!(facts.packages.contains_key("etcd-server"));
        assert!(
            !facts.packages.contains_key("haproxy"),
            "removed, not purged"
        );
        assert_eq!(facts.files["/etc/hosts"].mode, 0o644);
        assert!(facts.unit("patroni").is_active() && facts.unit("patroni").is_enabled());
        assert_eq!(facts.pending["patroni"], "reload");
        assert_eq!(
            facts
                .data
                .as_ref()
                .and_then(|data| data.system_id.as_deref()),
            Some("7506492390881896645")
        );
        let data = facts.data.as_ref().expect("a data directory");
        assert!(data.never_started && data.checkpoint.as_deref() == Some("Thu Nov 26"));
        assert_eq!(facts.in_recovery, Some(false));
        // The state of the system is another fact than its identity.
        assert_eq!(facts.system.as_deref(), Some("a boot, a namespace"));
        assert!(data.has_run && facts.data_outside.contains("/ssd"));
        assert_eq!(facts.patroni_data_dir.as_deref(), Some("/srv/old"));
        assert!(facts.db_roles["postgres"].superuser && facts.db_roles["postgres"].login);
        let app = &facts.db_roles["an app"];
        assert!(!app.superuser && app.verifier.is_none() && app.member_of.contains("pg_monitor"));
        assert!(app.expired && app.connection_limit == Some(0));
        assert!(facts.db_roles["postgres"].settings.contains("search_path"));
        assert_eq!(facts.databases["shop"], "an app");
        assert!(facts.open_public.contains("shop"));
        assert!(facts.no_lookup.contains("shop"));
        assert!(facts.old_sessions.contains("an app"));
        let tenant = facts.tenant.as_ref().expect("a run at work");
        assert_eq!((tenant.holder.by.as_str(), tenant.silent), ("a@b", 2));
        Ok(())
    }

    #[test]
    fn an_answer_cut_short_is_an_error_without_what_is_kept_of_passwords() {
        let text =
            "version\t1\nos\tdebian\t12\tbookworm\tDebian\nrole\tpostgres\tt\tt\tt\tSCRAM-X\n";
        let error = parse(text).expect_err("there is no end");
        let shown = format!("{error:?}");
        assert!(
            shown.contains("bookworm") && !shown.contains("SCRAM-X"),
            "{shown}"
        );
    }

    /// Whatever a host prints in one line, the other lines are read.
    #[test]
    fn one_line_that_makes_no_sense_costs_nothing_else() {
        let lines: Vec<&str> = WHOLE.lines().collect();
        let mut count = 0;
        for (at, line) in lines.iter().enumerate().take(lines.len() - 1) {
            let fields: Vec<&str> = line.split('\t').collect();
            let mut strange = vec![String::new(), format!("{line}\t\t"), "\u{fffd}\t\t".into()];
            for field in 0..fields.len() {
                for value in ["", "null", "-1", "99999999999999999999", "*"] {
                    let mut fields = fields.clone();
                    fields[field] = value;
                    strange.push(fields.join("\t"));
                }
                strange.push([&fields[..field], &fields[field + 1..]].concat().join("\t"));
            }
            for other in strange {
                let mut lines = lines.clone();
                lines[at] = &other;
                let facts = parse(&lines.join("\n"));
                let facts = facts.unwrap_or_else(|error| panic!("{other}: {error}"));
                assert!(
                    line.starts_with("arch") || facts.os.arch == "x86_64",
                    "{other}"
                );
                count += 1;
            }
        }
        assert!(count > 400, "{count}");
    }
}
