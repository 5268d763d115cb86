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
/// The history has a point for so many seconds in which anybody asked, and so many points: ten minutes.
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
    /// Milliseconds: monotonic as it is kept, since 1970 as it is told. A wall clock that is set does not bend the history.
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
    /// One point for five seconds in which anybody asked, the last one now; what lies between points that are further apart is a pause.
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

    /// Nothing if none is of these minutes.
    fn latency(&self, answered_by: &'static str, now: Duration) -> Option<Latency> {
        let age = now.saturating_sub(self.since);
        if age >= TIMES_OF * 2 {
            return None;
        }
        let mut both = self.now.clone();
        if age < TIMES_OF {
            // They have the same bounds.
            let _ = both.add(&self.before);
        }
        let micros = |nanos: u64| nanos as f64 / 1_000.0;
        let at = |quantile| micros(both.value_at_quantile(quantile));
        Some(Latency {
            answered_by,
            timed: both.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max: micros(both.max()),
        })
    }
}

impl Observer {
    pub(crate) fn new(monotonic: Duration) -> Self {
        let start = Point { at: millis(monotonic), hits: 0, forwarded: 0, passed: 0 };
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

    /// A request goes to the service, and the cache lets it pass.
    pub(crate) fn passed(&self, now: Duration) {
        self.tick(now);
        self.passed.fetch_add(1, Ordering::Relaxed);
    }

    /// A request was answered.
    pub(crate) fn answered(&self, by: AnsweredBy, now: Duration) {
        self.tick(now);
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

    /// The counts as they are, at some moment since the last of them.
    fn point(&self, at: u64) -> Point {
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        Point { at, hits: count(&self.hits), forwarded: count(&self.forwarded), passed: count(&self.passed) }
    }

    /// The points that are due: one, and if nobody has asked since it was due, one more, so that the pause is seen.
    fn due(&self, due: u64, at: u64) -> impl Iterator<Item = Point> {
        let is_late = at - due >= millis(STEP);
        [is_late.then(|| self.point(due)), Some(self.point(at))].into_iter().flatten()
    }

    /// Adds to the history what is due. Requests do it before they are counted, so that nothing runs while there are none.
    fn tick(&self, now: Duration) {
        let (due, at) = (self.next_point.load(Ordering::Relaxed), millis(now));
        let next = millis(now + STEP);
        if at < due
            || self.next_point.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        let points = self.due(due, at);
        let history = &mut self.samples().history;
        history.extend(points);
        // One that is older says what there was before.
        let is_old = |point: &Point| at.saturating_sub(point.at) > millis(STEP) * POINTS as u64;
        while history.len() > POINTS || history.get(1).is_some_and(is_old) {
            history.pop_front();
        }
    }

    pub(crate) fn observed(&self, monotonic: Duration, now: Timestamp) -> Observed {
        let (due, at) = (self.next_point.load(Ordering::Relaxed), millis(monotonic));
        let samples = self.samples();
        let last: Vec<Point> = if at < due { vec![self.point(at)] } else { self.due(due, at).collect() };
        let history = samples.history.iter().copied().filter(|point| point.at < last[0].at);
        let told =
            |point: Point| Point { at: now.as_millis().saturating_sub(at - point.at.min(at)), ..point };
        Observed {
            history: history.chain(last.iter().copied()).map(told).collect(),
            latency: samples.times.iter().filter_map(|(by, times)| times.latency(by, monotonic)).collect(),
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

    const SECOND: Duration = Duration::from_secs(1);
    /// The wall clock tells the same as the monotonic one, later.
    const START: u64 = 1_700_000_000_000;

    fn observed(observer: &Observer, second: u32) -> Observed {
        let now = SECOND * second;
        observer.observed(now, Timestamp::from_millis(START + millis(now)))
    }

    #[test]
    fn history_has_a_point_for_five_seconds_and_ends_now() {
        let observer = Observer::new(Duration::ZERO);
        for second in 1..=1_000 {
            observer.answered(AnsweredBy::Service, SECOND * second);
        }
        let history = observed(&observer, 1_001).history;
        assert_eq!(history.len(), POINTS + 1);
        assert!(history.windows(2).take(POINTS - 1).all(|two| two[1].at - two[0].at == 5_000));
        let last = Point { at: START + 1_001_000, hits: 0, forwarded: 1_000, passed: 0 };
        assert_eq!(history.last(), Some(&last));
    }

    /// What passes is seen too, and a request counts in the step in which it came.
    #[test]
    fn every_request_moves_the_history() {
        let observer = Observer::new(Duration::ZERO);
        for second in 1..=60 {
            observer.passed(SECOND * second);
        }
        let history = observed(&observer, 60).history;
        assert!(history.windows(2).all(|two| two[1].passed - two[0].passed <= 6), "{history:?}");
        observer.answered(AnsweredBy::Service, SECOND * 200);
        let history = observed(&observer, 201).history;
        let before = history.iter().rev().find(|point| point.forwarded == 0).expect("a point before it");
        assert_eq!(before.at, START + 200_000);
    }

    /// A hundred requests in three seconds and a long pause are no slow trickle.
    #[test]
    fn a_pause_is_seen() {
        let observer = Observer::new(Duration::ZERO);
        (0..100).for_each(|_| observer.answered(AnsweredBy::Service, SECOND * 3));
        // While it lasts, and after it.
        for is_over in [false, true] {
            if is_over {
                observer.answered(AnsweredBy::Service, SECOND * 480);
            }
            let history = observed(&observer, 480).history;
            let busy: Vec<u64> = history
                .windows(2)
                .filter(|two| two[1].forwarded - two[0].forwarded == 100)
                .map(|two| two[1].at - two[0].at)
                .collect();
            assert_eq!(busy, [5_000], "{history:?}");
        }
    }

    #[test]
    fn a_clock_that_is_set_does_not_bend_the_history() {
        let observer = Observer::new(Duration::ZERO);
        for second in 1..=60 {
            observer.answered(AnsweredBy::Service, SECOND * second);
        }
        let history = observer.observed(SECOND * 60, Timestamp::from_millis(1_000)).history;
        assert!(history.windows(2).all(|two| two[0].at <= two[1].at), "{history:?}");
        assert_eq!(history.last().map(|last| last.at), Some(1_000));
    }

    #[test]
    fn times_are_of_the_last_minutes() {
        let observer = Observer::new(Duration::ZERO);
        let (key, by) = (CacheKey::builder("k").build(), AnsweredBy::Layer("moka".into()));
        let sample = |took, second| observer.sampled(&key, by, took, SECOND * second);
        sample(SECOND, 0);
        (0..99).for_each(|_| sample(Duration::from_micros(5), 61));
        let slowest = |second| {
            let latency = observed(&observer, second).latency;
            latency.first().map(|times| (times.answered_by, times.timed, times.max > 900_000.0))
        };
        assert_eq!(slowest(61), Some(("moka", 100, true)));
        // Nobody has asked this layer since.
        assert_eq!(slowest(121), Some(("moka", 99, false)));
        assert_eq!(slowest(181), None);
        sample(Duration::from_micros(5), 130);
        assert_eq!(slowest(130), Some(("moka", 100, false)));
        sample(Duration::from_micros(5), 1_000);
        assert_eq!(slowest(1_000), Some(("moka", 1, false)));
    }
}
