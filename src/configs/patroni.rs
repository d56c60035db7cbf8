//! Patroni's config.

use std::{collections::BTreeSet, fmt};

use serde_json::{Map, Value};
use serde_yaml::options::DuplicateKeyPolicy;

use crate::{
    contract::ETCD_CLIENT_PORT,
    error::{Code, Error, Result},
    liberal::as_text,
    secret::{Content, Secret},
};

/// Patroni's config, as Patroni reads it. It holds passwords, so it cannot be printed.
pub struct PatroniConfig(Map<String, Value>);

/// The lines of `pg_hba.conf` and `pg_ident.conf`, which may hold passwords; `None` for a file that the config
/// does not set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    pub hba: Option<Vec<Content>>,
    pub ident: Option<Vec<Content>>,
}

impl PatroniConfig {
    /// `None` if the text is no YAML, which Patroni does not accept either. A document that is no mapping
    /// counts as empty.
    pub fn parse(text: &str) -> Option<Self> {
        let options = serde_yaml::options! {
            with_snippet: false,
            // The value as Patroni's reader has it.
            duplicate_keys: DuplicateKeyPolicy::LastWins,
        };
        Some(
            match serde_yaml::from_str_with_options(text, options).ok()? {
                Value::Object(config) => Self(config),
                _ => Self(Map::new()),
            },
        )
    }

    fn at(&self, section: &str, key: &str) -> &Value {
        self.section(section).get(key).unwrap_or(&Value::Null)
    }

    /// The value of a top-level key.
    fn section(&self, name: &str) -> &Value {
        self.0.get(name).unwrap_or(&Value::Null)
    }

    /// The value at the end of a path of keys; null if there is none.
    pub fn value(&self, path: &[&str]) -> &Value {
        let Some((first, rest)) = path.split_first() else {
            return &Value::Null;
        };
        let mut value = self.section(first);
        for key in rest {
            value = value.get(key).unwrap_or(&Value::Null);
        }
        value
    }

    /// The keys of a section, or the top-level ones if there is no path.
    pub fn keys(&self, path: &[&str]) -> Vec<&str> {
        let section = match path {
            [] => Some(&self.0),
            path => self.value(path).as_object(),
        };
        let keys = section.into_iter().flat_map(Map::keys);
        keys.map(String::as_str).collect()
    }

    /// Whether both say the same, but for these top-level keys.
    pub fn is_same_but(&self, other: &Self, keys: &[&str]) -> bool {
        let rest = |config: &Self| {
            let mut all = config.0.clone();
            all.retain(|key, _| !keys.contains(&key.as_str()));
            all
        };
        rest(self) == rest(other)
    }

    /// Whether both configs are for the same member of the same cluster.
    pub fn is_same_member(&self, other: &Self) -> bool {
        let of = |config: &Self, key| as_text(config.section(key));
        let namespace = |config: &Self| {
            let text = of(config, "namespace").unwrap_or_default();
            text.trim_matches('/').to_owned()
        };
        namespace(self) == namespace(other)
            && ["scope", "name"]
                .into_iter()
                .all(|key| of(self, key) == of(other, key))
    }

    /// Whether both connect to etcd in the same way.
    pub fn has_same_dcs(&self, other: &Self) -> bool {
        self.section("etcd3") == other.section("etcd3")
    }

    /// Whether both set the same PostgreSQL parameters in this file.
    pub fn has_same_parameters(&self, other: &Self) -> bool {
        self.at("postgresql", "parameters") == other.at("postgresql", "parameters")
    }

    /// Whether it connects to etcd over TLS; `None` if the config has no section for etcd.
    pub fn asks_with_tls(&self) -> Option<bool> {
        let is_https = |text: &str| text.to_ascii_lowercase().starts_with("https");
        let etcd = self.section("etcd3").as_object()?;
        Some(match etcd.get("url").or_else(|| etcd.get("protocol")) {
            Some(Value::String(word)) => is_https(word),
            _ => false,
        })
    }

    /// The addresses of etcd, as `host:port`.
    pub fn etcd(&self) -> BTreeSet<String> {
        self.etcd_in("etcd3")
    }

