//! One bar chart per subject, as SVG.

use std::path::Path;

use plotters::prelude::*;

use crate::measure::Measured;
use crate::svg;

const WIDTH: u32 = 900;
const BAR: u32 = 34;
const MARGIN: u32 = 110;
/// Room for the names of operations.
const NAMES: u32 = 260;

/// Draws the operations of a subject: instructions if they were counted, else nanoseconds. Where the largest is
/// over thirty times the smallest, the scale is logarithmic.
///
/// # Errors
/// If the file cannot be written.
pub fn draw(measured: &Measured, path: &Path) -> Result<(), String> {
    let counted = measured.costs.iter().all(|cost| cost.counts.is_some());
    let value = |cost: &crate::measure::Cost| match cost.counts {
        Some(counts) if counted => counts.instructions,
        _ => cost.median(),
    };
    let unit = if counted { "instructions per operation" } else { "nanoseconds per operation" };
    let values: Vec<f64> = measured.costs.iter().map(value).collect();
    let max = values.iter().copied().fold(0.0, f64::max);
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    let logarithmic = max > 30.0 * min;
    let height = MARGIN + BAR * values.len() as u32;
    let scale = if logarithmic { ", logarithmic" } else { "" };
    let title = format!("{} ({unit}{scale})", measured.title);
    let black = |size: u32| ("sans-serif", size).into_font().color(&BLACK);
    let room = f64::from(WIDTH - NAMES - 110);
    let length = |value: f64| {
        let share = if logarithmic { (value / min * 2.0).ln() / (max / min * 2.0).ln() } else { value / max };
        (room * share).max(1.0) as i32
    };
    let reference = values.first().copied().unwrap_or(1.0);
    let picture = svg::picture((WIDTH, height), |area| {
        area.draw(&Text::new(title, (20, 20), black(20)))?;
        for (index, (cost, value)) in measured.costs.iter().zip(&values).enumerate() {
            let top = (60 + BAR * index as u32) as i32;
            let bottom = top + BAR as i32 - 10;
            let left = NAMES as i32;
            let color = match cost.operation.starts_with("peer:") {
                _ if index == 0 => RGBColor(120, 120, 120),
                true => RGBColor(214, 142, 60),
                false => RGBColor(38, 108, 180),
            };
            let bar = Rectangle::new([(left, top), (left + length(*value), bottom)], color.filled());
            area.draw(&bar)?;
            let name = Text::new(cost.operation.clone(), (20, top + 4), black(15));
            area.draw(&name)?;
            let said = format!("{value:.0}   ×{:.2}", value / reference);
            let number = Text::new(said, (left + length(*value) + 8, top + 4), black(15));
            area.draw(&number)?;
        }
        Ok(())
    });
    let picture = picture.map_err(|error| format!("{}: {error}", path.display()))?;
    std::fs::write(path, picture).map_err(|error| format!("{}: {error}", path.display()))
}
