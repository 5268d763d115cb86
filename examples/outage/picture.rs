//! The screen as a moving picture, for the README: an SVG whose frames follow each other.

use std::fmt::Write;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::{Buffer, Cell};
use ratatui::style::{Color, Modifier};

use crate::Failure;
use crate::screen;
use crate::story::Story;
use crate::world::Redis;

const COLUMNS: u16 = 110;
const ROWS: u16 = 28;
/// The size of a cell, in pixels.
const WIDTH: f64 = 8.0;
const HEIGHT: f64 = 17.0;
/// How long a frame is shown, in seconds.
const SHOWN: usize = 1;

#[derive(Default)]
pub(crate) struct Picture {
    frames: Vec<Buffer>,
}

impl Picture {
    pub(crate) fn add(&mut self, story: &Story, redis: Redis) -> Result<(), Failure> {
        let mut terminal = Terminal::new(TestBackend::new(COLUMNS, ROWS))?;
        terminal.draw(|frame| screen::draw(frame, story, redis))?;
        self.frames.push(terminal.backend().buffer().clone());
        Ok(())
    }

    pub(crate) fn svg(&self) -> String {
        let (width, height) = (f64::from(COLUMNS) * WIDTH, f64::from(ROWS) * HEIGHT);
        let count = self.frames.len().max(1);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" shape-rendering=\"crispEdges\" role=\"img\" \
             aria-label=\"A terminal: Redis is killed, comes back and freezes, the process is restarted\">\n\
             <style>text{{font:14px ui-monospace,Menlo,Consolas,monospace;white-space:pre}}\
             .frame{{visibility:hidden;animation:frame {}s step-end infinite}}\
             @keyframes frame{{0%{{visibility:visible}}{:.3}%{{visibility:hidden}}}}\
             @media(prefers-reduced-motion){{.frame{{animation:none}}.frame:last-of-type{{visibility:visible}}}}</style>\n\
             <rect width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"#16181d\"/>\n",
            count * SHOWN,
            100.0 / count as f64,
        );
        for (at, frame) in self.frames.iter().enumerate() {
            let _ = writeln!(svg, "<g class=\"frame\" style=\"animation-delay:{}s\">", at * SHOWN);
            for row in 0..ROWS {
                draw_row(&mut svg, frame, row);
            }
            svg.push_str("</g>\n");
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// Neighbours that look the same are one text.
fn draw_row(svg: &mut String, frame: &Buffer, row: u16) {
    let mut at = 0;
    while at < COLUMNS {
        let first = &frame[(at, row)];
        let mut text = String::new();
        let start = at;
        while at < COLUMNS && look(&frame[(at, row)]) == look(first) {
            text.push_str(frame[(at, row)].symbol());
            at += 1;
        }
        draw_text(svg, &text, look(first), f64::from(start) * WIDTH, f64::from(row) * HEIGHT);
    }
}

/// How a cell looks: its color, whether that is behind the letter, and whether the letter is bold.
type Look = (&'static str, bool, bool);

fn look(cell: &Cell) -> Look {
    let color = match cell.fg {
        Color::Green => "#5fbf77",
        Color::Cyan => "#56b6c2",
        Color::Yellow => "#e0b04c",
        Color::Red => "#e5686d",
        _ if cell.modifier.contains(Modifier::DIM) => "#8a909c",
        _ => "#d7dae0",
    };
    (color, cell.modifier.contains(Modifier::REVERSED), cell.modifier.contains(Modifier::BOLD))
}

fn draw_text(svg: &mut String, text: &str, look: Look, x: f64, y: f64) {
    let (color, is_reversed, is_bold) = look;
    let columns = text.chars().count() as f64;
    if is_reversed {
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{HEIGHT}\" fill=\"{color}\"/>",
            columns * WIDTH
        );
    }
    // Bars are drawn, since fonts leave gaps between them: as many as are equal in one.
    let letters: Vec<char> = text.chars().collect();
    let mut at = 0;
    for equal in letters.chunk_by(|a, b| a == b) {
        let (x, width) = (x + at as f64 * WIDTH, equal.len() as f64 * WIDTH);
        at += equal.len();
        let Some(height) = height_of(equal[0]) else { continue };
        let y = y + HEIGHT - height;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{y:.1}\" width=\"{width}\" height=\"{height:.1}\" fill=\"{color}\"/>"
        );
    }
    let letters: String =
        letters.into_iter().map(|letter| if height_of(letter).is_some() { ' ' } else { letter }).collect();
    let shown = letters.trim_end();
    let skipped = shown.len() - shown.trim_start().len();
    let shown = shown.trim_start();
    if shown.is_empty() {
        return;
    }
    let x = x + skipped as f64 * WIDTH;
    let (length, y) = (shown.chars().count() as f64 * WIDTH, y + HEIGHT * 0.75);
    let color = if is_reversed { "#16181d" } else { color };
    let bold = if is_bold { " font-weight=\"bold\"" } else { "" };
    let escaped = shown.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        svg,
        "<text x=\"{x}\" y=\"{y:.1}\" fill=\"{color}\" textLength=\"{length}\"{bold}>{escaped}</text>"
    );
}

/// How high a letter is that is a bar.
fn height_of(letter: char) -> Option<f64> {
    let eighths = "▁▂▃▄▅▆▇█".chars().position(|bar| bar == letter)?;
    Some((eighths + 1) as f64 * HEIGHT / 8.0)
}
