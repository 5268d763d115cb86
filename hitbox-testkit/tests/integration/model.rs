//! Random programs on random expressions with random faults agree with the reference model.
//!
//! `HITBOX_SEED` replays a run, `HITBOX_CASES` sets its length.

use std::sync::Arc;
use std::time::Duration;

use hitbox_backend::doc::Map;
use hitbox_backend::policy::Loser;
use hitbox_backend::store::LeafOptions;
use hitbox_backend::wrap::AdmissionRule;
use hitbox_backend::{
    Backend, CacheBackend, Compose, CompositionPolicy, Leaf, OptimisticParallelWritePolicy,
    ParallelReadPolicy, RaceReadPolicy, RaceWritePolicy, RefillPolicy, SequentialWritePolicy, Wrap,
};
use hitbox_core::{CacheContext, CacheKey, CacheValue, Clock, ErrorKind, Lifetime};
use hitbox_moka::MokaBackend;
use hitbox_testkit::model::Model;
use hitbox_testkit::{Fault, Faults, Faulty, MemoryBackend, Operation, World, number_from, seed};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// An expression of the algebra.
#[derive(Clone, Debug)]
enum Expression {
    Memory,
    Moka,
    Bytes,
    Namespaced(Box<Expression>),
    Coalesced(Box<Expression>),
    Admitted(Box<Expression>),
    Cut(Box<Expression>),
    Composed { l1: Box<Expression>, l2: Box<Expression>, read: u8, write: u8, refill: u8 },
}

fn expressions() -> impl Strategy<Value = Expression> {
    let leaf = prop_oneof![Just(Expression::Memory), Just(Expression::Moka), Just(Expression::Bytes)];
    leaf.prop_recursive(4, 12, 2, |inner| {
        prop_oneof![
            1 => inner.clone().prop_map(|e| Expression::Namespaced(Box::new(e))),
            1 => inner.clone().prop_map(|e| Expression::Coalesced(Box::new(e))),
            1 => inner.clone().prop_map(|e| Expression::Admitted(Box::new(e))),
            1 => inner.clone().prop_map(|e| Expression::Cut(Box::new(e))),
            6 => (inner.clone(), inner, 0..3_u8, 0..5_u8, 0..4_u8).prop_map(|(l1, l2, read, write, refill)| {
                Expression::Composed { l1: Box::new(l1), l2: Box::new(l2), read, write, refill }
            }),
        ]
    })
}

