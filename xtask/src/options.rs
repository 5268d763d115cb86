//! The book's page of all settings, made of what rustdoc says of the methods that set them.

use std::fmt::Write;
use std::path::Path;

use rustdoc_types::{
    Crate, GenericArg, GenericArgs, GenericBound, Item, ItemEnum, Struct, StructKind, Term, Type,
};

/// A type whose methods are settings: the crate, the type, and what the page says of it.
struct Settings {
    of: (&'static str, &'static str),
    title: &'static str,
    how: &'static str,
    /// What holds without a setting whose documentation says nothing of that.
    unsaid: Option<&'static str>,
}

/// Settings that need a feature besides that of their crate.
const FEATURES: &[(&str, &str)] = &[("tls_client", "tls"), ("tls_root", "tls")];

const SETTINGS: &[Settings] = &[
    Settings {
        of: ("hitbox", "CacheBuilder"),
        title: "A typed cache",
        how: "`Cache::builder(backend)`, ended by `.build()`",
        unsaid: None,
    },
    Settings {
        of: ("hitbox", "Entry"),
        title: "One call",
        how: "`cache.entry(key)`, ended by `.get()`, `.get_or_load(…)`, `.insert(…)`",
        unsaid: Some("not set, and times are those of the cache"),
    },
    Settings {
        of: ("hitbox_backend", "CompositionBackend"),
        title: "A composition",
        how: "`upper.compose(lower, offload)`, or `upper.over(lower)`",
        unsaid: None,
    },
    Settings {
        of: ("hitbox_moka", "MokaBuilder"),
        title: "Memory: moka",
        how: "`MokaBackend::builder()`, ended by `.build()`",
        unsaid: None,
    },
    Settings {
        of: ("hitbox_quick", "QuickBuilder"),
        title: "Memory: quick_cache",
        how: "`QuickBackend::builder()`, ended by `.build()`",
        unsaid: None,
    },
    Settings {
        of: ("hitbox_redis", "RedisBuilder"),
        title: "Redis",
        how: "`RedisBackend::builder(url)`, ended by `.build()`",
        unsaid: None,
    },
    Settings {
        of: ("hitbox_disk", "DiskBuilder"),
        title: "Disk",
        how: "`DiskBackend::builder(folder)`, ended by `.open().await`",
        unsaid: None,
    },
    Settings {
        of: ("hitbox_backend", "Wrap"),
        title: "Wrappers",
        how: "Methods of every backend, with `hitbox::Wrap`",
        unsaid: Some("not wrapped"),
    },
    Settings {
        of: ("hitbox_core", "Limits"),
        title: "Limits of a layer",
        how: "`.limits(Limits { value_bytes: 1 << 20, ..Limits::DEFAULT })` of a leaf",
        unsaid: None,
    },
    Settings {
        of: ("hitbox_backend", "OffloadPoolBuilder"),
        title: "Background work",
        how: "`OffloadPool::builder()`, ended by `.build()`",
        unsaid: None,
    },
    Settings {
        of: ("hitbox_tower", "CacheLayerBuilder"),
        title: "The layer for web services",
        how: "`CacheLayer::builder(backend)`, ended by `.build()`",
        unsaid: None,
    },
    Settings {
        of: ("hitbox_http", "Policy"),
        title: "Rules of HTTP",
        how: "`.policy(Policy::…)` of the layer",
        unsaid: None,
    },
    Settings {
        of: ("hitbox_http", "KeyRules"),
        title: "Keys of HTTP",
        how: "`.key(|rules| rules…)` of the layer",
        unsaid: Some("not a part"),
    },
    Settings {
        of: ("hitbox_tower", "StatusPage"),
        title: "The status page",
        how: "`layer.status_page()`",
        unsaid: None,
    },
    Settings {
        of: ("hitbox_pingora", "BackendStorageBuilder"),
        title: "The store of a proxy",
        how: "`BackendStorage::builder(backend)`, ended by `.build()`",
        unsaid: None,
    },
];

