//! What the shop sells, in SQLite. Queries run on threads that may block.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use crate::shop::Failure;

/// Items on a page.
pub(crate) const PAGE: u32 = 20;
const ITEMS: u32 = 200;

/// Something to buy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Item {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) cents: u32,
}

#[derive(Clone)]
pub(crate) struct Database {
    connection: Arc<Mutex<Connection>>,
    queries: Arc<AtomicU64>,
}

impl Database {
    /// Opens a database, in memory without a file; it is filled if it is new.
    pub(crate) async fn open(file: Option<PathBuf>) -> Result<Self, Failure> {
        let connection = match file {
            Some(file) => Connection::open(file)?,
            None => Connection::open_in_memory()?,
        };
        let connection = Arc::new(Mutex::new(connection));
        let database = Self { connection, queries: Arc::default() };
        database.run(fill).await?;
        database.queries.store(0, Ordering::Relaxed);
        Ok(database)
    }

    /// The items of a page, the first of which is 0.
    pub(crate) async fn page(&self, page: u32) -> rusqlite::Result<Vec<Item>> {
        self.run(move |connection| {
            let mut query = connection
                .prepare_cached("SELECT id, name, cents FROM items ORDER BY id LIMIT ?1 OFFSET ?2")?;
            let offset = i64::from(page) * i64::from(PAGE);
            query.query_map(params![PAGE, offset], item_of)?.collect()
        })
        .await
    }

    pub(crate) async fn item(&self, id: u32) -> rusqlite::Result<Option<Item>> {
        self.run(move |connection| {
            let mut query = connection.prepare_cached("SELECT id, name, cents FROM items WHERE id = ?1")?;
            query.query_row([id], item_of).optional()
        })
        .await
    }

    /// Says whether there is such an item.
    pub(crate) async fn set_price(&self, id: u32, cents: u32) -> rusqlite::Result<bool> {
        self.run(move |connection| {
            Ok(connection.execute("UPDATE items SET cents = ?2 WHERE id = ?1", [id, cents])? == 1)
        })
        .await
    }

    /// How many queries there were.
    pub(crate) fn queries(&self) -> u64 {
        self.queries.load(Ordering::Relaxed)
    }

    async fn run<T: Send + 'static>(
        &self,
        query: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> rusqlite::Result<T> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        let connection = self.connection.clone();
        let run = move || query(&mut connection.lock().unwrap_or_else(PoisonError::into_inner));
        match tokio::task::spawn_blocking(run).await {
            Ok(result) => result,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

fn item_of(row: &Row<'_>) -> rusqlite::Result<Item> {
    Ok(Item { id: row.get(0)?, name: row.get(1)?, cents: row.get(2)? })
}

fn fill(connection: &mut Connection) -> rusqlite::Result<()> {
    let change = connection.transaction()?;
    change.execute_batch(
        "CREATE TABLE IF NOT EXISTS items (id INTEGER PRIMARY KEY, name TEXT NOT NULL, cents INTEGER NOT NULL)",
    )?;
    let known: u32 = change.query_row("SELECT count(*) FROM items", [], |row| row.get(0))?;
    if known == 0 {
        let things = ["lamp", "chair", "kettle", "map & compass", "umbrella"];
        for id in 1..=ITEMS {
            let name = format!("{} no. {id}", things[id as usize % things.len()]);
            change.execute("INSERT INTO items VALUES (?1, ?2, ?3)", params![id, name, 500 + 10 * id])?;
        }
    }
    change.commit()
}
