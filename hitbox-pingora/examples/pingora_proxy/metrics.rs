//! What the layers do, for Prometheus.

use async_trait::async_trait;
use hitbox_backend::metrics::PrometheusExport;
use http::{Response, header};
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;

/// Serves counters as they are when it is asked.
pub(crate) struct Metrics(pub(crate) PrometheusExport);

#[async_trait]
impl ServeHttp for Metrics {
    async fn response(&self, _session: &mut ServerSession) -> Response<Vec<u8>> {
        let mut response = Response::new(self.0.render().into_bytes());
        let plain = header::HeaderValue::from_static("text/plain; version=0.0.4");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        response
    }
}