    /// The same from a section: `etcd` is for the API of version 2.
    pub fn etcd_in(&self, section: &str) -> BTreeSet<String> {
        let one = |text: &str| {
            let text = text.trim();
            let (_, text) = text.split_once("://").unwrap_or(("", text));
            let host = text.split('/').next().unwrap_or_default();
            match host.rsplit_once(':') {
                Some(_) => host.to_owned(),
                None => format!("{host}:{ETCD_CLIENT_PORT}"),
            }
        };
        let mut all = BTreeSet::new();
        for key in ["hosts", "host", "url", "proxy"] {
            match self.at(section, key) {
                Value::Array(hosts) => all.extend(hosts.iter().filter_map(Value::as_str).map(one)),
                Value::String(hosts) => all.extend(hosts.split(',').map(one)),
                _ => {}
            }
        }
        all
    }

    /// The address of this PostgreSQL that it gives to other members.
    pub fn connect_address(&self) -> Option<&str> {
        self.at("postgresql", "connect_address").as_str()
    }

    /// The data directory.
    pub fn data_dir(&self) -> Option<&str> {
        self.at("postgresql", "data_dir").as_str()
    }

    /// One of the member's tags.
    pub fn tag(&self, name: &str) -> Option<&Value> {
        self.section("tags").get(name)
    }

    /// The role that Patroni logs in with for a purpose (`superuser`, `replication`, `rewind`), and its password.
    pub fn login(&self, purpose: &str) -> Option<(String, Secret)> {
        let login = self.at("postgresql", "authentication").get(purpose)?;
        let name = login.get("username")?.as_str()?;
        Some((name.to_owned(), password(login)?))
    }

    /// The password of its REST interface.
    pub fn rest_password(&self) -> Option<Secret> {
        password(self.at("restapi", "authentication"))
    }

    /// The rules of who may log in to PostgreSQL; an error if it is no list, or the list has anything but
    /// strings.
    pub fn access(&self) -> Result<Access> {
        Ok(Access {
            hba: self.lines("pg_hba")?,
            ident: self.lines("pg_ident")?,
        })
    }

    fn lines(&self, key: &str) -> Result<Option<Vec<Content>>> {
        let lines = match self.at("postgresql", key) {
            Value::Null => return Ok(None),
            Value::Array(lines) => {
                let lines = lines.iter().map(|line| Some(Content::from(as_text(line)?)));
                lines.collect()
            }
            _ => None,
        };
        let strange = || {
            Error::new(
                Code::AnswerUnusable,
                format!("{key} in Patroni's config has a form that cannot be compared"),
            )
            .cause("it is not a list of lines")
        };
        lines.map(Some).ok_or_else(strange)
    }
}

fn password(login: &Value) -> Option<Secret> {
    let text = as_text(login.get("password")?)?;
    (!text.is_empty()).then(|| Secret::new(text))
}

