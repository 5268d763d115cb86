//! Backends in spawned tasks: what compiles.

use std::sync::Arc;

use hitbox_backend::{Backend, CacheBackend, Compose, IntoBackend, doc::Map};
use hitbox_core::{BackendResult, CacheKey, CacheValue};

async fn of_any(backend: &dyn Backend, key: &CacheKey) -> BackendResult<Option<u32>> {
    backend.set_one(key, CacheValue::new(1_u32)).await?;
    Ok(backend.get_one::<u32>(key).await?.map(CacheValue::into_data))
}

fn of_each(
    backend: &(impl CacheBackend + ?Sized),
    key: &CacheKey,
) -> impl Future<Output = BackendResult<Option<u32>>> + Send {
    async move {
        backend.set_one(key, CacheValue::new(2_u32)).await?;
        Ok(backend.get_one::<u32>(key).await?.map(CacheValue::into_data))
    }
}

#[tokio::test]
async fn case_g09_borrowed_backends_go_into_tasks() {
    let key = CacheKey::builder("n").build();
    let composition = Map::default().over(Map::default());
    for boxed in [Map::default().into_shared(), composition.clone().shared()] {
        let (shared, of) = (boxed.clone(), key.clone());
        let task = tokio::spawn(async move { of_any(&shared, &of).await });
        assert_eq!(task.await.expect("a task").expect("a value"), Some(1));
        let of = key.clone();
        let task: tokio::task::JoinHandle<_> = tokio::spawn(async move { of_each(&*boxed, &of).await });
        assert_eq!(task.await.expect("a task").expect("a value"), Some(2));
    }
    let shared = Arc::new(composition);
    let task = tokio::spawn(async move { (of_any(&*shared, &key).await, of_each(&shared, &key).await) });
    let (any, each) = task.await.expect("a task");
    assert_eq!((any.expect("a value"), each.expect("a value")), (Some(1), Some(2)));
}
