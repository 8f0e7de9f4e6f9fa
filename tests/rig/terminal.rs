//! A terminal of our own, as a window or `ssh` has one: what is typed goes in, what is shown comes out.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::WAIT_TIME_MAX;

/// The side of the person. A program is at the other side, as long as it has [`Terminal::stdio`].
pub struct Terminal {
    person: File,
    path: String,
    /// As a shell would have it.
    modes: Termios,
    shown: Receiver<String>,
}

impl Terminal {
    pub fn open() -> Self {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("there is a terminal to be had");
        grantpt(&person).and_then(|()| unlockpt(&person)).expect("it is ours");
        let path = ptsname(&person, vec![]).expect("it has a name").into_string().expect("text");
        let modes = tcgetattr(&person).expect("it is a terminal");
        let person = File::from(person);
        let (tx, shown) = channel();
        let mut reader = person.try_clone().expect("there are files");
        // It can be opened by a program only now; until then a read would fail.
        let other = OpenOptions::new().read(true).write(true).open(&path).expect("it is open");
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count) = reader.read(&mut bytes) {
                if tx.send(String::from_utf8_lossy(&bytes[..count]).into_owned()).is_err() {
                    break;
                }
            }
            drop(other);
        });
        Terminal { person, path, modes, shown }
    }

    /// An end for a program.
    pub fn stdio(&self) -> Stdio {
        OpenOptions::new().read(true).write(true).open(&self.path).expect("it is open").into()
    }

    pub fn type_in(&mut self, bytes: &[u8]) {
        self.person.write_all(bytes).expect("it takes a few bytes");
    }

    /// Waits until all of these were shown, in this order.
    #[track_caller]
    pub fn shows(&mut self, parts: &[&str]) {
        let by = Instant::now() + WAIT_TIME_MAX;
        let mut text = String::new();
        for part in parts {
            let end = loop {
                if let Some(at) = text.find(part) {
                    break at + part.len();
                }
                let more = self.shown.recv_timeout(by.saturating_duration_since(Instant::now()));
                text += &more.unwrap_or_else(|_| panic!("{part:?} was not shown in time: {text:?}"));
            };
            text.drain(..end);
        }
    }

    /// A program edits lines here itself.
    pub fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.person).expect("it is a terminal");
        !modes.local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// Takes the terminal back, as a shell does when its program is stopped.
    pub fn take_back(&self) {
        tcsetattr(&self.person, OptionalActions::Now, &self.modes).expect("it is a terminal");
    }
}
