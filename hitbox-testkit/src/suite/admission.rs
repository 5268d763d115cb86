//! Layers that take only some entries, or none.

use hitbox_backend::wrap::AdmissionRule;
use hitbox_backend::{CacheBackend, LeafOutcome, RefillPolicy, Wrap};
use hitbox_core::{CacheContext, CacheKey, CacheValue, Details, Priority};

use super::support::*;
use crate::{Setup, Subject, World};

pub(super) async fn compose_16_a_layer_may_be_write_disabled(subject: &Subject) -> Verdict {
    let world = World::new();
    let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
    let one = key("one");
    put_forever(&*l1, &one, Item::new(1)).await?;
    let whole = subject.compose(
        l1.clone().admission(AdmissionRule::Never),
        l2.clone(),
        &world,
        Setup::refill(RefillPolicy::Awaited),
    );
    ensure_eq!(id(&*whole, &one).await?, Some(1), "before any write");
    let value = CacheValue::new(Item::new(2));
    let receipt = whole.set(&one, value, &mut CacheContext::new()).await.map_err(text)?;
    ensure!(
        receipt.leaves().iter().any(|line| matches!(line.outcome, LeafOutcome::NotAdmitted)),
        "the receipt does not say that a layer left it out"
    );
    ensure_eq!(id(&*whole, &one).await?, Some(2), "after a write");
    ensure_eq!(id(&*l1, &one).await?, None, "the older copy in the layer that takes no writes");
    let entries = vec![(one.clone(), CacheValue::new(Item::new(3)))];
    for receipt in whole.set_many(entries).await {
        receipt.map_err(text)?;
    }
    ensure_eq!(id(&*whole, &one).await?, Some(3), "after a batch");
    ensure_eq!(id(&*l1, &one).await?, None, "that layer after a batch and a refill");
    Ok(())
}

pub(super) async fn refill_09_admission_decides_what_is_filled(subject: &Subject) -> Verdict {
    let world = World::new();
    let Some((l1, l2)) = subject.make_layers(&world).await else { return Ok(()) };
    let compose = |rule| {
        let upper = l1.clone().admission(rule);
        subject.compose(upper, l2.clone(), &world, Setup::refill(RefillPolicy::Awaited))
    };
    let fill = async |key: &CacheKey, value: CacheValue<Item>| {
        remove_raw(&*l1, key).await.into_result().map_err(text)?;
        l2.set(key, value, &mut CacheContext::new()).await.map(drop).map_err(text)
    };
    let one = key("one");
    // On the n-th request.
    let whole = compose(AdmissionRule::NthRequest(3));
    fill(&one, CacheValue::new(Item::new(1))).await?;
    for request in 1..=3 {
        ensure_eq!(id(&*whole, &one).await?, Some(1), "request {request}");
        let expected = (request == 3).then_some(1);
        ensure_eq!(id(&*l1, &one).await?, expected, "the upper layer after request {request}");
    }
    // By size.
    let whole = compose(AdmissionRule::UpTo(2_000));
    let mut large = Item::new(2);
    large.name = "x".repeat(10_000);
    for (item, expected) in [(Item::new(1), Some(1)), (large, None)] {
        fill(&one, CacheValue::new(item.clone())).await?;
        ensure_eq!(id(&*whole, &one).await?, Some(item.id), "an item of some size");
        ensure_eq!(id(&*l1, &one).await?, expected, "the upper layer with an item of some size");
        whole.set(&one, CacheValue::new(item.clone()), &mut CacheContext::new()).await.map_err(text)?;
        ensure_eq!(id(&*l1, &one).await?, expected, "the upper layer after a write of some size");
    }
    // By priority.
    let whole = compose(AdmissionRule::From(Priority::Normal));
    for (priority, expected) in
        [(Priority::High, Some(1)), (Priority::Normal, Some(1)), (Priority::Low, None)]
    {
        let mut details = Details::default();
        details.priority = priority;
        fill(&one, CacheValue::new(Item::new(1)).with_details(details)).await?;
        ensure_eq!(id(&*whole, &one).await?, Some(1), "an entry of priority {priority:?}");
        ensure_eq!(id(&*l1, &one).await?, expected, "the upper layer with priority {priority:?}");
    }
    // Never: an older copy goes.
    put_forever(&*l1, &one, Item::new(1)).await?;
    let whole = compose(AdmissionRule::Never);
    put_forever(&*whole, &one, Item::new(2)).await?;
    ensure_eq!(id(&*l1, &one).await?, None, "an older copy in a layer that takes nothing");
    ensure_eq!(id(&*whole, &one).await?, Some(2), "the whole");
    Ok(())
}
