//! Checks that PostgreSQL's access rules are those of the rendered config.
//!
//! Patroni writes `pg_hba.conf` when PostgreSQL starts and when Patroni is reloaded, but not after somebody
//! else has changed it. So PostgreSQL is asked for the rules in its files. Rules in a file that were not loaded
//! yet cannot be distinguished from those in force.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio_postgres::SimpleQueryRow;

use super::field;
use crate::{cluster, configs::Access, error::Result, secret::Content, services::postgres::Sql};

const HBA: &str = "select type, pg_catalog.array_to_string(database, ',') as databases, \
     pg_catalog.array_to_string(user_name, ',') as users, coalesce(address, '') as address, \
     coalesce(netmask, '') as netmask, coalesce(auth_method, '') as method, \
     coalesce(pg_catalog.array_to_string(options, ' '), '') as options, \
     line_number::pg_catalog.text as line, coalesce(error, '') as error \
     from pg_catalog.pg_hba_file_rules";
/// From PostgreSQL 15 on.
const HAS_IDENT: &str =
    "select pg_catalog.to_regclass('pg_catalog.pg_ident_file_mappings') is not null";
const IDENT: &str = "select coalesce(map_name, '') as map, coalesce(sys_name, '') as system, \
     coalesce(pg_username, '') as role, line_number::pg_catalog.text as line, \
     coalesce(error, '') as error from pg_catalog.pg_ident_file_mappings";

/// Which field of a rule in `pg_hba.conf` is the address.
const ADDRESS: usize = 3;
/// An address that stands for one that is not known.
const ANY: &str = "0.0.0.0";

/// How to remove a difference.
const WAY_OUT: &str = "remove it and reload PostgreSQL, or let Patroni write the file again: sudo systemctl reload patroni";

/// A line of one of the files, in the terms of PostgreSQL's views.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rule {
    fields: Vec<String>,
    /// In any order; their values may contain passwords.
    options: Vec<Content>,
}

impl Rule {
    /// Whether another rule lets the same in from one host, wherever that is.
    fn is_at_any_address(&self, other: &Self) -> bool {
        let without = |rule: &Self| {
            let mut fields = rule.fields.clone();
            if let Some(address) = fields.get_mut(ADDRESS) {
                address.clear();
            }
            (fields, rule.options.clone())
        };
        without(self) == without(other)
    }
}

/// A server's rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    rule: Rule,
    line: String,
    error: String,
}

/// The rules in a server's files.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    hba: Vec<Found>,
    /// `None` if this version of PostgreSQL does not show them.
    ident: Option<Vec<Found>>,
}

pub(super) async fn ask(sql: &Sql) -> Result<Rules> {
    let hba = sql.query(HBA).await?.iter().map(hba_row).collect();
    let tells = sql.value(HAS_IDENT).await? == "t";
    let ident = if tells {
        Some(sql.query(IDENT).await?.iter().map(ident_row).collect())
    } else {
        None
    };
    Ok(Rules { hba, ident })
}

fn hba_row(row: &SimpleQueryRow) -> Found {
    let names = ["type", "databases", "users", "address", "netmask", "method"];
    let mut options: Vec<String> = field(row, "options")
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    options.sort_unstable();
    found(row, &names, options)
}

fn ident_row(row: &SimpleQueryRow) -> Found {
    found(row, &["map", "system", "role"], Vec::new())
}

fn found(row: &SimpleQueryRow, names: &[&str], options: Vec<String>) -> Found {
    let options = options.into_iter().map(Content::from).collect();
    let fields = names.iter().map(|name| field(row, name)).collect();
    Found {
        rule: Rule { fields, options },
        line: field(row, "line"),
        error: field(row, "error"),
    }
}

