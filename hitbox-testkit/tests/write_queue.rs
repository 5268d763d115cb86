//! The write queue under schedule exploration: its own source, over shuttle's primitives. Random and priority-based
//! schedules of writers, deleters, an erasing, refills in both directions and readers over two stores that two
//! compositions share, one of them upside down.
//!
//! `HITBOX_SCHEDULES` sets how many (1,000,000 by default), `HITBOX_SEED` replays.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use hitbox_core::{CacheKey, KeyPattern, Timestamp};
use hitbox_testkit::{History, number_from, seed};
use load_permit::LoadPermit;
use refill_permit::RefillPermit;
use shuttle::future::{block_on, spawn};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner};
use stripe::{Passed, WriteKind};
use sync::{Arc, Mutex};
use write_queue::WriteQueue;
use write_ticket::{QueueSet, WriteTicket};

/// What the queue takes its primitives from.
mod sync {
    pub(crate) use shuttle::sync::{Arc, Mutex, MutexGuard, Weak};
}

#[path = "../../hitbox-backend/src/coherence/write_queue.rs"]
#[allow(dead_code, unreachable_pub, reason = "the test uses a part of it")]
mod write_queue;
#[path = "../../hitbox-backend/src/coherence/write_ticket.rs"]
#[allow(dead_code, unreachable_pub, reason = "the test uses a part of it")]
mod write_ticket;

#[path = "../../hitbox-backend/src/coherence/load_permit.rs"]
#[allow(dead_code, unreachable_pub, reason = "the test uses a part of it")]
mod load_permit;

#[path = "../../hitbox-backend/src/coherence/refill_permit.rs"]
#[allow(dead_code, unreachable_pub, reason = "the test uses a part of it")]
mod refill_permit;

#[path = "../../hitbox-backend/src/coherence/stripe.rs"]
#[allow(dead_code, unreachable_pub, reason = "the test uses a part of it")]
mod stripe;

#[path = "../../hitbox-backend/src/coherence/logical_clock.rs"]
#[allow(dead_code, unreachable_pub, reason = "the test uses a part of it")]
mod logical_clock;

/// The one key that all tasks are about.
static KEY: LazyLock<CacheKey> = LazyLock::new(|| CacheKey::new("k"));

fn hash() -> u64 {
    KEY.process_hash()
}

/// How a refill decides whether it may install.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refill {
    /// By its permit and a slot in the queue, as the product does.
    Permitted,
    /// By comparing the generation before and after its read. Wrong: a writer may stand between the
    /// layers, or come between the comparison and the refill.
    Compares,
}

/// How a load decides whether it may be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    /// By its permit, as the product does.
    Permitted,
    /// It is stored, whatever was written meanwhile. Wrong.
    Stores,
    /// It is shown to whoever asks while it is under way. Wrong: a write may have returned since.
    Shows,
}

/// Now and then for longer than all that others do.
async fn pause() {
    let steps = if thread_rng().gen_bool(0.2) { 40 } else { 1 };
    for _ in 0..steps {
        shuttle::future::yield_now().await;
    }
}

struct World {
    refill: Refill,
    load: Load,
    /// The load under way, which readers share.
    flight: Mutex<Option<(Arc<LoadPermit>, u64)>>,
    queues: [Arc<WriteQueue>; 2],
    stores: [Mutex<Option<u64>>; 2],
    history: History,
}

impl World {
    /// Version 0 is in the stores that `filled` names.
    fn new(refill: Refill, load: Load, filled: [bool; 2]) -> Arc<Self> {
        let history = History::default();
        history.had(0);
        Arc::new(Self {
            refill,
            load,
            flight: Mutex::new(None),
            queues: [(); 2].map(|()| Arc::new(WriteQueue::with_stripes(2))),
            stores: filled.map(|filled| Mutex::new(filled.then_some(0))),
            history,
        })
    }

    fn get(&self, store: usize) -> Option<u64> {
        *self.stores[store].lock().expect("no panic")
    }

    fn put(&self, store: usize, version: Option<u64>) {
        *self.stores[store].lock().expect("no panic") = version;
    }

    /// A write or delete through a composition of both stores.
    async fn write(self: Arc<Self>, version: Option<u64>) {
        let begin = self.history.begin();
        let ticket = WriteTicket::begin(self.queues(), WriteKind::Change);
        let one = |store: usize| {
            let (this, ticket) = (self.clone(), ticket.clone());
            async move {
                let _guard = ticket.guard(&this.queues[store], hash()).await.expect("its only turn");
                this.put(store, version);
            }
        };
        match thread_rng().gen_range(0..3) {
            0 => {
                one(0).await;
                one(1).await;
            }
            1 => {
                one(1).await;
                one(0).await;
            }
            _ => {
                let other = spawn(one(1));
                one(0).await;
                other.await.expect("no panic");
            }
        }
        drop(ticket);
        self.history.wrote(version, begin);
    }

    fn queues(&self) -> QueueSet {
        let mut queues = QueueSet::default();
        for queue in &self.queues {
            queues.add(queue, hash());
        }
        queues
    }

