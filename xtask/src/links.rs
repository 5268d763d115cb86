//! Links of the documentation: what they lead to is there, and a chapter of the book leads nowhere outside of the book.

use std::fs;
use std::path::{Path, PathBuf};

use crate::run::root;

/// Complains of links that lead nowhere.
pub(crate) fn check(complaints: &mut Vec<String>) -> Result<(), String> {
    let book = root().join("docs/src");
    for (path, target) in all()? {
        if let Some(why) = dead(&path, &target, &book)? {
            complaints
                .push(format!("  {}: {target}: {why}", path.strip_prefix(root()).unwrap_or(&path).display()));
        }
    }
    Ok(())
}

/// Every link, with the page that has it.
pub(crate) fn all() -> Result<Vec<(PathBuf, String)>, String> {
    let mut found = Vec::new();
    for path in documents()? {
        found.extend(links(&read(&path)?).into_iter().map(|target| (path.clone(), target)));
    }
    Ok(found)
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// All Markdown outside of packages' sources.
fn documents() -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let packages = fs::read_dir(root()).map_err(|error| format!("the workspace: {error}"))?;
    let packages =
        packages.flatten().map(|entry| entry.path()).filter(|path| path.join("Cargo.toml").exists());
    let others = ["", "docs", "docs/decisions", "docs/src"].map(|folder| root().join(folder));
    for folder in packages.chain(others) {
        let entries = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        found.extend(entries.flatten().map(|entry| entry.path()));
    }
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    Ok(found)
}

/// Why a link leads nowhere, if it does not. Addresses of others are not asked.
fn dead(from: &Path, target: &str, book: &Path) -> Result<Option<String>, String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(None);
    }
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let folder = from.parent().unwrap_or(from);
    let path = if file.is_empty() { from.to_owned() } else { folder.join(file) };
    let Ok(path) = path.canonicalize() else { return Ok(Some("there is no such file".to_owned())) };
    let is_in_book = |path: &Path| book.canonicalize().is_ok_and(|book| path.starts_with(book));
    if is_in_book(from) && !is_in_book(&path) {
        return Ok(Some("the book has no such page: it is outside of docs/src".to_owned()));
    }
    let Some(anchor) = anchor else { return Ok(None) };
    let has_anchor = path.is_file() && anchors(&read(&path)?).iter().any(|known| known == anchor);
    Ok((!has_anchor).then(|| "it has no such heading".to_owned()))
}

/// The targets of links and pictures, but for those within code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        if is_code {
            continue;
        }
        // A definition of a link; one with a caret is that of a footnote.
        if let Some((name, target)) = line.strip_prefix('[').and_then(|line| line.split_once("]: "))
            && !name.starts_with('^')
            && !name.contains("](")
        {
            found.extend(
                target.split_whitespace().next().map(|target| target.trim_matches(['<', '>']).to_owned()),
            );
            continue;
        }
        // Every other part of a line is within ticks; the text of a link may have some.
        for (index, part) in line.split("](").enumerate() {
            let before = line.split("](").take(index).map(|part| part.matches('`').count()).sum::<usize>();
            let target = part.split_once(')').map(|(target, _)| target);
            if index > 0 && before % 2 == 0 {
                found.extend(target.map(|target| target.trim_matches(['<', '>']).to_owned()));
            }
        }
    }
    found
}

/// Headings as links name them: in small letters, without punctuation, with hyphens for spaces.
fn anchors(text: &str) -> Vec<String> {
    let mut is_code = false;
    let headings = text.lines().filter(|line| {
        is_code ^= line.trim_start().starts_with("```");
        !is_code && line.starts_with('#')
    });
    let headings = headings.map(|line| line.trim_start_matches('#').trim());
    let letters = |heading: &str| {
        let kept = heading.to_lowercase();
        let kept =
            kept.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
        kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
    };
    headings.map(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::{anchors, links};

    #[test]
    fn links_are_found_outside_of_code() {
        let text = "[a](b.md) and `[c](d)` and [`e`](f#g)\n```\n[h](i)\n```\n![j](<k l.svg>)\n[`m`]: n.md\n[^o]: [p](q)";
        assert_eq!(links(text), ["b.md", "f#g", "k l.svg", "n.md", "q"]);
    }

    #[test]
    fn headings_are_named_as_in_links() {
        assert_eq!(anchors("# A `b` of c's\n```\n# no\n```\n## 1, 2"), ["a-b-of-cs", "1-2"]);
    }
}
