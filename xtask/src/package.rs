//! What would be published.

use serde::Deserialize;

use crate::run::{self, Outcome};

/// What every package has to have in it.
const FILES: [&str; 4] = ["Cargo.toml", "README.md", "LICENSE-MIT", "LICENSE-APACHE"];

#[derive(Deserialize)]
struct Workspace {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    /// Registries that it may be published to: none for what is not published.
    publish: Option<Vec<String>>,
    description: Option<String>,
    repository: Option<String>,
    readme: Option<String>,
    keywords: Vec<String>,
    categories: Vec<String>,
}

/// Packages every crate that is published, and checks that it says what it is and has its licences.
pub(crate) fn run() -> Outcome {
    let metadata = run::output("cargo", &["metadata", "--no-deps", "--locked", "--format-version", "1"])?;
    let workspace: Workspace = serde_json::from_str(&metadata).map_err(|error| error.to_string())?;
    let published = || workspace.packages.iter().filter(|package| package.publish.is_none());
    let mut complaints = Vec::new();
    for package in published() {
        let listed =
            run::output("cargo", &["package", "--list", "--allow-dirty", "--package", &package.name])?;
        let is_missing = |file: &&str| !listed.lines().any(|line| line == *file);
        let missing = FILES.into_iter().filter(is_missing).map(|file| format!("{file} is not in it"));
        let unsaid = package.unsaid().map(|what| format!("it has no {what}"));
        complaints.extend(missing.chain(unsaid).map(|what| format!("  {}: {what}", package.name)));
    }
    if !complaints.is_empty() {
        return Err(format!("packages are not complete:\n{}", complaints.join("\n")));
    }
    // All of them together: they depend on each other, and are not in a registry yet. That they build is what other steps see.
    let mut arguments = vec!["package", "--quiet", "--locked", "--no-verify", "--allow-dirty"];
    published().for_each(|package| arguments.extend(["--package", &package.name]));
    run::run("cargo", &arguments)
}

impl Package {
    /// What it does not say, and should.
    fn unsaid(&self) -> impl Iterator<Item = &'static str> {
        let said = [
            ("description", self.description.is_some()),
            ("repository", self.repository.is_some()),
            ("readme", self.readme.is_some()),
            ("keywords", !self.keywords.is_empty()),
            ("categories", !self.categories.is_empty()),
        ];
        said.into_iter().filter(|(_, is_said)| !is_said).map(|(what, _)| what)
    }
}
