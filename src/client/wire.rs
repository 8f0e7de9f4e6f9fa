//! One TCP connection, from the address to the `OK` of the login, and the lines
//! that come in on it.
//!
//! Several servers are tried in turn. The whole opening at one of them has one deadline:
//! a server that accepts and says nothing costs seconds, not for ever. Afterwards a
//! silent peer is TCP's business: keepalive finds a dead one in about a minute.

use std::io;
use std::time::Duration;

use async_net::TcpStream;
use rustix::net::sockopt;
use smol::future;
use smol::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::config::ClientConfig;
use crate::client::error::{BadInput, ClientError, Refusal};
use crate::client::event::Place;
use crate::proto::reply::SERVER_LINE_BYTES_MAX;
use crate::proto::{
    Line, LineDecoder, NodeId, Request, ServerLine, SessionId, TaggedRequest, UserRef, VERSION,
};

/// Where to connect, and the line that logs in: checked once, used for every
/// attempt.
pub(super) struct Servers {
    /// One at least.
    addresses: Vec<String>,
    login: Vec<u8>,
}

impl Servers {
    pub(super) fn new(config: &ClientConfig) -> Result<Self, BadInput> {
        let user = UserRef::try_from(config.user.as_str())?;
        let token = config.token.as_deref();
        if token
            .is_some_and(|t| t.is_empty() || t == "ack" || t.contains(|c: char| c == ' ' || c.is_control()))
        {
            return Err(BadInput::Token);
        }
        let mut login = Vec::new();
        let request = Ok(Request::Login { user, token, ack: config.ack });
        TaggedRequest { tag: None, request }.print(&mut login);
        if login.len() > config.line_bytes_max {
            return Err(BadInput::TooLong { bytes: login.len(), bytes_max: config.line_bytes_max });
        }
        // Whatever is wrong with an address, connecting to it tells.
        let addresses = config.server.split(',').map(|server| server.trim().to_owned()).collect();
        Ok(Servers { addresses, login })
    }
}

/// A connection whose login worked.
pub(super) struct Wire {
    /// The side to write to.
    pub(super) stream: TcpStream,
    /// The side to read from; what came right after the login is in it.
    pub(super) lines: Lines,
    /// Where it leads.
    pub(super) place: Place,
    /// Which of the servers it is.
    pub(super) server: usize,
}

impl Wire {
    /// Tries each server once, from the `first` on (counted round and round), each within
    /// `time_max`. A refusal that any of them would repeat ends it at once.
    ///
    /// # Errors
    /// That of the last one tried.
    pub(super) async fn open_one(
        servers: &Servers,
        first: usize,
        time_max: Duration,
    ) -> Result<Self, ClientError> {
        let count = servers.addresses.len();
        let mut last = None;
        for server in (0..count).map(|n| (first + n) % count) {
            let name = servers.addresses[server].as_str();
            let deadline = async {
                smol::Timer::after(time_max).await;
                Err(ClientError::TimedOut { server: name.to_owned() })
            };
            match future::or(open(name, &servers.login), deadline).await {
                Ok((stream, lines, place)) => return Ok(Wire { stream, lines, place, server }),
                Err(ClientError::Refused(refusal)) if refusal.is_final() => {
                    return Err(ClientError::Refused(refusal));
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("there is one server at least"))
    }
}

/// Connects and logs in.
async fn open(server: &str, login: &[u8]) -> Result<(TcpStream, Lines, Place), ClientError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::InvalidData => {
            ClientError::NotPinpost { server: server.to_owned(), said: error.to_string() }
        }
        // The sentence of `Lines` is for a connection that was there.
        io::ErrorKind::UnexpectedEof => {
            ClientError::Io { server: server.to_owned(), error: error.kind().into() }
        }
        _ => ClientError::Io { server: server.to_owned(), error },
    };
    // `[fe80::1%eth0]:7700`: the system knows the names of interfaces, but not brackets.
    let mut stream = match server.strip_prefix('[').and_then(|rest| rest.rsplit_once("]:")) {
        Some((host, port)) if host.contains('%') => {
            let port = port.parse().map_err(|_| failed(io::ErrorKind::InvalidInput.into()))?;
            TcpStream::connect((host, port)).await.map_err(failed)?
        }
        _ => TcpStream::connect(server).await.map_err(failed)?,
    };
    tune(&stream);
    let mut lines = Lines::new(stream.clone());
    let hello = lines.next().await.map_err(failed)?;
    let node = match ServerLine::parse(hello) {
        Some((None, ServerLine::Hello { version: VERSION, node })) => NodeId::parse(node),
        Some((None, line)) => return Err(refusal(line).unwrap_or_else(|| not_pinpost(server, hello))),
        _ => None,
    };
    let node = node.ok_or_else(|| not_pinpost(server, hello))?;
    stream.write_all(login).await.map_err(failed)?;
    let reply = lines.next().await.map_err(failed)?;
    let session = match ServerLine::parse(reply) {
        Some((None, ServerLine::Ok(rest))) => {
            rest.rsplit_once(' ').and_then(|(_user, session)| SessionId::parse(session))
        }
        Some((None, line)) => return Err(refusal(line).unwrap_or_else(|| not_pinpost(server, reply))),
        _ => None,
    };
    let session = session.ok_or_else(|| not_pinpost(server, reply))?;
    Ok((stream, lines, Place { node, session }))
}

