//! How things are done with hitbox 0.2: what the chapter on migration shows beside ours, compiled.

#![allow(dead_code, reason = "the book shows it")]

mod functions {
    use std::convert::Infallible;

    // ANCHOR: functions
    use std::time::Duration;

    use hitbox_fn::prelude::*;
    use hitbox_moka::MokaBackend;

    #[derive(KeyExtract)]
    struct UserId(u64);

    #[cached]
    async fn fetch_user(id: UserId) -> Result<String, Infallible> {
        Ok(format!("user {}", id.0))
    }

    async fn page() -> Result<String, Infallible> {
        let cache = Cache::builder()
            .backend(MokaBackend::builder().max_entries(1_000).build())
            .policy(PolicyConfig::builder().ttl(Duration::from_secs(60)).build())
            .build();
        fetch_user(UserId(42)).cache(&cache).await
    }
    // ANCHOR_END: functions

    async fn how_it_came(cache: &Cache<MokaBackend>) -> Result<(), Infallible> {
        // ANCHOR: context
        let (user, context) = fetch_user(UserId(42)).cache(cache).with_context().await;
        println!("{}: {:?} from {:?}", user?, context.status, context.source);
        // ANCHOR_END: context
        Ok(())
    }
}

mod tiers {
    use hitbox_backend::CacheBackend;

    fn tiers() -> Result<impl CacheBackend, Box<dyn std::error::Error>> {
        // ANCHOR: tiers
        use hitbox::offload::OffloadManager;
        use hitbox_backend::composition::policy::{RaceReadPolicy, RefillPolicy};
        use hitbox_backend::composition::{Compose, CompositionPolicy};
        use hitbox_moka::MokaBackend;
        use hitbox_redis::{ConnectionMode, RedisBackend};

        let memory = MokaBackend::builder().max_entries(10_000).build();
        let connection = ConnectionMode::single("redis://127.0.0.1:6379/");
        let redis = RedisBackend::builder().connection(connection).build()?;
        let policy =
            CompositionPolicy::new().read(RaceReadPolicy::new()).refill(RefillPolicy::Always);
        let tiers = memory.compose(redis, OffloadManager::with_defaults()).with_policy(policy);
        // ANCHOR_END: tiers
        Ok(tiers)
    }
}

mod backend {
    // ANCHOR: backend
    use std::collections::HashMap;
    use std::sync::Mutex;

    use async_trait::async_trait;
    use hitbox_backend::{Backend, BackendResult, DeleteStatus};
    use hitbox_core::{BackendLabel, CacheKey, CacheValue, Raw};

    #[derive(Default)]
    struct Table(Mutex<HashMap<CacheKey, CacheValue<Raw>>>);

    #[async_trait]
    impl Backend for Table {
        async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
            Ok(self.0.lock().unwrap().get(key).cloned())
        }

        async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
            self.0.lock().unwrap().insert(key.clone(), value);
            Ok(())
        }

        async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
            let removed = self.0.lock().unwrap().remove(key);
            Ok(if removed.is_some() { DeleteStatus::Deleted(1) } else { DeleteStatus::Missing })
        }

        fn label(&self) -> BackendLabel {
            BackendLabel::new_static("table")
        }
    }
    // ANCHOR_END: backend
}

mod http_layer {
    use axum::body::Body;
    use tower_layer::Layer;
    use tower_service::Service;

    fn layered(service: axum::Router) -> impl Service<http::Request<Body>> {
        // ANCHOR: http
        use std::time::Duration;

        use hitbox::Config;
        use hitbox::policy::PolicyConfig;
        use hitbox::predicate::PredicateExt;
        use hitbox_http::extractors::{Method, path::PathExtractor, query::QueryExtractor};
        use hitbox_http::predicates::header::{Header, Operation};
        use hitbox_http::predicates::response::StatusCode;
        use hitbox_moka::MokaBackend;
        use hitbox_tower::Cache;

        let no_cache = Operation::Contains(http::header::CACHE_CONTROL, "no-cache".to_owned());
        let config = Config::builder()
            .request_predicate(Header::new(no_cache).not())
            .response_predicate(StatusCode::new(http::StatusCode::OK))
            .extractor(Method::new().path("/items/{id}").query("page".to_owned()))
            .policy(PolicyConfig::builder().ttl(Duration::from_secs(60)).build())
            .build();
        let memory = MokaBackend::builder().max_entries(1_000).build();
        let layer = Cache::builder().backend(memory).config(config).build();
        // ANCHOR_END: http
        layer.layer(service)
    }
}
