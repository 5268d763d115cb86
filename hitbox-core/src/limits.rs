//! Bounds on what a layer takes, checked before anything is changed.

/// What a leaf accepts. A larger item is refused with an error that names its size and the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Encoded key, in bytes. Default 65 KiB.
    pub key_bytes: u64,
    /// Encoded value before compression, in bytes; leaves that keep live values check only values that
    /// have a known size. Default 512 MiB.
    pub value_bytes: u64,
    /// Tags, dependencies and metadata of an entry together, in bytes as they go on the wire. More than
    /// 64 KiB cannot be allowed. Default 64 KiB.
    pub attributes_bytes: u64,
    /// Pairs of metadata of an entry. Default 256.
    pub metadata: u64,
    /// Tags and dependencies of an entry, counted together. Default 256.
    pub tags: u64,
    /// Namespaces that a store tells apart, each of nested ones counted, as far as this process has written to them. An entry
    /// of one more is refused. One is given back when its entries are over by their times or have been invalidated, and
    /// when they were removed or put out, if the store can list its keys: before it refuses a write, it lists them to find
    /// namespaces that nothing uses. Default 65,536.
    pub namespaces: u64,
}

impl Limits {
    /// Keys of up to 64 KiB and some, values of up to 512 MiB, attributes of up to 64 KiB in up to 256 pairs and
    /// 256 tags, 65,536 namespaces.
    pub const DEFAULT: Self = Self {
        key_bytes: 65 * 1024,
        value_bytes: 512 * 1024 * 1024,
        attributes_bytes: 64 * 1024,
        metadata: 256,
        tags: 256,
        namespaces: 65_536,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
