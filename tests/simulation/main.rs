//! Clients and a broker on a bad network, in virtual time.
//!
//! Each seed is one run: a few clients subscribe, publish, answer and dawdle at random, while
//! links stall, are cut between any two bytes' messages, outboxes fill, and brokers restart: with their
//! disk, without it, with an older copy of it, by a clock that was set. At the end the network heals, everything must settle, and what each side says must be what happened.
//!
//! `KPS_SEED=123 cargo test -p kps-proto --test simulation` runs one seed, with `KPS_TRACE=1` it
//! prints every frame; `KPS_SEEDS=10000 …` runs that many.

mod app;
mod clock;
mod fates;
mod kept;
mod link;
mod program;
mod random;
mod server;
mod shelf;
mod truth;
mod world;

use std::{
    panic,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use kps_proto::{clock::Time, wire::Frames};
use world::World;

/// How many seeds an ordinary test run tries.
const SEEDS: u64 = 500;

#[test]
fn nothing_is_lost_repeated_or_left_behind() {
    each_seed("nothing_is_lost_repeated_or_left_behind", |seed| World::new(seed).run());
}

#[test]
fn what_is_stored_outlives_the_broker() {
    each_seed("what_is_stored_outlives_the_broker", |seed| kept::World::new(seed).run());
}

/// Runs the world of each seed, or of the one that was asked for.
fn each_seed(test: &str, run: impl Fn(u64) -> u64 + Sync + panic::RefUnwindSafe) {
    if let Some(seed) = number("KPS_SEED") {
        run(seed);
        return;
    }
    let seeds = number("KPS_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            if panic::catch_unwind(|| run(seed)).is_err() {
                next.store(seeds, Ordering::Relaxed);
                panic!("replay: KPS_SEED={seed} cargo test -p kps-proto --test simulation {test}");
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, |count| count.get()) {
            scope.spawn(work);
        }
    });
}

#[test]
fn a_seed_always_gives_the_same_run() {
    for seed in 0..20 {
        assert_eq!(World::new(seed).run(), World::new(seed).run(), "seed {seed}");
        assert_eq!(kept::World::new(seed).run(), kept::World::new(seed).run(), "seed {seed}");
    }
}

/// Prints the frames of a message, if that was asked for.
fn trace(now: Time, way: std::fmt::Arguments<'_>, message: &[u8]) {
    static WANTED: OnceLock<bool> = OnceLock::new();
    if !*WANTED.get_or_init(|| std::env::var_os("KPS_TRACE").is_some()) {
        return;
    }
    for frame in Frames::new(message) {
        println!("{:>10} {way} {frame:?}", now.as_micros());
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}
