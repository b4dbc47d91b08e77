//! The open findings, and which of them a finding can share something with.
//!
//! Members flow in and out by their id; the eldest kin of a member and the eldest without children flow out. Beside the
//! members stand three indexes, none of which holds more than the members do: who names an account, who has a mark, and
//! who has no children. An index only proposes; [`Member::is_kin`] decides, so the answer is that of a comparison with
//! every member.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use ahash::RandomState;

use super::Member;
use crate::observation::AccountHash;

/// Where a member stands in the table.
type Slot = u32;

/// Slots that share an entry of the index of accounts.
const BLOCK: Slot = u64::BITS;

/// The open findings that are compared.
#[derive(Debug, Default)]
pub(super) struct Table {
    members: Vec<Option<Member>>,
    free: Vec<Slot>,
    slots: BTreeMap<String, Slot>,
    kin: Kin,
    /// How many members have that parent, open or not.
    children: HashMap<String, usize, RandomState>,
    /// Members that are nobody's parent, eldest first.
    childless: BTreeMap<u64, Slot>,
}

impl Table {
    /// Members.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// The member of that id. Its accounts change by [`Table::resample`] only, its id, marks, service and parent never.
    pub fn get_mut(&mut self, uid: &str) -> Option<&mut Member> {
        let slot = *self.slots.get(uid)?;
        self.members.get_mut(place(slot))?.as_mut()
    }

    /// Takes a member, instead of one that had its id.
    pub fn insert(&mut self, member: Member) {
        self.remove(&member.uid);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.members.push(None);
            Slot::try_from(self.members.len() - 1).unwrap_or(Slot::MAX)
        });
        if let Some(parent) = &member.parent {
            *self.children.entry(parent.clone()).or_default() += 1;
            if let Some(parent) = self.slots.get(parent).and_then(|slot| self.members.get(place(*slot))?.as_ref()) {
                self.childless.remove(&parent.order);
            }
        }
        if !self.children.contains_key(&member.uid) {
            self.childless.insert(member.order, slot);
        }
        self.slots.insert(member.uid.clone(), slot);
        self.kin.list(slot, &member);
        if let Some(place) = self.members.get_mut(place(slot)) {
            *place = Some(member);
        }
    }

    /// Gives up the member of that id.
    pub fn remove(&mut self, uid: &str) -> Option<Member> {
        let slot = self.slots.remove(uid)?;
        let member = self.members.get_mut(place(slot))?.take()?;
        self.free.push(slot);
        self.kin.strike(slot, &member);
        self.childless.remove(&member.order);
        if let Some(parent) = &member.parent
            && let Some(count) = self.children.get_mut(parent)
        {
            *count -= 1;
            if *count == 0 {
                self.children.remove(parent);
                if let Some(slot) = self.slots.get(parent)
                    && let Some(parent) = self.members.get(place(*slot)).and_then(Option::as_ref)
                {
                    self.childless.insert(parent.order, *slot);
                }
            }
        }
        Some(member)
    }

    /// Gives up the eldest member without children, or, where all have some, any; false when there is none.
    pub fn give_up(&mut self) -> bool {
        let eldest = self.childless.first_key_value().and_then(|(_, slot)| self.members.get(place(*slot))?.as_ref());
        let uid = eldest.map(|member| member.uid.clone()).or_else(|| self.slots.keys().next().cloned());
        uid.is_some_and(|uid| self.remove(&uid).is_some())
    }

    /// The member of that id names other accounts (in order) from now on.
    pub fn resample(&mut self, uid: &str, accounts: Vec<AccountHash>) {
        let Some(slot) = self.slots.get(uid).copied() else { return };
        let Some(member) = self.members.get_mut(place(slot)).and_then(Option::as_mut) else { return };
        if member.accounts == accounts {
            return;
        }
        let few = member.has_few_accounts();
        let before = std::mem::replace(&mut member.accounts, accounts);
        self.kin.rename(slot, &before, &member.accounts);
        if few != member.has_few_accounts() {
            self.kin.strike_marks(slot, member, few);
            self.kin.list_marks(slot, member);
        }
    }

    /// The ids of the members, in order.
    #[cfg(test)]
    pub fn uids(&self) -> Vec<&String> {
        self.slots.keys().collect()
    }

    /// Entries of the lists of accounts, marks (once for each service and once for all) and parents.
    #[cfg(test)]
    pub fn listed(&self) -> usize {
        self.kin.accounts.len() + self.kin.marks.len() + self.children.len()
    }

    /// The eldest member that is about the same thing.
    pub fn kin(&mut self, member: &Member) -> Option<&Member> {
        let by_mark = self.kin.by_mark(member, &self.members);
        // Too few accounts are compared with nobody's.
        let by_account = if member.has_few_accounts() { None } else { self.kin.by_account(member, &self.members) };
        [by_mark, by_account].into_iter().flatten().min_by_key(|other| other.order)
    }
}

/// Who names an account, and who has a mark.
#[derive(Debug, Default)]
struct Kin {
    /// By four bytes of an account's hash, who names it: a bit for each of [`BLOCK`] slots, so that an account that
    /// thousands name is gone through quickly.
    accounts: BTreeMap<(u32, u32), u64>,
    marks: BTreeSet<Marked>,
    hasher: RandomState,
    /// Accounts that each member has in common with the one at hand; all 0 in between.
    common: Vec<u32>,
    /// Members with an account in common; empty in between.
    met: Vec<Slot>,
}

/// A member under one of its marks, in the order in which they are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Marked {
    /// Hash of the mark, with the member's service or for all services.
    mark: u64,
    /// Its accounts are too few to be compared.
    few: bool,
    /// Its order of opening.
    order: u64,
    slot: Slot,
}

