//! A random load of many clients, compared byte by byte, while the proxy is killed again and again.
//!
//! `HITBOX_REQUESTS` sets how many requests each client makes (150 by default), `HITBOX_SEED` replays their choices.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::Request;
use axum::response::Response;
use hitbox_testkit::{number_from, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::RwLock;

use crate::common::{Origin, Proxy, bytes, chunked, response};

const CLIENTS: u64 = 6;
const KILLS: u64 = 4;
const RESOURCES: u64 = 30;

/// How long the body of a resource is.
fn len_of(resource: u64) -> u64 {
    [0, 1, 700, 65_536, 65_537, 300_000, 1_048_576, 2_500_000][resource as usize % 8] + resource / 8
}

/// The origin: how it answers depends on the resource, and its body is always the same.
fn answer(request: &Request, number: usize) -> Response {
    let resource: u64 = request.uri().path().trim_start_matches("/r/").parse().expect("a resource");
    let etag = format!("\"{resource}\"");
    let control = match resource % 5 {
        0 => "max-age=0",
        1 => "max-age=0, stale-while-revalidate=60",
        2 => "no-store",
        _ => "max-age=600",
    };
    let mut fields = vec![("cache-control", control), ("etag", &*etag)];
    if resource.is_multiple_of(3) {
        fields.push(("vary", "accept"));
    }
    if request.headers().get("if-none-match").is_some_and(|known| known == &*etag) {
        return response(304, &fields, "");
    }
    let all = bytes(resource, len_of(resource));
    let len = all.len();
    if number.is_multiple_of(17) && len > 1000 {
        return response(200, &fields, chunked(all, 7_000, Some(len / 2)));
    }
    if resource.is_multiple_of(2) {
        return response(200, &fields, all);
    }
    response(200, &fields, chunked(all, 30_000, None))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_is_the_origins_whatever_is_killed() {
    let (requests, seed) = (number_from("HITBOX_REQUESTS").unwrap_or(150), seed());
    eprintln!("{requests} requests of each client with HITBOX_SEED={seed}");
    let origin = Origin::serve(|request, number| answer(&request, number)).await;
    let proxy = Proxy::start(&origin, &[]).await;
    // Whoever kills it waits for nobody: requests are made under its nose.
    let current = Arc::new(RwLock::new(Arc::new(Some(proxy))));
    let (whole, cached, made) =
        (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (current, whole, cached, made) =
                (current.clone(), whole.clone(), cached.clone(), made.clone());
            tokio::spawn(async move {
                let mut random = StdRng::seed_from_u64(seed.wrapping_add(client));
                for _ in 0..requests {
                    made.fetch_add(1, Ordering::SeqCst);
                    let proxy = current.read().await;
                    let Some(proxy) = &**proxy else { continue };
                    let resource = random.random_range(0..RESOURCES);
                    let path = format!("/r/{resource}");
                    let len = len_of(resource);
                    let accept = ["a", "b"][random.random_range(0..2)];
                    match random.random_range(0..20) {
                        0 => drop(proxy.request("PURGE", &path).send().await),
                        1 => drop(proxy.request("PURGE", &path).header("x-purge", "expire").send().await),
                        2 => {
                            // It leaves in the middle.
                            if let Ok(mut answer) =
                                proxy.request("GET", &path).header("accept", accept).send().await
                            {
                                drop(answer.chunk().await);
                            }
                        }
                        3..7 if len > 0 => {
                            let (one, other) = (random.random_range(0..len), random.random_range(0..len));
                            let (start, end) = (one.min(other), one.max(other));
                            let range = format!("bytes={start}-{end}");
                            let fields = [("range", &*range), ("accept", accept)];
                            let Ok(part) = proxy.ask(&path, &fields).await else { continue };
                            let all = bytes(resource, len);
                            match part.status {
                                206 => assert_eq!(
                                    part.body,
                                    all[start as usize..=end as usize],
                                    "{path}: {range}: {}",
                                    part.cache()
                                ),
                                200 => assert_eq!(part.body, all, "{path}: {range} is not known"),
                                status => assert!(status >= 500, "{path}: {range}: {status}"),
                            }
                        }
                        _ => {
                            let Ok(answer) = proxy.ask(&path, &[("accept", accept)]).await else { continue };
                            if answer.status == 200 {
                                assert!(
                                    answer.body == bytes(resource, len),
                                    "{path}: {} of {len} bytes, {}",
                                    answer.body.len(),
                                    answer.cache()
                                );
                                whole.fetch_add(1, Ordering::SeqCst);
                                cached.fetch_add(
                                    u64::from(answer.cache().starts_with("hit")),
                                    Ordering::SeqCst,
                                );
                            } else {
                                assert!(answer.status >= 500, "{path}: {}", answer.status);
                            }
                        }
                    }
                }
            })
        })
        .collect();
    let all = CLIENTS * requests;
    for kill in 1..=KILLS {
        // The load itself says when: after a fifth of it, and so on.
        while made.load(Ordering::SeqCst) < all * kill / (KILLS + 1)
            && clients.iter().any(|task| !task.is_finished())
        {
            tokio::task::yield_now().await;
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        current.read().await.as_ref().as_ref().expect("a proxy").kill();
        let mut held = current.write().await;
        let proxy = std::mem::replace(&mut *held, Arc::new(None));
        let proxy = Arc::into_inner(proxy).flatten().expect("nobody else has it");
        *held = Arc::new(Some(proxy.killed_and_restarted().await));
    }
    for client in clients {
        client.await.expect("every byte is right");
    }
    let (whole, cached) = (whole.load(Ordering::SeqCst), cached.load(Ordering::SeqCst));
    eprintln!("{whole} whole answers, {cached} of them from the cache");
    assert!(whole > all / 3 && cached > all / 20, "{whole} whole answers, {cached} from the cache, of {all}");
}
