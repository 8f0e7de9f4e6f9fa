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

/// The form of Redis's URL.
pub(super) const REDIS_FORM: &str = "redis://[[user]:password@]host[:port][/database] (no TLS), or off";

/// The form of RabbitMQ's URL.
pub(super) const AMQP_FORM: &str = "amqp://[user:password@]host[:port][/vhost] (no TLS), or off";

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
    ///
    /// # Errors
    /// What is wrong with it, and how it is written, without what it says.
    #[cfg(feature = "cluster")]
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = plain_url(text, &["amqp"], AMQP_FORM)?;
        let decode = |part: &str| percent_decode_str(part).decode_utf8().ok().map(String::from);
        let or = |part: String, default: &str| if part.is_empty() { default.to_owned() } else { part };
        let vhost = url.path().trim_start_matches('/');
        if vhost.contains('/') {
            return Err(format!("a / in the name of a virtual host is written %2F: {}", takes(AMQP_FORM)));
        }
        let parts = || {
            Some(Amqp {
                url: text.to_owned(),
                host: host(&url)?,
                port: url.port().unwrap_or(5672),
                user: or(decode(url.username())?, "guest"),
                password: decode(url.password().unwrap_or("guest"))?,
                vhost: or(decode(vhost)?, "/"),
            })
        };
        parts().filter(|_| url.query().is_none()).ok_or_else(|| wrong(&url, AMQP_FORM))
    }

    /// Without a cluster there is no use for one.
    #[cfg(not(feature = "cluster"))]
    pub fn parse(_: &str) -> Result<Self, String> {
        Err(takes(AMQP_FORM))
    }

    /// The URL as it was given.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Redis {
    /// Takes `redis://[user][:password@]host[:port][/database]`, or a socket of
    /// this machine, `redis+unix:///path`.
    ///
    /// # Errors
    /// As [`Amqp::parse`].
    #[cfg(feature = "cluster")]
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = plain_url(text, &["redis", "redis+unix", "unix"], REDIS_FORM)?;
        let is_socket = url.scheme() != "redis";
        let is_known = |key: &str| is_socket && ["db", "user", "pass"].contains(&key);
        let database = url.path().trim_matches('/');
        let is_fine = redis::IntoConnectionInfo::into_connection_info(text).is_ok()
            && url.query_pairs().all(|(key, _)| is_known(&key))
            && (is_socket || database.bytes().all(|b| b.is_ascii_digit()));
        let host = match is_socket {
            true => Some(url.path().to_owned()),
            false => host(&url).map(|host| format!("{host}:{}", url.port().unwrap_or(6379))),
        };
        let host = host.filter(|_| is_fine).ok_or_else(|| wrong(&url, REDIS_FORM))?;
        Ok(Redis { url: text.to_owned(), host })
    }

    /// Without a cluster there is no use for one.
    #[cfg(not(feature = "cluster"))]
    pub fn parse(_: &str) -> Result<Self, String> {
        Err(takes(REDIS_FORM))
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
fn plain_url(text: &str, schemes: &[&str], form: &str) -> Result<Url, String> {
    let is_plain = text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    let is_escape = |rest: &str| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    let is_plain = is_plain && text.split('%').skip(1).all(is_escape);
    // A / or # that ends the host too early leaves an @ behind it.
    let is_split =
        |url: &Url| url.path().contains('@') || url.query().is_some_and(|query| query.contains('@'));
    let is_whole = |url: &Url| is_plain && url.fragment().is_none() && !is_split(url);
    let url = Url::parse(text).ok().filter(|url| schemes.contains(&url.scheme()));
    let is_special = url.as_ref().is_none_or(|url| !is_whole(url)) && text.contains(['@', '%', '#']);
    match url {
        Some(url) if is_whole(&url) => Ok(url),
        _ if is_special => Err(format!("{}; {SPECIAL}", takes(form))),
        _ => Err(takes(form)),
    }
}

/// What is wrong with a URL that is one, but not of this form. Of what stands behind a ?, only a name is told.
#[cfg(feature = "cluster")]
fn wrong(url: &Url, form: &str) -> String {
    match url.query_pairs().next() {
        Some((key, _)) => format!("{key:?} behind the ? has no meaning here: {}", takes(form)),
        None => takes(form),
    }
}

fn takes(form: &str) -> String {
    format!("it takes {form}")
}

/// What is said of a password that tears the URL apart.
#[cfg(feature = "cluster")]
const SPECIAL: &str =
    "in a name or a password, write %23 for #, %25 for %, %2F for /, %3A for :, %3F for ? and %40 for @";

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
            assert!(Amqp::parse(bad).is_err(), "{bad}");
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
            assert!(Redis::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_has_no_meaning_is_refused_with_the_right_form() {
        let redis = |text: &str| Redis::parse(text).map(drop);
        let amqp = |text: &str| Amqp::parse(text).map(drop);
        let check = |result: Result<(), String>, expected: &[&str]| {
            let error = result.expect_err(expected[0]);
            assert!(!error.contains("s3"), "{error}");
            for part in expected {
                assert!(error.contains(part), "{part} is not in {error}");
            }
        };
        check(redis("redis://h?db=3"), &["\"db\" behind the ?", "[/database]"]);
        check(redis("redis://:s3@h?db=3"), &["\"db\" behind the ?", "[/database]"]);
        check(redis("redis://h?protocol=resp3"), &["\"protocol\" behind the ?"]);
        check(redis("redis+unix:///run/r.sock?database=3"), &["\"database\" behind the ?"]);
        assert!(redis("redis+unix:///run/r.sock?db=3&user=u&pass=p").is_ok());
        check(redis("redis://h/-1"), &["[/database]"]);
        check(redis("amqp://h"), &["redis://"]);
        check(amqp("redis://h"), &["amqp://"]);
        check(amqp("amqp://h/v?heartbeat=10"), &["\"heartbeat\" behind the ?", "[/vhost]"]);
        check(amqp("amqp://h/a/b"), &["%2F", "[/vhost]"]);
        // Passwords that tear the URL apart, with numbers in front of it too, which could be a port.
        for special in ["/", "#", "?", "%"] {
            for password in [format!("s3{special}s3"), format!("12{special}s3"), format!("s3{special}")] {
                check(redis(&format!("redis://:{password}@h")), &["%23 for #", "%40 for @"]);
                check(redis(&format!("redis://u:{password}@h:1/0")), &["%2F for /", "%3F for ?"]);
                check(amqp(&format!("amqp://u:{password}@h")), &["%25 for %", "[/vhost]"]);
                check(amqp(&format!("amqp://u:{password}@h:1/v")), &["%25 for %", "[/vhost]"]);
            }
        }
        assert_eq!(Amqp::parse("amqp://u:a@b@h").map(|amqp| amqp.password), Ok("a@b".to_owned()));
    }
}
