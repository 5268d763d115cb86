//! The example proxy as a process of its own, and an origin that does as a test says.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use reqwest::StatusCode;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

type Answering = Arc<dyn Fn(Request, usize) -> Response + Send + Sync>;

/// A web server in this process.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    asked: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
    _port: File,
}

impl Origin {
    /// Answers with what comes of a request and its number, from 1 on.
    pub(crate) async fn serve(answer: impl Fn(Request, usize) -> Response + Send + Sync + 'static) -> Self {
        let (listener, port) = free_port();
        listener.set_nonblocking(true).expect("a listener");
        let listener = TcpListener::from_std(listener).expect("a listener");
        let (answer, asked): (Answering, _) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
        let address = listener.local_addr().expect("an address");
        let count = asked.clone();
        let router = Router::new().fallback(move |request: Request| {
            let number = count.fetch_add(1, Ordering::SeqCst) + 1;
            let response = answer(request, number);
            async move { response }
        });
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { address, asked, serving, _port: port }
    }

    /// How many requests it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Ends it: nobody can connect any more.
    pub(crate) async fn stop(self) {
        self.serving.abort();
        drop(self.serving.await);
    }
}

/// A response with these lines of fields.
pub(crate) fn response(status: u16, fields: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    for (name, value) in fields {
        let name: http::HeaderName = name.parse().expect("a name");
        response.headers_mut().append(name, value.parse().expect("a value"));
    }
    response
}

/// The proxy, until it is dropped.
pub(crate) struct Proxy {
    process: Child,
    pub(crate) url: String,
    pub(crate) address: SocketAddr,
    metrics: String,
    client: reqwest::Client,
    folder: Arc<TempDir>,
    origin: SocketAddr,
    more: Vec<String>,
    _ports: [File; 2],
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn program() -> PathBuf {
    let test = std::env::current_exe().expect("this program");
    let folder = test.parent().and_then(Path::parent).expect("the folder of programs");
    folder.join("examples").join("pingora_proxy")
}

/// A port that no other test takes while the file is there: who finds the port of somebody else's proxy would take that for his own.
fn free_port() -> (std::net::TcpListener, File) {
    loop {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let lock = std::env::temp_dir().join(format!("hitbox-pingora-port-{port}"));
        let lock = File::create(lock).expect("a file");
        if lock.try_lock().is_ok() {
            return (listener, lock);
        }
    }
}

/// An address that nobody listens on.
fn free_address() -> (SocketAddr, File) {
    let (listener, lock) = free_port();
    (listener.local_addr().expect("an address"), lock)
}

/// What a client gets.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// What the proxy says of its cache.
    pub(crate) fn cache(&self) -> &str {
        self.field("x-cache")
    }

    pub(crate) fn field(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

impl Proxy {
    /// Starts it before an origin, with an empty disk.
    pub(crate) async fn start(origin: &Origin, more: &[&str]) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        Self::start_over(origin.address, folder, more.iter().map(|text| (*text).to_owned()).collect()).await
    }

    async fn start_over(origin: SocketAddr, folder: Arc<TempDir>, more: Vec<String>) -> Self {
        // Somebody else may take a port before the proxy does: then it ends, and others are tried.
        for _ in 0..20 {
            let ((address, port), (metrics, other)) = (free_address(), free_address());
            let mut process = Command::new(program())
                .args(["--listen", &address.to_string(), "--origin", &origin.to_string()])
                .args(["--metrics", &metrics.to_string(), "--memory", "64MiB", "--disk-max", "1GiB"])
                .arg("--disk")
                .arg(folder.path())
                .args(&more)
                .stdout(Stdio::null())
                .spawn()
                .expect("the example has been built");
            let deadline = Instant::now() + Duration::from_secs(30);
            while process.try_wait().expect("a state").is_none() && Instant::now() < deadline {
                if std::net::TcpStream::connect(address).is_ok() {
                    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
                    let url = format!("http://{address}");
                    let metrics = format!("http://{metrics}/metrics");
                    let _ports = [port, other];
                    return Self { process, url, address, metrics, client, folder, origin, more, _ports };
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            drop(process.kill());
            drop(process.wait());
        }
        panic!("the proxy could not be started");
    }

    /// Kills it, whatever it is about.
    pub(crate) fn kill(&self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it runs");
    }

    /// Kills it, and starts another over the same disk.
    pub(crate) async fn killed_and_restarted(mut self) -> Self {
        self.kill();
        self.process.wait().expect("it ends");
        Self::start_over(self.origin, self.folder.clone(), self.more.clone()).await
    }

    /// Has it end by itself, and starts another over the same disk.
    pub(crate) async fn stopped_and_restarted(mut self) -> Self {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        let ended = self.process.wait().expect("it ends");
        assert!(ended.success(), "{ended}");
        Self::start_over(self.origin, self.folder.clone(), self.more.clone()).await
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = method.parse().expect("a method");
        // Its address changes with each restart, and is no part of what is asked for.
        self.client.request(method, format!("{}{path}", self.url)).header("host", "shop")
    }

    /// All of an answer.
    pub(crate) async fn ask(&self, path: &str, fields: &[(&str, &str)]) -> Result<Answer, reqwest::Error> {
        let mut request = self.request("GET", path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer { status, headers, body: response.bytes().await? })
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(path, &[]).await.expect("an answer")
    }

    /// Asks until it is answered from the cache, as what is stored or promoted by somebody else.
    pub(crate) async fn get_until(&self, path: &str, cache: &str) -> Answer {
        self.ask_until(path, &[], cache).await
    }

    /// The same with these fields. A client may have all of a response before the proxy has seen its end: one that is stopped then, and
    /// gives nobody time, has not stored it.
    pub(crate) async fn ask_until(&self, path: &str, fields: &[(&str, &str)], cache: &str) -> Answer {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let answer = self.ask(path, fields).await.expect("an answer");
            if answer.cache().contains(cache) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{path}: {answer:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn purge(&self, path: &str, how: &str) -> u16 {
        let request = self.request("PURGE", path).header("x-purge", how);
        request.send().await.expect("an answer").status().as_u16()
    }

    pub(crate) async fn metrics(&self) -> String {
        let answer = self.client.get(&self.metrics).send().await.expect("metrics");
        answer.text().await.expect("text")
    }
}

/// The byte of a resource at a place.
pub(crate) fn byte(seed: u64, at: u64) -> u8 {
    (seed.wrapping_mul(31) + at % 251 + at / 65_536) as u8
}

pub(crate) fn bytes(seed: u64, len: u64) -> Bytes {
    (0..len).map(|at| byte(seed, at)).collect()
}

/// A body that comes by chunks of this size; it fails when so many bytes have come.
pub(crate) fn chunked(all: Bytes, chunk: usize, fails_at: Option<usize>) -> Body {
    let parts = futures_util::stream::unfold((all, 0), move |(mut left, came)| async move {
        if fails_at.is_some_and(|limit| came >= limit) {
            return Some((Err(std::io::Error::other("the origin dies")), (Bytes::new(), 0)));
        }
        if left.is_empty() {
            return None;
        }
        let part = left.split_to(left.len().min(chunk));
        tokio::task::yield_now().await;
        let came = came + part.len();
        Some((Ok::<_, std::io::Error>(part), (left, came)))
    });
    Body::from_stream(parts)
}
