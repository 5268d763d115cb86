//! A slow function, made fast by one attribute. Runs without any server.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "an example")]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use hitbox::{Cache, LoadError, cached, stacks};

/// Made when it is first used, on the runtime that is there then.
static PRIMES: LazyLock<Cache<u64>> = LazyLock::new(|| {
    let memory = stacks::memory(1_000).expect("room for a thousand entries");
    Cache::builder(memory).name("primes").ttl(Duration::from_secs(60)).build().expect("a cache")
});

/// The number of primes below a limit, by trial division: slow on purpose.
#[cached(cache = PRIMES)]
async fn primes_below(limit: u64) -> Result<u64, LoadError> {
    let is_prime = |n: u64| (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
    Ok((2..limit).filter(|n| is_prime(*n)).count() as u64)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    for _ in 0..3 {
        let started = Instant::now();
        let primes = primes_below(200_000).await?;
        println!("{primes} primes below 200,000, in {:?}", started.elapsed());
    }
    println!("the key is {}", primes_below::key(200_000));
    primes_below::invalidate(200_000).await?;
    let started = Instant::now();
    primes_below(200_000).await?;
    println!("after an invalidation it is computed again, in {:?}", started.elapsed());
    let statistics = PRIMES.statistics();
    println!("{} loads, {} hits", statistics.loads, statistics.layers.leaves[0].hits);
    assert_eq!((statistics.loads, statistics.layers.leaves[0].hits), (2, 2));
    Ok(())
}
