//! What a stored record says, for people who look at what is in Redis or on disk under a key.

mod shown;

use std::fmt::{self, Display};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use hitbox_core::{
    BackendError, BackendResult, CacheKey, CacheValue, ErrorKind, RecordKind, ScopeKind, Timestamp,
};

use super::Raw;
use super::wire::{self, FORMAT_VERSION, Head};
use crate::codec::{COMPRESSOR_NONE, Format, compressor_name, decompress};
use shown::Shown;

/// Larger values are not shown: their text may be several times as long.
const MAX_SHOWN: u64 = 4 << 20;

/// What a record says of itself, and its value as text where its format names what it holds. It is printed with a line for
/// each fact.
///
/// ```
/// use hitbox_backend::{CacheBackend, Leaf, doc::Map, store::LeafOptions};
/// use hitbox_core::{CacheKey, CacheValue};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let leaf = Leaf::new(Map::default(), LeafOptions::new("map"));
/// let key = CacheKey::new("greeting");
/// leaf.set_one(&key, CacheValue::new("hello".to_owned())).await?;
///
/// let inspection = leaf.inspect(&key).await?.expect("it is there");
/// assert_eq!(inspection.value()?, "\"hello\"");
/// assert!(inspection.to_string().contains("format    MessagePack"));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Inspection {
    /// Times, tags, metadata and what else belongs to the entry.
    pub entry: CacheValue<()>,
    /// How the value is stored. A live value, which only memory holds, is not.
    pub stored: Option<Stored>,
    /// When it was looked at.
    pub at: Timestamp,
    payload: Bytes,
}

/// How a value is stored as bytes.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Stored {
    /// The format's id in the [wire header](wire).
    pub format_id: u16,
    /// The format, if this build knows it.
    pub format: Option<Format>,
    /// The compressor's id in the wire header; 0 is none.
    pub compressor_id: u16,
    /// The schema version of the leaf that wrote it.
    pub schema: u32,
    /// A number made of the name of the value's type; 0 if the record does not say it.
    pub type_tag: u64,
    /// Tells the record from every other one, also under its key.
    pub identity: u64,
    /// A digest of the key that it was stored under.
    pub key_digest: u128,
    /// Bytes of the record, with its header.
    pub record_bytes: u64,
    /// Bytes of the payload as it is stored.
    pub payload_bytes: u64,
    /// Bytes of the payload before compression.
    pub plain_bytes: u64,
    /// Whether the payload is what was written. Readers remove an entry whose payload is not.
    pub is_intact: bool,
}

/// Why bytes are no record that can be looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Uninspectable {
    /// They are no record of a cache of this framework.
    Foreign,
    /// A newer release wrote them.
    Newer,
    /// They were a record, and its header has been changed or cut.
    Damaged,
    /// A body that is larger than a value may be.
    TooLarge,
}

impl Display for Uninspectable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Foreign => "these bytes are no cache entry: they do not start like one",
            Self::Newer => "a newer release wrote this entry",
            Self::Damaged => "the header of this entry is damaged, or the entry is cut off",
            Self::TooLarge => "this entry is a body that is larger than a value may be: it is read by chunks",
        })
    }
}

impl std::error::Error for Uninspectable {}

impl From<Uninspectable> for BackendError {
    fn from(why: Uninspectable) -> Self {
        Self::new(ErrorKind::Codec, why.to_string())
    }
}

