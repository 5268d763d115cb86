//! An option that there is not.

use hitbox::{Cache, LoadError, cached};

static NAMES: std::sync::LazyLock<Cache<String>> = std::sync::LazyLock::new(Cache::null);

#[cached(cache = NAMES, expiry = 60)]
async fn name(id: u64) -> Result<String, LoadError> {
    Ok(id.to_string())
}

fn main() {}
