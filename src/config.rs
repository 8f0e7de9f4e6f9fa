//! Settings of a node: what they are, where they come from, what is allowed.
//!
//! One table ([`SETTINGS`]) names every setting, its default and its meaning;
//! flags, the TOML file, environment variables, `--help` and `--print-config`
//! all follow from it, so that none of them can lie. A value is text until
//! [`Config::set`] understands it, wherever it came from; a program may also
//! build a [`Config`] of typed values, and both are checked alike.

mod features;
mod services;
mod settings;
mod sources;
#[cfg(test)]
mod tests;
mod values;

pub use features::{Feature, version};
pub use services::{Amqp, Redis};
pub use settings::{ConfigError, FILES_RESERVED, SETTINGS, Setting};
pub use sources::Layers;
pub use values::Config;
