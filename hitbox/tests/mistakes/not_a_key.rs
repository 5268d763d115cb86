//! An argument that is no key.

use hitbox::{Cache, LoadError, cached};

static NAMES: std::sync::LazyLock<Cache<String>> = std::sync::LazyLock::new(Cache::null);

struct Db;

#[cached(cache = NAMES)]
async fn name(db: Db, id: u64) -> Result<String, LoadError> {
    drop(db);
    Ok(id.to_string())
}

fn main() {}
