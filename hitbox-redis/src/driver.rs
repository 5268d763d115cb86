//! Who drives the input and output of a connection. A call that is the only one drives it itself: the answer wakes it, and no
//! task stands between it and the socket. As soon as there are two, a task drives for all of them, so that nobody depends on
//! how another caller is polled.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::FutureExt;
use tokio::task::unconstrained;

use crate::sync::{AtomicBool, Mutex, MutexGuard, Ordering};

/// Writes what calls ask and reads the answers; ends with the connection.
pub(crate) type Io = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(crate) struct Driver {
    /// Nothing before the connection is there, and after it has ended. The lock is held for as long as a socket takes.
    io: Mutex<Option<Io>>,
    handoff: Arc<Handoff>,
    /// Of `handoff`, for calls that drive.
    waker: Waker,
    is_over: AtomicBool,
    /// So many calls in a row have to be alone before the next one drives: whoever drives is not changed all the time.
    left_to_task: u32,
}

/// Who drives, and how one takes over from another.
#[derive(Default)]
struct Handoff {
    state: Mutex<State>,
    /// The only call is polling the input and output. It looks itself whether something has come meanwhile.
    is_polling: AtomicBool,
    was_woken: AtomicBool,
}

#[derive(Default)]
struct State {
    calls: usize,
    /// There is something to be driven.
    has_io: bool,
    /// The only call drives. Otherwise the task does.
    is_driven_by_call: bool,
    /// Further calls that leave it to the task even if they are alone.
    left_to_task: u32,
    /// Of the call that drives.
    call: Option<Waker>,
    task: Option<Waker>,
}

