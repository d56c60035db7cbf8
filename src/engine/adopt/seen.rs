//! What one host of a cluster has that somebody made by hand.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::{
    configs::{PatroniConfig, Proxy, proxies},
    facts::Os,
    remote::{Script, quote},
    secret::Content,
};

/// Reads everything; see there for the form of the answer.
const LOOK: &str = include_str!("look.sh");

/// What a running PostgreSQL is asked.
const SQL: &str = "\
select 'recovery', pg_is_in_recovery()::text, null, null, null, null;
select 'role', rolname, rolsuper::text, case when rolpassword like 'md5%' then 'md5' else 'other' end, null, null \
from pg_authid where rolcanlogin and rolname !~ '[[:cntrl:]]' order by 2;
select 'database', datname, null, null, null, null from pg_database where not datistemplate and datname !~ '[[:cntrl:]]' order by 2;
select 'rule', type, array_to_string(database, ','), array_to_string(user_name, ','), \
coalesce(address || '/' || case netmask when '255.255.255.255' then '32' when '0.0.0.0' then '0' else netmask end, address, ''), \
auth_method from pg_hba_file_rules where error is null;
select 'setting', name, current_setting(name), context, regexp_replace(coalesce(sourcefile, ''), '^.*/', ''), source \
from pg_settings where source not in ('default', 'override', 'client', 'session');
select distinct 'client', usename, coalesce(host(client_addr), ''), ssl::text, null, null from pg_stat_activity \
join pg_stat_ssl using (pid) where backend_type = 'client backend' and pid <> pg_backend_pid() and application_name !~ 'Patroni';";

/// A unit of systemd.
pub(super) struct Unit<'a> {
    pub(super) active: &'a str,
    pub(super) file: &'a str,
    pub(super) drop_ins: &'a str,
}

/// A rule of `pg_hba.conf`.
pub(super) struct Rule<'a> {
    pub(super) kind: &'a str,
    pub(super) database: &'a str,
    pub(super) address: &'a str,
    pub(super) method: &'a str,
}

/// A parameter that is not at PostgreSQL's default.
pub(super) struct Setting<'a> {
    pub(super) name: &'a str,
    pub(super) value: &'a str,
    /// Whether only a start of PostgreSQL changes it.
    pub(super) at_start: bool,
    pub(super) file: &'a str,
}

/// The facts of a host. They hold passwords.
pub(super) struct Seen(Vec<Vec<String>>);

/// The script that reads everything.
pub(super) fn script() -> Script {
    Script::probe(format!("SQL={}\n", quote(SQL))).line(LOOK)
}

impl Seen {
    /// Reads the script's answer; `None` if it is not complete.
    pub(super) fn parse(answer: &str) -> Option<Self> {
        let lines = answer.lines();
        let facts: Vec<Vec<String>> = lines
            .map(|line| line.split('\t').map(str::to_owned).collect())
            .collect();
        let begins = facts
            .first()
            .is_some_and(|fact| fact[..] == ["adoption", "1"]);
        let ends = facts.last().is_some_and(|fact| fact[..] == ["end"]);
        (begins && ends).then_some(Self(facts))
    }

    /// The fields of all facts with a key.
    fn all(&self, key: &str) -> impl Iterator<Item = &[String]> {
        let facts = self.0.iter();
        facts.filter_map(move |fact| {
            let (first, rest) = fact.split_first()?;
            (first == key).then_some(rest)
        })
    }

    /// A field of the first fact with a key, unless it is empty.
    fn field(&self, key: &str, index: usize) -> Option<&str> {
        let field = self.all(key).next()?.get(index)?;
        (!field.is_empty()).then_some(field.as_str())
    }

    pub(super) fn os(&self) -> Os {
        let of = |index| self.field("os", index).unwrap_or_default().to_owned();
        Os {
            id: of(0),
            version: of(1),
            pretty: of(2),
            codename: of(3),
            arch: of(4),
        }
    }

    /// The id that an adoption has noted which was cut off.
    pub(super) fn adopting(&self) -> Option<&str> {
        self.field("adopting", 0)
    }

    /// The id of the cluster that pgherd has made this host a part of.
    pub(super) fn pgherds(&self) -> Option<&str> {
        self.field("manifest", 0).or_else(|| self.field("mark", 0))
    }

