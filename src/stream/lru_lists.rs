//! Doubly linked lists of slot numbers, in the order of their last use. Every operation is O(1); only the first one on a
//! slot may allocate.

/// Disjoint lists: a slot is in at most one of them.
#[derive(Debug)]
pub(super) struct LruLists {
    links: Vec<Links>,
    lists: Vec<Ends>,
}

#[derive(Clone, Copy, Debug)]
struct Links {
    /// The list that holds the slot, if any.
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

    /// The slots of `list`, from the front.
    pub(super) fn iter(&self, list: u8) -> impl Iterator<Item = u32> {
        let after = |&id: &u32| self.links.get(id as usize).map(|links| links.after);
        std::iter::successors(self.front(list), move |id| after(id).filter(|&id| id != NONE))
    }

    /// Moves `id` to the back of `list`, from whichever list holds it.
    pub(super) fn move_to_back(&mut self, id: u32, list: u8) {
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

    fn drain(lists: &mut LruLists, list: u8) -> Vec<u32> {
        std::iter::from_fn(|| {
            let id = lists.front(list)?;
            lists.remove(id);
            Some(id)
        })
        .collect()
    }

    #[test]
    fn slots_are_in_the_order_of_their_last_move() {
        let mut lists = LruLists::new(2);
        for id in [3, 1, 2, 0] {
            lists.move_to_back(id, 0);
        }
        lists.move_to_back(1, 0);
        lists.move_to_back(3, 1);
        lists.remove(7);
        assert_eq!(lists.iter(0).collect::<Vec<_>>(), [2, 0, 1]);
        assert_eq!(lists.iter(1).collect::<Vec<_>>(), [3]);
        assert_eq!(drain(&mut lists, 0), [2, 0, 1]);
        assert_eq!(drain(&mut lists, 1), [3]);
        lists.move_to_back(2, 1);
        assert_eq!((lists.front(0), lists.front(1)), (None, Some(2)));
    }
}
