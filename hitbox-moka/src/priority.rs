//! Priority classes: who is put out first. Within a class the oldest goes first, but for those that were read since they
//! were written or last spared (second chance: the CLOCK algorithm, Corbató 1968).
//!
//! moka knows no classes, so room is made before it would choose by itself: entries of the classes up to that of the
//! new one are put out, lowest class first. What finds no room among its own or lower classes is not stored, and then
//! nothing is put out for it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hitbox_backend::core::{CacheKey, Priority};

/// Marks of keys that were read; keys that share one are spared together.
const MARKS: usize = 1 << 16;

/// The entries of each class, in the order in which they were written.
#[derive(Debug)]
pub(crate) struct Classes {
    queues: Mutex<Queues>,
    read: Box<[AtomicBool]>,
}

impl Default for Classes {
    fn default() -> Self {
        Self { queues: Mutex::default(), read: (0..MARKS).map(|_| AtomicBool::new(false)).collect() }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Queues {
    queues: [VecDeque<(CacheKey, u64)>; 3],
    /// Older lines of the queues are void.
    known: HashMap<CacheKey, Known>,
    /// What the entries of each class weigh.
    weights: [u64; 3],
    next: u64,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    class: Priority,
    weight: u64,
    /// The number of its last write.
    number: u64,
}

impl Classes {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, key: &CacheKey) -> &AtomicBool {
        &self.read[key.process_hash() as usize % MARKS]
    }

    /// An entry was read.
    pub(crate) fn touch(&self, key: &CacheKey) {
        self.mark(key).store(true, Ordering::Relaxed);
    }

    /// A search for entries to put out for one of this class.
    pub(crate) fn search(&self, class: Priority) -> Search<'_> {
        Search { classes: self, class, chances: [None; 3], spared: Vec::new() }
    }
}

/// A search for entries to put out: the oldest of the lowest class first. Marks are taken back when it ends, so that
/// keys that share one are spared together.
pub(crate) struct Search<'a> {
    classes: &'a Classes,
    class: Priority,
    /// How many entries of each class may still be spared: each once at most.
    chances: [Option<usize>; 3],
    spared: Vec<CacheKey>,
}

impl Drop for Search<'_> {
    fn drop(&mut self) {
        for key in &self.spared {
            self.classes.mark(key).store(false, Ordering::Relaxed);
        }
    }
}

impl Search<'_> {
    /// The next to put out, but not `except`.
    pub(crate) fn next(&mut self, queues: &mut Queues, except: &CacheKey) -> Option<CacheKey> {
        for class in 0..=self.class as usize {
            let mut kept = None;
            let mut found = None;
            let chances = self.chances[class].get_or_insert(queues.queues[class].len());
            while let Some((key, number)) = queues.queues[class].pop_front() {
                if queues.known.get(&key).is_none_or(|known| known.number != number) {
                    continue;
                }
                if key == *except {
                    kept = Some((key, number));
                } else if *chances > 0 && self.classes.mark(&key).load(Ordering::Relaxed) {
                    *chances -= 1;
                    self.spared.push(key.clone());
                    queues.queues[class].push_back((key, number));
                } else {
                    queues.forget(&key);
                    found = Some(key);
                    break;
                }
            }
            kept.into_iter().for_each(|kept| queues.queues[class].push_front(kept));
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

impl Queues {
    /// An entry was written.
    pub(crate) fn note(&mut self, key: &CacheKey, class: Priority, weight: u64) {
        self.forget(key);
        self.next += 1;
        self.known.insert(key.clone(), Known { class, weight, number: self.next });
        self.weights[class as usize] += weight;
        let queue = &mut self.queues[class as usize];
        queue.push_back((key.clone(), self.next));
        // Void lines do not pile up.
        if queue.len() > 2 * self.known.len() + 1024 {
            let known = &self.known;
            queue.retain(|(key, number)| known.get(key).is_some_and(|known| known.number == *number));
        }
    }

    /// An entry is gone.
    pub(crate) fn forget(&mut self, key: &CacheKey) {
        if let Some(known) = self.known.remove(key) {
            self.weights[known.class as usize] -= known.weight;
        }
    }

    /// All entries are gone.
    pub(crate) fn clear(&mut self) {
        *self = Self { next: self.next, ..Self::default() };
    }

    /// What the entry of this key weighs.
    pub(crate) fn weight_of(&self, key: &CacheKey) -> u64 {
        self.known.get(key).map_or(0, |known| known.weight)
    }

    /// How much room can be made for an entry of this class under a key, beside what its own older form takes.
    pub(crate) fn yields(&self, class: Priority, key: &CacheKey) -> u64 {
        let own = self.known.get(key).filter(|known| known.class <= class).map_or(0, |known| known.weight);
        self.weights[..=class as usize].iter().sum::<u64>() - own
    }
}
