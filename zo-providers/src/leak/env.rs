//! The environment that a child process may see.

use super::Leaks;
use std::ffi::OsString;

/// Words that mark the name of a variable as one of a secret, wherever they stand in it.
const WORDS: &[&str] = &[
    "KEY",
    "KEYS",
    "TOKEN",
    "TOKENS",
    "SECRET",
    "SECRETS",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "PASS",
    "PWD",
    "APIKEY",
    "CREDENTIAL",
    "CREDENTIALS",
    "PAT",
    "AUTH",
    "COOKIE",
    "JWT",
    "DSN",
];

/// Names that hold one of [`WORDS`] and no secret: the working directory, and where agents and displays listen.
const HARMLESS: &[&str] = &["PWD", "OLDPWD", "SSH_AUTH_SOCK", "XAUTHORITY"];

/// `vars` without those that hold a secret: a known one in any of its spellings, a URL with a password in it, or anything
/// under a name that is given to secrets (`*_API_KEY`, `*_TOKEN`, `*_SECRET`, `*_PASSWORD`, ..., and all of `AWS_*` and
/// `ZO_VAULT_*`), whether the value is known or not.
///
/// ```
/// use zo_providers::{Leaks, clean_env};
/// # let mut command = std::process::Command::new("true");
/// command.env_clear().envs(clean_env(std::env::vars_os(), &Leaks::default()));
/// ```
pub fn clean_env(
    vars: impl IntoIterator<Item = (OsString, OsString)>,
    leaks: &Leaks,
) -> Vec<(OsString, OsString)> {
    vars.into_iter()
        .filter(|(name, value)| {
            let value = value.as_encoded_bytes();
            !is_secret_name(&name.to_string_lossy())
                && !leaks.is_in(name.as_encoded_bytes())
                && !leaks.is_in(value)
                && !has_password(value)
        })
        .collect()
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    if HARMLESS.contains(&name.as_str()) {
        return false;
    }
    let mut words = name.split(|c: char| !c.is_ascii_alphanumeric());
    name.starts_with("AWS_")
        || name.starts_with("ZO_VAULT")
        || ["TOKEN", "APIKEY", "SECRET", "PASSWORD", "PASSWD"].iter().any(|end| name.ends_with(end))
        || name.contains("API_KEY")
        || name.contains("ACCESS_KEY")
        || name.contains("PRIVATE_KEY")
        || words.any(|word| WORDS.contains(&word))
}

/// Is there a URL with a password, `scheme://user:password@host`?
fn has_password(value: &[u8]) -> bool {
    let text = String::from_utf8_lossy(value);
    text.match_indices("://").any(|(at, sign)| {
        let rest = text.get(at + sign.len()..).unwrap_or_default();
        let authority = rest.split(['/', '?', '#', ' ', '\t', '\n', '"', '\'']).next().unwrap_or_default();
        authority
            .rsplit_once('@')
            .and_then(|(user, _)| user.split_once(':'))
            .is_some_and(|(_, password)| !password.is_empty())
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Secret;

    fn kept(vars: &[(&str, &str)]) -> Vec<String> {
        let leaks = Leaks::default();
        leaks.add("k", &Secret::new("sk-canary-0123")).unwrap();
        let vars = vars.iter().map(|(n, v)| (OsString::from(n), OsString::from(v)));
        clean_env(vars, &leaks).into_iter().map(|(n, _)| n.into_string().unwrap()).collect()
    }

    #[test]
    fn names_of_secrets_are_dropped_and_ordinary_ones_stay() {
        for name in [
            "OPENAI_API_KEY",
            "openai_api_key",
            "GITHUB_TOKEN",
            "GH_TOKEN_2",
            "STRIPE_SECRET",
            "STRIPE_SECRET_KEY",
            "PGPASSWORD",
            "DB_PASSWORD",
            "AWS_SESSION_TOKEN",
            "AWS_PROFILE",
            "ZO_VAULT_KEY",
            "ZO_VAULT_PASSPHRASE",
            "SENTRY_DSN",
            "GITHUB_PAT",
            "HF_TOKEN",
            "SSH_PRIVATE_KEY_PEM",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "NPM_AUTH",
            "OPENAI_KEY_2",
            "SIGNING_KEYS",
            "KEY",
        ] {
            assert_eq!(kept(&[(name, "1")]), [""; 0], "{name}");
        }
        for name in [
            "PATH",
            "HOME",
            "LANG",
            "KEYBOARD",
            "TOKENIZERS_PARALLELISM",
            "PWD",
            "OLDPWD",
            "SSH_AUTH_SOCK",
            "TERM",
            "PASSAGE",
            "MONKEY",
            "COMPASS_DIR",
            "PATTERN",
            "AUTHOR",
        ] {
            assert_eq!(kept(&[(name, "1")]), [name]);
        }
    }

    #[test]
    fn known_secrets_and_passwords_in_urls_are_dropped_by_their_value() {
        for value in [
            "sk-canary-0123",
            "x=sk-canary-0123",
            "c2stY2FuYXJ5LTAxMjM=",
            "postgres://me:pw@db/x",
            "a https://u:p@h",
            "sk%2Dcanary-0123",
        ] {
            assert_eq!(kept(&[("A", value)]), [""; 0], "{value}");
        }
        for value in ["https://h:443/a@b:c@d", "postgres://me@db/x", "a:b@c", "ssh://git@h:22", "sk-canary"] {
            assert_eq!(kept(&[("A", value)]), ["A"], "{value}");
        }
        assert_eq!(kept(&[("sk-canary-0123", "1")]), [""; 0]);
    }

    #[test]
    #[cfg(unix)]
    fn a_value_that_is_no_text_is_looked_at_too() {
        use std::os::unix::ffi::OsStringExt as _;
        let leaks = Leaks::default();
        leaks.add("k", &Secret::new("sk-canary-0123")).unwrap();
        let value = |text: &[u8]| vec![(OsString::from("A"), OsString::from_vec(text.to_vec()))];
        assert!(clean_env(value(b"\xffsk-canary-0123"), &leaks).is_empty());
        assert_eq!(clean_env(value(b"\xff"), &leaks).len(), 1);
    }
}
