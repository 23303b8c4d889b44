//! Every bound in one place, with the table that adds up to the memory promise of a daemon: 64 MiB
//! while it moves files of any size. Limits of a format stand next to the format; here stand those
//! of running it.
//!
//! | what | MiB |
//! |---|---|
//! | chunk buffers of work that starts here (put, get, repair) | 12 |
//! | chunk buffers of what peers send: requests 5, responses 5 | 10 |
//! | chunk buffers of what peers fetch | 4 |
//! | table cache | 6 |
//! | rows that are not settled in the table file | 6 |
//! | opened tree records | 3 |
//! | connections: 64 bulk × 96 KiB | 6 |
//! | member table | 4 |
//! | what peers ask, while it is answered | 4 |
//! | sets of pinned chunks | 2 |
//! | the rest: program, stacks, queues | 7 |
//!
//! The kinds of chunk buffers are separate, because serving a peer needs nothing but this
//! node's disk: two nodes that put to each other can therefore never wait for each other's memory.

use std::time::Duration;

const MIB: usize = 1 << 20;

/// Bytes of chunk buffers for work that starts here.
pub const WORK_BYTES: usize = 12 * MIB;
/// Bytes of chunk buffers for what peers send.
pub const SERVE_BYTES: usize = 10 * MIB;
/// Bytes of chunk buffers for what peers fetch.
pub const FETCH_BYTES: usize = 4 * MIB;
/// Bytes of what peers ask, with what answering takes.
pub const ASKED_BYTES: usize = 4 * MIB;
/// Cache of the table library in bytes, as the store has it.
pub const TABLE_CACHE_BYTES: usize = 6 * MIB;
/// Bytes of rows that changed since the table file was written last, as the store keeps them.
pub const RECENT_ROWS_BYTES: usize = 6 * MIB;
/// Bytes of tree records that stay open from one question to the next.
pub const OPENED_BYTES: usize = 3 * MIB;
/// Bulk connections.
pub const BULK_CONNECTIONS: usize = 64;
/// Bytes that one connection may hold beyond chunk buffers.
pub const CONNECTION_BYTES: usize = 96 * 1024;
/// Bytes of the member table.
pub const MEMBER_TABLE_BYTES: usize = 4 * MIB;
/// Bytes of the sets of pinned chunks: the one in force and the one in the making.
pub const PINS_BYTES: usize = 2 * MIB;
/// Everything else.
pub const REST_BYTES: usize = 7 * MIB;
/// The promise.
pub const MEMORY_BYTES: usize = 64 * MIB;

const _: () = assert!(
    WORK_BYTES
        + SERVE_BYTES
        + FETCH_BYTES
        + ASKED_BYTES
        + TABLE_CACHE_BYTES
        + RECENT_ROWS_BYTES
        + OPENED_BYTES
        + BULK_CONNECTIONS * CONNECTION_BYTES
        + MEMBER_TABLE_BYTES
        + PINS_BYTES
        + REST_BYTES
        <= MEMORY_BYTES
);

/// Events that may wait for the membership loop; more are dropped (gossip) or wait (the rest).
pub const EVENTS: usize = 1024;
/// Bytes of gossip among them.
pub const GOSSIP_BYTES: usize = MIB;
/// Bytes of records that peers passed on and that are not on disk yet; more are fetched later.
pub const PUSH_BYTES: usize = 2 * MIB;
/// Requests for one chunk's copies that may wait for the repair worker.
pub const REPAIRS_WAITING: usize = 4096;
/// Commands served at once over the socket.
pub const COMMANDS: usize = 64;
/// Most replicas of a chunk, equal to the number of its candidates.
pub const REPLICAS_MAX: u8 = 8;
/// Replicas when nothing else is said.
pub const REPLICAS: u8 = 3;

/// What repair may send per second while more than one copy is left: most of a gigabit link, and
/// little enough for puts to go on beside it.
pub const REPAIR_RATE: u64 = 100 << 20;
/// How long a put waits for members that are known but do not answer, and take no byte, before it
/// says what is durable.
pub const PUT_PATIENCE: Duration = Duration::from_secs(30);
/// The shortest wait before a request is asked of the next candidate as well.
pub const HEDGE_MIN: Duration = Duration::from_millis(250);
/// The longest, for a peer that was slow before.
pub const HEDGE_MAX: Duration = Duration::from_secs(1);
/// Longest wait for an answer to a small request.
pub const ASK: Duration = Duration::from_secs(10);
/// Longest wait for all members when something is not known here.
pub const ASK_ALL: Duration = Duration::from_secs(1);
/// Longest wait without a byte while one chunk is sent or fetched; a hung peer is hedged long
/// before.
pub const MOVE: Duration = Duration::from_secs(30);
