//! What is cached, under which key, and what clients are told of it.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use hitbox_pingora::{BackendStorage, Stored, Tags};
use http::{Method, StatusCode, header};
use pingora_cache::cache_control::CacheControl;
use pingora_cache::filters::{request_cacheable, resp_cacheable};
use pingora_cache::key::{CacheHashKey, HashBinary};
use pingora_cache::lock::{CacheKeyLockImpl, CacheLock};
use pingora_cache::trace::Span;
use pingora_cache::{
    CacheKey, CacheMeta, CacheMetaDefaults, CachePhase, NoCacheReason, PurgeAction, RespCacheable, Storage,
    VarianceBuilder,
};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{ProxyHttp, PurgeStatus, Session};

/// Without a word of the origin nothing is stored: no status has a time of its own.
const DEFAULTS: CacheMetaDefaults = CacheMetaDefaults::new(|_| None, 0, 0);
/// Others wait so long for the one who asks the origin, until its response begins.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What is known of a purge before Pingora makes it.
#[derive(Default)]
pub(crate) struct Purging {
    was_there: bool,
}

/// Passes requests on to one origin, and caches what it answers.
pub(crate) struct CachingProxy {
    origin: String,
    storage: &'static BackendStorage,
    lock: &'static CacheKeyLockImpl,
    /// Who leaves its connection open and takes nothing is let go: others may wait for what it was the first to ask for.
    write_timeout: Duration,
}

impl CachingProxy {
    pub(crate) fn new(
        origin: &str,
        storage: &'static BackendStorage,
        write_timeout: Duration,
    ) -> std::io::Result<Self> {
        // That it can be resolved is found out now, and not with the first request.
        std::net::ToSocketAddrs::to_socket_addrs(origin)?;
        let lock: &'static CacheKeyLockImpl = Box::leak(CacheLock::new_boxed(LONGEST_WAIT));
        Ok(Self { origin: origin.to_owned(), storage, lock, write_timeout })
    }
}

/// The host of a request. Without one it cannot be told from requests of other hosts.
fn host_of(request: &RequestHeader) -> Option<Vec<u8>> {
    let field = request.headers.get(header::HOST).map(|host| host.as_bytes().to_ascii_lowercase());
    field.or_else(|| request.uri.authority().map(|name| name.as_str().to_ascii_lowercase().into_bytes()))
}

/// Each part with its length, so that no two requests share a key. The target is the one that goes to the origin, byte by byte.
fn key_of(request: &RequestHeader) -> Vec<u8> {
    let host = host_of(request).unwrap_or_default();
    [&host.len().to_be_bytes()[..], &host, request.raw_path()].concat()
}

/// Whether a request says all that its response depends on by its key and fields.
fn is_plain(request: &RequestHeader) -> bool {
    let is_of_a_path =
        [&b"/"[..], b"http://", b"https://"].iter().any(|start| request.raw_path().starts_with(start));
    let has_body = request.headers.contains_key(header::TRANSFER_ENCODING)
        || request.headers.get(header::CONTENT_LENGTH).is_some_and(|len| len != "0");
    is_of_a_path && !has_body && host_of(request).is_some()
}

/// The tag of all variants of a resource.
fn tag_of(request: &RequestHeader) -> String {
    CacheKey::new(key_of(request), "").primary()
}

/// The names of the fields by which a response varies; nothing if nobody can say what it depends on.
fn vary_of(headers: &http::HeaderMap) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for line in headers.get_all(header::VARY) {
        for name in line.to_str().ok()?.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if name == "*" {
                return None;
            }
            names.push(http::HeaderName::try_from(name).ok()?.as_str().to_owned());
        }
    }
    Some(names)
}

/// What is there is to be kept, as stale.
fn is_expiry(session: &Session) -> bool {
    session.req_header().headers.get("x-purge").is_some_and(|how| how == "expire")
}

fn is_local(session: &Session) -> bool {
    let address = session.client_addr().and_then(|address| address.as_inet());
    address.is_some_and(|address: &SocketAddr| address.ip().is_loopback())
}

#[async_trait]
impl ProxyHttp for CachingProxy {
    type CTX = Purging;

