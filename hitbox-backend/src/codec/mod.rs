//! How a leaf turns values into bytes: format, compressor and the rules when to compress.

mod compress;
mod format;

pub(crate) use compress::{COMPRESSOR_NONE, compressor_name, decompress};
pub use compress::{CompressionRules, Compressor};
pub(crate) use format::TypeTag;
pub use format::{CustomFormat, Format};

/// The byte form of values in one leaf. Two leaves with equal codecs share one encoding per write.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Codec {
    /// The serialization format.
    pub format: Format,
    /// The compressor.
    pub compressor: Compressor,
    /// When compression is tried and its result kept.
    pub rules: CompressionRules,
    /// The version of the stored types: raise it when they change their shape. Records of another
    /// version are misses.
    pub schema: u32,
}
