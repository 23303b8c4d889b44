//! The shared key space of the table file: where the rows of each table lie in it. Owns that layout
//! and nothing else. Invariant: the rows of a table have the order of their own keys.
//!
//! | table's name | key in the file |
//! |---|---|
//! | `name` | length of the name 1, name, key |
//! | `family/part` | length of the family 1, family, id 8, length of the part 1, part, rest |
//!
//! The keys of a table whose name has a family begin with an id, or with what is derived from the
//! same thing in all of them; its first bytes are random, so they are enough to tell it from
//! others. What the tables of a family say of one id lies together, and so one page of the file is
//! read and written for them and not one for each table.

use crate::sys::Table;

/// So many bytes of an id decide where its rows lie.
const ID: usize = 8;

/// The keys of one table.
#[derive(Clone, Copy)]
pub(super) struct Keys {
    head: &'static str,
    part: Option<&'static str>,
}

impl Keys {
    /// Those of this table.
    pub(super) fn of(table: Table) -> Self {
        match table.0.split_once('/') {
            Some((family, part)) => Self { head: family, part: Some(part) },
            None => Self { head: table.0, part: None },
        }
    }

    /// Where the row of a key lies, or where the rows begin that follow a shorter key.
    pub(super) fn full(self, key: &[u8]) -> Vec<u8> {
        let part = self.part.map_or(0, |part| 1 + part.len());
        let mut out = Vec::with_capacity(1 + self.head.len() + key.len() + part);
        put_name(&mut out, self.head);
        match (self.part, key.split_at_checked(ID)) {
            (Some(part), Some((id, rest))) => {
                out.extend_from_slice(id);
                put_name(&mut out, part);
                out.extend_from_slice(rest);
            }
            _ => out.extend_from_slice(key),
        }
        out
    }

    /// The bounds of a range; other tables of the family have rows in it, too.
    pub(super) fn bounds(self, from: &[u8], to: Option<&[u8]>) -> (Vec<u8>, Vec<u8>) {
        let end = match to {
            Some(to) => self.full(to),
            None => {
                let mut end = self.full(&[]);
                let last = end.last_mut().expect("a name is not empty");
                *last += 1;
                end
            }
        };
        (self.full(from), end)
    }

    /// The table's own key of a row in its bounds, which `out` may be needed for; none: the row is
    /// another table's.
    pub(super) fn own<'k>(self, full: &'k [u8], out: &'k mut Vec<u8>) -> Option<&'k [u8]> {
        let key = &full[1 + self.head.len()..];
        let Some(part) = self.part else { return Some(key) };
        let (id, rest) = key.split_at_checked(ID)?;
        let (len, rest) = rest.split_first()?;
        let rest = rest.strip_prefix(part.as_bytes())?;
        if usize::from(*len) != part.len() {
            return None;
        }
        out.clear();
        out.extend_from_slice(id);
        out.extend_from_slice(rest);
        Some(out)
    }
}

fn put_name(out: &mut Vec<u8>, name: &str) {
    out.push(u8::try_from(name.len()).expect("a table's name is short"));
    out.extend_from_slice(name.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: Table = Table("alone");
    const ONE: Table = Table("both/one");
    const OTHER: Table = Table("both/other");

    #[test]
    fn tables_of_a_family_share_a_place_and_no_row() {
        let (id, next) = ([7; ID], [8; ID]);
        let long = [&id[..], b"rest"].concat();
        let (one, other) = (Keys::of(ONE), Keys::of(OTHER));
        let mut rows = [one.full(&id), other.full(&long), one.full(&next), other.full(&next)];
        rows.sort();
        let ids: Vec<&[u8]> = rows.iter().map(|row| &row[5..5 + ID]).collect();
        assert_eq!(ids, [&id, &id, &next, &next]);
        let own = |keys: Keys| -> Vec<Vec<u8>> {
            let mut out = Vec::new();
            let key = |row: &Vec<u8>| keys.own(row, &mut out).map(<[u8]>::to_vec);
            rows.iter().filter_map(key).collect()
        };
        assert_eq!(own(one), [&id[..], &next]);
        assert_eq!(own(other), [&long[..], &next]);
    }

    #[test]
    fn bounds_hold_just_the_keys_between_them() {
        let keys: Vec<Vec<u8>> =
            [&[1; ID][..], &[2; ID], &[2; ID + 3], &[3; ID], &[255; ID]].map(<[u8]>::to_vec).into();
        let edges = [&[][..], &[1], &[1; ID], &[2; 5], &[2; ID], &[2; ID + 1], &[2; ID + 4], &[9]];
        for table in [ALONE, ONE, OTHER].map(Keys::of) {
            for from in edges {
                for to in edges.map(Some).into_iter().chain([None]) {
                    let (low, high) = table.bounds(from, to);
                    for key in &keys {
                        let expected = key.as_slice() >= from && to.is_none_or(|to| &key[..] < to);
                        let full = table.full(key);
                        assert_eq!(low <= full && full < high, expected, "{from:?} {to:?} {key:?}");
                    }
                }
            }
        }
    }
}
