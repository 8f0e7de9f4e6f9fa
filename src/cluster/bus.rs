//! The bus: the thread that talks to RabbitMQ.
//!
//! The AMQP library is synchronous, and all of its connections, channels and
//! consumers live on this thread's stack: one connection to publish, one to
//! consume, because a broker that is short of memory stops reading from those
//! who publish. A bell wakes this thread.
//!
//! One topic exchange for all; one queue a node, exclusive, gone with its
//! connection, under a new name each time, bound to the node's id. Publishes are
//! mandatory: what no queue takes comes back. A delivery is acknowledged after
//! the node has taken it over, and at most 300 wait for that. Before anybody hears
//! that this node has a queue, and whenever nothing else comes, a word to itself
//! shows that what is published for it arrives ([`Reach`]).
//!
//! When anything goes wrong the sockets are shut first, because the library's
//! calls and destructors wait for the broker otherwise; then everything is
//! dropped, and begins again after a pause. Messages are not lost by that: the
//! links publish again what the other end does not have.

use std::collections::VecDeque;
use std::error::Error;
use std::net::{TcpStream, ToSocketAddrs};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;
use std::time::{Duration, Instant};

use amiquip::{
    Auth, Channel, Connection, ConnectionBlockedNotification, ConnectionOptions, ConnectionTuning, Consumer,
    ConsumerMessage, ConsumerOptions, Delivery, ExchangeDeclareOptions, ExchangeType, Publish,
    QueueDeclareOptions, Return,
};
use crossbeam_channel::{Receiver, RecvTimeoutError, select};
use log::{debug, info, warn};

use crate::cluster::event::{Batch, ClusterEvent};
use crate::cluster::reach::{Look, QUIET_TIME, Reach, WORD};
use crate::cluster::reasons::of_broker;
use crate::cluster::shared::{Note, Shared};
use crate::cluster::watchdog::Watchdog;
use crate::config::Amqp;
use crate::pause::Pauses;
use crate::proto::name::NodeId;
use crate::random::random_number;

/// The exchange of all nodes.
const EXCHANGE: &str = "pinpost";

/// Deliveries that the broker may hand over before it waits for acknowledgements.
pub const PREFETCH_MAX: u16 = 300;

/// Deliveries that are acknowledged together, while more keep coming.
const ACKS_MIN: usize = 32;

/// How long one address may take to connect to.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);

/// How long setting everything up may take; a wrong password alone takes the broker 3 seconds.
const SETUP_TIME_MAX: Duration = Duration::from_secs(10);

/// How long handing one batch to the library may take: it waits only if the broker does not read.
const PUBLISH_TIME_MAX: Duration = Duration::from_secs(5);

/// How long the last words, and taking everything down, may take.
const TEARDOWN_TIME_MAX: Duration = Duration::from_secs(1);

/// A broker that was silent for twice this, in seconds, is gone.
const HEARTBEAT_S: u16 = 4;

/// How often time passes for links with something under way.
const TICK_TIME: Duration = Duration::from_millis(50);

/// The longest pause between attempts to connect.
const PAUSE_TIME_MAX: Duration = Duration::from_secs(2);

/// A bus that was away for longer has given up what it was to carry.
const OUTAGE_TIME: Duration = Duration::from_secs(10);

/// What is said of a connection that died without a word.
const BROKE: &str = "the connection broke";

/// What is said when the word of this node to itself came back, or did not come.
const UNBOUND: &str = "it has nothing bound for this node";
const UNHEARD: &str =
    "what is published for this node does not come: look at it, its queue, and policies on that";

/// The bus, before and between its sessions with the broker.
pub struct Bus {
    shared: Arc<Shared>,
    amqp: Amqp,
    bell: Receiver<()>,
    watchdog: Watchdog,
    /// What a batch is put together in.
    batch: Vec<u8>,
    /// Batches handed up since the start.
    handed: u64,
    /// Since when this session, if there is one, is known to work.
    up_since: Option<Instant>,
    /// The broker is away; said once.
    is_lost: bool,
}

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What a session works with.
struct BusSession<'a> {
    to: &'a Channel,
    from: &'a Channel,
    consuming: Consumer<'a>,
    returned: Receiver<Return>,
    blocked: Receiver<ConnectionBlockedNotification>,
    /// For which of this node's incarnations the queue is.
    epoch: u64,
    node: NodeId,
    reach: Reach,
    /// The broker takes nothing now.
    is_blocked: bool,
    /// Deliveries that are not acknowledged yet.
    waiting: VecDeque<Delivery>,
    /// How many were handed up before the first of these.
    first: u64,
}

