//! One connection for all clones. It is opened when it is first used and heals itself; every call is cut
//! at the deadline, whatever state the connection is in.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use hitbox_backend::core::{BackendError, BackendResult, Clock, ErrorKind};
use redis::aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig};
use redis::{Client, FromRedisValue, Pipeline, RedisResult};

use crate::builder::RedisBuilder;
use crate::error::backend_error;

#[derive(Clone)]
pub(crate) struct Connection {
    manager: ConnectionManager,
    clock: Arc<dyn Clock>,
    deadline: Duration,
}

impl Connection {
    pub(crate) fn new(builder: &RedisBuilder) -> BackendResult<Self> {
        let settings = &builder.settings;
        let wrong = |error| {
            BackendError::new(ErrorKind::Configuration, "url is not the address of a Redis server")
                .with_source(error)
        };
        // One attempt per call: the deadline of calls paces them, and the next call tries again. The
        // deadline is ours, so that it runs on the injected clock.
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(settings.connect_timeout))
            .set_response_timeout(None);
        let client = client(builder).map_err(wrong)?;
        let manager = ConnectionManager::new_lazy_with_config(client, config).map_err(wrong)?;
        Ok(Self { manager, clock: builder.options.clock.clone(), deadline: settings.deadline })
    }

    /// One round trip.
    pub(crate) async fn query<T: FromRedisValue>(&self, command: &redis::Cmd) -> BackendResult<T> {
        let mut manager = self.manager.clone();
        self.cut(async move { command.query_async(&mut manager).await }).await?.map_err(backend_error)
    }

    /// Several commands in one round trip, each with its own answer.
    pub(crate) async fn pipeline<T: FromRedisValue>(
        &self,
        pipeline: &mut Pipeline,
    ) -> BackendResult<Vec<BackendResult<T>>> {
        let mut manager = self.manager.clone();
        let pipeline = pipeline.ignore_errors();
        let answers =
            self.cut(async move { pipeline.query_async::<Vec<RedisResult<T>>>(&mut manager).await });
        let answers = answers.await?.map_err(backend_error)?;
        Ok(answers.into_iter().map(|answer| answer.map_err(backend_error)).collect())
    }

    /// What comes of a call before the deadline.
    #[expect(
        clippy::disallowed_methods,
        reason = "the machine's clock would sleep in the same way, in a box"
    )]
    pub(crate) async fn cut<T>(&self, call: impl Future<Output = T>) -> BackendResult<T> {
        let answer = if self.clock.is_real() {
            tokio::time::timeout(self.deadline, call).await.ok()
        } else {
            match select(std::pin::pin!(call), self.clock.sleep(self.deadline)).await {
                Either::Left((result, _)) => Some(result),
                Either::Right(_) => None,
            }
        };
        answer.ok_or_else(|| {
            let message = format!("the server did not answer within {} ms", self.deadline.as_millis());
            BackendError::new(ErrorKind::Timeout, message)
        })
    }

    /// The database in use.
    pub(crate) fn database(&self) -> i64 {
        self.manager.get_db()
    }
}

#[cfg(not(feature = "tls"))]
fn client(builder: &RedisBuilder) -> redis::RedisResult<Client> {
    Client::open(builder.url.as_str())
}

#[cfg(feature = "tls")]
fn client(builder: &RedisBuilder) -> redis::RedisResult<Client> {
    let client = Client::open(builder.url.as_str())?;
    if !matches!(client.get_connection_info().addr(), redis::ConnectionAddr::TcpTls { .. }) {
        return Ok(client);
    }
    // rustls wants one provider of cryptography per process. The application's choice goes first; if two
    // threads get here at once, either will do.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    Client::build_with_tls(builder.url.as_str(), builder.certificates.clone())
}
