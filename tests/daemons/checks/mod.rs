//! The checkers: what must be true whatever happened. Each says what it found wrong, as sentences
//! that begin with the invariant.
//!
//! | invariant | judged by | when |
//! |---|---|---|
//! | I1 what was acknowledged can be read while at most one node is lost | `acknowledged` | after healing, and with one more machine lost |
//! | I2 bytes that are returned hash to what was asked for | `content` | each get |
//! | I3 no file is visible with a chunk that lacks its copies | `visible` | what anybody listed is read after healing |
//! | I4 a claimed chunk is never given up | `kept` | every few seconds, on the disks |
//! | I5 an index entry leads to a record with that name | `index` | at the end, on the disks |
//! | I6 after healing and quiet every file has its copies, on distinct machines | `copies` | after healing: nodes and disks |
//! | I7 all nodes show one tree | `equal` | after healing |
//! | I8 who was turned out gets nothing more | nobody: nothing can be revoked yet | |
//! | I9 no node uses more memory than its limit | `memory` | all the time |
//! | I10 nothing lies in the clear on a disk or on the network | `plaintext` | all bytes delivered; at the end all disks |
//! | I11 what was removed stays away, and its space comes back | `removed` | after healing: nodes and disks |

pub(crate) mod acknowledged;
pub(crate) mod content;
pub(crate) mod copies;
pub(crate) mod equal;
pub(crate) mod index;
pub(crate) mod kept;
pub(crate) mod memory;
pub(crate) mod plaintext;
pub(crate) mod removed;
pub(crate) mod visible;
