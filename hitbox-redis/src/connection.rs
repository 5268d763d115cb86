//! One connection for all clones. It is opened when it is first used, replaced by the next call when it has ended, and also
//! when it stays open and answers nothing; every call is cut at the deadline, whatever state the connection is in.

use std::pin::{Pin, pin};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::{Either, select};
use hitbox_backend::core::{BackendError, BackendResult, Clock, ErrorKind};
use redis::{Client, Cmd, FromRedisValue, IntoConnectionInfo, Pipeline, RedisResult};
use tokio::runtime::Handle;

use crate::builder::RedisBuilder;
use crate::error::backend_error;
use crate::line::{Line, is_answer};
use crate::socket::tcp_settings;

#[derive(Clone)]
pub(crate) struct Connection(Arc<Shared>);

struct Shared {
    client: Client,
    /// Nothing before the first call: a line is driven by the runtime of a caller.
    line: RwLock<Option<Arc<Line>>>,
    clock: Arc<dyn Clock>,
    deadline: Duration,
    connect_timeout: Duration,
}

/// A call under way. Dropping it before it has ended tells of its line's silence.
struct Call<'a> {
    connection: &'a Connection,
    line: &'a Arc<Line>,
    has_ended: bool,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.has_ended && self.line.unanswered() {
            self.connection.examine(self.line);
        }
    }
}

/// A line that is being examined, however that ends.
struct Examination(Arc<Line>);

impl Drop for Examination {
    fn drop(&mut self) {
        self.0.examined();
    }
}

impl Connection {
    pub(crate) fn new(builder: &RedisBuilder) -> BackendResult<Self> {
        let (clock, connect_timeout) = (builder.options.clock.clone(), builder.settings.connect_timeout);
        let client = client(builder).map_err(wrong)?;
        let (line, deadline) = (RwLock::default(), builder.settings.deadline);
        Ok(Self(Arc::new(Shared { client, line, clock, deadline, connect_timeout })))
    }

    fn line(&self) -> BackendResult<Arc<Line>> {
        let usable = |line: &Option<Arc<Line>>| line.as_ref().filter(|line| !line.is_over()).cloned();
        if let Some(line) = usable(&self.0.line.read().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(line);
        }
        let mut known = self.0.line.write().unwrap_or_else(PoisonError::into_inner);
        match usable(&known) {
            Some(line) => Ok(line),
            None => Ok(known.insert(self.new_line()?).clone()),
        }
    }

    fn new_line(&self) -> BackendResult<Arc<Line>> {
        let runtime = Handle::try_current().map_err(|error| {
            BackendError::new(ErrorKind::Configuration, "Redis needs a tokio runtime").with_source(error)
        })?;
        Ok(Line::new(self.0.client.clone(), self.0.connect_timeout, &runtime))
    }

    /// One round trip.
    pub(crate) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> BackendResult<T> {
        let line = self.line()?;
        let answer = self.call(&line, pin!(line.query(command))).await?;
        answer.map_err(|error| backend_error(error, command))
    }

    /// Several commands in one round trip, each with its own answer.
    pub(crate) async fn pipeline<T: FromRedisValue>(
        &self,
        pipeline: &mut Pipeline,
    ) -> BackendResult<Vec<BackendResult<T>>> {
        let line = self.line()?;
        let pipeline = &*pipeline.ignore_errors();
        let Some(first) = pipeline.cmd_iter().next() else { return Ok(Vec::new()) };
        let answers = self.call(&line, pin!(line.pipeline(pipeline))).await?;
        let answers: Vec<RedisResult<T>> = answers.map_err(|error| backend_error(error, first))?;
        let mut each = Vec::with_capacity(answers.len());
        for (answer, command) in answers.into_iter().zip(pipeline.cmd_iter()) {
            each.push(answer.map_err(|error| backend_error(error, command)));
        }
        Ok(each)
    }

    /// Removes a key when somebody leaves who cannot wait. What cannot be removed ends by itself.
    #[expect(clippy::disallowed_methods, reason = "the deadline ends it")]
    pub(crate) fn unlink_later(&self, key: Vec<u8>) {
        let Ok(runtime) = Handle::try_current() else { return };
        let connection = self.clone();
        runtime.spawn(async move {
            if let Err(error) = connection.query::<i64>(redis::cmd("UNLINK").arg(key)).await {
                tracing::debug!(%error, "parts of a body that was given up are left until their time is over");
            }
        });
    }

