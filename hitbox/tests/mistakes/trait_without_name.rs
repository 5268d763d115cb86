//! Two traits may call a method alike.

use hitbox::{Cache, LoadError, cached};

static NAMES: std::sync::LazyLock<Cache<String>> = std::sync::LazyLock::new(Cache::null);

trait Named {
    async fn name(&self) -> Result<String, LoadError>;
}

struct Store;

impl Named for Store {
    #[cached(cache = NAMES, trait_impl, skip(self))]
    async fn name(&self) -> Result<String, LoadError> {
        Ok("store".to_owned())
    }
}

fn main() {}