impl Inspection {
    /// Looks into the bytes that a store has under a key. `now` is what its times are compared with.
    ///
    /// # Errors
    /// If they are no record that this release understands.
    pub fn of(record: &Bytes, now: Timestamp) -> Result<Self, Uninspectable> {
        let head = Head::parse(record).ok_or(Uninspectable::Foreign)?;
        if head.version == 0 || head.version > FORMAT_VERSION {
            return Err(Uninspectable::Newer);
        }
        let (_, payload) = head.parts(record).ok_or(Uninspectable::Damaged)?;
        if !head.is_header_intact(record) {
            return Err(Uninspectable::Damaged);
        }
        let Some(Ok(entry)) = wire::peek(record) else { return Err(Uninspectable::Newer) };
        let payload_bytes = payload.len() as u64;
        let is_plain = head.compressor == COMPRESSOR_NONE;
        let stored = Stored {
            format_id: head.format,
            format: Format::with_id(head.format, Format::default()),
            compressor_id: head.compressor,
            schema: head.schema,
            type_tag: head.type_tag,
            identity: head.identity,
            key_digest: head.digest,
            record_bytes: record.len() as u64,
            payload_bytes,
            plain_bytes: if is_plain { payload_bytes } else { head.plain_len },
            is_intact: head.verifies(record, &payload),
        };
        Ok(Self { entry, stored: Some(stored), at: now, payload: record.slice(payload) })
    }

    /// Looks into what a store has answered: a record, bytes that it keeps as a record would have them, or a live value.
    pub(crate) fn of_answer(
        key: &CacheKey,
        answer: CacheValue<Raw>,
        now: Timestamp,
    ) -> Result<Self, Uninspectable> {
        match (answer.data().as_stored(), answer.data().as_encoded()) {
            (Some(Ok(record)), _) => Self::of(record, now),
            (Some(Err(super::Unusable::Damaged)), _) => Err(Uninspectable::Damaged),
            (Some(Err(super::Unusable::Foreign)), _) => Err(Uninspectable::Foreign),
            (Some(Err(super::Unusable::TooLarge)), _) => Err(Uninspectable::TooLarge),
            (None, Some(encoded)) => Self::of(&wire::encode(key, &answer, encoded).into(), now),
            (None, None) => {
                Ok(Self { entry: answer.map(drop), stored: None, at: now, payload: Bytes::new() })
            }
        }
    }

    /// Whether the record was stored under this key. A live value does not say it.
    pub fn is_of(&self, key: &CacheKey) -> bool {
        self.stored.is_none_or(|stored| stored.key_digest == wire::key_digest(key))
    }

    /// The value as text, as JSON writes it; bytes that are no text, and what JSON has no form for, in Rust's. Texts within
    /// have no control characters.
    ///
    /// # Errors
    /// [`ErrorKind::Codec`] if the format does not say what it holds, as positional ones do not; if this build lacks the format
    /// or the compressor; if the payload is damaged. [`ErrorKind::TooLarge`] if it has more than 4 MiB.
    pub fn value(&self) -> BackendResult<String> {
        let refused = |why: String| Err(BackendError::new(ErrorKind::Codec, why));
        let Some(stored) = &self.stored else {
            return refused("a live value is not stored as bytes".to_owned());
        };
        if !stored.is_intact {
            return refused("the payload is damaged".to_owned());
        }
        if stored.plain_bytes > MAX_SHOWN {
            return Err(BackendError::too_large("a value that is shown", stored.plain_bytes, MAX_SHOWN));
        }
        let plain = match stored.compressor_id {
            COMPRESSOR_NONE => self.payload.clone(),
            compressor => decompress(compressor, &self.payload, stored.plain_bytes)?,
        };
        match stored.format {
            None => refused(format!("this build has no format {}", stored.format_id)),
            Some(Format::Opaque) => Ok(shown::bytes(&plain)),
            Some(format) if format.is_positional() => {
                refused(format!("{format:?} does not say what it holds: {}", shown::bytes(&plain)))
            }
            Some(format) => format.decode::<Shown>(&plain).map(|shown| shown.0),
        }
    }
}

/// A line of the printed form.
fn line(f: &mut fmt::Formatter<'_>, name: &str, fact: impl Display) -> fmt::Result {
    writeln!(f, "{name:<10}{fact}")
}

