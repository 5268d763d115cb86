//! The book's page for users: what they gain and pay, as a few plots that say what their bars are.

use std::fmt::Write;
use std::path::Path;

use plotters::prelude::*;
use serde::{Deserialize, Serialize};

use crate::measure::Measured;
use crate::replay::Replayed;
use crate::stampede::{self, Stampeded};
use crate::svg::{self, Area};

/// What it takes to build something: a program with these dependencies and nothing else.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Weight {
    /// The dependencies.
    pub name: String,
    /// Crates that are compiled.
    pub crates: u64,
    /// Processor seconds of a debug build from nothing.
    pub seconds: f64,
    /// The name of what it is compared with, and how many times as many seconds it may take.
    pub at_most: Option<(String, f64)>,
}

/// What the example `outage` writes.
#[derive(Clone, Debug, Deserialize)]
pub struct Outage {
    /// The oldest first.
    pub ticks: Vec<Tick>,
    /// Seconds since the start, and what was done then.
    pub done: Vec<(f64, String)>,
}

/// One tick of it.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Tick {
    /// Since the start.
    pub seconds: f64,
    /// Calls.
    pub calls: u64,
    /// Those that failed.
    pub failures: u64,
    /// Those that the cache answered.
    pub hits: u64,
    /// Calls of the source.
    pub source_calls: u64,
    /// Half of the calls took no longer, in microseconds.
    pub p50_us: u64,
    /// 99 of 100 took no longer, in microseconds.
    pub p99_us: u64,
}

/// All that the page is made of.
pub struct Results<'r> {
    /// Costs of operations.
    pub measured: &'r [Measured],
    /// A real trace.
    pub replayed: &'r [Replayed],
    /// Stampedes.
    pub stampeded: &'r [Stampeded],
    /// Builds.
    pub weights: &'r [Weight],
    /// An outage of Redis.
    pub outage: &'r Outage,
}

struct Bar {
    name: String,
    value: f64,
    text: String,
    color: RGBColor,
}

const OURS: RGBColor = RGBColor(38, 108, 180);
const OTHERS: RGBColor = RGBColor(196, 132, 64);
const WIDTH: u32 = 860;
const ROW: u32 = 30;
const HEAD: u32 = 44;
/// Room for names, and for what is said behind a bar.
const NAMES: u32 = 300;
const SAID: u32 = 110;

/// Writes `benchmarks.md` and its plots into the book's folder.
///
/// # Errors
/// If a file cannot be written.
pub fn write(results: &Results<'_>, book: &Path) -> Result<(), String> {
    let pictures = book.join("pictures");
    let page = [
        INTRODUCTION.to_owned(),
        hits(results.measured, &pictures)?,
        stampedes(results.stampeded, &pictures)?,
        outage(results.outage, &pictures)?,
        ratios(results.replayed, &pictures)?,
        weights(results.weights),
        END.to_owned(),
    ]
    .concat();
    let path = book.join("benchmarks.md");
    std::fs::write(&path, page).map_err(|error| format!("{}: {error}", path.display()))
}

const INTRODUCTION: &str = "# Benchmarks

What you gain and what you pay, beside what you might use instead. In the bar charts **blue is hitbox**, and each other bar says what it is. Each picture is
of one run on one machine with two processors: compare bars within it, and measure on your own machine before you decide.
";

const END: &str = "
## Measure it yourself

`cargo xtask bench` measures all of this, and writes this page. What each path may cost is guarded in CI by counts of
instructions, which do not depend on the machine; those, all operations and what is not met stand in `docs/performance.md`.
";

fn hits(measured: &[Measured], pictures: &Path) -> Result<String, String> {
    let hit = measured.iter().find(|measured| measured.subject == "hit");
    let hit = hit.ok_or("the subject hit was not measured")?;
    let rows = [
        ("peer: quick_cache", "quick_cache"),
        ("quick, one composition", "hitbox: quick_cache over another layer"),
        ("peer: foyer, memory", "foyer, memory"),
        ("moka, its default hasher", "moka"),
        ("one composition", "hitbox: moka over another layer"),
        ("three levels", "hitbox: three layers, moka first"),
        ("peer: multi-tier-cache, L1 (bytes)", "multi-tier-cache"),
        ("peer: cachet, memory over memory", "cachet"),
        ("peer: hitbox 0.2, one composition", "hitbox 0.2"),
    ];
    let bars = rows.iter().map(|(operation, name)| {
        let cost = hit.costs.iter().find(|cost| cost.operation == *operation);
        let value = cost.ok_or(format!("{operation} was not measured"))?.median();
        let color = if name.starts_with("hitbox:") { OURS } else { OTHERS };
        Ok(Bar { name: (*name).to_owned(), value, text: format!("{value:.0} ns"), color })
    });
    let mut bars = bars.collect::<Result<Vec<_>, String>>()?;
    bars.sort_by(|one, other| one.value.total_cmp(&other.value));
    draw_bars("A hit in memory, in nanoseconds: shorter is better", &bars, &pictures.join("bench-hit.svg"))?;
    Ok("
## A hit in memory

![Nanoseconds of a hit, per cache](pictures/bench-hit.svg)

A hit of the first layer costs the same with one layer behind it or with two: what stands below is not touched. Beside bare moka a hit
carries its times, tags and invalidations, and says which layer it is from.
"
    .to_owned())
}