    /// What comes of a round trip on this line before the deadline. The call stays where it is: a future that is handed on by
    /// value is copied, and stands twice in the one that it is handed to.
    async fn call<T>(&self, line: &Arc<Line>, call: Pin<&mut impl Future<Output = T>>) -> BackendResult<T> {
        let mut under_way = Call { connection: self, line, has_ended: false };
        let result = self.cut(call).await?;
        under_way.has_ended = true;
        Ok(result)
    }

    /// Finds out whether a line that has not answered several calls is deaf, and puts a fresh one in its place if it is.
    #[expect(clippy::disallowed_methods, reason = "it ends with the silence or the backend")]
    fn examine(&self, line: &Arc<Line>) {
        // On a clock that is driven by hand nobody would know whom it is moved for.
        let runtime = Handle::try_current().ok().filter(|_| self.0.clock.is_real());
        let Some(runtime) = runtime else { return line.examined() };
        let (shared, examination) = (Arc::downgrade(&self.0), Examination(line.clone()));
        runtime.spawn(async move {
            while let Some(shared) = shared.upgrade()
                && Self(shared).goes_on_silent(&examination.0).await
            {}
        });
    }

    /// Asks the line and, if it says nothing, the server by another one. A server that hangs answers neither: the line is
    /// kept, so that what is on its way there arrives before what is written next. Says whether nobody has answered.
    async fn goes_on_silent(&self, line: &Arc<Line>) -> bool {
        let shared = &*self.0;
        if !self.line().is_ok_and(|current| Arc::ptr_eq(&current, line)) {
            return false;
        }
        if self.ask(line, shared.deadline).await.is_some() {
            // Callers who give up at once are no reason to ask all the time. A line that has ended is replaced by the next call.
            shared.clock.sleep(shared.deadline).await;
            return false;
        }
        let fresh = match self.new_line() {
            Ok(fresh) => fresh,
            Err(error) => {
                tracing::warn!(%error, "a connection to Redis cannot be replaced");
                return false;
            }
        };
        if self.ask(&fresh, shared.connect_timeout.saturating_add(shared.deadline)).await != Some(true) {
            shared.clock.sleep(shared.deadline).await;
            return true;
        }
        // The server may have begun to answer just now.
        if self.ask(line, shared.deadline).await.is_none() {
            tracing::warn!("a connection to Redis answers nothing and is replaced");
            *shared.line.write().unwrap_or_else(PoisonError::into_inner) = Some(fresh);
        }
        false
    }

    /// Whether the server answers on this line; nothing if that is not known in time.
    async fn ask(&self, line: &Line, time: Duration) -> Option<bool> {
        let ping = redis::cmd("PING");
        let call = line.query::<redis::Value>(&ping);
        match select(pin!(call), self.0.clock.sleep(time)).await {
            Either::Left((result, _)) => Some(is_answer(&result)),
            Either::Right(_) => None,
        }
    }

    /// What comes of a call before the deadline.
    #[expect(
        clippy::disallowed_methods,
        reason = "the machine's clock would sleep in the same way, in a box"
    )]
    pub(crate) async fn cut<T>(&self, call: impl Future<Output = T> + Unpin) -> BackendResult<T> {
        let Shared { clock, deadline, .. } = &*self.0;
        let answer = if clock.is_real() {
            tokio::time::timeout(*deadline, call).await.ok()
        } else {
            match select(call, clock.sleep(*deadline)).await {
                Either::Left((result, _)) => Some(result),
                Either::Right(_) => None,
            }
        };
        answer.ok_or_else(|| {
            let message = format!("the server did not answer within {} ms", deadline.as_millis());
            BackendError::new(ErrorKind::Timeout, message)
        })
    }

    /// The database in use.
    pub(crate) fn database(&self) -> i64 {
        self.0.client.get_connection_info().redis_settings().db()
    }
}

fn wrong(error: redis::RedisError) -> BackendError {
    BackendError::new(ErrorKind::Configuration, "url is not the address of a Redis server").with_source(error)
}

fn address(builder: &RedisBuilder) -> RedisResult<redis::ConnectionInfo> {
    Ok(builder.url.as_str().into_connection_info()?.set_tcp_settings(tcp_settings()))
}

#[cfg(not(feature = "tls"))]
fn client(builder: &RedisBuilder) -> RedisResult<Client> {
    Client::open(address(builder)?)
}

#[cfg(feature = "tls")]
fn client(builder: &RedisBuilder) -> RedisResult<Client> {
    let address = address(builder)?;
    if !matches!(address.addr(), redis::ConnectionAddr::TcpTls { .. }) {
        return Client::open(address);
    }
    // rustls wants one provider of cryptography per process. The application's choice goes first; if two
    // threads get here at once, either will do.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    Client::build_with_tls(address, builder.certificates.clone())
}
