//! The same response through sockets: a server with a thread of its own, and a load on another.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::body::Body;
use axum::http::{HeaderValue, Request, Response};
use axum::{Router, ServiceExt as _};
use hitbox_tower::{CacheLayer, CacheService};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tower::ServiceExt;
use tower::util::MapResponseLayer;
use tower_layer::{Identity, Layer};
use tower_service::Service;

use super::http::{BYTES, as_served, service};
use super::memory;
use crate::measure::{Measure, Repeat, Subject};

/// Each has one request under way, always.
const CONNECTIONS: u64 = 32;
const REQUEST: &[u8] = b"GET /items/7 HTTP/1.1\r\nhost: shop\r\n\r\n";

pub(super) fn subject() -> Subject {
    let title =
        "A response of 1 KiB through sockets, 32 connections, one thread for the server and one for the load";
    Subject::new("http_sockets", title, Measure::Time)
        .operation("a constant", |_| requests(Server::start(as_served(service()))))
        // What axum takes for any layer within a router.
        .operation("a constant, behind an empty layer", |_| {
            requests(Server::start(as_served(service().layer(Identity::new()))))
        })
        // An answer as long as that of a hit, which says its age and what became of the request.
        .operation("a constant, with the fields of a hit", |_| {
            requests(Server::start(as_served(with_fields_of_a_hit())))
        })
        .operation("hit in memory", |_| {
            requests(Server::start(as_served(service().layer(CacheLayer::new(memory())))))
        })
        // A hit does not come through the router.
        .operation("hit in memory, around the router", |_| {
            requests(Server::start(around(as_served(service()))))
        })
        // Nine tenths of the requests per second.
        .target("hit in memory", "a constant", 1.0 / 0.9)
        .target("hit in memory, around the router", "a constant", 1.0 / 0.9)
}

/// The layer around a router, with bodies of axum's type.
fn around(
    router: Router,
) -> impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send {
    let cached: CacheService<Router> = CacheLayer::new(memory()).layer(router);
    ServiceExt::<Request<Body>>::map_response(cached, |response| response.map(Body::new))
}

fn with_fields_of_a_hit() -> Router {
    service().layer(MapResponseLayer::new(|mut response: Response<Body>| {
        let fields = [("age", "7"), ("cache-status", "http; hit; ttl=3593; detail=moka")];
        for (name, value) in fields {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }))
}

/// A server until it is dropped.
struct Server {
    runtime: Option<Runtime>,
    address: SocketAddr,
}

impl Server {
    fn start<S>(app: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
            + Clone
            + Send
            + 'static,
    {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        runtime.spawn(async move { axum::serve(listener, app.into_make_service()).await });
        Self { runtime: Some(runtime), address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn requests(server: Server) -> Repeat {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let connect = || runtime.block_on(TcpStream::connect(server.address)).expect("a connection");
    let mut connections: Vec<Connection> =
        (0..CONNECTIONS).map(|_| Connection { stream: connect(), read: Vec::new() }).collect();
    Box::new(move |times| {
        let _serving = &server;
        let each = times.div_ceil(CONNECTIONS);
        connections = runtime.block_on(async {
            let mut asking = JoinSet::new();
            for mut connection in connections.drain(..) {
                asking.spawn(async move {
                    for _ in 0..each {
                        connection.ask().await;
                    }
                    connection
                });
            }
            asking.join_all().await
        });
    })
}

struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    /// Asks, and reads all of the answer.
    async fn ask(&mut self) {
        let Self { stream, read } = self;
        stream.write_all(REQUEST).await.expect("it is sent");
        read.clear();
        loop {
            assert!(stream.read_buf(read).await.expect("it is read") > 0, "the server has closed");
            let head = read.windows(4).position(|end| end == b"\r\n\r\n");
            if head.is_some_and(|head| read.len() >= head + 4 + BYTES) {
                assert!(read.starts_with(b"HTTP/1.1 200"), "an answer");
                return;
            }
        }
    }
}