    fn new_ctx(&self) -> Purging {
        Purging::default()
    }

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut Purging) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(&*self.origin, false, String::new())))
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Purging) -> Result<bool> {
        session.as_downstream_mut().set_write_timeout(Some(self.write_timeout));
        // A client that has the part that it wanted may ask again while the rest of the response still comes. Pingora would close its
        // connection.
        session.as_downstream_mut().set_pipelining_enabled(true);
        if session.req_header().method.as_str() == "PURGE" && !is_local(session) {
            session.respond_error(StatusCode::FORBIDDEN.as_u16()).await?;
            return Ok(true);
        }
        if session.req_header().method.as_str() == "PURGE" && !is_expiry(session) {
            // Pingora purges what the key names, which is one of several variants.
            let (key, span) = (CacheKey::new(key_of(session.req_header()), ""), Span::inactive().handle());
            ctx.was_there = self.storage.lookup(&key, &span).await?.is_some();
            let tag = tag_of(session.req_header());
            if let Err(error) = self.storage.invalidate_tags(&[&tag]).await {
                return Err(Error::because(ErrorType::InternalError, "a layer may have it still", error));
            }
        }
        Ok(false)
    }

    fn request_cache_filter(&self, session: &mut Session, _ctx: &mut Purging) -> Result<()> {
        let request = session.req_header();
        let is_known = request_cacheable(request) || request.method.as_str() == "PURGE";
        if is_known && is_plain(request) {
            session.cache.enable(self.storage, None, None, Some(self.lock), None);
        }
        Ok(())
    }

    fn cache_key_callback(&self, session: &Session, _ctx: &mut Purging) -> Result<CacheKey> {
        Ok(self.storage.asked(CacheKey::new(key_of(session.req_header()), "")))
    }

    fn response_cache_filter(
        &self,
        session: &Session,
        response: &ResponseHeader,
        _ctx: &mut Purging,
    ) -> Result<RespCacheable> {
        let control = CacheControl::from_resp_headers(response);
        let is_authorized = session.req_header().headers.contains_key(header::AUTHORIZATION);
        let is_part = response.status == StatusCode::PARTIAL_CONTENT;
        let vary = vary_of(&response.headers).filter(|_| !is_part);
        let (Some(vary), false) = (vary, response.headers.contains_key(header::SET_COOKIE)) else {
            return Ok(RespCacheable::Uncacheable(NoCacheReason::OriginNotCache));
        };
        let mut answer = resp_cacheable(control.as_ref(), response.clone(), is_authorized, &DEFAULTS);
        if let RespCacheable::Cacheable(meta) = &mut answer
            && !vary.is_empty()
        {
            meta.extensions_mut().insert(Tags(vec![tag_of(session.req_header())]));
        }
        Ok(answer)
    }

    fn cache_vary_filter(
        &self,
        meta: &CacheMeta,
        _ctx: &mut Purging,
        request: &RequestHeader,
    ) -> Option<HashBinary> {
        let mut variance = VarianceBuilder::new();
        for name in vary_of(meta.headers())? {
            let mut value = Vec::new();
            for line in request.headers.get_all(&name) {
                value.extend_from_slice(&(line.len() as u64).to_be_bytes());
                value.extend_from_slice(line.as_bytes());
            }
            variance.add_owned_name_value(name, value);
        }
        variance.finalize()
    }

    fn should_serve_stale(&self, _session: &mut Session, _ctx: &mut Purging, _error: Option<&Error>) -> bool {
        // What Pingora asks for is within the windows that the origin gave.
        true
    }

    fn is_purge(&self, session: &Session, _ctx: &Purging) -> bool {
        session.req_header().method.as_str() == "PURGE"
    }

    fn purge_action(&self, session: &Session, _ctx: &Purging) -> PurgeAction {
        if is_expiry(session) { PurgeAction::Expire } else { PurgeAction::Delete }
    }

    fn purge_response_filter(
        &self,
        _session: &Session,
        ctx: &mut Purging,
        status: PurgeStatus,
        response: &mut Cow<'static, ResponseHeader>,
    ) -> Result<()> {
        // Its variants have gone with their tag, so that there was nothing left for Pingora.
        if ctx.was_there && matches!(status, PurgeStatus::NotFound) {
            response.to_mut().set_status(StatusCode::OK)?;
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        _ctx: &mut Purging,
    ) -> Result<()> {
        let what = match session.cache.phase() {
            CachePhase::Hit => "hit",
            CachePhase::Stale | CachePhase::StaleUpdating => "stale",
            CachePhase::Revalidated | CachePhase::RevalidatedNoCache(_) => "revalidated",
            CachePhase::Miss | CachePhase::Expired => "miss",
            _ => "pass",
        };
        let stored =
            session.cache.maybe_cache_meta().and_then(|meta| meta.extensions().get::<Stored>().copied());
        let told = match stored {
            Some(stored) if what != "miss" => format!("{what}; layer={}", stored.layer),
            _ => what.to_owned(),
        };
        response.insert_header("x-cache", told)?;
        let request = session.req_header();
        let is_short = request.headers.contains_key(header::RANGE) || request.method == Method::HEAD;
        if what == "miss" && is_short {
            // Its connection is busy until the whole response has come: it need not wait for that.
            session.set_keepalive(None);
        }
        if what != "miss" && what != "pass" {
            let age = session.cache.cache_meta().age().as_secs();
            response.insert_header(header::AGE, age.to_string())?;
        }
        Ok(())
    }
}
