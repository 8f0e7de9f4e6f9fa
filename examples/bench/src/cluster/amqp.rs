//! RabbitMQ as a plain program uses it: one connection, a queue of its own on a
//! topic exchange, one thread that publishes and consumes.
//!
//! The options are those of pinpost's own bus, so that only what is done with
//! the connection differs.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use amiquip::{
    Auth, Channel, Connection, ConnectionOptions, ConnectionTuning, Consumer, ConsumerMessage,
    ConsumerOptions, Delivery, ExchangeDeclareOptions, ExchangeType, Publish, QueueDeclareOptions,
};
use crossbeam_channel::RecvTimeoutError;

/// What a queue delivers, acknowledged by the dozen.
pub struct Inbox<'a> {
    consumer: Consumer<'a>,
    /// The last delivery that is not acknowledged, and how many are not.
    last: Option<Delivery>,
    unacknowledged: usize,
}

/// Connects, declares a queue bound to this process's key, and lets `work` publish and consume.
pub fn with_queue<T>(
    url: &str,
    work: impl FnOnce(&Channel, &mut Inbox<'_>) -> io::Result<T>,
) -> io::Result<T> {
    let mut connection = connect(url)?;
    let channel = connection.open_channel(None).map_err(io::Error::other)?;
    let declare = || -> amiquip::Result<Consumer<'_>> {
        channel.exchange_declare(ExchangeType::Topic, EXCHANGE, ExchangeDeclareOptions::default())?;
        let exclusive = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
        let queue = channel.queue_declare("", exclusive)?;
        channel.queue_bind(queue.name(), EXCHANGE, key(std::process::id()), Default::default())?;
        channel.qos(0, PREFETCH_MAX, false)?;
        channel.basic_consume(queue.name(), ConsumerOptions::default())
    };
    let consumer = declare().map_err(io::Error::other)?;
    let mut inbox = Inbox { consumer, last: None, unacknowledged: 0 };
    work(&channel, &mut inbox)
}

/// The routing key of a process.
pub fn key(pid: u32) -> String {
    format!("plain.{pid}")
}

/// Publishes to the exchange.
pub fn publish(channel: &Channel, message: Publish<'_>) -> io::Result<()> {
    channel.basic_publish(EXCHANGE, message).map_err(io::Error::other)
}

impl Inbox<'_> {
    /// Waits for a message, at most so long.
    pub fn next(&mut self, time_max: Option<Duration>) -> io::Result<Vec<u8>> {
        loop {
            let limit = if self.unacknowledged > 0 { Some(ACK_TIME) } else { time_max };
            let message = match limit {
                Some(limit) => self.consumer.receiver().recv_timeout(limit),
                None => self.consumer.receiver().recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match message {
                Ok(ConsumerMessage::Delivery(mut delivery)) => {
                    let body = std::mem::take(&mut delivery.body);
                    self.last = Some(delivery);
                    self.unacknowledged += 1;
                    if self.unacknowledged >= ACKS_MIN {
                        self.acknowledge()?;
                    }
                    return Ok(body);
                }
                Err(RecvTimeoutError::Timeout) if self.unacknowledged > 0 => self.acknowledge()?,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(io::Error::other(format!("no message for {limit:?}")));
                }
                _ => return Err(io::Error::other("the broker ended the connection")),
            }
        }
    }

    fn acknowledge(&mut self) -> io::Result<()> {
        self.unacknowledged = 0;
        let last = self.last.take();
        last.map_or(Ok(()), |last| self.consumer.ack_multiple(last)).map_err(io::Error::other)
    }
}

fn connect(url: &str) -> io::Result<Connection> {
    let wrong = || io::Error::other(format!("{url:?} is not amqp://USER:PASSWORD@HOST:PORT"));
    let (account, address) =
        url.strip_prefix("amqp://").and_then(|rest| rest.rsplit_once('@')).ok_or_else(wrong)?;
    let (user, password) = account.split_once(':').ok_or_else(wrong)?;
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    let socket = mio::net::TcpStream::from_stream(socket)?;
    let auth = Auth::Plain { username: user.to_owned(), password: password.to_owned() };
    let options = ConnectionOptions::default().auth(auth).connection_timeout(Some(SILENCE_MAX));
    let tuning = ConnectionTuning::default()
        .mem_channel_bound(1024)
        .buffered_writes_high_water(1024 * 1024)
        .buffered_writes_low_water(256 * 1024);
    Connection::insecure_open_stream(socket, options, tuning).map_err(io::Error::other)
}

/// How long the other side may be silent while it has to say something.
pub const SILENCE_MAX: Duration = Duration::from_secs(30);

const EXCHANGE: &str = "plain";
const PREFETCH_MAX: u16 = 300;
const ACKS_MIN: usize = 50;
const ACK_TIME: Duration = Duration::from_millis(10);