/// The differences on one member, one sentence each.
pub(super) fn judge(wanted: &Result<Access>, rules: &Rules) -> Vec<String> {
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(error) => return vec![error.to_string()],
    };
    let mut wrong = Vec::new();
    if let Some(lines) = &wanted.hba {
        let (known, open): (Vec<&Content>, Vec<&Content>) = lines
            .iter()
            .partition(|line| cluster::with_address(line, ANY).is_none());
        let known: Vec<Rule> = known.iter().filter_map(|line| hba_rule(line)).collect();
        let open = open.iter().filter_map(|line| {
            let line = cluster::with_address(line, ANY)?;
            hba_rule(&line)
        });
        wrong.extend(differences(
            "pg_hba.conf",
            &known,
            open.collect(),
            &rules.hba,
        ));
    }
    if let (Some(lines), Some(found)) = (&wanted.ident, &rules.ident) {
        let wanted: Vec<Rule> = lines.iter().filter_map(|line| ident_rule(line)).collect();
        wrong.extend(differences("pg_ident.conf", &wanted, Vec::new(), found));
    }
    wrong
}

/// `open` are rules that are wanted for hosts whose address is not known. Whether they are there cannot be told, and a
/// rule of that kind with any address may be one of them.
fn differences(file: &str, wanted: &[Rule], mut open: Vec<Rule>, found: &[Found]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut lacking = wanted.to_vec();
    let all_known = open.is_empty();
    for Found { rule, line, error } in found {
        if !error.is_empty() {
            wrong.push(format!("{file} line {line}: {error}; {WAY_OUT}"));
        } else if let Some(at) = lacking.iter().position(|it| it == rule) {
            lacking.remove(at);
        } else if let Some(at) = open.iter().position(|it| it.is_at_any_address(rule)) {
            open.remove(at);
        } else {
            wrong.push(format!(
                "{file} line {line} is not the inventory's: {}; {WAY_OUT}",
                shown(rule)
            ));
        }
    }
    wrong.extend(
        lacking
            .iter()
            .map(|rule| format!("{file} lacks the line: {}; {WAY_OUT}", shown(rule))),
    );
    let in_order = wanted.iter().eq(found.iter().map(|found| &found.rule));
    if wrong.is_empty() && all_known && !in_order {
        wrong.push(format!(
            "the lines of {file} are not in the inventory's order, and the first match decides; {WAY_OUT}"
        ));
    }
    wrong
}

fn shown(rule: &Rule) -> String {
    let fields = rule.fields.iter().filter(|field| !field.is_empty());
    let names = rule.options.iter().map(|option| {
        let (name, _) = option.split_once('=').unwrap_or((option, ""));
        format!("{name}=…")
    });
    let words: Vec<String> = fields.cloned().chain(names).collect();
    words.join(" ")
}

/// A line as PostgreSQL reads it (`hba.c`); `None` for a line without content.
fn hba_rule(line: &str) -> Option<Rule> {
    let mut fields = fields(line).into_iter().map(|field| field.join(","));
    let kind = fields.next()?;
    let (databases, users) = (
        fields.next().unwrap_or_default(),
        fields.next().unwrap_or_default(),
    );
    let mut rest = fields.peekable();
    let (mut address, mut netmask) = (String::new(), String::new());
    if kind != "local" {
        address = rest.next().unwrap_or_default();
        if let Some((net, length)) = address.clone().split_once('/') {
            netmask = mask(net, length)?;
            address = plain(net);
        } else if let Some(given) = rest.next_if(|next| next.parse::<IpAddr>().is_ok()) {
            netmask = plain(&given);
            address = plain(&address);
        }
    }
    let mut method = rest.next().unwrap_or_default();
    // For connections over a socket, the two are equivalent.
    if kind == "local" && method == "ident" {
        method = "peer".into();
    }
    let mut options: Vec<String> = rest.collect();
    options.sort_unstable();
    let options = options.into_iter().map(Content::from).collect();
    Some(Rule {
        fields: vec![kind, databases, users, address, netmask, method],
        options,
    })
}

fn ident_rule(line: &str) -> Option<Rule> {
    let fields: Vec<String> = fields(line).iter().map(|field| field.join(",")).collect();
    (!fields.is_empty()).then_some(Rule {
        fields,
        options: Vec::new(),
    })
}

