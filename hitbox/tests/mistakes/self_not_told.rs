//! Two instances would share what is cached.

use hitbox::{Cache, LoadError, cached};

static NAMES: std::sync::LazyLock<Cache<String>> = std::sync::LazyLock::new(Cache::null);

struct Store {
    tenant: String,
}

impl Store {
    #[cached(cache = NAMES)]
    async fn name(&self, id: u64) -> Result<String, LoadError> {
        Ok(format!("{} {id}", self.tenant))
    }
}

fn main() {}
