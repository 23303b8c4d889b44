//! How a person names a file of the swarm: a hash, the beginning of one, a pasted line of `b3sum`,
//! a link, a path, or what a node serves from where it lies. Decided by the form alone, never by
//! asking; the daemon looks it up.

use super::error::CommandError;
use crate::id::{FileHash, ParseIdError};
use crate::text::{shown, shown_bytes};
use crate::wire::control::{Code, Failure, PathText, Target};
use crate::wire::link::{LINK_START, LinkError};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Fewest digits of a hash that name a file.
const PREFIX_MIN: usize = 8;
/// A prefix of at least this length was probably meant as a whole hash.
const NEARLY_WHOLE: usize = 60;
/// Longest name in bytes, as on every usual file system.
const NAME_MAX: usize = 255;
/// Longest path in bytes, as `PATH_MAX` of Linux allows it.
const PATH_MAX: usize = 4096;

/// Reads what names a file.
pub(super) fn parse(text: &OsStr) -> Result<Target, CommandError> {
    if text.as_bytes().first() == Some(&b'/') {
        return path(text).map(Target::Path);
    }
    if let Some(share) = shared(text)? {
        return Ok(share);
    }
    let text = text.to_string_lossy();
    if text.trim_start().to_ascii_lowercase().starts_with(LINK_START) {
        let link = text.parse().map_err(|err: LinkError| damaged(&err))?;
        return Ok(Target::Link(link));
    }
    let word = text.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
    match word.parse::<FileHash>() {
        Ok(hash) => Ok(Target::Hash(hash)),
        Err(ParseIdError::Length { got, .. }) if (PREFIX_MIN..64).contains(&got) => {
            Ok(Target::Prefix(word))
        }
        Err(ParseIdError::Length { want, got }) if got < PREFIX_MIN => Err(not_a_hash(
            &text,
            &format!(
                "{want} hex characters expected, or at least the first {PREFIX_MIN}, got {got}"
            ),
        )),
        Err(ParseIdError::Length { want, got }) => {
            Err(not_a_hash(&text, &format!("{want} hex characters expected, got {got}")))
        }
        Err(ParseIdError::Digit { found, at }) if word.len() >= PREFIX_MIN => Err(not_a_hash(
            &text,
            &format!("`{}` at place {at} is not a hex digit", found.escape_default()),
        )),
        Err(ParseIdError::Digit { .. }) => Err(not_a_hash(
            &text,
            &format!("64 hex characters expected, got {}", word.chars().count()),
        )),
    }
}

/// Reads `PEER:/path`, what a node serves from where it lies; none: it is not of that form.
fn shared(text: &OsStr) -> Result<Option<Target>, CommandError> {
    let bytes = text.as_bytes();
    let Some(at) = bytes.windows(2).position(|two| two == b":/") else { return Ok(None) };
    let (peer, rest) = (&bytes[..at], &bytes[at + 1..]);
    let Some(peer) = std::str::from_utf8(peer).ok().filter(|peer| !peer.contains('/')) else {
        return Ok(None);
    };
    if peer.is_empty() {
        let failure = Failure::new(Code::Usage, "the name of a node is missing before the `:`");
        return Err(failure.hint("what is shared by whom:  p2pfs ls --shares").into());
    }
    let path = path(OsStr::from_bytes(rest))?;
    Ok(Some(Target::Share { peer: peer.to_owned(), path }))
}

fn damaged(err: &LinkError) -> CommandError {
    let hint = match err {
        LinkError::Damaged => "copy all of it once more, without spaces or line ends in it",
        LinkError::Version(_) => "update this p2pfs:  p2pfs --version",
    };
    Failure::new(Code::Usage, err.to_string()).hint(hint).into()
}

fn not_a_hash(text: &str, why: &str) -> CommandError {
    let text = shown(text.trim());
    Failure::new(Code::Usage, format!("`{text}` is not a hash: {why}"))
        .hint(format!("a name begins with a slash:  /{text}"))
        .hint("all files:  p2pfs ls")
        .into()
}

/// Adds to a failed look-up what its form tells: somebody who gives 63 digits has lost one.
pub(super) fn explain(target: &Target, failure: Failure) -> Failure {
    match target {
        Target::Prefix(prefix)
            if failure.code == Code::NotFound && prefix.len() >= NEARLY_WHOLE =>
        {
            let hint = format!("a whole hash has 64 hex characters, this one {}", prefix.len());
            failure.hint(hint)
        }
        _ => failure,
    }
}

