//! The tags that people give files: an extended attribute, so that they are part of a version, go
//! where it goes, and can be set through a mount. Owns how it is read and written: in ascending
//! order with commas between. What a tag is `wire::control` says.

use super::change::Attributes;
use crate::wire::control::{FileTag, TAGS, TAGS_MAX};

impl Attributes {
    /// The tags, ascending; what a program has written there that is none is passed over.
    pub fn tags(&self) -> Vec<FileTag> {
        let value = self.xattrs.iter().find(|(name, _)| name == TAGS).map(|(_, value)| &value[..]);
        let text = std::str::from_utf8(value.unwrap_or_default()).unwrap_or_default();
        let tags = text.split(',').filter_map(|tag| FileTag::new(tag.trim()).ok());
        let mut tags: Vec<FileTag> = tags.take(TAGS_MAX).collect();
        tags.sort();
        tags.dedup();
        tags
    }

    /// Replaces the tags.
    pub fn set_tags(&mut self, mut tags: Vec<FileTag>) {
        self.xattrs.retain(|(name, _)| name != TAGS);
        if tags.is_empty() {
            return;
        }
        tags.sort();
        tags.dedup();
        let text: Vec<&str> = tags.iter().map(FileTag::as_str).collect();
        let at = self.xattrs.partition_point(|(name, _)| name.as_slice() < TAGS);
        self.xattrs.insert(at, (TAGS.to_vec(), text.join(",").into_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_an_attribute_in_its_place() {
        let xattr = |name: &str| (name.as_bytes().to_vec(), b"x".to_vec());
        let xattrs = vec![xattr("user.a"), xattr("user.z")];
        let mut attributes = Attributes { xattrs: xattrs.clone(), ..Attributes::default() };
        let tags = |texts: &[&str]| texts.iter().map(|t| FileTag::new(t).unwrap()).collect();
        let (mixed, sorted): (Vec<_>, Vec<_>) = (tags(&["b", "a", "b"]), tags(&["a", "b"]));
        attributes.set_tags(mixed);
        assert_eq!(attributes.xattrs[1], (TAGS.to_vec(), b"a,b".to_vec()));
        assert_eq!(attributes.tags(), sorted);
        attributes.xattrs[1].1 = b" b, no tag,a,,".to_vec();
        assert_eq!(attributes.tags(), sorted);
        attributes.set_tags(Vec::new());
        assert_eq!(attributes.xattrs, xattrs);
    }
}
