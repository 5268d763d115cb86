//! What was served by whom.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use hdrhistogram::Histogram;
use hitbox_backend::{Backend, CacheBackend, CompositionBackend};
use hitbox_core::{BackendLabel, ResponseSource};

/// Reads by the leaf that served them, with how long they took.
#[derive(Default)]
pub(crate) struct Served {
    /// Nanoseconds by path; misses under `None`.
    latencies: BTreeMap<Option<BackendLabel>, Option<Histogram<u64>>>,
    reads: BTreeMap<Option<BackendLabel>, u64>,
    pub(crate) failed_writes: u64,
    pub(crate) took: Duration,
}

impl Served {
    pub(crate) fn count(&mut self, source: Option<ResponseSource>, took: Duration) {
        let label = match source {
            Some(ResponseSource::Backend(label)) => Some(label),
            _ => None,
        };
        *self.reads.entry(label).or_default() += 1;
        let histogram = self.latencies.entry(label).or_insert_with(|| {
            // Up to a minute, in nanoseconds.
            Histogram::new_with_bounds(1, 60_000_000_000, 3).ok()
        });
        if let Some(histogram) = histogram {
            // Longer than the histogram reaches is counted at its end.
            histogram.saturating_record(took.as_nanos() as u64);
        }
    }

    fn percentile(&self, label: Option<BackendLabel>, percentile: f64) -> String {
        match self.latencies.get(&label) {
            Some(Some(histogram)) => {
                format!("{:.1}", histogram.value_at_percentile(percentile) as f64 / 1_000.0)
            }
            _ => "–".to_owned(),
        }
    }
}

pub(crate) fn show(cache: &CompositionBackend, served: &Served) {
    let total: u64 = served.reads.values().sum();
    let seconds = served.took.as_secs_f64();
    println!("{total} accesses in {seconds:.1} s, {:.0} per second\n", total as f64 / seconds);
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header([
        "leaf",
        "hits",
        "misses",
        "refills",
        "evictions",
        "entries",
        "bytes",
        "p50 µs",
        "p95 µs",
        "p99 µs",
    ]);
    let statistics = cache.snapshot();
    for leaf in statistics.leaves {
        let held = leaf.occupancy.unwrap_or_default();
        let known = |value: u64| if leaf.occupancy.is_some() { value.to_string() } else { "–".to_owned() };
        let label = Some(leaf.label);
        table.add_row([
            leaf.label.to_string(),
            leaf.hits.to_string(),
            leaf.misses.to_string(),
            leaf.refills.to_string(),
            known(held.evictions),
            known(held.entries),
            if leaf.occupancy.is_some() {
                indicatif::HumanBytes(held.bytes).to_string()
            } else {
                "–".to_owned()
            },
            served.percentile(label, 50.0),
            served.percentile(label, 95.0),
            served.percentile(label, 99.0),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}\n\nserved by");
    let paths: Vec<Option<BackendLabel>> = cache.layout().paths().map(Some).chain([None]).collect();
    let width = paths.iter().flatten().map(|path| path.as_str().len()).max().unwrap_or(0).max(8);
    for path in paths {
        let reads = served.reads.get(&path).copied().unwrap_or(0);
        let share = reads as f64 / total.max(1) as f64;
        let name = path.map_or("upstream", BackendLabel::as_str);
        println!(
            "  {name:<width$} {:<40} {:5.1} %",
            "█".repeat((share * 40.0).round() as usize),
            share * 100.0
        );
    }
    let errors = statistics.total.errors;
    if errors + served.failed_writes > 0 {
        println!("\n{errors} calls of layers failed, {} writes failed in all of them", served.failed_writes);
    }
}
