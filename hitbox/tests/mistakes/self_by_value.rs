//! A method that takes itself away.

use hitbox::{Cache, LoadError, cached};

static NAMES: std::sync::LazyLock<Cache<String>> = std::sync::LazyLock::new(Cache::null);

struct Store;

impl Store {
    #[cached(cache = NAMES)]
    async fn name(self, id: u64) -> Result<String, LoadError> {
        Ok(id.to_string())
    }
}

fn main() {}
