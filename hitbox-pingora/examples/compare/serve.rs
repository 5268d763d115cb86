//! One proxy.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use hitbox_backend::wrap::AdmissionRule;
use hitbox_backend::{Compose, OffloadPool, Wrap};
use hitbox_disk::DiskBackend;
use hitbox_moka::MokaBackend;
use hitbox_pingora::BackendStorage;
use hitbox_quick::QuickBackend;
use pingora_cache::cache_control::CacheControl;
use pingora_cache::filters::resp_cacheable;
use pingora_cache::lock::{CacheKeyLockImpl, CacheLock};
use pingora_cache::{CacheKey, CacheMetaDefaults, MemCache, RespCacheable, Storage};
use pingora_core::Result;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::ResponseHeader;
use pingora_proxy::{ProxyHttp, Session};
use tokio::runtime::Runtime;

use crate::files::Files;
use crate::{Failure, Kind};

type Shared = &'static (dyn Storage + Sync);

struct Proxy {
    origin: String,
    storage: Option<Shared>,
    lock: &'static CacheKeyLockImpl,
}

const DEFAULTS: CacheMetaDefaults = CacheMetaDefaults::new(|_| None, 0, 0);

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(&*self.origin, false, String::new())))
    }

    fn request_cache_filter(&self, session: &mut Session, _: &mut ()) -> Result<()> {
        if let Some(storage) = self.storage {
            session.cache.enable(storage, None, None, Some(self.lock), None);
        }
        Ok(())
    }

    fn cache_key_callback(&self, session: &Session, _: &mut ()) -> Result<CacheKey> {
        Ok(CacheKey::new(session.req_header().uri.path(), ""))
    }

    fn response_cache_filter(
        &self,
        _: &Session,
        response: &ResponseHeader,
        _: &mut (),
    ) -> Result<RespCacheable> {
        let control = CacheControl::from_resp_headers(response);
        Ok(resp_cacheable(control.as_ref(), response.clone(), false, &DEFAULTS))
    }
}

pub(crate) fn run(kind: Kind, address: &str, origin: &str, folder: &Path) -> Result<(), Failure> {
    let runtime = Runtime::new()?;
    let pool = OffloadPool::new();
    let memory = || MokaBackend::builder().max_bytes(512 << 20).build();
    let storage: Option<Shared> = match kind {
        Kind::Uncached => None,
        Kind::PingoraMemory => Some(Box::leak(Box::new(MemCache::new()))),
        Kind::Files => Some(Box::leak(Box::new(Files::new(folder)))),
        Kind::Memory => Some(BackendStorage::builder(memory()?).offload(pool.shared()).build().leak()),
        Kind::Quick => {
            let quick = QuickBackend::builder().max_bytes(512 << 20).build()?;
            Some(BackendStorage::builder(quick).offload(pool.shared()).build().leak())
        }
        Kind::Tiers => {
            let disk = runtime.block_on(DiskBackend::builder(folder).max_bytes(10 << 30).open())?;
            let small = memory()?.admission(AdmissionRule::UpTo(512 * 1024));
            let tiers = small.compose(disk, pool.shared());
            Some(BackendStorage::builder(tiers).offload(pool.shared()).build().leak())
        }
    };
    let conf = ServerConf { threads: 1, grace_period_seconds: Some(0), ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let lock: &'static CacheKeyLockImpl = Box::leak(CacheLock::new_boxed(Duration::from_secs(5)));
    let proxy = Proxy { origin: origin.to_owned(), storage, lock };
    let mut service = pingora_proxy::http_proxy_service(&server.configuration, proxy);
    service.add_tcp(address);
    server.add_service(service);
    server.run(RunArgs::default());
    Ok(())
}
