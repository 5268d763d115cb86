//! What has happened so far.

use std::collections::VecDeque;
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::Failure;
use crate::service::{TICK, Tick};
use crate::world::{Action, Redis};

/// As many ticks as the screen has room for.
const SHOWN: usize = 400;
/// Ticks of a second: rates are of the last one.
const SECOND: usize = (1_000 / TICK.as_millis()) as usize;

pub(crate) struct Story {
    began: Instant,
    /// The last of them, the oldest first.
    pub(crate) ticks: VecDeque<Tick>,
    /// When each of these was told.
    told: VecDeque<Duration>,
    seen: usize,
    calls: u64,
    failures: u64,
    /// What was done, and when; the oldest first.
    pub(crate) done: Vec<(Duration, Action)>,
}

impl Default for Story {
    fn default() -> Self {
        let (ticks, told) = (VecDeque::new(), VecDeque::new());
        Self { began: Instant::now(), ticks, told, seen: 0, calls: 0, failures: 0, done: Vec::new() }
    }
}

impl Story {
    pub(crate) fn add(&mut self, tick: Tick) {
        self.seen += 1;
        self.calls += tick.calls;
        self.failures += tick.failures;
        self.told.push_back(self.now());
        self.ticks.push_back(tick);
        if self.ticks.len() > SHOWN {
            self.ticks.pop_front();
            self.told.pop_front();
        }
    }

    pub(crate) fn note(&mut self, action: Action) {
        self.done.push((self.now(), action));
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn time(&self) -> String {
        clock(self.now())
    }

    pub(crate) fn ticks_seen(&self) -> usize {
        self.seen
    }

    pub(crate) fn calls(&self) -> u64 {
        self.calls
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures
    }

    /// The last second, or what there is of it.
    pub(crate) fn second(&self) -> Tick {
        let mut ticks = self.ticks.iter().rev().take(SECOND);
        let last = ticks.next().cloned().unwrap_or_default();
        ticks.fold(last, Tick::and)
    }

    /// The last second as a line.
    pub(crate) fn line(&self, redis: Redis) -> String {
        let second = self.second();
        let mut line = format!("{} Redis {:<6}", self.time(), format!("{redis:?}").to_lowercase());
        for layer in &second.layers {
            let _ = write!(line, " {} {:>5.1} %", layer.path, second.percent(layer.hits));
        }
        let (p50, p99) = (duration(second.p50_us), duration(second.p99_us));
        let _ = write!(line, " | source {:>4}/s", second.source_calls);
        let _ = write!(
            line,
            " | {:>5} calls/s, {} failed, half within {p50}, 99 % within {p99}",
            second.calls, second.failures
        );
        line
    }

    /// Writes the ticks that there are, and what was done, as JSON.
    pub(crate) fn write(&self, file: &Path) -> Result<(), Failure> {
        #[derive(Serialize)]
        struct Timed<'t> {
            seconds: f64,
            hits: u64,
            #[serde(flatten)]
            tick: &'t Tick,
        }
        let timed = self.ticks.iter().zip(&self.told).map(|(tick, told)| Timed {
            seconds: told.as_secs_f64(),
            hits: tick.hits(),
            tick,
        });
        let done = self.done.iter().map(|(at, action)| (at.as_secs_f64(), action.word()));
        let written = serde_json::json!({
            "ticks": timed.collect::<Vec<_>>(),
            "done": done.collect::<Vec<_>>(),
        });
        Ok(std::fs::write(file, written.to_string())?)
    }
}

pub(crate) fn duration(micros: u64) -> String {
    if micros < 1_000 { format!("{micros} µs") } else { format!("{:.1} ms", micros as f64 / 1_000.0) }
}

pub(crate) fn clock(since: Duration) -> String {
    format!("{:02}:{:02}", since.as_secs() / 60, since.as_secs() % 60)
}
