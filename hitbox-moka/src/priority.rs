//! Priority classes: who is put out first. Within a class the oldest goes first.
//!
//! moka knows no classes, so room is made before it would choose by itself: entries of the classes up to that of the
//! new one are put out, lowest class first. What finds no room among its own or lower classes is not stored.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hitbox_backend::core::{CacheKey, Priority};

/// The entries of each class, in the order in which they were written.
#[derive(Debug, Default)]
pub(crate) struct Classes(Mutex<Queues>);

#[derive(Debug, Default)]
pub(crate) struct Queues {
    queues: [VecDeque<(CacheKey, u64)>; 3],
    /// The class of each entry and the number of its last write; older lines of the queues are void.
    known: HashMap<CacheKey, (Priority, u64)>,
    next: u64,
}

impl Classes {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Queues> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queues {
    /// An entry was written.
    pub(crate) fn note(&mut self, key: &CacheKey, class: Priority) {
        self.next += 1;
        self.known.insert(key.clone(), (class, self.next));
        let queue = &mut self.queues[class as usize];
        queue.push_back((key.clone(), self.next));
        // Void lines do not pile up.
        if queue.len() > 2 * self.known.len() + 1024 {
            let known = &self.known;
            queue.retain(|(key, number)| known.get(key).is_some_and(|(_, last)| last == number));
        }
    }

    /// An entry is gone.
    pub(crate) fn forget(&mut self, key: &CacheKey) {
        self.known.remove(key);
    }

    /// The entry to put out for one of this class: the oldest of the lowest class up to it, but not `except`.
    pub(crate) fn victim(&mut self, class: Priority, except: &CacheKey) -> Option<CacheKey> {
        for queue in &mut self.queues[..=class as usize] {
            let mut kept = None;
            while let Some((key, number)) = queue.pop_front() {
                if self.known.get(&key).is_none_or(|(_, last)| *last != number) {
                    continue;
                }
                if key == *except {
                    kept = Some((key, number));
                    continue;
                }
                kept.into_iter().for_each(|kept| queue.push_front(kept));
                self.known.remove(&key);
                return Some(key);
            }
            kept.into_iter().for_each(|kept| queue.push_front(kept));
        }
        None
    }
}
