//! A Redis, and the service as a process.

use std::fmt;
use std::path::Path;
use std::process::Stdio;

use hitbox_testkit::RedisServer;
use tempfile::TempDir;
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
    server: RedisServer,
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
}

impl Process {
    fn start(redis: &str, folder: &Path, metrics: Option<u16>) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--service", redis, "--folder"]).arg(folder);
        if let Some(port) = metrics {
            command.args(["--metrics", &port.to_string()]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let (Some(orders), Some(ticks)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("the process has no input or output".into());
        };
        Ok(Self { child, orders, ticks: BufReader::new(ticks).lines() })
    }
}

impl World {
    pub(crate) async fn start(tells_metrics: bool) -> Result<Self, Failure> {
        let server = tokio::task::spawn_blocking(RedisServer::start).await?;
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
            None => Err("the process has ended by itself".into()),
        }
    }

    pub(crate) async fn act(&mut self, action: Action) -> Result<(), Failure> {
        match action {
            Action::KillRedis => {
                self.server.kill();
                self.redis = Redis::Down;
            }
            Action::FreezeRedis => {
                if self.redis == Redis::Up {
                    self.server.freeze();
                    self.redis = Redis::Frozen;
                }
            }
            Action::StartRedis => {
                match self.redis {
                    Redis::Up => {}
                    Redis::Frozen => self.server.thaw(),
                    // A second or less, in which the process goes on.
                    Redis::Down => tokio::task::block_in_place(|| self.server.restart()),
                }
                self.redis = Redis::Up;
            }
            Action::Invalidate => {
                self.process.orders.write_all(format!("{INVALIDATE}\n").as_bytes()).await?;
            }
            Action::RestartProcess => {
                self.process.child.kill().await?;
                self.process = Process::start(&self.server.url(), self.folder.path(), self.metrics)?;
            }
        }
        Ok(())
    }

    /// Ends the process in order.
    pub(crate) async fn end(self) -> Result<(), Failure> {
        let Process { mut child, orders, ticks } = self.process;
        drop((orders, ticks));
        child.wait().await?;
        Ok(())
    }
}
