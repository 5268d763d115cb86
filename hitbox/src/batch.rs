//! One call of a loader for several keys, of which each has its own load.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::Shared;
use hitbox_backend::Cacheable;
use hitbox_core::{BoxFuture, CacheKey};

use crate::cycle::{self, LoadId};
use crate::error::{BoxError, LoadError, SharedError};
use crate::load::LoaderFn;
use crate::loaded::Loaded;

type Values<K, V> = Result<Arc<Mutex<HashMap<K, V>>>, SharedError>;

/// What the loader brings, which the loads of all its keys wait for.
pub(crate) struct Batch<K, V> {
    id: LoadId,
    values: Shared<BoxFuture<'static, Values<K, V>>>,
}

impl<K, V> Batch<K, V>
where
    K: Eq + Hash + Send + Sync + 'static,
    V: Cacheable,
{
    /// The call for these keys. The first is named if it waits for itself.
    pub(crate) fn new<L, F, M, E>(first: CacheKey, keys: Vec<K>, loader: L) -> Self
    where
        L: FnOnce(Vec<K>) -> F + Send + 'static,
        F: Future<Output = Result<M, E>> + Send + 'static,
        M: IntoIterator<Item = (K, V)>,
        E: Into<BoxError>,
    {
        let id = LoadId::next();
        let load = async move {
            let loaded = loader(keys).await.map_err(|error| SharedError(Arc::from(error.into())));
            loaded.map(|values| Arc::new(Mutex::new(values.into_iter().collect::<HashMap<K, V>>())))
        };
        let values: BoxFuture<'static, _> = Box::pin(cycle::within(id, first, load));
        Self { id, values: values.shared() }
    }

    /// The loader of one key, which takes its part.
    pub(crate) fn part(&self, key: CacheKey, name: K) -> LoaderFn<'static, V> {
        let (id, values) = (self.id, self.values.clone());
        LoaderFn::Plain(Box::pin(async move {
            let _edge = cycle::wait_for(id, &key).map_err(|keys| LoadError::of_cycle(&key, &keys))?;
            match values.await {
                Ok(values) => {
                    let mut values = values.lock().unwrap_or_else(PoisonError::into_inner);
                    Ok(Loaded::from(values.remove(&name)))
                }
                Err(error) => Err(BoxError::from(error)),
            }
        }))
    }
}