/// Reads a path of the tree; the slash at its beginning may be left out. Empty parts vanish.
pub(super) fn path(text: &OsStr) -> Result<PathText, CommandError> {
    let mut out = Vec::with_capacity(text.len() + 1);
    for part in text.as_bytes().split(|&byte| byte == b'/').filter(|part| !part.is_empty()) {
        if part == b"." || part == b".." {
            let whole = shown_bytes(text.as_bytes());
            return Err(usage(format!("`{whole}`: a path of the swarm has no `.` or `..`")));
        }
        if part.len() > NAME_MAX {
            let len = part.len();
            return Err(usage(format!("a name has {len} bytes, {NAME_MAX} are possible")));
        }
        out.push(b'/');
        out.extend_from_slice(part);
    }
    if out.len() > PATH_MAX {
        return Err(usage(format!("the path has {} bytes, {PATH_MAX} are possible", out.len())));
    }
    if out.is_empty() {
        out.push(b'/');
    }
    Ok(PathText(out))
}

/// The path under which `put` lists a file: `name` as it is, or, when it ends with a slash, a
/// directory for `own`, the file's own name.
pub(super) fn listed(name: &OsStr, own: Option<&OsStr>) -> Result<PathText, CommandError> {
    let mut whole = name.as_bytes().to_vec();
    if name.is_empty() || whole.ends_with(b"/") {
        let Some(own) = own else {
            return Err(usage("a name for the file is missing after the last slash".into()));
        };
        whole.push(b'/');
        whole.extend_from_slice(own.as_bytes());
    }
    path(OsStr::from_bytes(&whole))
}

fn usage(message: String) -> CommandError {
    Failure::new(Code::Usage, message).hint("a path looks like  /reports/q3.pdf").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(text: &str) -> String {
        match parse(OsStr::new(text)) {
            Err(CommandError::Failed(failure)) if failure.code == Code::Usage => failure.message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn hashes_in_every_usual_form_are_accepted() {
        let hash = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        let target = Target::Hash(hash.parse().unwrap());
        for text in [
            hash.to_owned(),
            hash.to_uppercase(),
            format!("  {hash}\n"),
            format!("{hash}  some file.txt"),
        ] {
            assert_eq!(parse(OsStr::new(&text)).unwrap(), target);
        }
        let prefix = parse(OsStr::new("AF1349B9")).unwrap();
        assert_eq!(prefix, Target::Prefix("af1349b9".into()));
    }

    #[test]
    fn a_wrong_hash_says_what_is_wrong() {
        let hash = "a".repeat(64);
        assert!(failure("xyz").contains("64 hex characters expected, got 3"));
        assert!(failure("abc").contains("at least the first 8, got 3"));
        assert!(failure(&format!("{hash}a")).contains("64 hex characters expected, got 65"));
        assert!(failure(&hash.replacen('a', "g", 1)).contains("`g` at place 1 is not a hex digit"));
        assert!(failure("").contains("got 0"));
        assert!(failure("n\u{1b}ame").contains("n\\u{1b}ame"));
        let short = Target::Prefix("a".repeat(63));
        let told = explain(&short, Failure::new(Code::NotFound, "no such file"));
        assert!(told.hints[0].contains("64 hex characters, this one 63"));
    }

    #[test]
    fn paths_are_put_into_one_form() {
        for (text, expected) in [("/a//b/", "/a/b"), ("a", "/a"), ("/", "/"), ("", "/")] {
            assert_eq!(path(OsStr::new(text)).unwrap(), PathText::from(expected));
        }
        assert!(path(OsStr::new("/a/../b")).is_err());
        assert!(path(OsStr::new(&"n".repeat(256))).is_err());
        assert!(path(OsStr::new(&"n".repeat(255))).is_ok());
        assert!(path(OsStr::new(&"/nn".repeat(1366))).is_err());
        let bytes = OsStr::from_bytes(b"/\xff");
        assert_eq!(parse(bytes).unwrap(), Target::Path(PathText(b"/\xff".to_vec())));
    }

    #[test]
    fn a_share_is_named_by_its_node_and_its_path() {
        let target = parse(OsStr::new("otter:/films//a.mkv")).unwrap();
        let path = PathText::from("/films/a.mkv");
        assert_eq!(target, Target::Share { peer: "otter".into(), path });
        assert!(failure(":/films").contains("name of a node is missing"));
        assert!(failure("otter:/a/../b").contains("no `.` or `..`"));
        let path = parse(OsStr::new("/a:/b")).unwrap();
        assert_eq!(path, Target::Path("/a:/b".into()));
    }

    #[test]
    fn a_listed_name_may_be_a_directory() {
        let own = Some(OsStr::new("f"));
        assert_eq!(listed(OsStr::new("/d/"), own).unwrap(), PathText::from("/d/f"));
        assert_eq!(listed(OsStr::new("x"), own).unwrap(), PathText::from("/x"));
        assert!(listed(OsStr::new("/d/"), None).is_err());
    }
}
