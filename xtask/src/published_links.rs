//! Links of the documentation to what others have published: what docs.rs shows of a package is looked up in the package, and is there
//! whether or not the web can be reached from here. All else is asked of the web, if that is wanted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::links;
use crate::run::{self, Outcome, root};

/// Checks all links that lead out of the workspace.
pub(crate) fn run(web: bool) -> Outcome {
    let mut pages: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for (page, target) in links::all()? {
        if target.contains("://") {
            pages.entry(target).or_default().push(page);
        }
    }
    let mut packages = Packages::new()?;
    let (mut dead, mut looked_up, mut left) = (Vec::new(), 0, BTreeSet::new());
    for target in pages.keys() {
        let checked = match Shown::of(target) {
            Some(shown) => packages.check(&shown)?,
            None if web => ask(target)?,
            None => {
                left.insert(target.as_str());
                continue;
            }
        };
        match checked {
            Ok(()) => looked_up += 1,
            Err(why) => dead.push(format!("  {target}: {why}\n    in {}", shown(&pages[target]))),
        }
    }
    println!("{looked_up} of {} links lead somewhere", pages.len());
    if !left.is_empty() {
        println!("{} were not asked for; with --web they are:", left.len());
        left.iter().for_each(|target| println!("  {target}"));
    }
    if dead.is_empty() { Ok(()) } else { Err(format!("links that lead nowhere:\n{}", dead.join("\n"))) }
}

fn shown(pages: &[PathBuf]) -> String {
    let names = pages.iter().map(|page| page.strip_prefix(root()).unwrap_or(page).display().to_string());
    names.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
}

/// What a page of docs.rs shows.
#[derive(Debug, PartialEq, Eq)]
struct Shown<'a> {
    package: &'a str,
    /// That of now if none is named.
    version: Option<&'a str>,
    what: What<'a>,
}

