//! Loads that wait for themselves: a loader that asks for its own key, or for one whose loader asks for it.
//!
//! Which load waits for which is a graph of the whole process. An edge is added before a loader waits for another load;
//! if that would close a circle, the call fails instead. A loader is known by the task that runs it: what it spawns is
//! not.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hitbox_core::CacheKey;

/// Tells loads apart, in all caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LoadId(u64);

impl LoadId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

tokio::task_local! {
    /// The load whose loader runs, and its key.
    static RUNNING: (LoadId, CacheKey);
}

/// Runs a loader as the one of this load.
pub(crate) fn within<F: Future>(load: LoadId, key: CacheKey, loader: F) -> impl Future<Output = F::Output> {
    RUNNING.scope((load, key), loader)
}

/// Whether a loader is calling.
pub(crate) fn is_within_load() -> bool {
    RUNNING.try_with(|_| ()).is_ok()
}

/// For each load that waits, what it waits for.
type Graph = HashMap<LoadId, Vec<(LoadId, CacheKey)>>;

static GRAPH: Mutex<Option<Graph>> = Mutex::new(None);

fn graph() -> MutexGuard<'static, Option<Graph>> {
    GRAPH.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One load waits for another. Dropping it ends that.
#[derive(Debug)]
pub(crate) struct Edge {
    from: LoadId,
    to: LoadId,
}

/// Takes note that the calling loader waits for this load. Nothing to note if the caller is no loader.
///
/// # Errors
/// The keys of the circle, from the caller's to the caller's again.
pub(crate) fn wait_for(load: LoadId, key: &CacheKey) -> Result<Option<Edge>, Vec<CacheKey>> {
    let Ok((from, own)) = RUNNING.try_with(Clone::clone) else { return Ok(None) };
    let mut graph = graph();
    let graph = graph.get_or_insert_default();
    if let Some(mut path) = path(graph, load, from, key) {
        path.insert(0, own);
        return Err(path);
    }
    graph.entry(from).or_default().push((load, key.clone()));
    Ok(Some(Edge { from, to: load }))
}

/// The keys on a way from one load to another.
fn path(graph: &Graph, from: LoadId, to: LoadId, key: &CacheKey) -> Option<Vec<CacheKey>> {
    let mut seen = std::collections::HashSet::new();
    let mut open = vec![(from, vec![key.clone()])];
    while let Some((load, keys)) = open.pop() {
        if load == to {
            return Some(keys);
        }
        if !seen.insert(load) {
            continue;
        }
        for (next, key) in graph.get(&load).into_iter().flatten() {
            open.push((*next, [&keys[..], std::slice::from_ref(key)].concat()));
        }
    }
    None
}

impl Drop for Edge {
    fn drop(&mut self) {
        let mut graph = graph();
        let Some(graph) = graph.as_mut() else { return };
        if let Some(edges) = graph.get_mut(&self.from) {
            if let Some(at) = edges.iter().position(|(to, _)| *to == self.to) {
                edges.swap_remove(at);
            }
            if edges.is_empty() {
                graph.remove(&self.from);
            }
        }
    }
}
