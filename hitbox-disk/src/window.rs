//! The chunks of a body that were read last, for others who read it at the same time: who begin together make one pass over
//! the disk. Who falls out of the window reads by itself.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hitbox_backend::envelope::wire::CHUNK_BYTES;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// Chunks that a body keeps: 2 MiB.
const MAX_CHUNKS: u64 = 32;
/// Chunks that are kept for one who reads a body alone: what it has been given, and what was read ahead. More would only leave the processor's
/// caches.
const CHUNKS_OF_ONE: u64 = 8;
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

    /// The chunks of these that nobody brings, if they are none and would be kept: whoever is told has to bring them.
    pub(crate) fn look_ahead(&self, wanted: Range<u64>) -> Option<Range<u64>> {
        let most = (wanted.end - wanted.start) * CHUNK_BYTES as u64;
        if wanted.is_empty() || self.kept.load(Ordering::Relaxed) + most > MAX_KEPT {
            return None;
        }
        let mut state = self.state();
        let overlaps =
            state.runs.range(..wanted.end).next_back().is_some_and(|(_, run)| run.end > wanted.start);
        if overlaps {
            return None;
        }
        state.runs.insert(wanted.start, Run { end: wanted.end, bytes: None });
        Some(wanted)
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
    fn bring(&self, chunks: &Range<u64>, bytes: Option<&Bytes>, most: u64) {
        let mut state = self.state();
        match bytes.filter(|bytes| self.keep(bytes)) {
            Some(bytes) => {
                state.runs.insert(chunks.start, Run { end: chunks.end, bytes: Some(bytes.clone()) });
                state.there.push_back(chunks.start);
                state.chunks += chunks.end - chunks.start;
            }
            None => drop(state.runs.remove(&chunks.start)),
        }
        while state.chunks > most {
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

    /// They have come. Nobody else may want what came before.
    pub(crate) fn brought(mut self, bytes: &Bytes, is_alone: bool) {
        self.has_brought = true;
        let most = if is_alone { CHUNKS_OF_ONE } else { MAX_CHUNKS };
        self.window.bring(&self.chunks, Some(bytes), most);
    }
}

impl Drop for Bringing {
    fn drop(&mut self) {
        if !self.has_brought {
            self.window.bring(&self.chunks, None, MAX_CHUNKS);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use super::{Bringing, CHUNK_BYTES, Kept, Look, MAX_CHUNKS, MAX_KEPT, Window};
    use bytes::Bytes;

    fn window(kept: &Kept) -> Arc<Window> {
        Arc::new(Window::new(kept))
    }

    fn bring(window: &Arc<Window>, first: u64, chunks: u64) {
        let Look::Missing(missing) = window.look(first..first + chunks) else {
            panic!("{first} is not missing");
        };
        assert_eq!(missing, first..first + chunks);
        let bytes = Bytes::from(vec![first as u8; chunks as usize * CHUNK_BYTES]);
        Bringing::new(window.clone(), missing).brought(&bytes, false);
    }

    #[test]
    fn chunks_are_brought_once_and_the_oldest_go() {
        let kept = Kept::default();
        let window = window(&kept);
        assert_eq!(window.look_ahead(10..10), None, "nothing is wanted");
        assert_eq!(window.look_ahead(200..204), Some(200..204));
        assert_eq!(window.look_ahead(203..206), None, "some are being read");
        Bringing::new(window.clone(), 200..204).brought(&Bytes::from(vec![1; 4 * CHUNK_BYTES]), true);
        bring(&window, 300, 4);
        let Some(ahead) = window.look_ahead(304..308) else { panic!("nobody reads them") };
        Bringing::new(window.clone(), ahead).brought(&Bytes::from(vec![1; 4 * CHUNK_BYTES]), true);
        assert!(matches!(window.look(200..201), Look::Missing(_)), "one reader keeps no more");
        drop(Bringing::new(window.clone(), 200..201));
        let Look::Missing(first) = window.look(0..4) else { panic!("nothing was read") };
        assert!(matches!(window.look(2..6), Look::Coming));
        let Look::Missing(rest) = window.look(4..8) else { panic!("nothing was read") };
        assert_eq!((first.clone(), rest.clone()), (0..4, 4..8));
        // Who does not bring them lets others try.
        drop(Bringing::new(window.clone(), rest));
        bring(&window, 5, 1);
        let Look::Missing(until_there) = window.look(4..8) else { panic!("nothing was read") };
        assert_eq!(until_there, 4..5);
        Bringing::new(window.clone(), first).brought(&Bytes::from(vec![7; 4 * CHUNK_BYTES - 5]), false);
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
