//! The book as its readers see it: built by mdbook, and a picture of each page in both colour schemes.

use std::fs;
use std::path::Path;

use crate::run::{self, Outcome, install, root};

/// Of a picture, in pixels: longer pages are cut.
const WINDOW: &str = "--window-size=1280,5000";
/// As Blink counts them.
const SCHEMES: [(&str, &str); 2] = [("light", "1"), ("dark", "0")];

/// Builds the book into `target/book`, and takes its pictures into `target/screenshots`.
pub(crate) fn run() -> Outcome {
    install_mdbook()?;
    install("chromium", "chromium", "pictures of the pages need a browser")?;
    let (book, pictures) = (root().join("target/book"), root().join("target/screenshots"));
    run::run("mdbook", &["build", "docs", "--dest-dir", &book.display().to_string()])?;
    fs::create_dir_all(&pictures).map_err(|error| format!("{}: {error}", pictures.display()))?;
    // What a page that shows nothing takes.
    let blank = pictures.join("blank.png");
    take("about:blank", &blank, SCHEMES[0].1)?;
    let size = |picture: &Path| fs::metadata(picture).map(|found| found.len());
    let of_blank = size(&blank).map_err(|error| format!("a blank page: {error}"))?;
    let mut taken = 0;
    for page in pages(&book)? {
        for (scheme, setting) in SCHEMES {
            let picture = pictures.join(format!("{page}-{scheme}.png"));
            take(&format!("file://{}", book.join(format!("{page}.html")).display()), &picture, setting)?;
            if size(&picture).is_ok_and(|bytes| bytes > 2 * of_blank) {
                taken += 1;
            } else {
                return Err(format!("{} shows nothing", picture.display()));
            }
        }
    }
    println!("{taken} pictures are in {}", pictures.display());
    Ok(())
}

/// Installs mdbook, if it is not there.
pub(crate) fn install_mdbook() -> Outcome {
    if run::is_there("mdbook") {
        return Ok(());
    }
    run::run("cargo", &["install", "mdbook", "--locked", "--no-default-features", "--features", "search"])
}

/// The chapters, by the summary.
fn pages(book: &Path) -> Result<Vec<String>, String> {
    let summary = root().join("docs/src/SUMMARY.md");
    let text = fs::read_to_string(&summary).map_err(|error| format!("{}: {error}", summary.display()))?;
    let pages: Vec<_> = text
        .split("](")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once(".md)")?.0.to_owned()))
        .filter(|page| book.join(format!("{page}.html")).exists())
        .collect();
    if pages.len() < 30 { Err(format!("only {} pages were built", pages.len())) } else { Ok(pages) }
}

/// Takes the picture of a page. One that was there before is gone, whatever comes.
fn take(address: &str, picture: &Path, scheme: &str) -> Outcome {
    if picture.exists() {
        fs::remove_file(picture).map_err(|error| format!("{}: {error}", picture.display()))?;
    }
    let into = format!("--screenshot={}", picture.display());
    let scheme = format!("--blink-settings=preferredColorScheme={scheme}");
    let arguments =
        ["--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu", WINDOW, &scheme, &into, address];
    run::output("chromium", &arguments)?;
    if picture.exists() { Ok(()) } else { Err(format!("chromium has taken no picture of {address}")) }
}
