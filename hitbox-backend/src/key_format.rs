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
        match self {
            Self::Text => format!("{prefix}{key}").into_bytes(),
            Self::Binary => [prefix.as_bytes(), key.as_encoded()].concat(),
        }
    }
}
