//! The screen.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, RenderDirection, Row, Sparkline, Table};

use crate::service::Tick;
use crate::story::{Story, clock, duration};
use crate::world::Redis;

/// The columns that a bar of 100 % takes.
const BAR: usize = 40;

pub(crate) fn draw(frame: &mut Frame<'_>, story: &Story, redis: Redis) {
    let rows = [
        Constraint::Length(1),
        Constraint::Length(6),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Length(4),
        Constraint::Length(1),
    ];
    let [top, layers, hits, latency, source, notes, keys] = Layout::vertical(rows).areas(frame.area());
    let second = story.second();
    frame.render_widget(summary(story, &second, redis), top);
    frame.render_widget(table(&second), layers);
    let title = format!(" of 100 calls the cache answers {:.1} ", second.percent(second.hits()));
    let percent = |tick: &Tick| tick.percent(tick.hits()) as u64;
    plot(frame, hits, story, title, Some(100), Color::Green, percent);
    let (p50, p99) = (duration(second.p50_us), duration(second.p99_us));
    let title = format!(" half of the calls take up to {p50}, 99 of 100 up to {p99} ");
    plot(frame, latency, story, title, None, Color::Cyan, |tick| tick.p99_us);
    let title = format!(" calls of the source: {} in the last second ", second.source_calls);
    plot(frame, source, story, title, None, Color::Yellow, |tick| tick.source_calls);
    let shown = story.done.len().saturating_sub(usize::from(notes.height));
    let done = story.done[shown..].iter().map(|(at, action)| Line::from(format!("{} {action}", clock(*at))));
    frame.render_widget(Paragraph::new(done.collect::<Vec<_>>()).dim(), notes);
    frame.render_widget(Paragraph::new(legend()), keys);
}

fn summary(story: &Story, second: &Tick, redis: Redis) -> Paragraph<'static> {
    let (word, color) = match redis {
        Redis::Up => ("up", Color::Green),
        Redis::Frozen => ("frozen", Color::Yellow),
        Redis::Down => ("down", Color::Red),
    };
    let failed = story.failures();
    let failed = format!("{failed} failed").fg(if failed == 0 { Color::Green } else { Color::Red });
    Paragraph::new(Line::from(vec![
        Span::from(" outage ").bold().reversed(),
        format!(" {}   Redis is ", story.time()).into(),
        word.fg(color).bold(),
        format!("   {} calls in the last second, {} in all, ", second.calls, story.calls()).into(),
        failed,
    ]))
}

fn table(second: &Tick) -> Table<'static> {
    let row = |name: String, state: Span<'static>, answers: u64, errors: u64| {
        let percent = second.percent(answers);
        let bar = "█".repeat((percent * BAR as f64 / 100.0).round() as usize);
        let errors = if errors == 0 { Span::from("") } else { format!("{errors} errors/s").fg(Color::Red) };
        let numbers = format!("{percent:>5.1} % {answers:>6}/s");
        Row::new(vec![Span::from(name), state, numbers.into(), bar.fg(Color::Green), errors])
    };
    let mut rows: Vec<_> = second
        .layers
        .iter()
        .map(|layer| {
            let state =
                if layer.failing { Span::from("failing").fg(Color::Red) } else { "up".fg(Color::Green) };
            row(layer.path.clone(), state, layer.hits, layer.errors)
        })
        .collect();
    rows.push(row("source".to_owned(), Span::from(""), second.source_calls, 0).style(Style::new().yellow()));
    let widths = [
        Constraint::Length(18),
        Constraint::Length(8),
        Constraint::Length(16),
        Constraint::Length(BAR as u16),
        Constraint::Fill(1),
    ];
    Table::new(rows, widths).block(Block::bordered().title(" who answers "))
}

fn plot(
    frame: &mut Frame<'_>,
    area: Rect,
    story: &Story,
    title: String,
    max: Option<u64>,
    color: Color,
    value: impl Fn(&Tick) -> u64,
) {
    // The newest on the right.
    let values: Vec<u64> = story.ticks.iter().rev().map(value).collect();
    let mut plot = Sparkline::default()
        .block(Block::bordered().title(title))
        .data(values)
        .direction(RenderDirection::RightToLeft)
        .style(Style::new().fg(color));
    if let Some(max) = max {
        plot = plot.max(max);
    }
    frame.render_widget(plot, area);
}

fn legend() -> Line<'static> {
    let keys = [
        ("k", "kill Redis"),
        ("f", "freeze it"),
        ("s", "start it"),
        ("i", "invalidate everything"),
        ("r", "restart the process"),
        ("q", "quit"),
    ];
    let spans =
        keys.into_iter().flat_map(|(key, what)| [format!(" {key} ").reversed(), format!(" {what}  ").into()]);
    Line::from(spans.collect::<Vec<_>>())
}
