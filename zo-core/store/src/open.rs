//! Opening and creating files.

use crate::{Options, StorageBackend, fail, schema};
use redb::{Database, backends::FileBackend};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};
use zo_traits::{Error, ErrorKind, Result};

const OP: &str = "store.open";

/// Where the engine keeps the format version of its two commit slots, and the newest that it reads.
const ENGINE_VERSIONS: [usize; 2] = [64, 192];
const ENGINE_FORMAT: u8 = 3;

pub(crate) fn backend(backend: impl StorageBackend, options: &Options) -> Result<Database> {
    let len = backend.len().map_err(|e| fail::io_error(OP, e))?;
    fail::guarded(OP, || {
        let db = Database::builder()
            .set_cache_size(options.cache_bytes)
            .set_check_integrity_on_open(len <= options.verify_limit)
            .create_with_backend(backend)
            .map_err(|e| fail::database(OP, e))?;
        schema::adopt(&db)?;
        Ok(db)
    })
}

pub(crate) fn file(path: &Path, options: &Options) -> Result<Database> {
    match existing(path, options) {
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        done => return done.map_err(|e| at(path, e)),
    }
    match create(path, options) {
        // Somebody else made one meanwhile: then that is the one.
        Err(e) if e.kind() != ErrorKind::Conflict => Err(e),
        _ => existing(path, options),
    }
    .map_err(|e| at(path, e))
}

/// The same error with the path in it.
fn at(path: &Path, e: Error) -> Error {
    Error::new(e.kind(), e.op(), format_args!("{}: {}", path.display(), e.message())).with_source(e)
}

fn existing(path: &Path, options: &Options) -> Result<Database> {
    let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(|e| fail::io_error(OP, e))?;
    if file.metadata().is_ok_and(|m| m.is_dir()) {
        return Err(Error::new(ErrorKind::Invalid, OP, "it is a folder"));
    }
    check_engine(&mut file)?;
    backend(FileBackend::new(file).map_err(|e| fail::database(OP, e))?, options)
}

/// Tells a file of a newer engine from a damaged one.
fn check_engine(file: &mut File) -> Result<()> {
    let mut head = [0; 256];
    // Too short, or locked in a way that forbids reading: opening it says what is wrong.
    if file.read_exact(&mut head).is_err() || !head.starts_with(b"redb") {
        return Ok(());
    }
    let versions = ENGINE_VERSIONS.map(|at| head.get(at).copied().unwrap_or_default());
    match versions {
        [a, b] if a == b && a > ENGINE_FORMAT => Err(Error::new(
            ErrorKind::Unsupported,
            OP,
            format_args!(
                "the file is of engine format {a}, written by a newer program; this one knows {ENGINE_FORMAT}"
            ),
        )),
        _ => Ok(()),
    }
}

/// Builds an empty store under another name first, so that a crash never leaves half a store under this one.
fn create(path: &Path, options: &Options) -> Result<()> {
    let temp = Temp::beside(path)?;
    let db = backend(FileBackend::new(create_file(&temp.0)?).map_err(|e| fail::database(OP, e))?, options)?;
    db.close().map_err(|e| fail::database(OP, e))?;
    temp.publish(path, OP)
}

/// A new file that only its owner can read.
pub(crate) fn create_file(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|e| fail::io_error(OP, e))
}

/// A temporary name beside a path; the file is removed on drop.
pub(crate) struct Temp(pub(crate) PathBuf);

impl Temp {
    pub(crate) fn beside(path: &Path) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = path
            .file_name()
            .ok_or_else(|| Error::new(ErrorKind::Invalid, OP, "the path has no file name"))?;
        let mut temp = std::ffi::OsString::from(".");
        temp.push(name);
        temp.push(format!(".{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let temp = path.with_file_name(temp);
        // A process that had this id before may have died here.
        let _ = fs::remove_file(&temp);
        Ok(Self(temp))
    }

    /// Gives the file its name, durably, unless that is taken.
    pub(crate) fn publish(self, path: &Path, op: &'static str) -> Result<()> {
        let taken = || Error::new(ErrorKind::Conflict, op, "the file exists already");
        // A rename would replace what is there; a link does not.
        match fs::hard_link(&self.0, path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(taken()),
            // A file system without links.
            Err(_) if path.symlink_metadata().is_ok() => return Err(taken()),
            Err(_) => fs::rename(&self.0, path).map_err(|e| fail::io_error(op, e))?,
        }
        drop(self);
        sync_folder(path).map_err(|e| fail::io_error(op, e))
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Makes a new name durable.
fn sync_folder(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        File::open(folder)?.sync_all()?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}
