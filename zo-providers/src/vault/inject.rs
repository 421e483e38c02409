//! Puts keys into requests at the last moment, for skills that may use them and never see them.

use super::{KeyName, Vault, name::Target};
use crate::{Leaks, Secret};
use reqwest::Url;
use std::{fmt, sync::Arc};
use zeroize::Zeroizing;
use zo_traits::{Error, ErrorKind, Result};

const OP: &str = "vault.inject";
const OPEN: &str = "{{secret:";
const CLOSE: &str = "}}";

/// Replaces `{{secret:NAME}}` by the key of that name, for one user. NAME is a provider, or `provider/name`.
///
/// A key goes only where its [`Scope`](super::Scope) allows: to the hosts that it is bound to, over https (plain http to this
/// machine's own loopback addresses), in headers, and in a body or URL only if it was marked so. Whatever it puts in, its
/// [`Leaks`] know from then on. Errors name the key, never its value, and may be shown to the model.
///
/// Cheap to clone.
///
/// ```
/// # use zo_providers::{Injector, KeyName, Leaks, Scope, Secret, Unlock, Vault};
/// # fn demo(vault: &Vault) -> zo_traits::Result<()> {
/// vault.put(&KeyName::new("alice", "github"), &Secret::new("ghp_0123456789"), &Scope::hosts(["api.github.com"]))?;
/// let injector = Injector::new(vault, "alice", &Leaks::default());
/// let written = vec![("authorization".to_owned(), "Bearer {{secret:github}}".to_owned())];
/// let sent = injector.headers("api.github.com", "https", written.clone())?;
/// assert_eq!(sent[0].1.expose(), "Bearer ghp_0123456789");
/// assert!(injector.headers("evil.example", "https", written).is_err());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Injector {
    vault: Vault,
    user: Arc<str>,
    leaks: Leaks,
}

impl fmt::Debug for Injector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Injector")
            .field("vault", &self.vault)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Where a key is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Header,
    Body(Spelling),
    Url,
}

/// How a value is written so that it stays one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    Plain,
    Json,
    Percent,
}

fn denied(what: fmt::Arguments<'_>) -> Error {
    refused(ErrorKind::Denied, what)
}

/// An error that tells nothing that the model does not know: it wrote the request.
fn refused(kind: ErrorKind, what: fmt::Arguments<'_>) -> Error {
    Error::new(kind, OP, what).with_model_text(what.to_string())
}

impl Injector {
    /// For the keys of `user` in `vault`. `leaks` learns every key that is put into a request.
    pub fn new(vault: &Vault, user: impl Into<Arc<str>>, leaks: &Leaks) -> Self {
        Self { vault: vault.clone(), user: user.into(), leaks: leaks.clone() }
    }

    /// What it knows of secrets.
    pub fn leaks(&self) -> &Leaks {
        &self.leaks
    }

    /// The headers with their keys filled in, for a request to `url_host` (with its port, unless it is the usual one) by
    /// `scheme`. Call it just before sending, and follow no redirect with what it returns.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] for a host or a scheme that a key may not go to, [`NotFound`](ErrorKind::NotFound) for a name
    /// that the user has no key for, [`Invalid`](ErrorKind::Invalid) for a `{{secret:` that does not end or stands in the name
    /// of a header and for a key with control characters, and what the vault reports.
    pub fn headers(
        &self,
        url_host: &str,
        scheme: &str,
        headers: Vec<(String, String)>,
    ) -> Result<Vec<(String, Secret)>> {
        headers
            .into_iter()
            .map(|(name, text)| {
                if name.contains(OPEN) {
                    return Err(refused(
                        ErrorKind::Invalid,
                        format_args!("a secret cannot be the name of a header"),
                    ));
                }
                if text.contains(OPEN) && name.eq_ignore_ascii_case("host") {
                    return Err(denied(format_args!("a secret cannot stand in the header {name}")));
                }
                Ok((name, self.fill(Place::Header, scheme, url_host, &text)?))
            })
            .collect()
    }

    /// The body with its keys filled in: escaped in JSON and forms (by `content_type`), else as they are. Only keys that were
    /// marked [`in_body`](super::Scope::in_body). Do this only if the whole body is the skill's own: text from elsewhere in it
    /// could ask for a key, too.
    ///
    /// # Errors
    /// As [`headers`](Injector::headers).
    pub fn body(&self, url_host: &str, scheme: &str, content_type: &str, body: &str) -> Result<Secret> {
        let kind = content_type.to_ascii_lowercase();
        let spelling = if kind.contains("json") {
            Spelling::Json
        } else if kind.contains("x-www-form-urlencoded") {
            Spelling::Percent
        } else {
            Spelling::Plain
        };
        self.fill(Place::Body(spelling), scheme, url_host, body)
    }

