//! The verbs of the protocol: how each is written, used and explained.

/// The verbs: one row each for how it is written and used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `LOGIN`
    Login,
    /// `SEND`
    Send,
    /// `CAST`
    Cast,
    /// `ACK`
    Ack,
    /// `WHO`
    Who,
    /// `WATCH`
    Watch,
    /// `UNWATCH`
    Unwatch,
    /// `JOIN`
    Join,
    /// `LEAVE`
    Leave,
    /// `PING`
    Ping,
    /// `HELP`
    Help,
    /// `QUIT`
    Quit,
}

impl Verb {
    /// Every verb, in the order in which `HELP` tells them.
    pub const ALL: [Verb; 12] = [
        Verb::Login,
        Verb::Send,
        Verb::Cast,
        Verb::Ack,
        Verb::Who,
        Verb::Watch,
        Verb::Unwatch,
        Verb::Join,
        Verb::Leave,
        Verb::Ping,
        Verb::Help,
        Verb::Quit,
    ];

    /// Finds the verb without regard to case.
    pub fn parse(word: &str) -> Option<Verb> {
        // Those of messages come at once, as programs write them.
        let of_messages = [Verb::Send, Verb::Cast, Verb::Ack];
        if let Some(verb) = of_messages.into_iter().find(|verb| verb.word() == word) {
            return Some(verb);
        }
        Self::ALL.into_iter().find(|verb| verb.word().eq_ignore_ascii_case(word))
    }

    /// The verb as it is written.
    pub fn word(self) -> &'static str {
        match self {
            Verb::Login => "LOGIN",
            Verb::Send => "SEND",
            Verb::Cast => "CAST",
            Verb::Ack => "ACK",
            Verb::Who => "WHO",
            Verb::Watch => "WATCH",
            Verb::Unwatch => "UNWATCH",
            Verb::Join => "JOIN",
            Verb::Leave => "LEAVE",
            Verb::Ping => "PING",
            Verb::Help => "HELP",
            Verb::Quit => "QUIT",
        }
    }

    /// The form of the request.
    pub fn usage(self) -> &'static str {
        match self {
            Verb::Login => "LOGIN <user> [<token>] [ack]",
            Verb::Send => "SEND <user> <text>",
            Verb::Cast => "CAST <user> <text>",
            Verb::Ack => "ACK <id> <user>",
            Verb::Who => "WHO <user>",
            Verb::Watch => "WATCH <user>",
            Verb::Unwatch => "UNWATCH <user>",
            Verb::Join => "JOIN #<room>",
            Verb::Leave => "LEAVE #<room>",
            Verb::Ping => "PING [<text>]",
            Verb::Help => "HELP [<verb>]",
            Verb::Quit => "QUIT",
        }
    }

    /// What the request does, for `HELP`.
    pub fn about(self) -> &'static str {
        match self {
            Verb::Login => "makes this connection a session of the user",
            Verb::Send => "routes one message, and tells what became of it",
            Verb::Cast => "routes one message at most once, without a reply",
            Verb::Ack => "the client has taken the message <id> from <user>",
            Verb::Who => "asks whether a user is online, and with how many sessions",
            Verb::Watch => "from now on UP and DOWN tell of the user's changes",
            Verb::Unwatch => "ends a WATCH",
            Verb::Join => "enters a room",
            Verb::Leave => "leaves a room",
            Verb::Ping => "asks for a PONG with the same text",
            Verb::Help => "lists the requests, or tells how one is used",
            Verb::Quit => "ends the connection in order",
        }
    }
}