fn stampedes(stampeded: &[Stampeded], pictures: &Path) -> Result<String, String> {
    let bar = |stampeded: &Stampeded| {
        let (name, is_ours) = name_of(&stampeded.name);
        let course = &stampeded.headless;
        let calls = if course.loads == 1 { "1 call".to_owned() } else { format!("{} calls", course.loads) };
        let hang = if course.hang > 0 { format!(", {} hang", course.hang) } else { String::new() };
        Bar { name, value: course.loads as f64, text: format!("{calls}{hang}"), color: color(is_ours) }
    };
    let bars: Vec<_> = stampeded.iter().map(bar).collect();
    let title =
        format!("{} tasks ask for one cold key, the first goes away: calls of the source", stampede::TASKS);
    draw_bars(&title, &bars, &pictures.join("bench-stampede.svg"))?;
    Ok(format!(
        "
## A stampede

![Calls of the source, per cache](pictures/bench-stampede.svg)

{} tasks ask for the same key at the same time, of a source that takes {} ms, and the one that came first is cancelled: a client that has
closed its connection. One call is enough, and everybody else gets its answer.
",
        stampede::TASKS,
        stampede::SOURCE.as_millis()
    ))
}

fn ratios(replayed: &[Replayed], pictures: &Path) -> Result<String, String> {
    let bar = |replayed: &Replayed| {
        let (name, is_ours) = name_of(&replayed.name);
        let ratio = replayed.hits as f64 / replayed.accesses as f64 * 100.0;
        Bar { name, value: ratio, text: format!("{ratio:.1} %"), color: color(is_ours) }
    };
    let bars: Vec<_> = replayed.iter().map(bar).collect();
    draw_bars(
        "Hits of 100 accesses of a real trace: longer is better",
        &bars,
        &pictures.join("bench-trace.svg"),
    )?;
    Ok("
## Hits of a real trace

![Hit ratio on a trace, per cache](pictures/bench-trace.svg)

Accesses of a disk that many virtual machines share, with the same room in memory and on disk for all. The eviction of memory is moka's or
quick_cache's own; foyer fills its disk with what memory evicts, hitbox with every write.
"
    .to_owned())
}

/// As a reader knows it, and whether it is ours.
fn name_of(name: &str) -> (String, bool) {
    match name.strip_prefix("peer: ") {
        Some(peer) => (peer.to_owned(), false),
        None if name.starts_with("hitbox") => (name.replacen("hitbox, ", "hitbox: ", 1), true),
        None => (format!("hitbox: {name}"), true),
    }
}

const fn color(is_ours: bool) -> RGBColor {
    if is_ours { OURS } else { OTHERS }
}

fn outage(outage: &Outage, pictures: &Path) -> Result<String, String> {
    let Outage { ticks, done } = outage;
    draw_outage(ticks, done, &pictures.join("bench-outage.svg"))?;
    let calls: u64 = ticks.iter().map(|tick| tick.calls).sum();
    let failures: u64 = ticks.iter().map(|tick| tick.failures).sum();
    let source_calls: u64 = ticks.iter().map(|tick| tick.source_calls).sum();
    Ok(format!(
        "
## An outage

![What calls take while Redis is away](pictures/bench-outage.svg)

A service caches in memory, over Redis (with a deadline of 30 ms), over disk; its source takes 25 ms. Redis is killed, started empty, frozen
and thawed, everything is invalidated, and the process is killed, with those that call within it, and started again. Of {calls} calls that were
answered {failures} got an error, and {source_calls} went to the source. `cargo run --release --example outage` shows it live.
"
    ))
}

/// A line over the seconds of the outage. While nobody calls there is none.
struct Line {
    name: &'static str,
    color: RGBColor,
    pieces: Vec<Vec<(f64, f64)>>,
}

impl Line {
    fn of(ticks: &[Tick], name: &'static str, color: RGBColor, value: fn(&Tick) -> f64) -> Self {
        let pieces = ticks.split(|tick| tick.calls == 0).filter(|piece| !piece.is_empty());
        let points = |piece: &[Tick]| piece.iter().map(|tick| (tick.seconds, value(tick))).collect();
        Self { name, color, pieces: pieces.map(points).collect() }
    }

    fn points(&self) -> impl Iterator<Item = &(f64, f64)> {
        self.pieces.iter().flatten()
    }
}

