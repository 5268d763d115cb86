//! Tables for people.

use comfy_table::{CellAlignment, Table, presets};

use crate::measure::{Measured, time_ratio};

/// One subject: cost per operation, ratios to the first one, and what has to hold.
pub fn table(measured: &Measured) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    let counted = measured.costs.iter().any(|cost| cost.counts.is_some());
    let mut header = vec!["operation", "median ns", "min – max", "× time"];
    if counted {
        header.extend(["instructions", "× instructions", "allocations"]);
    }
    table.set_header(header);
    let Some(reference) = measured.costs.first() else { return String::new() };
    for cost in &measured.costs {
        let (min, max) = cost.range();
        let mut row = vec![
            cost.operation.clone(),
            format!("{:.1}", cost.median()),
            format!("{min:.1} – {max:.1}"),
            format!("{:.2}", time_ratio(cost, reference)),
        ];
        if counted {
            let ratio = cost.counts.zip(reference.counts).map(|(a, b)| a.instructions / b.instructions);
            let show = |number: Option<f64>, digits: usize| {
                number.map_or_else(String::new, |number| format!("{number:.digits$}"))
            };
            row.push(show(cost.counts.map(|counts| counts.instructions), 0));
            row.push(show(ratio, 2));
            row.push(show(cost.counts.map(|counts| counts.allocations), 2));
        }
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = format!("{}\n{table}\n", measured.title);
    for line in verdicts(measured) {
        text += &format!("{line}\n");
    }
    text
}

/// Each target with what was measured.
pub fn verdicts(measured: &Measured) -> Vec<String> {
    let verdict = |target: &crate::measure::Target| {
        let ratio = measured.ratio(&target.operation, &target.reference)?;
        let mark = if ratio <= target.at_most { "met" } else { "MISSED" };
        let (operation, reference) = (&target.operation, &target.reference);
        Some(format!("{mark}: {operation} ÷ {reference} = {ratio:.2}, at most {:.2}", target.at_most))
    };
    measured.targets.iter().filter_map(verdict).collect()
}
