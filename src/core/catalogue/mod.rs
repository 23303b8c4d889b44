//! The catalogue: one replicated set of signed records that every member keeps and reconciles as a
//! whole. Owns the records' formats, what follows from a record (`apply`), the questions to the
//! set, and how two members make their sets equal. It does not know paths and listings
//! (`core::tree`), nor where records are stored: it sees tables and a way to read a record back.
//!
//! Invariant: tables and answers are a function of the *set* of records, whatever the order of
//! arrival; `tests/catalogue.rs` applies the same set in random orders and compares every byte.

mod apply;
mod body;
pub(crate) mod browse;
mod change;
mod keyring;
pub(crate) mod names;
mod opened;
pub(crate) mod past;
mod place;
mod query;
mod record;
mod reveal;
mod sums;
pub mod sync;
mod table;
mod tags;

pub use apply::{
    Applied, Authority, CaughtUp, Checked, Context, GRANT_TOLERANCE_MS, GrantFacts, Refusal,
    Source, ViewMut, WAITING_MAX, apply, catch_up, vet, waiting,
};
pub use body::{
    BOX_MAX, BOXES_MAX, Content, ENDED_MAX, EpochRecord, FileRecord, INLINE_MAX, RELEASED_MAX,
    REPLICAS_MAX, Recipient, Release, SHARED, Scope, SecretBox, UNLISTED,
};
pub use change::{
    Attributes, CHANGES_MAX, Change, FileVersion, NAME_MAX, Name, Node, Place, SHARED_PATH_MAX,
    SharedFile, Special, TARGET_MAX, Target, XATTR_VALUE_MAX, XATTRS_MAX, decode_changes,
    encode_changes, entry_tag, inode_tag, is_shared_path,
};
pub use keyring::Keyring;
pub use names::{AUTHOR, Listed};
pub use opened::{Opened, OpenedRecords};
pub use past::{is_released, owed, released, settle_owed, thinned_until};
pub use place::LOST_AND_FOUND;
pub use query::{
    CANDIDATES_MAX, FOUND_MAX, FileCandidate, SealedSecret, boxes, epochs, file_record,
    files_by_claim, files_by_lookup, grants, grants_of, is_committed, known, newest_clock,
    open_statements, records_by_prefix, records_by_tag, replicas_of, sealed_secrets, tally,
};
pub use record::{
    Draft, Header, Kind, PARENTS_MAX, RECORD_MAX, Record, TooLarge, id_of, seal_tree, sign,
};
pub use reveal::Tally;
pub use sums::summary;
pub use table::{Known, TABLES, TABLES_VERSION, View};
