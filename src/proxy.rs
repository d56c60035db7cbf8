//! The proxy that the environment names for HTTPS, as other programs understand it.

use std::net::IpAddr;

use base64::{Engine, prelude::BASE64_STANDARD};
use ipnet::IpNet;

/// The variables, the first one that is set counts.
const NAMES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
const EXCEPT: [&str; 2] = ["no_proxy", "NO_PROXY"];
/// The port of a proxy whose URL has none.
const HTTP: u16 = 80;

/// A proxy. It has no `Debug`: its URL may have a password.
#[derive(Clone)]
pub(crate) struct Proxy {
    /// The variable that names it.
    pub variable: &'static str,
    pub url: String,
    /// The hosts that are reached without it.
    pub except: Option<String>,
}

/// Where a proxy is, and what it asks for.
pub(crate) struct Place {
    pub host: String,
    pub port: u16,
    /// The value of `Proxy-Authorization`.
    pub login: Option<String>,
}

/// The proxy of this process's environment.
pub(crate) fn of_environment() -> Option<Proxy> {
    let value = |name: &str| std::env::var(name).ok().filter(|it| !it.is_empty());
    let (variable, url) = NAMES
        .into_iter()
        .find_map(|name| Some((name, value(name)?)))?;
    Some(Proxy {
        variable,
        url,
        except: EXCEPT.into_iter().find_map(value),
    })
}

impl Proxy {
    /// Whether `host` is reached through it.
    pub(crate) fn leads_to(&self, host: &str) -> bool {
        let except = self.except.as_deref().unwrap_or_default().split(',');
        !except.map(str::trim).any(|it| covers(it, host))
    }

    /// `None` if the URL is none that pgherd can use: only proxies that are spoken to in plain HTTP are.
    pub(crate) fn place(&self) -> Option<Place> {
        let rest = match self.url.split_once("://") {
            Some(("http", rest)) => rest,
            Some(_) => return None,
            None => &self.url,
        };
        let rest = rest.split(['/', '?', '#']).next()?;
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, rest),
        };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (place, HTTP),
        };
        let host = host.trim_matches(['[', ']']).to_owned();
        let login = login.map(|it| format!("Basic {}", BASE64_STANDARD.encode(decoded(it))));
        (!host.is_empty()).then_some(Place { host, port, login })
    }
}

/// Whether an entry of `NO_PROXY` is about `host`: `*`, a name with all names below it, an address, or a network.
fn covers(entry: &str, host: &str) -> bool {
    if entry.is_empty() {
        return false;
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        let network = entry.parse::<IpNet>().is_ok_and(|it| it.contains(&address));
        return entry == "*" || network || entry.parse() == Ok(address);
    }
    let (entry, host) = (entry.to_ascii_lowercase(), host.to_ascii_lowercase());
    let name = entry.trim_start_matches("*.").trim_start_matches('.');
    let below = host.strip_suffix(name);
    entry == "*" || below.is_some_and(|it| it.is_empty() || it.ends_with('.'))
}

/// The bytes of a text in which `%41` stands for `A`.
fn decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = text.get(at + 1..at + 3).filter(|_| byte == b'%');
        match code.and_then(|it| u8::from_str_radix(it, 16).ok()) {
            Some(code) => {
                out.push(code);
                at += 3;
            }
            None => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(url: &str, except: &str) -> Proxy {
        Proxy {
            variable: "HTTPS_PROXY",
            url: url.to_owned(),
            except: Some(except.to_owned()),
        }
    }

    #[test]
    fn a_url_says_where_it_is() {
        for (url, place) in [
            (
                "http://proxy.example.com:3128",
                Some(("proxy.example.com", 3128, None)),
            ),
            (
                "proxy.example.com:3128/",
                Some(("proxy.example.com", 3128, None)),
            ),
            ("http://[::1]:8080", Some(("::1", 8080, None))),
            ("http://10.0.0.1", Some(("10.0.0.1", 80, None))),
            (
                "http://me:p%40ss@proxy:1",
                Some(("proxy", 1, Some("Basic bWU6cEBzcw=="))),
            ),
            ("https://proxy:3128", None),
            ("socks5://proxy:3128", None),
            ("http://proxy:none", None),
            ("http://", None),
        ] {
            let found = proxy(url, "").place();
            let found = found
                .as_ref()
                .map(|it| (it.host.as_str(), it.port, it.login.as_deref()));
            assert_eq!(found, place, "{url}");
        }
    }

    #[test]
    fn some_hosts_are_reached_without_it() {
        for (except, host, leads) in [
            ("", "s3.example.com", true),
            ("*", "s3.example.com", false),
            ("example.com", "s3.example.com", false),
            (".Example.com", "s3.example.com", false),
            ("*.example.com", "s3.example.com", false),
            ("a.com, s3.example.com", "s3.example.com", false),
            ("ample.com", "s3.example.com", true),
            ("10.0.0.0/8", "10.1.2.3", false),
            ("10.0.0.0/8", "11.1.2.3", true),
            ("10.1.2.3", "10.1.2.3", false),
        ] {
            assert_eq!(
                proxy("http://p", except).leads_to(host),
                leads,
                "{except} {host}"
            );
        }
    }
}
