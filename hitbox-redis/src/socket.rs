//! Opens connections.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::select_ok;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::{SockRef, TcpKeepalive};
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, RedisResult};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::driver::Io;

/// The machine looks whether the other end is there when nothing has come for so long, and again after so long.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_AGAIN: Duration = Duration::from_secs(3);

/// What the other end has not confirmed after so long breaks the connection.
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// What a connection that is given up has not sent yet must not arrive after what is written on the next one.
const LINGER: Duration = Duration::ZERO;

/// Commands that may wait to be written, more than there are calls: who waits for room has a place in a queue, which others
/// would wait for if its caller did not poll.
const COMMANDS: usize = 1 << 16;

fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_AGAIN)
}

/// How the client sets the sockets that it opens itself.
pub(crate) fn tcp_settings() -> TcpSettings {
    let settings =
        TcpSettings::default().set_nodelay(true).set_linger_time(LINGER).set_keepalive(keepalive());
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    let settings = settings.set_user_timeout(USER_TIMEOUT);
    settings
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses = tokio::net::lookup_host((host, port)).await?;
    let stream = first_to_answer(addresses).await?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    socket.set_linger(Some(LINGER))?;
    socket.set_tcp_keepalive(&keepalive())?;
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(stream)
}

/// All addresses of a host are tried at once: one that nobody can reach would take the time of the others.
async fn first_to_answer(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let attempts: Vec<_> = addresses.map(|address| Box::pin(TcpStream::connect(address))).collect();
    if attempts.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
    }
    let (stream, _) = select_ok(attempts).await?;
    Ok(stream)
}

/// A connection and what drives it, which is nothing if a task of the client does.
pub(crate) type Connected = (MultiplexedConnection, Option<Io>);

/// Connects and says who is there.
///
/// # Errors
/// If that is not done in time, or the server refuses.
#[expect(clippy::disallowed_methods, reason = "a network takes its time, whatever the clock of entries says")]
pub(crate) async fn connect(client: &Client, timeout: Duration) -> RedisResult<Connected> {
    let connected = tokio::time::timeout(timeout, connect_unbounded(client)).await;
    connected.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}

async fn connect_unbounded(client: &Client) -> RedisResult<Connected> {
    // Deadlines are ours, so that they run on the injected clock.
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let config = config.set_pipeline_buffer_size(COMMANDS);
    match client.get_connection_info().addr() {
        ConnectionAddr::Tcp(host, port) => greet(client, tcp(host, *port).await?, config).await,
        #[cfg(unix)]
        ConnectionAddr::Unix(path) => {
            greet(client, tokio::net::UnixStream::connect(path).await?, config).await
        }
        // The client alone knows how to encrypt.
        _ => Ok((client.get_multiplexed_async_connection_with_config(&config).await?, None)),
    }
}

async fn greet(
    client: &Client,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    config: AsyncConnectionConfig,
) -> RedisResult<Connected> {
    let settings = client.get_connection_info().redis_settings();
    let (connection, io) = MultiplexedConnection::new_with_config(settings, stream, config).await?;
    Ok((connection, Some(Box::pin(io))))
}

#[cfg(test)]
mod tests {
    use redis::io::tcp::socket2::{Domain, Socket, Type};

    use super::*;

    /// A listener that takes no connection: its queue is full, and the machine drops what comes.
    fn out_of_reach() -> (Socket, Vec<Socket>) {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        listener.bind(&any_port.into()).expect("a port");
        listener.listen(0).expect("a queue");
        let address = listener.local_addr().expect("an address");
        let mut queued = Vec::new();
        for _ in 0..8 {
            let waiting = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            if waiting.connect_timeout(&address, Duration::from_millis(50)).is_err() {
                return (listener, queued);
            }
            queued.push(waiting);
        }
        panic!("the queue is never full");
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a limit of liveness")]
    async fn an_address_out_of_reach_does_not_take_the_time_of_others() {
        let (listener, _queued) = out_of_reach();
        let unreachable = listener.local_addr().expect("an address").as_socket().expect("an IP address");
        let server = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let reachable = server.local_addr().expect("an address");
        let connecting = first_to_answer([unreachable, reachable].into_iter());
        let stream = tokio::time::timeout(Duration::from_secs(20), connecting).await;
        let stream = stream.expect("in time").expect("a connection");
        assert_eq!(stream.peer_addr().expect("an address"), reachable);
        first_to_answer(std::iter::empty()).await.expect_err("no address");
    }
}
