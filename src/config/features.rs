//! What this build of pinpost can do: cargo's features, as values.
//!
//! Code that is not built in has a stand-in whose name begins with `no_`, chosen
//! where the module is declared; this table is for what people are told: the
//! version, the help, and the sentence for a setting that needs what is not here.

/// A feature of `Cargo.toml`.
#[derive(Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name there.
    pub name: &'static str,
    /// It is part of this build.
    pub is_built: bool,
}

/// Nodes on several machines.
pub const CLUSTER: Feature = Feature { name: "cluster", is_built: cfg!(feature = "cluster") };

/// Users over WebSocket.
pub const WEBSOCKET: Feature = Feature { name: "websocket", is_built: cfg!(feature = "websocket") };

/// The client library, and the commands that use it.
pub const CLIENT: Feature = Feature { name: "client", is_built: cfg!(feature = "client") };

/// Editing the line that is typed in a chat.
pub const LINE_EDITOR: Feature = Feature { name: "line-editor", is_built: cfg!(feature = "line-editor") };

/// All of them.
pub const FEATURES: &[Feature] = &[CLUSTER, WEBSOCKET, CLIENT, LINE_EDITOR];

/// What a setting needs to be anything but `off`.
pub fn needed_by(setting: &str) -> Option<Feature> {
    match setting {
        "http" => Some(WEBSOCKET),
        "redis" | "amqp" => Some(CLUSTER),
        _ => None,
    }
}

/// The version of this build, and what it is without.
pub fn version() -> String {
    let missing: Vec<&str> =
        FEATURES.iter().filter(|feature| !feature.is_built).map(|feature| feature.name).collect();
    let version = env!("CARGO_PKG_VERSION");
    match missing[..] {
        [] => version.to_owned(),
        _ => format!("{version}, built without {}", missing.join(", ")),
    }
}
