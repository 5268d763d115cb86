//! Keys: prefix, version and ordered parts, in one injective encoding.
//!
//! A key is encoded once, when it is built, and hashed once, with a secret of this process, so that
//! nobody outside can choose keys that collide. Two keys are equal exactly if their encodings are.
//! Reserved keys differ from every user's key in the first byte, which no text reaches.

mod buffer;
mod encode;
mod pattern;
mod text;

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock};

pub use encode::{CacheKeyBuilder, KeyError, KeyPart};
pub use pattern::KeyPattern;

/// Identifies an entry. `clone` and `hash` are O(1).
///
/// ```
/// use hitbox_core::CacheKey;
/// let key = CacheKey::builder("user").version(2).part("id", 42).flag("full").build();
/// assert_eq!(key.to_string(), "user:2:id=42:full");
/// ```
#[derive(Clone)]
pub struct CacheKey {
    hash: u64,
    encoded: Arc<[u8]>,
}

static HASH_SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl CacheKey {
    /// Starts a key with this prefix, version 0 and no parts.
    #[inline]
    pub fn builder(prefix: &str) -> CacheKeyBuilder {
        CacheKeyBuilder::new("", prefix)
    }

    /// A key that consists of a prefix only.
    pub fn new(prefix: &str) -> Self {
        Self::builder(prefix).build()
    }

    /// Reads an encoded key back.
    ///
    /// # Errors
    /// [`KeyError`] if the bytes are not the encoding of a key.
    pub fn from_encoded(encoded: &[u8]) -> Result<Self, KeyError> {
        encode::validate(encoded)?;
        Ok(Self::from_valid(encoded))
    }

    fn from_valid(encoded: &[u8]) -> Self {
        Self { hash: HASH_SECRET.hash_one(encoded), encoded: Arc::from(encoded) }
    }

    /// The encoding: injective, the same in every process and release of format 1.
    pub fn as_encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// A hash of the key, keyed with a secret of this process: for tables in memory, never to be stored.
    pub const fn process_hash(&self) -> u64 {
        self.hash
    }

    /// The same key within a namespace; in a key that has one already the new name is put in front.
    pub fn in_namespace(&self, namespace: &str) -> Self {
        encode::in_namespace(self, namespace)
    }

    /// The key that [`in_namespace`](Self::in_namespace) made this one of; nothing if it did not.
    pub fn without_namespace(&self, namespace: &str) -> Option<Self> {
        if namespace.is_empty() {
            return Some(self.clone());
        }
        let outer = encode::join_namespace(namespace, "");
        let rest = self.namespace().strip_prefix(outer.as_str())?;
        let inner = if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }?;
        Some(encode::with_namespace(self, inner))
    }

    /// The namespace, empty if there is none; nested ones are joined with `/`, outermost first.
    pub fn namespace(&self) -> &str {
        encode::head(&self.encoded).namespace
    }

    /// Whether it is in a namespace. Costs less than to ask for it.
    #[inline]
    pub fn has_namespace(&self) -> bool {
        encode::has_namespace(&self.encoded)
    }

    /// The prefix.
    pub fn prefix(&self) -> &str {
        encode::head(&self.encoded).prefix
    }

    /// The version of the key's shape.
    pub fn version(&self) -> u32 {
        encode::head(&self.encoded).version
    }

    /// The same key with another version.
    pub fn with_version(&self, version: u32) -> Self {
        encode::with_version(self, version)
    }

    /// The parts, in order.
    pub fn parts(&self) -> impl Iterator<Item = KeyPart<'_>> {
        encode::parts(encode::head(&self.encoded).rest)
    }

    /// Appends the readable form, as [`Display`](fmt::Display) shows it: for stores whose keys are bytes.
    pub fn write_text(&self, out: &mut Vec<u8>) {
        text::write(self, out);
    }

    /// Reads the form that [`write_text`](Self::write_text) appends; nothing if it is not that.
    pub fn from_text(text: &[u8]) -> Option<Self> {
        text::read(text)
    }

    /// Whether the framework keeps its own state under this key.
    pub fn is_reserved(&self) -> bool {
        self.encoded.first() == Some(&encode::RESERVED)
    }
}

impl PartialEq for CacheKey {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.encoded == other.encoded
    }
}

impl Eq for CacheKey {}

impl Hash for CacheKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// A hasher for tables over [`CacheKey`]s: it takes the hash that a key brings, which is keyed with a secret of
/// the process. For tables of nothing else.
///
/// ```
/// use std::collections::HashMap;
/// use std::hash::BuildHasherDefault;
/// use hitbox_core::{CacheKey, KeyHasher};
/// let mut table: HashMap<CacheKey, u32, BuildHasherDefault<KeyHasher>> = HashMap::default();
/// table.insert(CacheKey::new("k"), 1);
/// assert_eq!(table.get(&CacheKey::new("k")), Some(&1));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Keys hash themselves as one u64; anything else is folded in.
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    #[inline]
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey({self})")
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(self.encoded.len());
        text::write(self, &mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}
