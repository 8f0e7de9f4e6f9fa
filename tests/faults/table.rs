//! The table of README.md, "When something fails": each cell is a test by its name.
//!
//! A row is played once for all its cells, beside other tests; a test waits for its cell.

/// A column: what is asked for, in every row.
macro_rules! column {
    ($request:ident, $cell:ident) => {
        mod $request {
            use crate::rows::{Cell, Fault, is_as_told};

            column!($cell: redis_is_killed, RedisKilled);
            column!($cell: redis_is_frozen, RedisFrozen);
            column!($cell: the_broker_is_killed, BrokerKilled);
            column!($cell: the_broker_is_frozen, BrokerFrozen);
            column!($cell: both_are_killed, BothKilled);
            column!($cell: both_are_frozen, BothFrozen);
            column!($cell: the_node_is_cut_off, NodeCut);
            column!($cell: the_node_hangs, NodeHangs);
        }
    };
    ($cell:ident: $row:ident, $fault:ident) => {
        #[test]
        fn $row() {
            is_as_told(Fault::$fault, Cell::$cell);
        }
    };
}

column!(login_while, Login);
column!(send_to_a_user_here_while, SendHere);
column!(send_to_a_user_elsewhere_while, SendElsewhere);
column!(who_while, Who);
column!(recovery_after, Recovery);

/// What users of other nodes notice when one node is cut off.
mod others_while {
    use crate::rows::{Cell, Fault, is_as_told};

    column!(Others: a_node_is_cut_off, NodeCut);
    column!(Others: a_node_hangs, NodeHangs);
}
