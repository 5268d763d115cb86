//! Settings of the Redis backend.

use std::fmt;
use std::time::Duration;

use hitbox_backend::core::BackendResult;
use hitbox_backend::store::LeafOptions;
use hitbox_backend::{CacheKeyFormat, leaf_setters};

use crate::RedisBackend;

/// Builds a [`RedisBackend`].
#[derive(Clone)]
pub struct RedisBuilder {
    pub(crate) url: String,
    pub(crate) settings: Settings,
    #[cfg(feature = "tls")]
    pub(crate) certificates: redis::TlsCertificates,
    pub(crate) options: LeafOptions,
}

/// What the backend keeps of its settings.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) prefix: String,
    pub(crate) key_format: CacheKeyFormat,
    pub(crate) deadline: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) skew_margin: Duration,
    pub(crate) body_limit: u64,
}

impl fmt::Debug for RedisBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address may hold a password.
        f.debug_struct("RedisBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl RedisBuilder {
    pub(crate) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            settings: Settings {
                prefix: "hitbox:".to_owned(),
                key_format: CacheKeyFormat::Text,
                deadline: Duration::from_millis(250),
                connect_timeout: Duration::from_secs(1),
                skew_margin: Duration::from_secs(30),
                body_limit: 64 * 1024 * 1024,
            },
            #[cfg(feature = "tls")]
            certificates: redis::TlsCertificates { client_tls: None, root_cert: None },
            options: LeafOptions::new("redis"),
        }
    }

    /// Put in front of every key, `hitbox:` by default. Caches that share a server keep apart by it.
    ///
    /// One that ends in a letter or digit gets a `:` at its end, so that `shop` is no beginning of `shopify` or `shop2`.
    /// Without a prefix nothing can be erased.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.settings.prefix = prefix.to_owned();
        if prefix.ends_with(char::is_alphanumeric) {
            self.settings.prefix.push(':');
        }
        self
    }

    /// How keys look on the server, readable by default.
    #[must_use]
    pub fn key_format(mut self, format: CacheKeyFormat) -> Self {
        self.settings.key_format = format;
        self
    }

    /// Cuts every call after so long, 250 ms by default. The outcome of a write that is cut is unknown. Waiting for earlier
    /// writes of the key counts. When the server has let one entry of a batch wait for so long the others are not tried.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = deadline;
        self
    }

    /// Gives up an attempt to connect after so long, 1 s by default; the next call tries again.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// How long the server keeps a key beyond the end of its life, 30 s by default: as far as the clocks
    /// of processes and server may differ before entries are lost early.
    #[must_use]
    pub fn skew_margin(mut self, margin: Duration) -> Self {
        self.settings.skew_margin = margin;
        self
    }

    /// Refuses bodies of more bytes than these, 64 MiB by default. One of up to 256 KiB is stored as one value, and a
    /// longer one in parts of so many, under one key: with a limit of 256 KiB nothing is stored in parts.
    #[must_use]
    pub fn body_limit(mut self, bytes: u64) -> Self {
        self.settings.body_limit = bytes;
        self
    }

    /// Trusts servers whose certificate was signed by one of these, in PEM, instead of Mozilla's list, which is built in.
    /// The bundle of the machine, such as `/etc/ssl/certs/ca-certificates.crt`, may be given as it is. For addresses
    /// that begin with `rediss:`. Default: Mozilla's list.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls_root(mut self, pem: &[u8]) -> Self {
        self.certificates.root_cert = Some(pem.to_owned());
        self
    }

    /// Shows this certificate to the server, with its private key; both in PEM. Default: none.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls_client(mut self, certificate_pem: &[u8], key_pem: &[u8]) -> Self {
        let (client_cert, client_key) = (certificate_pem.to_owned(), key_pem.to_owned());
        self.certificates.client_tls = Some(redis::ClientTlsConfig { client_cert, client_key });
        self
    }

    /// How long the epochs of tags, dependencies, namespaces and of "everything" are believed without asking the server
    /// again, 1 s by default: what another process has invalidated is served for so long at most.
    #[must_use]
    pub fn staleness_bound(mut self, bound: Duration) -> Self {
        self.options.staleness_bound = bound;
        self
    }

    leaf_setters!("redis", codec);

    /// The backend, connected when it is first used.
    ///
    /// # Errors
    /// [`Configuration`](hitbox_backend::core::ErrorKind::Configuration) if the address is none, or certificates cannot be read.
    pub fn build(self) -> BackendResult<RedisBackend> {
        RedisBackend::new(self)
    }
}
