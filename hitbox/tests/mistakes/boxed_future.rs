//! What an attribute has made of an `async fn` is not cached.

use std::pin::Pin;

use hitbox::{Cache, cached};

static NAMES: std::sync::LazyLock<Cache<String>> = std::sync::LazyLock::new(Cache::null);

#[cached(cache = NAMES)]
fn name(id: u64) -> Pin<Box<dyn Future<Output = String> + Send>> {
    Box::pin(async move { id.to_string() })
}

fn main() {}
