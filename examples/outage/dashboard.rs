//! The dashboard as a picture: a Prometheus server scrapes the service, and what it answers to the expressions of the dashboard is drawn.

use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hitbox_testkit::RedisServer;
use plotters::prelude::*;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::Failure;
use crate::svg::{self, Area};

const DASHBOARD: &str = include_str!("../../docs/src/grafana/hitbox.json");
const ALERTS: &str = include_str!("../../docs/src/grafana/alerts.yml");
/// Rates need two scrapes at least.
const RATE: &str = "4s";
const COLUMNS: usize = 2;
/// Of a panel, in pixels.
const SIZE: (u32, u32) = (500, 260);
/// Room for the labels of values, of a line of the legend, and about that of a letter in it.
const LEFT: i32 = 60;
const LINE: i32 = 18;
const LETTER: i32 = 7;
const COLORS: [RGBColor; 6] = [
    RGBColor(0x1f, 0x77, 0xb4),
    RGBColor(0xd6, 0x5f, 0x0e),
    RGBColor(0x2c, 0x8c, 0x4c),
    RGBColor(0xb0, 0x30, 0x60),
    RGBColor(0x6b, 0x5b, 0x95),
    RGBColor(0x70, 0x70, 0x70),
];

pub(crate) struct Server {
    _process: Child,
    _folder: TempDir,
    url: String,
    started: f64,
}

struct Panel {
    title: String,
    unit: String,
    series: Vec<(String, Vec<(f64, f64)>)>,
}

