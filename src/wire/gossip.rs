//! What members say to each other about the swarm: protocol version 1 of the membership gossip.
//! `core::membership` decides what is said when; this file owns the messages and their bytes, and
//! [`MemberRecord`] lies in `record`.
//!
//! A message is one control frame of at most [`MESSAGE_MAX`] bytes: a code byte and its fields in
//! the layout of [`crate::wire::codec`]. Codes are never reused.
//!
//! | code | message | fields |
//! |---|---|---|
//! | 1 | Hello  | record, root u128, count u32 |
//! | 2 | Ping   | stamp u32, echo u32, held u32, links u8 |
//! | 3 | News   | records ≤ 32, have ≤ 256 × (id, stamp), rumours ≤ 128 |
//! | 4 | Ask    | ids ≤ 512 |
//! | 5 | Prune  | |
//! | 6 | Digest | root u128, count u32 |
//! | 7 | Sums   | count u32, 256 × u64 |
//! | 8 | Pull   | buckets ≤ 256 × u8 ascending, have ≤ 1,024 × (id, stamp, dead bool) |
//! | 9 | Table  | entries ≤ 48 × (record, option of age u32), want ≤ 512 ids, last bool |
//! | 10 | Probe | id |
//! | 11 | Drop  | records ≤ 8 |
//!
//! A stamp is (epoch u64, seq u32). A rumour is (id, stamp, dead bool, voters ≤ 3 × 8 bytes).
//!
//! Invariant: every list limit below, filled to the brim, still fits [`MESSAGE_MAX`] (tested).

mod record;
#[cfg(test)]
mod tests;

pub use record::{MemberFlags, MemberRecord, RECORD_MAX, Reach, Stamp};

use crate::id::NodeId;
use crate::wire::codec::{Decode, Encode, Malformed, Reader, put_list};
use std::sync::Arc;

/// Largest message in bytes: the limit of a control frame.
pub const MESSAGE_MAX: usize = 64 * 1024;
/// Most records in one [`GossipMessage::News`].
pub const NEWS_RECORDS: usize = 32;
/// Most announcements in one [`GossipMessage::News`].
pub const NEWS_HAVE: usize = 256;
/// Most rumours in one [`GossipMessage::News`].
pub const NEWS_RUMOURS: usize = 128;
/// Most ids in one [`GossipMessage::Ask`], and most wanted ids in one [`GossipMessage::Table`].
pub const ASK_IDS: usize = 512;
/// Parts of the table that have a sum of their own; a member's part is the first byte of its id.
pub const BUCKETS: usize = 256;
/// Most summaries in one [`GossipMessage::Pull`].
pub const PULL_HAVE: usize = 1024;
/// Most entries in one [`GossipMessage::Table`].
pub const TABLE_ENTRIES: usize = 48;
/// Most records in one [`GossipMessage::Drop`].
pub const DROP_RECORDS: usize = 8;
/// Most voters named by a rumour: as many as a death needs.
pub const VOTERS: usize = 3;

/// A member that vouches for a suspicion: the first 8 bytes of its id.
pub type Voter = [u8; 8];

/// "I cannot reach this member": unsigned, about exactly one stamp, so that the owner refutes it
/// with any newer record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rumour {
    /// Whom it is about.
    pub id: NodeId,
    /// Which of its records it is about.
    pub stamp: Stamp,
    /// Whether the sender already holds it for dead.
    pub dead: bool,
    /// Who lost it and could not dial it; at most [`VOTERS`].
    pub voters: Vec<Voter>,
}

/// One line of a table summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// The member.
    pub id: NodeId,
    /// The newest of its records that the sender has.
    pub stamp: Stamp,
    /// Whether the sender holds it for dead.
    pub dead: bool,
}

/// One line of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The member's newest record.
    pub record: Arc<MemberRecord>,
    /// When the sender holds it for gone (dead or left): since how many seconds.
    pub gone: Option<u32>,
}

/// A message between two linked members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GossipMessage {
    /// The first message on a link, from both sides.
    Hello {
        /// The sender's own record.
        record: Arc<MemberRecord>,
        /// Sum over its table.
        root: u128,
        /// Members in its table.
        count: u32,
    },
    /// A sign of life, once a period. It answers the last one, so both sides learn the round trip.
    Ping {
        /// The sender's clock in microseconds, wrapping.
        stamp: u32,
        /// The stamp of the last ping that the sender got on this link; 0 for none.
        echo: u32,
        /// Microseconds since that ping came.
        held: u32,
        /// How many links the sender has (255: that many or more).
        links: u8,
    },
    /// New records for an eager link, announcements for a lazy one, rumours for both.
    News {
        /// Records that the receiver should not know yet.
        records: Vec<Arc<MemberRecord>>,
        /// Records that the sender has, should the receiver miss them.
        have: Vec<(NodeId, Stamp)>,
        /// Suspicions.
        rumours: Vec<Rumour>,
    },
    /// "Send me these, and send me records on this link from now on" (PlumTree's graft).
    Ask {
        /// Which members' records.
        ids: Vec<NodeId>,
    },
    /// "I get records elsewhere sooner; only announce them here" (PlumTree's prune).
    Prune,
    /// Opens a comparison of tables.
    Digest {
        /// Sum over the sender's table.
        root: u128,
        /// Members in its table.
        count: u32,
    },
    /// The answer to a digest (or hello) that differs.
    Sums {
        /// Members in the sender's table.
        count: u32,
        /// One sum per part of the table.
        sums: Box<[u64; BUCKETS]>,
    },
    /// "In these parts of the table I have this; send me what I miss."
    Pull {
        /// Which parts, ascending.
        buckets: Vec<u8>,
        /// All that the sender has in them.
        have: Vec<Summary>,
    },
    /// A page of the table.
    Table {
        /// The members.
        entries: Vec<Entry>,
        /// Whose records the sender would like in return.
        want: Vec<NodeId>,
        /// Whether this page ends the answer to a pull.
        last: bool,
    },
    /// "Can you reach this member? If not, say so to all."
    Probe {
        /// Which member.
        id: NodeId,
    },
    /// "I have too many links and end this one on purpose; try these instead."
    Drop {
        /// Members to link to.
        records: Vec<Arc<MemberRecord>>,
    },
}

