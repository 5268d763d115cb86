//! The behaviour suite over this leaf, alone and in compositions, on a server.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hitbox_redis::RedisBackend;
use hitbox_testkit::{RedisServer, World, factory};

/// Leaves of one server that have nothing in common.
async fn redis(world: World) -> RedisBackend {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    RedisBackend::builder(&RedisServer::shared().url())
        .prefix(&format!("suite{}:", NEXT.fetch_add(1, Ordering::Relaxed)))
        .clock(world.shared_clock())
        // Checks move the clock in leaps while calls are under way.
        .deadline(Duration::from_secs(1_000_000))
        .build()
        .expect("redis")
}

hitbox_testkit::suite_tests! { factory(redis) }
