//! Keeping the whole process in memory (`--memory-mlock`): what the system has swapped out, it has to read
//! again before it can answer, and be it a heartbeat.
//!
//! Only the binary does this: a program that embeds kvorum has other memory too.

use nix::libc::MCL_ONFAULT;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

/// `CAP_IPC_LOCK` in the set that `/proc/self/status` shows.
const CAP_IPC_LOCK: u64 = 1 << 14;

/// The memory cannot be locked.
///
/// ```no_run
/// use kvorum::memory::{LockError, lock};
///
/// match lock() {
///     Ok(()) => println!("nothing of this process is ever swapped out"),
///     Err(LockError::Limit { limit_bytes }) => println!("{limit_bytes} bytes are not enough"),
///     Err(refused) => println!("{}", kvorum::error::chain(&refused)),
/// }
/// ```
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The process may lock only so much, and would run out of it sooner or later.
    #[error(
        "--memory-mlock: the process may lock {limit_bytes} bytes of memory only: raise the limit \
         (ulimit -l unlimited, LimitMEMLOCK=infinity), or give it CAP_IPC_LOCK"
    )]
    Limit {
        /// `RLIMIT_MEMLOCK`.
        limit_bytes: u64,
    },
    /// The system refused.
    #[error("--memory-mlock: cannot lock the memory")]
    System(#[from] nix::Error),
}

/// Locks all pages that the process uses or will use, from when it uses them.
///
/// # Errors
///
/// When the process may not, or not enough.
pub fn lock() -> Result<(), LockError> {
    let (_soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    if hard == RLIM_INFINITY {
        setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard)?;
    } else if !may_lock_all() {
        return Err(LockError::Limit { limit_bytes: hard });
    }
    // What is only reserved, as allocators and threads do, is not made to exist.
    let on_fault = MlockAllFlags::from_bits_retain(MCL_ONFAULT);
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault)?;
    Ok(())
}

/// Whether no limit holds for the process.
fn may_lock_all() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .is_some_and(|set| set & CAP_IPC_LOCK != 0)
}
