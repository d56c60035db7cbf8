//! The tables of docs/ports.md, made from the table of services.

use pgherd::{
    inventory::Inventory,
    services::{self, Caller, Number},
};

use super::*;

const PAGE: &str = "docs/ports.md";

#[test]
fn the_page_of_ports_has_every_port_of_every_service() {
    let inventory = Inventory::parse(Path::new("pgherd.yaml"), FIVE).unwrap();
    let (mut into, mut out) = (String::new(), String::new());
    for service in services::all() {
        for port in service.ports {
            let number = inventory.port(port.number);
            let key = match port.number {
                Number::Fixed(_) => "always".to_owned(),
                Number::Set(setting) => format!("`{}`", setting.key()),
            };
            let callers: Vec<String> = port.from.iter().copied().map(caller).collect();
            let callers = match callers.is_empty() {
                true => "nobody: it is on loopback".to_owned(),
                false => callers.join(", "),
            };
            let listener = port.listener.split(" (").next().unwrap();
            into += &format!(
                "| `{}` | {number} | {key} | {listener} | {callers} |\n",
                service.name
            );
            for from in port.from {
                if let Caller::Hosts(role) = from {
                    out += &format!(
                        "| `{}` | `{}` | {number} | {listener} |\n",
                        role.as_str(),
                        service.name
                    );
                }
            }
        }
    }
    let mut rows: Vec<&str> = out.lines().collect();
    rows.sort_unstable();
    let text = read(PAGE);
    let text = with_table(
        &text,
        "| hosts with | listen on | set by | which is | who connects |",
        &into,
    );
    let out = rows.join("\n") + "\n";
    let text = with_table(
        &text,
        "| hosts with | connect to hosts with | on port | which is |",
        &out,
    );
    assert_page(PAGE, &text);
}

const FIVE: &str = "cluster: pg\nprovider: { kind: docker }\nhosts:\n  a: { roles: [postgres, etcd] }\n  \
                    b: { roles: [haproxy] }\n";

fn caller(caller: Caller) -> String {
    match caller {
        Caller::Hosts(role) => format!("hosts with `{}`", role.as_str()),
        Caller::Clients => "clients, from `postgresql.allow`".to_owned(),
        Caller::Operators => "people who run the cluster".to_owned(),
        Caller::Scrapers => "readers of metrics, from `monitoring.allow`".to_owned(),
    }
}

/// The page, with these rows in the table that has this head.
fn with_table(page: &str, head: &str, rows: &str) -> String {
    let rule = "|---".repeat(head.matches('|').count() - 1) + "|\n";
    let head = format!("{head}\n{rule}");
    let (before, rest) = page.split_once(&head).expect("a table with this head");
    let old: usize = rest
        .lines()
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.len() + 1)
        .sum();
    format!("{before}{head}{rows}{}", &rest[old..])
}
