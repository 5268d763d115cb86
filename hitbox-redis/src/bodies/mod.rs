//! Bodies that come and go by chunks. A body of up to [`PART`] bytes is one value, as any other. A longer one is a hash: its parts, and what
//! its record says. So the server replaces it, lets it end and puts it out as a whole, whoever writes its key, and it has one generation. While it is
//! written it has a key of its own, which becomes that of the entry when it is committed.

mod read;
mod write;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hitbox_backend::core::{BackendError, BackendResult, ErrorKind};
use hitbox_backend::envelope::wire::{self, CHUNK_BYTES, Framing};

use crate::connection::Connection;
use crate::error::is_wrong_type;
use crate::scripts;

pub(crate) use write::RedisWriter;

/// Bytes of a part: whole chunks. One of them is on its way at a time, and within the deadline of a call.
pub(crate) const PART: usize = 4 * CHUNK_BYTES;
/// How long the server keeps the parts of a body of which no more come.
const KEPT: Duration = Duration::from_secs(600);

/// The checksums of a part depend on the body that it is of, and on its place in it.
fn framing_of(identity: u64, part: u64) -> Framing {
    Framing::new(identity.wrapping_add(part))
}

fn is_gone() -> BackendError {
    BackendError::new(ErrorKind::Conflict, "the body was replaced or removed while it was read")
}

/// Where the parts of a body are.
#[derive(Clone)]
struct Parts {
    connection: Connection,
    /// The key of the hash.
    hash: Vec<u8>,
    identity: u64,
}

impl Parts {
    async fn write(&self, part: u64, bytes: &[u8]) -> BackendResult<()> {
        let mut framing = framing_of(self.identity, part);
        framing.add(bytes);
        let stored = [bytes, &framing.trailer()].concat();
        let mut command = redis::cmd("EVAL");
        command.arg(scripts::WRITE_PART).arg(1).arg(&self.hash);
        command.arg(part).arg(stored).arg(KEPT.as_millis() as u64);
        self.connection.query::<i64>(&command).await.map(drop)
    }

    /// A part of so many bytes; nothing if it is not there.
    async fn read(&self, part: u64, len: u64) -> BackendResult<Option<Bytes>> {
        let mut get = redis::cmd("HGET");
        get.arg(&self.hash).arg(part);
        let stored = self.connection.query::<Option<Vec<u8>>>(&get).await?;
        stored.map(|stored| self.verified(part, len, stored)).transpose()
    }

    /// The same of a body that has been committed under a key, if that still has it.
    async fn read_committed(&self, key: &[u8], part: u64, len: u64) -> BackendResult<Bytes> {
        let mut get = redis::cmd("HMGET");
        get.arg(key).arg("identity").arg(part);
        let (identity, stored) = match self.connection.query::<(Option<Vec<u8>>, Option<Vec<u8>>)>(&get).await
        {
            Err(error) if is_wrong_type(&error) => return Err(is_gone()),
            answer => answer?,
        };
        if identity.as_deref() != Some(&self.identity.to_le_bytes()) {
            return Err(is_gone());
        }
        let missing = || BackendError::new(ErrorKind::Codec, "a part of a stored body is missing");
        self.verified(part, len, stored.ok_or_else(missing)?)
    }

    fn verified(&self, part: u64, len: u64, stored: Vec<u8>) -> BackendResult<Bytes> {
        let damaged = || BackendError::new(ErrorKind::Codec, "a part of a stored body is damaged");
        if wire::payload_len(stored.len() as u64) != Some(len) {
            return Err(damaged());
        }
        let mut framing = framing_of(self.identity, part);
        framing.add(&stored[..len as usize]);
        if framing.trailer() != stored[len as usize..] {
            return Err(damaged());
        }
        let mut bytes = Bytes::from(stored);
        bytes.truncate(len as usize);
        Ok(bytes)
    }

    async fn remove(&self) -> BackendResult<()> {
        self.connection.query::<i64>(redis::cmd("UNLINK").arg(&self.hash)).await.map(drop)
    }
}

/// The last part that was read of a body: readers may ask for less at a time.
#[derive(Default)]
struct LastPart(Mutex<Option<(u64, Bytes)>>);

impl LastPart {
    /// At most `limit` bytes from `at` on, of a body of which there are so many, by a read of one part and its length.
    async fn read<R>(
        &self,
        at: u64,
        limit: u64,
        len: u64,
        read: impl FnOnce(u64, u64) -> R,
    ) -> BackendResult<Bytes>
    where
        R: Future<Output = BackendResult<Bytes>>,
    {
        let part = at / PART as u64;
        let from = part * PART as u64;
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let bytes = match last {
            Some((known, bytes)) if known == part => bytes,
            _ => {
                let bytes = read(part, (len - from).min(PART as u64)).await?;
                *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((part, bytes.clone()));
                bytes
            }
        };
        let (from, limit) = ((at - from) as usize, usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(bytes.slice(from..from.saturating_add(limit).min(bytes.len())))
    }
}
