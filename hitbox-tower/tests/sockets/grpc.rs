//! gRPC passes: requests, streams, statuses in trailers, and extensions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hitbox_tower::CacheLayer;
use http::{Request, Response};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::{Layer, ServiceBuilder, ServiceExt};

use crate::common::memory;

fn check(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

/// A server of tonic's health service, with the layer before it. Counts the requests that reach the service.
async fn serve(cache: CacheLayer) -> (Endpoint, tonic_health::server::HealthReporter, Arc<AtomicUsize>) {
    let (reporter, health) = tonic_health::server::health_reporter();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = seen.clone();
    let count = tower::layer::layer_fn(move |inner| {
        let counted = counted.clone();
        tower::ServiceExt::<Request<tonic::body::Body>>::map_request(inner, move |request| {
            counted.fetch_add(1, Ordering::SeqCst);
            request
        })
    });
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let served = Server::builder().layer(ServiceBuilder::new().layer(cache).layer(count)).add_service(health);
    tokio::spawn(served.serve_with_incoming(incoming));
    (Endpoint::from_shared(format!("http://{address}")).expect("a URI"), reporter, seen)
}

#[tokio::test]
async fn calls_of_a_server_pass() {
    let (endpoint, reporter, seen) = serve(CacheLayer::new(memory())).await;
    let mut client = HealthClient::new(endpoint.connect().await.expect("a connection"));
    reporter.set_service_status("shop", ServingStatus::Serving).await;
    for call in 1..=2 {
        let said = client.check(check("shop")).await.expect("an answer");
        assert_eq!(said.get_ref().status, ServingStatus::Serving as i32);
        assert_eq!(seen.load(Ordering::SeqCst), call, "nothing is stored");
        assert_eq!(said.metadata().get("cache-status").expect("a status"), "http;fwd=method");
    }
    // The status is in the trailers, or in a head that is the trailers.
    let error: Status = client.check(check("nobody")).await.expect_err("it is not known");
    assert_eq!((error.code(), error.message()), (Code::NotFound, "service not registered"));
}

/// A stream brings each message when it is sent, not at its end.
#[tokio::test]
async fn streams_of_a_server_pass_as_they_come() {
    let (endpoint, reporter, _) = serve(CacheLayer::new(memory())).await;
    let mut client = HealthClient::new(endpoint.connect().await.expect("a connection"));
    reporter.set_service_status("shop", ServingStatus::Serving).await;
    let mut watched = client.watch(check("shop")).await.expect("a stream").into_inner();
    for status in [ServingStatus::Serving, ServingStatus::NotServing, ServingStatus::Serving] {
        reporter.set_service_status("shop", status).await;
        let said = watched.message().await.expect("no error").expect("a message");
        assert_eq!(said.status, status as i32);
    }
    drop(watched);
    let unknown = client.watch(check("nobody")).await.expect_err("it is not known");
    assert_eq!(unknown.code(), Code::NotFound);
}

/// What the service leaves in the extensions of its answer arrives, and what the caller leaves in those of the request.
#[tokio::test]
async fn extensions_and_trailers_of_a_client_pass() {
    #[derive(Clone, Debug, PartialEq)]
    struct Left(&'static str);

    let (endpoint, reporter, _) = serve(CacheLayer::new(memory())).await;
    reporter.set_service_status("shop", ServingStatus::Serving).await;
    let channel: Channel = endpoint.connect().await.expect("a connection");
    let marked = ServiceBuilder::new()
        .map_request(|request: Request<tonic::body::Body>| {
            assert_eq!(request.extensions().get(), Some(&Left("by the caller")));
            request
        })
        .map_response(|mut response: Response<tonic::body::Body>| {
            response.extensions_mut().insert(Left("by the service"));
            response
        })
        .service(channel);
    // On the side of the client, too.
    let cached = CacheLayer::new(memory()).layer(marked);
    let cached = cached.map_request(|mut request: Request<tonic::body::Body>| {
        request.extensions_mut().insert(Left("by the caller"));
        request
    });
    let cached = cached.map_response(|response| {
        assert_eq!(response.extensions().get(), Some(&Left("by the service")));
        response
    });
    let mut client = HealthClient::new(cached);
    let said = client.check(check("shop")).await.expect("an answer");
    assert_eq!(said.get_ref().status, ServingStatus::Serving as i32);
    let error = client.check(check("nobody")).await.expect_err("it is not known");
    assert_eq!(error.code(), Code::NotFound);
}
