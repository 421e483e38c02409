//! Keeping memory out of core dumps.

use zo_traits::Result;

/// Asks the operating system for no core dump of this process, whose memory holds keys. On Linux it also forbids debuggers and
/// other processes of the same user to read its memory (`prctl(PR_SET_DUMPABLE, 0)`; after it `/proc/self` belongs to root).
/// Child processes keep the limit on core dumps, and lose the rest when they execute another program.
///
/// It is for the whole process, so it is the host's to call, early in `main`. It is not done behind anybody's back.
///
/// # Errors
/// [`ErrorKind::Unsupported`](zo_traits::ErrorKind::Unsupported) outside Unix,
/// [`Unavailable`](zo_traits::ErrorKind::Unavailable) when the system refuses.
pub fn forbid_core_dumps() -> Result<()> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, setrlimit};
        let refused = |e: rustix::io::Errno| {
            let what = format_args!("the system keeps core dumps on: {e}").to_string();
            zo_traits::Error::new(zo_traits::ErrorKind::Unavailable, "vault.core_dumps", what)
        };
        setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).map_err(refused)?;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            use rustix::process::{DumpableBehavior, set_dumpable_behavior};
            set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(refused)?;
        }
        Ok(())
    }
    #[cfg(not(unix))]
    Err(zo_traits::Error::new(
        zo_traits::ErrorKind::Unsupported,
        "vault.core_dumps",
        "this system offers no way to forbid them from within a process",
    ))
}
