//! What goes wrong in the engine, in the words of the contract.

use redb::{CommitError, DatabaseError, StorageError, TableError, TransactionError};
use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
};
use zo_traits::{Error, ErrorKind, Result};

/// Runs `work` of the engine; a panic, which damaged pages can cause, becomes [`ErrorKind::Corrupt`].
pub(crate) fn guarded<T>(op: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result,
        Err(panic) => Err(Error::new(
            ErrorKind::Corrupt,
            op,
            format_args!("the store file is damaged: the engine gave up over it ({})", panic_text(&panic)),
        )),
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &Box<dyn Any + Send>) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "no message"
    }
}

/// The store was closed under a reader or writer.
pub(crate) fn closed(op: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, op, "the store is closed")
}

pub(crate) fn io_error(op: &'static str, e: io::Error) -> Error {
    use io::ErrorKind as Io;
    let (kind, text) = match e.kind() {
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => (
            ErrorKind::Unavailable,
            format!(
                "the disk is full ({e}); nothing acknowledged is lost: free some room and reopen the store"
            ),
        ),
        Io::InvalidData => (ErrorKind::Corrupt, format!("not a store, or a damaged one ({e})")),
        Io::UnexpectedEof => (ErrorKind::Corrupt, format!("the store file is cut short ({e})")),
        Io::NotFound => (ErrorKind::NotFound, e.to_string()),
        Io::PermissionDenied => (ErrorKind::Denied, e.to_string()),
        Io::IsADirectory => (ErrorKind::Invalid, e.to_string()),
        _ => (
            ErrorKind::Unavailable,
            format!("the disk failed ({e}); nothing acknowledged is lost: the store must be reopened"),
        ),
    };
    Error::new(kind, op, text).with_source(e)
}

pub(crate) fn storage(op: &'static str, e: StorageError) -> Error {
    match e {
        StorageError::Corrupted(what) => {
            Error::new(ErrorKind::Corrupt, op, format_args!("the store file is damaged: {what}"))
        }
        StorageError::ValueTooLarge(bytes) => Error::new(
            ErrorKind::Invalid,
            op,
            format_args!("a row of {bytes} bytes is more than the store takes (3 GiB)"),
        ),
        StorageError::Io(e) => io_error(op, e),
        StorageError::DatabaseClosed => closed(op),
        StorageError::PreviousIo => Error::new(
            ErrorKind::Unavailable,
            op,
            "the disk failed earlier; nothing acknowledged is lost: the store must be reopened",
        ),
        StorageError::LockPoisoned(_) => Error::new(
            ErrorKind::Corrupt,
            op,
            "the engine gave up over this file earlier: the store must be reopened",
        ),
        other => Error::new(ErrorKind::Unavailable, op, &other).with_source(other),
    }
}

pub(crate) fn table(op: &'static str, e: TableError) -> Error {
    match e {
        TableError::Storage(e) => storage(op, e),
        // Every table of a store is bytes to bytes: anything else was written by something else.
        other => Error::new(ErrorKind::Corrupt, op, format_args!("not a table of a store: {other}"))
            .with_source(other),
    }
}

pub(crate) fn transaction(op: &'static str, e: TransactionError) -> Error {
    match e {
        TransactionError::Storage(e) => storage(op, e),
        other => Error::new(ErrorKind::Unavailable, op, other),
    }
}

pub(crate) fn commit(op: &'static str, e: CommitError) -> Error {
    match e {
        CommitError::Storage(e) => storage(op, e),
        other => Error::new(ErrorKind::Corrupt, op, &other).with_source(other),
    }
}

pub(crate) fn database(op: &'static str, e: DatabaseError) -> Error {
    match e {
        DatabaseError::Storage(e) => storage(op, e),
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => Error::new(
            ErrorKind::Conflict,
            op,
            "the store is open already, in another process or through another Store of this one: \
             stop the other process, or clone the Store that is open",
        )
        .with_source(e),
        DatabaseError::UpgradeRequired(version) => Error::new(
            ErrorKind::Unsupported,
            op,
            format_args!("the file is of engine format {version}, which this version does not read"),
        ),
        other => Error::new(ErrorKind::Corrupt, op, &other).with_source(other),
    }
}
