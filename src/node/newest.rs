//! A map with a bound: when it is full, what came first is forgotten first.

use std::collections::{BTreeMap, VecDeque};

/// The last `MOST` keys with their values. A key that is inserted again keeps its age.
pub(super) struct Newest<K, V, const MOST: usize> {
    values: BTreeMap<K, V>,
    order: VecDeque<K>,
}

impl<K, V, const MOST: usize> Default for Newest<K, V, MOST> {
    fn default() -> Self {
        Self { values: BTreeMap::new(), order: VecDeque::new() }
    }
}

impl<K: Copy + Ord, V, const MOST: usize> Newest<K, V, MOST> {
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.values.get(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.values.insert(key, value).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.values.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Newest;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut newest: Newest<u8, &str, 2> = Newest::default();
        for (key, value) in [(1, "a"), (2, "b"), (1, "c"), (3, "d")] {
            newest.insert(key, value);
        }
        assert_eq!([1, 2, 3].map(|key| newest.get(&key).copied()), [None, Some("b"), Some("d")]);
    }
}