impl Bus {
    /// Makes a bus that is woken by `bell`.
    pub fn new(shared: Arc<Shared>, amqp: Amqp, bell: Receiver<()>) -> Self {
        Bus {
            shared,
            amqp,
            bell,
            watchdog: Watchdog::start(),
            batch: vec![],
            handed: 0,
            up_since: None,
            is_lost: false,
        }
    }

    /// Runs until the node goes.
    pub fn run(mut self) {
        let mut pauses = Pauses::new(PAUSE_TIME_MAX);
        while !self.shared.desk().is_stopping {
            self.up_since = None;
            let end = catch_unwind(AssertUnwindSafe(|| self.session()));
            self.set_up(false);
            self.shared.note(Note::Queue(None));
            let why = match end {
                Ok(Ok(())) => continue,
                Ok(Err(why)) => why.to_string(),
                Err(_) => "the AMQP library panicked".to_owned(),
            };
            if !std::mem::replace(&mut self.is_lost, true) {
                warn!("RabbitMQ at {} is away: {why}; trying again", self.amqp);
            } else {
                debug!("RabbitMQ at {} is still away: {why}", self.amqp);
            }
            pauses.held(self.up_since.map_or(Duration::ZERO, |since| since.elapsed()));
            self.rest(pauses.next(random_number()));
        }
    }

    /// Batches can be published, or no longer.
    fn set_up(&self, is_up: bool) {
        let was_down = self.shared.links(|links| links.set_up(is_up, Instant::now()));
        if is_up && was_down >= OUTAGE_TIME {
            self.shared.note(Note::AssertAll);
        }
    }

    fn rest(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.shared.desk().is_stopping {
            if let Err(RecvTimeoutError::Timeout) = self.bell.recv_deadline(until) {
                return;
            }
        }
    }

    /// One life of both connections; an error is that of the world.
    fn session(&mut self) -> Outcome<()> {
        let (epoch, node) = self.shared.links(|links| (links.epoch(), links.me().clone()));
        let sockets = self.connect()?;
        let watchdog = self.watchdog.clone();
        let name = format!("{EXCHANGE}.{}.{:08x}", node.as_str(), random_number() as u32);
        let set_up = watchdog.limit(SETUP_TIME_MAX, || -> Outcome<_> {
            let (mut publisher, mut consumer) = self.open(sockets)?;
            let blocked = publisher.listen_for_connection_blocked()?;
            let to = publisher.open_channel(None)?;
            let returned = to.listen_for_returns()?;
            let from = consumer.open_channel(None)?;
            declare(&to, &from, &name, &node)?;
            Ok((publisher, consumer, to, from, returned, blocked))
        });
        let (publisher, consumer, to, from, returned, blocked) = set_up?;
        let consume = || from.basic_consume(&name[..], ConsumerOptions::default());
        let consuming = watchdog.limit(SETUP_TIME_MAX, consume).inspect_err(|_| watchdog.shut())?;
        let mut session = BusSession {
            to: &to,
            from: &from,
            consuming,
            returned,
            blocked,
            epoch,
            node,
            reach: Reach::new(Instant::now()),
            is_blocked: false,
            waiting: VecDeque::new(),
            first: self.handed,
        };
        // Dropped before all of the above, also by a panic.
        let shut = Shut(&watchdog);
        let end = self.serve(&mut session);
        if end.is_ok() && self.shared.desk().is_stopping {
            watchdog.limit(TEARDOWN_TIME_MAX, || self.say_last_words(&to));
        }
        self.set_up(false);
        // A channel that was closed says why only when it is asked.
        let is_broken = end.as_ref().is_err_and(|why| why.to_string() == BROKE);
        let of_channel = || is_broken.then(|| to.qos(0, PREFETCH_MAX, false).err()).flatten();
        let of_channel = watchdog.limit(TEARDOWN_TIME_MAX, of_channel);
        // Now nothing that follows waits for the broker. The receiver outlives its consumer, or the
        // library would drop the whole connection in a worse way.
        drop(shut);
        let _receiver = session.consuming.receiver().clone();
        drop(session);
        drop((to, from));
        let reasons = watchdog.limit(TEARDOWN_TIME_MAX, || [publisher.close(), consumer.close()]);
        match of_channel.or(reasons.into_iter().find_map(Result::err)) {
            // Only this tells why a connection died without a word.
            Some(reason) if is_broken => Err(reason.into()),
            _ => end,
        }
    }