impl Server {
    /// Starts a server that scrapes this port.
    pub(crate) async fn start(port: u16) -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [alerts.yml]\n\
             scrape_configs: [{{ job_name: shop, static_configs: [{{ targets: ['127.0.0.1:{port}'] }}] }}]\n"
        );
        std::fs::write(folder.path().join("prometheus.yml"), config)?;
        std::fs::write(folder.path().join("alerts.yml"), ALERTS)?;
        let listen = RedisServer::free_port();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{listen}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("prometheus cannot be started, is it installed? {error}"))?;
        let server = Self {
            _process: process,
            _folder: folder,
            url: format!("http://127.0.0.1:{listen}"),
            started: seconds(SystemTime::now()),
        };
        for _ in 0..100 {
            if server.get("/-/ready", &[]).await.is_ok() {
                return Ok(server);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err("prometheus does not become ready".into())
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<String, Failure> {
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let answer = reqwest::get(format!("{}{path}?{query}", self.url)).await?;
        let status = answer.status();
        let text = answer.text().await?;
        if status.is_success() { Ok(text) } else { Err(format!("{path}: {status}: {text}").into()) }
    }

    /// The picture of what has happened since the server was started. Fails if a rule of the alerts does not work.
    pub(crate) async fn draw(&self) -> Result<String, Failure> {
        let rules: Value = serde_json::from_str(&self.get("/api/v1/rules", &[]).await?)?;
        let rules = rules["data"]["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
        if rules.is_empty() || rules.iter().any(|rule| rule["health"] == "err") {
            return Err(format!("the alerts do not work: {rules:?}").into());
        }
        let dashboard: Value = serde_json::from_str(DASHBOARD)?;
        let mut panels = Vec::new();
        for panel in dashboard["panels"].as_array().into_iter().flatten() {
            panels.push(self.ask(panel).await?);
        }
        picture(&panels)
    }

    async fn ask(&self, panel: &Value) -> Result<Panel, Failure> {
        let mut series = Vec::new();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap_or_default();
            let expression = expression.replace("$__rate_interval", RATE).replace("$cache", ".*");
            let (start, end) = (self.started.to_string(), seconds(SystemTime::now()).to_string());
            let query = [("query", &*expression), ("start", &start), ("end", &end), ("step", "0.5")];
            let answer: Value = serde_json::from_str(&self.get("/api/v1/query_range", &query).await?)?;
            for found in answer["data"]["result"].as_array().into_iter().flatten() {
                let values = found["values"].as_array().into_iter().flatten();
                let values = values.filter_map(|value| {
                    let number =
                        value[1].as_str()?.parse::<f64>().ok().filter(|number| number.is_finite())?;
                    Some((value[0].as_f64()? - self.started, number))
                });
                let values: Vec<_> = values.collect();
                if values.iter().any(|(_, value)| *value != 0.0) {
                    series.push((name_of(target, &found["metric"]), values));
                }
            }
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(Panel {
            title: text(&panel["title"]),
            unit: text(&panel["fieldConfig"]["defaults"]["unit"]),
            series,
        })
    }
}

/// As Grafana has it: the legend of the target, with the labels of the series.
fn name_of(target: &Value, labels: &Value) -> String {
    let mut name = target["legendFormat"].as_str().unwrap_or_default().to_owned();
    for (label, value) in labels.as_object().into_iter().flatten() {
        name = name.replace(&format!("{{{{{label}}}}}"), value.as_str().unwrap_or_default());
    }
    name
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn picture(panels: &[Panel]) -> Result<String, Failure> {
    let rows = panels.len().div_ceil(COLUMNS);
    svg::picture((SIZE.0 * COLUMNS as u32, SIZE.1 * rows as u32), |area| {
        for (panel, area) in panels.iter().zip(area.split_evenly((rows, COLUMNS))) {
            draw_panel(panel, &area)?;
        }
        Ok(())
    })
}

/// Where the names of a panel's series stand, in as many rows as they need: how many rows, and each name with its row and place.
fn legend(panel: &Panel) -> (i32, Vec<(usize, i32, i32)>) {
    let (mut row, mut at) = (0, 0);
    let mut places = Vec::new();
    let named = panel.series.iter().enumerate().filter(|(_, (name, _))| !name.is_empty());
    for (index, (name, _)) in named {
        let width = 30 + name.chars().count() as i32 * LETTER;
        if at > 0 && at + width > SIZE.0 as i32 - LEFT - 8 {
            (row, at) = (row + 1, 0);
        }
        places.push((index, row, at));
        at += width;
    }
    (if places.is_empty() { 0 } else { row + 1 }, places)
}

fn draw_panel(panel: &Panel, area: &Area<'_>) -> Result<(), Failure> {
    let points = || panel.series.iter().flat_map(|(_, values)| values);
    let end = points().map(|(at, _)| *at).fold(1.0, f64::max);
    let top = points().map(|(_, value)| *value).fold(0.0, f64::max);
    let top = if panel.unit == "percentunit" || top == 0.0 { 1.0 } else { top * 1.1 };
    let (rows, places) = legend(panel);
    let (plot, names) = area.split_vertically(SIZE.1 as i32 - rows * LINE - 4);
    let mut chart = ChartBuilder::on(&plot)
        .margin(8)
        .caption(&panel.title, ("sans-serif", 16).into_font().style(FontStyle::Bold))
        .x_label_area_size(20)
        .y_label_area_size(LEFT)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .x_labels(5)
        .y_labels(5)
        .x_label_formatter(&|at| format!("{at:.0} s"))
        .y_label_formatter(&|value| of_unit(*value, &panel.unit))
        .draw()?;
    let color = |index: usize| COLORS[index % COLORS.len()];
    for (index, (_, values)) in panel.series.iter().enumerate() {
        chart.draw_series(LineSeries::new(values.iter().copied(), color(index).stroke_width(2)))?;
    }
    for (index, row, at) in places {
        let (left, top) = (LEFT + at, row * LINE);
        let line = [(left, top + LINE / 2), (left + 16, top + LINE / 2)];
        names.draw(&PathElement::new(line, color(index).stroke_width(3)))?;
        names.draw(&Text::new(panel.series[index].0.clone(), (left + 20, top + 1), ("sans-serif", 13)))?;
    }
    Ok(())
}

fn of_unit(value: f64, unit: &str) -> String {
    match unit {
        "percentunit" => format!("{:.0} %", value * 100.0),
        "s" if value < 1.0 => format!("{:.1} ms", value * 1_000.0),
        "s" => format!("{value:.1} s"),
        "ms" => format!("{value:.0} ms"),
        "bytes" => bytesize::ByteSize(value as u64).display().iec_short().to_string(),
        "ops" => format!("{value:.0}/s"),
        _ => format!("{value:.0}"),
    }
}
