//! Who reads a body while it is being written.

use std::fmt;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hitbox_core::{BackendError, BackendLabel, BackendResult, CacheValue, ErrorKind, Freshness, Operation};

use super::{Followed, HELD, Leader, State};
use crate::envelope::DeferredDrops;
use crate::feed;
use crate::store::WrittenPart;
use crate::stream::{self, BodyReader};

/// Reads a body while it is being written.
pub struct Follower {
    followed: Arc<Followed>,
    at: Range<u64>,
    /// Nothing has been read since the last seek.
    has_sought: bool,
    leads: bool,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if self.leads {
            self.followed.change(|progress| progress.leader = None);
        }
    }
}

/// What there is for a follower.
enum Next {
    Chunk(Bytes),
    End,
    Wait,
    /// A layer has it.
    Written(Arc<dyn WrittenPart>, u64),
}

impl Follower {
    pub(super) fn of(followed: Arc<Followed>, leads: bool) -> Self {
        Self { followed, at: 0..u64::MAX, has_sought: false, leads }
    }

    /// Another who follows the same body from its beginning.
    #[must_use]
    pub fn again(&self) -> Self {
        Self::of(self.followed.clone(), false)
    }

    /// Another, for whom the same body is loaded: what it has not taken is held for it.
    #[must_use]
    pub fn lead(&self) -> Self {
        self.followed.lock().leader = Some(Leader { at: 0, is_awaited: true });
        Self::of(self.followed.clone(), true)
    }

    /// Whether the body does not come to its end.
    pub fn is_aborted(&self) -> bool {
        matches!(self.followed.lock().state, State::Aborted(_))
    }

    /// Whoever waits for the leader is told where it is. One that has all that it wants is waited for no more.
    fn has_moved(&mut self) {
        if !self.leads {
            return;
        }
        let (at, is_done) = (self.at.start, self.at.is_empty());
        self.followed.change(|progress| {
            progress.leader_is_at(at);
            if is_done {
                progress.leader = None;
            }
        });
        self.leads = !is_done;
    }

    fn has_read(&mut self, chunk: &Bytes) {
        self.at.start += chunk.len() as u64;
        self.has_sought = false;
        self.has_moved();
    }

    fn failed(&self, error: BackendError) -> BackendError {
        error.at(self.followed.label).during(Operation::ReadBody)
    }

    fn next(&self) -> BackendResult<Next> {
        // What a layer has of it may be let go of here, and with it entries of others.
        let _drops = DeferredDrops::begin();
        let progress = self.followed.lock();
        let (len, at) = (progress.held.len(), self.at.start);
        if let State::Complete { .. } = progress.state {
            if self.has_sought {
                stream::part_of(self.at.clone(), len, self.followed.label)?;
            }
            if at >= len {
                return Ok(Next::End);
            }
        }
        if self.at.is_empty() {
            return Ok(Next::End);
        }
        if let Some(chunk) = progress.held.read(self.at.clone(), u64::MAX) {
            return Ok(Next::Chunk(chunk));
        }
        if let State::Aborted(error) = &progress.state {
            return Err(error.clone());
        }
        if at < len {
            let readable = progress.readable();
            if at < readable {
                let part = progress.written.clone().ok_or_else(feed::given_up)?;
                return Ok(Next::Written(part, readable.min(self.at.end) - at));
            }
            if !progress.is_being_written() {
                let message = format!("no layer has a body of which {HELD} bytes are held");
                return Err(BackendError::new(ErrorKind::TooLarge, message));
            }
        }
        Ok(Next::Wait)
    }
}

#[async_trait]
impl BodyReader for Follower {
    fn entry(&self) -> &CacheValue<()> {
        &self.followed.entry
    }

    fn label(&self) -> BackendLabel {
        self.followed.label
    }

    fn freshness(&self) -> Freshness {
        self.followed.entry.lifetime().freshness(self.followed.clock.now())
    }

    fn generation(&self) -> u64 {
        self.followed.permit.generation()
    }

    fn len(&self) -> Option<u64> {
        let progress = self.followed.lock();
        matches!(progress.state, State::Complete { .. }).then(|| progress.held.len())
    }

    fn seek(&mut self, range: Range<u64>) -> BackendResult<()> {
        let known = self.len();
        if range.start > range.end || known.is_some() {
            stream::part_of(range.clone(), known.unwrap_or(u64::MAX), self.followed.label)?;
        }
        (self.at, self.has_sought) = (range, true);
        self.has_moved();
        Ok(())
    }

    fn chunk_at_once(&mut self) -> Option<BackendResult<Option<Bytes>>> {
        match self.next() {
            Ok(Next::Chunk(chunk)) => {
                self.has_read(&chunk);
                Some(Ok(Some(chunk)))
            }
            Ok(Next::End) => Some(Ok(None)),
            Ok(Next::Wait | Next::Written(..)) => None,
            Err(error) => Some(Err(self.failed(error))),
        }
    }

    async fn chunk(&mut self) -> BackendResult<Option<Bytes>> {
        let followed = self.followed.clone();
        loop {
            let mut changed = pin!(followed.changed.notified());
            changed.as_mut().enable();
            let chunk = match self.next().map_err(|error| self.failed(error))? {
                Next::Chunk(chunk) => chunk,
                Next::End => return Ok(None),
                Next::Written(part, limit) => {
                    part.read_at(self.at.start, limit).await.map_err(|error| self.failed(error))?
                }
                Next::Wait => {
                    changed.await;
                    continue;
                }
            };
            self.has_read(&chunk);
            return Ok(Some(chunk));
        }
    }
}
