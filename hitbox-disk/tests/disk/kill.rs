//! A process that writes is killed at random moments, and its folder is opened again. Replayed by
//! `HITBOX_SEED`, as far as the moment of a kill can be; `HITBOX_KILLS` sets how often.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use bytes::Bytes;
use hitbox_testkit::{number_from, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::store::{Store, block_on, delete, get, set, write_body};
use crate::{Verdict, rejected};

const TASKS: u64 = 3;
const KEYS_PER_TASK: u64 = 6;

/// What the writer does.
#[derive(Clone, Copy, Debug)]
struct Workload {
    /// The longest value, in bytes.
    max_len: usize,
    /// Deletes among a hundred operations.
    deletes: u32,
}

const SMALL: Workload = Workload { max_len: 2_000, deletes: 0 };
const LARGE: Workload = Workload { max_len: 300_000, deletes: 25 };

/// The body that operation `sequence` writes to a key: whole or not at all.
fn body(key: u64, sequence: u64, max_len: usize) -> Bytes {
    let mut random = StdRng::seed_from_u64(key << 40 ^ sequence);
    let mut body = vec![0; random.random_range(24..max_len)];
    random.fill(&mut body[..]);
    body[..8].copy_from_slice(&key.to_le_bytes());
    body[8..16].copy_from_slice(&sequence.to_le_bytes());
    body.into()
}

/// The operation that a body is from, if it is exactly what that operation wrote.
fn writer_of(bytes: &Bytes, key: u64, max_len: usize) -> Option<u64> {
    let sequence = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
    (*bytes == body(key, sequence, max_len)).then_some(sequence)
}

/// The writer: says on its output what it begins and what has returned, until it is killed.
pub(crate) fn write_until_killed(arguments: &[String]) -> ExitCode {
    let [store, folder, seed, max_len, deletes, first] = arguments else { return ExitCode::FAILURE };
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let (seed, first) = (number(seed), number(first));
    let workload = Workload { max_len: number(max_len) as usize, deletes: number(deletes) as u32 };
    block_on(async {
        let store = Store::named(store).open(Path::new(folder), 1 << 30).await;
        let tasks = (0..TASKS).map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut random = StdRng::seed_from_u64(seed ^ task);
                for step in 0.. {
                    let key = task * KEYS_PER_TASK + random.random_range(0..KEYS_PER_TASK);
                    let sequence = first + step * TASKS + task;
                    let deletes = random.random_range(0..100) < workload.deletes;
                    let what = if deletes { "delete" } else { "write" };
                    say(&format!("begin {what} {key} {sequence}\n"));
                    let body = || body(key, sequence, workload.max_len);
                    let done = match random.random_range(0..2) {
                        _ if deletes => delete(&*store, key).await,
                        0 => set(&*store, key, body()).await,
                        _ => write_body(&*store, key, body()).await,
                    };
                    done.expect("the operation succeeds");
                    say(&format!("end {what} {key} {sequence}\n"));
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.expect("a task of the writer");
        }
    });
    ExitCode::FAILURE
}

/// One line in one system call, so that a kill leaves whole lines.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Whoever listens has gone: so do we, at the latest when we are killed.
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

/// What is known of a key: the body it may have, or its absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Written(u64),
}

#[derive(Debug, Default)]
struct Known {
    /// After the last operation that returned.
    settled: HashMap<u64, State>,
    /// Of the operation that was under way.
    begun: HashMap<u64, State>,
    last_sequence: u64,
}

impl Known {
    fn note(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let [moment, what, key, sequence] = words[..] else { panic!("the writer says {line:?}") };
        let (key, sequence) = (key.parse().expect("a key"), sequence.parse().expect("a number"));
        let state = if what == "delete" { State::Absent } else { State::Written(sequence) };
        self.last_sequence = self.last_sequence.max(sequence);
        if moment == "begin" {
            self.begun.insert(key, state);
        } else {
            self.begun.remove(&key);
            self.settled.insert(key, state);
        }
    }

    /// Compares the folder with what is known, which afterwards is what was found.
    async fn check(&mut self, store: Store, folder: &Path, max_len: usize) -> Verdict {
        let open = store.open(folder, 1 << 30).await;
        if store == Store::Disk {
            let left = std::fs::read_dir(folder.join("tmp")).expect("the folder of unfinished files").count();
            if left > 0 {
                return Err(format!("{left} unfinished files are left"));
            }
        }
        for key in 0..TASKS * KEYS_PER_TASK {
            let found = match get(&*open, key).await? {
                None => State::Absent,
                Some(bytes) => match writer_of(&bytes, key, max_len) {
                    Some(sequence) => State::Written(sequence),
                    None => return Err(format!("key {key} has {} bytes that nobody wrote", bytes.len())),
                },
            };
            let settled = self.settled.get(&key).copied().unwrap_or(State::Absent);
            let begun = self.begun.remove(&key);
            if found != settled && Some(found) != begun {
                return Err(format!("key {key} is {found:?}; it was {settled:?}, and {begun:?} under way"));
            }
            self.settled.insert(key, found);
        }
        Ok(())
    }
}

/// A process that is killed when it is dropped.
struct Writer(Child);

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.kill().expect("a kill");
        self.0.wait().expect("its end");
    }
}

/// Kills writers of one folder again and again.
fn kill(store: Store, kills: u64, workload: Workload) -> Verdict {
    let seed = seed();
    eprintln!("{kills} kills with HITBOX_SEED={seed}");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut random = StdRng::seed_from_u64(seed);
    let mut known = Known::default();
    let mut cut = 0;
    for round in 0..kills {
        let mut writer = Writer(
            Command::new(std::env::current_exe().expect("this program"))
                .arg("writer")
                .args([store.name(), folder.path().display().to_string(), (seed ^ round).to_string()])
                .args([workload.max_len.to_string(), workload.deletes.to_string()])
                .arg((known.last_sequence + 1).to_string())
                .stdout(Stdio::piped())
                .spawn()
                .expect("a writer"),
        );
        let mut lines = BufReader::new(writer.0.stdout.take().expect("its output")).lines();
        // A random number of its lines, then a random moment more.
        for _ in 0..random.random_range(1..120) {
            match lines.next() {
                Some(line) => known.note(&line.expect("a line")),
                None => return Err(format!("the writer ended by itself in round {round}")),
            }
        }
        for _ in 0..random.random_range(0..100_000) {
            std::hint::spin_loop();
        }
        drop(writer);
        for line in lines {
            known.note(&line.expect("a line"));
        }
        cut += known.begun.len();
        block_on(known.check(store, folder.path(), workload.max_len))
            .map_err(|what| format!("kill {round} with HITBOX_SEED={seed}: {what}"))?;
    }
    eprintln!("{kills} writers were killed, {cut} operations under way");
    Ok(())
}

fn kills() -> u64 {
    number_from("HITBOX_KILLS").unwrap_or(200)
}

pub(crate) fn disk_01_returned_writes_survive_kill_9() -> Verdict {
    kill(Store::Disk, kills(), SMALL)
}

pub(crate) fn disk_01_rejects_write_behind() -> Verdict {
    rejected(kill(Store::WriteBehind, kills(), SMALL))
}

pub(crate) fn disk_02_killed_writers_leave_old_new_or_nothing() -> Verdict {
    kill(Store::Disk, kills(), LARGE)
}

pub(crate) fn disk_02_rejects_writing_in_place() -> Verdict {
    rejected(kill(Store::NakedFiles, kills(), LARGE))
}
