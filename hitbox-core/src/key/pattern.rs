//! Which keys an invalidation means: by their leading parts, or by a glob over their parts.

use super::{CacheKey, encode};

/// A set of keys.
///
/// Keys are matched part by part, so that `user:1` never means `user:10`. A pattern looks at keys outside namespaces;
/// [`within`](Self::within) makes it look into one.
///
/// ```
/// use hitbox_core::{CacheKey, KeyPattern};
/// let user = |id: u32, what: &str| CacheKey::builder("user").part("id", id).part("what", what).build();
/// let pattern = KeyPattern::glob("user:1?:*");
/// assert!(pattern.matches(&user(10, "name")) && !pattern.matches(&user(1, "name")));
/// let prefix = KeyPattern::prefix(&CacheKey::builder("user").part("id", 1).build());
/// assert!(prefix.matches(&user(1, "name")) && !prefix.matches(&user(10, "name")));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPattern {
    namespace: String,
    form: Form,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    /// The encoding of a key up to its last part. Every field carries its length, so that a prefix of bytes is one of
    /// whole parts.
    Prefix(Vec<u8>),
    /// Segments, and whether any number may follow; of keys with a prefix if there is one.
    Glob { prefix: Option<String>, segments: Vec<Vec<Symbol>>, is_open: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Symbol {
    Char(char),
    AnyChar,
    AnyRun,
}

impl KeyPattern {
    /// Keys with this key's prefix and version whose first parts are its parts, and this key itself.
    pub fn prefix(key: &CacheKey) -> Self {
        let head = encode::head(key.as_encoded());
        let bare = encode::with_namespace(key, "");
        Self { namespace: head.namespace.to_owned(), form: Form::Prefix(bare.as_encoded().to_vec()) }
    }

    /// Keys whose segments match those of the pattern, one by one. Segments are divided by `:`; those of a key are its
    /// prefix and the values of its parts, divided by `:` once more where they hold some; a part without a value stands
    /// with its name. `*` is any run of characters within a segment, `?` one character, `\` takes the next character
    /// as it is, and `**` as the last segment any number of segments. The version of keys is not looked at.
    ///
    /// Matching takes time proportional to the length of the key for each pattern: there is no backtracking over more
    /// than one `*`.
    pub fn glob(pattern: &str) -> Self {
        let mut segments = vec![Vec::new()];
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            let symbol = match c {
                ':' => {
                    segments.push(Vec::new());
                    continue;
                }
                '*' => Symbol::AnyRun,
                '?' => Symbol::AnyChar,
                '\\' => Symbol::Char(chars.next().unwrap_or('\\')),
                c => Symbol::Char(c),
            };
            if let Some(segment) = segments.last_mut() {
                segment.push(symbol);
            }
        }
        let is_open = segments.last().is_some_and(|last| last[..] == [Symbol::AnyRun, Symbol::AnyRun]);
        if is_open {
            segments.pop();
        }
        Self { namespace: String::new(), form: Form::Glob { prefix: None, segments, is_open } }
    }

    /// The same for the parts of keys that have exactly this prefix, whatever characters are in it.
    pub fn glob_within(prefix: &str, pattern: &str) -> Self {
        let mut keys = Self::glob(pattern);
        if let Form::Glob { prefix: of, .. } = &mut keys.form {
            *of = Some(prefix.to_owned());
        }
        keys
    }

    /// A text as a glob that means just that text.
    pub fn escape(text: &str) -> String {
        let special = |c: char| matches!(c, '*' | '?' | '\\');
        text.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
    }

    /// The same keys within a namespace; in a pattern that has one already the new name is put in front.
    #[must_use]
    pub fn within(mut self, namespace: &str) -> Self {
        self.namespace = encode::join_namespace(namespace, &self.namespace);
        self
    }

    /// Whether the key is one of those that are meant. The framework's own keys never are.
    pub fn matches(&self, key: &CacheKey) -> bool {
        if key.is_reserved() || key.namespace() != self.namespace {
            return false;
        }
        match &self.form {
            Form::Prefix(prefix) => encode::with_namespace(key, "").as_encoded().starts_with(prefix),
            Form::Glob { prefix: Some(prefix), .. } if key.prefix() != prefix => false,
            Form::Glob { prefix, segments, is_open } => {
                let mut wanted = segments.iter();
                for segment in segments_of(key, prefix.is_none()) {
                    match wanted.next() {
                        Some(pattern) if is_match(pattern, &segment) => {}
                        Some(_) => return false,
                        None => return *is_open,
                    }
                }
                wanted.next().is_none()
            }
        }
    }
}

