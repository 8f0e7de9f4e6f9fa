//! As much of a Redis client as tests need to look at keys: one command, one reply.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::WAIT_TIME_MAX;

/// A connection to a Redis.
pub struct Resp(BufReader<TcpStream>);

/// What a Redis answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Text(String),
    Number(i64),
    List(Vec<Reply>),
    /// There is no such key, field or element.
    Nothing,
    Error(String),
}

impl Resp {
    /// Connects; every wait for a reply has a deadline.
    pub fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, WAIT_TIME_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(WAIT_TIME_MAX))?;
        stream.set_write_timeout(Some(WAIT_TIME_MAX))?;
        Ok(Resp(BufReader::new(stream)))
    }

    /// The socket, for a deadline of one's own.
    pub fn stream(&self) -> &TcpStream {
        self.0.get_ref()
    }

    pub fn command(&mut self, words: &[&str]) -> io::Result<Reply> {
        self.send(words)?;
        self.reply()
    }

    /// Sends a command, and doesn't wait for its reply.
    pub fn send(&mut self, words: &[&str]) -> io::Result<()> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.0.get_mut().write_all(request.as_bytes())
    }

    /// The next reply.
    pub fn reply(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| no_reply(line))?;
        let number = || rest.parse::<i64>().map_err(|_| no_reply(line));
        Ok(match kind {
            "+" => Reply::Text(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Number(number()?),
            "$" | "*" if number()? < 0 => Reply::Nothing,
            "$" => {
                let mut bytes = vec![0; number()? as usize + 2];
                self.0.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                Reply::Text(String::from_utf8_lossy(&bytes).into_owned())
            }
            "*" => Reply::List((0..number()?).map(|_| self.reply()).collect::<io::Result<_>>()?),
            _ => return Err(no_reply(line)),
        })
    }
}

fn no_reply(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no reply of a Redis: {line}"))
}

impl Reply {
    #[track_caller]
    pub fn text(self) -> String {
        match self {
            Reply::Text(text) => text,
            other => panic!("{other:?} is no text"),
        }
    }

    #[track_caller]
    pub fn number(self) -> i64 {
        match self {
            Reply::Number(number) => number,
            other => panic!("{other:?} is no number"),
        }
    }

    /// A list of texts: those of KEYS or ZRANGE, or fields and values in turn.
    #[track_caller]
    pub fn list(self) -> Vec<String> {
        match self {
            Reply::List(items) => items.into_iter().map(Reply::text).collect(),
            other => panic!("{other:?} is no list"),
        }
    }
}
