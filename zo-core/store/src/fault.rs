//! A disk for tests: in memory, with faults on demand.
//!
//! A [`FaultDisk`] counts what is asked of it, can fail a chosen write or sync, can be full, can be slow to sync, and can
//! lose its power: then everything fails, and [`survivors`](FaultDisk::survivors) says what such a disk may hold when it
//! comes back. What was synced is there; of what was not, any 512-byte sector may be there or not, in any order.
//!
//! ```
//! use zo_store::{Options, Store, Table, fault::FaultDisk};
//! const T: Table = Table::new("t");
//!
//! let disk = FaultDisk::new();
//! let store = Store::open_with_backend(disk.clone(), Options::default())?;
//! store.write_blocking(|tx| tx.put(T, b"acknowledged", b""))?;
//! disk.cut_power_after(0);
//! assert!(store.write_blocking(|tx| tx.put(T, b"late", b"")).is_err());
//!
//! let disk = FaultDisk::with_image(disk.survivors(7));
//! let store = Store::open_with_backend(disk, Options::default())?;
//! assert!(store.read(|s| s.contains(T, b"acknowledged"))?);
//! # zo_traits::Result::<()>::Ok(())
//! ```

use crate::StorageBackend;
use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// What a disk writes at once or not at all.
const SECTOR: usize = 512;

/// A disk in memory with faults on demand. Clones are one disk.
#[derive(Debug, Clone, Default)]
pub struct FaultDisk(Arc<Mutex<State>>);

/// How often a [`FaultDisk`] was asked for what, failures included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Changes of the length.
    pub resizes: u64,
    /// Syncs.
    pub syncs: u64,
    /// Bytes written.
    pub bytes_written: u64,
}

#[derive(Debug, Default)]
struct State {
    /// What the process sees.
    seen: Vec<u8>,
    /// What is certain to survive.
    durable: Vec<u8>,
    /// What happened since the last sync.
    pending: Vec<Change>,
    counts: Counts,
    /// Writes until one fails.
    fail_write: Option<u64>,
    /// Syncs until one fails.
    fail_sync: Option<u64>,
    capacity: Option<u64>,
    /// Changes until the power goes.
    power: Option<u64>,
    dead: bool,
    sync_time: Duration,
}

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Resize(usize),
}

