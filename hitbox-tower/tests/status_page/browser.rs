//! What people see: the page in a real browser, while the cache works.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;

use fantoccini::wd::Capabilities;
use fantoccini::{Client, ClientBuilder, Locator};
use hitbox::disk::DiskBackend;
use hitbox::{Compose, OffloadPool, RefillPolicy};
use hitbox_tower::CacheLayer;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::json;

use crate::{Shop, until};

/// A chromedriver of this test, which ends with it.
struct Driver {
    process: Child,
    url: String,
    profile: tempfile::TempDir,
}

impl Driver {
    fn start() -> Self {
        let mut process = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("`cargo xtask test` installs chromedriver");
        let said = BufReader::new(process.stdout.take().expect("its output"));
        let port = said.lines().map_while(Result::ok).find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        let url = format!("http://127.0.0.1:{}", port.expect("chromedriver says its port"));
        Self { process, url, profile: tempfile::tempdir().expect("a folder") }
    }

    /// A window of this size, for somebody who likes it light or dark.
    async fn open(&self, width: u32, height: u32, is_dark: bool) -> Client {
        let profile = self.profile.path().join(format!("{width}"));
        let arguments = [
            "--headless".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-quic".to_owned(),
            "--no-first-run".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            "--hide-scrollbars".to_owned(),
            format!("--user-data-dir={}", profile.display()),
            format!("--blink-settings=preferredColorScheme={}", u8::from(!is_dark)),
        ];
        // A window of a desktop cannot be as narrow as a phone.
        let screen = json!({ "deviceMetrics": { "width": width, "height": height, "pixelRatio": 2.0 } });
        let options = json!({ "args": arguments, "mobileEmulation": screen });
        let mut capabilities = Capabilities::new();
        capabilities.insert("goog:chromeOptions".to_owned(), options);
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(capabilities);
        builder.connect(&self.url).await.expect("a browser")
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // It takes its browsers with it when it is told to end.
        let id = self.process.id().to_string();
        let _ = Command::new("kill").arg(id).status();
        let _ = self.process.wait();
    }
}

async fn text(browser: &Client, css: &str) -> Option<String> {
    browser.find(Locator::Css(css)).await.ok()?.text().await.ok()
}

async fn number(browser: &Client, css: &str) -> Option<u64> {
    text(browser, css).await?.replace(',', "").parse().ok()
}

async fn ask(browser: &Client, script: &str) -> serde_json::Value {
    browser.execute(script, Vec::new()).await.expect("a script")
}