/// The fields of a line, each a list of words. Quotes protect blanks and commas; a doubled quote is a quote.
fn fields(line: &str) -> Vec<Vec<String>> {
    let mut fields: Vec<Vec<String>> = Vec::new();
    let (mut inside, mut was_quote) = (false, false);
    let mut word: Option<String> = None;
    // After a comma, the same field continues.
    let mut goes_on = false;
    for c in line.chars().chain(['\n']) {
        if !inside && (c.is_ascii_whitespace() || matches!(c, ',' | '#')) {
            if let Some(word) = word.take() {
                match fields.last_mut() {
                    Some(field) if goes_on => field.push(word),
                    _ => fields.push(vec![word]),
                }
                goes_on = false;
            }
            goes_on |= c == ',';
            if c == '#' {
                break;
            }
            was_quote = false;
            continue;
        }
        let word = word.get_or_insert_default();
        if c != '"' || was_quote {
            word.push(c);
        }
        was_quote = inside && c == '"' && !was_quote;
        if c == '"' {
            inside = !inside;
        }
    }
    fields
}

/// An address as PostgreSQL prints it.
fn plain(address: &str) -> String {
    let parsed = address.parse::<IpAddr>();
    parsed.map_or_else(|_| address.to_owned(), |address| address.to_string())
}

