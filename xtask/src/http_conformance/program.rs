//! Programs that are started, for a limited time.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::run::Outcome;

/// What listens says so before this.
const STARTING: Duration = Duration::from_secs(30);

/// A program that was started. It is killed when this is dropped, whatever went wrong elsewhere.
pub(super) struct Program {
    name: &'static str,
    child: Child,
    lines: Receiver<String>,
}

impl Program {
    pub(super) fn start(name: &'static str, command: &mut Command) -> Result<Self, String> {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| format!("{name} cannot be run: {error}"))?;
        let (sender, lines) = channel();
        if let Some(output) = child.stdout.take() {
            // Ends with the program's output. It is read to its end, so that the program can always write.
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        Ok(Self { name, child, lines })
    }

    /// The address that it says first.
    pub(super) fn listens_on(&self) -> Result<SocketAddr, String> {
        let name = self.name;
        let line = self.lines.recv_timeout(STARTING).map_err(|error| match error {
            RecvTimeoutError::Timeout => format!("{name} does not say where it listens"),
            RecvTimeoutError::Disconnected => format!("{name} ended before it listened"),
        })?;
        let address = line.strip_prefix("listening on ").and_then(|address| address.parse().ok());
        address.ok_or_else(|| format!("{name} says {line:?}, not where it listens"))
    }

    /// Writes a line to its standard input.
    pub(super) fn tell(&mut self, line: &str) -> Outcome {
        let Some(input) = &mut self.child.stdin else {
            return Err(format!("{} takes no input", self.name));
        };
        writeln!(input, "{line}").map_err(|error| format!("{} takes no input: {error}", self.name))
    }

    /// Fails if it ended while others still needed it.
    pub(super) fn runs(&mut self) -> Outcome {
        match self.child.try_wait().map_err(|error| format!("{}: {error}", self.name))? {
            Some(status) => Err(format!("{} ended early with {status}", self.name)),
            None => Ok(()),
        }
    }

    /// Waits until it ends by itself. Says the lines that it printed and nobody asked for yet.
    pub(super) fn wait(mut self, limit: Duration) -> Result<Vec<String>, String> {
        drop(self.child.stdin.take());
        let end = Instant::now() + limit;
        let left = || end.saturating_duration_since(Instant::now());
        let late = format!("{} takes longer than {limit:?}", self.name);
        let mut printed = Vec::new();
        loop {
            match self.lines.recv_timeout(left()) {
                Ok(line) => printed.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => return Err(late),
            }
        }
        while !left().is_zero() {
            match self.child.try_wait().map_err(|error| format!("{}: {error}", self.name))? {
                Some(status) if status.success() => return Ok(printed),
                Some(status) => return Err(format!("{} ended with {status}", self.name)),
                None => thread::sleep(Duration::from_millis(10)),
            }
        }
        Err(late)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Neither can fail but for a program that has ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