    /// A load, which is shared while it is under way and stored at its end.
    async fn load(self: Arc<Self>, version: u64) {
        let permit =
            Arc::new(LoadPermit::new(self.queues(), [KEY.clone(), KEY.clone()], Timestamp::from_millis(0)));
        self.history.loads(version, self.history.begin());
        *self.flight.lock().expect("no panic") = Some((permit.clone(), version));
        pause().await;
        let ticket = match self.load {
            Load::Stores => Some(WriteTicket::begin(self.queues(), WriteKind::Change)),
            Load::Permitted | Load::Shows => permit.begin(),
        };
        if let Some(ticket) = &ticket {
            for store in [1, 0] {
                let _guard = ticket.guard(&self.queues[store], hash()).await.expect("its only turn");
                self.put(store, Some(version));
            }
        }
        *self.flight.lock().expect("no panic") = None;
        drop(ticket);
    }

    /// A read that misses and joins the load under way, if that is new enough.
    async fn join(self: Arc<Self>) {
        pause().await;
        let begin = self.history.begin();
        let flight = self.flight.lock().expect("no panic").clone();
        if let Some((permit, version)) = flight
            && (self.load == Load::Shows || permit.is_current())
        {
            self.history.read(version, begin);
        }
    }

    async fn erase(self: Arc<Self>) {
        let begin = self.history.begin();
        // Of everything, or of a pattern that matches.
        let pattern = thread_rng().gen_bool(0.5).then(|| KeyPattern::prefix(&KEY));
        let _first = self.queues[0].drain(pattern.clone()).await;
        let _second = self.queues[1].drain(pattern).await;
        self.put(1, None);
        self.put(0, None);
        self.history.wrote(None, begin);
    }

    /// Keys that begin otherwise are removed.
    async fn erase_others(self: Arc<Self>) {
        let pattern = Some(KeyPattern::prefix(&CacheKey::new("others")));
        let _first = self.queues[0].drain(pattern.clone()).await;
        pause().await;
        let _second = self.queues[1].drain(pattern).await;
        pause().await;
    }

    /// A read through the composition with `upper` over the other store, which refills.
    async fn read(self: Arc<Self>, upper: usize) {
        let begin = self.history.begin();
        let mut permit = RefillPermit::default();
        permit.add(&self.queues[upper], hash());
        let found = match self.get(upper) {
            Some(version) => Some(version),
            None => {
                let lower = self.get(1 - upper);
                if let Some(version) = lower {
                    self.refill(upper, version, &permit);
                }
                lower
            }
        };
        if let Some(version) = found {
            self.history.read(version, begin);
        }
    }

    fn refill(&self, upper: usize, version: u64, permit: &RefillPermit) {
        let queue = &self.queues[upper];
        let generation = permit.generation(queue, hash()).expect("a permit for this store");
        match self.refill {
            Refill::Permitted => {
                if let Some(_slot) = queue.enter_refill(&KEY, generation) {
                    self.put(upper, Some(version));
                }
            }
            Refill::Compares => {
                if queue.generation(hash()) == generation {
                    self.put(upper, Some(version));
                }
            }
        }
    }
}

/// One execution: a random program whose tasks run in an order that the scheduler chooses.
fn execute(refill: Refill, load: Load) {
    let mut random = thread_rng();
    let world = World::new(refill, load, [random.gen_bool(0.5), random.gen_bool(0.7)]);
    let mut tasks = Vec::new();
    for version in 1..=random.gen_range(1..=2) {
        let deletes = random.gen_bool(0.3);
        tasks.push(spawn(world.clone().write((!deletes).then_some(version))));
    }
    if random.gen_bool(0.2) {
        tasks.push(spawn(world.clone().erase()));
    }
    if random.gen_bool(0.1) {
        tasks.push(spawn(world.clone().erase_others()));
    }
    for _ in 0..random.gen_range(1..=2) {
        tasks.push(spawn(world.clone().read(random.gen_range(0..2))));
    }
    if random.gen_bool(0.5) {
        tasks.push(spawn(world.clone().load(100)));
        for _ in 0..3 {
            tasks.push(spawn(world.clone().join()));
        }
    }
    block_on(async {
        for task in tasks {
            task.await.expect("no panic");
        }
        world.clone().read(0).await;
        world.clone().read(1).await;
    });
    if let Err(what) = world.history.check() {
        panic!("{what}");
    }
}

fn explore(scheduler: impl Scheduler + 'static, refill: Refill, load: Load) {
    Runner::new(scheduler, Config::new()).run(move || execute(refill, load));
}

#[test]
fn no_schedule_lets_a_read_see_what_is_over() {
    let (seed, schedules) = (seed(), number_from("HITBOX_SCHEDULES").unwrap_or(1_000_000) as usize);
    eprintln!("{schedules} schedules with HITBOX_SEED={seed}");
    explore(RandomScheduler::new_from_seed(seed, schedules / 2), Refill::Permitted, Load::Permitted);
    explore(
        PctScheduler::new_from_seed(seed, 4, schedules - schedules / 2),
        Refill::Permitted,
        Load::Permitted,
    );
}

