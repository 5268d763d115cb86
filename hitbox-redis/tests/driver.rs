//! The driver of a connection under schedule exploration: its own source, over shuttle's primitives. Calls begin, are given up
//! and are held without being polled, in random schedules, over an input and output that a server answers.
//!
//! `HITBOX_SCHEDULES` sets how many (20,000 by default), `HITBOX_SEED` replays.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use driver::Driver;
use hitbox_testkit::{number_from, seed};
use shuttle::future::{block_on, spawn, yield_now};
use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};
use sync::Mutex;

/// What the driver takes its primitives from.
mod sync {
    pub(crate) use shuttle::sync::atomic::{AtomicBool, Ordering};
    pub(crate) use shuttle::sync::{Mutex, MutexGuard};
}

#[path = "../src/driver.rs"]
#[allow(dead_code, unreachable_pub, reason = "the test uses a part of it")]
mod driver;

/// A queue whose reader is woken. It keeps one waker, as a socket and a channel do.
struct Queue<T> {
    items: VecDeque<T>,
    reader: Option<Waker>,
    is_closed: bool,
}

type Shared<T> = Arc<Mutex<Queue<T>>>;

fn queue<T>() -> Shared<T> {
    Arc::new(Mutex::new(Queue { items: VecDeque::new(), reader: None, is_closed: false }))
}

fn push<T>(queue: &Shared<T>, item: T) {
    let reader = {
        let mut queue = queue.lock().expect("no panic");
        queue.items.push_back(item);
        queue.reader.take()
    };
    if let Some(reader) = reader {
        reader.wake();
    }
}

fn close<T>(queue: &Shared<T>) {
    let reader = {
        let mut queue = queue.lock().expect("no panic");
        queue.is_closed = true;
        queue.reader.take()
    };
    if let Some(reader) = reader {
        reader.wake();
    }
}

/// Nothing if it is closed.
fn poll_pop<T>(queue: &Shared<T>, cx: &mut Context<'_>) -> Poll<Option<T>> {
    let mut queue = queue.lock().expect("no panic");
    match queue.items.pop_front() {
        Some(item) => Poll::Ready(Some(item)),
        None if queue.is_closed => Poll::Ready(None),
        None => {
            queue.reader = Some(cx.waker().clone());
            Poll::Pending
        }
    }
}

/// The place of an answer.
type Answer = Shared<u64>;

/// Input and output: what calls ask goes to the server, what it answers to the calls, in order.
struct Wire {
    asked: Shared<(u64, Answer)>,
    to_server: Shared<u64>,
    from_server: Shared<u64>,
    waiting: VecDeque<Answer>,
    /// One for each answer that was read, whoever still waits for it.
    read: Shared<()>,
}

/// As a channel does: what was asked until now comes to nothing. What is asked while it is dropped is never answered.
impl Drop for Wire {
    fn drop(&mut self) {
        let asked: Vec<_> = self.asked.lock().expect("no panic").items.drain(..).collect();
        self.waiting
            .drain(..)
            .chain(asked.into_iter().map(|(_, answer)| answer))
            .for_each(|answer| close(&answer));
    }
}

impl Future for Wire {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut is_idle = true;
            match poll_pop(&self.from_server, cx) {
                Poll::Ready(Some(number)) => {
                    let answer = self.waiting.pop_front().expect("it was asked");
                    push(&answer, number);
                    push(&self.read, ());
                    is_idle = false;
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            if let Poll::Ready(Some((number, answer))) = poll_pop(&self.asked, cx) {
                self.waiting.push_back(answer);
                push(&self.to_server, number);
                is_idle = false;
            }
            if is_idle {
                return Poll::Pending;
            }
        }
    }
}

/// What callers have: the way to ask, and who drives.
#[derive(Clone)]
struct Connection {
    asked: Shared<(u64, Answer)>,
    driver: Arc<Driver>,
}

impl Connection {
    async fn call(&self, number: u64) -> Option<u64> {
        let answer = queue();
        let mut has_asked = false;
        let call = std::future::poll_fn(|cx| {
            if !std::mem::replace(&mut has_asked, true) {
                push(&self.asked, (number, answer.clone()));
            }
            poll_pop(&answer, cx)
        });
        self.driver.run(std::pin::pin!(call)).await.flatten()
    }
}

