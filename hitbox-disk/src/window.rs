//! The chunks of a body that were read last, for others who read it at the same time: who begin together make one pass over
//! the disk. Who falls out of the window reads by itself.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Chunks that a body keeps: 2 MiB.
const MAX_CHUNKS: u64 = 32;
/// Bytes that all bodies of a store keep together.
const MAX_KEPT: u64 = 32 * 1024 * 1024;

/// Bytes that the windows of a store keep.
pub(crate) type Kept = Arc<AtomicU64>;

/// The chunks of one body.
pub(crate) struct Window {
    state: Mutex<State>,
    /// Told when chunks have come, or do not.
    came: Notify,
    kept: Kept,
}

#[derive(Default)]
struct State {
    /// Chunks that were, or are being, read together, by the number of the first.
    runs: BTreeMap<u64, Run>,
    /// The first of those that are there, the oldest first.
    there: VecDeque<u64>,
    /// Chunks in those.
    chunks: u64,
}

struct Run {
    /// The chunk behind the last.
    end: u64,
    /// Nothing while somebody reads them.
    bytes: Option<Bytes>,
}

/// What a window says of some chunks.
pub(crate) enum Look {
    /// The first of them is among these bytes, which begin with the chunk of this number.
    There(u64, Bytes),
    /// The first is being read.
    Coming,
    /// So many from the first on are missing; whoever is told brings them.
    Missing(Range<u64>),
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window").finish_non_exhaustive()
    }
}

impl Window {
    pub(crate) fn new(kept: &Kept) -> Self {
        Self { state: Mutex::default(), came: Notify::new(), kept: kept.clone() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Completes when some chunks have come, or do not.
    pub(crate) fn came(&self) -> Notified<'_> {
        self.came.notified()
    }

    pub(crate) fn look(&self, wanted: Range<u64>) -> Look {
        let mut state = self.state();
        let before = state.runs.range(..=wanted.start).next_back();
        match before.filter(|(_, run)| run.end > wanted.start) {
            Some((first, Run { bytes: Some(bytes), .. })) => return Look::There(*first, bytes.clone()),
            Some(_) => return Look::Coming,
            None => {}
        }
        let next = state.runs.range(wanted.clone()).next().map_or(wanted.end, |(first, _)| *first);
        state.runs.insert(wanted.start, Run { end: next, bytes: None });
        Look::Missing(wanted.start..next)
    }

    /// The chunks have been read, or nothing came of it.
    fn bring(&self, chunks: &Range<u64>, bytes: Option<&Bytes>) {
        let mut state = self.state();
        match bytes.filter(|bytes| self.keep(bytes)) {
            Some(bytes) => {
                state.runs.insert(chunks.start, Run { end: chunks.end, bytes: Some(bytes.clone()) });
                state.there.push_back(chunks.start);
                state.chunks += chunks.end - chunks.start;
            }
            None => drop(state.runs.remove(&chunks.start)),
        }
        while state.chunks > MAX_CHUNKS {
            let Some(oldest) = state.there.pop_front() else { break };
            if let Some(Run { end, bytes: Some(bytes) }) = state.runs.remove(&oldest) {
                state.chunks -= end - oldest;
                self.kept.fetch_sub(bytes.len() as u64, Ordering::Relaxed);
            }
        }
        drop(state);
        self.came.notify_waiters();
    }

    /// Whether there is room to keep so many bytes.
    fn keep(&self, bytes: &Bytes) -> bool {
        let more = |kept: u64| kept.checked_add(bytes.len() as u64).filter(|kept| *kept <= MAX_KEPT);
        self.kept.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        for bytes in state.runs.values().filter_map(|run| run.bytes.as_ref()) {
            self.kept.fetch_sub(bytes.len() as u64, Ordering::Relaxed);
        }
    }
}

/// Who has been told that chunks are missing. Dropped without them, it lets others try.
pub(crate) struct Bringing {
    window: Arc<Window>,
    chunks: Range<u64>,
    has_brought: bool,
}

impl Bringing {
    pub(crate) fn new(window: Arc<Window>, chunks: Range<u64>) -> Self {
        Self { window, chunks, has_brought: false }
    }

    pub(crate) fn brought(mut self, bytes: &Bytes) {
        self.has_brought = true;
        self.window.bring(&self.chunks, Some(bytes));
    }
}

impl Drop for Bringing {
    fn drop(&mut self) {
        if !self.has_brought {
            self.window.bring(&self.chunks, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use bytes::Bytes;
    use hitbox_backend::envelope::wire::CHUNK_BYTES;

    use super::{Bringing, Kept, Look, MAX_CHUNKS, MAX_KEPT, Window};

    fn window(kept: &Kept) -> Arc<Window> {
        Arc::new(Window::new(kept))
    }

    fn bring(window: &Arc<Window>, first: u64, chunks: u64) {
        let Look::Missing(missing) = window.look(first..first + chunks) else {
            panic!("{first} is not missing");
        };
        assert_eq!(missing, first..first + chunks);
        let bytes = Bytes::from(vec![first as u8; chunks as usize * CHUNK_BYTES]);
        Bringing::new(window.clone(), missing).brought(&bytes);
    }

    #[test]
    fn chunks_are_brought_once_and_the_oldest_go() {
        let kept = Kept::default();
        let window = window(&kept);
        let Look::Missing(first) = window.look(0..4) else { panic!("nothing was read") };
        assert!(matches!(window.look(2..6), Look::Coming));
        let Look::Missing(rest) = window.look(4..8) else { panic!("nothing was read") };
        assert_eq!((first.clone(), rest.clone()), (0..4, 4..8));
        // Who does not bring them lets others try.
        drop(Bringing::new(window.clone(), rest));
        bring(&window, 5, 1);
        let Look::Missing(until_there) = window.look(4..8) else { panic!("nothing was read") };
        assert_eq!(until_there, 4..5);
        Bringing::new(window.clone(), first).brought(&Bytes::from(vec![7; 4 * CHUNK_BYTES - 5]));
        for index in 0..4 {
            let is_there = |look| matches!(look, Look::There(0, all) if all.len() == 4 * CHUNK_BYTES - 5);
            assert!(is_there(window.look(index..9)), "{index}");
        }
        bring(&window, 100, MAX_CHUNKS);
        assert!(matches!(window.look(3..4), Look::Missing(_)), "it is too old");
        assert_eq!(kept.load(Ordering::Relaxed), MAX_CHUNKS * CHUNK_BYTES as u64);
        drop(window);
        assert_eq!(kept.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn all_windows_have_one_bound() {
        let kept = Kept::default();
        let windows: Vec<_> = (0..20).map(|_| window(&kept)).collect();
        for window in &windows {
            bring(window, 0, MAX_CHUNKS);
            assert!(kept.load(Ordering::Relaxed) <= MAX_KEPT);
        }
        assert_eq!(kept.load(Ordering::Relaxed), MAX_KEPT);
        let last = windows.last().expect("a window");
        assert!(matches!(last.look(0..1), Look::Missing(_)), "it was not kept");
        drop(windows);
        assert_eq!(kept.load(Ordering::Relaxed), 0);
    }
}