/// The page, of what rustdoc has described in this folder.
pub(crate) fn page(described: &Path) -> Result<String, String> {
    let mut page = String::from(
        "# Options\n\nEvery setting, with what it takes and its default. This page is made of the documentation of the code by \
         `cargo xtask api --bless`. Durations are `std::time::Duration`, and count in milliseconds; sizes are bytes.\n",
    );
    let mut lacking = Vec::new();
    for Settings { of: (crate_name, type_name), title, how, unsaid } in SETTINGS {
        let described = read(&described.join(format!("{crate_name}.json")))?;
        let mut methods = settings_of(&described, type_name);
        if methods.is_empty() {
            return Err(format!("{crate_name}::{type_name} has no settings"));
        }
        methods.sort_by(|a, b| a.name.cmp(&b.name));
        let rows: Vec<Row> = methods.into_iter().filter_map(row).collect();
        let lacks = |row: &&Row| row.default.is_none() && unsaid.is_none();
        lacking.extend(rows.iter().filter(lacks).map(|row| format!("{type_name}::{}", row.name)));
        let _ = write!(page, "\n## {title}\n\n{how}.");
        page.push_str(&table(&rows, *unsaid));
    }
    if lacking.is_empty() {
        return Ok(page);
    }
    Err(format!("the documentation of these does not say a default: {}", lacking.join(", ")))
}

fn read(file: &Path) -> Result<Crate, String> {
    let text = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", file.display()))
}

/// The methods of a type or trait that take it and give it back, or another backend.
fn settings_of<'c>(described: &'c Crate, name: &str) -> Vec<&'c Item> {
    let named = described.index.values().find(|item| {
        item.name.as_deref() == Some(name) && matches!(item.inner, ItemEnum::Struct(_) | ItemEnum::Trait(_))
    });
    let items: Vec<_> = match named.map(|item| &item.inner) {
        Some(ItemEnum::Trait(described)) => described.items.clone(),
        Some(ItemEnum::Struct(Struct { kind: StructKind::Plain { fields, .. }, .. }))
            if !fields.is_empty() =>
        {
            fields.clone()
        }
        Some(ItemEnum::Struct(described_type)) => {
            let impls = described_type.impls.iter().filter_map(|id| described.index.get(id));
            impls
                .filter_map(|item| match &item.inner {
                    ItemEnum::Impl(own) if own.trait_.is_none() => Some(own.items.clone()),
                    _ => None,
                })
                .flatten()
                .collect()
        }
        _ => Vec::new(),
    };
    let is_trait = matches!(named.map(|item| &item.inner), Some(ItemEnum::Trait(_)));
    let items = items.iter().filter_map(|id| described.index.get(id));
    items
        .filter(|item| item.visibility != rustdoc_types::Visibility::Crate && is_setting(item, is_trait))
        .collect()
}

fn is_setting(item: &Item, of_trait: bool) -> bool {
    if let ItemEnum::StructField(_) = item.inner {
        return true;
    }
    let ItemEnum::Function(method) = &item.inner else { return false };
    let takes_itself = matches!(method.sig.inputs.first(), Some((_, Type::Generic(name))) if name == "Self");
    let gives_itself = matches!(&method.sig.output, Some(Type::Generic(name)) if name == "Self");
    takes_itself && (gives_itself || of_trait)
}

/// What the table says of a setting.
struct Row {
    name: String,
    takes: String,
    /// As its documentation says.
    default: Option<String>,
    does: String,
}

/// Where one default holds for all it is said once.
fn table(rows: &[Row], unsaid: Option<&str>) -> String {
    let cell = |text: &str| text.replace('|', "\\|");
    let is_one = rows.iter().all(|row| row.default.is_none());
    let mut text = match unsaid {
        Some(unsaid) if is_one => {
            format!(" Default of each: {unsaid}.\n\n| setting | takes | what it does |\n|---|---|---|\n")
        }
        _ => "\n\n| setting | takes | default | what it does |\n|---|---|---|---|\n".to_owned(),
    };
    for Row { name, takes, default, does } in rows {
        let takes = if takes.is_empty() { "–".to_owned() } else { format!("`{}`", cell(takes)) };
        let default = match default.as_deref().or(unsaid) {
            Some(default) if !is_one => format!(" {} |", cell(default)),
            _ => String::new(),
        };
        let _ = writeln!(text, "| `{name}` | {takes} |{default} {} |", cell(does));
    }
    text
}

