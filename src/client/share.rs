//! What a client asks about files that are served from where they lie. Each method is one request.

use super::landing::refused;
use super::{Client, Items};
use crate::text::{reason, shown_path};
use crate::wire::control::{
    Code, Failure, PathText, Request, Share, ShareDone, ShareInfo, Unshared,
};
use rustix::fs::{Mode, OFlags};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

impl Client {
    /// Has the daemon serve a file or directory from where it lies; the reply comes when all of it
    /// is known to the others. Dropping the future ends the waiting and nothing else.
    ///
    /// # Errors
    /// Before anything is sent: [`Code::NotFound`] and [`Code::Denied`]. Otherwise what the daemon
    /// says.
    pub async fn share(
        &self,
        path: &Path,
        name: Option<PathText>,
        replicas: Option<u8>,
    ) -> Result<ShareDone, Failure> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|err| match err {
            rustix::io::Errno::NOENT => {
                let name = shown_path(path);
                Failure::new(Code::NotFound, format!("no such file or directory: {name}"))
                    .hint("what is here:  ls")
            }
            err => refused("cannot read", path, err),
        })?;
        // The person named it, so here a link is what it points to.
        let whole = std::fs::canonicalize(path).map_err(|err| {
            let (name, why) = (shown_path(path), reason(&err));
            Failure::new(Code::Failed, format!("cannot read {name}: {why}"))
        })?;
        let path = PathText(whole.into_os_string().into_vec());
        let request = Request::Share(Share { path, name, replicas });
        self.open(request, vec![fd]).await?.reply(self.watch.as_ref()).await
    }

    /// Has the daemon serve it no more: what was shared is named by its path here, by what it is
    /// called, or by its hash.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn unshare(&self, what: &Path) -> Result<Unshared, Failure> {
        let whole = std::fs::canonicalize(what).or_else(|_| std::path::absolute(what));
        let path = whole.ok().map(|path| PathText(path.into_os_string().into_vec()));
        let what = PathText(what.as_os_str().as_bytes().to_vec());
        self.ask(Request::Unshare { what, path }).await
    }

    /// What is shared by everybody or, with a peer, by that one at a path and below.
    ///
    /// # Errors
    /// What the daemon says.
    pub async fn shares(
        &self,
        of: Option<(String, PathText)>,
    ) -> Result<Items<ShareInfo>, Failure> {
        let (peer, path) = of.unzip();
        self.items(Request::Shares { peer, path }).await
    }
}
