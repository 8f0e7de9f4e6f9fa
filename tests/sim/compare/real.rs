//! A script on a real broker, on connections like those of the bus. What has no deadline there has one here.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Instant;

use amiquip::{
    Auth, Channel, Connection, ConnectionBlockedNotification, ConnectionOptions, ConnectionTuning,
    ConsumerMessage, ConsumerOptions, Delivery, ExchangeDeclareOptions, ExchangeType, Publish,
    QueueDeclareOptions, QueueDeleteOptions, Return,
};
use crossbeam_channel::Receiver;
use pinpost::NodeId;

use crate::compare::{Batches, HOSTS, Outcome, PREFETCH_MAX, Seen, Step, number};
use crate::rig::services::Broker;
use crate::rig::{WAIT_TIME_MAX, until};

const EXCHANGE: &str = "pinpost";

/// Deliveries that are acknowledged together.
const ACKS_MIN: usize = 32;

/// Begins what tells that all has come: all that its publisher has published before is there.
const MARKER: &[u8] = b"!";

/// A broker, and the sessions with it.
pub struct Real {
    broker: Broker,
    ids: [NodeId; HOSTS + 1],
    sessions: [Option<Session>; HOSTS],
    /// Looks whether a queue is there.
    looking: Session,
    batches: Batches,
    is_alarmed: bool,
    /// Counts them, for the markers.
    rests: u8,
    seen: Outcome,
}

/// What the session of a bus is made of. Its fields are dropped in this order, when the sockets are shut.
struct Session {
    sockets: Vec<TcpStream>,
    to: Channel,
    from: Channel,
    #[expect(dead_code)]
    connections: [Connection; 2],
    queue: String,
    coming: Receiver<ConsumerMessage>,
    returned: Receiver<Return>,
    notices: Receiver<ConnectionBlockedNotification>,
    waiting: Vec<Delivery>,
    is_frozen: bool,
    is_deleted: bool,
    is_blocked: bool,
    /// It has published since the alarm.
    has_published: bool,
}

impl Real {
    /// A broker on which nobody has these ids.
    pub fn new(broker: &Broker, ids: [NodeId; HOSTS + 1]) -> Self {
        let looking = Session::open(broker.addr(), "looks");
        let (broker, sessions) = (broker.clone(), [const { None }; HOSTS]);
        let (batches, seen) = (Batches(vec![]), Outcome::default());
        Real { broker, ids, sessions, looking, batches, is_alarmed: false, rests: 0, seen }
    }

    /// Plays a section.
    pub fn play(&mut self, section: &[Step]) -> Outcome {
        self.seen = Outcome::default();
        section.iter().for_each(|step| self.step(*step));
        for (seen, session) in self.seen.iter_mut().zip(&self.sessions) {
            seen.is_up = session.is_some();
        }
        self.seen.clone()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Connect(host) => {
                self.sessions[host] = Some(Session::open(self.broker.addr(), self.ids[host].as_str()));
            }
            Step::Publish { from, to, count } => {
                for _ in 0..count {
                    let (_, body) = self.batches.next(from);
                    let session = self.sessions[from].as_mut().expect("it has a session");
                    assert!(!session.is_frozen && !session.is_deleted && !session.is_blocked);
                    session.has_published |= self.is_alarmed;
                    session.publish(&self.ids[to], &body, true);
                }
            }
            Step::Cut(host) => {
                assert!(!self.is_alarmed, "nobody can look");
                drop(self.sessions[host].take().expect("it has a session"));
                until("its queue is gone", || {
                    self.looking.publish(&self.ids[host], MARKER, true);
                    self.looking.ask();
                    self.looking.returned.try_iter().count() > 0
                });
            }
            Step::Delete(host) => {
                let session = self.sessions[host].as_mut().expect("it has a session");
                let delete = || session.from.queue_delete(&session.queue[..], QueueDeleteOptions::default());
                in_time(&session.sockets, delete).expect("it is there");
                session.is_deleted = true;
            }
            Step::Freeze(host) => self.sessions[host].as_mut().expect("it has a session").is_frozen = true,
            Step::Thaw(host) => {
                if let Some(session) = &mut self.sessions[host] {
                    session.is_frozen = false;
                    assert!(session.coming.len() <= usize::from(PREFETCH_MAX) + 1, "it is not kept back");
                }
            }
            Step::Alarm(is_on) => {
                self.broker.alarm(is_on);
                self.is_alarmed = is_on;
            }
            Step::Rest | Step::Look => self.rest(),
        }
    }

    fn rest(&mut self) {
        // The broker has what they had to say, and what comes back is here.
        let mut markers: Vec<(usize, Vec<u8>)> = vec![];
        self.rests += 1;
        for (host, session) in self.sessions.iter_mut().enumerate() {
            let Some(session) = session.as_mut().filter(|session| !session.is_frozen) else { continue };
            let seen = &mut self.seen[host];
            session.hear_notices(self.is_alarmed, seen);
            if session.is_blocked || self.is_alarmed {
                continue;
            }
            session.ask();
            for returned in session.returned.try_iter().filter(|returned| returned.content != MARKER) {
                assert_eq!((returned.reply_code, &returned.exchange[..]), (312, EXCHANGE));
                let to = self.ids.iter().position(|id| id.as_str() == returned.routing_key);
                seen.returned.push((number(&returned.content), to.expect("an id of the script")));
            }
            markers.push((host, [MARKER, &[self.rests, host as u8]].concat()));
        }
        for (host, marker) in &markers {
            let from = self.sessions[*host].as_ref().expect("it was here");
            let awake = self.sessions.iter().zip(&self.ids);
            let awake =
                awake.filter(|(session, _)| session.as_ref().is_some_and(|session| !session.is_frozen));
            awake.for_each(|(_, id)| from.publish(id, marker, false));
            // Before its session ends, if its queue was deleted.
            from.ask();
        }
        // What comes behind all of that tells that nothing more comes.
        for (host, place) in self.sessions.iter_mut().enumerate() {
            let Some(session) = place.as_mut().filter(|session| !session.is_frozen) else { continue };
            let missing = markers.iter().map(|(_, marker)| marker.clone()).collect();
            if session.take(missing, &self.batches, &mut self.seen[host]) {
                *place = None;
            }
        }
    }
}