/// The text of a key, segment by segment. What is no UTF-8 shows as replacement characters.
fn segments_of(key: &CacheKey, with_prefix: bool) -> Vec<String> {
    let prefix = with_prefix.then(|| key.prefix().split(':').map(str::to_owned));
    let mut segments: Vec<String> = prefix.into_iter().flatten().collect();
    for part in key.parts() {
        match part.value {
            Some(value) => segments.extend(String::from_utf8_lossy(value).split(':').map(str::to_owned)),
            None => segments.push(part.name.to_owned()),
        }
    }
    segments
}

/// Matches greedily, and goes back to the last run only.
fn is_match(pattern: &[Symbol], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut read) = (0, 0);
    let mut last_run: Option<(usize, usize)> = None;
    while read < text.len() {
        match pattern.get(at) {
            Some(Symbol::AnyRun) => {
                last_run = Some((at, read));
                at += 1;
            }
            Some(symbol) if *symbol == Symbol::AnyChar || *symbol == Symbol::Char(text[read]) => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((run, from)) = last_run else { return false };
                last_run = Some((run, from + 1));
                (at, read) = (run + 1, from + 1);
            }
        }
    }
    pattern[at..].iter().all(|symbol| *symbol == Symbol::AnyRun)
}

#[cfg(test)]
mod tests {
    use super::{CacheKey, KeyPattern};

    fn key(parts: &[&str]) -> CacheKey {
        let mut key = CacheKey::builder(parts[0]);
        for part in &parts[1..] {
            key = key.part("p", part);
        }
        key.build()
    }

    #[test]
    fn globs_match_whole_segments() {
        let cases = [
            ("record:1", &["record", "1"][..], true),
            ("record:1", &["record", "10"], false),
            ("record:1", &["record", "1", "x"], false),
            ("record:1:**", &["record", "1", "x"], true),
            ("record:1:**", &["record", "1"], true),
            ("record:1:**", &["record", "10", "x"], false),
            ("record:*", &["record", "10"], true),
            ("record:*", &["record", "10", "x"], false),
            ("record:*", &["record:10"], true),
            ("*:*ü?", &["ré", "größeüx"], true),
            ("record:a*b*c", &["record", "a-b-b-c"], true),
            ("record:a*b*c", &["record", "a-b-b-d"], false),
            (r"record:\*", &["record", "*"], true),
            (r"record:\*", &["record", "x"], false),
            (r"record:a\:b", &["record", "a", "b"], false),
            ("**", &["anything", "at", "all"], true),
            ("", &[""], true),
        ];
        for (pattern, parts, expected) in cases {
            assert_eq!(KeyPattern::glob(pattern).matches(&key(parts)), expected, "{pattern} on {parts:?}");
        }
    }

    #[test]
    fn many_runs_take_no_exponential_time() {
        let text = "a".repeat(20_000);
        let pattern = format!("{}b", "*a".repeat(500));
        assert!(!KeyPattern::glob(&pattern).matches(&key(&[&text])));
    }

    #[test]
    fn namespaces_are_apart() {
        let inside = key(&["k", "1"]).in_namespace("n");
        assert!(!KeyPattern::glob("**").matches(&inside));
        assert!(KeyPattern::glob("**").within("n").matches(&inside));
        assert!(KeyPattern::prefix(&key(&["k"])).within("n").matches(&inside));
        assert!(KeyPattern::prefix(&key(&["k"]).in_namespace("n")).matches(&inside));
        let deeper = inside.in_namespace("a/b");
        assert!(KeyPattern::glob("**").within("n").within("a/b").matches(&deeper));
        assert_eq!(deeper.without_namespace("a/b"), Some(inside.clone()));
        assert_eq!(inside.without_namespace("a/b"), None);
    }

    #[test]
    fn readable_keys_are_read_back() {
        let keys = [
            CacheKey::builder("a b/:=%!é")
                .version(300)
                .part("n=", "v:/")
                .flag("f")
                .build()
                .in_namespace("x/y"),
            CacheKey::builder("").part_bytes("", &[0, 255, b'%']).build(),
            CacheKey::builder("scope").part("kind", 1).reserved().build(),
        ];
        for key in keys {
            let mut text = Vec::new();
            key.write_text(&mut text);
            assert_eq!(CacheKey::from_text(&text), Some(key));
        }
        assert_eq!(CacheKey::from_text(b"foreign"), None);
    }
}