/// The row of a setting.
fn row(item: &Item) -> Option<Row> {
    let name = item.name.as_deref()?;
    let takes: Vec<_> = match &item.inner {
        ItemEnum::Function(method) => {
            // A name says something if it is not that of the setting.
            let named = |(of, takes): &(String, Type)| match text_of(takes) {
                takes if of.is_empty() || name.contains(of.as_str()) => takes,
                takes => format!("{of}: {takes}"),
            };
            method.sig.inputs.iter().skip(1).map(named).collect()
        }
        ItemEnum::StructField(of) => vec![text_of(of)],
        _ => return None,
    };
    let docs = item.docs.as_deref().unwrap_or_default();
    let paragraphs = docs
        .split("\n\n")
        .take_while(|paragraph| !paragraph.starts_with('#') && !paragraph.starts_with("```"));
    let text = without_links(&paragraphs.collect::<Vec<_>>().join(" ").replace('\n', " "));
    let (mut defaults, mut others) = (Vec::new(), Vec::new());
    for sentence in sentences(&text) {
        let (default, rest) = default_in(sentence);
        defaults.extend(default);
        others.extend(Some(rest).filter(|rest| !rest.is_empty()));
    }
    if let Some((_, feature)) = FEATURES.iter().find(|(setting, _)| *setting == name) {
        others.push(format!("Needs the feature `{feature}`."));
    }
    let default = (!defaults.is_empty()).then(|| defaults.join("; "));
    Some(Row { name: name.to_owned(), takes: takes.join(", "), default, does: others.join(" ") })
}

/// The default that a sentence says, and what it says beside.
fn default_in(sentence: &str) -> (Option<String>, String) {
    let plain = |text: &str| Some(text.trim_end_matches('.').to_owned());
    let beginnings = ["Default: ", "Default ", "By default "];
    if let Some(default) = beginnings.iter().find_map(|beginning| sentence.strip_prefix(beginning)) {
        return (plain(default), String::new());
    }
    if let Some((rest, default)) = sentence.split_once("; default") {
        return (plain(default.trim_start_matches([':', ' '])), format!("{rest}."));
    }
    // As in: room for so many, 100 by default.
    let Some((before, after)) = sentence.split_once(" by default") else {
        return (None, sentence.to_owned());
    };
    match before.rsplit_once(", ") {
        Some((rest, default)) => (plain(default), format!("{rest}{after}")),
        None => (plain(sentence), String::new()),
    }
}

/// A sentence ends with a full stop before a space and a capital, and not within code.
fn sentences(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut start, mut is_code) = (0, false);
    for (at, letter) in text.char_indices() {
        is_code ^= letter == '`';
        let rest = &text[at + letter.len_utf8()..];
        let begins_another = rest.strip_prefix(' ').and_then(|rest| rest.chars().next());
        if letter == '.'
            && !is_code
            && begins_another.is_some_and(|next| next.is_uppercase() || matches!(next, '`' | '*'))
        {
            found.push(text[start..=at].trim());
            start = at + 1;
        }
    }
    found.push(text[start..].trim());
    found.retain(|sentence| !sentence.is_empty());
    found
}

/// Links of rustdoc lead nowhere in the book: what is left is their text.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, link)) = rest.split_once('[') {
        plain.push_str(before);
        let Some((label, after)) = link.split_once(']') else {
            plain.push('[');
            rest = link;
            continue;
        };
        let target = after.strip_prefix('(').and_then(|target| target.split_once(')'));
        let is_link = label.starts_with('`') || target.is_some();
        if is_link {
            plain.push_str(label);
        } else {
            let _ = write!(plain, "[{label}]");
        }
        rest = target.map_or(after, |(_, after)| after);
    }
    plain + rest
}

