//! What the status page shows of requests: how many were answered by what, how fast, and for which keys.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use hitbox::core::{BackendLabel, CacheKey, Timestamp};
use serde::Serialize;

use super::hot_keys::{HotKey, HotKeys};

/// Of so many requests one is looked at closely.
const SAMPLED: u8 = 8;
/// The history has a point for so many seconds, and so many points: ten minutes.
const STEP: Duration = Duration::from_secs(5);
const POINTS: usize = 120;
/// Times are those of the last so many seconds, or of up to twice as many.
const TIMES_OF: Duration = Duration::from_secs(60);
/// Longer times count as this. In nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// What has been seen since the page was made.
#[derive(Debug)]
pub(crate) struct Observer {
    hits: AtomicU64,
    forwarded: AtomicU64,
    passed: AtomicU64,
    /// Monotonic milliseconds when the next point of the history is due.
    next_point: AtomicU64,
    samples: Mutex<Samples>,
}

#[derive(Debug, Default)]
struct Samples {
    history: VecDeque<Point>,
    hot: HotKeys,
    times: BTreeMap<&'static str, Times>,
}

/// Counts since the page was made, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Point {
    /// Milliseconds since 1970.
    pub(crate) at: u64,
    pub(crate) hits: u64,
    pub(crate) forwarded: u64,
    pub(crate) passed: u64,
}

/// How long answers took, now and in the minute before.
#[derive(Debug)]
struct Times {
    since: Duration,
    now: Histogram<u32>,
    before: Histogram<u32>,
}

/// How long answers of one layer took, or those of the service. In microseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) answered_by: &'static str,
    /// How many were timed.
    pub(crate) timed: u64,
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

/// All of it.
#[derive(Debug, Serialize)]
pub(crate) struct Observed {
    /// One point for five seconds, the last one now.
    pub(crate) history: Vec<Point>,
    pub(crate) latency: Vec<Latency>,
    pub(crate) hot_keys: Vec<HotKey>,
}

/// What has answered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AnsweredBy {
    Layer(BackendLabel),
    Service,
}

impl Times {
    fn new(since: Duration) -> Option<Self> {
        // Two digits: an error of a hundredth at most.
        let empty = Histogram::new_with_bounds(1, LONGEST, 2).ok()?;
        Some(Self { since, before: empty.clone(), now: empty })
    }

    fn record(&mut self, took: Duration, now: Duration) {
        let age = now.saturating_sub(self.since);
        if age >= TIMES_OF {
            std::mem::swap(&mut self.now, &mut self.before);
            self.now.reset();
            if age >= TIMES_OF * 2 {
                self.before.reset();
            }
            self.since = now;
        }
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(LONGEST);
        self.now.saturating_record(nanos);
    }

    fn latency(&self, answered_by: &'static str) -> Latency {
        let mut both = self.now.clone();
        // They have the same bounds.
        let _ = both.add(&self.before);
        let micros = |nanos: u64| nanos as f64 / 1_000.0;
        let at = |quantile| micros(both.value_at_quantile(quantile));
        Latency {
            answered_by,
            timed: both.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: micros(both.max()),
        }
    }
}

impl Observer {
    pub(crate) fn new(monotonic: Duration, now: Timestamp) -> Self {
        let start = Point { at: now.as_millis(), hits: 0, forwarded: 0, passed: 0 };
        let samples = Samples { history: VecDeque::from([start]), ..Samples::default() };
        Self {
            hits: AtomicU64::new(0),
            forwarded: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            next_point: AtomicU64::new(millis(monotonic + STEP)),
            samples: Mutex::new(samples),
        }
    }

    fn samples(&self) -> MutexGuard<'_, Samples> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the next request is looked at closely.
    pub(crate) fn is_sampled() -> bool {
        fastrand::u8(..SAMPLED) == 0
    }

    /// The service has answered a request that the cache let pass.
    pub(crate) fn passed(&self) {
        self.passed.fetch_add(1, Ordering::Relaxed);
    }

