//! The one list of expressions: every leaf, every pair, left and right nests of three, statically typed
//! and behind `Arc<dyn Backend>` at every level.

use std::sync::atomic::{AtomicU64, Ordering};

use hitbox_backend::{Adoption, Backend, forward};
use hitbox_core::BoxFuture;
use hitbox_disk::DiskBackend;
use hitbox_moka::MokaBackend;
use hitbox_quick::QuickBackend;
use hitbox_redis::RedisBackend;
use hitbox_testkit::{Factory, RedisServer, Subject, World, factory, left_nest, pair, right_nest};

fn unique() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(crate) fn moka(world: World) -> BoxFuture<'static, MokaBackend> {
    Box::pin(async move { MokaBackend::builder().clock(world.shared_clock()).build().expect("moka") })
}

pub(crate) fn quick(world: World) -> BoxFuture<'static, QuickBackend> {
    Box::pin(async move { QuickBackend::builder().clock(world.shared_clock()).build().expect("quick") })
}

pub(crate) fn redis(world: World) -> BoxFuture<'static, RedisBackend> {
    Box::pin(async move {
        RedisBackend::builder(&RedisServer::shared().url())
            .prefix(&format!("suite{}:", unique()))
            .clock(world.shared_clock())
            // Checks move the clock in leaps while calls are under way.
            .deadline(std::time::Duration::from_secs(1_000_000))
            .build()
            .expect("redis")
    })
}

/// A disk backend whose folder goes with it.
pub(crate) struct TemporaryDisk {
    disk: DiskBackend,
    _folder: std::sync::Arc<tempfile::TempDir>,
}

impl Backend for TemporaryDisk {
    forward!(self => self.disk; store, reads, writes, facts, capabilities);

    fn adopted(&self, adoption: &Adoption) -> Option<std::sync::Arc<dyn Backend>> {
        let adopted = self.disk.adopted(adoption)?;
        Some(std::sync::Arc::new(Kept { inner: adopted, folder: self._folder.clone() }))
    }
}

/// A view that keeps the folder alive.
struct Kept {
    inner: std::sync::Arc<dyn Backend>,
    folder: std::sync::Arc<tempfile::TempDir>,
}

impl Backend for Kept {
    forward!(self => self.inner; store, reads, writes, facts, capabilities);

    fn adopted(&self, adoption: &Adoption) -> Option<std::sync::Arc<dyn Backend>> {
        let inner = self.inner.adopted(adoption)?;
        Some(std::sync::Arc::new(Self { inner, folder: self.folder.clone() }))
    }
}

pub(crate) fn disk(world: World) -> BoxFuture<'static, TemporaryDisk> {
    Box::pin(async move {
        let folder = std::sync::Arc::new(tempfile::tempdir().expect("a temporary folder"));
        let builder = DiskBackend::builder(folder.path()).clock(world.shared_clock());
        TemporaryDisk { disk: builder.open().await.expect("disk"), _folder: folder }
    })
}

/// Calls a macro with every leaf.
macro_rules! leaves {
    ($then:ident $(, $arg:ident)*) => {
        $then!(moka $(, $arg)*);
        $then!(quick $(, $arg)*);
        $then!(redis $(, $arg)*);
        $then!(disk $(, $arg)*);
    };
}

/// Every expression.
pub(crate) fn subjects() -> Vec<Subject> {
    let mut leaf_factories: Vec<(&str, Factory)> = Vec::new();
    let mut subjects = Vec::new();
    macro_rules! one {
        ($a:ident) => {
            leaf_factories.push((stringify!($a), factory($a)));
        };
    }
    leaves!(one);
    for (name, made) in &leaf_factories {
        subjects.push(Subject::leaf(name, made.clone()));
    }
    // Statically typed layers.
    let mut typed: Vec<(String, Factory, Factory, Factory)> = Vec::new();
    macro_rules! two {
        ($b:ident, $a:ident) => {
            let name = format!("{}/{}", stringify!($a), stringify!($b));
            typed.push((name, factory($a), factory($b), pair($a, $b)));
            leaves!(three, $b, $a);
        };
    }
    macro_rules! three {
        ($c:ident, $b:ident, $a:ident) => {
            let (a, b, c) = (stringify!($a), stringify!($b), stringify!($c));
            typed.push((format!("({a}/{b})/{c}"), pair($a, $b), factory($c), left_nest($a, $b, $c)));
            typed.push((format!("{a}/({b}/{c})"), factory($a), pair($b, $c), right_nest($a, $b, $c)));
        };
    }
    macro_rules! first {
        ($a:ident) => {
            leaves!(two, $a);
        };
    }
    leaves!(first);
    for (name, l1, l2, whole) in typed {
        // The same behind `dyn` at every level: layers and whole come as `Arc<dyn Backend>`.
        subjects.push(Subject::pair(&format!("{name} dyn"), &l1, &l2));
        subjects.push(Subject { whole, ..Subject::pair(&name, &l1, &l2) });
    }
    subjects
}
