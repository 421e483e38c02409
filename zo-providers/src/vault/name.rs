//! What a key is called, and where it may go.

use reqwest::Url;
use serde::{Deserialize, Serialize};
use std::fmt;
use zo_traits::{Error, ErrorKind, Result};

/// Longest name of a user, a provider, a key or a host, in bytes.
const MAX_NAME: usize = 256;
/// Most hosts of one key.
const MAX_HOSTS: usize = 64;

/// Whose key it is and for what: a user, a provider, and a name for those who have several keys at one provider.
///
/// Its text, as in error messages, is `user: provider` or `user: provider/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyName {
    user: String,
    provider: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
}

impl KeyName {
    /// The one key of `user` at `provider`.
    pub fn new(user: impl Into<String>, provider: impl Into<String>) -> Self {
        Self { user: user.into(), provider: provider.into(), name: String::new() }
    }

    /// One of several: `KeyName::new("alice", "github").named("work")`.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The user.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The provider.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// The name among several; empty for the one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As a skill calls it: `provider` or `provider/name`.
    pub fn short(&self) -> String {
        if self.name.is_empty() { self.provider.clone() } else { format!("{}/{}", self.provider, self.name) }
    }

    pub(super) fn parts(&self) -> (&str, &str, &str) {
        (&self.user, &self.provider, &self.name)
    }

    /// Refuses what could not be told apart or written in `{{secret:...}}`.
    pub(super) fn check(&self) -> Result<()> {
        let bad = |what: &str, why: &str| {
            Err(Error::new(ErrorKind::Invalid, "vault.put", format_args!("the name of the {what} {why}")))
        };
        for (what, text) in [("user", &self.user), ("provider", &self.provider), ("key", &self.name)] {
            if text.len() > MAX_NAME {
                return bad(what, "is longer than 256 bytes");
            }
            if text.chars().any(char::is_control) || text.trim() != text {
                return bad(what, "has a control character in it, or white space around it");
            }
            if what != "key" && text.is_empty() {
                return bad(what, "is empty");
            }
            if what != "user" && text.contains(['{', '}']) || what == "provider" && text.contains('/') {
                return bad(what, "has a brace or a slash in it");
            }
        }
        Ok(())
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.user, self.short())
    }
}

/// Where an [`Injector`](super::Injector) may put a key. By default nowhere: such a key is for the host's own use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scope {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hosts: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    body: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    url: bool,
}

impl Scope {
    /// In headers of requests to these hosts: `api.github.com`, `*.example.com` (every name below it, not itself),
    /// `localhost:8080`. Without a port it is the usual one, 443 (or 80 at a loopback address).
    pub fn hosts<T: Into<String>>(hosts: impl IntoIterator<Item = T>) -> Self {
        Self { hosts: hosts.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Also in bodies. A body may end up where others can read it (a comment, a log): only for services that want their key
    /// there.
    #[must_use]
    pub fn in_body(mut self) -> Self {
        self.body = true;
        self
    }

    /// Also in URLs. Servers and proxies log URLs: only for services that want their key there.
    #[must_use]
    pub fn in_url(mut self) -> Self {
        self.url = true;
        self
    }

    /// The hosts, as they were given.
    pub fn allowed_hosts(&self) -> &[String] {
        &self.hosts
    }

    /// May it stand in a body?
    pub fn allows_body(&self) -> bool {
        self.body
    }

    /// May it stand in a URL?
    pub fn allows_url(&self) -> bool {
        self.url
    }

    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn check(&self) -> Result<()> {
        let bad = |why: fmt::Arguments<'_>| Err(Error::new(ErrorKind::Invalid, "vault.scope", why));
        if self.hosts.len() > MAX_HOSTS {
            return bad(format_args!("a key has at most {MAX_HOSTS} hosts"));
        }
        match self.hosts.iter().find(|host| host.len() > MAX_NAME || pattern(host).is_none()) {
            Some(host) => {
                let host: String = host.chars().take(MAX_NAME).collect();
                bad(format_args!(
                    "{host:?} is no host: write api.example.com, *.example.com or localhost:8080"
                ))
            }
            None => Ok(()),
        }
    }

    pub(super) fn allows(&self, target: &Target) -> bool {
        self.hosts.iter().filter_map(|host| pattern(host)).any(|(wild, host, port)| {
            let named = if wild {
                target.host.strip_suffix(&host).is_some_and(|sub| sub.len() > 1 && sub.ends_with('.'))
            } else {
                target.host == host
            };
            named && port.unwrap_or(target.usual_port()) == target.port
        })
    }
}

/// Is it for every name below, the host, and the port if it is not the usual one.
fn pattern(text: &str) -> Option<(bool, String, Option<u16>)> {
    let (wild, text) = text.strip_prefix("*.").map_or((false, text), |rest| (true, rest));
    let (host, url) = authority("https", text)?;
    // `*.com` or `*.10.0.0.1` is nobody's wish.
    let sensible = !wild || (host.contains('.') && host.parse::<std::net::IpAddr>().is_err());
    sensible.then(|| (wild, host, url.port()))
}

/// The host in its one spelling (lower case, Punycode, plain numbers, no dot at its end) of a text that is a host, maybe with a
/// port, and nothing more.
fn authority(scheme: &str, text: &str) -> Option<(String, Url)> {
    if text.is_empty() || text.contains(['/', '\\', '?', '#', '@', '*']) || text.contains(char::is_whitespace)
    {
        return None;
    }
    let url = Url::parse(&format!("{scheme}://{text}/")).ok()?;
    let host = url.host_str()?.trim_end_matches('.').to_owned();
    (!host.is_empty() && url.path() == "/").then_some((host, url))
}

/// Where a request goes.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) host: String,
    port: u16,
    secure: bool,
}

impl Target {
    pub(super) fn new(scheme: &str, host: &str) -> Result<Self> {
        const OP: &str = "vault.inject";
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(Error::new(ErrorKind::Invalid, OP, "secrets go over http and https only")),
        };
        let (host, url) = authority(if secure { "https" } else { "http" }, host)
            .ok_or_else(|| Error::new(ErrorKind::Invalid, OP, "the request's host is no host"))?;
        let this = Self { host, port: 0, secure };
        Ok(Self { port: url.port().unwrap_or(this.usual_port()), ..this })
    }

