//! Errors.

use std::error::Error;

use hitbox_backend::{Backend, CacheBackend, Wrap};
use hitbox_core::{BackendError, CacheContext, CacheKey, CacheValue, ErrorKind};

use super::support::*;
use crate::{Fault, Faults, Faulty, Operation, Setup, Subject, World};

/// The errors of single leaves inside an error.
fn innermost(error: &BackendError) -> Vec<BackendError> {
    if error.causes().is_empty() {
        return vec![error.clone()];
    }
    error.causes().iter().flat_map(innermost).collect()
}

pub(super) async fn errors_01_kinds_paths_and_sources(subject: &Subject) -> Verdict {
    fn is_sendable<T: Send + Sync + 'static>(_: &T) {}
    let world = World::new();
    let backend = (subject.whole)(world.clone()).await;
    // Too large a key fails in every leaf, which the error names.
    let endless = CacheKey::builder("").part("", "k".repeat(1 << 20)).build();
    let paths: Vec<_> = backend.layout().paths().collect();
    let failed = backend.set(&endless, CacheValue::new(1_u64), &mut CacheContext::new()).await;
    let Err(error) = failed else { return Err("a key of 1 MiB was taken".to_owned()) };
    is_sendable(&error);
    let leaves = innermost(&error);
    let named: Vec<_> = leaves.iter().filter_map(BackendError::label).collect();
    ensure_eq!(named, paths, "the leaves that the error names");
    for leaf in &leaves {
        ensure_eq!(leaf.kind(), ErrorKind::TooLarge, "the kind");
        let (size, limit) = leaf.exceeded().ok_or("no sizes in the error")?;
        ensure!(size > limit, "{size} is not over {limit}");
        let message = leaf.to_string();
        ensure!(
            message.contains(&size.to_string()) && message.contains(&limit.to_string()),
            "{message:?} does not name both sizes"
        );
    }
    ensure!(paths.len() == 1 || error.source().is_some(), "the error of several leaves has no source");
    let read = backend.get::<u64>(&endless, &mut CacheContext::new()).await;
    // Memory finds nothing under such a key; other leaves refuse it.
    match read {
        Ok(found) => ensure!(found.is_none(), "something was found under a key of 1 MiB"),
        Err(error) => {
            let kinds: Vec<_> = innermost(&error).iter().map(BackendError::kind).collect();
            ensure!(kinds.iter().all(|kind| *kind == ErrorKind::TooLarge), "the kinds of the read {kinds:?}");
        }
    }
    ensure_eq!(id(&*backend, &key("none")).await?, None, "a read of nothing");
    // A failing layer names itself through the composition.
    let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
    let faults = Faults::default();
    faults.always(Operation::Write, Fault::Fail(ErrorKind::Overloaded));
    let l2 = Faulty::new(l2, &faults, world.shared_clock());
    let mut setup = Setup::default();
    setup.required.l2 = hitbox_backend::Requirement::Required;
    let lower = l1.layout().leaves().len();
    let composed = subject.compose(l1, l2, &world, setup);
    let failed = composed.set(&key("k"), CacheValue::new(1_u64), &mut CacheContext::new()).await;
    let Err(error) = failed else { return Err("a required layer failed in vain".to_owned()) };
    ensure_eq!(error.kind(), ErrorKind::RequiredLayer, "the kind");
    let cause = innermost(&error).remove(0);
    ensure_eq!(cause.kind(), ErrorKind::Overloaded, "the kind of the cause");
    ensure_eq!(cause.label(), Some(composed.layout().leaves()[lower].path()), "the path of the cause");
    ensure!(error.source().is_some(), "the error has no source");
    Ok(())
}

pub(super) async fn errors_02_a_hanging_layer_is_a_timeout(subject: &Subject) -> Verdict {
    let world = World::new();
    let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
    put_forever(&*l2, &key("k"), Item::new(1)).await?;
    let faults = Faults::default();
    for operation in [Operation::Read, Operation::Write, Operation::Remove] {
        faults.always(operation, Fault::Hang);
    }
    let hanging = Faulty::new(l1, &faults, world.shared_clock()).deadline(ms(50));
    let composed = subject.compose(hanging, l2, &world, Setup::default());
    let cut = async |work: futures_util::future::BoxFuture<'_, Result<(), BackendError>>| {
        let (result, advanced) =
            futures_util::future::join(work, advance_when_held_up(&world, &faults, 50)).await;
        advanced.map_err(|what| BackendError::new(ErrorKind::Protocol, what)).and(result)
    };
    let read = async {
        let read = composed.get::<Item>(&key("k"), &mut CacheContext::new()).await?;
        match read {
            Some(value) if value.data().id == 1 => Ok(()),
            _ => Err(BackendError::new(ErrorKind::Protocol, "L2's value was not served")),
        }
    };
    cut(Box::pin(read)).await.map_err(text)?;
    let write = async {
        let receipt =
            composed.set(&key("w"), CacheValue::new(Item::new(2)), &mut CacheContext::new()).await?;
        match receipt.first_error() {
            Some(error) if error.kind() == ErrorKind::Timeout => Ok(()),
            other => Err(BackendError::new(ErrorKind::Protocol, format!("not a timeout but {other:?}"))),
        }
    };
    cut(Box::pin(write)).await.map_err(text)?;
    let delete = async { composed.delete(&key("k"), &mut CacheContext::new()).await.map(drop) };
    let Err(error) = cut(Box::pin(delete)).await else { return Err("a delete hid the hang".to_owned()) };
    ensure_eq!(error.kind(), ErrorKind::Timeout, "the kind of a delete that hangs");
    Ok(())
}
