//! Connections of clients: HTTP/1.1, and HTTP/2 without TLS.

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tower_service::Service;

type Failure = Box<dyn Error + Send + Sync>;

/// What is under way when the proxy is told to stop may take so long.
const STOPPING: Duration = Duration::from_secs(10);

/// Serves what connects until the process is told to stop, and then what is under way.
pub(crate) async fn serve<S, B>(listener: TcpListener, service: S) -> std::io::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<Failure> + Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Failure>,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    let connections = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stopped());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            result = &mut stop => {
                result?;
                break;
            }
        };
        let stream = match accepted.and_then(prepared) {
            Ok(stream) => stream,
            Err(error) => {
                // There may be too many of them; some end.
                eprintln!("a connection was not accepted: {error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let service = service.clone();
        let answers = service_fn(move |request| answer(service.clone(), request));
        let connection = builder.serve_connection(TokioIo::new(stream), answers).into_owned();
        let served = connections.watch(connection);
        // What fails here is between one client and this, and the client notices it.
        tokio::spawn(async move { served.await.ok() });
    }
    drop(listener);
    if tokio::time::timeout(STOPPING, connections.shutdown()).await.is_err() {
        eprintln!("some answers were still under way after {STOPPING:?}");
    }
    Ok(())
}

fn prepared((stream, _): (TcpStream, std::net::SocketAddr)) -> std::io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What the service answers, or that it failed.
async fn answer<S, B>(
    mut service: S,
    request: Request<Incoming>,
) -> Result<Response<Either<B, Full<Bytes>>>, Infallible>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Error: Into<Failure>,
    B: Body<Data = Bytes>,
{
    if request.method() == Method::CONNECT {
        return Ok(explain(StatusCode::NOT_IMPLEMENTED, "this is no proxy for CONNECT\n"));
    }
    let ready = std::future::poll_fn(|context| service.poll_ready(context)).await;
    let answered = match ready {
        Ok(()) => service.call(request).await,
        Err(error) => Err(error),
    };
    match answered {
        Ok(response) => Ok(response.map(Either::Left)),
        Err(error) => {
            eprintln!("{}", chain(&*error.into()));
            Ok(explain(StatusCode::BAD_GATEWAY, "the origin does not answer\n"))
        }
    }
}

fn explain<B>(status: StatusCode, text: &'static str) -> Response<Either<B, Full<Bytes>>> {
    let mut response = Response::new(Either::Right(Full::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// An error with what caused it.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

/// Waits until the process is told to stop.
#[cfg(unix)]
async fn stopped() -> std::io::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result,
        _ = terminate.recv() => Ok(()),
    }
}

#[cfg(not(unix))]
async fn stopped() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}
