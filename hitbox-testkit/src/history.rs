//! What concurrent tasks wrote and read, and whether a read saw what was over before it began.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A logical moment: later ones have greater numbers.
pub type Moment = u64;

#[derive(Clone, Copy, Debug)]
struct Write {
    /// `None` is a delete or a clear.
    version: Option<u64>,
    begin: Moment,
    /// It had returned then, and all that was made before it began was over.
    end: Moment,
    /// What begins later than this ends it.
    made: Moment,
}

impl Write {
    /// Whether a read that begins at `read` must not see this, since `newer` had returned by then.
    fn is_over(&self, newer: &Self, read: Moment) -> bool {
        self.made < newer.begin && newer.end < read
    }
}

#[derive(Clone, Copy, Debug)]
struct Read {
    version: u64,
    begin: Moment,
}

/// The history of one key. Every write has a version of its own.
///
/// It uses the standard library's primitives on purpose: under schedule exploration nothing is scheduled
/// between an operation and its note.
#[derive(Debug)]
pub struct History {
    now: AtomicU64,
    writes: Mutex<Vec<Write>>,
    reads: Mutex<Vec<Read>>,
}

impl Default for History {
    fn default() -> Self {
        Self { now: AtomicU64::new(1), writes: Mutex::default(), reads: Mutex::default() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl History {
    /// An operation begins now.
    pub fn begin(&self) -> Moment {
        self.now.fetch_add(1, Ordering::SeqCst)
    }

    /// A write (or, without a version, a delete or clear) that began then has returned.
    pub fn wrote(&self, version: Option<u64>, begin: Moment) {
        let end = self.begin();
        lock(&self.writes).push(Write { version, begin, end, made: end });
    }

    /// A load that began then brings this version. No read may see it that began after a write, delete or clear had
    /// returned which began after the load.
    pub fn loads(&self, version: u64, begin: Moment) {
        // It brings what its source had when it began: later is no newer.
        lock(&self.writes).push(Write { version: Some(version), begin, end: Moment::MAX, made: begin });
    }

    /// A write of this version that began then has failed: it may be seen or not, and ends nothing.
    pub fn failed(&self, version: u64, begin: Moment) {
        let made = self.begin();
        lock(&self.writes).push(Write { version: Some(version), begin, end: Moment::MAX, made });
    }

    /// A version that was there before everything else.
    pub fn had(&self, version: u64) {
        lock(&self.writes).push(Write { version: Some(version), begin: 0, end: 0, made: 0 });
    }

    /// A read that began then saw this version.
    pub fn read(&self, version: u64, begin: Moment) {
        lock(&self.reads).push(Read { version, begin });
    }

    /// Nothing older than what had returned before a read began was seen by it.
    ///
    /// # Errors
    /// The first read that saw what was over.
    pub fn check(&self) -> Result<(), String> {
        let (writes, reads) = (lock(&self.writes), lock(&self.reads));
        for read in reads.iter() {
            // A write that has not returned is as new as can be.
            let Some(seen) = writes.iter().find(|write| write.version == Some(read.version)) else {
                continue;
            };
            if let Some(newer) = writes.iter().find(|newer| seen.is_over(newer, read.begin)) {
                return Err(format!("{read:?} saw {seen:?}, which was over since {newer:?}: {writes:?}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::History;

    #[test]
    fn a_read_may_see_what_was_written_beside_it_and_nothing_older() {
        let history = History::default();
        history.had(0);
        let (first, second) = (history.begin(), history.begin());
        history.wrote(Some(1), first);
        history.wrote(None, second);
        let begin = history.begin();
        history.read(1, begin);
        assert_eq!(history.check(), Ok(()), "the write and the delete were under way together");
        history.read(0, begin);
        assert!(history.check().is_err(), "both came after version 0");
    }

    #[test]
    fn a_failed_write_ends_nothing_and_is_over_with_what_begins_after_it() {
        let history = History::default();
        history.had(0);
        history.failed(1, history.begin());
        history.read(0, history.begin());
        history.read(1, history.begin());
        assert_eq!(history.check(), Ok(()), "it was made, or not");
        history.wrote(Some(2), history.begin());
        history.read(1, history.begin());
        assert!(history.check().is_err(), "a later write has returned");
    }

    #[test]
    fn a_load_is_over_with_the_first_write_that_began_after_it_and_has_returned() {
        let history = History::default();
        let (load, write) = (history.begin(), history.begin());
        history.loads(5, load);
        let beside = history.begin();
        history.wrote(Some(1), write);
        history.read(5, beside);
        assert_eq!(history.check(), Ok(()), "the write had not returned");
        history.read(5, history.begin());
        assert!(history.check().is_err(), "it had");
    }
}
