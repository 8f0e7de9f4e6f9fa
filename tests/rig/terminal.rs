//! A terminal of our own, as a window or `ssh` has one: what is typed goes in, what is shown comes out.

use std::fs::{File, OpenOptions};
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// The side of the person. A program is at the other side, as long as it has [`Terminal::stdio`].
pub struct Terminal {
    /// What is typed goes in, and what is shown comes out.
    pub person: File,
    path: String,
}

impl Terminal {
    pub fn open() -> Self {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("there is a terminal to be had");
        grantpt(&person).and_then(|()| unlockpt(&person)).expect("it is ours");
        let path = ptsname(&person, vec![]).expect("it has a name").into_string().expect("text");
        Terminal { person: File::from(person), path }
    }

    /// An end for a program.
    pub fn stdio(&self) -> Stdio {
        OpenOptions::new().read(true).write(true).open(&self.path).expect("it is open").into()
    }
}
