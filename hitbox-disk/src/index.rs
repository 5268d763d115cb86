//! What is on disk, in memory: where a look-up ends if the key is not there, and who goes when room is
//! needed.
//!
//! Eviction is first in, first out with a second chance: an entry that was read since it was written or
//! last spared goes to the end of the queue once more (the CLOCK algorithm, Corbató 1968).

use std::collections::{BTreeSet, VecDeque};

use hitbox_backend::core::{CacheValue, Timestamp};

use crate::digest::{Digest, DigestMap};

/// File systems give a file whole blocks, of 4 KiB nearly everywhere.
const BLOCK: u64 = 4096;

/// What a file of this length takes of the file system, in bytes.
pub(crate) const fn space(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK).saturating_mul(BLOCK)
}

/// So many entries are looked at while the lock is held.
const SOME: usize = 1_024;
/// The greatest place of a digest.
const LAST_PLACE: u64 = (1 << 48) - 1;

/// What an entry is to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// A user's.
    User,
    /// A record that says that the source has nothing; nobody counts it.
    Own,
    /// The record of a tag or a dependency, without which the entries that carry it are worth nothing; nobody counts it. It
    /// goes when such records take more than half of the room, or nothing else is left.
    Scope,
    /// One that is not put out either: without it all others are worth nothing.
    Pinned,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// The length of its file.
    pub(crate) bytes: u64,
    /// Milliseconds since the epoch from which on it may be dropped; `u64::MAX` for never.
    pub(crate) drop_at: u64,
    /// Milliseconds since the epoch from which on normal reads do not see it; `u64::MAX` for never.
    pub(crate) expires: u64,
    pub(crate) class: Class,
    /// The operation that put it there; later ones have greater numbers.
    pub(crate) sequence: u64,
    pub(crate) read_since: bool,
}

impl Entry {
    /// The entry that an operation puts there.
    pub(crate) fn new(bytes: u64, value: &CacheValue<()>, class: Class, sequence: u64) -> Self {
        let class = if class == Class::User && !value.is_value() { Class::Own } else { class };
        let mut entry = Self { bytes, drop_at: 0, expires: 0, class, sequence, read_since: false };
        entry.set_times(value);
        entry
    }

    /// What it takes of the file system, in bytes.
    pub(crate) fn space(&self) -> u64 {
        space(self.bytes)
    }

    /// The space that it takes if it is of this class.
    fn space_as(&self, class: Class) -> u64 {
        if self.class == class { self.space() } else { 0 }
    }

    /// One if it counts as an entry.
    fn of_users(&self) -> u64 {
        u64::from(self.class == Class::User)
    }

    fn set_times(&mut self, value: &CacheValue<()>) {
        let millis = |end: Option<Timestamp>| end.map_or(u64::MAX, Timestamp::as_millis);
        self.drop_at = millis(value.drop_at());
        self.expires = millis(value.lifetime().expire()).min(self.drop_at);
    }
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    entries: DigestMap<Entry>,
    /// The same digests in order, so that whoever goes through them all can stop and go on, and holds no lock meanwhile.
    order: BTreeSet<Digest>,
    /// In the order of writing; lines whose sequence is not the entry's are void.
    queue: VecDeque<(Digest, u64)>,
    /// Operations under way per key, and the newest that has been applied meanwhile.
    under_way: DigestMap<UnderWay>,
    /// What entries, and writes under way, take of the file system.
    space: u64,
    /// The part of bodies that are being written.
    body_space: u64,
    /// The part that records of scopes take.
    scope_space: u64,
    /// The part of what is never put out.
    pinned_space: u64,
    /// How many are users'.
    users: u64,
    sequence: u64,
    #[cfg(test)]
    looked_at: std::cell::Cell<usize>,
}

#[derive(Debug, Default)]
struct UnderWay {
    /// The numbers of those that have not ended.
    operations: Vec<u64>,
    applied: u64,
}

impl Index {
    /// Begins a write or delete: its number decides whether it is applied after or before others.
    pub(crate) fn begin(&mut self, digest: Digest) -> u64 {
        self.sequence += 1;
        self.under_way.entry(digest).or_default().operations.push(self.sequence);
        self.sequence
    }

    /// Whether a newer operation on the key has been applied.
    pub(crate) fn is_superseded(&self, digest: Digest, sequence: u64) -> bool {
        self.under_way.get(&digest).is_some_and(|under_way| under_way.applied > sequence)
    }

    /// Ends a write or delete.
    pub(crate) fn end(&mut self, digest: Digest, sequence: u64) {
        if let Some(under_way) = self.under_way.get_mut(&digest) {
            under_way.operations.retain(|other| *other != sequence);
            if under_way.operations.is_empty() {
                self.under_way.remove(&digest);
            }
        }
    }

    /// The number of the operation that began last.
    pub(crate) fn last_begun(&self) -> u64 {
        self.sequence
    }

