//! What a cache is told once, when it is built, and what follows from it for an entry.

use std::time::Duration;

use hitbox_backend::Jitter;
use hitbox_core::{BackendLabel, CacheKey, CacheValue, Lifetime, Timestamp};

/// What a call does that finds a stale copy and has a loader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnStale {
    /// Serves it and reloads in the background, once per key. The default. A loader that borrows cannot run in
    /// the background: such a call reloads first.
    #[default]
    ServeAndReload,
    /// Serves it; nothing is reloaded before it expires.
    Serve,
    /// Reloads, and serves the stale copy if that fails or takes too long.
    Reload,
}

/// What becomes of a load whose caller's time is up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AfterTimeout {
    /// It goes on in the background and is stored. The default.
    #[default]
    GoOn,
    /// It is cancelled, unless others wait for it.
    Stop,
}

/// When an entry is loaded anew before its freshness ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum EarlyRefresh {
    /// After this share of it, 0 to 1.
    Share(f64),
    /// By chance, the likelier the nearer the end is and the longer the load took: XFetch, with this β.
    Chance(f64),
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) name: BackendLabel,
    pub(crate) schema: u32,
    pub(crate) ttl: Option<Duration>,
    pub(crate) stale: Duration,
    pub(crate) fail_safe: Duration,
    pub(crate) throttle: Duration,
    pub(crate) idle: Option<Duration>,
    pub(crate) absent: Option<Duration>,
    pub(crate) jitter: Jitter,
    pub(crate) on_stale: OnStale,
    pub(crate) early: Option<EarlyRefresh>,
    pub(crate) soft_timeout: Option<Duration>,
    pub(crate) hard_timeout: Option<Duration>,
    pub(crate) after_timeout: AfterTimeout,
    pub(crate) load_limit: Option<Duration>,
    pub(crate) finish_abandoned: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "cache".into(),
            schema: 0,
            ttl: None,
            stale: Duration::ZERO,
            fail_safe: Duration::ZERO,
            throttle: Duration::from_secs(1),
            idle: None,
            absent: None,
            jitter: Jitter::NONE,
            on_stale: OnStale::default(),
            early: None,
            soft_timeout: None,
            hard_timeout: None,
            after_timeout: AfterTimeout::default(),
            load_limit: Some(Duration::from_secs(300)),
            finish_abandoned: false,
        }
    }
}

/// How long one entry lives, where it differs from the settings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LifetimeOverride {
    /// End of fresh, after it was loaded or written.
    pub(crate) ttl: Option<Duration>,
    /// Served stale for so long beyond.
    pub(crate) stale: Option<Duration>,
    /// Not served from then on, whatever the others say.
    pub(crate) until: Option<Timestamp>,
}

impl LifetimeOverride {
    pub(crate) const NONE: Self = Self { ttl: None, stale: None, until: None };

    /// What is missing here is taken from `other`.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            ttl: self.ttl.or(other.ttl),
            stale: self.stale.or(other.stale),
            until: self.until.or(other.until),
        }
    }
}

impl Settings {
    /// The instants of an entry written now; `None` if it would be over at once, and is not stored.
    pub(crate) fn lifetime(
        &self,
        key: &CacheKey,
        lifetime: LifetimeOverride,
        absent: bool,
        now: Timestamp,
    ) -> Option<Lifetime> {
        let ttl = if absent { self.absent } else { lifetime.ttl.or(self.ttl) };
        let stale = if absent { Duration::ZERO } else { lifetime.stale.unwrap_or(self.stale) };
        let fresh_end = ttl.map(|ttl| now + self.jitter.prolong(ttl, key, now));
        let earlier = |end: Option<Timestamp>| match (end, lifetime.until) {
            (Some(end), Some(until)) => Some(end.min(until)),
            (end, until) => end.or(until),
        };
        let expire = earlier(fresh_end.map(|end| end + stale));
        if expire.is_some_and(|end| end <= now) {
            return None;
        }
        let has_stale_time = !stale.is_zero();
        let retain = expire.filter(|_| !absent && !self.fail_safe.is_zero()).map(|end| end + self.fail_safe);
        Some(Lifetime::new(fresh_end.filter(|_| has_stale_time), expire, retain))
    }

