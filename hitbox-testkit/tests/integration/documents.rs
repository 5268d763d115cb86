//! What the documents say: which bounds compile, and which features there are.

use std::sync::Arc;

use hitbox_backend::{Backend, CacheBackend, Compose, IntoBackend, doc::Map};
use hitbox_core::{BackendResult, CacheKey, CacheValue};

async fn of_any(backend: &dyn Backend, key: &CacheKey) -> BackendResult<Option<u32>> {
    backend.set_one(key, CacheValue::new(1_u32)).await?;
    Ok(backend.get_one::<u32>(key).await?.map(CacheValue::into_data))
}

#[expect(clippy::manual_async_fn, reason = "it says that the future is `Send`")]
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

/// What stands in the first column of a table of features.
fn features_in(readme: &str) -> Vec<String> {
    let table = readme.lines().skip_while(|line| !line.starts_with("| feature |"));
    let cells =
        table.skip(2).take_while(|line| line.starts_with('|')).filter_map(|line| line.split('|').nth(1));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// The keys of the section `[features]`.
fn features_of(manifest: &str) -> Vec<String> {
    let section = manifest.lines().skip_while(|line| *line != "[features]").skip(1);
    let lines = section.take_while(|line| !line.starts_with('['));
    lines.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn case_g11_readmes_name_the_features_that_there_are() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut tables = 0;
    for entry in std::fs::read_dir(root).expect("the workspace") {
        let folder = entry.expect("an entry").path();
        let read = |name| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        let mut named = features_in(&read("README.md"));
        if named.is_empty() {
            continue;
        }
        tables += 1;
        let mut there: Vec<_> =
            features_of(&read("Cargo.toml")).into_iter().filter(|name| name != "default").collect();
        there.sort();
        named.sort();
        assert_eq!(named, there, "{}", folder.display());
    }
    assert!(tables >= 2, "{tables} tables of features");
}
