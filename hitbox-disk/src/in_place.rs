//! Reads on the caller's thread that cannot block: of files that are open or whose name the kernel has cached
//! (`openat2` with `RESOLVE_CACHED`, Linux 5.12), as far as the page cache has them (`preadv2` with `RWF_NOWAIT`,
//! Linux 4.14). Handing a read to another thread costs ten times as much as such a read. Elsewhere, and
//! whenever the kernel says that it would block, there is no answer.

use std::fs::File;
use std::io::IoSliceMut;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use rustix::process::{Resource, geteuid, getrlimit};

use crate::digest::{Digest, DigestHash};
use crate::files::name;

/// Longer files are read on threads that may block: copying them takes as long as the hand-over.
pub(crate) const MAX_BYTES: u64 = 256 * 1024;

/// Open files by name, each with the number of the write that made it.
#[derive(Debug)]
pub(crate) struct Handles(Cache<Digest, (u64, Arc<File>), UnitWeighter, DigestHash>);

impl Handles {
    /// Keeps a sixteenth of the files that the process may have open, at most 1,024.
    pub(crate) fn new() -> Self {
        let may_have = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let kept = (may_have / 16).clamp(16, 1_024);
        Self(Cache::with(
            kept as usize,
            kept,
            UnitWeighter,
            DigestHash::default(),
            DefaultLifecycle::default(),
        ))
    }

    /// The file has been replaced or removed: its room is not given back while it is open.
    pub(crate) fn close(&self, digest: Digest) {
        self.0.remove(&digest);
    }

    /// The folder has been removed: what is open is of no use after a restart, and takes room.
    pub(crate) fn close_all(&self) {
        self.0.clear();
    }

    /// The whole file, which has `bytes` bytes, if that is known to need no waiting.
    pub(crate) fn read(&self, folder: &File, digest: Digest, sequence: u64, bytes: u64) -> Option<Vec<u8>> {
        if bytes > MAX_BYTES {
            return None;
        }
        if let Some((_, file)) = self.0.get(&digest).filter(|(made_by, _)| *made_by == sequence) {
            return read_cached(&file, bytes as usize);
        }
        let file = open_cached(folder, &name(digest))?;
        let whole = read_cached(&file, bytes as usize)?;
        self.0.insert(digest, (sequence, Arc::new(file)));
        Some(whole)
    }
}

#[cfg(target_os = "linux")]
fn open_cached(folder: &File, name: &Path) -> Option<File> {
    use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
    // Something else than a file may have taken its place: it is not waited for, and is not read.
    let careful = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
    // Every read would look whether it has to note its time.
    let flags = OFlags::RDONLY | OFlags::NOATIME | careful;
    let resolve = ResolveFlags::CACHED | ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = File::from(openat2(folder, name, flags, Mode::empty(), resolve).ok()?);
    let metadata = file.metadata().ok()?;
    (metadata.is_file() && metadata.uid() == geteuid().as_raw()).then_some(file)
}

#[cfg(target_os = "linux")]
fn read_cached(file: &File, bytes: usize) -> Option<Vec<u8>> {
    use rustix::io::{ReadWriteFlags, preadv2};
    // One byte more: a file that is longer is not the one that is meant.
    let mut whole = vec![0; bytes + 1];
    let read = preadv2(file, &mut [IoSliceMut::new(&mut whole)], 0, ReadWriteFlags::NOWAIT).ok()?;
    whole.truncate(read);
    (read == bytes).then_some(whole)
}

#[cfg(not(target_os = "linux"))]
fn open_cached(_: &File, _: &Path) -> Option<File> {
    None
}

#[cfg(not(target_os = "linux"))]
fn read_cached(_: &File, _: usize) -> Option<Vec<u8>> {
    let _ = IoSliceMut::new(&mut []);
    None
}