impl Expression {
    /// The backend, with faults in front of every leaf.
    fn build(&self, world: &World, faults: &mut Vec<Faults>) -> Arc<dyn Backend> {
        let clock = world.shared_clock();
        let mut leaf = |backend: Arc<dyn Backend>| -> Arc<dyn Backend> {
            let mine = Faults::default();
            faults.push(mine.clone());
            Arc::new(Faulty::new(backend, &mine, world.shared_clock()))
        };
        match self {
            Self::Memory => leaf(Arc::new(MemoryBackend::new(clock))),
            Self::Moka => leaf(Arc::new(MokaBackend::builder().clock(clock).build().expect("moka"))),
            // The three-method store of the examples, in a leaf on the test's clock.
            Self::Bytes => {
                leaf(Arc::new(Leaf::new(Map::default(), LeafOptions::new("bytes").with_clock(clock))))
            }
            Self::Namespaced(inner) => Arc::new(inner.build(world, faults).namespace("n")),
            Self::Coalesced(inner) => Arc::new(inner.build(world, faults).coalesced()),
            Self::Admitted(inner) => Arc::new(inner.build(world, faults).admission(AdmissionRule::Always)),
            Self::Cut(inner) => Arc::new(inner.build(world, faults).deadline(Duration::from_secs(1_000_000))),
            Self::Composed { l1, l2, read, write, refill } => {
                let policy = CompositionPolicy::new();
                let policy = match read {
                    0 => policy,
                    1 => policy.read(RaceReadPolicy::default()),
                    _ => policy.read(ParallelReadPolicy),
                };
                let policy = match write {
                    0 => policy.write(SequentialWritePolicy::new()),
                    1 => policy.write(SequentialWritePolicy::durable_first()),
                    2 => policy.write(OptimisticParallelWritePolicy),
                    3 => policy.write(RaceWritePolicy { loser: Loser::Finish }),
                    _ => policy.write(RaceWritePolicy { loser: Loser::Drop }),
                };
                let policy = policy.refill(match refill {
                    0 => RefillPolicy::Never,
                    1 => RefillPolicy::Always,
                    2 => RefillPolicy::Awaited,
                    _ => RefillPolicy::NthHit(2),
                });
                let (l1, l2) = (l1.build(world, faults), l2.build(world, faults));
                Arc::new(l1.compose_with(l2, world.pool.shared(), &policy))
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Get(u8),
    Set(u8, Option<u16>),
    Delete(u8),
    GetMany(Vec<u8>),
    SetMany(Vec<(u8, Option<u16>)>),
    DeleteMany(Vec<u8>),
    Advance(u16),
    Fault { leaf: u8, operation: u8, fault: u8 },
    Recover,
    Settle,
}

/// A few of them, the same one more than once too.
fn batch<S: Strategy>(of: S) -> impl Strategy<Value = Vec<S::Value>> {
    proptest::collection::vec(of, 0..5)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..3_u8;
    let step = prop_oneof![
        6 => key.clone().prop_map(Step::Get),
        4 => (key.clone(), proptest::option::of(1..500_u16)).prop_map(|(k, ttl)| Step::Set(k, ttl)),
        2 => key.clone().prop_map(Step::Delete),
        2 => batch(key.clone()).prop_map(Step::GetMany),
        2 => batch((key.clone(), proptest::option::of(1..500_u16))).prop_map(Step::SetMany),
        1 => batch(key).prop_map(Step::DeleteMany),
        1 => (1..300_u16).prop_map(Step::Advance),
        1 => (any::<u8>(), 0..4_u8, 0..3_u8).prop_map(|(leaf, operation, fault)| Step::Fault { leaf, operation, fault }),
        1 => Just(Step::Recover),
        1 => Just(Step::Settle),
    ];
    proptest::collection::vec(step, 1..40)
}

fn one_each(got: usize, wanted: usize) -> Result<(), String> {
    if got == wanted { Ok(()) } else { Err(format!("{got} answers for {wanted} keys")) }
}

async fn play(expression: &Expression, steps: &[Step]) -> Result<(), String> {
    let world = World::new();
    let mut faults = Vec::new();
    let backend = expression.build(&world, &mut faults);
    let mut model = Model::default();
    let key = |k: u8| CacheKey::builder("k").part("n", k).build();
    for (number, step) in steps.iter().enumerate() {
        let mut context = CacheContext::new();
        let until = |ttl: Option<u16>| match ttl {
            Some(ttl) => Lifetime::ttl(world.clock.now(), Duration::from_millis(ttl.into())),
            None => Lifetime::FOREVER,
        };
        // Every write of the program has a value of its own.
        let value_of = |index: usize| (number * 10 + index) as u64;
        match step.clone() {
            Step::Get(k) => {
                let read = backend.get::<u64>(&key(k), &mut context).await;
                let answer = read.ok().flatten().map(|v| (*v.data(), *v.lifetime()));
                model.check(k, answer, world.clock.now()).map_err(|what| format!("step {number}: {what}"))?;
            }
            Step::GetMany(ks) => {
                let keys: Vec<_> = ks.iter().copied().map(key).collect();
                let answers = backend.get_many::<u64>(&keys).await;
                one_each(answers.len(), keys.len())?;
                for (k, read) in ks.into_iter().zip(answers) {
                    let answer = read.ok().flatten().map(|v| (*v.data(), *v.lifetime()));
                    model
                        .check(k, answer, world.clock.now())
                        .map_err(|what| format!("step {number}, key {k} of a batch: {what}"))?;
                }
            }
            Step::Set(k, ttl) => {
                let (value, lifetime) = (value_of(0), until(ttl));
                let entry = CacheValue::new(value).with_lifetime(lifetime);
                let written = backend.set(&key(k), entry, &mut context).await;
                model.wrote(k, value, lifetime, written.is_ok());
            }
            Step::SetMany(items) => {
                let entry = |(index, (k, ttl)): (usize, &(u8, Option<u16>))| {
                    (key(*k), CacheValue::new(value_of(index)).with_lifetime(until(*ttl)))
                };
                let receipts = backend.set_many(items.iter().enumerate().map(entry).collect()).await;
                one_each(receipts.len(), items.len())?;
                for (index, ((k, ttl), receipt)) in items.into_iter().zip(receipts).enumerate() {
                    model.wrote(k, value_of(index), until(ttl), receipt.is_ok());
                }
            }
            Step::Delete(k) => {
                let deleted = backend.delete(&key(k), &mut context).await;
                model.deleted(k, deleted.is_ok());
            }
            Step::DeleteMany(ks) => {
                let keys: Vec<_> = ks.iter().copied().map(key).collect();
                let deleted = backend.delete_many(&keys).await;
                one_each(deleted.len(), keys.len())?;
                for (k, deleted) in ks.into_iter().zip(deleted) {
                    model.deleted(k, deleted.is_ok());
                }
            }
            Step::Advance(millis) => world.advance_millis(millis.into()),
            Step::Fault { leaf, operation, fault } => {
                model.fault();
                let operation = [Operation::Read, Operation::Write, Operation::Remove, Operation::Install]
                    [usize::from(operation)];
                let fault = [
                    Fault::Fail(ErrorKind::Connection),
                    Fault::Fail(ErrorKind::TooLarge),
                    Fault::FailAfter(ErrorKind::Timeout),
                ][usize::from(fault)];
                faults[usize::from(leaf) % faults.len()].always(operation, fault);
            }
            Step::Recover => faults.iter().for_each(Faults::clear),
            Step::Settle => world.pool.wait_all().await,
        }
    }
    world.pool.wait_all().await;
    Ok(())
}

#[test]
fn random_programs_agree_with_the_model() {
    let seed = seed();
    let cases = number_from("HITBOX_CASES").unwrap_or(10_000) as u32;
    eprintln!("{cases} cases with HITBOX_SEED={seed}");
    let bytes: Vec<u8> = seed.to_le_bytes().repeat(4);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 4_000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("tokio");
    let result = runner.run(&(expressions(), steps()), |(expression, steps)| {
        runtime.block_on(play(&expression, &steps)).map_err(TestCaseError::fail)
    });
    if let Err(what) = result {
        panic!("with HITBOX_SEED={seed}: {what}");
    }
}