/// For the book: `HITBOX_SCREENSHOTS` says where.
async fn picture(browser: &Client, name: &str) {
    let folder = std::env::var_os("HITBOX_SCREENSHOTS")
        .map_or_else(|| env!("CARGO_TARGET_TMPDIR").into(), PathBuf::from);
    let picture = browser.screenshot().await.expect("a picture");
    assert!(picture.starts_with(b"\x89PNG"));
    std::fs::write(folder.join(name), picture).expect("it is written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_moves_under_load_and_purges() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = DiskBackend::builder(folder.path()).open().await.expect("disk");
    let memory = hitbox::moka::MokaBackend::builder().max_entries(50).build().expect("moka");
    let layers = memory.compose(disk, OffloadPool::new().shared()).with_refill(RefillPolicy::Always);
    let cache = CacheLayer::builder(layers.with_label("tiers")).name("shop").build().expect("a layer");
    let shop = Shop::serve(&cache, cache.status_page().purge_if(|_| true)).await;
    let page = format!("http://{}/cache", shop.address);
    let driver = Driver::start();

    // A quiet cache.
    let browser = driver.open(1_080, 1_250, false).await;
    browser.goto(&page).await.expect("the page");
    until("it shows the cache", async || {
        (text(&browser, "#state").await? == "all layers answer"
            && text(&browser, "#name").await? == "Cache shop")
            .then_some(())
    })
    .await;
    assert_eq!(number(&browser, "#hits").await, Some(0));

    // Under load its numbers move.
    let load = tokio::spawn({
        let shop = shop.clone();
        async move {
            for round in 0_u64.. {
                // The first item is asked for most, and there are more than memory holds.
                shop.item(if round % 3 == 0 { 1 } else { round % 89 }).await;
            }
        }
    });
    let hits =
        until("hits are counted", async || number(&browser, "#hits").await.filter(|hits| *hits > 100)).await;
    until("they move", async || number(&browser, "#hits").await.filter(|now| *now > hits)).await;
    until("requests per second", async || number(&browser, "#rate").await.filter(|rate| *rate > 0)).await;
    let hottest = until("the hottest key", async || text(&browser, "#keys tr td").await).await;
    assert!(hottest.ends_with("/items/1"), "{hottest}");
    let line = || ask(&browser, "return document.getElementById('ratio-line').getAttribute('d')");
    until("the history is drawn", async || line().await.as_str().filter(|line| line.len() > 60).map(drop))
        .await;
    let rows = ask(
        &browser,
        "return [...document.querySelectorAll('#layers tbody tr')].map(row => row.cells[0].textContent)",
    )
    .await;
    assert_eq!(rows, json!(["tiers.moka", "tiers.disk"]));
    let cells = ask(
        &browser,
        "return [...document.querySelectorAll('#layers tbody td')].map(cell => cell.textContent)",
    )
    .await;
    assert!(
        cells
            .as_array()
            .is_some_and(|cells| cells.iter().all(|cell| !cell.as_str().unwrap_or("").contains("undefined"))),
        "{cells}"
    );
    picture(&browser, "status-page-light.png").await;
    let light = ask(&browser, "return getComputedStyle(document.body).backgroundColor").await;

    // The button beside the hottest key, and the form.
    let asked = shop.first_item.load(Ordering::SeqCst);
    let button = browser.find(Locator::Css("#keys tr:first-child button")).await.expect("a button");
    // Rows are made anew every second.
    if button.click().await.is_err() {
        ask(&browser, "document.querySelector('#keys tr:first-child button').click()").await;
    }
    until("it is loaded again", async || (shop.first_item.load(Ordering::SeqCst) > asked).then_some(()))
        .await;
    let form = browser.find(Locator::Css("#purge input")).await.expect("a form");
    let kind = browser.find(Locator::Css("#purge select")).await.expect("a choice");
    kind.select_by_value("pattern").await.expect("it is chosen");
    form.send_keys("*/items/*").await.expect("it is written");
    browser
        .find(Locator::Css("#purge form button"))
        .await
        .expect("a button")
        .click()
        .await
        .expect("it is pressed");
    let purged = until("it says what was purged", async || {
        text(&browser, "#purged")
            .await
            .filter(|said| said.starts_with("Purged ") && said.ends_with("entries: */items/*"))
    })
    .await;
    assert!(!purged.starts_with("Purged 0 "), "{purged}");
    let from = ask(&browser, "return [...new Set(performance.getEntriesByType('resource').map(found => new URL(found.name).origin))]").await;
    assert_eq!(from, json!([format!("http://{}", shop.address)]), "it asks nobody else");
    browser.close().await.expect("it ends");

    // On a phone, in the dark.
    let browser = driver.open(390, 844, true).await;
    browser.goto(&page).await.expect("the page");
    until("it shows the cache", async || number(&browser, "#hits").await.filter(|hits| *hits > 0)).await;
    let widths = ask(&browser, "return [document.documentElement.scrollWidth, innerWidth]").await;
    assert_eq!(widths[0], widths[1], "nothing is beside the screen");
    let dark = ask(&browser, "return getComputedStyle(document.body).backgroundColor").await;
    assert_ne!(dark, light);
    picture(&browser, "status-page-dark.png").await;
    browser.close().await.expect("it ends");
    load.abort();
}
