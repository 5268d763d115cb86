//! Counters copied to the installed recorder, durations recorded through handles that are made once there
//! is one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use hitbox_core::{BackendLabel, Clock};
use metrics::{Histogram, Key, Label, Level, Metadata, Unit};

use super::help::help_of;
use super::{Collector, Sample, Value};
use crate::leaf::LeafState;
use crate::stats::Event;

static METADATA: Metadata<'static> = Metadata::new("hitbox", Level::INFO, None);

/// A duration histogram, made when a recorder exists.
#[derive(Debug)]
pub(crate) struct Timer {
    name: &'static str,
    path: BackendLabel,
    handle: OnceLock<HistogramHandle>,
}

struct HistogramHandle(Histogram);

impl std::fmt::Debug for HistogramHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Histogram")
    }
}

impl Timer {
    fn new(name: &'static str, path: BackendLabel) -> Self {
        Self { name, path, handle: OnceLock::new() }
    }

    pub(crate) fn stop(&self, clock: &Arc<dyn Clock>, started: Duration) {
        let seconds = clock.monotonic().saturating_sub(started).as_secs_f64();
        if let Some(handle) = self.handle.get() {
            handle.0.record(seconds);
            return;
        }
        metrics::with_recorder(|recorder| {
            // The recorder that stands for "none" has no size; a handle from it would never record.
            if size_of_val(recorder) == 0 {
                return;
            }
            let key =
                Key::from_parts(self.name, vec![Label::from_static_parts("backend", self.path.as_str())]);
            recorder.describe_histogram(self.name.into(), Some(Unit::Seconds), help_of(self.name).into());
            let histogram = recorder.register_histogram(&key, &METADATA);
            histogram.record(seconds);
            let _ = self.handle.set(HistogramHandle(histogram));
        });
    }
}

#[derive(Debug)]
pub(crate) struct Timers {
    pub(crate) read: Timer,
    pub(crate) write: Timer,
    pub(crate) remove: Timer,
    pub(crate) serialize: Timer,
    pub(crate) deserialize: Timer,
    pub(crate) compress: Timer,
    pub(crate) decompress: Timer,
}

impl Timers {
    pub(crate) fn new(path: BackendLabel) -> Self {
        Self {
            read: Timer::new("hitbox_backend_read_duration_seconds", path),
            write: Timer::new("hitbox_backend_write_duration_seconds", path),
            remove: Timer::new("hitbox_backend_remove_duration_seconds", path),
            serialize: Timer::new("hitbox_backend_serialize_duration_seconds", path),
            deserialize: Timer::new("hitbox_backend_deserialize_duration_seconds", path),
            compress: Timer::new("hitbox_backend_compress_duration_seconds", path),
            decompress: Timer::new("hitbox_backend_decompress_duration_seconds", path),
        }
    }

    pub(crate) fn start(clock: &Arc<dyn Clock>) -> Duration {
        clock.monotonic()
    }
}

static COLLECTORS: Mutex<Vec<Weak<dyn Collector>>> = Mutex::new(Vec::new());

pub(crate) fn register_leaf(leaf: &Arc<LeafState>) {
    let weak: Weak<LeafState> = Arc::downgrade(leaf);
    register_collector(weak);
}

/// Has [`publish`] show these counters for as long as they exist.
pub fn register_collector(collector: Weak<dyn Collector>) {
    let mut collectors = COLLECTORS.lock().unwrap_or_else(PoisonError::into_inner);
    collectors.retain(|collector| collector.strong_count() > 0);
    collectors.push(collector);
}

/// Copies every counter of every leaf, composition and offload to the installed recorder. Call it before
/// the recorder is read: on each scrape, or from a timer.
pub fn publish() {
    let collectors: Vec<Arc<dyn Collector>> = {
        let collectors = COLLECTORS.lock().unwrap_or_else(PoisonError::into_inner);
        collectors.iter().filter_map(Weak::upgrade).collect()
    };
    // Several views may show one series: a store that two compositions label alike. They add up.
    let mut sums = BTreeMap::new();
    let mut helps = BTreeMap::new();
    for collector in collectors {
        collector.collect(&mut |Sample { name, labels, value }| {
            let (value, is_gauge) = match value {
                Value::Counter(value) => (value, false),
                Value::Gauge(value) => (value, true),
            };
            *sums.entry((name, labels, is_gauge)).or_insert(0) += value;
            helps.entry((name, is_gauge)).or_insert_with(|| match collector.help(name) {
                "" => help_of(name),
                help => help,
            });
        });
    }
    metrics::with_recorder(|recorder| {
        for ((name, is_gauge), help) in helps {
            if is_gauge {
                recorder.describe_gauge(name.into(), None, help.into());
            } else {
                recorder.describe_counter(name.into(), None, help.into());
            }
        }
        for ((name, labels, is_gauge), value) in sums {
            let labels = labels.iter().filter(|label| !label.0.is_empty());
            let labels: Vec<Label> = labels.map(|(k, v)| Label::from_static_parts(k, v)).collect();
            let key = Key::from_parts(name, labels);
            if is_gauge {
                recorder.register_gauge(&key, &METADATA).set(value as f64);
            } else {
                recorder.register_counter(&key, &METADATA).absolute(value);
            }
        }
    });
}