    /// Whether all operations have ended that began up to this number: on one key, or on any.
    pub(crate) fn has_settled(&self, digest: Option<Digest>, sequence: u64) -> bool {
        let is_earlier = |under_way: &UnderWay| under_way.operations.iter().any(|other| *other <= sequence);
        match digest {
            Some(digest) => !self.under_way.get(&digest).is_some_and(is_earlier),
            None => !self.under_way.values().any(is_earlier),
        }
    }

    /// Whether no operation is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    fn applied(&mut self, digest: Digest, sequence: u64) {
        if let Some(under_way) = self.under_way.get_mut(&digest) {
            under_way.applied = under_way.applied.max(sequence);
        }
    }

    pub(crate) fn get(&self, digest: Digest) -> Option<Entry> {
        self.entries.get(&digest).copied()
    }

    /// The entry, which is read.
    pub(crate) fn touch(&mut self, digest: Digest) -> Option<Entry> {
        let entry = self.entries.get_mut(&digest)?;
        entry.read_since = true;
        Some(*entry)
    }

    /// The entry's file is in place. Its space has been reserved.
    pub(crate) fn insert(&mut self, digest: Digest, entry: Entry) {
        let sequence = entry.sequence;
        self.applied(digest, sequence);
        self.users += entry.of_users();
        self.scope_space += entry.space_as(Class::Scope);
        self.pinned_space += entry.space_as(Class::Pinned);
        match self.entries.insert(digest, entry) {
            Some(old) => self.free(&old),
            None => drop(self.order.insert(digest)),
        }
        self.queue.push_back((digest, sequence));
        if self.queue.len() > 2 * self.entries.len() + 1024 {
            let Self { queue, entries, .. } = self;
            queue.retain(|(digest, sequence)| entries.get(digest).is_some_and(|e| e.sequence == *sequence));
        }
    }

    /// The entry has other times now.
    pub(crate) fn change_times(&mut self, digest: Digest, value: &CacheValue<()>) {
        if let Some(entry) = self.entries.get_mut(&digest) {
            entry.set_times(value);
        }
    }

    /// The entry is gone; its space is free.
    pub(crate) fn remove(&mut self, digest: Digest, sequence: u64) -> Option<Entry> {
        self.applied(digest, sequence);
        self.drop_entry(digest)
    }

    fn drop_entry(&mut self, digest: Digest) -> Option<Entry> {
        let entry = self.entries.remove(&digest)?;
        self.order.remove(&digest);
        self.free(&entry);
        Some(entry)
    }

    fn free(&mut self, entry: &Entry) {
        self.space -= entry.space();
        self.scope_space -= entry.space_as(Class::Scope);
        self.pinned_space -= entry.space_as(Class::Pinned);
        self.users -= entry.of_users();
    }

    /// Takes the entry out if it is still the one that was looked at.
    pub(crate) fn remove_if_same(&mut self, digest: Digest, sequence: u64) -> bool {
        let same = self.entries.get(&digest).is_some_and(|entry| entry.sequence == sequence);
        same && self.drop_entry(digest).is_some()
    }

    /// Makes so much room under `max`, and reserves it. The entries named have left the index.
    pub(crate) fn reserve(&mut self, space: u64, max: u64) -> Vec<Digest> {
        let evicted = self.evict_down_to(max.saturating_sub(space));
        self.space += space;
        evicted
    }

    /// The same for a body that goes on; nothing, and nobody is put out, if what is never put out leaves no room: other bodies
    /// that are being written, and pinned records.
    pub(crate) fn reserve_for_body(&mut self, space: u64, max: u64) -> Option<Vec<Digest>> {
        if self.body_space.saturating_add(self.pinned_space).saturating_add(space) > max {
            return None;
        }
        self.body_space += space;
        Some(self.reserve(space, max))
    }

    /// A body is written, or has been given up.
    pub(crate) fn ended_body(&mut self, space: u64) {
        self.body_space -= space;
    }

    /// Puts entries out that take at least so much together, if there are as many. They have left the index.
    pub(crate) fn put_out(&mut self, space: u64) -> Vec<Digest> {
        self.evict_down_to(self.space.saturating_sub(space))
    }

    fn evict_down_to(&mut self, limit: u64) -> Vec<Digest> {
        let mut evicted = Vec::new();
        let (mut spared, mut spares_scopes) = (0, true);
        while self.space > limit {
            let Some((digest, sequence)) = self.queue.pop_front() else { break };
            let Some(entry) = self.entries.get_mut(&digest).filter(|e| e.sequence == sequence) else {
                continue;
            };
            let is_spared = match entry.class {
                Class::Pinned => true,
                Class::Scope => spares_scopes && self.scope_space <= limit / 2,
                Class::User | Class::Own => false,
            };
            if is_spared {
                spared += 1;
                self.queue.push_back((digest, sequence));
                // Nothing else is left.
                if spared > self.queue.len() && !spares_scopes {
                    break;
                }
                if spared > self.queue.len() {
                    (spared, spares_scopes) = (0, false);
                }
                continue;
            }
            spared = 0;
            if entry.read_since {
                entry.read_since = false;
                self.queue.push_back((digest, sequence));
            } else {
                self.drop_entry(digest);
                evicted.push(digest);
            }
        }
        evicted
    }

    /// Gives back what was reserved for a write that did not happen.
    pub(crate) fn release(&mut self, space: u64) {
        self.space -= space;
    }

    /// Some entries in the order of their digests, from this one on.
    fn some(&self, from: Digest) -> impl Iterator<Item = (Digest, &Entry)> {
        let entries =
            self.order.range(from..).filter_map(|digest| Some((*digest, self.entries.get(digest)?)));
        entries.inspect(|_| {
            #[cfg(test)]
            self.looked_at.set(self.looked_at.get() + 1);
        })
    }

    /// Of some entries those whose time is over at `now`, at most `limit`, which leave the index; and where to go on.
    pub(crate) fn take_expired(
        &mut self,
        from: Digest,
        now: u64,
        limit: usize,
    ) -> (Vec<Digest>, Option<Digest>) {
        let (mut expired, mut next) = (Vec::new(), None);
        for (seen, (digest, entry)) in self.some(from).enumerate() {
            let is_over = entry.drop_at <= now;
            if seen == SOME || (is_over && expired.len() == limit) {
                next = Some(digest);
                break;
            }
            if is_over {
                expired.push(digest);
            }
        }
        for digest in &expired {
            self.drop_entry(*digest);
        }
        (expired, next)
    }

    /// Some keys in the order of their digests, from those on whose upper 48 bits are `from`; and where the next page
    /// starts. Compositions need the other bits of a cursor.
    pub(crate) fn page(&self, from: u64, limit: usize) -> (Vec<Digest>, Option<u64>) {
        if from > LAST_PLACE {
            return (Vec::new(), None);
        }
        let place = |digest: Digest| (digest >> 80) as u64;
        let mut digests: Vec<Digest> = Vec::new();
        for (digest, _) in self.some(Digest::from(from) << 80) {
            // Those of one place stay together.
            if digests.len() >= limit.max(1)
                && digests.last().is_some_and(|last| place(*last) != place(digest))
            {
                let next = digests.last().map(|last| place(*last) + 1);
                return (digests, next);
            }
            digests.push(digest);
        }
        (digests, None)
    }

    /// How many of some entries a normal read may see at `now`, and where to go on.
    pub(crate) fn visible(&self, from: Digest, now: u64) -> (u64, Option<Digest>) {
        let mut entries = self.some(from);
        let seen = entries
            .by_ref()
            .take(SOME)
            .filter(|(_, entry)| entry.expires > now && entry.class == Class::User)
            .count();
        (seen as u64, entries.next().map(|(digest, _)| digest))
    }

    /// Every key that is there or may be soon.
    pub(crate) fn digests(&self) -> Vec<Digest> {
        let new = self.under_way.keys().filter(|digest| !self.entries.contains_key(digest));
        self.entries.keys().chain(new).copied().collect()
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (Digest, Entry)> {
        self.entries.iter().map(|(digest, entry)| (*digest, *entry))
    }

    /// Entries of users.
    pub(crate) fn users(&self) -> u64 {
        self.users
    }

    pub(crate) fn space(&self) -> u64 {
        self.space
    }
}