impl Handoff {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_task(&self) {
        let task = self.state().task.clone();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl Wake for Handoff {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    /// Wakes the call that drives; if it has ended or does so no more, the task.
    fn wake_by_ref(self: &Arc<Self>) {
        // In this order: a call that has just stopped polling sees what has come, or is woken.
        self.was_woken.store(true, Ordering::SeqCst);
        if self.is_polling.load(Ordering::SeqCst) {
            return;
        }
        let waker = {
            let state = self.state();
            state.call.as_ref().or(state.task.as_ref()).cloned()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

fn keep(waker: &mut Option<Waker>, cx: &Context<'_>) {
    match waker {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waker = Some(cx.waker().clone()),
    }
}

impl Driver {
    pub(crate) fn new(left_to_task: u32) -> Self {
        let handoff = Arc::new(Handoff::default());
        let waker = handoff.clone().into();
        Self { io: Mutex::new(None), handoff, waker, is_over: AtomicBool::new(false), left_to_task }
    }

    /// Whether nothing comes of this connection any more.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    fn io(&self) -> MutexGuard<'_, Option<Io>> {
        self.io.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection is there.
    pub(crate) fn begin(&self, io: Io) {
        *self.io() = Some(io);
        self.handoff.state().has_io = true;
    }

    /// Closes the connection; calls under way come to nothing.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        // If somebody polls it just now, who is woken below finds that it is over.
        let io = self.io.try_lock().ok().and_then(|mut io| io.take());
        drop(io);
        // A call that drives waits for the input and output alone.
        self.waker.wake_by_ref();
        self.handoff.wake_task();
    }

    /// Whoever polls last is woken.
    fn poll(&self, io: &mut Option<Io>, cx: &mut Context<'_>) -> Poll<()> {
        let ended = match io {
            Some(driven) if !self.is_over() => driven.as_mut().poll(cx),
            _ => Poll::Ready(()),
        };
        if ended.is_ready() {
            // In this order: who asks while it is dropped, too late to be told, sees that it is over.
            self.is_over.store(true, Ordering::SeqCst);
            *io = None;
        }
        ended
    }

    /// What the task does: it drives whenever no call does, until the connection has ended.
    pub(crate) async fn drive(&self) {
        poll_fn(|cx| {
            {
                let mut state = self.handoff.state();
                keep(&mut state.task, cx);
                if state.is_driven_by_call && !self.is_over() {
                    return Poll::Pending;
                }
            }
            let mut io = self.io();
            // A call may have begun to drive, and may have polled, before the lock was had: it has to be the last that polls.
            if self.handoff.state().is_driven_by_call && !self.is_over() {
                return Poll::Pending;
            }
            self.poll(&mut io, cx)
        })
        .await;
    }

    /// Runs a call on this connection; nothing if that has ended and the call was not told.
    pub(crate) async fn run<T>(&self, call: impl Future<Output = T> + Unpin) -> Option<T> {
        // Its answer is there as soon as the input and output have been polled: a budget that is spent may not hide it.
        let mut call = unconstrained(call);
        let mut active = ActiveCall::new(self);
        poll_fn(|cx| match active.poll(&mut call, cx) {
            Poll::Pending if self.is_over() => match call.poll_unpin(cx) {
                Poll::Ready(answer) => Poll::Ready(Some(answer)),
                Poll::Pending => Poll::Ready(None),
            },
            answer => answer.map(Some),
        })
        .await
    }
}

/// A call under way.
struct ActiveCall<'a> {
    driver: &'a Driver,
    /// Until another call begins.
    drives: bool,
    has_asked: bool,
}

impl<'a> ActiveCall<'a> {
    fn new(driver: &'a Driver) -> Self {
        let mut state = driver.handoff.state();
        state.calls += 1;
        state.left_to_task = match state.calls {
            1 => state.left_to_task.saturating_sub(1),
            _ => driver.left_to_task,
        };
        // A connection that a task of the client drives has none.
        let drives = state.calls == 1 && state.left_to_task == 0 && state.has_io;
        let is_taken = std::mem::replace(&mut state.is_driven_by_call, drives);
        if is_taken {
            // The task drives from now on, and the call that did waits as this one does.
            let (call, task) = (state.call.take(), state.task.clone());
            drop(state);
            call.into_iter().chain(task).for_each(Waker::wake);
        }
        Self { driver, drives, has_asked: false }
    }

    fn poll<T>(&mut self, call: &mut (impl Future<Output = T> + Unpin), cx: &mut Context<'_>) -> Poll<T> {
        if self.drives {
            let mut state = self.driver.handoff.state();
            self.drives = state.is_driven_by_call;
            if self.drives {
                keep(&mut state.call, cx);
                drop(state);
                return self.drive(call);
            }
        }
        call.poll_unpin(cx)
    }

    /// Asks, and waits for what the input and output wake it for. What it does itself need not wake it.
    fn drive<T>(&mut self, call: &mut (impl Future<Output = T> + Unpin)) -> Poll<T> {
        let mut silent = Context::from_waker(Waker::noop());
        let answer = {
            let mut io = self.driver.io();
            let polling = Polling::new(&self.driver.handoff);
            let is_first = !std::mem::replace(&mut self.has_asked, true);
            let refused = if is_first { call.poll_unpin(&mut silent) } else { Poll::Pending };
            if refused.is_pending() {
                polling.begins();
                let _ = self.driver.poll(&mut io, &mut Context::from_waker(&self.driver.waker));
                call.poll_unpin(&mut silent)
            } else {
                refused
            }
        };
        // Another call may have begun meanwhile: then it is the task that has to look.
        if self.driver.handoff.was_woken.load(Ordering::SeqCst) {
            self.driver.waker.wake_by_ref();
        }
        answer
    }
}

impl Drop for ActiveCall<'_> {
    fn drop(&mut self) {
        let mut state = self.driver.handoff.state();
        state.calls -= 1;
        if !(self.drives && state.is_driven_by_call) {
            return;
        }
        state.is_driven_by_call = false;
        let call = state.call.take();
        drop(state);
        drop(call);
        // A call that is given up may have been woken for what it does not look at any more.
        if self.driver.handoff.was_woken.load(Ordering::SeqCst) {
            self.driver.handoff.wake_task();
        }
    }
}

/// The only call polls, until this is dropped.
struct Polling<'a>(&'a Handoff);

impl<'a> Polling<'a> {
    fn new(handoff: &'a Handoff) -> Self {
        handoff.is_polling.store(true, Ordering::SeqCst);
        Self(handoff)
    }

    /// What comes from here on may have come too late to be seen.
    fn begins(&self) {
        self.0.was_woken.store(false, Ordering::SeqCst);
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        self.0.is_polling.store(false, Ordering::SeqCst);
    }
}
