//! What has happened so far.

use std::collections::VecDeque;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::Failure;
use crate::service::{Layer, TICK, Tick};
use crate::world::Redis;

/// As many ticks as the screen has room for.
const SHOWN: usize = 400;
const NOTES: usize = 4;
/// Ticks of a second: rates are of the last one.
const SECOND: usize = (1_000 / TICK.as_millis()) as usize;

/// A tick as it is written.
#[derive(Serialize)]
struct Written {
    seconds: f64,
    calls: u64,
    failures: u64,
    hits: u64,
    source_calls: u64,
    p50_us: u64,
    p99_us: u64,
}

#[derive(Default)]
pub(crate) struct Story {
    /// The oldest first.
    pub(crate) ticks: VecDeque<Tick>,
    seen: usize,
    calls: u64,
    failures: u64,
    /// What was done, and when; the oldest first.
    notes: VecDeque<(Duration, String)>,
    /// Every tick, to be written.
    all: Vec<Written>,
}

/// One second, layers and source.
pub(crate) struct Second {
    pub(crate) calls: u64,
    pub(crate) failures: u64,
    pub(crate) source_calls: u64,
    /// In microseconds, the worst tick's.
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) layers: Vec<Layer>,
}

impl Second {
    /// How many of a hundred calls `some` are.
    pub(crate) fn percent(&self, some: u64) -> f64 {
        some as f64 * 100.0 / self.calls.max(1) as f64
    }

    /// How many of a hundred calls the cache has answered.
    pub(crate) fn hit_percent(&self) -> f64 {
        self.percent(self.layers.iter().map(|layer| layer.hits).sum()).min(100.0)
    }
}

impl Story {
    pub(crate) fn add(&mut self, tick: Tick) {
        self.seen += 1;
        self.calls += tick.calls;
        self.failures += tick.failures;
        self.all.push(Written {
            seconds: self.now().as_secs_f64(),
            calls: tick.calls,
            failures: tick.failures,
            hits: tick.hits(),
            source_calls: tick.source_calls,
            p50_us: tick.p50,
            p99_us: tick.p99,
        });
        self.ticks.push_back(tick);
        if self.ticks.len() > SHOWN {
            self.ticks.pop_front();
        }
    }

    pub(crate) fn note(&mut self, what: String) {
        self.notes.push_back((self.now(), what));
        if self.notes.len() > NOTES {
            self.notes.pop_front();
        }
    }

    pub(crate) fn notes(&self) -> impl Iterator<Item = String> {
        self.notes.iter().map(|(at, what)| format!("{} {what}", clock(*at)))
    }

    fn now(&self) -> Duration {
        TICK * u32::try_from(self.seen).unwrap_or(u32::MAX)
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
    pub(crate) fn second(&self) -> Second {
        let ticks = self.ticks.iter().rev().take(SECOND);
        let mut second =
            Second { calls: 0, failures: 0, source_calls: 0, p50: 0, p99: 0, layers: Vec::new() };
        for tick in ticks {
            second.calls += tick.calls;
            second.failures += tick.failures;
            second.source_calls += tick.source_calls;
            second.p50 = second.p50.max(tick.p50);
            second.p99 = second.p99.max(tick.p99);
            if second.layers.is_empty() {
                second.layers.clone_from(&tick.layers);
                continue;
            }
            for (sum, layer) in second.layers.iter_mut().zip(&tick.layers) {
                sum.hits += layer.hits;
                sum.errors += layer.errors;
            }
        }
        second
    }

    /// The last second as a line.
    pub(crate) fn line(&self, redis: Redis) -> String {
        let second = self.second();
        let mut line = format!("{} Redis {:<6}", self.time(), format!("{redis:?}").to_lowercase());
        for layer in &second.layers {
            let _ = write!(line, " {} {:>5.1} %", layer.path, second.percent(layer.hits));
        }
        let (p50, p99) = (duration(second.p50), duration(second.p99));
        let _ = write!(line, " | source {:>4}/s", second.source_calls);
        let _ = write!(
            line,
            " | {:>5} calls/s, {} failed, half within {p50}, 99 % within {p99}",
            second.calls, second.failures
        );
        line
    }

    /// Writes all ticks as JSON.
    pub(crate) fn write_ticks(&self, file: &Path) -> Result<(), Failure> {
        Ok(std::fs::write(file, serde_json::to_string(&self.all)?)?)
    }
}

pub(crate) fn duration(micros: u64) -> String {
    if micros < 1_000 { format!("{micros} µs") } else { format!("{:.1} ms", micros as f64 / 1_000.0) }
}

fn clock(since: Duration) -> String {
    format!("{:02}:{:02}", since.as_secs() / 60, since.as_secs() % 60)
}
