//! What this build of pinpost can do: cargo's features, as values.
//!
//! This is for what people are told: the version, the help, and the sentence for a
//! setting or a command that needs what is not here.

/// A feature of `Cargo.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Its name there.
    pub name: &'static str,
    /// It is part of this build.
    pub is_built: bool,
}

/// Nodes on several machines.
pub(crate) const CLUSTER: Feature = Feature { name: "cluster", is_built: cfg!(feature = "cluster") };

/// Users over WebSocket.
pub(crate) const WEBSOCKET: Feature = Feature { name: "websocket", is_built: cfg!(feature = "websocket") };

/// The client library, and the commands that use it.
const CLIENT: Feature = Feature { name: "client", is_built: cfg!(feature = "client") };

/// Editing the line that is typed in a chat.
const LINE_EDITOR: Feature = Feature { name: "line-editor", is_built: cfg!(feature = "line-editor") };

/// The version of this build, and what it is without.
pub fn version() -> String {
    let features = [CLUSTER, WEBSOCKET, CLIENT, LINE_EDITOR];
    let missing: Vec<&str> =
        features.iter().filter(|feature| !feature.is_built).map(|feature| feature.name).collect();
    let version = env!("CARGO_PKG_VERSION");
    match missing[..] {
        [] => version.to_owned(),
        _ => format!("{version}, built without {}", missing.join(", ")),
    }
}
