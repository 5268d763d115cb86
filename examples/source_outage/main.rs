//! The source goes down and comes back; the cache serves throughout. Time is driven by hand, so that it takes no time.
//! Runs without any server.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "an example")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hitbox::core::ManualClock;
use hitbox::moka::MokaBackend;
use hitbox::{AnswerKind, Cache, LoadError, Response};

#[derive(Clone, Default)]
struct Source {
    is_down: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
}

impl Source {
    async fn price(self) -> Result<u64, std::io::Error> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        if self.is_down.load(Ordering::SeqCst) {
            Err(std::io::Error::other("connection refused"))
        } else {
            Ok(100 + call)
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let minute = Duration::from_secs(60);
    let clock = ManualClock::new();
    let memory = MokaBackend::builder().clock(Arc::new(clock.clone())).build()?;
    let prices: Cache<u64> = Cache::builder(memory)
        .name("prices")
        .ttl(5 * minute)
        .stale(minute)
        .fail_safe(60 * minute)
        .throttle(Duration::from_secs(10))
        .build()?;
    let source = Source::default();
    let ask = async |what: &str| -> Result<Response<u64>, LoadError> {
        let from = source.clone();
        let response = prices.entry("book").get_or_load(move || from.price()).await?;
        let calls = source.calls.load(Ordering::SeqCst);
        println!(
            "{what:<44} {} ({:?}), {calls} calls of the source so far",
            *response, response.outcome.kind
        );
        Ok(response)
    };

    ask("the first call loads").await?;
    clock.advance(4 * minute);
    ask("four minutes later it is fresh").await?;
    source.is_down.store(true, Ordering::SeqCst);
    clock.advance(3 * minute);
    let response = ask("the source is down, the price has expired").await?;
    assert_eq!((*response, response.outcome.kind), (100, AnswerKind::StaleOnError));
    for _ in 0..3 {
        ask("it is left in peace for ten seconds").await?;
    }
    clock.advance(Duration::from_secs(10));
    ask("then it is tried again").await?;
    source.is_down.store(false, Ordering::SeqCst);
    clock.advance(Duration::from_secs(10));
    let response = ask("the source is back").await?;
    assert_eq!(response.outcome.kind, AnswerKind::Loaded);
    source.is_down.store(true, Ordering::SeqCst);
    clock.advance(120 * minute);
    let error = ask("").await.expect_err("the hour of grace is over");
    println!("{:<44} {error}", "two hours of outage are too long:");
    assert_eq!(source.calls.load(Ordering::SeqCst), 5);
    Ok(())
}
