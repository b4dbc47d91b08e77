//! The bounded table of a rule's groups.
//!
//! Groups stand in tiers by how near their threshold they are. When the table is full, the group that was longest
//! without an observation goes, from the lowest tier that has any; a group above half its threshold, or with an open
//! finding, never goes. If only such are left, what has no group is counted together in one *overflow* group: a flood of
//! new groups can neither push out an old one that matters nor stay unseen itself. Every step is O(1).

use std::collections::HashMap;

use ahash::RandomState;

use super::group::{Group, GroupKey};

/// Tiers of groups without an open finding: eighths of the threshold.
const EIGHTHS: usize = 8;
/// Tiers from which groups may be evicted: at most half the threshold.
const EVICTABLE: usize = EIGHTHS / 2;
/// The tier of groups with an open finding.
const OPEN: usize = EIGHTHS;
/// No slot.
const NIL: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    before: u32,
    after: u32,
    tier: usize,
    used: bool,
}

#[derive(Clone, Copy, Debug)]
struct List {
    oldest: u32,
    youngest: u32,
}

/// Groups by key.
#[derive(Debug)]
pub(super) struct Groups {
    index: HashMap<GroupKey, u32, RandomState>,
    slots: Vec<Group>,
    links: Vec<Link>,
    free: Vec<u32>,
    tiers: [List; OPEN + 1],
    overflow: Group,
    overflow_used: bool,
    capacity: usize,
    values_bound: usize,
    /// Groups pushed out.
    pub evicted: u64,
}

/// Where a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Own(u32),
    Overflow,
}

impl Groups {
    /// At most `capacity` groups (at least one), each counting up to `values_bound` values exactly.
    pub fn new(capacity: usize, values_bound: usize) -> Self {
        Self {
            index: HashMap::default(),
            slots: Vec::new(),
            links: Vec::new(),
            free: Vec::new(),
            tiers: [List { oldest: NIL, youngest: NIL }; OPEN + 1],
            overflow: Group::new(values_bound),
            overflow_used: false,
            capacity: capacity.clamp(1, NIL as usize - 1),
            values_bound,
            evicted: 0,
        }
    }

    /// Groups that are kept, the overflow group among them.
    pub fn len(&self) -> usize {
        self.index.len() + usize::from(self.overflow_used)
    }

    /// The group of `key`, if there is one.
    pub fn find(&self, key: &GroupKey) -> Option<Slot> {
        if self.index.is_empty() {
            return None;
        }
        self.index.get(key).map(|slot| Slot::Own(*slot))
    }

    /// The group of `key`, made if need be.
    pub fn slot(&mut self, key: GroupKey, now: u64) -> Slot {
        if let Some(slot) = self.index.get(&key) {
            return Slot::Own(*slot);
        }
        let Some(slot) = self.room() else {
            if !self.overflow_used {
                self.overflow_used = true;
                self.overflow.reset(None, now);
            }
            return Slot::Overflow;
        };
        self.index.insert(key, slot);
        if let (Some(group), Some(link)) = (self.slots.get_mut(slot as usize), self.links.get_mut(slot as usize)) {
            group.reset(Some(key), now);
            *link = Link { before: NIL, after: NIL, tier: 0, used: true };
        }
        self.push(slot, 0);
        Slot::Own(slot)
    }

    /// A slot for a new group: never used, freed, or taken from the least worth keeping.
    fn room(&mut self) -> Option<u32> {
        if let Some(slot) = self.free.pop() {
            return Some(slot);
        }
        if self.slots.len() < self.capacity {
            self.slots.push(Group::new(self.values_bound));
            self.links.push(Link { before: NIL, after: NIL, tier: 0, used: false });
            return u32::try_from(self.slots.len() - 1).ok();
        }
        let victim = self.tiers.iter().take(EVICTABLE).map(|list| list.oldest).find(|slot| *slot != NIL)?;
        self.evicted += 1;
        self.remove(Slot::Own(victim));
        self.free.pop()
    }

    /// The group at `slot`.
    pub fn get(&mut self, slot: Slot) -> Option<&mut Group> {
        match slot {
            Slot::Own(slot) => self.slots.get_mut(slot as usize),
            Slot::Overflow => Some(&mut self.overflow),
        }
    }