    pub(super) fn unit(&self, name: &str) -> Option<Unit<'_>> {
        let fact = self.all("unit").find(|fact| fact[0] == name)?;
        let of = |index: usize| fact.get(index).map_or("", String::as_str);
        Some(Unit {
            active: of(1),
            file: of(3),
            drop_ins: of(4),
        })
    }

    pub(super) fn runs(&self, unit: &str) -> bool {
        self.unit(unit).is_some_and(|it| it.active == "active")
    }

    /// Patroni's program and its version.
    pub(super) fn patroni(&self) -> Option<(&str, &str)> {
        Some((
            self.field("program", 0)?,
            self.field("program", 1).unwrap_or("unknown"),
        ))
    }

    /// The names of the variables of the environment that configure Patroni.
    pub(super) fn variables(&self) -> Vec<&str> {
        let own = ["PATRONI_CONFIG_LOCATION"];
        let names = self.all("variable").map(|fact| fact[0].as_str());
        names.filter(|name| !own.contains(name)).collect()
    }

    /// The unit that runs Patroni, where it is not `patroni.service`.
    pub(super) fn elsewhere(&self) -> Option<&str> {
        self.field("elsewhere", 0)
    }

    /// Patroni's config: its path, and what is in it.
    pub(super) fn config(&self) -> Option<(&str, Content)> {
        Some((
            self.field("config", 0)?,
            decode(self.field("config", 1)?)?.into(),
        ))
    }

    pub(super) fn settings_of_patroni(&self) -> Option<PatroniConfig> {
        PatroniConfig::parse(&self.config()?.1)
    }

    /// The address of Patroni's REST interface, from the host itself.
    pub(super) fn rest(&self) -> Option<&str> {
        self.field("rest", 0)
    }

    /// What Patroni's REST interface answered; null if it did not.
    pub(super) fn answer(&self, path: &str) -> Value {
        let fact = self.all("answer").find(|fact| fact[0] == path);
        let text = fact.and_then(|fact| decode(fact.get(1)?));
        text.and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default()
    }

    /// PostgreSQL's data directory, and its major version.
    pub(super) fn data(&self) -> Option<(&str, &str)> {
        Some((self.field("data", 0)?, self.field("data", 1)?))
    }

    /// When PostgreSQL was started, in seconds.
    pub(super) fn started(&self) -> Option<&str> {
        self.field("postmaster", 1)
    }

    pub(super) fn port(&self) -> Option<u16> {
        self.field("postmaster", 2)?.parse().ok()
    }

    /// Whether PostgreSQL accepts writes; `None` if it did not answer.
    pub(super) fn leads(&self) -> Option<bool> {
        Some(self.field("recovery", 0)? == "false")
    }

    /// The roles that may log in: their names, and whether their passwords are stored as MD5.
    pub(super) fn roles(&self) -> Vec<(&str, bool)> {
        let roles = self.all("role").filter(|fact| fact.len() > 2);
        roles
            .map(|fact| (fact[0].as_str(), fact[2] == "md5"))
            .collect()
    }

    pub(super) fn databases(&self) -> Vec<&str> {
        self.all("database").map(|fact| fact[0].as_str()).collect()
    }

    pub(super) fn rules(&self) -> Vec<Rule<'_>> {
        let rules = self.all("rule").filter(|fact| fact.len() > 4);
        rules
            .map(|fact| Rule {
                kind: &fact[0],
                database: &fact[1],
                address: &fact[3],
                method: &fact[4],
            })
            .collect()
    }

    pub(super) fn settings(&self) -> Vec<Setting<'_>> {
        let settings = self.all("setting").filter(|fact| fact.len() > 4);
        settings
            .map(|fact| Setting {
                name: &fact[0],
                value: &fact[1],
                at_start: fact[2] == "postmaster",
                file: &fact[3],
            })
            .collect()
    }

    /// The users and addresses of sessions without TLS.
    pub(super) fn plain_clients(&self) -> Vec<String> {
        let clients = self.all("client").filter(|fact| fact.len() > 2);
        clients
            .filter(|fact| !fact[1].is_empty() && fact[2] != "true" && fact[2] != "t")
            .map(|fact| format!("{} from {}", fact[0], fact[1]))
            .collect()
    }

    /// The databases of the distribution's tools: version, name, port, and how they start.
    pub(super) fn own_clusters(&self) -> Vec<(&str, &str, &str, &str)> {
        let clusters = self.all("own-cluster").filter(|fact| fact.len() > 3);
        clusters
            .map(|fact| (&fact[0][..], &fact[1][..], &fact[2][..], &fact[3][..]))
            .collect()
    }

    /// How a running etcd was told something: by an option, or else by its environment.
    pub(super) fn etcd(&self, variable: &str) -> Option<&str> {
        let option = variable.trim_start_matches("ETCD_").to_lowercase();
        let option = format!("--{}", option.replace('_', "-"));
        let words: Vec<&str> = self.all("etcd-option").map(|it| it[0].as_str()).collect();
        for (index, word) in words.iter().enumerate() {
            match word.strip_prefix(&option) {
                Some("") => return words.get(index + 1).copied(),
                Some(rest) if rest.starts_with('=') => return Some(&rest[1..]),
                _ => {}
            }
        }
        let mut variables = self.all("etcd");
        variables
            .find(|fact| fact[0] == variable)
            .and_then(|fact| Some(fact.get(1)?.as_str()))
    }

    /// Whether options of a running etcd say something, which no variable can change.
    pub(super) fn has_etcd_option(&self, option: &str) -> bool {
        let mut words = self.all("etcd-option").map(|fact| fact[0].as_str());
        words.any(|word| word.split('=').next() == Some(option))
    }

    pub(super) fn etcd_version(&self) -> Option<&str> {
        self.field("etcd-version", 0)
    }

    /// Everything that HAProxy listens on.
    pub(super) fn proxies(&self) -> Vec<Proxy> {
        let files = self.all("proxies").filter_map(|fact| decode(fact.get(1)?));
        let text: Vec<String> = files.collect();
        proxies(&text.join("\n"))
    }
}

fn decode(text: &str) -> Option<String> {
    let bytes = BASE64_STANDARD.decode(text).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