fn draw_outage(ticks: &[Tick], done: &[(f64, String)], path: &Path) -> Result<(), String> {
    let end = ticks.last().map_or(1.0, |tick| tick.seconds);
    let draw = |area: &Area<'_>| {
        let (above, below) = area.split_vertically(240);
        let took = [
            Line::of(ticks, "99th percentile", OTHERS, |tick| tick.p99_us as f64 / 1_000.0),
            Line::of(ticks, "median", OURS, |tick| tick.p50_us as f64 / 1_000.0),
        ];
        draw_lines(&above, "What a call takes", "ms", (end, None), &took, done)?;
        let percent = |tick: &Tick| (tick.hits as f64 * 100.0 / tick.calls.max(1) as f64).min(100.0);
        let answered = [Line::of(ticks, "answered", OURS, percent)];
        draw_lines(&below, "Of 100 calls the cache answers", "%", (end, Some(100.0)), &answered, &[])
    };
    save(path, svg::picture((WIDTH, 430), draw))
}

fn save(
    path: &Path,
    picture: Result<String, Box<dyn std::error::Error + Send + Sync>>,
) -> Result<(), String> {
    let picture = picture.map_err(|error| format!("{}: {error}", path.display()))?;
    std::fs::write(path, picture).map_err(|error| format!("{}: {error}", path.display()))
}

/// Lines from 0 to the end and to `top`, or to somewhat more than the highest value, each with its name at its end.
fn draw_lines(
    area: &Area<'_>,
    title: &str,
    unit: &str,
    (end, top): (f64, Option<f64>),
    lines: &[Line],
    done: &[(f64, String)],
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // What was done stands above the lines.
    let room = if done.is_empty() { 1.2 } else { 1.5 };
    let highest = || lines.iter().flat_map(Line::points).map(|(_, value)| *value).fold(1.0, f64::max);
    let top = top.unwrap_or_else(|| highest() * room);
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .margin_right(110)
        .caption(title, ("sans-serif", 16))
        .x_label_area_size(22)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    let (of_time, of_value) = (|at: &f64| format!("{at:.0} s"), |value: &f64| format!("{value:.0} {unit}"));
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .y_labels(5)
        .x_labels(8)
        .x_label_formatter(&of_time)
        .y_label_formatter(&of_value)
        .draw()?;
    for (index, (at, what)) in done.iter().enumerate() {
        chart.draw_series([PathElement::new([(*at, 0.0), (*at, top)], BLACK.mix(0.25))])?;
        // Names of what follows soon are in rows of their own.
        let height = top * (0.98 - 0.08 * (index % 3) as f64);
        let said = Text::new(what.clone(), (*at + 0.15, height), ("sans-serif", 12).into_font());
        chart.draw_series([said])?;
    }
    for line in lines {
        for piece in &line.pieces {
            chart.draw_series(LineSeries::new(piece.iter().copied(), line.color.stroke_width(2)))?;
        }
        let Some(last) = line.points().last() else { continue };
        let font = ("sans-serif", 13).into_font().color(&line.color);
        let name = Text::new(line.name.to_owned(), (6, -6), font);
        chart.plotting_area().draw(&(EmptyElement::at(*last) + name))?;
    }
    Ok(())
}

fn weights(weights: &[Weight]) -> String {
    let mut text = "
## What it takes to build

A program with these dependencies and nothing else, built from nothing, not optimized and without debug information.

| dependencies | crates | processor seconds | beside others, and the limit |
|---|--:|--:|---|
"
    .to_owned();
    for weight in weights {
        let beside = weight.at_most.as_ref().and_then(|(other, at_most)| {
            let other = weights.iter().find(|weight| weight.name == *other)?;
            let ratio = weight.seconds / other.seconds;
            let met = if ratio <= *at_most { "met" } else { "**missed**" };
            Some(format!("{ratio:.2} × {}, at most {at_most:.1}: {met}", other.name))
        });
        let _ = writeln!(
            text,
            "| {} | {} | {:.1} | {} |",
            weight.name,
            weight.crates,
            weight.seconds,
            beside.unwrap_or_default()
        );
    }
    text
}

/// Bars with their names before and their values behind them.
fn draw_bars(title: &str, bars: &[Bar], path: &Path) -> Result<(), String> {
    let height = HEAD + ROW * bars.len() as u32 + 12;
    let text = |size: u32| ("sans-serif", size).into_font().color(&BLACK);
    let most = bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
    let room = f64::from(WIDTH - NAMES - SAID);
    let draw = |area: &Area<'_>| {
        area.draw(&Text::new(title.to_owned(), (16, 12), text(17)))?;
        for (index, bar) in bars.iter().enumerate() {
            let top = (HEAD + ROW * index as u32) as i32;
            let (left, length) = (NAMES as i32, (bar.value / most * room).max(2.0) as i32);
            let corners = [(left, top), (left + length, top + ROW as i32 - 9)];
            area.draw(&Rectangle::new(corners, bar.color.filled()))?;
            area.draw(&Text::new(bar.name.clone(), (16, top + 3), text(15)))?;
            area.draw(&Text::new(bar.text.clone(), (left + length + 8, top + 3), text(15)))?;
        }
        Ok(())
    };
    save(path, svg::picture((WIDTH, height), draw))
}