/// An instant as a date of RFC 3339, and how far it is from another one.
fn instant(at: Timestamp, now: Timestamp) -> String {
    /// The end of the year 9999: later dates have no such form.
    const LAST: u64 = 253_402_300_799_999;
    let millis = at.as_millis();
    let date = (millis <= LAST).then(|| UNIX_EPOCH + Duration::from_millis(millis));
    let date = date.map_or_else(
        || format!("{millis} ms since 1970"),
        |date| humantime::format_rfc3339_millis(date).to_string(),
    );
    let distance = duration(Duration::from_millis(millis.abs_diff(now.as_millis())));
    if at > now { format!("{date} (in {distance})") } else { format!("{date} ({distance} ago)") }
}

fn duration(time: Duration) -> String {
    // Nobody needs the milliseconds of days.
    let is_long = time >= Duration::from_secs(60);
    let rounded = if is_long { Duration::from_secs(time.as_secs()) } else { time };
    humantime::format_duration(rounded).to_string()
}

impl Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { entry, at: now, .. } = self;
        let details = entry.details();
        let kind = match details.map_or(RecordKind::Value, |details| details.kind) {
            RecordKind::Absent => "known to be absent".to_owned(),
            kind => format!("{kind:?}").to_lowercase(),
        };
        let state = format!("{:?}", entry.lifetime().freshness(*now)).to_lowercase();
        let state = if entry.is_gone(*now) { "gone".to_owned() } else { state };
        line(f, "entry", format_args!("{kind}, {state}"))?;
        let lifetime = entry.lifetime();
        let times = [
            ("created", entry.created()),
            ("touched", details.and_then(|details| details.touched)),
            ("stale", lifetime.stale()),
            ("expire", lifetime.expire()),
            ("retain", lifetime.retain()),
        ];
        for (name, at) in times {
            if let Some(at) = at {
                line(f, name, instant(at, *now))?;
            }
        }
        if lifetime.drop_at().is_none() {
            line(f, "life", "without end")?;
        }
        if let Some(details) = details {
            if let Some(idle) = details.idle {
                line(f, "idle", duration(idle))?;
            }
            if let Some(time) = details.load_time {
                line(f, "loaded in", duration(time))?;
            }
            if let Some(version) = details.version {
                line(f, "version", version)?;
            }
            if details.priority != hitbox_core::Priority::Normal {
                line(f, "priority", format!("{:?}", details.priority).to_lowercase())?;
            }
            for scope in &details.scopes {
                let family = match scope.kind {
                    ScopeKind::Everything => "all",
                    ScopeKind::Namespace => "namespace",
                    ScopeKind::Tag => "tag",
                    _ => "depends",
                };
                let epoch = scope.epoch.0;
                line(f, family, format_args!("{} (epoch {epoch:x})", shown::text(&scope.name)))?;
            }
            for (name, value) in &details.metadata {
                line(f, "metadata", format_args!("{}: {}", shown::text(name), shown::bytes(value)))?;
            }
        }
        let Some(stored) = &self.stored else { return line(f, "value", "live, in memory") };
        let bytes = |count: u64| format!("{count} {}", if count == 1 { "byte" } else { "bytes" });
        let format = match stored.format {
            Some(format) => format!("{format:?}"),
            None => format!("{}, which this build does not have", stored.format_id),
        };
        line(f, "format", format_args!("{format}, schema {}", stored.schema))?;
        let sizes = match stored.compressor_id {
            COMPRESSOR_NONE => bytes(stored.payload_bytes),
            id => {
                let (name, plain) = (compressor_name(id), bytes(stored.plain_bytes));
                format!("{plain}, compressed to {} by {name}", stored.payload_bytes)
            }
        };
        line(f, "size", format_args!("{sizes}; {} with its header", stored.record_bytes))?;
        if stored.type_tag != 0 {
            line(f, "type", format_args!("{:016x}", stored.type_tag))?;
        }
        line(f, "record", format_args!("{:016x}", stored.identity))?;
        if kind == "value" {
            match self.value() {
                Ok(value) => line(f, "value", value)?,
                Err(error) => line(f, "value", format_args!("not shown: {error}"))?,
            }
        }
        Ok(())
    }
}
