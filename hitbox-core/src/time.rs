//! Instants and lifetimes, in whole milliseconds.
//!
//! Invariant: the three instants of a [`Lifetime`] are ordered, `stale ≤ expire ≤ retain`, wherever
//! two of them are present. They are compared in one function, [`Lifetime::freshness`].

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
///
/// Arithmetic saturates: the latest representable instant is some 580 million years away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

/// Marks an absent instant inside [`Lifetime`] and the like; never a valid [`Timestamp`].
const ABSENT: u64 = u64::MAX;

impl Timestamp {
    /// The latest instant that can be expressed.
    pub const MAX: Self = Self(ABSENT - 1);

    /// An instant given in milliseconds since the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        if millis == ABSENT { Self::MAX } else { Self(millis) }
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`, zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, after: Duration) -> Self {
        let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        Self::from_millis(self.0.saturating_add(millis))
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, before: Duration) -> Self {
        let millis = u64::try_from(before.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(millis))
    }
}

impl From<SystemTime> for Timestamp {
    #[inline]
    fn from(time: SystemTime) -> Self {
        // This is part of every hit of an entry with an end: in 64 bits, and checked with one comparison.
        const LAST_SECOND: u64 = Timestamp::MAX.0 / 1_000 - 1;
        match time.duration_since(UNIX_EPOCH) {
            Ok(since) if since.as_secs() <= LAST_SECOND => {
                Self(since.as_secs() * 1_000 + u64::from(since.subsec_millis()))
            }
            Ok(_) => Self::MAX,
            Err(_) => Self(0),
        }
    }
}

/// What an entry is at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Freshness {
    /// Before `stale`: served as it is.
    Fresh,
    /// From `stale` on, before `expire`: served, marked stale.
    Stale,
    /// From `expire` on, before `retain`: seen only by reads that accept expired copies.
    Expired,
    /// From `retain` on: seen by nobody.
    Gone,
}

/// The oldest copy that a read accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Accept {
    /// Fresh copies only.
    Fresh,
    /// Fresh and stale copies: a normal read.
    #[default]
    Stale,
    /// Also expired copies that are still retained: a fail-safe read.
    Expired,
}

impl Accept {
    /// Whether a copy of this freshness may be served.
    pub const fn allows(self, freshness: Freshness) -> bool {
        match freshness {
            Freshness::Fresh => true,
            Freshness::Stale => matches!(self, Self::Stale | Self::Expired),
            Freshness::Expired => matches!(self, Self::Expired),
            Freshness::Gone => false,
        }
    }
}

/// The three absolute instants of an entry: end of fresh, end of served, end of kept.
///
/// Each may be absent, which means "never". A present `retain` is never earlier than `expire`, and a
/// present `stale` never later than it: [`Lifetime::new`] moves them if they are. Without `retain` an
/// entry is kept until it expires.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lifetime {
    stale: u64,
    expire: u64,
    retain: u64,
}

impl Default for Lifetime {
    fn default() -> Self {
        Self::FOREVER
    }
}

impl Lifetime {
    /// No instant at all: fresh for as long as the entry is kept.
    pub const FOREVER: Self = Self { stale: ABSENT, expire: ABSENT, retain: ABSENT };

    /// Over since the epoch: nobody sees an entry with it.
    pub const ENDED: Self = Self { stale: 0, expire: 0, retain: 0 };

    /// A lifetime of the given instants, put in order.
    pub fn new(stale: Option<Timestamp>, expire: Option<Timestamp>, retain: Option<Timestamp>) -> Self {
        let raw = |instant: Option<Timestamp>| instant.map_or(ABSENT, Timestamp::as_millis);
        let (mut stale, expire, mut retain) = (raw(stale), raw(expire), raw(retain));
        if expire != ABSENT {
            if stale != ABSENT {
                stale = stale.min(expire);
            }
            if retain != ABSENT {
                retain = retain.max(expire);
            }
        }
        Self { stale, expire, retain }
    }

    /// Expires `ttl` after `now`.
    pub fn ttl(now: Timestamp, ttl: Duration) -> Self {
        Self::new(None, Some(now + ttl), None)
    }

    /// The same with another end of fresh.
    pub fn with_stale(self, stale: impl Into<Option<Timestamp>>) -> Self {
        Self::new(stale.into(), self.expire(), self.retain())
    }

    /// The same with another end of served.
    pub fn with_expire(self, expire: impl Into<Option<Timestamp>>) -> Self {
        Self::new(self.stale(), expire.into(), self.retain())
    }

    /// The same with another end of kept.
    pub fn with_retain(self, retain: impl Into<Option<Timestamp>>) -> Self {
        Self::new(self.stale(), self.expire(), retain.into())
    }

    /// End of fresh.
    pub const fn stale(&self) -> Option<Timestamp> {
        present(self.stale)
    }

    /// End of what a normal read may see.
    pub const fn expire(&self) -> Option<Timestamp> {
        present(self.expire)
    }

    /// End of physical life, as it was given.
    pub const fn retain(&self) -> Option<Timestamp> {
        present(self.retain)
    }

    /// The instant from which on a store may drop the entry: `retain`, else `expire`, else never.
    pub const fn drop_at(&self) -> Option<Timestamp> {
        present(if self.retain == ABSENT { self.expire } else { self.retain })
    }

    /// Whether no instant is set, so that nothing has to be compared with the time.
    pub const fn is_forever(&self) -> bool {
        // An absent instant has all bits set.
        self.stale & self.expire & self.retain == ABSENT
    }

    /// The end of fresh: the first of the three instants, `None` if there is none.
    #[inline]
    pub const fn fresh_until(&self) -> Option<Timestamp> {
        // An absent instant is the latest of all.
        let first = if self.stale < self.expire { self.stale } else { self.expire };
        present(if first < self.retain { first } else { self.retain })
    }

    /// What an entry of this lifetime is at `now`. Each instant belongs to the later state (`>=`).
    pub const fn freshness(&self, now: Timestamp) -> Freshness {
        let now = now.0;
        if now < self.stale && now < self.expire && now < self.retain {
            return Freshness::Fresh;
        }
        let drop_at = if self.retain == ABSENT { self.expire } else { self.retain };
        if now >= drop_at {
            Freshness::Gone
        } else if now >= self.expire {
            Freshness::Expired
        } else {
            Freshness::Stale
        }
    }

    /// Time until a normal read sees nothing any more, `None` if that never comes.
    pub fn remaining(&self, now: Timestamp) -> Option<Duration> {
        present(self.expire.min(self.retain)).map(|end| end.since(now))
    }

    /// Whether this lifetime ends later than `other` (never ending is latest).
    pub fn outlives(&self, other: &Self) -> bool {
        self.expire.min(self.retain) > other.expire.min(other.retain)
    }

    /// No instant later than `limit`, and an end of served at the latest there.
    pub fn capped(&self, limit: Timestamp) -> Self {
        let cap = |instant: u64| if instant == ABSENT { ABSENT } else { instant.min(limit.0) };
        Self { stale: cap(self.stale), expire: self.expire.min(limit.0), retain: cap(self.retain) }
    }
}

/// An instant or none, in eight bytes: what a hit copies is kept small.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct OptionalTimestamp(u64);

impl OptionalTimestamp {
    pub(crate) const ABSENT: Self = Self(ABSENT);

    pub(crate) const fn of(instant: Option<Timestamp>) -> Self {
        match instant {
            Some(instant) => Self(instant.0),
            None => Self::ABSENT,
        }
    }

    pub(crate) const fn get(self) -> Option<Timestamp> {
        present(self.0)
    }
}

impl std::fmt::Debug for OptionalTimestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.get().fmt(f)
    }
}

const fn present(instant: u64) -> Option<Timestamp> {
    if instant == ABSENT { None } else { Some(Timestamp(instant)) }
}

impl std::fmt::Debug for Lifetime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lifetime")
            .field("stale", &self.stale())
            .field("expire", &self.expire())
            .field("retain", &self.retain())
            .finish()
    }
}
