//! Statistics as a table.

use comfy_table::{CellAlignment, Table, presets};

use super::{LeafStatistics, Occupancy};

/// A row for each of them.
pub(super) fn of<'l>(leaves: impl Iterator<Item = &'l LeafStatistics>) -> String {
    const HEADER: [&str; 14] = [
        "leaf", "hits", "stale", "misses", "hit %", "writes", "refills", "removes", "errors", "unusable",
        "evicted", "expired", "entries", "bytes",
    ];
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(HEADER);
    for leaf in leaves {
        let found = leaf.hits + leaf.stale_hits;
        let share = match found + leaf.misses {
            0 => "-".to_owned(),
            reads => format!("{:.1}", found as f64 * 100.0 / reads as f64),
        };
        let held = |fact: fn(&Occupancy) -> u64| {
            leaf.occupancy.as_ref().map_or_else(|| "-".to_owned(), |held| fact(held).to_string())
        };
        table.add_row([
            leaf.label.to_string(),
            leaf.hits.to_string(),
            leaf.stale_hits.to_string(),
            leaf.misses.to_string(),
            share,
            leaf.writes.to_string(),
            leaf.refills.to_string(),
            leaf.removes.to_string(),
            leaf.errors.to_string(),
            leaf.unusable.to_string(),
            held(|o| o.evictions),
            held(|o| o.expirations),
            held(|o| o.entries),
            held(|o| o.bytes),
        ]);
    }
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table.trim_fmt()
}
