//! HAProxy's config: what listens, and where it leads.

use std::collections::BTreeMap;

/// A `listen` section, or a `frontend` with the backends that it leads to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxy {
    pub name: String,
    /// What it binds, without options.
    pub binds: Vec<String>,
    /// Whether clients speak TLS with HAProxy itself.
    pub ends_tls: bool,
    /// The addresses of its servers, as `host:port`.
    pub servers: Vec<String>,
    /// The path that its servers are checked by, if they are checked by HTTP.
    pub check: Option<String>,
    /// Whether it shows HAProxy's statistics.
    pub stats: bool,
}

impl Proxy {
    /// The ports that it listens on.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        let binds = self.binds.iter().flat_map(|bind| bind.split(','));
        binds.filter_map(|bind| bind.rsplit_once(':')?.1.parse().ok())
    }
}

/// Everything that listens.
pub fn proxies(text: &str) -> Vec<Proxy> {
    let mut listening: Vec<(Proxy, Vec<String>)> = Vec::new();
    let mut backends: BTreeMap<String, Proxy> = BTreeMap::new();
    // What the sections that follow have by default.
    let mut defaults = Proxy::default();
    let mut kind = String::new();
    for line in text.lines() {
        let words: Vec<&str> = line
            .split('#')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let Some((first, rest)) = words.split_first() else {
            continue;
        };
        let name = rest.first().copied().unwrap_or_default();
        match *first {
            "listen" | "frontend" => {
                kind = "listening".into();
                let proxy = Proxy {
                    name: name.to_owned(),
                    ..defaults.clone()
                };
                listening.push((proxy, Vec::new()));
            }
            "backend" => {
                kind = format!("backend {name}");
                backends.insert(kind.clone(), defaults.clone());
            }
            "defaults" => {
                kind = "defaults".into();
                defaults = Proxy::default();
            }
            "global" | "userlist" | "peers" | "resolvers" | "mailers" | "cache" | "program"
            | "ring" | "http-errors" | "fcgi-app" => kind.clear(),
            _ => {
                let section = match kind.as_str() {
                    "" => None,
                    "defaults" => Some(&mut defaults),
                    "listening" => listening.last_mut().map(|(proxy, leads)| {
                        if matches!(*first, "default_backend" | "use_backend") {
                            leads.push(format!("backend {name}"));
                        }
                        proxy
                    }),
                    backend => backends.get_mut(backend),
                };
                if let Some(section) = section {
                    section.read(first, rest);
                }
            }
        }
    }
    listening
        .into_iter()
        .map(|(mut proxy, leads)| {
            for backend in leads.iter().filter_map(|name| backends.get(name)) {
                proxy.servers.extend(backend.servers.iter().cloned());
                proxy.check = proxy.check.or_else(|| backend.check.clone());
            }
            proxy
        })
        .collect()
}

impl Proxy {
    fn read(&mut self, word: &str, rest: &[&str]) {
        match (word, rest) {
            ("bind", [address, options @ ..]) => {
                self.binds.push((*address).to_owned());
                self.ends_tls |= options.contains(&"ssl");
            }
            ("server" | "server-template", [_, address, ..]) => {
                self.servers.push((*address).to_owned());
            }
            ("stats", ["enable" | "uri", ..]) => self.stats = true,
            ("option", ["httpchk", words @ ..]) => {
                let path = words.iter().find(|word| word.starts_with('/'));
                self.check = Some(path.map_or("/", |it| it).to_owned());
            }
            ("http-check", ["send", words @ ..]) => {
                let path = words.iter().find(|word| word.starts_with('/'));
                if let Some(path) = path {
                    self.check = Some((*path).to_owned());
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_listens_is_read_with_where_it_leads() {
        let text = "global\n  maxconn 100\ndefaults\n  mode tcp\n  option httpchk OPTIONS /primary\nlisten stats # page\n\
                    \tmode http\n  bind *:7000\n  stats enable\nfrontend in\n  bind 192.0.2.1:5000,[::]:5000 ssl crt x\n\
                    \x20 default_backend out\nbackend out\n  server a 192.0.2.2:5432 check port 8008\n\
                    backend alone\n  server b 192.0.2.3:1\n";
        let all = proxies(text);
        let names: Vec<&str> = all.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["stats", "in"]);
        assert!(all[0].stats && all[0].servers.is_empty());
        assert_eq!(all[1].ports().collect::<Vec<_>>(), [5000, 5000]);
        assert_eq!(all[1].servers, ["192.0.2.2:5432"]);
        assert_eq!(all[1].check.as_deref(), Some("/primary"));
        assert!(all[1].ends_tls && !all[0].ends_tls);
    }
}