    fn connect(&self) -> Outcome<[TcpStream; 2]> {
        let host = (&self.amqp.host[..], self.amqp.port);
        let addrs = host.to_socket_addrs().map_err(|error| format!("its name is not known: {error}"))?;
        let mut failure = "its name has no address".into();
        for addr in addrs {
            let connect = || TcpStream::connect_timeout(&addr, CONNECT_TIME_MAX);
            match connect().and_then(|first| Ok([first, connect()?])) {
                Ok(sockets) => return Ok(sockets),
                Err(error) => failure = error.into(),
            }
        }
        Err(failure)
    }

    /// Opens both connections, on sockets that the watchdog can shut.
    fn open(&self, [publisher, consumer]: [TcpStream; 2]) -> Outcome<(Connection, Connection)> {
        self.watchdog.sockets(vec![publisher.try_clone()?, consumer.try_clone()?]);
        let open = |socket: TcpStream| -> Outcome<_> {
            socket.set_nodelay(true)?;
            let socket = mio::net::TcpStream::from_stream(socket)?;
            let auth = Auth::Plain { username: self.amqp.user.clone(), password: self.amqp.password.clone() };
            let options = ConnectionOptions::default()
                .auth(auth)
                .virtual_host(&self.amqp.vhost[..])
                .heartbeat(HEARTBEAT_S)
                .connection_timeout(Some(SETUP_TIME_MAX / 2));
            let tuning = ConnectionTuning::default()
                .mem_channel_bound(1024)
                .buffered_writes_high_water(1024 * 1024)
                .buffered_writes_low_water(256 * 1024);
            Ok(Connection::insecure_open_stream(socket, options, tuning)
                .map_err(|error| of_broker(&error))?)
        };
        Ok((open(publisher)?, open(consumer)?))
    }

    /// Carries batches until the node goes or has a new id.
    fn serve(&mut self, session: &mut BusSession<'_>) -> Outcome<()> {
        let coming = session.consuming.receiver().clone();
        let (mut is_active, mut ticked) = (true, Instant::now());
        loop {
            let is_stopping = self.shared.desk().is_stopping;
            if is_stopping || self.shared.links(|links| links.epoch()) != session.epoch {
                return Ok(());
            }
            is_active |= self.publish(session.to)?;
            let now = Instant::now();
            self.look(session, now)?;
            let is_time = now.duration_since(ticked) >= TICK_TIME;
            self.acknowledge(session, is_time)?;
            let mut is_ready = false;
            if is_time {
                ticked = now;
                (is_active, is_ready) = self.shared.links(|links| (links.tick(now), links.has_next()));
            }
            is_active |= !session.waiting.is_empty() || session.reach.is_waiting();
            let time_max = match (is_ready, is_active) {
                (true, _) => Duration::ZERO,
                (_, true) => TICK_TIME,
                _ => QUIET_TIME,
            };
            select! {
                recv(self.bell) -> _ => is_active = true,
                recv(coming) -> message => {
                    self.take(session, message.map_err(|_| BROKE)?)?;
                    for message in coming.try_iter().take(ACKS_MIN) {
                        self.take(session, message)?;
                    }
                    is_active = true;
                }
                recv(session.returned) -> returned => {
                    self.returned(session, &returned.map_err(|_| BROKE)?)?;
                    session.returned.try_iter().try_for_each(|returned| self.returned(session, &returned))?;
                }
                recv(session.blocked) -> notice => self.blocked(session, &notice.map_err(|_| BROKE)?),
                default(time_max) => {}
            }
        }
    }

    /// Publishes all that is due; tells whether there was any.
    fn publish(&mut self, channel: &Channel) -> Outcome<bool> {
        let mut any = false;
        loop {
            let node = self.shared.links(|links| links.next(Instant::now(), &mut self.batch));
            let Some(node) = node else { return Ok(any) };
            any = true;
            self.put(channel, &self.batch, &node)?;
        }
    }

    fn put(&self, channel: &Channel, bytes: &[u8], node: &NodeId) -> Outcome<()> {
        let mut publish = Publish::new(bytes, node.as_str());
        publish.mandatory = true;
        Ok(self.watchdog.limit(PUBLISH_TIME_MAX, || channel.basic_publish(EXCHANGE, publish))?)
    }

