//! What all handles of a cache share, and how it reads its layers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hitbox_backend::{
    Answer, Backend, Cacheable, Event, Found, LeafPosition, LeafSet, Mutation, Outcome as LeafOutcome, Raw,
    ReadOptions, Receipt, TryRead, WriteOptions, upkeep,
};
use hitbox_core::{
    Accept, BackendLabel, BackendResult, CacheKey, CacheValue, Clock, Freshness, Offload, RecordKind,
    ResponseSource, Subject, Task, TaskKind, Timestamp,
};

use crate::events::{CacheEvent, Events, ShownCounts, count};
use crate::flight::Flights;
use crate::load::End;
use crate::outcome::{How, Outcome, Served};
use crate::recovery::Recovery;
use crate::settings::Settings;

pub(crate) struct Shared<V: Cacheable, B: Backend + ?Sized> {
    pub(crate) settings: Settings,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) offload: Arc<dyn Offload>,
    pub(crate) flights: Arc<Flights<End<V>>>,
    pub(crate) throttle: Throttle,
    pub(crate) recovery: Recovery,
    pub(crate) events: Events,
    /// Shows the counts for as long as the cache lives.
    pub(crate) _shown: Arc<ShownCounts>,
    /// Distinguishes caches in the offload.
    pub(crate) owner: u64,
    pub(crate) backend: Arc<B>,
}

/// A copy that a read may use.
pub(crate) struct Copy<V> {
    /// The entry; without a value it says that the source has none.
    pub(crate) entry: CacheValue<Option<V>>,
    pub(crate) freshness: Freshness,
    pub(crate) label: BackendLabel,
    pub(crate) leaf: LeafPosition,
}

impl<V> Copy<V> {
    /// The copy as the answer to a call.
    #[inline]
    pub(crate) fn served(self, how: How) -> Served<Option<V>> {
        let expires = self.entry.lifetime().expire();
        let outcome = Outcome { how, source: ResponseSource::Backend(self.label), expires };
        let details = self.entry.shared_details();
        Served::new(self.entry.into_data(), outcome).with(details)
    }
}

