//! Faults of the services and of nodes: what users notice, and that all is whole again without
//! a restart of a node.
//!
//! `table.rs` is the table of README.md, cell by cell; `rows.rs` plays its rows. Single faults
//! are in `redis.rs` and `broker.rs`, nodes that are killed or stopped in `nodes.rs`, a start
//! without services and what the log says in `alone.rs`. A `town.rs` is nodes and their
//! services, `person.rs` who asks and sends there, `again.rs` what goes on meanwhile. Random
//! schedules of faults are not here.

#[path = "../rig/mod.rs"]
mod rig;

mod again;
mod alone;
mod broker;
mod cells;
mod nodes;
mod person;
mod redis;
mod rows;
mod table;
mod town;