    /// Looks whether this node can be reached.
    fn look(&self, session: &mut BusSession<'_>, now: Instant) -> Outcome<()> {
        match session.reach.look(session.is_blocked || !session.waiting.is_empty(), now) {
            Look::Fine => Ok(()),
            Look::Say => self.put(session.to, WORD, &session.node),
            Look::Lost => Err(UNHEARD.into()),
        }
    }

    /// Something has come. If it is the first thing, others may hear of this node now.
    fn heard(&mut self, session: &mut BusSession<'_>) {
        if session.reach.heard(Instant::now()) {
            if std::mem::take(&mut self.is_lost) {
                info!("RabbitMQ at {} is back", self.amqp);
            }
            self.up_since = Some(Instant::now());
            self.set_up(!session.is_blocked);
            self.shared.note(Note::Queue(Some(session.node.clone())));
        }
    }

    fn take(&mut self, session: &mut BusSession<'_>, message: ConsumerMessage) -> Outcome<()> {
        match message {
            ConsumerMessage::Delivery(delivery) if delivery.body == WORD => {
                self.heard(session);
                Ok(delivery.ack(session.from)?)
            }
            ConsumerMessage::Delivery(mut delivery) => {
                self.heard(session);
                let bytes = std::mem::take(&mut delivery.body);
                session.waiting.push_back(delivery);
                self.handed += 1;
                self.shared.hand_up(ClusterEvent::Batch(Batch { epoch: session.epoch, bytes }));
                Ok(())
            }
            ConsumerMessage::ServerClosedChannel(error) | ConsumerMessage::ServerClosedConnection(error) => {
                Err(error.into())
            }
            ConsumerMessage::ServerCancelled => Err("the queue was deleted".into()),
            _ => Err("the connection was closed".into()),
        }
    }

    /// Acknowledges what the node has taken over: at once if there is much, else when it is time.
    fn acknowledge(&self, session: &mut BusSession<'_>, is_time: bool) -> Outcome<()> {
        let taken = self.shared.taken.load(Acquire).saturating_sub(session.first);
        let count = usize::try_from(taken).expect("less than the prefetch").min(session.waiting.len());
        if count == 0 || (count < ACKS_MIN && !is_time) {
            return Ok(());
        }
        session.first += count as u64;
        let last = session.waiting.drain(..count).next_back().expect("at least one");
        Ok(last.ack_multiple(session.from)?)
    }

    fn returned(&self, session: &BusSession<'_>, returned: &Return) -> Outcome<()> {
        let Some(node) = NodeId::parse(&returned.routing_key) else { return Ok(()) };
        if node == session.node {
            return Err(UNBOUND.into());
        }
        self.shared.links(|links| links.returned(&node, &returned.content, Instant::now()));
        Ok(())
    }

    /// The broker is short of memory or disk, or no longer.
    fn blocked(&self, session: &mut BusSession<'_>, notice: &ConnectionBlockedNotification) {
        session.is_blocked = matches!(notice, ConnectionBlockedNotification::Blocked(_));
        match notice {
            ConnectionBlockedNotification::Blocked(why) => {
                warn!("RabbitMQ at {} takes no messages now: {why}", self.amqp);
            }
            ConnectionBlockedNotification::Unblocked => {
                info!("RabbitMQ at {} takes messages again", self.amqp);
            }
        }
        self.set_up(!session.is_blocked && session.reach.is_proven);
    }

    /// Publishes what is still to be said, and waits until the broker has it.
    fn say_last_words(&mut self, channel: &Channel) {
        // Answered only after all that was published before on this channel.
        let answer = self.publish(channel).and_then(|_| Ok(channel.qos(0, PREFETCH_MAX, false)?));
        if let Err(error) = answer {
            warn!("RabbitMQ at {}: the last words were lost: {error}", self.amqp);
        }
    }
}

/// The exchange of all, and the queue of this node.
fn declare(to: &Channel, from: &Channel, name: &str, node: &NodeId) -> Outcome<()> {
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    to.exchange_declare(ExchangeType::Topic, EXCHANGE, durable)?;
    let exclusive = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
    from.qos(0, PREFETCH_MAX, false)?;
    from.queue_declare(name, exclusive)?;
    Ok(from.queue_bind(name, EXCHANGE, node.as_str(), Default::default())?)
}

/// Shuts the sockets when dropped, before anything declared earlier is.
struct Shut<'a>(&'a Watchdog);

impl Drop for Shut<'_> {
    fn drop(&mut self) {
        self.0.shut();
    }
}
