//! The `metrics` crate's view of the counters. Counters are ours; [`publish`] copies them to whatever
//! recorder is installed, whenever it was installed. Durations are recorded as they are measured.
//! Without the feature `metrics` all of this is empty and no clock is read.

#[cfg(feature = "metrics")]
mod export;
#[cfg(not(feature = "metrics"))]
mod off;

#[cfg(feature = "metrics")]
pub use export::publish;
#[cfg(feature = "prometheus")]
pub use export::{PrometheusExport, prometheus};
#[cfg(feature = "metrics")]
pub(crate) use export::{Timer, Timers, register, register_source};
#[cfg(not(feature = "metrics"))]
pub(crate) use off::{Timer, Timers, register, register_source};

/// Has counters to show.
pub(crate) trait Source: Send + Sync {
    /// Every counter with its name, labels and value.
    #[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "asked only by the exporter"))]
    fn each(&self, show: &mut dyn FnMut(Shown));
}

/// One series.
#[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "read only by the exporter"))]
pub(crate) struct Shown {
    pub(crate) name: &'static str,
    pub(crate) labels: [(&'static str, &'static str); 2],
    pub(crate) value: Value,
}

/// Counters grow, gauges go up and down.
#[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "read only by the exporter"))]
pub(crate) enum Value {
    Counter(u64),
    Gauge(u64),
}

/// The names of a store's gauges, `hitbox_<store>_…`.
#[derive(Debug)]
#[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "read only by the exporter"))]
pub(crate) struct StoreNames {
    pub(crate) entries: &'static str,
    pub(crate) bytes: &'static str,
    pub(crate) evictions: &'static str,
}

impl StoreNames {
    pub(crate) fn of(store: &str) -> Self {
        let name = |what: &str| hitbox_core::BackendLabel::new(&format!("hitbox_{store}_{what}")).as_str();
        Self { entries: name("entries"), bytes: name("size_bytes"), evictions: name("evictions_total") }
    }
}
