//! The file on disk: who may read it, how it is replaced, who may write it now.

use super::format::MAX_FILE;
use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    time::SystemTime,
};
use zo_traits::{Error, ErrorKind, Result};

fn failed(op: &'static str, what: &str, path: &Path, e: io::Error) -> Error {
    let kind = match e.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        io::ErrorKind::Unsupported => ErrorKind::Unsupported,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, op, format_args!("{what} {}: {e}", path.display())).with_source(e)
}

/// A file as it was read. Its handle is kept: as long as it is open, no other file gets its inode number, so a file with the
/// same number, size and times is the same.
pub(super) struct Seen {
    stamp: Stamp,
    _file: File,
}

#[derive(PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    len: u64,
    modified: Option<SystemTime>,
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        #[cfg(unix)]
        let (inode, changed) = {
            use std::os::unix::fs::MetadataExt as _;
            ((meta.dev(), meta.ino()), (meta.ctime(), meta.ctime_nsec()))
        };
        #[cfg(not(unix))]
        let (inode, changed) = ((0, 0), (0, 0));
        Self { inode, len: meta.len(), modified: meta.modified().ok(), changed }
    }
}

impl Seen {
    fn new(file: File) -> io::Result<Self> {
        Ok(Self { stamp: Stamp::of(&file.metadata()?), _file: file })
    }

    /// Is what stands at `path` now still this file, unchanged?
    pub(super) fn is_current(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|meta| Stamp::of(&meta) == self.stamp)
    }
}

/// Options that never follow a link at the end of a path, and never wait for the other end of a pipe.
fn options() -> OpenOptions {
    #[cfg_attr(not(unix), allow(unused_mut))]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt as _;
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        options.mode(0o600).custom_flags(i32::try_from(flags.bits()).unwrap_or_default());
    }
    options
}

/// Refuses what is not a plain file of the owner's alone.
fn check(op: &'static str, path: &Path, meta: &Metadata) -> Result<()> {
    let denied =
        |why: &str| Err(Error::new(ErrorKind::Denied, op, format_args!("{}: {why}", path.display())));
    if meta.is_symlink() {
        return denied("a symbolic link; name the file itself");
    }
    if !meta.is_file() {
        return denied("not a file");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = meta.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return denied(&format!("others may read or change it (mode {mode:o}); chmod 600 it"));
        }
    }
    Ok(())
}

/// Reads a vault file.
pub(super) fn read(path: &Path) -> Result<(Vec<u8>, Seen)> {
    const OP: &str = "vault.open";
    let error = |e| failed(OP, "cannot read", path, e);
    // Looked at before it is opened for the sake of the message, and afterwards for the sake of safety.
    check(OP, path, &fs::symlink_metadata(path).map_err(error)?)?;
    let mut file = options().read(true).open(path).map_err(error)?;
    // Before the bytes: a change while they are read is seen the next time.
    let seen = Seen::new(file.try_clone().map_err(error)?).map_err(error)?;
    let meta = file.metadata().map_err(error)?;
    check(OP, path, &meta)?;
    let too_large =
        || Error::new(ErrorKind::Corrupt, OP, format_args!("{} is larger than 64 MiB", path.display()));
    if meta.len() > MAX_FILE as u64 {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or_default());
    (&mut file).take(MAX_FILE as u64 + 1).read_to_end(&mut bytes).map_err(error)?;
    if bytes.len() > MAX_FILE { Err(too_large()) } else { Ok((bytes, seen)) }
}

/// The right to write, of one process and one call at a time. It ends when this is dropped, or with the process.
pub(super) struct Lock(#[expect(dead_code, reason = "the lock lives as long as its file is open")] File);

impl Lock {
    /// Waits for it.
    pub(super) fn take(path: &Path) -> Result<Self> {
        const OP: &str = "vault.lock";
        let path = beside(path, ".lock");
        let error = |e| failed(OP, "cannot lock", &path, e);
        loop {
            let file =
                options().read(true).write(true).create(true).truncate(false).open(&path).map_err(error)?;
            // A signal may end the wait before there is a lock.
            while let Err(e) = file.lock() {
                if e.kind() != io::ErrorKind::Interrupted {
                    return Err(error(e));
                }
            }
            // Somebody may have removed the file while this waited: then another is holding a lock on its successor.
            let same = |meta: Metadata| {
                file.metadata().is_ok_and(|own| Stamp::of(&own).inode == Stamp::of(&meta).inode)
            };
            if fs::symlink_metadata(&path).is_ok_and(same) {
                return Ok(Self(file));
            }
        }
    }
}

/// Puts `bytes` at `path`, where after a crash at any moment there is either what was before or all of them. The lock is held.
pub(super) fn replace(path: &Path, bytes: &[u8], _lock: &Lock) -> Result<Seen> {
    const OP: &str = "vault.save";
    // One name, since one writes at a time: what a crash leaves behind is cleared away by the next writer.
    let temp = beside(path, ".tmp");
    let error = |e| failed(OP, "cannot write", &temp, e);
    match fs::remove_file(&temp) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(error(e)),
        _ => {}
    }
    let mut file = options().read(true).write(true).create_new(true).open(&temp).map_err(error)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(error)
        .and_then(|()| fs::rename(&temp, path).map_err(|e| failed(OP, "cannot replace", path, e)));
    if written.is_err() {
        // It holds nothing readable; the next writer removes it if this cannot.
        let _ = fs::remove_file(&temp);
    }
    written?;
    #[cfg(unix)]
    {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| failed(OP, "cannot sync", dir, e))?;
    }
    Seen::new(file).map_err(error)
}

/// The path with `end` behind its file name.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}
