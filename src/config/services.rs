//! Where Redis and RabbitMQ are: addresses as URLs, checked when they are set.
//!
//! They may hold passwords, so nothing here prints one except
//! [`Amqp::url`] and [`Redis::url`], which are for settings; logs use the host.
//! In a build without the feature `cluster` no text is such an address.

use std::fmt;

#[cfg(feature = "cluster")]
use percent_encoding::percent_decode_str;
#[cfg(feature = "cluster")]
use url::Url;

/// Where RabbitMQ is.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Amqp {
    url: String,
    /// The host's name or address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Who logs in.
    pub user: String,
    /// The password.
    pub password: String,
    /// The virtual host.
    pub vhost: String,
}

/// Where Redis is.
#[derive(Clone, PartialEq, Eq)]
pub struct Redis {
    url: String,
    host: String,
}

impl Amqp {
    /// Takes `amqp://[user[:password]@]host[:port][/vhost]`. Without them it is
    /// `guest`, `guest`, 5672 and `/`.
    #[cfg(feature = "cluster")]
    pub fn parse(text: &str) -> Option<Self> {
        let url = plain_url(text, &["amqp"])?;
        let decode = |part: &str| percent_decode_str(part).decode_utf8().ok().map(String::from);
        let or = |part: String, default: &str| if part.is_empty() { default.to_owned() } else { part };
        Some(Amqp {
            url: text.to_owned(),
            host: host(&url)?,
            port: url.port().unwrap_or(5672),
            user: or(decode(url.username())?, "guest"),
            password: decode(url.password().unwrap_or("guest"))?,
            vhost: or(decode(url.path().trim_start_matches('/'))?, "/"),
        })
    }

    /// Without a cluster there is no use for one.
    #[cfg(not(feature = "cluster"))]
    pub fn parse(_: &str) -> Option<Self> {
        None
    }

    /// The URL as it was given.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Redis {
    /// Takes `redis://[user][:password@]host[:port][/database]`, or a socket of
    /// this machine, `redis+unix:///path`.
    #[cfg(feature = "cluster")]
    pub fn parse(text: &str) -> Option<Self> {
        let url = plain_url(text, &["redis", "redis+unix", "unix"])?;
        redis::IntoConnectionInfo::into_connection_info(text).ok()?;
        let host = if url.scheme() == "redis" {
            format!("{}:{}", host(&url)?, url.port().unwrap_or(6379))
        } else {
            url.path().to_owned()
        };
        Some(Redis { url: text.to_owned(), host })
    }

    /// Without a cluster there is no use for one.
    #[cfg(not(feature = "cluster"))]
    pub fn parse(_: &str) -> Option<Self> {
        None
    }

    /// The URL as it was given.
    pub fn url(&self) -> &str {
        &self.url
    }
}

/// Without the password.
impl fmt::Display for Amqp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)
    }
}

impl fmt::Debug for Amqp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Amqp({self})")
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis({self})")
    }
}

/// A URL that can be printed as a setting and read back.
#[cfg(feature = "cluster")]
fn plain_url(text: &str, schemes: &[&str]) -> Option<Url> {
    let is_plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    let url = Url::parse(text).ok().filter(|_| is_plain)?;
    let is_known = schemes.contains(&url.scheme()) && url.fragment().is_none();
    is_known.then_some(url)
}

#[cfg(feature = "cluster")]
fn host(url: &Url) -> Option<String> {
    url.host_str().filter(|host| !host.is_empty()).map(|host| host.trim_matches(['[', ']']).to_owned())
}

#[cfg(all(test, feature = "cluster"))]
mod tests {
    use super::*;

    #[test]
    fn brokers() {
        let check = |text: &str, expected: (&str, u16, &str, &str, &str)| {
            let amqp = Amqp::parse(text).expect(text);
            let got = (&amqp.host[..], amqp.port, &amqp.user[..], &amqp.password[..], &amqp.vhost[..]);
            assert_eq!(got, expected, "{text}");
            assert!(!format!("{amqp:?} {amqp}").contains("s3cret"));
        };
        check("amqp://localhost", ("localhost", 5672, "guest", "guest", "/"));
        check("amqp://localhost/", ("localhost", 5672, "guest", "guest", "/"));
        check("amqp://me:s3cret%40@192.0.2.1:1/a%2fb", ("192.0.2.1", 1, "me", "s3cret@", "a/b"));
        check("amqp://me@[::1]:2", ("::1", 2, "me", "guest", "/"));
        for bad in
            ["", "localhost", "amqps://localhost", "amqp://", "amqp://h:99999", "http://h", "amqp://h/%ff"]
        {
            assert!(Amqp::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn stores() {
        let check = |text: &str, host: &str| {
            assert_eq!(Redis::parse(text).expect(text).to_string(), host);
        };
        check("redis://127.0.0.1", "127.0.0.1:6379");
        check("redis://:s3cret@pi.local:1/7", "pi.local:1");
        check("redis+unix:///run/redis.sock", "/run/redis.sock");
        for bad in ["", "127.0.0.1:6379", "rediss://h", "redis://h/x", "redis://h:1/1 2", "redis://\"h\""] {
            assert!(Redis::parse(bad).is_none(), "{bad}");
        }
    }
}