/// With which services a mark is looked for.
#[derive(Clone, Copy, Debug, Hash)]
enum Within<'a> {
    /// Any.
    All,
    /// This one, or none.
    Service(Option<&'a str>),
}

impl Kin {
    fn list(&mut self, slot: Slot, member: &Member) {
        self.list_accounts(slot, &member.accounts);
        self.list_marks(slot, member);
    }

    fn strike(&mut self, slot: Slot, member: &Member) {
        member.accounts.iter().for_each(|account| self.strike_account(slot, *account));
        self.strike_marks(slot, member, member.has_few_accounts());
    }

    /// The member at `slot` names the accounts `now`, not those of `before` (both in order).
    fn rename(&mut self, slot: Slot, before: &[AccountHash], now: &[AccountHash]) {
        let gone = before.iter().filter(|account| now.binary_search(account).is_err());
        gone.for_each(|account| self.strike_account(slot, *account));
        // All of them: two accounts may share a tag that just went with one of them.
        self.list_accounts(slot, now);
    }

    fn list_accounts(&mut self, slot: Slot, accounts: &[AccountHash]) {
        for account in accounts {
            *self.accounts.entry((tag(*account), slot / BLOCK)).or_default() |= 1 << (slot % BLOCK);
        }
    }

    fn strike_account(&mut self, slot: Slot, account: AccountHash) {
        if let Entry::Occupied(mut names) = self.accounts.entry((tag(account), slot / BLOCK)) {
            *names.get_mut() &= !(1 << (slot % BLOCK));
            if *names.get() == 0 {
                names.remove();
            }
        }
    }

    fn list_marks(&mut self, slot: Slot, member: &Member) {
        let few = member.has_few_accounts();
        for mark in self.hashes(member) {
            self.marks.insert(Marked { mark, few, order: member.order, slot });
        }
    }

    /// `few` is what was true of the member when its marks were listed.
    fn strike_marks(&mut self, slot: Slot, member: &Member, few: bool) {
        for mark in self.hashes(member) {
            self.marks.remove(&Marked { mark, few, order: member.order, slot });
        }
    }

    /// What the member's marks are listed by.
    fn hashes(&self, member: &Member) -> Vec<u64> {
        let within = [Within::All, Within::Service(member.service.as_deref())];
        let hashes = member.marks.iter().flat_map(|mark| within.map(|within| self.hash(mark, within)));
        hashes.collect()
    }

    fn hash(&self, mark: &(String, String), within: Within<'_>) -> u64 {
        self.hasher.hash_one((mark, within))
    }

    /// The eldest kin by accounts, of those whose accounts can be compared.
    fn by_account<'m>(&mut self, member: &Member, members: &'m [Option<Member>]) -> Option<&'m Member> {
        self.common.resize(members.len(), 0);
        for account in &member.accounts {
            let tag = tag(*account);
            for ((_, block), names) in self.accounts.range((tag, 0)..=(tag, u32::MAX)) {
                let mut names = *names;
                while names != 0 {
                    let slot = block * BLOCK + names.trailing_zeros();
                    names &= names - 1;
                    let Some(common) = self.common.get_mut(place(slot)) else { continue };
                    if *common == 0 {
                        self.met.push(slot);
                    }
                    *common += 1;
                }
            }
        }
        let mut eldest: Option<&Member> = None;
        for slot in self.met.drain(..) {
            let common = self.common.get_mut(place(slot)).map_or(0, std::mem::take);
            let Some(other) = members.get(place(slot)).and_then(Option::as_ref) else { continue };
            // Tags in common are never fewer than accounts in common.
            let common = usize::try_from(common).unwrap_or(usize::MAX);
            if other.are_enough(member, common)
                && eldest.is_none_or(|eldest| other.order < eldest.order)
                && other.is_kin(member)
            {
                eldest = Some(other);
            }
        }
        eldest
    }

    /// The eldest kin by marks: where one of both names too few accounts.
    fn by_mark<'m>(&self, member: &Member, members: &'m [Option<Member>]) -> Option<&'m Member> {
        let service = member.service.as_deref();
        let all = [Within::All];
        let fitting = [Within::Service(service), Within::Service(None)];
        let within = if service.is_some() { &fitting[..] } else { &all[..] };
        let few: &[bool] = if member.has_few_accounts() { &[true, false] } else { &[true] };
        let mut eldest: Option<&Member> = None;
        let asked = member.marks.iter().flat_map(|mark| within.iter().map(move |within| (mark, *within)));
        for (mark, within) in asked {
            let mark = self.hash(mark, within);
            for few in few {
                let least = Marked { mark, few: *few, order: 0, slot: Slot::MIN };
                let most = Marked { mark, few: *few, order: u64::MAX, slot: Slot::MAX };
                let listed = self.marks.range(least..=most);
                // The first is kin, unless two marks have one hash.
                let mut kin = listed.filter_map(|listed| members.get(place(listed.slot))?.as_ref());
                if let Some(kin) = kin.find(|other| other.is_kin(member))
                    && eldest.is_none_or(|eldest| kin.order < eldest.order)
                {
                    eldest = Some(kin);
                }
            }
        }
        eldest
    }
}

/// What an account is listed by. Samples are of the lowest hashes, so the first bytes of many would be alike.
fn tag(account: AccountHash) -> u32 {
    let [.., a, b, c, d] = account.0;
    u32::from_be_bytes([a, b, c, d])
}

fn place(slot: Slot) -> usize {
    usize::try_from(slot).unwrap_or(usize::MAX)
}