    /// A request was answered.
    pub(crate) fn answered(&self, by: AnsweredBy) {
        let count = match by {
            AnsweredBy::Layer(_) => &self.hits,
            AnsweredBy::Service => &self.forwarded,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// One that is looked at closely was answered.
    pub(crate) fn sampled(&self, key: &CacheKey, by: AnsweredBy, took: Duration, now: Duration) {
        let answered_by = match by {
            AnsweredBy::Layer(label) => label.as_str(),
            AnsweredBy::Service => "service",
        };
        let samples = &mut *self.samples();
        samples.hot.count(key);
        let times = samples.times.entry(answered_by);
        if let std::collections::btree_map::Entry::Occupied(times) = times {
            times.into_mut().record(took, now);
        } else if let Some(mut new) = Times::new(now) {
            new.record(took, now);
            times.or_insert(new);
        }
    }

    fn point(&self, now: Timestamp) -> Point {
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        Point {
            at: now.as_millis(),
            hits: count(&self.hits),
            forwarded: count(&self.forwarded),
            passed: count(&self.passed),
        }
    }

    /// Adds a point to the history if one is due. Requests do it, so that nothing runs while there are none.
    pub(crate) fn tick(&self, monotonic: Duration, now: impl FnOnce() -> Timestamp) {
        let (due, at) = (self.next_point.load(Ordering::Relaxed), millis(monotonic));
        let next = millis(monotonic + STEP);
        if at < due
            || self.next_point.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        let point = self.point(now());
        let history = &mut self.samples().history;
        history.push_back(point);
        if history.len() > POINTS {
            history.pop_front();
        }
    }

    pub(crate) fn observed(&self, now: Timestamp) -> Observed {
        let last = self.point(now);
        let samples = self.samples();
        let history = samples.history.iter().copied().filter(|point| point.at < last.at).chain([last]);
        Observed {
            history: history.collect(),
            latency: samples.times.iter().map(|(by, times)| times.latency(by)).collect(),
            hot_keys: samples.hot.hottest(),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_has_a_point_for_five_seconds_and_ends_now() {
        let at = |seconds: u64| Timestamp::from_millis(1_000_000 + seconds * 1_000);
        let observer = Observer::new(Duration::ZERO, at(0));
        for second in 1..=1_000 {
            observer.answered(AnsweredBy::Service);
            observer.tick(Duration::from_secs(second), || at(second));
        }
        let history = observer.observed(at(1_001)).history;
        assert_eq!(history.len(), POINTS + 1);
        assert!(history.windows(2).take(POINTS - 1).all(|two| two[1].at - two[0].at == 5_000));
        assert_eq!(
            history.last(),
            Some(&Point { at: at(1_001).as_millis(), hits: 0, forwarded: 1_000, passed: 0 })
        );
    }

    #[test]
    fn times_are_of_the_last_minutes() {
        let observer = Observer::new(Duration::ZERO, Timestamp::from_millis(0));
        let (key, by) = (CacheKey::builder("k").build(), AnsweredBy::Layer("moka".into()));
        let second = Duration::from_secs(1);
        observer.sampled(&key, by, second, Duration::ZERO);
        for _ in 0..99 {
            observer.sampled(&key, by, Duration::from_micros(5), second * 61);
        }
        let slowest = |observer: &Observer| {
            let latency = observer.observed(Timestamp::from_millis(1)).latency;
            assert!((latency[0].p50 - 5.0).abs() < 0.1, "{latency:?}");
            (latency[0].answered_by, latency[0].timed, latency[0].max > 900_000.0)
        };
        assert_eq!(slowest(&observer), ("moka", 100, true));
        observer.sampled(&key, by, Duration::from_micros(5), second * 130);
        assert_eq!(slowest(&observer), ("moka", 100, false));
        observer.sampled(&key, by, Duration::from_micros(5), second * 1_000);
        assert_eq!(slowest(&observer), ("moka", 1, false));
    }
}