fn not_pinpost(server: &str, line: &str) -> ClientError {
    let start: String = line.chars().take(SAID_CHARS_MAX).collect();
    ClientError::NotPinpost { server: server.to_owned(), said: format!("{start:?}") }
}

fn refusal(line: ServerLine<'_>) -> Option<ClientError> {
    Some(ClientError::Refused(match line {
        ServerLine::Err { code, text } => Refusal::Login { code, text: text.to_owned() },
        ServerLine::Bye { reason, text } => Refusal::Bye { reason, text: text.to_owned() },
        _ => return None,
    }))
}

/// Small lines leave at once, and a peer that vanished is noticed.
fn tune(stream: &TcpStream) {
    // A socket that refuses an option works all the same, only less well.
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, Duration::from_secs(30));
    let _ = sockopt::set_tcp_keepintvl(stream, Duration::from_secs(10));
    let _ = sockopt::set_tcp_keepcnt(stream, 3);
    #[cfg(target_os = "linux")]
    let _ = sockopt::set_tcp_user_timeout(stream, 60_000);
}

/// The lines of one connection, one at a time.
pub(super) struct Lines {
    stream: TcpStream,
    decoder: LineDecoder,
    /// What was read; `start..end` is still to be decoded.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// The line last handed out.
    line: Vec<u8>,
}

impl Lines {
    fn new(stream: TcpStream) -> Self {
        let buffer = vec![0; READ_BYTES].into_boxed_slice();
        Lines { stream, decoder: LineDecoder::of_server(), buffer, start: 0, end: 0, line: Vec::new() }
    }

    /// Waits for the next line, without its ending; what is none of ours is `InvalidData`.
    pub(super) async fn next(&mut self) -> io::Result<&str> {
        let nonsense = |why| io::Error::new(io::ErrorKind::InvalidData, why);
        loop {
            let (used, line) = self.decoder.next(&self.buffer[self.start..self.end], SERVER_LINE_BYTES_MAX);
            self.start += used;
            match line {
                Some(Line::Whole(bytes)) => {
                    // Copied, because the decoder and the buffer go on changing.
                    self.line.clear();
                    self.line.extend_from_slice(bytes);
                    break;
                }
                Some(_) => return Err(nonsense("a line from the server is too long")),
                None if self.start < self.end => {}
                None => {
                    let read = self.stream.read(&mut self.buffer).await?;
                    if read == 0 {
                        let why = "the server closed the connection";
                        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
                    }
                    (self.start, self.end) = (0, read);
                }
            }
        }
        std::str::from_utf8(&self.line).map_err(|_| nonsense("a line from the server is not UTF-8"))
    }
}

/// The most time for one attempt to connect and log in.
pub(super) const OPEN_TIME_MAX: Duration = Duration::from_secs(5);
const READ_BYTES: usize = 16 * 1024;
/// How much of a strange line an error quotes.
const SAID_CHARS_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::UserName;

    #[test]
    fn login_lines() {
        let check = |token: Option<&str>, ack: bool, expected: Result<&str, BadInput>| {
            let token = token.map(str::to_owned);
            let config = ClientConfig { token, ack, ..ClientConfig::new("host:1", "alice") };
            let login = Servers::new(&config).map(|servers| String::from_utf8(servers.login).unwrap());
            assert_eq!(login, expected.map(str::to_owned));
        };
        check(None, false, Ok("LOGIN alice\n"));
        check(Some("secret"), false, Ok("LOGIN alice secret\n"));
        check(Some("secret"), true, Ok("LOGIN alice secret ack\n"));
        check(None, true, Ok("LOGIN alice ack\n"));
        for token in ["", "ack", "two words", "line\nbreak"] {
            check(Some(token), false, Err(BadInput::Token));
        }
        check(Some(&"x".repeat(4096)), false, Err(BadInput::TooLong { bytes: 4109, bytes_max: 4096 }));
        let config = ClientConfig::new("host:1", "#alice");
        assert_eq!(Servers::new(&config).err(), Some("#alice".parse::<UserName>().unwrap_err().into()));
    }

    #[test]
    fn a_server_that_says_nothing_runs_into_the_deadline() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let config = ClientConfig::new(silent.local_addr().unwrap().to_string(), "alice");
        let servers = Servers::new(&config).unwrap();
        let opened = smol::block_on(Wire::open_one(&servers, 0, Duration::from_millis(20)));
        assert!(matches!(opened, Err(ClientError::TimedOut { .. })));
    }
}
