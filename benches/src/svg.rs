//! Plots as SVG, for readers of light and of dark pages.

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;

/// What is drawn on.
pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// What plotters draws black on white, as a dark page has it. A rule is stronger than the attribute of an element.
const DARK: &str = "<style>@media (prefers-color-scheme: dark) { \
    [fill=\"#FFFFFF\"] { fill: #161b22 } [fill=\"#000000\"] { fill: #e6edf3 } \
    [stroke=\"#FFFFFF\"] { stroke: #161b22 } [stroke=\"#000000\"] { stroke: #8d96a0 } \
    }</style>";

/// A picture of this size, in pixels, that follows the colour scheme of its reader.
///
/// # Errors
/// That of who draws.
pub(crate) fn picture(
    size: (u32, u32),
    draw: impl FnOnce(&Area<'_>) -> Result<(), Box<dyn Error + Send + Sync>>,
) -> Result<String, Box<dyn Error + Send + Sync>> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE)?;
        draw(&area)?;
        area.present()?;
    }
    let (opening, rest) = svg.split_once('\n').ok_or("it has no elements")?;
    Ok(format!("{opening}\n{DARK}\n{rest}"))
}
