//! What grows with the users, and what with the nodes: CPU time a message and
//! memory a user, which an operator hopes are the same for many as for few.
//!
//! Parts: `users`, one node with 100 to 15,000 of them; `nodes`, clusters of 2, 3
//! and 5. The largest size of each table is compared with the smallest: within a
//! fifth is called flat. What is held constant is said above each table, since
//! without that a figure would tell of batches, not of size.

mod nodes;
mod users;

pub use nodes::run as nodes;
pub use users::run as users;

use crate::report::verdict;

/// How a figure of the largest size compares with that of the smallest.
fn flat(what: &str, ratio: f64) -> String {
    format!("  {what}: {ratio:.2} ({})", verdict(ratio, FLAT_RATIO_MAX, "1.20"))
}

const FLAT_RATIO_MAX: f64 = 1.2;
