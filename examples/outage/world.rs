//! A Redis, and the service as a process.

use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use hitbox_testkit::RedisServer;
use tempfile::{NamedTempFile, TempDir};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::Failure;
use crate::service::{INVALIDATE, Tick};

/// What Redis does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Redis {
    Up,
    Frozen,
    Down,
}

/// What can be done to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    KillRedis,
    FreezeRedis,
    StartRedis,
    Invalidate,
    RestartProcess,
}

impl Action {
    /// In a word, for a plot.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::KillRedis => "Redis killed",
            Self::FreezeRedis => "frozen",
            Self::StartRedis => "back",
            Self::Invalidate => "invalidated",
            Self::RestartProcess => "process restarted",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KillRedis => "Redis is killed",
            Self::FreezeRedis => "Redis freezes: it takes connections and answers nothing",
            Self::StartRedis => "Redis is back",
            Self::Invalidate => "everything is invalidated",
            Self::RestartProcess => "the process is killed, and started again",
        })
    }
}

pub(crate) struct World {
    server: Arc<RedisServer>,
    redis: Redis,
    folder: TempDir,
    process: Process,
    /// Where the process tells its metrics, if it does.
    metrics: Option<u16>,
}

struct Process {
    child: Child,
    orders: ChildStdin,
    ticks: Lines<BufReader<ChildStdout>>,
    /// What it says of errors, which would garble the screen.
    log: NamedTempFile,
}

impl Process {
    fn start(redis: &str, folder: &Path, metrics: Option<u16>) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--service", redis, "--folder"]).arg(folder);
        if let Some(port) = metrics {
            command.args(["--metrics", &port.to_string()]);
        }
        let log = NamedTempFile::new()?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log.reopen()?).kill_on_drop(true);
        let mut child = command.spawn()?;
        let (Some(orders), Some(ticks)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the process has no input or output".into());
        };
        Ok(Self { child, orders, ticks: BufReader::new(ticks).lines(), log })
    }

    /// Why it has ended.
    async fn ended(&mut self) -> Failure {
        let status =
            self.child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
        let log = std::fs::read_to_string(self.log.path()).unwrap_or_default();
        format!("the process has ended by itself ({status}): {}", log.trim()).into()
    }
}

impl World {
    pub(crate) async fn start(tells_metrics: bool) -> Result<Self, Failure> {
        let server = Arc::new(tokio::task::spawn_blocking(RedisServer::start).await?);
        let folder = tempfile::tempdir()?;
        let metrics = tells_metrics.then(RedisServer::free_port);
        let process = Process::start(&server.url(), folder.path(), metrics)?;
        Ok(Self { server, redis: Redis::Up, folder, process, metrics })
    }

    pub(crate) fn metrics(&self) -> Option<u16> {
        self.metrics
    }

    pub(crate) fn redis(&self) -> Redis {
        self.redis
    }

    /// What the process has done since it told last. Nothing is lost if this is dropped.
    pub(crate) async fn tick(&mut self) -> Result<Tick, Failure> {
        match self.process.ticks.next_line().await? {
            Some(line) => Ok(serde_json::from_str(&line)?),
            None => Err(self.process.ended().await),
        }
    }

    /// Does this, unless it is so already. Says whether it was done.
    pub(crate) async fn act(&mut self, action: Action) -> Result<bool, Failure> {
        match (action, self.redis) {
            (Action::KillRedis, Redis::Up | Redis::Frozen) => {
                self.server.kill();
                self.redis = Redis::Down;
            }
            (Action::FreezeRedis, Redis::Up) => {
                self.server.freeze();
                self.redis = Redis::Frozen;
            }
            (Action::StartRedis, Redis::Frozen) => {
                self.server.thaw();
                self.redis = Redis::Up;
            }
            (Action::StartRedis, Redis::Down) => {
                // The process goes on meanwhile, and what it tells waits in its pipe.
                let server = self.server.clone();
                tokio::task::spawn_blocking(move || server.restart()).await?;
                self.redis = Redis::Up;
            }
            (Action::KillRedis, Redis::Down)
            | (Action::FreezeRedis, Redis::Frozen | Redis::Down)
            | (Action::StartRedis, Redis::Up) => return Ok(false),
            (Action::Invalidate, _) => {
                self.process.orders.write_all(format!("{INVALIDATE}\n").as_bytes()).await?;
            }
            (Action::RestartProcess, _) => {
                self.process.child.kill().await?;
                self.process = Process::start(&self.server.url(), self.folder.path(), self.metrics)?;
            }
        }
        Ok(true)
    }

    /// Ends the process in order: its input ends, and it says what it has to say until it is gone.
    pub(crate) async fn end(self) -> Result<(), Failure> {
        let Process { mut child, orders, mut ticks, log } = self.process;
        drop(orders);
        while ticks.next_line().await?.is_some() {}
        let status = child.wait().await?;
        if status.success() {
            return Ok(());
        }
        Err(format!("the process ended with {status}: {}", std::fs::read_to_string(log.path())?.trim())
            .into())
    }
}