#[derive(Debug, PartialEq, Eq)]
enum What<'a> {
    /// The package, or a list of what it has.
    Package,
    /// A file, by its path within the package.
    File(&'a str),
    /// An item, by its kind and name: `struct`, `Cache`.
    Item(&'a str, &'a str),
    /// A module, by its name.
    Module(&'a str),
}

impl<'a> Shown<'a> {
    /// Nothing for addresses of others.
    fn of(target: &'a str) -> Option<Self> {
        let path = target.strip_prefix("https://docs.rs/")?;
        let path = path.split_once('#').map_or(path, |(path, _)| path).trim_end_matches('/');
        let (is_crate_page, path) = path.strip_prefix("crate/").map_or((false, path), |path| (true, path));
        let mut parts = path.splitn(3, '/');
        let (package, version, rest) = (parts.next()?, parts.next(), parts.next().unwrap_or_default());
        let what = match rest.strip_prefix("source/") {
            Some(file) if is_crate_page => What::File(file),
            // Besides its files: the list of its features.
            _ if is_crate_page => What::Package,
            _ => {
                let rest = rest.strip_suffix("/index.html").unwrap_or(rest);
                let (within, last) = rest.rsplit_once('/').unwrap_or(("", rest));
                match last.strip_suffix(".html").and_then(|page| page.split_once('.')) {
                    Some((kind, name)) => What::Item(kind, name),
                    // The first is the crate itself.
                    None if within.is_empty() => What::Package,
                    None => What::Module(last),
                }
            }
        };
        Some(Self { package, version: version.filter(|version| *version != "latest"), what })
    }
}

/// Packages as they were published, and those of the workspace.
struct Packages {
    /// A workspace of its own, in which cargo fetches what is asked for and not what is here.
    folder: PathBuf,
    sources: PathBuf,
    found: BTreeMap<(String, Option<String>), PathBuf>,
}

impl Packages {
    fn new() -> Result<Self, String> {
        let folder = root().join("target/links");
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        fs::create_dir_all(folder.join("src")).map_err(failed)?;
        let manifest = "[package]\nname = \"links\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
        fs::write(folder.join("Cargo.toml"), manifest).map_err(failed)?;
        fs::write(folder.join("src/lib.rs"), "").map_err(failed)?;
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
        let sources = home.ok_or("neither CARGO_HOME nor HOME is set")?.join("registry/src");
        Ok(Self { folder, sources, found: BTreeMap::new() })
    }

    /// Why there is no such page, if there is none.
    fn check(&mut self, shown: &Shown<'_>) -> Result<Result<(), String>, String> {
        let asked = (shown.package.to_owned(), shown.version.map(str::to_owned));
        let package = match self.found.get(&asked) {
            Some(package) => package.clone(),
            None => match self.fetch(shown.package, shown.version)? {
                Ok(package) => self.found.entry(asked).or_insert(package).clone(),
                Err(why) => return Ok(Err(why)),
            },
        };
        let is_there = match shown.what {
            What::Package => true,
            What::File(path) => package.join(path).is_file(),
            What::Item(kind, name) => declares(&package.join("src"), kind, name)?,
            What::Module(name) => declares(&package.join("src"), "mod", name)?,
        };
        Ok(if is_there { Ok(()) } else { Err("the package has no such thing".to_owned()) })
    }

    /// The folder of a package.
    fn fetch(&self, name: &str, version: Option<&str>) -> Result<Result<PathBuf, String>, String> {
        let Some(version) = version else {
            // What is here is what will be there.
            let own = root().join(name);
            if own.join("Cargo.toml").is_file() {
                return Ok(Ok(own));
            }
            return Ok(self.info(name)?.map(|()| PathBuf::new()));
        };
        if let Err(why) = self.info(&format!("{name}@{version}"))? {
            return Ok(Err(why));
        }
        let registries = fs::read_dir(&self.sources);
        let registries = registries.map_err(|error| format!("{}: {error}", self.sources.display()))?;
        let mut packages = registries.flatten().map(|entry| entry.path().join(format!("{name}-{version}")));
        Ok(packages.find(|package| package.is_dir()).ok_or_else(|| "cargo has not unpacked it".to_owned()))
    }

    /// Has cargo fetch a package, if there is one of that name.
    fn info(&self, package: &str) -> Result<Result<(), String>, String> {
        let mut cargo = run::command("cargo");
        cargo.args(["info", package]).current_dir(&self.folder).stdin(Stdio::null());
        let output = cargo.output().map_err(|error| format!("cargo: {error}"))?;
        let said = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Ok(if output.status.success() { Ok(()) } else { Err(said()) })
    }
}

/// Whether some source says that there is such an item. Names that are the same elsewhere in the package count too.
fn declares(folder: &Path, kind: &str, name: &str) -> Result<bool, String> {
    // Of a macro there is more than one kind.
    let declarations = match kind {
        "macro" | "attr" | "derive" => vec![format!("macro_rules! {name}"), format!("fn {name}")],
        kind => vec![format!("{kind} {name}")],
    };
    let is_whole = |text: &str, at: usize, declared: &str| {
        let next = text[at + declared.len()..].chars().next();
        next.is_none_or(|next| !next.is_alphanumeric() && next != '_')
    };
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text =
                    fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                let is_declared = |declared: &String| {
                    text.match_indices(declared.as_str()).any(|(at, _)| is_whole(&text, at, declared))
                };
                if declarations.iter().any(is_declared) {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

/// Asks the web for a page.
fn ask(target: &str) -> Result<Result<(), String>, String> {
    let curl = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--location", "--max-time", "30", "--retry", "2"])
        .args(["--output", "/dev/null", target])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("curl cannot be run: {error}"))?;
    let said = || String::from_utf8_lossy(&curl.stderr).trim().to_owned();
    Ok(if curl.status.success() { Ok(()) } else { Err(said()) })
}

#[cfg(test)]
mod tests {
    use super::{Shown, What};

    #[test]
    fn pages_of_docs_rs_are_told_apart() {
        let of = |target| Shown::of(target).map(|shown| (shown.package, shown.version, shown.what));
        let cases = [
            ("https://docs.rs/moka", ("moka", None, What::Package)),
            ("https://docs.rs/moka/0.12.16/moka/", ("moka", Some("0.12.16"), What::Package)),
            ("https://docs.rs/moka/latest/moka/sync/index.html", ("moka", None, What::Module("sync"))),
            (
                "https://docs.rs/moka/0.12.16/moka/sync/struct.Cache.html#method.get",
                ("moka", Some("0.12.16"), What::Item("struct", "Cache")),
            ),
            ("https://docs.rs/crate/cached/4.1.0/features", ("cached", Some("4.1.0"), What::Package)),
            (
                "https://docs.rs/crate/cached/4.1.0/source/src/lib.rs",
                ("cached", Some("4.1.0"), What::File("src/lib.rs")),
            ),
        ];
        for (target, expected) in cases {
            assert_eq!(of(target), Some(expected), "{target}");
        }
        assert_eq!(of("https://example.org/moka"), None);
    }
}
