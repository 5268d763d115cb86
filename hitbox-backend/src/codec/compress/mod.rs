//! Compressors, and the rules by which small, already compressed and incompressible values are left
//! as they are.

#[cfg(feature = "gzip")]
mod gzip;
#[cfg(feature = "zstd")]
mod zstd;

use bytes::Bytes;
use hitbox_core::{BackendError, BackendResult, ErrorKind};

/// A compressor with its level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compressor {
    /// Copies nothing.
    #[default]
    None,
    /// gzip (RFC 1952), level 0 to 9.
    #[cfg(feature = "gzip")]
    Gzip(u32),
    /// Zstandard (RFC 8878), level 1 to 22.
    #[cfg(feature = "zstd")]
    Zstd(i32),
}

pub(crate) const COMPRESSOR_NONE: u16 = 0;
const GZIP: u16 = 1;
const ZSTD: u16 = 2;

/// What people call the compressor with this id.
pub(crate) fn compressor_name(id: u16) -> String {
    match id {
        COMPRESSOR_NONE => "none".to_owned(),
        GZIP => "gzip".to_owned(),
        ZSTD => "Zstandard".to_owned(),
        other => format!("compressor {other}, which this build does not have"),
    }
}

impl Compressor {
    pub(crate) const fn id(self) -> u16 {
        match self {
            Self::None => COMPRESSOR_NONE,
            #[cfg(feature = "gzip")]
            Self::Gzip(_) => GZIP,
            #[cfg(feature = "zstd")]
            Self::Zstd(_) => ZSTD,
        }
    }

    /// The compressed form, `None` if this compressor does nothing.
    pub(crate) fn compress(self, plain: &[u8]) -> BackendResult<Option<Vec<u8>>> {
        match self {
            Self::None => {
                let _ = plain;
                Ok(None)
            }
            #[cfg(feature = "gzip")]
            Self::Gzip(level) => gzip::compress(plain, level).map(Some).map_err(failed),
            #[cfg(feature = "zstd")]
            Self::Zstd(level) => zstd::compress(plain, level).map(Some).map_err(failed),
        }
    }
}

/// Undoes the compressor with this id. `plain_len` is what the record says about its size; a record
/// that turns out longer or shorter is damaged.
pub(crate) fn decompress(id: u16, packed: &Bytes, plain_len: u64) -> BackendResult<Bytes> {
    let plain = match id {
        COMPRESSOR_NONE => packed.clone(),
        #[cfg(feature = "gzip")]
        GZIP => gzip::decompress(packed, plain_len).map_err(failed)?.into(),
        #[cfg(feature = "zstd")]
        ZSTD => zstd::decompress(packed, plain_len).map_err(failed)?.into(),
        #[cfg(not(feature = "gzip"))]
        GZIP => return Err(switched_off("gzip")),
        #[cfg(not(feature = "zstd"))]
        ZSTD => return Err(switched_off("zstd")),
        other => {
            return Err(BackendError::new(ErrorKind::Codec, format!("compressor {other} is not known")));
        }
    };
    if plain.len() as u64 != plain_len {
        let message = format!("the record says {plain_len} bytes and has {}", plain.len());
        return Err(BackendError::new(ErrorKind::Codec, message));
    }
    Ok(plain)
}

#[cfg(not(all(feature = "gzip", feature = "zstd")))]
fn switched_off(compressor: &str) -> BackendError {
    BackendError::new(ErrorKind::Codec, format!("the record needs the feature {compressor}, which is off"))
}

#[cfg(any(feature = "gzip", feature = "zstd"))]
fn failed(error: std::io::Error) -> BackendError {
    BackendError::new(ErrorKind::Codec, "compression failed").with_source(error)
}

/// Reads at most one byte more than `plain_len`, and reserves no more than the input could hold.
#[cfg(any(feature = "gzip", feature = "zstd"))]
fn read_up_to(reader: impl std::io::Read, packed_len: usize, plain_len: u64) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let reserve = plain_len.min(packed_len as u64 * 4).min(1 << 20);
    let mut plain = Vec::with_capacity(reserve as usize);
    reader.take(plain_len.saturating_add(1)).read_to_end(&mut plain)?;
    Ok(plain)
}

/// When compression is tried, and when its result is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CompressionRules {
    /// Encoded values smaller than this many bytes are left as they are.
    pub min_bytes: usize,
    /// The result is kept if it is at most this fraction of the original.
    pub keep_below: f32,
    /// Whether values whose metadata `content-type` names a compressed media type are left alone.
    pub skip_compressed_types: bool,
}

impl Default for CompressionRules {
    fn default() -> Self {
        Self { min_bytes: 256, keep_below: 0.95, skip_compressed_types: true }
    }
}

impl CompressionRules {
    pub(crate) fn wants(&self, plain_len: usize, content_type: Option<&str>) -> bool {
        plain_len >= self.min_bytes
            && !(self.skip_compressed_types && content_type.is_some_and(is_compressed_type))
    }

    pub(crate) fn keeps(&self, packed_len: usize, plain_len: usize) -> bool {
        (packed_len as f64) <= plain_len as f64 * f64::from(self.keep_below)
    }
}

/// Media types whose bytes are compressed already.
fn is_compressed_type(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    match essence.split_once('/') {
        Some(("image", kind)) => !matches!(kind, "svg+xml" | "bmp" | "x-ms-bmp" | "tiff"),
        Some(("video" | "audio", kind)) => !matches!(kind, "wav" | "x-wav"),
        Some(("font", kind)) => matches!(kind, "woff" | "woff2"),
        Some(("application", kind)) => matches!(
            kind,
            "zip"
                | "gzip"
                | "x-gzip"
                | "zstd"
                | "x-bzip2"
                | "x-xz"
                | "x-7z-compressed"
                | "vnd.rar"
                | "x-rar-compressed"
                | "epub+zip"
                | "java-archive"
                | "vnd.openxmlformats-officedocument.wordprocessingml.document"
                | "vnd.openxmlformats-officedocument.spreadsheetml.sheet"
        ),
        _ => false,
    }
}