    /// The URL with its keys filled in, percent-encoded. Only keys that were marked [`in_url`](super::Scope::in_url); the host
    /// cannot hold one.
    ///
    /// # Errors
    /// As [`headers`](Injector::headers), and [`ErrorKind::Invalid`] for what is no http or https URL.
    pub fn url(&self, url: &str) -> Result<Secret> {
        // Only what follows the host may hold a key, and with braces in the host there is none.
        let parsed = parse_url(url)?;
        let out = self.fill(Place::Url, parsed.scheme(), &host_of(&parsed)?, url)?;
        let same = parse_url(out.expose()).is_ok_and(|out| {
            (out.scheme(), out.host(), out.port()) == (parsed.scheme(), parsed.host(), parsed.port())
        });
        if same { Ok(out) } else { Err(denied(format_args!("a secret would change where the request goes"))) }
    }

    fn fill(&self, place: Place, scheme: &str, host: &str, text: &str) -> Result<Secret> {
        let mut pieces: Vec<Piece<'_>> = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(OPEN) {
            let (name, after) = after.split_once(CLOSE).ok_or_else(|| {
                refused(ErrorKind::Invalid, format_args!("a {OPEN} does not end with {CLOSE}"))
            })?;
            pieces.push(Piece::Text(before));
            pieces.push(Piece::Key(self.key(place, scheme, host, name.trim())?));
            rest = after;
        }
        pieces.push(Piece::Text(rest));
        // Made large enough at once: growing would leave copies behind.
        let mut out = Zeroizing::new(Vec::with_capacity(pieces.iter().map(Piece::len).sum()));
        for piece in &pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Key(key) => out.extend_from_slice(key),
            }
        }
        Secret::from_bytes(out)
            .ok_or_else(|| refused(ErrorKind::Invalid, format_args!("the request is no text")))
    }

    /// The key `name` as it is to stand in `place`.
    fn key(&self, place: Place, scheme: &str, host: &str, name: &str) -> Result<Zeroizing<Vec<u8>>> {
        let (provider, label) = name.split_once('/').unwrap_or((name, ""));
        let key = KeyName::new(&*self.user, provider).named(label);
        let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
        let (scope, value) = self.vault.scoped(&key).map_err(|e| match e.kind() {
            ErrorKind::NotFound => refused(ErrorKind::NotFound, format_args!("there is no secret {shown}")),
            _ => e,
        })?;
        let target = Target::new(scheme, host)?;
        if !scope.allows(&target) {
            return Err(denied(format_args!("the secret {shown} may not be sent to {host}")));
        }
        if !target.is_private() {
            return Err(denied(format_args!("the secret {shown} may not be sent to {host} over plain http")));
        }
        let (placed, spelling) = match place {
            Place::Header => (true, Spelling::Plain),
            Place::Body(spelling) => (scope.allows_body(), spelling),
            Place::Url => (scope.allows_url(), Spelling::Percent),
        };
        if !placed {
            return Err(denied(format_args!(
                "the secret {shown} may stand in headers, not in a body or URL"
            )));
        }
        if place == Place::Header && value.expose().chars().any(char::is_control) {
            return Err(refused(
                ErrorKind::Invalid,
                format_args!(
                    "the secret {shown} has line ends or the like in it, and no header can hold those"
                ),
            ));
        }
        self.leaks.add(&key.short(), &value).map_err(|_| {
            denied(format_args!(
                "the secret {shown} is too short to be kept out of the answer: 8 bytes are the least"
            ))
        })?;
        Ok(spelled(value.expose(), spelling))
    }
}

enum Piece<'a> {
    Text(&'a str),
    Key(Zeroizing<Vec<u8>>),
}

impl Piece<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Key(key) => key.len(),
        }
    }
}

fn spelled(value: &str, spelling: Spelling) -> Zeroizing<Vec<u8>> {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let digit = |n: u8| HEX.get(usize::from(n & 15)).copied().unwrap_or('0');
    let mut out = Zeroizing::new(String::with_capacity(value.len() * 6));
    for c in value.chars() {
        match (spelling, c) {
            (Spelling::Plain, c) => out.push(c),
            (Spelling::Json, '"' | '\\') => out.extend(['\\', c]),
            (Spelling::Json, c) if u32::from(c) < 0x20 => {
                let n = c as u8;
                out.extend(['\\', 'u', '0', '0', digit(n >> 4), digit(n)]);
            }
            (Spelling::Json, c) => out.push(c),
            (Spelling::Percent, c) if c.is_ascii_alphanumeric() || "-._~".contains(c) => out.push(c),
            (Spelling::Percent, c) => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    out.extend(['%', digit(byte >> 4), digit(byte)]);
                }
            }
        }
    }
    Zeroizing::new(std::mem::take(&mut *out).into_bytes())
}

pub(super) fn parse_url(url: &str) -> Result<Url> {
    let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    parsed.ok_or_else(|| refused(ErrorKind::Invalid, format_args!("the URL is no http or https URL")))
}

/// The host of `url`, with its port if that is not the usual one.
pub(super) fn host_of(url: &Url) -> Result<String> {
    let host =
        url.host_str().ok_or_else(|| refused(ErrorKind::Invalid, format_args!("the URL has no host")))?;
    Ok(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}