#[cfg(test)]
mod tests {
    use hitbox_backend::core::CacheValue;

    use super::{Class, Digest, Entry, Index, SOME};

    const ENTRIES: usize = 200_000;

    fn index() -> Index {
        let mut index = Index::default();
        for number in 0..ENTRIES as Digest {
            // An odd factor takes no two numbers to one.
            let digest = number.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
            index.insert(digest, Entry::new(0, &CacheValue::new(()), Class::User, number as u64));
        }
        index
    }

    #[test]
    fn case_f22_listing_looks_at_each_entry_once() {
        let index = index();
        let (mut from, mut pages, mut listed) = (Some(0), 0, Vec::new());
        while let Some(start) = from {
            let (digests, next) = index.page(start, 100);
            listed.extend(digests);
            (from, pages) = (next, pages + 1);
        }
        assert!(listed.is_sorted_by(|one, other| one < other) && listed.len() == ENTRIES);
        let looked_at = index.looked_at.get();
        assert!(looked_at <= ENTRIES + pages, "{looked_at} looks for {ENTRIES} entries on {pages} pages");
    }

    #[test]
    fn case_f22_no_look_holds_the_lock_for_all() {
        let mut index = index();
        let (mut from, mut seen) = (Some(0), 0);
        while let Some(start) = from {
            index.looked_at.set(0);
            let (visible, next) = index.visible(start, 0);
            assert!(index.looked_at.get() <= SOME + 1);
            (from, seen) = (next, seen + visible);
        }
        assert_eq!(seen, ENTRIES as u64);
        let mut from = Some(0);
        while let Some(start) = from {
            index.looked_at.set(0);
            let (expired, next) = index.take_expired(start, 0, 10);
            assert!(index.looked_at.get() <= SOME + 1 && expired.is_empty());
            from = next;
        }
    }
}