#[test]
fn comparing_generations_is_not_enough() {
    let found = catch_unwind(AssertUnwindSafe(|| {
        explore(RandomScheduler::new_from_seed(seed(), 100_000), Refill::Compares, Load::Permitted);
    }));
    found.expect_err("a refill that only compares generations resurrects");
}

/// An exploration that must fail.
fn finds(load: Load) {
    let found = catch_unwind(AssertUnwindSafe(|| {
        explore(RandomScheduler::new_from_seed(seed(), 300_000), Refill::Permitted, load);
    }));
    assert!(found.is_err(), "nobody saw what a load had brought before a write that had returned");
}

#[test]
fn loads_that_are_stored_without_a_permit_are_found() {
    finds(Load::Stores);
}

#[test]
fn loads_that_are_shown_without_a_permit_are_found() {
    finds(Load::Shows);
}

/// What a place of a store does when its turn has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heeds {
    /// It says what the queue says, as the product does.
    Passed,
    /// It writes all the same. Wrong.
    Nothing,
    /// A place that failed counts as written. Wrong: a later change may fail too, or bring no value.
    Failures,
}

/// A store that stands in two places, and what its writes said.
struct Places {
    queue: Arc<WriteQueue>,
    stored: Mutex<u64>,
    heeds: Heeds,
}

impl Places {
    fn ticket(&self) -> Arc<WriteTicket> {
        let mut queues = QueueSet::default();
        queues.add(&self.queue, hash());
        queues.add(&self.queue, hash());
        WriteTicket::begin(queues, WriteKind::Change)
    }

    fn stored(&self) -> u64 {
        *self.stored.lock().expect("no panic")
    }

    /// Whether the store has the version, or something later, as far as this place can say.
    async fn write(self: Arc<Self>, ticket: Arc<WriteTicket>, version: u64, fails: bool) -> bool {
        let _guard = match ticket.guard(&self.queue, hash()).await {
            Ok(guard) => Some(guard),
            Err(passed) => match self.heeds {
                Heeds::Passed | Heeds::Failures => return passed == Passed::Overtaken,
                Heeds::Nothing => None,
            },
        };
        pause().await;
        if fails {
            if self.heeds == Heeds::Failures {
                ticket.overtake(&self.queue, hash());
            }
            return false;
        }
        *self.stored.lock().expect("no panic") = version;
        ticket.overtake(&self.queue, hash());
        pause().await;
        true
    }

    /// A change that brings no other value: it replaces what is there with itself.
    async fn rewrite(self: Arc<Self>) {
        let ticket = self.ticket();
        for _ in 0..2 {
            let Ok(_guard) = ticket.guard(&self.queue, hash()).await else { continue };
            let there = self.stored();
            pause().await;
            *self.stored.lock().expect("no panic") = there;
        }
    }
}

/// Writes of one store that stands in two places: each returns when one place is written, and the other goes on. One of the
/// places may fail; then the other is waited for.
fn execute_places(heeds: Heeds) {
    let queue = Arc::new(WriteQueue::with_stripes(2));
    let places = Arc::new(Places { queue, stored: Mutex::new(0), heeds });
    block_on(async {
        let mut left = Vec::new();
        for version in 1..4_u64 {
            let ticket = places.ticket();
            let (fails, other_fails) = match thread_rng().gen_range(0..4) {
                0 => (true, false),
                1 => (false, true),
                _ => (false, false),
            };
            let other = spawn(places.clone().write(ticket.clone(), version, other_fails));
            if thread_rng().gen_bool(0.4) {
                left.push(spawn(places.clone().rewrite()));
            }
            let mut is_done = places.clone().write(ticket.clone(), version, fails).await;
            drop(ticket);
            if is_done {
                left.push(spawn(async { drop(other.await) }));
            } else {
                is_done = other.await.expect("no panic");
            }
            assert!(is_done, "one place did not fail");
            assert_eq!(places.stored(), version, "an older write came after a newer one, or one is lost");
        }
        for place in left {
            place.await.expect("no panic");
        }
        assert_eq!(places.stored(), 3, "an older write came after the last");
    });
}

fn explore_places(schedules: usize, heeds: Heeds) {
    let scheduler = RandomScheduler::new_from_seed(seed(), schedules);
    Runner::new(scheduler, Config::new()).run(move || execute_places(heeds));
}

#[test]
fn no_schedule_loses_a_write_of_one_place_or_lets_it_follow_a_newer() {
    explore_places(number_from("HITBOX_SCHEDULES").unwrap_or(100_000) as usize, Heeds::Passed);
}

#[test]
fn places_that_do_not_heed_later_writes_are_found() {
    for heeds in [Heeds::Nothing, Heeds::Failures] {
        let found = catch_unwind(AssertUnwindSafe(|| explore_places(30_000, heeds)));
        assert!(found.is_err(), "{heeds:?} was not found");
    }
}
