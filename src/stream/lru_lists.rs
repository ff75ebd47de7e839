//! Lists of slots in the order in which they were placed; every step is O(1) and none allocates but the first for a slot.

/// Disjoint lists: a slot stands in at most one of them.
#[derive(Debug)]
pub(super) struct LruLists {
    links: Vec<Links>,
    lists: Vec<Ends>,
}

#[derive(Clone, Copy, Debug)]
struct Links {
    /// `None` in no list.
    list: Option<u8>,
    before: u32,
    after: u32,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    front: u32,
    back: u32,
}

/// No slot: a table never holds 2^32 - 1.
const NONE: u32 = u32::MAX;

impl LruLists {
    pub(super) fn new(lists: u8) -> Self {
        let empty = Ends { front: NONE, back: NONE };
        Self { links: Vec::new(), lists: vec![empty; usize::from(lists)] }
    }

    pub(super) fn front(&self, list: u8) -> Option<u32> {
        self.lists.get(usize::from(list)).map(|ends| ends.front).filter(|&id| id != NONE)
    }

    /// Those of `list`, from the front.
    pub(super) fn iter(&self, list: u8) -> impl Iterator<Item = u32> {
        let after = |&id: &u32| self.links.get(id as usize).map(|links| links.after);
        std::iter::successors(self.front(list), move |id| after(id).filter(|&id| id != NONE))
    }

    /// Puts `id` at the back of `list`, out of where it stood.
    pub(super) fn place(&mut self, id: u32, list: u8) {
        self.remove(id);
        let at = id as usize;
        if at >= self.links.len() {
            self.links.resize(at + 1, Links { list: None, before: NONE, after: NONE });
        }
        let Some(ends) = self.lists.get_mut(usize::from(list)) else { return };
        let before = std::mem::replace(&mut ends.back, id);
        if before == NONE {
            ends.front = id;
        }
        if let Some(last) = self.links.get_mut(before as usize) {
            last.after = id;
        }
        if let Some(links) = self.links.get_mut(at) {
            *links = Links { list: Some(list), before, after: NONE };
        }
    }

    pub(super) fn remove(&mut self, id: u32) {
        let Some(links) = self.links.get_mut(id as usize) else { return };
        let Some(list) = links.list.take() else { return };
        let Links { before, after, .. } = *links;
        match self.links.get_mut(before as usize) {
            Some(previous) => previous.after = after,
            None => self.lists.iter_mut().skip(list.into()).take(1).for_each(|l| l.front = after),
        }
        match self.links.get_mut(after as usize) {
            Some(next) => next.before = before,
            None => self.lists.iter_mut().skip(list.into()).take(1).for_each(|l| l.back = before),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(roster: &mut LruLists, list: u8) -> Vec<u32> {
        std::iter::from_fn(|| {
            let id = roster.front(list)?;
            roster.remove(id);
            Some(id)
        })
        .collect()
    }

    #[test]
    fn order_is_that_of_the_last_placing() {
        let mut roster = LruLists::new(2);
        for id in [3, 1, 2, 0] {
            roster.place(id, 0);
        }
        roster.place(1, 0);
        roster.place(3, 1);
        roster.remove(7);
        assert_eq!(roster.iter(0).collect::<Vec<_>>(), [2, 0, 1]);
        assert_eq!(roster.iter(1).collect::<Vec<_>>(), [3]);
        assert_eq!(drained(&mut roster, 0), [2, 0, 1]);
        assert_eq!(drained(&mut roster, 1), [3]);
        roster.place(2, 1);
        assert_eq!((roster.front(0), roster.front(1)), (None, Some(2)));
    }
}
