//! How keys look in stores outside the process.

use hitbox_core::CacheKey;

/// The form in which a store outside the process sees keys. Both forms are injective.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CacheKeyFormat {
    /// Readable: `user:1:id=42`.
    #[default]
    Text,
    /// The binary encoding, smaller for long parts of bytes.
    Binary,
}

impl CacheKeyFormat {
    /// `prefix` and the key.
    pub fn render(self, prefix: &str, key: &CacheKey) -> Vec<u8> {
        let mut rendered = Vec::with_capacity(prefix.len() + key.as_encoded().len());
        rendered.extend_from_slice(prefix.as_bytes());
        match self {
            Self::Text => key.write_text(&mut rendered),
            Self::Binary => rendered.extend_from_slice(key.as_encoded()),
        }
        rendered
    }

    /// The key that [`render`](Self::render) rendered with this prefix; nothing if it did not.
    pub fn parse(self, prefix: &str, rendered: &[u8]) -> Option<CacheKey> {
        let key = rendered.strip_prefix(prefix.as_bytes())?;
        match self {
            Self::Text => CacheKey::from_text(key),
            Self::Binary => CacheKey::from_encoded(key).ok(),
        }
    }
}
