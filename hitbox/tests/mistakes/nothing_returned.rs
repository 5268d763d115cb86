//! The function returns nothing.

use hitbox::{Cache, LoadError, cached};

static NAMES: std::sync::LazyLock<Cache<String>> = std::sync::LazyLock::new(Cache::null);

#[cached(cache = NAMES)]
async fn name(id: u64) {
    drop(id);
}

fn main() {}