impl Session {
    /// Opens both connections, and begins to consume what is for `id`.
    fn open(addr: SocketAddr, id: &str) -> Self {
        let connect = || TcpStream::connect_timeout(&addr, WAIT_TIME_MAX).expect("the broker runs");
        let [publisher, consumer] = [connect(), connect()];
        let sockets: Vec<_> =
            [&publisher, &consumer].map(|socket| socket.try_clone().expect("there is room")).into();
        let open = |socket: TcpStream| {
            socket.set_nodelay(true)?;
            let socket = mio::net::TcpStream::from_stream(socket)?;
            let options = ConnectionOptions::<Auth>::default().connection_timeout(Some(WAIT_TIME_MAX));
            let tuning = ConnectionTuning::default().mem_channel_bound(1024);
            Ok::<_, Box<dyn std::error::Error>>(Connection::insecure_open_stream(socket, options, tuning)?)
        };
        let set_up = || {
            let (mut publisher, mut consumer) = (open(publisher)?, open(consumer)?);
            let notices = publisher.listen_for_connection_blocked()?;
            let to = publisher.open_channel(None)?;
            let returned = to.listen_for_returns()?;
            let from = consumer.open_channel(None)?;
            let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
            to.exchange_declare(ExchangeType::Topic, EXCHANGE, durable)?;
            let exclusive = QueueDeclareOptions { exclusive: true, auto_delete: true, ..Default::default() };
            from.qos(0, PREFETCH_MAX, false)?;
            let queue = from.queue_declare("", exclusive)?.name().to_owned();
            from.queue_bind(&queue[..], EXCHANGE, id, Default::default())?;
            let consuming = from.basic_consume(&queue[..], ConsumerOptions::default())?;
            let coming = consuming.receiver().clone();
            // It would cancel when dropped, and what it borrows could not be kept with it.
            std::mem::forget(consuming);
            Ok::<_, Box<dyn std::error::Error>>(Session {
                sockets: vec![],
                to,
                from,
                connections: [publisher, consumer],
                queue,
                coming,
                returned,
                notices,
                waiting: vec![],
                is_frozen: false,
                is_deleted: false,
                is_blocked: false,
                has_published: false,
            })
        };
        let mut session = in_time(&sockets, set_up).expect("the broker is well");
        session.sockets = sockets;
        session
    }

    fn publish(&self, to: &NodeId, body: &[u8], mandatory: bool) {
        let mut publish = Publish::new(body, to.as_str());
        publish.mandatory = mandatory;
        in_time(&self.sockets, || self.to.basic_publish(EXCHANGE, publish)).expect("the broker is well");
    }

    /// Is answered after all that was published before.
    fn ask(&self) {
        in_time(&self.sockets, || self.to.qos(0, PREFETCH_MAX, false)).expect("the broker is well");
    }

    /// Hears that it has to wait, or no more. Who has published nothing since the alarm is not told.
    fn hear_notices(&mut self, is_alarmed: bool, seen: &mut Seen) {
        let is_told = if is_alarmed { self.has_published && !self.is_blocked } else { self.is_blocked };
        if is_told {
            let notice = self.notices.recv_timeout(WAIT_TIME_MAX).expect("it is told");
            self.is_blocked = !matches!(notice, ConnectionBlockedNotification::Unblocked);
            assert_eq!(self.is_blocked, is_alarmed);
            seen.blocked.push(self.is_blocked);
        }
        self.has_published &= is_alarmed;
        assert!(self.notices.is_empty(), "it is told once");
    }

    /// Takes what has come, up to these markers; tells whether that ended the session.
    fn take(&mut self, mut missing: Vec<Vec<u8>>, batches: &Batches, seen: &mut Seen) -> bool {
        let by = Instant::now() + WAIT_TIME_MAX;
        while self.is_deleted || !missing.is_empty() {
            match self.coming.recv_deadline(by).expect("the broker goes on") {
                ConsumerMessage::Delivery(delivery) => {
                    if delivery.body.starts_with(MARKER) {
                        missing.retain(|marker| *marker != delivery.body);
                    } else {
                        batches.heard(seen, &delivery.body);
                    }
                    self.waiting.push(delivery);
                }
                ConsumerMessage::ServerCancelled if self.is_deleted => return true,
                other => panic!("{other:?}"),
            }
            if self.waiting.len() >= ACKS_MIN {
                let last = self.waiting.drain(..).next_back().expect("there are some");
                in_time(&self.sockets, || last.ack_multiple(&self.from)).expect("the broker is well");
            }
        }
        false
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Else what is dropped now would wait for the broker.
        shut(&self.sockets);
    }
}

/// Makes a call that only the end of its connection ends.
fn in_time<T>(sockets: &[TcpStream], call: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        let (done, is_done) = mpsc::channel::<()>();
        scope.spawn(move || {
            if is_done.recv_timeout(WAIT_TIME_MAX) == Err(RecvTimeoutError::Timeout) {
                shut(sockets);
            }
        });
        let result = call();
        drop(done);
        result
    })
}

fn shut(sockets: &[TcpStream]) {
    for socket in sockets {
        // Fails only for one that is closed already.
        let _ = socket.shutdown(Shutdown::Both);
    }
}
