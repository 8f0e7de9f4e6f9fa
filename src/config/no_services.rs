//! What stands in the place of Redis and RabbitMQ in a node built without the feature `cluster`.
//!
//! No address is one, so there is no value of these types: what needs a cluster
//! can be written, and can't be reached. [`Config::set`](crate::config::Config::set)
//! tells whoever names an address that this build has no use for it.

use std::convert::Infallible;

/// Where RabbitMQ is: nowhere, in this build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amqp(Infallible);

/// Where Redis is: nowhere, in this build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis(Infallible);

impl Amqp {
    /// Takes nothing.
    pub fn parse(_: &str) -> Option<Self> {
        None
    }

    /// The URL as it was given.
    pub fn url(&self) -> &str {
        match self.0 {}
    }
}

impl Redis {
    /// Takes nothing.
    pub fn parse(_: &str) -> Option<Self> {
        None
    }

    /// The URL as it was given.
    pub fn url(&self) -> &str {
        match self.0 {}
    }

    /// What follows from having one.
    pub(crate) fn never(self) -> ! {
        match self.0 {}
    }
}
