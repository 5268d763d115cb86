//! An argument without a name.

use hitbox::{Cache, LoadError, cached};

static NAMES: std::sync::LazyLock<Cache<String>> = std::sync::LazyLock::new(Cache::null);

#[cached(cache = NAMES)]
async fn name((id, _): (u64, u64)) -> Result<String, LoadError> {
    Ok(id.to_string())
}

fn main() {}
