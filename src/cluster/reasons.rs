//! Why Redis or RabbitMQ can't be had, in one line: what is probably wrong, and the setting to change.
//!
//! It is for what a library says in words of its own, and for the mistakes that people make with an address: another
//! port, a password that is missing, TLS where none is spoken. What a service says itself is left as it is.

use amiquip::Error as BrokerError;
use redis::{ErrorKind, RedisError, Value};

/// What is said of a service that does not answer.
pub const LATE: &str = "it does not answer in time";

/// Why Redis did not do as it was asked.
pub fn of_redis(error: &RedisError) -> String {
    match error.kind() {
        _ if error.is_timeout() => LATE.to_owned(),
        ErrorKind::AuthenticationFailed => {
            "it refuses this user and password, or has none: see --redis redis://USER:PASSWORD@HOST"
                .to_owned()
        }
        ErrorKind::Parse => {
            "what answers there is not Redis, but maybe RabbitMQ, HTTP or TLS: see the port of --redis"
                .to_owned()
        }
        // Some are of several lines.
        _ => error.to_string().lines().next().unwrap_or_default().to_owned(),
    }
}

/// Why Redis broke off before it had answered anything.
pub fn of_redis_at_first(error: &RedisError) -> String {
    if error.is_connection_dropped() && !error.is_connection_refusal() {
        return format!("it ended the connection at once ({error}); {}", at_once("redis"));
    }
    of_redis(error)
}

/// Why Redis does not let this node in, if that is among its first answers.
pub fn of_replies(replies: &[Value]) -> Result<(), String> {
    let is_closed = |reply: &Value| matches!(reply, Value::ServerError(error) if error.code() == "NOAUTH");
    match replies.iter().any(is_closed) {
        true => Err("it wants a password: --redis redis://:PASSWORD@HOST".to_owned()),
        false => Ok(()),
    }
}

/// Why RabbitMQ did not open a connection.
pub fn of_broker(error: &BrokerError) -> String {
    match error {
        BrokerError::InvalidCredentials => {
            "it refuses this user and password: see --amqp amqp://USER:PASSWORD@HOST/VHOST".to_owned()
        }
        BrokerError::UnexpectedSocketClose | BrokerError::IoErrorReadingSocket { .. } => {
            format!("it ended the connection at once ({error}); {}", at_once("amqp"))
        }
        BrokerError::MalformedFrame | BrokerError::FrameUnexpected => {
            "what answers there is not RabbitMQ, but maybe Redis, HTTP or TLS: see the port of --amqp"
                .to_owned()
        }
        BrokerError::ConnectionTimeout => {
            format!("{LATE}; is that RabbitMQ, or maybe Redis or HTTP? see the port of --amqp")
        }
        BrokerError::ServerClosedConnection { code: 402 | 403 | 530, message } => {
            format!("it lets this node not in: {message}; see the user and the virtual host of --amqp")
        }
        error => error.to_string(),
    }
}

fn at_once(setting: &str) -> String {
    format!("does it speak TLS, which is not spoken here, or something else? see the port of --{setting}")
}