impl Encode for Stamp {
    fn encode(&self, out: &mut Vec<u8>) {
        self.epoch.encode(out);
        self.seq.encode(out);
    }
}

impl Decode for Stamp {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { epoch: u64::decode(from)?, seq: u32::decode(from)? })
    }
}

impl Encode for Rumour {
    fn encode(&self, out: &mut Vec<u8>) {
        self.id.encode(out);
        self.stamp.encode(out);
        self.dead.encode(out);
        put_list(out, &self.voters);
    }
}

impl Decode for Rumour {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            id: NodeId::decode(from)?,
            stamp: Stamp::decode(from)?,
            dead: bool::decode(from)?,
            voters: from.list(VOTERS)?,
        })
    }
}

impl Encode for Summary {
    fn encode(&self, out: &mut Vec<u8>) {
        self.id.encode(out);
        self.stamp.encode(out);
        self.dead.encode(out);
    }
}

impl Decode for Summary {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            id: NodeId::decode(from)?,
            stamp: Stamp::decode(from)?,
            dead: bool::decode(from)?,
        })
    }
}

impl Encode for Entry {
    fn encode(&self, out: &mut Vec<u8>) {
        self.record.encode(out);
        self.gone.encode(out);
    }
}

impl Decode for Entry {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { record: Decode::decode(from)?, gone: Decode::decode(from)? })
    }
}

impl Encode for GossipMessage {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.code());
        match self {
            Self::Hello { record, root, count } => {
                record.encode(out);
                root.encode(out);
                count.encode(out);
            }
            Self::Ping { stamp, echo, held, links } => {
                stamp.encode(out);
                echo.encode(out);
                held.encode(out);
                links.encode(out);
            }
            Self::News { records, have, rumours } => {
                put_list(out, records);
                put_list(out, have);
                put_list(out, rumours);
            }
            Self::Ask { ids } => put_list(out, ids),
            Self::Prune => {}
            Self::Digest { root, count } => {
                root.encode(out);
                count.encode(out);
            }
            Self::Sums { count, sums } => {
                count.encode(out);
                sums.iter().for_each(|sum| sum.encode(out));
            }
            Self::Pull { buckets, have } => {
                put_list(out, buckets);
                put_list(out, have);
            }
            Self::Table { entries, want, last } => {
                put_list(out, entries);
                put_list(out, want);
                last.encode(out);
            }
            Self::Probe { id } => id.encode(out),
            Self::Drop { records } => put_list(out, records),
        }
    }
}

impl Decode for GossipMessage {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        if from.remaining() > MESSAGE_MAX {
            return Err(Malformed::TooLong { len: from.remaining(), max: MESSAGE_MAX });
        }
        Ok(match u8::decode(from)? {
            1 => Self::Hello {
                record: Decode::decode(from)?,
                root: u128::decode(from)?,
                count: u32::decode(from)?,
            },
            2 => Self::Ping {
                stamp: u32::decode(from)?,
                echo: u32::decode(from)?,
                held: u32::decode(from)?,
                links: u8::decode(from)?,
            },
            3 => Self::News {
                records: from.list(NEWS_RECORDS)?,
                have: from.list(NEWS_HAVE)?,
                rumours: from.list(NEWS_RUMOURS)?,
            },
            4 => Self::Ask { ids: from.list(ASK_IDS)? },
            5 => Self::Prune,
            6 => Self::Digest { root: u128::decode(from)?, count: u32::decode(from)? },
            7 => Self::decode_sums(from)?,
            8 => Self::decode_pull(from)?,
            9 => Self::Table {
                entries: from.list(TABLE_ENTRIES)?,
                want: from.list(ASK_IDS)?,
                last: bool::decode(from)?,
            },
            10 => Self::Probe { id: NodeId::decode(from)? },
            11 => Self::Drop { records: from.list(DROP_RECORDS)? },
            _ => return Err(Malformed::Invalid("gossip message code")),
        })
    }
}

impl GossipMessage {
    const fn code(&self) -> u8 {
        match self {
            Self::Hello { .. } => 1,
            Self::Ping { .. } => 2,
            Self::News { .. } => 3,
            Self::Ask { .. } => 4,
            Self::Prune => 5,
            Self::Digest { .. } => 6,
            Self::Sums { .. } => 7,
            Self::Pull { .. } => 8,
            Self::Table { .. } => 9,
            Self::Probe { .. } => 10,
            Self::Drop { .. } => 11,
        }
    }

    fn decode_sums(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = u32::decode(from)?;
        let mut sums = Box::new([0; BUCKETS]);
        for sum in sums.iter_mut() {
            *sum = u64::decode(from)?;
        }
        Ok(Self::Sums { count, sums })
    }

    fn decode_pull(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let buckets: Vec<u8> = from.list(BUCKETS)?;
        if !buckets.is_sorted_by(|a, b| a < b) {
            return Err(Malformed::Invalid("order of buckets"));
        }
        Ok(Self::Pull { buckets, have: from.list(PULL_HAVE)? })
    }
}
