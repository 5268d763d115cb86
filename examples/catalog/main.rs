//! A product catalogue over memory and disk: products carry their brand as a tag and depend on their price list. While
//! readers go on, price lists are changed and brands withdrawn, and entries are evicted; in the end the process is
//! "restarted". It prints how many answers were looked at, and that none of them was older than the last invalidation
//! that had returned before it was asked for.
//!
//! Runs without any server.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "an example")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hitbox::backend::{Compose, OffloadPool, RefillPolicy};
use hitbox::disk::DiskBackend;
use hitbox::moka::MokaBackend;
use hitbox::{Cache, Loaded};
use rand::Rng;
use serde::{Deserialize, Serialize};

const PRODUCTS: u64 = 1_000;
const BRANDS: u64 = 10;
const LISTS: u64 = 4;
const RUN: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Product {
    name: String,
    cents: u64,
    /// The revisions of its brand and of its price list that it was made of.
    brand_revision: u64,
    list_revision: u64,
}

/// The source: what a database would know.
#[derive(Default)]
struct Shop {
    brands: [AtomicU64; BRANDS as usize],
    lists: [AtomicU64; LISTS as usize],
    /// The revisions whose invalidation has returned: nothing older may be served from then on.
    told_brands: [AtomicU64; BRANDS as usize],
    told_lists: [AtomicU64; LISTS as usize],
    loads: AtomicU64,
}

impl Shop {
    async fn product(&self, id: u64) -> Product {
        self.loads.fetch_add(1, Ordering::Relaxed);
        let (brand, list) = (id % BRANDS, id % LISTS);
        let brand_revision = self.brands[brand as usize].load(Ordering::SeqCst);
        let list_revision = self.lists[list as usize].load(Ordering::SeqCst);
        // A query takes a moment, in which everything may change.
        tokio::time::sleep(Duration::from_micros(300)).await;
        let cents = 1_000 + id + list_revision;
        Product { name: format!("product {id}"), cents, brand_revision, list_revision }
    }
}

async fn open(
    folder: &Path,
    pool: &OffloadPool,
) -> Result<(Cache<Product>, DiskBackend), hitbox::core::BackendError> {
    let memory = MokaBackend::builder().max_entries(300).build()?;
    let disk = DiskBackend::builder(folder).open().await?;
    let layers = memory.compose(disk.clone(), pool.shared()).with_refill(RefillPolicy::Always);
    let products =
        Cache::builder(layers).name("products").ttl(Duration::from_secs(3_600)).offload(pool.shared());
    Ok((products.build()?, disk))
}

/// A product as the catalogue shows it.
async fn show(products: &Cache<Product>, shop: &Arc<Shop>, id: u64) -> Result<Product, hitbox::LoadError> {
    let shop = shop.clone();
    products
        .get_or_load_with(id, move |_| async move {
            let product = shop.product(id).await;
            let (brand, list) = (format!("brand:{}", id % BRANDS), format!("prices:{}", id % LISTS));
            Ok::<_, std::io::Error>(Loaded::new(product).tag(&brand).depends_on(&list))
        })
        .await
}

/// Asks for products until told to stop; counts the answers, and those that were too old.
async fn read(
    products: Cache<Product>,
    shop: Arc<Shop>,
    stop: Arc<AtomicBool>,
) -> Result<(u64, u64), hitbox::LoadError> {
    let (mut answers, mut stale) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let id = rand::rng().random_range(0..PRODUCTS);
        let told_brand = shop.told_brands[(id % BRANDS) as usize].load(Ordering::SeqCst);
        let told_list = shop.told_lists[(id % LISTS) as usize].load(Ordering::SeqCst);
        let product = show(&products, &shop, id).await?;
        answers += 1;
        stale += u64::from(product.brand_revision < told_brand || product.list_revision < told_list);
        // The threads are shared with whoever changes things.
        tokio::task::yield_now().await;
    }
    Ok((answers, stale))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let pool = OffloadPool::builder().build();
    let shop = Arc::new(Shop::default());
    let (products, disk) = open(folder.path(), &pool).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> =
        (0..8).map(|_| tokio::spawn(read(products.clone(), shop.clone(), stop.clone()))).collect();

    let started = Instant::now();
    let mut invalidations = 0_u64;
    while started.elapsed() < RUN {
        let (brand, list) = {
            let mut random = rand::rng();
            (random.random_range(0..BRANDS), random.random_range(0..LISTS))
        };
        // The source changes first, then the cache is told.
        if invalidations.is_multiple_of(2) {
            let revision = shop.lists[list as usize].fetch_add(1, Ordering::SeqCst) + 1;
            products.invalidate_dependencies(&[&format!("prices:{list}")]).await?;
            shop.told_lists[list as usize].fetch_max(revision, Ordering::SeqCst);
        } else {
            let revision = shop.brands[brand as usize].fetch_add(1, Ordering::SeqCst) + 1;
            products.invalidate_tags(&[&format!("brand:{brand}")]).await?;
            shop.told_brands[brand as usize].fetch_max(revision, Ordering::SeqCst);
        }
        invalidations += 1;
        for _ in 0..10 {
            let id = rand::rng().random_range(0..PRODUCTS);
            products.evict(id).await?;
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let (mut answers, mut stale) = (0, 0);
    for reader in readers {
        let (more, older) = reader.await??;
        answers += more;
        stale += older;
    }
    println!("{}\n", products.statistics());
    println!(
        "{answers} answers beside {invalidations} invalidations, {} loads",
        shop.loads.load(Ordering::Relaxed)
    );
    println!("answers that were older than an invalidation: {stale}");
    assert_eq!(stale, 0);

    // The price list changes, the process ends, and what is on disk is asked again.
    shop.lists[0].fetch_add(1, Ordering::SeqCst);
    products.invalidate_dependencies(&["prices:0"]).await?;
    pool.wait_all().await;
    drop(products);
    disk.close().await;
    let (products, _disk) = open(folder.path(), &pool).await?;
    let before = shop.loads.load(Ordering::Relaxed);
    let mut stale = 0;
    for id in 0..PRODUCTS {
        let product = show(&products, &shop, id).await?;
        let revision = shop.lists[(id % LISTS) as usize].load(Ordering::SeqCst);
        stale += u64::from(product.list_revision < revision);
    }
    let loads = shop.loads.load(Ordering::Relaxed) - before;
    println!(
        "after a restart {loads} of {PRODUCTS} products were loaded, the others came from disk; stale: {stale}"
    );
    assert_eq!(stale, 0);
    assert!(loads < PRODUCTS, "the disk was of no use");
    Ok(())
}
