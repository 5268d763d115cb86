//! The stores of the book's chapter "Write a backend in 30 lines", held to every behaviour, as a third party holds its own.

/// What is kept in memory, as it comes.
mod mine {
    use std::collections::HashMap;
    use std::sync::Mutex;

    use async_trait::async_trait;
    use hitbox_backend::store::{DeleteStatus, LeafOptions, Raw};
    use hitbox_backend::{Leaf, Store};
    use hitbox_core::{BackendResult, CacheKey, CacheValue};
    use hitbox_testkit::{World, factory};

    #[derive(Default)]
    struct MyStore(Mutex<HashMap<CacheKey, CacheValue<Raw>>>);

    #[async_trait]
    impl Store for MyStore {
        async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
            Ok(self.0.lock().unwrap().get(key).cloned())
        }

        async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
            self.0.lock().unwrap().insert(key.clone(), value);
            Ok(())
        }

        async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
            let held = self.0.lock().unwrap().remove(key).is_some();
            Ok(DeleteStatus::of(held.into()))
        }
    }

    hitbox_testkit::suite_tests! {
        factory(|world: World| async move {
            Leaf::new(MyStore::default(), LeafOptions::new("mine").with_clock(world.shared_clock()))
        })
    }
}

/// What leaves the process as bytes.
mod remote {
    use std::collections::HashMap;
    use std::sync::Mutex;

    use async_trait::async_trait;
    use hitbox_backend::store::{DeleteStatus, LeafOptions, Raw};
    use hitbox_backend::{Leaf, Store};
    use hitbox_core::{BackendResult, CacheKey, CacheValue};
    use hitbox_testkit::{World, factory};

    #[derive(Default)]
    struct Remote {
        server: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
    }

    #[async_trait]
    impl Store for Remote {
        async fn read(&self, key: &CacheKey) -> BackendResult<Option<CacheValue<Raw>>> {
            let stored = self.server.lock().unwrap().get(key.as_encoded()).cloned();
            Ok(stored.map(|bytes| Raw::record(bytes.into())))
        }

        async fn write(&self, key: &CacheKey, value: CacheValue<Raw>) -> BackendResult<()> {
            let bytes = Raw::to_record(key, &value)?;
            self.server.lock().unwrap().insert(key.as_encoded().to_vec(), bytes);
            Ok(())
        }

        async fn remove(&self, key: &CacheKey) -> BackendResult<DeleteStatus> {
            let held = self.server.lock().unwrap().remove(key.as_encoded()).is_some();
            Ok(DeleteStatus::of(held.into()))
        }
    }

    hitbox_testkit::suite_tests! {
        factory(|world: World| async move {
            Leaf::new(Remote::default(), LeafOptions::new("remote").with_clock(world.shared_clock()))
        })
    }
}

/// The chapter shows these stores, and no others.
#[test]
fn case_h06_the_books_own_stores_pass_the_suite() {
    let lines = |text: &str| -> Vec<String> { text.lines().map(|line| line.trim().to_owned()).collect() };
    let book = lines(include_str!("../../../docs/src/write-a-backend.md"));
    let here = lines(include_str!("book.rs"));
    for store in ["impl Store for MyStore {", "impl Store for Remote {"] {
        let of = |all: &[String]| -> Vec<String> {
            let start = all.iter().position(|line| line == store).expect("the store");
            // Three methods, each of which ends with a brace, and the end of the block.
            let mut open = 0_i32;
            let mut block = Vec::new();
            for line in &all[start..] {
                open += line.matches('{').count() as i32 - line.matches('}').count() as i32;
                block.push(line.clone());
                if open == 0 {
                    break;
                }
            }
            block
        };
        assert_eq!(of(&book), of(&here), "{store}");
    }
}
