//! A private Redis and a private RabbitMQ for one run of the bench.
//!
//! `tests/services.sh` knows how to start them: on free ports of loopback, with
//! their files in a directory of their own. They end with this program, however
//! it ends. The broker does not wait without sleeping: what it burns that way on
//! a core that all servers share is no part of what a message costs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Both servers; dropping it ends them.
pub struct Services {
    dir: PathBuf,
    pub redis: String,
    pub amqp: String,
    pub redis_pid: u32,
    pub broker_pid: u32,
}

impl Services {
    /// Starts both and waits until they are ready, which takes the broker some seconds.
    pub fn start() -> io::Result<Services> {
        let own = std::process::id().to_string();
        let dir = std::env::temp_dir().join(format!("pinpost-bench-{own}"));
        let urls = services(&["both"], &dir, &["--calm", "--for", &own])?;
        let (redis, amqp) = urls.trim().split_once('\n').ok_or_else(|| {
            io::Error::other(format!("{SCRIPT} printed {urls:?} where two addresses were due"))
        })?;
        let pid = |name: &str| -> io::Result<u32> {
            let text = fs::read_to_string(dir.join(name))?;
            text.trim().parse().map_err(|_| io::Error::other(format!("{name} holds {text:?}")))
        };
        let (redis_pid, broker_pid) = (pid("redis.pid")?, pid("broker.pid")?);
        Ok(Services { redis: redis.to_owned(), amqp: amqp.to_owned(), redis_pid, broker_pid, dir })
    }

    /// A connection to the Redis.
    pub fn connect(&self) -> io::Result<redis::Connection> {
        let client = redis::Client::open(&self.redis[..]).map_err(io::Error::other)?;
        client.get_connection().map_err(io::Error::other)
    }

    /// How many messages the broker has taken from publishers since it was started.
    pub fn published(&self) -> io::Result<u64> {
        let text = services(&["published"], &self.dir, &[])?;
        text.trim().parse().map_err(|_| io::Error::other(format!("the broker says {text:?}")))
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        if let Err(error) = services(&["remove"], &self.dir, &[]) {
            eprintln!("bench: {error}");
        }
    }
}

/// Runs the script; what it prints.
fn services(verb: &[&str], dir: &Path, options: &[&str]) -> io::Result<String> {
    let output = Command::new(SCRIPT).args(verb).arg(dir).args(options).output()?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("{SCRIPT} {}: {}", verb[0], why.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/services.sh");
