//! A cache of plain files, as proxies make it by hand: a file for a response, read by 64 KiB. It knows nothing of purges, bounds, damage or
//! what is under way, and is here to be measured.

use std::any::Any;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use pingora_cache::key::CacheHashKey;
use pingora_cache::storage::{
    HandleHit, HandleMiss, HitHandler, MissFinishType, MissHandler, PurgeOutcome, PurgeTarget, PurgeType,
};
use pingora_cache::trace::SpanHandle;
use pingora_cache::{CacheKey, CacheMeta, Storage};
use pingora_error::{Error, ErrorType, Result};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CHUNK: usize = 64 * 1024;

/// Responses as files in a folder.
pub(crate) struct Files {
    folder: PathBuf,
}

impl Files {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    fn paths(&self, key: &CacheKey) -> [PathBuf; 3] {
        let name = key.combined();
        [".body", ".internal", ".header"].map(|end| self.folder.join(format!("{name}{end}")))
    }
}

fn failed(error: std::io::Error) -> Box<Error> {
    Error::because(ErrorType::InternalError, "a file", error)
}

struct Hit(File);

#[async_trait]
impl HandleHit for Hit {
    async fn read_body(&mut self) -> Result<Option<Bytes>> {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        let read = self.0.read_buf(&mut chunk).await.map_err(failed)?;
        Ok((read > 0).then(|| chunk.freeze()))
    }

    async fn finish(
        self: Box<Self>,
        _: &'static (dyn Storage + Sync),
        _: &CacheKey,
        _: &SpanHandle,
    ) -> Result<()> {
        Ok(())
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }

    fn as_any_mut(&mut self) -> &mut (dyn Any + Send + Sync) {
        self
    }
}

struct Miss(File, usize);

#[async_trait]
impl HandleMiss for Miss {
    async fn write_body(&mut self, data: Bytes, _: bool) -> Result<()> {
        self.1 += data.len();
        self.0.write_all(&data).await.map_err(failed)
    }

    async fn finish(mut self: Box<Self>) -> Result<MissFinishType> {
        self.0.flush().await.map_err(failed)?;
        Ok(MissFinishType::Created(self.1))
    }
}

#[async_trait]
impl Storage for Files {
    async fn lookup(
        &'static self,
        key: &CacheKey,
        _: &SpanHandle,
    ) -> Result<Option<(CacheMeta, HitHandler)>> {
        let [body, internal, header] = self.paths(key);
        let (Ok(internal), Ok(header)) = (tokio::fs::read(internal).await, tokio::fs::read(header).await)
        else {
            return Ok(None);
        };
        let Ok(body) = File::open(body).await else { return Ok(None) };
        Ok(Some((CacheMeta::deserialize(&internal, &header)?, Box::new(Hit(body)))))
    }

    async fn get_miss_handler(
        &'static self,
        key: &CacheKey,
        meta: &CacheMeta,
        _: &SpanHandle,
    ) -> Result<MissHandler> {
        let [body, internal, header] = self.paths(key);
        let (first, second) = meta.serialize()?;
        tokio::fs::write(internal, first).await.map_err(failed)?;
        tokio::fs::write(header, second).await.map_err(failed)?;
        Ok(Box::new(Miss(File::create(body).await.map_err(failed)?, 0)))
    }

    async fn purge(&'static self, _: PurgeTarget<'_>, _: PurgeType, _: &SpanHandle) -> Result<PurgeOutcome> {
        Ok(PurgeOutcome::NotFound)
    }

    async fn update_meta(&'static self, _: &CacheKey, _: &CacheMeta, _: &SpanHandle) -> Result<bool> {
        Ok(false)
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync + 'static) {
        self
    }
}