    fn usual_port(&self) -> u16 {
        if self.secure { 443 } else { 80 }
    }

    /// Can nobody on the way read along?
    pub(super) fn is_private(&self) -> bool {
        self.secure || is_loopback(&self.host)
    }
}

/// Is it this machine?
pub(super) fn is_loopback(host: &str) -> bool {
    // As in `authority`: a dot at the end makes no other host of it.
    let host = host.trim_end_matches('.');
    host == "localhost"
        || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_matched_whole_and_with_its_port() {
        for (bound, scheme, host, good) in [
            ("api.github.com", "https", "api.github.com", true),
            ("API.GitHub.com.", "HTTPS", "api.GITHUB.com", true),
            ("api.github.com", "https", "api.github.com:443", true),
            ("api.github.com:443", "https", "api.github.com", true),
            ("api.github.com", "https", "api.github.com.", true),
            ("api.github.com", "https", "api.github.com:8443", false),
            ("api.github.com:8443", "https", "api.github.com", false),
            ("api.github.com:8443", "https", "api.github.com:8443", true),
            ("api.github.com", "https", "evil-api.github.com", false),
            ("api.github.com", "https", "x.api.github.com", false),
            ("api.github.com", "https", "github.com", false),
            ("api.github.com", "https", "api.github.com.evil.org", false),
            ("*.example.com", "https", "a.example.com", true),
            ("*.example.com", "https", "a.b.example.com", true),
            ("*.example.com", "https", "example.com", false),
            ("*.example.com", "https", "evilexample.com", false),
            ("*.example.com", "https", ".example.com", false),
            ("localhost:8080", "http", "localhost:8080", true),
            ("localhost", "http", "localhost", true),
            ("localhost", "http", "localhost:8080", false),
            ("127.0.0.1:8080", "http", "127.1:8080", true),
            ("[::1]:8080", "http", "[0:0:0::1]:8080", true),
            ("bücher.example", "https", "xn--bcher-kva.example", true),
        ] {
            let target = Target::new(scheme, host);
            let allowed = target.as_ref().is_ok_and(|target| Scope::hosts([bound]).allows(target));
            assert_eq!(allowed, good, "{bound} {host} {target:?}");
        }
        for bad in [
            "a@b",
            "a/b",
            "",
            "a b",
            "http://a",
            "a?b",
            "a#b",
            "*",
            "*.com",
            "*.10.0.0.1",
            "a.*.b",
            "a:99999",
        ] {
            assert!(Scope::hosts([bad]).check().is_err(), "{bad:?}");
        }
        for bad in ["github.com@evil.org", "a/b", "", "a\\b"] {
            assert!(Target::new("https", bad).is_err(), "{bad:?}");
        }
        assert!(Target::new("ftp", "a").is_err());
        // The dot at the end changes nothing, so it must not change who counts as this machine.
        for host in ["localhost", "localhost.", "127.0.0.1", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        assert!(!is_loopback("localhost.evil.example") && !is_loopback("10.0.0.1"));
        assert!(!Scope::default().allows(&Target::new("https", "a.b").unwrap()));
    }

    #[test]
    fn names_that_cannot_be_told_apart_are_refused() {
        for bad in [
            KeyName::new("", "p"),
            KeyName::new("u", ""),
            KeyName::new("u\n", "p"),
            KeyName::new("u", "p/q"),
            KeyName::new("u", "p}"),
            KeyName::new("u", "p").named("{"),
            KeyName::new("u", " p"),
            KeyName::new("u", "p".repeat(257)),
        ] {
            assert_eq!(bad.check().unwrap_err().kind(), ErrorKind::Invalid, "{bad:?}");
        }
        let good = KeyName::new("u/{x}", "p").named("a/b");
        assert!(good.check().is_ok());
        assert_eq!((good.to_string().as_str(), good.short().as_str()), ("u/{x}: p/a/b", "p/a/b"));
    }
}
