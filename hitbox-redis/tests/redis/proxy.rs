//! A TCP proxy in front of a server that can make connections deaf: they stay open, and nothing comes through any more.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[derive(Default)]
struct State {
    accepted: AtomicUsize,
    /// As many connections, the first ones, are deaf.
    deaf: AtomicUsize,
    has_ended: AtomicBool,
}

/// A proxy on a port of its own. It takes no more connections when it is dropped.
pub(crate) struct Proxy {
    port: u16,
    state: Arc<State>,
}

impl Proxy {
    pub(crate) fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::spawn(move || accept(&listener, server, &shared));
        Self { port, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Makes all connections deaf that there are. New ones work.
    pub(crate) fn deafen(&self) {
        self.state.deaf.store(self.accepted(), Ordering::SeqCst);
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.has_ended.store(true, Ordering::SeqCst);
        // The one that accepts wakes up and sees it. If it has ended already there is nobody to wake.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

fn accept(listener: &TcpListener, server: u16, state: &Arc<State>) {
    for client in listener.incoming() {
        if state.has_ended.load(Ordering::SeqCst) {
            return;
        }
        let (Ok(client), Ok(upstream)) = (client, TcpStream::connect(("127.0.0.1", server))) else {
            continue;
        };
        let number = state.accepted.fetch_add(1, Ordering::SeqCst);
        let ends = |a: &TcpStream, b: &TcpStream| (a.try_clone().expect("it"), b.try_clone().expect("it"));
        for (from, to) in [ends(&client, &upstream), ends(&upstream, &client)] {
            let state = state.clone();
            std::thread::spawn(move || forward(from, to, number, &state));
        }
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, number: usize, state: &State) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let is_deaf = number < state.deaf.load(Ordering::SeqCst);
        if !is_deaf && to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // It may be closed already.
    let _ = to.shutdown(Shutdown::Both);
}