/// A type as a reader writes it: names without paths.
fn text_of(described: &Type) -> String {
    match described {
        Type::ResolvedPath(path) => format!("{}{}", last(&path.path), arguments(path.args.as_deref())),
        Type::DynTrait(of) => {
            of.traits.first().map_or_else(String::new, |of| format!("dyn {}", last(&of.trait_.path)))
        }
        Type::Generic(name) | Type::Primitive(name) => name.clone(),
        Type::Tuple(parts) => format!("({})", parts.iter().map(text_of).collect::<Vec<_>>().join(", ")),
        Type::Slice(of) => format!("[{}]", text_of(of)),
        Type::Array { type_, len } => format!("[{}; {len}]", text_of(type_)),
        Type::BorrowedRef { type_, is_mutable, .. } => {
            format!("&{}{}", if *is_mutable { "mut " } else { "" }, text_of(type_))
        }
        Type::ImplTrait(bounds) => bounds.iter().find_map(bound).unwrap_or_default(),
        Type::QualifiedPath { name, .. } => name.clone(),
        _ => "…".to_owned(),
    }
}

/// The first bound says what is meant; a string that may come in several forms is a string.
fn bound(bound: &GenericBound) -> Option<String> {
    let GenericBound::TraitBound { trait_, .. } = bound else { return None };
    match (last(&trait_.path), trait_.args.as_deref()) {
        ("Into", Some(GenericArgs::AngleBracketed { args, .. })) => args.first().map(argument),
        ("AsRef", Some(GenericArgs::AngleBracketed { args, .. })) => {
            args.first().map(|of| format!("&{}", argument(of)))
        }
        (name, of) => Some(format!("{name}{}", arguments(of))),
    }
}

fn arguments(of: Option<&GenericArgs>) -> String {
    match of {
        Some(GenericArgs::AngleBracketed { args, constraints }) => {
            let constraints = constraints.iter().filter_map(|constraint| match &constraint.binding {
                rustdoc_types::AssocItemConstraintKind::Equality(Term::Type(of)) => Some(text_of(of)),
                _ => None,
            });
            let all: Vec<_> =
                args.iter().map(argument).chain(constraints).filter(|text| !text.is_empty()).collect();
            if all.is_empty() { String::new() } else { format!("<{}>", all.join(", ")) }
        }
        Some(GenericArgs::Parenthesized { inputs, output }) => {
            let inputs = inputs.iter().map(text_of).collect::<Vec<_>>().join(", ");
            let output = output.as_ref().map_or_else(String::new, |of| format!(" -> {}", text_of(of)));
            format!("({inputs}){output}")
        }
        _ => String::new(),
    }
}

fn argument(argument: &GenericArg) -> String {
    match argument {
        GenericArg::Type(of) => text_of(of),
        _ => String::new(),
    }
}

fn last(path: &str) -> &str {
    path.rsplit("::").next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::{default_in, sentences, without_links};

    #[test]
    fn sentences_end_where_another_begins() {
        let text = "Room for 0.5 of it, e.g. half. Default: `1.0. Or so`. More.";
        assert_eq!(sentences(text), ["Room for 0.5 of it, e.g. half.", "Default: `1.0. Or so`.", "More."]);
    }

    #[test]
    fn a_default_is_said_in_several_ways() {
        let said = |default: &str, rest: &str| (Some(default.to_owned()), rest.to_owned());
        assert_eq!(default_in("Default: 1 s."), said("1 s", ""));
        assert_eq!(default_in("By default a day."), said("a day", ""));
        assert_eq!(default_in("0 to 1; default: not."), said("not", "0 to 1."));
        assert_eq!(
            default_in("Cut after so long, 1 s by default: soon."),
            said("1 s", "Cut after so long: soon.")
        );
        assert_eq!(default_in("So long."), (None, "So long.".to_owned()));
    }

    #[test]
    fn of_links_the_text_is_left() {
        let text = "As [`build`](Self::build), or [the other](x), or [`Cache`], in [0, 1].";
        assert_eq!(without_links(text), "As `build`, or the other, or `Cache`, in [0, 1].");
    }
}