impl FaultDisk {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// A disk that holds `image`, durably.
    pub fn with_image(image: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(State { seen: image.clone(), durable: image, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often it was asked for what so far.
    pub fn counts(&self) -> Counts {
        self.state().counts
    }

    /// Lets the `nth` write from now fail with an I/O error, once; 1 is the next.
    pub fn fail_write(&self, nth: u64) {
        self.state().fail_write = Some(nth);
    }

    /// Lets the `nth` sync from now fail with an I/O error, once; 1 is the next. What it should have synced stays unsynced.
    pub fn fail_sync(&self, nth: u64) {
        self.state().fail_sync = Some(nth);
    }

    /// Lets writes and growth beyond `bytes` fail as on a full disk; `None` makes room again.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Lets each sync take this long.
    pub fn set_sync_time(&self, time: Duration) {
        self.state().sync_time = time;
    }

    /// Cuts the power after `changes` more changes (writes, resizes and syncs). The one after them is hit by it: it fails,
    /// and may have happened in part.
    pub fn cut_power_after(&self, changes: u64) {
        self.state().power = Some(changes);
    }

    /// Is the power gone?
    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// What the process sees now.
    pub fn image(&self) -> Vec<u8> {
        self.state().seen.clone()
    }

    /// What may be found after a power loss at this moment, chosen by `seed` from all that is possible: everything synced,
    /// and of what was not any sectors in any order. Seeds that differ by four share the manner: nothing more survived,
    /// all did, the first changes did and one is torn, any sectors did.
    pub fn survivors(&self, seed: u64) -> Vec<u8> {
        let state = self.state();
        let mut image = state.durable.clone();
        let mut rng = Rng(seed);
        let mut order: Vec<usize> = (0..state.pending.len()).collect();
        // Of 256 sectors, how many survive.
        let mut keep = 256;
        match seed % 4 {
            0 => order.clear(),
            1 => {}
            2 => order.truncate(rng.below(order.len() + 1)),
            _ => {
                keep = 16 + rng.below(240);
                for i in (1..order.len()).rev() {
                    order.swap(i, rng.below(i + 1));
                }
            }
        }
        let torn = if seed % 4 == 2 { order.last().copied() } else { None };
        for at in order {
            let keep = if torn == Some(at) { 128 } else { keep };
            match state.pending.get(at) {
                Some(Change::Resize(len)) if keep > rng.below(256) => image.resize(*len, 0),
                Some(Change::Write(offset, data)) => {
                    for (from, sector) in sectors(*offset, data) {
                        if keep > rng.below(256) {
                            put(&mut image, from, sector);
                        }
                    }
                }
                _ => {}
            }
        }
        image
    }
}

/// The pieces of a write that a disk can tell apart.
fn sectors(offset: usize, data: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let first = data.len().min(SECTOR - offset % SECTOR);
    let (head, tail) = data.split_at(first);
    std::iter::once((offset, head))
        .chain(tail.chunks(SECTOR).enumerate().map(move |(i, piece)| (offset + first + i * SECTOR, piece)))
}

/// Writes into an image; what lies behind its end is lost, as the length was.
fn put(image: &mut [u8], offset: usize, data: &[u8]) {
    if let Some(room) = image.get_mut(offset..) {
        let n = room.len().min(data.len());
        if let (Some(to), Some(from)) = (room.get_mut(..n), data.get(..n)) {
            to.copy_from_slice(from);
        }
    }
}

fn failed(what: &str) -> io::Error {
    io::Error::other(format!("{what} (injected)"))
}

impl State {
    /// Before each change; tells whether the power goes with it.
    fn powered(&mut self) -> io::Result<bool> {
        if self.dead {
            return Err(failed("no power"));
        }
        match &mut self.power {
            None => {}
            Some(0) => self.dead = true,
            Some(left) => *left -= 1,
        }
        Ok(!self.dead)
    }

    fn has_room(&self, end: u64) -> io::Result<()> {
        match self.capacity {
            Some(capacity) if end > capacity => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }
}

/// Counts one off; is it this one's turn?
fn due(countdown: &mut Option<u64>) -> bool {
    match countdown {
        Some(0 | 1) => {
            *countdown = None;
            true
        }
        Some(left) => {
            *left -= 1;
            false
        }
        None => false,
    }
}

fn position(n: u64) -> io::Result<usize> {
    usize::try_from(n).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl StorageBackend for FaultDisk {
    fn len(&self) -> io::Result<u64> {
        let state = self.state();
        if state.dead {
            return Err(failed("no power"));
        }
        Ok(state.seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.state();
        state.counts.reads += 1;
        if state.dead {
            return Err(failed("no power"));
        }
        let from = position(offset)?;
        let end = from.checked_add(out.len()).ok_or(io::ErrorKind::InvalidInput)?;
        out.copy_from_slice(state.seen.get(from..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.counts.resizes += 1;
        let powered = state.powered()?;
        state.has_room(len)?;
        let len = position(len)?;
        state.pending.push(Change::Resize(len));
        state.seen.resize(len, 0);
        if powered { Ok(()) } else { Err(failed("power lost while resizing")) }
    }

    fn sync_data(&self) -> io::Result<()> {
        let time = {
            let mut state = self.state();
            state.counts.syncs += 1;
            if !state.powered()? {
                return Err(failed("power lost while syncing"));
            }
            if due(&mut state.fail_sync) {
                return Err(failed("sync failed"));
            }
            let state = &mut *state;
            for change in state.pending.drain(..) {
                match change {
                    Change::Resize(len) => state.durable.resize(len, 0),
                    Change::Write(offset, data) => put(&mut state.durable, offset, &data),
                }
            }
            state.sync_time
        };
        if !time.is_zero() {
            std::thread::sleep(time);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.counts.writes += 1;
        state.counts.bytes_written += data.len() as u64;
        let powered = state.powered()?;
        if due(&mut state.fail_write) {
            return Err(failed("write failed"));
        }
        let end = offset.checked_add(data.len() as u64).ok_or(io::ErrorKind::InvalidInput)?;
        state.has_room(end)?;
        let (offset, end) = (position(offset)?, position(end)?);
        if end > state.seen.len() {
            state.pending.push(Change::Resize(end));
            state.seen.resize(end, 0);
        }
        put(&mut state.seen, offset, data);
        state.pending.push(Change::Write(offset, data.to_vec()));
        if powered { Ok(()) } else { Err(failed("power lost while writing")) }
    }
}

/// SplitMix64: a test must be able to repeat what it saw.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `n`, and 0 for 0.
    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % (n.max(1) as u64)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_survives_and_what_was_not_may_tear_at_sectors() {
        let disk = FaultDisk::new();
        disk.set_len(4096).unwrap();
        disk.write(0, &[1; 4096]).unwrap();
        disk.sync_data().unwrap();
        disk.write(0, &[2; 4096]).unwrap();
        let (mut torn, mut old, mut new) = (0, 0, 0);
        for seed in 0..200 {
            let image = disk.survivors(seed);
            assert_eq!(image.len(), 4096);
            for sector in image.chunks(SECTOR) {
                assert!(sector.iter().all(|b| *b == sector[0]), "a sector is never torn");
            }
            match (image.contains(&1), image.contains(&2)) {
                (true, true) => torn += 1,
                (true, false) => old += 1,
                _ => new += 1,
            }
        }
        assert!(torn > 50 && old > 40 && new > 40, "{torn} {old} {new}");
    }

    #[test]
    fn power_goes_at_the_chosen_change_and_stays_away() {
        let disk = FaultDisk::new();
        disk.cut_power_after(2);
        disk.set_len(1024).unwrap();
        disk.write(0, &[1; 512]).unwrap();
        assert!(disk.sync_data().is_err() && disk.is_dead());
        assert!(disk.write(0, &[1]).is_err() && disk.read(0, &mut [0]).is_err() && disk.len().is_err());
    }

    #[test]
    fn the_nth_write_and_sync_fail_once_and_a_full_disk_says_so() {
        let disk = FaultDisk::new();
        disk.fail_write(2);
        disk.fail_sync(1);
        disk.write(0, &[1]).unwrap();
        assert!(disk.write(1, &[1]).is_err());
        disk.write(1, &[1]).unwrap();
        assert!(disk.sync_data().is_err());
        disk.sync_data().unwrap();
        disk.set_capacity(Some(2));
        assert_eq!(disk.write(1, &[1, 1]).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(disk.set_len(3).unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.set_capacity(None);
        disk.write(1, &[1, 1]).unwrap();
        let counts = disk.counts();
        assert_eq!((counts.writes, counts.syncs, counts.resizes), (5, 2, 1));
    }
}
