//! The `metrics` crate's view of the counters. Counters are ours; `publish` copies them to whatever
//! recorder is installed, whenever it was installed. Durations are recorded as they are measured.
//! Without the feature `metrics` all of this is empty and no clock is read.

#[cfg(feature = "metrics")]
mod export;
#[cfg(feature = "metrics")]
mod help;
#[cfg(not(feature = "metrics"))]
mod off;

#[cfg(feature = "metrics")]
pub use export::publish;
#[cfg(feature = "metrics")]
pub use export::register_collector;
#[cfg(feature = "prometheus")]
pub use export::{PrometheusExport, prometheus};
#[cfg(feature = "metrics")]
pub(crate) use export::{Timer, Timers, register_leaf};
#[cfg(not(feature = "metrics"))]
pub use off::register_collector;
#[cfg(not(feature = "metrics"))]
pub(crate) use off::{Timer, Timers, register_leaf};

/// Has counters to show.
pub trait Collector: Send + Sync {
    /// Every counter with its name, labels and value.
    fn collect(&self, add: &mut dyn FnMut(Sample));

    /// What a series is, in a sentence; empty if it is none of this collector's own.
    fn help(&self, name: &str) -> &'static str {
        let _ = name;
        ""
    }
}

/// One series.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Its name.
    pub name: &'static str,
    /// Names and values of its labels; an empty name stands for no label.
    pub labels: [(&'static str, &'static str); 2],
    /// Its value.
    pub value: Value,
}

/// Counters grow, gauges go up and down.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    /// Since the start.
    Counter(u64),
    /// Now.
    Gauge(u64),
}

/// The names of a store's gauges, `hitbox_<store>_…`.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "read only by the exporter"))]
pub(crate) struct GaugeNames {
    pub(crate) entries: &'static str,
    pub(crate) bytes: &'static str,
    pub(crate) evictions: &'static str,
    pub(crate) expirations: &'static str,
}

impl GaugeNames {
    pub(crate) fn of(store: &str) -> Self {
        let name = |what: &str| hitbox_core::BackendLabel::new(&format!("hitbox_{store}_{what}")).as_str();
        Self {
            entries: name("entries"),
            bytes: name("size_bytes"),
            evictions: name("evictions_total"),
            expirations: name("expirations_total"),
        }
    }
}