/// What a caller does with a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Caller {
    Waits,
    /// It polls a few times and drops the call.
    GivesUp,
    /// It polls once and keeps the call until all others are done.
    Holds,
}

fn poll_once<F: Future + Unpin>(call: &mut F) -> impl Future<Output = Poll<F::Output>> {
    std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *call).poll(cx)))
}

/// What the task of the connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Drives,
    /// Wrong: who comes second waits for whoever came first.
    LeavesItToCalls,
}

/// Of each caller.
const CALLS: u64 = 2;

fn execute(task: Task) {
    block_on(async {
        // The runtime of the connection ends, or its last owner has gone.
        let ends_early = thread_rng().gen_bool(0.3);
        let callers_at_once = thread_rng().gen_range(1..4);
        let (asked, to_server, from_server, read) = (queue(), queue(), queue(), queue());
        let driver = Arc::new(Driver::new(thread_rng().gen_range(0..3)));
        let wire = Wire {
            asked: asked.clone(),
            to_server: to_server.clone(),
            from_server: from_server.clone(),
            waiting: VecDeque::new(),
            read: read.clone(),
        };
        driver.begin(Box::pin(wire));
        let drives = driver.clone();
        let driving = spawn(async move {
            if task == Task::Drives {
                drives.drive().await;
            }
        });
        let answers = from_server.clone();
        let server = spawn(async move {
            while let Some(number) = std::future::poll_fn(|cx| poll_pop(&to_server, cx)).await {
                yield_now().await;
                push(&answers, number);
            }
            close(&answers);
        });
        let connection = Connection { asked, driver };
        let ending = connection.driver.clone();
        let ends = spawn(async move {
            if ends_early {
                for _ in 0..thread_rng().gen_range(0..20) {
                    yield_now().await;
                }
                ending.end();
            }
        });
        let expect = move |answer: Option<u64>, number: u64| match answer {
            Some(answer) => assert_eq!(answer, number, "an answer of another call"),
            None => assert!(ends_early, "call {number} came to nothing"),
        };
        let mut callers = Vec::new();
        for caller in 0..callers_at_once {
            let connection = connection.clone();
            callers.push(spawn(async move {
                let mut held = Vec::new();
                for turn in 0..CALLS {
                    let number = caller * 10 + turn;
                    let mut call = Box::pin({
                        let connection = connection.clone();
                        async move { connection.call(number).await }
                    });
                    match [Caller::Waits, Caller::GivesUp, Caller::Holds][thread_rng().gen_range(0..3)] {
                        Caller::Waits => expect(call.await, number),
                        Caller::GivesUp => {
                            for _ in 0..thread_rng().gen_range(1..3) {
                                if poll_once(&mut call).await.is_ready() {
                                    break;
                                }
                                yield_now().await;
                            }
                        }
                        Caller::Holds => {
                            if poll_once(&mut call).await.is_pending() {
                                held.push((number, call));
                            }
                        }
                    }
                }
                held
            }));
        }
        let mut held = Vec::new();
        for caller in callers {
            held.extend(caller.await.expect("no panic"));
        }
        // Who was not polled has its answer all the same.
        for (number, call) in held {
            expect(call.await, number);
        }
        ends.await.expect("no panic");
        // What was given up is answered and read too, though nobody calls any more.
        for _ in 0..if ends_early { 0 } else { callers_at_once * CALLS } {
            std::future::poll_fn(|cx| poll_pop(&read, cx)).await.expect("it is not closed");
        }
        // The end of the connection is noticed.
        close(&from_server);
        driving.await.expect("no panic");
        if task == Task::Drives {
            assert!(connection.driver.is_over());
        }
        drop(server);
    });
}

fn explore(schedules: usize, task: Task) {
    let random = RandomScheduler::new_from_seed(seed(), schedules / 2);
    Runner::new(random, Config::new()).run(move || execute(task));
    let priorities = PctScheduler::new_from_seed(seed(), 3, schedules / 2);
    Runner::new(priorities, Config::new()).run(move || execute(task));
}

#[test]
fn no_schedule_leaves_a_call_without_its_answer() {
    explore(number_from("HITBOX_SCHEDULES").unwrap_or(20_000) as usize, Task::Drives);
}

#[test]
fn calls_that_wait_for_others_to_be_polled_are_found() {
    let found = catch_unwind(AssertUnwindSafe(|| explore(5_000, Task::LeavesItToCalls)));
    assert!(found.is_err(), "it was not found");
}