impl fmt::Debug for PatroniConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PatroniConfig")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &str = "# why\nscope: \"pg\"\nnamespace: /db/\nname: node1\netcd3:\n  hosts:\n    - \"192.0.2.4:2379\"\n  \
        protocol: https\npostgresql:\n  connect_address: \"192.0.2.1:5432\"\n  data_dir: /data\n  parameters:\n    a: \"1\"\n";
    const FLOW: &str = "{\"name\": 'node1', scope: pg, namespace: db,\n etcd3: {protocol: https, hosts: ['192.0.2.4:2379']},\n \
        postgresql: {parameters: {a: '1'}, data_dir: \"/data\",\n   connect_address: 192.0.2.1:5432}}\n";

    fn config(text: &str) -> PatroniConfig {
        PatroniConfig::parse(text).unwrap()
    }

    #[test]
    fn what_is_said_does_not_depend_on_how_it_is_written() {
        let wide = BLOCK.replace("  ", "      ");
        for text in [BLOCK, &wide, FLOW] {
            let (one, other) = (config(BLOCK), config(text));
            assert!(one.is_same_member(&other), "{text}");
            assert!(one.has_same_dcs(&other) && one.has_same_parameters(&other));
            assert_eq!(other.asks_with_tls(), Some(true), "{text}");
            assert_eq!(other.etcd(), BTreeSet::from(["192.0.2.4:2379".to_owned()]));
            assert_eq!(other.connect_address(), Some("192.0.2.1:5432"));
            assert_eq!(other.data_dir(), Some("/data"));
        }
    }

    #[test]
    fn what_differs_is_seen() {
        let one = config(BLOCK);
        let other = |from, to| config(&BLOCK.replace(from, to));
        assert!(!one.is_same_member(&other("node1", "node2")));
        assert!(!one.is_same_member(&other("/db/", "/service/")));
        assert!(!one.has_same_dcs(&other("192.0.2.4", "192.0.2.40")));
        assert!(!one.has_same_parameters(&other("a: \"1\"", "a: \"2\"")));
        let plain = other("  protocol: https", "  # protocol: https");
        assert_eq!(plain.asks_with_tls(), Some(false));
        assert_eq!(other("etcd3:", "etcd:").asks_with_tls(), None);
    }

    #[test]
    fn etcd_is_named_in_several_ways() {
        for (etcd, tls, hosts) in [
            ("{host: 'a:1'}", false, vec!["a:1"]),
            (
                "{hosts: 'a, b:1', protocol: https}",
                true,
                vec!["a:2379", "b:1"],
            ),
            ("{url: 'https://a:2379/x'}", true, vec!["a:2379"]),
            ("{srv: example.com}", false, vec![]),
        ] {
            let config = config(&format!("etcd3: {etcd}\n"));
            assert_eq!(config.asks_with_tls(), Some(tls), "{etcd}");
            assert_eq!(config.etcd(), hosts.into_iter().map(String::from).collect());
        }
    }

    #[test]
    fn lists_of_who_may_log_in_are_read_however_they_are_written() {
        let lines = ["local all all peer", "host all \"A b\" 192.0.2.1/32 reject"];
        for list in [
            "pg_hba:\n    # why\n    - local all all peer # here\n\n    - \"host all \\\"A b\\\" 192.0.2.1/32 reject\"\n",
            "pg_hba:\n  - local all\n    all peer\n  - 'host all \"A b\" 192.0.2.1/32 reject'\n",
            "pg_hba: [local all all peer, 'host all \"A b\" 192.0.2.1/32 reject']\n",
        ] {
            let access = config(&format!("postgresql:\n  {list}")).access().unwrap();
            assert_eq!(access.hba.unwrap(), lines, "{list}");
            assert_eq!(access.ident, None);
        }
        for list in [
            "pg_hba: peer\n",
            "pg_hba:\n    - {a: b}\n",
            "pg_ident: {a: b}\n",
        ] {
            let config = config(&format!("postgresql:\n  {list}"));
            assert!(config.access().is_err(), "{list}: no empty list");
        }
    }

    #[test]
    fn logins_are_read_however_they_are_written() {
        for text in [
            "restapi:\n  authentication:\n    username: patroni\n    password: \"a: \\\"#b\"\npostgresql:\n  authentication:\n    \
             replication: {username: replicator, password: 'x y'}\n    rewind:\n      username: rewind\n      password: 123\n",
            "{postgresql: {authentication: {rewind: {password: '123', username: rewind}, replication: {password: x y,\n \
             username: replicator}}}, restapi: {authentication: {password: 'a: \"#b'}}}\n",
        ] {
            let config = config(text);
            let login = |purpose| {
                config
                    .login(purpose)
                    .map(|(name, it)| (name, it.expose().to_owned()))
            };
            let of = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
            assert_eq!(login("replication"), of("replicator", "x y"), "{text}");
            assert_eq!(login("rewind"), of("rewind", "123"));
            assert_eq!(login("superuser"), None);
            assert_eq!(config.rest_password().unwrap().expose(), "a: \"#b");
        }
        assert!(
            config("restapi: {authentication: {password: ''}}\n")
                .rest_password()
                .is_none()
        );
    }

    #[test]
    fn what_patroni_would_not_read_is_not_read() {
        for text in ["a: [b\n", "a: \"b\n", "a: b\n  c: d\n"] {
            assert!(PatroniConfig::parse(text).is_none(), "{text:?}");
        }
        for text in ["an older one\n", "- a\n"] {
            assert!(!config(text).is_same_member(&config(BLOCK)), "{text:?}");
        }
        // Patroni's reader takes the last one of two equal keys.
        assert_eq!(config("name: a\nname: b\n").section("name"), "b");
        let shown = format!(
            "{:?}",
            config("restapi: {authentication: {password: s3cret}}\n")
        );
        assert!(!shown.contains("s3cret"));
    }
}