    /// Whether an entry that is still fresh is to be loaded anew already.
    pub(crate) fn is_early<T>(&self, entry: &CacheValue<T>, now: Timestamp) -> bool {
        let (Some(early), Some(created)) = (self.early, entry.created()) else { return false };
        let Some(end) = entry.lifetime().stale().or(entry.lifetime().expire()) else { return false };
        match early {
            EarlyRefresh::Share(share) => {
                let fresh = end.since(created).as_millis() as f64;
                now.since(created).as_millis() as f64 >= fresh * share
            }
            EarlyRefresh::Chance(beta) => {
                let Some(load_time) = entry.details().and_then(|details| details.load_time) else {
                    return false;
                };
                // Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache Stampede Prevention, VLDB 2015.
                // 1 − [0, 1) is in (0, 1].
                let ahead = load_time.as_millis() as f64 * beta * -(1.0 - fastrand::f64()).ln();
                now + Duration::from_millis(ahead as u64) >= end
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn lifetime(settings: &Settings, life: LifetimeOverride) -> Option<Lifetime> {
        settings.lifetime(&CacheKey::new("k"), life, false, NOW)
    }

    #[test]
    fn expiry_01_the_earlier_of_relative_and_absolute() {
        let settings = Settings { ttl: Some(seconds(60)), ..Settings::default() };
        let expire = |life| lifetime(&settings, life).and_then(|l| l.expire());
        assert_eq!(expire(LifetimeOverride::default()), Some(NOW + seconds(60)));
        assert_eq!(
            expire(LifetimeOverride { until: Some(NOW + seconds(30)), ..LifetimeOverride::default() }),
            Some(NOW + seconds(30))
        );
        assert_eq!(
            expire(LifetimeOverride { until: Some(NOW + seconds(90)), ..LifetimeOverride::default() }),
            Some(NOW + seconds(60))
        );
        let absolute = LifetimeOverride { until: Some(NOW + seconds(5)), ..LifetimeOverride::default() };
        assert_eq!(lifetime(&Settings::default(), absolute).and_then(|l| l.expire()), Some(NOW + seconds(5)));
        assert_eq!(lifetime(&Settings::default(), LifetimeOverride::default()), Some(Lifetime::FOREVER));
    }

    #[test]
    fn edges_of_time_neither_wrap_nor_panic() {
        let forever = Settings {
            ttl: Some(Duration::MAX),
            stale: Duration::MAX,
            fail_safe: Duration::MAX,
            ..Settings::default()
        };
        let life = lifetime(&forever, LifetimeOverride::default()).expect("it is stored");
        assert_eq!((life.expire(), life.retain()), (Some(Timestamp::MAX), Some(Timestamp::MAX)));
        let jittered = Settings { jitter: Jitter::new(1.0), ..forever };
        assert_eq!(
            lifetime(&jittered, LifetimeOverride::default()).and_then(|l| l.expire()),
            Some(Timestamp::MAX)
        );
        let nothing = Settings { ttl: Some(Duration::ZERO), fail_safe: seconds(60), ..Settings::default() };
        assert_eq!(lifetime(&nothing, LifetimeOverride::default()), None);
        let past = LifetimeOverride { until: Some(Timestamp::from_millis(1)), ..LifetimeOverride::default() };
        assert_eq!(lifetime(&Settings::default(), past), None, "an end before the beginning");
    }

    #[test]
    fn expiry_05_jitter_stays_in_its_bounds_and_depends_on_key_and_instant() {
        let ttl = seconds(100);
        let jitter = Jitter::new(0.25);
        let mut spread = Vec::new();
        for number in 0..1_000_u64 {
            let key = CacheKey::builder("k").part("n", number).build();
            let one = jitter.prolong(ttl, &key, NOW);
            assert_eq!(one, jitter.prolong(ttl, &key, NOW), "it is the same again");
            assert!((ttl..=ttl + seconds(25)).contains(&one), "{one:?}");
            spread.push(one);
        }
        let below = spread.iter().filter(|one| **one < ttl + Duration::from_millis(12_500)).count();
        assert!((400..600).contains(&below), "{below} of 1,000 in the lower half");
        let key = CacheKey::new("k");
        assert_ne!(jitter.prolong(ttl, &key, NOW), jitter.prolong(ttl, &key, NOW + Duration::from_millis(1)));
        for (share, most) in [(7.0, 200), (-3.0, 100), (f64::NAN, 100), (f64::INFINITY, 200)] {
            let spread = Jitter::new(share).prolong(ttl, &key, NOW);
            assert!(spread >= ttl && spread <= seconds(most), "{share}: {spread:?}");
        }
        // An absolute end is not moved.
        let settings = Settings { jitter: Jitter::new(1.0), ..Settings::default() };
        let until = LifetimeOverride { until: Some(NOW + seconds(5)), ..LifetimeOverride::default() };
        assert_eq!(lifetime(&settings, until).and_then(|l| l.expire()), Some(NOW + seconds(5)));
    }

    #[test]
    fn chance_of_early_refresh_grows_towards_the_end() {
        let settings = Settings { early: Some(EarlyRefresh::Chance(1.0)), ..Settings::default() };
        let mut details = hitbox_core::Details::default();
        details.load_time = Some(seconds(1));
        let entry = CacheValue::new(())
            .with_created(Some(NOW))
            .with_lifetime(Lifetime::ttl(NOW, seconds(100)))
            .with_details(details);
        let share = |at: u64| (0..2_000).filter(|_| settings.is_early(&entry, NOW + seconds(at))).count();
        // exp(−gap ÷ load time): e⁻¹ a load time before the end, next to nothing 20 load times before it.
        assert!(share(80) < 5);
        assert!((600..900).contains(&share(99)), "{}", share(99));
        assert_eq!(share(100), 2_000);
    }
}
