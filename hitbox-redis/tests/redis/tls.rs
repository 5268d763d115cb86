//! Connections that are encrypted, with certificates of one's own.

use std::time::{Duration, Instant};

use hitbox_backend::CacheBackend;
use hitbox_core::{CacheContext, CacheValue};
use hitbox_redis::RedisBackend;
use hitbox_testkit::RedisServer;

use crate::{get, key};

/// Files of an authority, a server and a client, made for this test.
struct Certificates {
    root: String,
    server: [String; 2],
    client: [String; 2],
}

impl Certificates {
    fn new() -> Self {
        use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
        let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
        // Certificates whose subject is their issuer count as signed by themselves.
        authority.distinguished_name.push(rcgen::DnType::CommonName, "authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key"))
            .expect("an authority");
        let signed = |name: &str| {
            let key = KeyPair::generate().expect("a key");
            let parameters = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
            let certificate = parameters.signed_by(&key, &authority).expect("a certificate");
            [certificate.pem(), key.serialize_pem()]
        };
        Self { root: authority.pem(), server: signed("127.0.0.1"), client: signed("client") }
    }
}

#[tokio::test]
async fn redis_01_tls_with_certificates_of_ones_own() {
    let certificates = Certificates::new();
    let port = std::sync::atomic::AtomicU16::new(0);
    let _server = RedisServer::start_with(|folder| {
        let file = |name: &str, pem: &str| {
            let path = folder.join(name);
            std::fs::write(&path, pem).expect("a file");
            path.display().to_string()
        };
        port.store(RedisServer::free_port(), std::sync::atomic::Ordering::SeqCst);
        format!(
            "--tls-port {} --tls-auth-clients yes --tls-ca-cert-file '{}' --tls-cert-file '{}' --tls-key-file '{}'",
            port.load(std::sync::atomic::Ordering::SeqCst),
            file("root.pem", &certificates.root),
            file("server.pem", &certificates.server[0]),
            file("server.key", &certificates.server[1]),
        )
    });
    let url = format!("rediss://127.0.0.1:{}", port.into_inner());
    let deadline = Duration::from_secs(10);
    let builder = RedisBackend::builder(&url).deadline(deadline).connect_timeout(deadline);
    let [certificate, private_key] = &certificates.client;
    let trusting = builder.clone().tls_root(certificates.root.as_bytes());
    let redis = trusting
        .clone()
        .tls_client(certificate.as_bytes(), private_key.as_bytes())
        .build()
        .expect("certificates");
    let started = Instant::now();
    redis.ping().await.expect("an answer over TLS");
    redis.set(&key(1), CacheValue::new(1_u64), &mut CacheContext::new()).await.expect("a write");
    assert_eq!(get(&redis, 1).await.expect("a read"), Some(1));
    assert!(started.elapsed() < deadline, "calls are answered when they are cut");
    // A server whose authority is not known is not trusted, and a client without a certificate is not let in.
    let stranger = Certificates::new();
    let distrusting = builder
        .tls_root(stranger.root.as_bytes())
        .tls_client(certificate.as_bytes(), private_key.as_bytes())
        .build()
        .expect("certificates");
    distrusting.ping().await.expect_err("another authority");
    trusting.build().expect("certificates").ping().await.expect_err("no certificate of its own");
}