    /// Files the group by how far it is on the way to `threshold`; `touched` makes it the youngest of its tier.
    pub fn file(&mut self, slot: Slot, count: u64, threshold: u64, open: bool, touched: bool) {
        let Slot::Own(slot) = slot else { return };
        let eighths = count.saturating_mul(EIGHTHS as u64).saturating_sub(1) / threshold.max(1);
        let tier = if open { OPEN } else { usize::try_from(eighths).unwrap_or(usize::MAX).min(EIGHTHS - 1) };
        let before = self.links.get(slot as usize).map_or(tier, |link| link.tier);
        if touched || before != tier {
            self.unlink(slot);
            self.push(slot, tier);
        }
    }

    /// Gives the group up.
    pub fn remove(&mut self, slot: Slot) {
        let slot = match slot {
            Slot::Own(slot) => slot,
            Slot::Overflow => {
                self.overflow.reset(None, 0);
                self.overflow_used = false;
                return;
            }
        };
        self.unlink(slot);
        if let (Some(group), Some(link)) = (self.slots.get_mut(slot as usize), self.links.get_mut(slot as usize)) {
            if let Some(key) = group.key.take() {
                self.index.remove(&key);
            }
            // Large tables go back at once, small ones serve the next group.
            group.reset(None, 0);
            link.used = false;
            self.free.push(slot);
        }
    }

    /// All groups that are kept, in slot order, the overflow group last.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        let used: Vec<Slot> =
            (0u32..).zip(&self.links).filter(|(_, link)| link.used).map(|(slot, _)| Slot::Own(slot)).collect();
        used.into_iter().chain(self.overflow_used.then_some(Slot::Overflow))
    }

    fn push(&mut self, slot: u32, tier: usize) {
        let Some(list) = self.tiers.get_mut(tier) else { return };
        let youngest = std::mem::replace(&mut list.youngest, slot);
        if youngest == NIL {
            list.oldest = slot;
        } else if let Some(link) = self.links.get_mut(youngest as usize) {
            link.after = slot;
        }
        if let Some(link) = self.links.get_mut(slot as usize) {
            (link.before, link.after, link.tier) = (youngest, NIL, tier);
        }
    }

    fn unlink(&mut self, slot: u32) {
        let Some(Link { before, after, tier, .. }) = self.links.get(slot as usize).copied() else { return };
        match self.links.get_mut(before as usize) {
            Some(link) => link.after = after,
            None => {
                if let Some(list) = self.tiers.get_mut(tier) {
                    list.oldest = after;
                }
            }
        }
        match self.links.get_mut(after as usize) {
            Some(link) => link.before = before,
            None => {
                if let Some(list) = self.tiers.get_mut(tier) {
                    list.youngest = before;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> GroupKey {
        GroupKey::new([Some([number; 16])])
    }

    fn kept(groups: &Groups) -> Vec<u8> {
        let mut kept: Vec<u8> = groups.index.keys().map(|key| key.get(0).unwrap()[0]).collect();
        kept.sort_unstable();
        kept
    }

    #[test]
    fn the_lowest_then_the_oldest_goes() {
        let mut groups = Groups::new(3, 10);
        for (number, count) in [(1, 3), (2, 1), (3, 1)] {
            let slot = groups.slot(key(number), 0);
            groups.file(slot, count, 10, false, true);
        }
        let two = groups.slot(key(2), 0);
        groups.file(two, 1, 10, false, true);
        groups.slot(key(4), 0);
        assert_eq!(kept(&groups), [1, 2, 4], "3 is as low as 2 and was touched before it");
        assert_eq!(groups.evicted, 1);
    }

    #[test]
    fn more_than_half_is_safe_and_the_rest_overflows() {
        let mut groups = Groups::new(2, 10);
        for (number, count, open) in [(1, 6, false), (2, 1, true)] {
            let slot = groups.slot(key(number), 0);
            groups.file(slot, count, 10, open, true);
        }
        assert_eq!(groups.slot(key(3), 0), Slot::Overflow);
        assert_eq!((kept(&groups), groups.evicted, groups.len()), (vec![1, 2], 0, 3));
        let one = groups.slot(key(1), 0);
        groups.file(one, 5, 10, false, false);
        assert!(matches!(groups.slot(key(3), 0), Slot::Own(_)), "half is not more than half");
        assert_eq!((kept(&groups), groups.evicted), (vec![2, 3], 1));
        groups.remove(Slot::Overflow);
        assert_eq!(groups.slots().count(), 2);
    }
}
