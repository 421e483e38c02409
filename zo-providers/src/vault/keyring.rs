//! The operating system's keyring as the place of a wrapping key.

use super::Unlock;
use crate::Secret;
use keyring::{Entry, Error as KeyringError};
use zo_traits::{Error, ErrorKind, Result};

/// The key under `service` and `account`; if there is none and `make` says so, a new one.
pub(super) fn key(service: &str, account: &str, make: bool) -> Result<Secret> {
    let entry = Entry::new(service, account).map_err(failed)?;
    match entry.get_password() {
        Ok(key) => Ok(Secret::new(key)),
        Err(KeyringError::NoEntry) if make => {
            let key = Unlock::random_key()?;
            entry.set_password(key.expose()).map_err(failed)?;
            Ok(key)
        }
        Err(e) => Err(failed(e)),
    }
}

/// Never with the text of the keyring's own error where that quotes what was stored.
fn failed(e: KeyringError) -> Error {
    let (kind, why) = match e {
        KeyringError::NoEntry => (ErrorKind::NotFound, "it has no such entry".to_owned()),
        KeyringError::NoDefaultStore => {
            (ErrorKind::Unavailable, "this system has none that answers".to_owned())
        }
        KeyringError::NoStorageAccess(cause) => {
            (ErrorKind::Denied, format!("it is locked or refuses: {cause}"))
        }
        KeyringError::PlatformFailure(cause) => (ErrorKind::Unavailable, cause.to_string()),
        KeyringError::TooLong(..) | KeyringError::Invalid(..) => {
            (ErrorKind::Invalid, "it does not take this name of service or account".to_owned())
        }
        _ => (ErrorKind::Unavailable, "what it holds there cannot be read".to_owned()),
    };
    Error::new(kind, "vault.keyring", format_args!("the system's keyring: {why}"))
}
