//! Links of the documentation to what others have published. What docs.rs shows of a package is looked up in the package, which cargo fetches
//! from the registry; the web is not needed for that. All other pages are asked for in the web, if that is wanted.
//!
//! An item counts as there if its package declares one of its name and kind anywhere. Anchors within a page are not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::links;
use crate::run::{self, Outcome, root};

/// Why a link leads nowhere, if it does not.
type Checked = Result<(), String>;

/// Checks the links that lead out of the workspace.
///
/// # Errors
/// Links that lead nowhere, and that something could not be asked.
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
        let about = |error: String| format!("{target} could not be checked: {error}");
        let checked = match Shown::of(target) {
            Some(Ok(shown)) => packages.check(&shown).map_err(about)?,
            Some(Err(why)) => Err(why.to_owned()),
            None if web => ask(target).map_err(about)?,
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
    /// The latest if none is named.
    version: Option<&'a str>,
    what: What<'a>,
}

#[derive(Debug, PartialEq, Eq)]
enum What<'a> {
    /// The package.
    Package,
    /// A file, by its path within the package.
    File(&'a str),
    /// A module of the crate, by the names on the way to it.
    Module(Vec<&'a str>),
    /// An item in a module, by its kind and name: `struct`, `Cache`.
    Item(Vec<&'a str>, &'a str, &'a str),
}

impl<'a> Shown<'a> {
    /// Nothing for addresses of others; an error if docs.rs has no such pages.
    fn of(target: &'a str) -> Option<Result<Self, &'static str>> {
        let path = target.strip_prefix("https://docs.rs/")?;
        let path = path.split_once('#').map_or(path, |(path, _)| path).trim_end_matches('/');
        Some(Self::of_path(path).ok_or("docs.rs has no such pages"))
    }

    fn of_path(path: &'a str) -> Option<Self> {
        let (is_crate_page, path) = path.strip_prefix("crate/").map_or((false, path), |path| (true, path));
        let mut parts = path.splitn(3, '/');
        let (package, version, rest) = (parts.next()?, parts.next(), parts.next().unwrap_or_default());
        let version = version.filter(|version| *version != "latest");
        let what = if is_crate_page {
            match rest {
                "" | "features" | "builds" => What::Package,
                rest => What::File(rest.strip_prefix("source/")?),
            }
        } else if rest.is_empty() {
            What::Package
        } else {
            let mut names: Vec<&str> = rest.split('/').filter(|name| *name != "index.html").collect();
            // The first is the crate, which is named as its package.
            let is_named_so = |name: &str| name == package.replace('-', "_");
            if names.is_empty() || !is_named_so(names.remove(0)) {
                return None;
            }
            match names.last().and_then(|last| last.strip_suffix(".html")) {
                None => What::Module(names),
                Some(page) => {
                    let (kind, name) = page.split_once('.')?;
                    names.pop();
                    What::Item(names, kind, name)
                }
            }
        };
        Some(Self { package, version, what })
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
        let folder = run::target().join("links");
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

    fn check(&mut self, shown: &Shown<'_>) -> Result<Checked, String> {
        let asked = (shown.package.to_owned(), shown.version.map(str::to_owned));
        let package = match self.found.get(&asked) {
            Some(package) => package.clone(),
            None => match self.fetch(shown.package, shown.version)? {
                Ok(package) => self.found.entry(asked).or_insert(package).clone(),
                Err(why) => return Ok(Err(why)),
            },
        };
        let declared = |kind: &str, name: &str| -> Result<Checked, String> {
            let is_there = declares(&package.join("src"), kind, name)?;
            Ok(if is_there { Ok(()) } else { Err(format!("the package has no {kind} {name}")) })
        };
        let (modules, item) = match &shown.what {
            What::Package => return Ok(Ok(())),
            What::File(path) if package.join(path).is_file() => return Ok(Ok(())),
            What::File(path) => return Ok(Err(format!("the package has no file {path}"))),
            What::Module(modules) => (modules, None),
            What::Item(modules, kind, name) => (modules, Some((*kind, *name))),
        };
        let modules = modules.iter().map(|module| ("mod", *module));
        for (kind, name) in modules.chain(item) {
            if let Err(why) = declared(kind, name)? {
                return Ok(Err(why));
            }
        }
        Ok(Ok(()))
    }

    /// The folder of a package.
    fn fetch(&self, name: &str, version: Option<&str>) -> Result<Result<PathBuf, String>, String> {
        // What is here is what will be the latest.
        let own = root().join(name);
        if version.is_none() && name.starts_with("hitbox") && own.join("Cargo.toml").is_file() {
            return Ok(Ok(own));
        }
        let package = version.map_or_else(|| name.to_owned(), |version| format!("{name}@{version}"));
        let mut cargo = run::command("cargo");
        cargo.args(["info", &package]).current_dir(&self.folder).stdin(Stdio::null());
        let output = cargo.output().map_err(|error| format!("cargo: {error}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            // Anything else than that is no fault of the link.
            return if said.contains("could not find") { Ok(Err(said)) } else { Err(said) };
        }
        let said = String::from_utf8_lossy(&output.stdout);
        let found = said.lines().find_map(|line| line.strip_prefix("version: ")?.split(' ').next());
        let found = found.ok_or("cargo does not say which version it has found")?;
        let registries = fs::read_dir(&self.sources);
        let registries = registries.map_err(|error| format!("{}: {error}", self.sources.display()))?;
        let mut packages = registries.flatten().map(|entry| entry.path().join(format!("{name}-{found}")));
        packages
            .find(|package| package.is_dir())
            .map(Ok)
            .ok_or_else(|| "cargo has not unpacked it".to_owned())
    }
}

/// Whether some source declares such an item, anywhere.
fn declares(folder: &Path, kind: &str, name: &str) -> Result<bool, String> {
    // What rustdoc calls by other words than the language.
    let declarations = match kind {
        "macro" => vec![format!("macro_rules! {name}"), format!("fn {name}")],
        "attr" => vec![format!("fn {name}")],
        "derive" => vec![format!("proc_macro_derive({name}")],
        "constant" => vec![format!("const {name}")],
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
                let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                let text = String::from_utf8_lossy(&bytes);
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                let is_declared = |line: &str| {
                    declarations.iter().any(|declared| {
                        line.match_indices(declared.as_str()).any(|(at, _)| is_whole(line, at, declared))
                    })
                };
                if code.into_iter().any(is_declared) {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

/// Asks the web for a page.
fn ask(target: &str) -> Result<Checked, String> {
    // It ends with this code if there is an answer which says that there is no page.
    const NO_PAGE: i32 = 22;
    let curl = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--location", "--max-time", "30", "--retry", "2"])
        .args(["--output", "/dev/null", target])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("curl cannot be run: {error}"))?;
    let said = || String::from_utf8_lossy(&curl.stderr).trim().to_owned();
    match curl.status.code() {
        Some(0) => Ok(Ok(())),
        Some(NO_PAGE) => Ok(Err(said())),
        _ => Err(said()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Shown, What};

    #[test]
    fn pages_of_docs_rs_are_told_apart() {
        let of = |path| Shown::of_path(path).map(|shown| (shown.package, shown.version, shown.what));
        let some = Some("0.1.2");
        let cases = [
            ("moka", ("moka", None, What::Package)),
            ("moka/0.1.2/moka", ("moka", some, What::Module(vec![]))),
            ("moka/latest/moka/sync/index.html", ("moka", None, What::Module(vec!["sync"]))),
            (
                "hitbox-core/0.1.2/hitbox_core/a/struct.Cache.html",
                ("hitbox-core", some, What::Item(vec!["a"], "struct", "Cache")),
            ),
            ("crate/cached/0.1.2/features", ("cached", some, What::Package)),
            ("crate/cached/0.1.2/source/src/lib.rs", ("cached", some, What::File("src/lib.rs"))),
        ];
        for (path, expected) in cases {
            assert_eq!(of(path), Some(expected), "{path}");
        }
        for path in ["crate/cached/0.1.2/nothing", "moka/0.1.2/mokka", "moka/0.1.2/moka/all.html"] {
            assert_eq!(of(path), None, "{path}");
        }
        assert!(Shown::of("https://example.org/moka").is_none());
    }
}
