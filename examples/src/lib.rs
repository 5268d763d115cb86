//! The README and the chapters of the book as doctests, so that their examples compile and run. The
//! examples themselves are beside this folder.

#![forbid(unsafe_code)]

use std::fmt::Display;
use std::process::ExitCode;

/// How an example ends: it says what went wrong, if anything did.
pub fn ended(result: Result<(), impl Display>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

macro_rules! chapters {
    ($($name:ident $path:literal)*) => {
        $(#[doc = include_str!($path)]
        pub mod $name {})*
    };
}

chapters! {
    readme "../../README.md"
    introduction "../../docs/src/introduction.md"
    glossary "../../docs/src/glossary.md"
    decide "../../docs/src/decide.md"
    benchmarks "../../docs/src/benchmarks.md"
    cache "../../docs/src/cache.md"
    loading "../../docs/src/loading.md"
    freshness "../../docs/src/freshness.md"
    early_refresh "../../docs/src/early-refresh.md"
    timeouts "../../docs/src/timeouts.md"
    invalidation "../../docs/src/invalidation.md"
    recovery "../../docs/src/recovery.md"
    background "../../docs/src/background.md"
    bodies "../../docs/src/bodies.md"
    cached "../../docs/src/cached.md"
    choose_settings "../../docs/src/choose-settings.md"
    migrate "../../docs/src/migrate.md"
    from_hitbox_0_2 "../../docs/src/from-hitbox-0-2.md"
    testing "../../docs/src/testing.md"
    deploy "../../docs/src/deploy.md"
    observability "../../docs/src/observability.md"
    troubleshooting "../../docs/src/troubleshooting.md"
    redis_tour "../../docs/src/redis-tour.md"
    http "../../docs/src/http.md"
    http_stored "../../docs/src/http-stored.md"
    http_keys "../../docs/src/http-keys.md"
    http_purge "../../docs/src/http-purge.md"
    http_streaming "../../docs/src/http-streaming.md"
    http_cache_status "../../docs/src/http-cache-status.md"
    http_failures "../../docs/src/http-failures.md"
    http_clients "../../docs/src/http-clients.md"
    http_status_page "../../docs/src/http-status-page.md"
    keys "../../docs/src/keys.md"
    values "../../docs/src/values.md"
    layers "../../docs/src/layers.md"
    policies "../../docs/src/policies.md"
    refill "../../docs/src/refill.md"
    degradation "../../docs/src/degradation.md"
    metrics "../../docs/src/metrics.md"
    options "../../docs/src/options.md"
    heap "../../docs/src/heap.md"
    choose_memory "../../docs/src/choose-memory.md"
    write_a_backend "../../docs/src/write-a-backend.md"
    write_a_wrapper "../../docs/src/write-a-wrapper.md"
    wire "../../docs/src/wire.md"
}
