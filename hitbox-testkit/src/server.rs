//! A `redis-server` of one's own, for tests and benchmarks: on a free loopback port, in a temporary folder,
//! ended by its pid. What goes wrong is a panic, since without the server there is no test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// A running server. It ends when it is dropped, and at the latest with this process.
///
/// # Panics
/// All of its methods, if there is no `redis-server` or it does not do what it is told.
#[derive(Debug)]
pub struct RedisServer {
    process: Mutex<Running>,
    port: u16,
    folder: tempfile::TempDir,
    options: String,
}

impl RedisServer {
    /// The server that the tests of this process share.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<RedisServer> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A server of one's own.
    pub fn start() -> Self {
        Self::start_with(|_| String::new())
    }

    /// A server with further options, which may depend on its folder.
    pub fn start_with(options: impl Fn(&Path) -> String) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // Somebody else may take a port before the server does: then it ends, and another is tried.
        for _ in 0..20 {
            let (port, options) = (Self::free_port(), options(folder.path()));
            let process = launch(port, folder.path(), &options);
            if answers(port, &process) {
                return Self { process: Mutex::new(process), port, folder, options };
            }
        }
        panic!("no redis-server could be started; is it installed? `cargo xtask test` installs it");
    }

    /// A port that nobody has now.
    pub fn free_port() -> u16 {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        free.local_addr().expect("its address").port()
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn signal(&self, signal: &str) {
        assert!(self.process.lock().expect("the process").signal(signal), "kill {signal} failed");
    }

    /// Stops it in its tracks: connections stay, nothing is answered any more when this returns.
    pub fn freeze(&self) {
        self.signal("-STOP");
        while !self.process.lock().expect("the process").is_stopped() {
            std::thread::yield_now();
        }
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Kills it.
    pub fn kill(&self) {
        self.process.lock().expect("the process").end();
    }

    /// Starts it again on the same port, empty.
    pub fn restart(&self) {
        let mut process = self.process.lock().expect("the process");
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            *process = launch(self.port, self.folder.path(), &self.options);
            if answers(self.port, &process) {
                return;
            }
            assert!(Instant::now() < deadline, "the server did not come back on its port");
        }
    }

    /// Sends a command in the inline form and returns the answer up to `until`.
    pub fn ask(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("a connection");
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).expect("a request");
        let mut answer = String::new();
        BufReader::new(stream).read_to_string(&mut answer).expect("an answer");
        answer
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.process.get_mut().expect("the process").end();
    }
}

/// Starts a server under a shell that ends it when our end of the pipe closes, however this process ends.
fn launch(port: u16, folder: &Path, options: &str) -> Running {
    let script = format!(
        "redis-server --port {port} --bind 127.0.0.1 --save '' --appendonly no --dir '{}' \
         --maxclients 2000 {options} >/dev/null 2>&1 & echo $!; cat >/dev/null; kill -KILL $! 2>/dev/null",
        folder.display()
    );
    let mut shell = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell");
    let mut line = String::new();
    BufReader::new(shell.stdout.take().expect("its output")).read_line(&mut line).expect("the pid");
    Running { shell, pid: line.trim().parse().expect("a pid") }
}

/// A server and the shell that watches over it.
#[derive(Debug)]
struct Running {
    shell: Child,
    pid: u32,
}

impl Running {
    fn signal(&self, signal: &str) -> bool {
        let status =
            Command::new("kill").args([signal, &self.pid.to_string()]).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    }

    /// Whether a signal to stop has taken effect, where the system says so: the state stands behind the name, which is in
    /// brackets (proc(5)).
    fn is_stopped(&self) -> bool {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)) else { return true };
        stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['T', 't', 'Z', 'X']))
    }

    fn has_ended(&self) -> bool {
        !self.signal("-0")
    }

    fn end(&mut self) {
        // A frozen process takes its end too.
        self.signal("-KILL");
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// Waits until the server answers, or has ended.
fn answers(port: u16, process: &Running) -> bool {
    loop {
        if process.has_ended() {
            return false;
        }
        let pong = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"PING\r\n")?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line)?;
            Ok(line)
        });
        if pong.is_ok_and(|line| line.starts_with("+PONG")) {
            return true;
        }
        std::thread::yield_now();
    }
}
