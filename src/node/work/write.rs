//! Changing a range of a file without a mount. Owns the way from a path to an open file; a version
//! is made at the end, as when a program closes it.

use super::door::Work;
use super::{Kind, Made, WorkError};
use crate::chunk::CHUNK_LEN;
use crate::core::tree::{Tree, TreeError, Which, components, split_version};
use crate::id::FileHash;
use crate::sys::Source;
use crate::wire::control::PathText;

/// A range that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The hash of the whole file.
    pub hash: FileHash,
    /// Its length.
    pub size: u64,
    /// Bytes that were written.
    pub bytes: u64,
}

impl Work {
    /// Writes all bytes of `source` into a file from `at` on, which is made when there is none.
    /// After an error a part of the range may have been written.
    pub async fn write(
        &self,
        path: &PathText,
        at: u64,
        source: Box<dyn Source>,
    ) -> Result<Written, WorkError> {
        self.shared.wait_for_keys().await?;
        let number = self.file_at(path)?;
        let file = self.open(number, true)?;
        let mut source = Some(source);
        let mut pos = at;
        loop {
            let Some(mut from) = source.take() else { break };
            let piece = self.shared.job(move || {
                let mut buf = vec![0; CHUNK_LEN];
                let read = from.read(&mut buf).map(|len| {
                    buf.truncate(len);
                    buf
                });
                (read, from)
            });
            let (read, from) = piece.await?;
            let bytes = read.map_err(crate::node::PutError::Read)?;
            if !bytes.is_empty() {
                file.write(Some(pos), &bytes).await?;
            }
            pos += bytes.len() as u64;
            if bytes.len() == CHUNK_LEN {
                source = Some(from);
            }
        }
        let (hash, size) = file.publish().await?;
        Ok(Written { hash, size, bytes: pos - at })
    }

    /// Whether a path stands for a version of what is or was at another one.
    fn is_version(&self, tree: &Tree<'_>, path: &[u8]) -> Result<bool, TreeError> {
        let Some((name, version)) = split_version(path) else { return Ok(false) };
        let Some(which) = Which::parse(version, self.shared.sys.clock.wall_ms()) else {
            return Ok(false);
        };
        match tree.history(name) {
            Ok(history) => Ok(history.find(&which).is_ok()),
            Err(TreeError::Io(err)) => Err(err.into()),
            Err(_) => Ok(false),
        }
    }

    /// The number of the file at a path, which is made if there is none.
    fn file_at(&self, path: &PathText) -> Result<u64, WorkError> {
        let names = components(&path.0)?;
        let Some((last, above)) = names.split_last() else {
            return Err(TreeError::IsADirectory.into());
        };
        let at = match self.walk(above) {
            Ok(stat) => stat.number,
            Err(WorkError::Tree(TreeError::NotFound)) => return Err(TreeError::NoDirectory.into()),
            Err(err) => return Err(err),
        };
        match self.lookup(at, last) {
            Ok(stat) if stat.kind == Kind::Link => Err(TreeError::IsALink.into()),
            Ok(stat) => Ok(stat.number),
            Err(WorkError::Tree(TreeError::NotFound)) => {
                // A file of that name would hide the version.
                if self.shared.with_tree(|tree| self.is_version(tree, &path.0))? {
                    return Err(TreeError::FormerVersion.into());
                }
                Ok(self.make(at, last, Made::File, 0o644, None)?.number)
            }
            Err(err) => Err(err),
        }
    }
}