pub(crate) fn next_owner() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl<V: Cacheable, B: Backend + ?Sized> Shared<V, B> {
    /// The last invalidation of anything that an entry of this key may carry, in any layer.
    pub(crate) fn moment(&self, key: &CacheKey) -> u64 {
        let mut latest = 0;
        self.backend.visit_leaves(key, &mut |leaf, _| latest = latest.max(leaf.last_invalidation()));
        latest
    }

    /// A usable copy, if that can be said without waiting; else the leaves that need not be asked again.
    #[inline]
    pub(crate) fn try_look(&self, key: &CacheKey, options: &ReadOptions) -> Result<Option<Copy<V>>, LeafSet> {
        match self.backend.try_read(key, options) {
            TryRead::Hit(found) => self.decode(found).map(Some),
            TryRead::Miss => Ok(None),
            TryRead::WouldWait(asked) => Err(asked),
        }
    }

    /// A usable copy.
    pub(crate) async fn look(
        &self,
        key: &CacheKey,
        mut options: ReadOptions,
    ) -> BackendResult<Option<Copy<V>>> {
        loop {
            let answer: Answer = self.backend.read_with(key, &options).await;
            let Some(found) = answer? else { return Ok(None) };
            match self.decode(found) {
                Ok(copy) => return Ok(Some(copy)),
                // A backend that answers with a leaf that was to be skipped would do so for ever.
                Err(useless) if options.skip.covers(useless) => return Ok(None),
                Err(useless) => options.skip = options.skip.union(useless),
            }
        }
    }

    /// The same, with failures as misses.
    pub(crate) async fn look_if_possible(&self, key: &CacheKey, options: ReadOptions) -> Option<Copy<V>> {
        match self.look(key, options).await {
            Ok(copy) => copy,
            Err(error) => {
                count(&self.events.counts.read_errors);
                self.events.layer_failed(key, &error);
                None
            }
        }
    }

    /// What may be served where a load fails or takes too long.
    pub(crate) async fn fallback(&self, key: &CacheKey) -> Option<Copy<V>> {
        let accept = if self.settings.fail_safe.is_zero() { Accept::Stale } else { Accept::Expired };
        self.look_if_possible(key, ReadOptions { accept, ..ReadOptions::NORMAL }).await
    }

    /// The copy; an error names the leaf whose copy is no `V`.
    #[inline]
    pub(crate) fn decode(&self, found: Found) -> Result<Copy<V>, LeafSet> {
        let Found { value, freshness, label, leaf, .. } = found;
        if value.details().is_some_and(|details| details.kind == RecordKind::Absent) {
            return Ok(Copy { entry: value.map(|_| None), freshness, label, leaf });
        }
        match value.try_map(|raw| raw.into_value().map(Some)) {
            Ok(entry) => Ok(Copy { entry, freshness, label, leaf }),
            Err(error) => {
                if let Some(leaf) = self.backend.leaves().get(usize::from(leaf)) {
                    leaf.count(Event::Undecodable, 1);
                }
                tracing::debug!(backend = %label, %error, "a cached copy could not be decoded");
                Err(LeafSet::of(leaf))
            }
        }
    }

    /// What a write or delete has come to: layers that failed are brought up to date later, and their older copies
    /// are not served until then.
    pub(crate) fn account(self: &Arc<Self>, key: &CacheKey, receipt: &Receipt, mutation: &Mutation) -> bool {
        let mut failed = false;
        for line in &receipt.leaves {
            let (LeafOutcome::Failed(error) | LeafOutcome::Unknown(error)) = &line.outcome else { continue };
            failed = true;
            self.events.layer_failed(key, error);
            self.backend.visit_leaves(key, &mut |leaf, key| {
                if leaf.path() == line.label {
                    leaf.coherence().hide(key, mutation);
                }
            });
        }
        failed
    }

    /// Notes that an entry with an idle time was read, at most eight times in that time.
    pub(crate) fn touch(self: &Arc<Self>, key: &CacheKey, copy: &Copy<V>) {
        let Some(details) = copy.entry.details() else { return };
        let (Some(idle), Some(touched)) = (details.idle, details.touched.or(copy.entry.created())) else {
            return;
        };
        if self.clock.now().since(touched) < idle / 8 {
            return;
        }
        let (shared, touched_key) = (self.clone(), key.clone());
        let work = async move { shared.touch_now(&touched_key).await };
        let task = Task::unique(TaskKind::TOUCH, self.subject(key), work);
        if let Err(refused) = self.offload.register(task) {
            tracing::trace!(why = ?refused.why, "a read of an idle entry was not noted");
        }
    }

    async fn touch_now(self: &Arc<Self>, key: &CacheKey) {
        let mutation = upkeep(&*self.backend, key);
        mutation.first().await;
        let Ok(Some(entry)) = self.longest_copy(key, true).await else { return };
        let Some(mut details) = entry.details().cloned() else { return };
        details.touched = Some(self.clock.now());
        let options = WriteOptions { mutation: Some(mutation.clone()), ..WriteOptions::default() };
        let receipt = self.backend.write_with(key, entry.with_details(details), &options).await;
        count(&self.events.counts.touched);
        if self.account(key, &receipt, &mutation) {
            self.recover_later(key);
        }
    }

    /// The copy that lives longest in any leaf, which is what the others were made of: an upper one may have been
    /// capped.
    pub(crate) async fn longest_copy(
        &self,
        key: &CacheKey,
        absent: bool,
    ) -> BackendResult<Option<CacheValue<Raw>>> {
        let mut longest: Option<CacheValue<Raw>> = None;
        let mut options = ReadOptions { accept: Accept::Expired, absent, ..ReadOptions::NORMAL };
        while let Some(found) = self.backend.read_with(key, &options).await? {
            let leaf = LeafSet::of(found.leaf);
            if options.skip.covers(leaf) {
                break;
            }
            options.skip = options.skip.union(leaf);
            if longest.as_ref().is_none_or(|known| found.value.lifetime().outlives(known.lifetime())) {
                longest = Some(found.value);
            }
        }
        Ok(longest)
    }

    pub(crate) fn subject(&self, key: &CacheKey) -> Subject {
        Subject { owner: self.owner, key: key.clone() }
    }

    /// A copy is served.
    #[inline]
    pub(crate) fn tell_hit(&self, key: &CacheKey, freshness: Freshness) {
        self.events.tell(|| CacheEvent::Hit { key, freshness });
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// Keys whose load failed a moment ago: until their time an older copy is served without trying again.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<HashMap<CacheKey, Duration>>);

/// More are forgotten, those first whose time is over.
const MAX_THROTTLED: usize = 65_536;

impl Throttle {
    /// No load of this key before the monotonic instant `until`.
    pub(crate) fn until(&self, key: &CacheKey, now: Duration, until: Duration) {
        let mut keys = self.lock();
        if keys.len() >= MAX_THROTTLED {
            keys.retain(|_, until| *until > now);
        }
        if keys.len() < MAX_THROTTLED {
            keys.insert(key.clone(), until);
        }
    }

    pub(crate) fn is_on(&self, key: &CacheKey, now: Duration) -> bool {
        let mut keys = self.lock();
        match keys.get(key) {
            Some(until) if *until > now => true,
            Some(_) => {
                keys.remove(key);
                false
            }
            None => false,
        }
    }

    pub(crate) fn end(&self, key: &CacheKey) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CacheKey, Duration>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