impl Collector for LeafState {
    fn collect(&self, add: &mut dyn FnMut(Sample)) {
        let path = self.path.as_str();
        let counters = &self.counters;
        if self.is_placed() && counters.is_zero() {
            // It stands in a composition, which shows it under its whole path.
            return;
        }
        let mut counter = |name, label, value| {
            add(Sample { name, labels: [("backend", path), label], value: Value::Counter(value) });
        };
        let get = |event| counters.get(event);
        let (hits, misses, stale) = (get(Event::Hit), get(Event::Miss), get(Event::Stale));
        let none = ("", "");
        counter("hitbox_backend_read_total", none, hits + misses + stale + get(Event::ReadError));
        counter(
            "hitbox_backend_write_total",
            none,
            get(Event::Write) + get(Event::Refill) + get(Event::WriteError),
        );
        counter("hitbox_backend_remove_total", none, get(Event::Remove) + get(Event::RemoveError));
        counter("hitbox_backend_hit_total", none, hits);
        counter("hitbox_backend_miss_total", none, misses);
        counter("hitbox_backend_stale_total", none, stale);
        counter("hitbox_backend_read_bytes_total", none, get(Event::BytesRead));
        counter("hitbox_backend_write_bytes_total", none, get(Event::BytesWritten));
        for (event, reason) in [
            (Event::Outdated, "outdated"),
            (Event::Invalidated, "invalidated"),
            (Event::Damaged, "damaged"),
            (Event::Foreign, "foreign"),
            (Event::Undecodable, "undecodable"),
            (Event::Dirty, "dirty"),
        ] {
            counter("hitbox_backend_unusable_total", ("reason", reason), get(event));
        }
        counter("hitbox_backend_unserved_total", none, get(Event::Unserved));
        counter("hitbox_backend_version_mismatch_total", none, get(Event::VersionMismatch));
        counter("hitbox_backend_not_admitted_total", none, get(Event::NotAdmitted));
        for (event, presence) in
            [(Event::Present, "present"), (Event::Absent, "absent"), (Event::Maybe, "maybe")]
        {
            counter("hitbox_backend_lookup_total", ("presence", presence), get(event));
        }
        counter("hitbox_filter_answered_total", none, get(Event::Filtered));
        counter("hitbox_filter_false_positive_total", none, get(Event::FalsePositive));
        counter("hitbox_backend_compress_input_bytes_total", none, get(Event::CompressIn));
        counter("hitbox_backend_compress_output_bytes_total", none, get(Event::CompressOut));
        counter("hitbox_backend_compress_skipped_total", none, get(Event::CompressSkipped));
        counter("hitbox_invalidation_total", none, get(Event::Invalidation));
        counter("hitbox_refill_installed_total", none, get(Event::Refill));
        counter("hitbox_refill_superseded_total", none, get(Event::RefillSuperseded));
        const ERRORS: [&str; 3] = [
            "hitbox_backend_read_errors_total",
            "hitbox_backend_write_errors_total",
            "hitbox_backend_remove_errors_total",
        ];
        counters.each_error(|operation, kind, count| counter(ERRORS[operation], ("kind", kind), count));
        let Some(names) = &self.gauges else { return };
        let Some(held) = self.occupancy() else { return };
        let labels = [("backend", path), none];
        add(Sample { name: names.entries, labels, value: Value::Gauge(held.entries) });
        add(Sample { name: names.bytes, labels, value: Value::Gauge(held.bytes) });
        add(Sample { name: names.evictions, labels, value: Value::Counter(held.evictions) });
        add(Sample { name: names.expirations, labels, value: Value::Counter(held.expirations) });
    }
}

/// A Prometheus recorder that shows the counters as they are when it is asked.
#[cfg(feature = "prometheus")]
#[derive(Clone)]
pub struct PrometheusExport(metrics_exporter_prometheus::PrometheusHandle);

/// Installs a Prometheus recorder for the process.
///
/// # Errors
/// If another recorder is installed.
#[cfg(feature = "prometheus")]
pub fn prometheus() -> hitbox_core::BackendResult<PrometheusExport> {
    use hitbox_core::{BackendError, ErrorKind};
    use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
    let durations = Matcher::Suffix("_duration_seconds".to_owned());
    PrometheusBuilder::new()
        .set_buckets_for_metric(durations, &BUCKETS)
        .and_then(PrometheusBuilder::install_recorder)
        .map(PrometheusExport)
        .map_err(|error| {
            BackendError::new(ErrorKind::Configuration, "no recorder could be installed").with_source(error)
        })
}

/// Seconds: from what a copy in the page cache takes to what nobody should wait for.
#[cfg(feature = "prometheus")]
const BUCKETS: [f64; 16] =
    [1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.5, 1.0, 10.0];

#[cfg(feature = "prometheus")]
impl PrometheusExport {
    /// The text that a scrape is answered with.
    pub fn render(&self) -> String {
        publish();
        self.0.render()
    }
}

#[cfg(feature = "prometheus")]
impl std::fmt::Debug for PrometheusExport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrometheusExport")
    }
}