fn mask(net: &str, length: &str) -> Option<String> {
    let length: u32 = length.parse().ok()?;
    Some(match net.parse::<IpAddr>().ok()? {
        IpAddr::V4(_) => {
            let host = u32::MAX.checked_shr(length).unwrap_or(0);
            Ipv4Addr::from(!host).to_string()
        }
        IpAddr::V6(_) => {
            let host = u128::MAX.checked_shr(length).unwrap_or(0);
            Ipv6Addr::from(!host).to_string()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(lines: &[[&str; 7]]) -> Vec<Found> {
        let found = |(at, row): (usize, &[&str; 7])| Found {
            rule: Rule {
                fields: row[..6].iter().map(|it| (*it).to_owned()).collect(),
                options: row[6].split_whitespace().map(Content::from).collect(),
            },
            line: (at + 2).to_string(),
            error: String::new(),
        };
        lines.iter().enumerate().map(found).collect()
    }

    const WANTED: [&str; 4] = [
        "local all postgres peer map=pgherd",
        "host all replicator,\"Re wind\" 0.0.0.0/0 reject",
        "hostssl all \"a\"\"b\" 192.0.2.1/32 scram-sha-256 # why",
        "hostssl all all 2001:DB8::/33 scram-sha-256",
    ];

    /// As PostgreSQL 15 reports the same.
    const TOLD: [[&str; 7]; 4] = [
        ["local", "all", "postgres", "", "", "peer", "map=pgherd"],
        [
            "host",
            "all",
            "replicator,Re wind",
            "0.0.0.0",
            "0.0.0.0",
            "reject",
            "",
        ],
        [
            "hostssl",
            "all",
            "a\"b",
            "192.0.2.1",
            "255.255.255.255",
            "scram-sha-256",
            "",
        ],
        [
            "hostssl",
            "all",
            "all",
            "2001:db8::",
            "ffff:ffff:8000::",
            "scram-sha-256",
            "",
        ],
    ];

    fn judged(rules: &Rules) -> Vec<String> {
        let access = Access {
            hba: Some(WANTED.map(Content::from).into()),
            ident: Some(vec!["pgherd root postgres".into()]),
        };
        judge(&Ok(access), rules)
    }

    fn rules(hba: Vec<Found>) -> Rules {
        Rules { hba, ident: None }
    }

    #[test]
    fn the_same_rules_are_no_difference() {
        assert_eq!(judged(&rules(server(&TOLD))), [""; 0]);
        let with_mask = hba_rule("host all all 192.0.2.0 255.255.255.0 md5");
        assert_eq!(with_mask, hba_rule("host  all\tall 192.0.2.0/24  md5"));
    }

    #[test]
    fn nothing_is_said_of_a_host_whose_address_is_not_known() {
        let line =
            |address: &str| format!("host replication replicator {address}/32 scram-sha-256");
        let access = |lines: &[String]| {
            Ok(Access {
                hba: Some(lines.iter().map(|it| it.as_str().into()).collect()),
                ident: None,
            })
        };
        let wanted = access(&[line("<node1's address>"), line("192.0.2.2")]);
        let found = |addresses: &[&str]| {
            let found = addresses.iter().map(|address| Found {
                rule: hba_rule(&line(address)).unwrap(),
                line: "7".into(),
                error: String::new(),
            });
            rules(found.collect())
        };
        for there in [
            &["192.0.2.1", "192.0.2.2"][..],
            &["192.0.2.2", "192.0.2.1"],
            &["192.0.2.2"],
        ] {
            assert_eq!(judge(&wanted, &found(there)), [""; 0], "{there:?}");
        }
        let said = judge(&wanted, &found(&["192.0.2.1", "192.0.2.2", "192.0.2.9"]));
        assert!(said.len() == 1 && said[0].contains("192.0.2.9"), "{said:?}");
        let said = judge(&wanted, &found(&["192.0.2.1"]));
        assert!(
            said.len() == 1
                && said[0].contains("lacks the line: host replication replicator 192.0.2.2"),
            "{said:?}"
        );
    }

    #[test]
    fn a_line_that_lets_everybody_in_is_named() {
        let mut lines = TOLD.to_vec();
        lines.insert(0, ["host", "all", "all", "0.0.0.0", "0.0.0.0", "trust", ""]);
        let said = judged(&rules(server(&lines)));
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(
            said[0].starts_with(
                "pg_hba.conf line 2 is not the inventory's: host all all 0.0.0.0 0.0.0.0 trust;"
            ) && said[0].contains("systemctl reload patroni"),
            "{said:?}"
        );
    }

    #[test]
    fn a_line_that_is_gone_changed_moved_or_cannot_be_read_is_named() {
        let said = judged(&rules(server(&TOLD[..3])));
        assert!(
            said[0].contains("lacks the line: hostssl all all 2001:db8::"),
            "{said:?}"
        );
        let mut lines = TOLD;
        lines[0][6] = "map=other";
        let said = judged(&rules(server(&lines)));
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            !said[0].contains("other"),
            "an option may be a password: {said:?}"
        );
        let mut lines = TOLD;
        lines.swap(1, 2);
        let said = judged(&rules(server(&lines)));
        assert!(said[0].contains("order"), "{said:?}");
        let mut found = server(&TOLD);
        found.push(Found {
            line: "9".into(),
            error: "invalid connection type".into(),
            ..Found::default()
        });
        let said = judged(&rules(found));
        assert!(
            said[0].contains("line 9: invalid connection type"),
            "{said:?}"
        );
    }

    #[test]
    fn another_systems_user_who_is_let_in_is_named() {
        let mapping = |system: &str| Found {
            rule: ident_rule(&format!("pgherd {system} postgres")).unwrap(),
            line: "1".into(),
            error: String::new(),
        };
        let with = |ident: Vec<Found>| Rules {
            hba: server(&TOLD),
            ident: Some(ident),
        };
        assert_eq!(judged(&with(vec![mapping("root")])), [""; 0]);
        let said = judged(&with(vec![mapping("root"), mapping("mallory")]));
        assert!(
            said[0].contains("pg_ident.conf line 1 is not the inventory's: pgherd mallory"),
            "{said:?}"
        );
    }

    #[test]
    fn a_config_that_cannot_be_read_does_not_hold() {
        let unread = Err(crate::error::Error::new(
            crate::error::Code::AnswerUnusable,
            "in another way",
        ));
        assert_eq!(judge(&unread, &rules(server(&TOLD))), ["in another way"]);
    }

    /// All rules of the rendered config can be read.
    #[test]
    fn the_rendered_rules_are_understood() {
        use crate::plan::tests::world::{FIVE, cluster};
        let cluster = cluster("", FIVE);
        let templates = crate::render::Templates::embedded().unwrap();
        let files = crate::render::render(&cluster, &templates).unwrap();
        for node in cluster.with_role(crate::inventory::Role::Postgres) {
            let access = super::super::wanted(&files, &node.name).unwrap();
            let (hba, ident) = (access.hba.unwrap(), access.ident.unwrap());
            assert!(hba.len() > 10 && ident.len() == 2, "{hba:?} {ident:?}");
            assert!(hba.iter().all(|line| hba_rule(line).is_some()), "{hba:?}");
        }
    }
}
