//! Which objects the pickle being written already holds, by address.

use crate::error::Result;
use crate::memory::grow;

/// The place of an address in the table, or the place for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The object was put under this number.
    Number(u32),
    /// The object is new; its number can be [put](Memo::put) here as long as nothing else has been.
    Vacant(usize),
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    address: usize,
    number: u32,
    /// The pickle to which this slot belongs. It is free if that is not the current one.
    pickle: u32,
}

/// A hash table from an object's address to its memo number, emptied in no time.
///
/// Linear probing from `address / 16`: objects made one after the other lie side by side in the table as in memory, which
/// keeps the walk inside the processor's cache. A table that mixes the bits takes 2 to 4 times as long: hashbrown with foldhash
/// or rustc-hash (`cargo bench -- "pickle memo"`, medians of 25 Nov 2026).
///
/// A new one has no room yet: each pickle begins with [`clear`](Self::clear).
#[derive(Debug, Default)]
pub struct Memo {
    slots: Vec<Slot>,
    used: usize,
    pickle: u32,
}

const SMALLEST: usize = 1 << 5;
/// A table beyond this many slots (1 MiB) is not kept for the next pickle.
const LARGEST_KEPT: usize = 1 << 16;

impl Memo {
    /// Empties the memo, for the next pickle.
    pub fn clear(&mut self) -> Result<()> {
        if self.slots.len() > LARGEST_KEPT || self.pickle == u32::MAX {
            *self = Self::default();
        }
        if self.slots.is_empty() {
            self.slots = slots(SMALLEST)?;
        }
        self.pickle += 1;
        self.used = 0;
        Ok(())
    }

    /// Looks an object up.
    #[inline]
    pub fn entry(&self, address: usize) -> Entry {
        let last = self.slots.len() - 1;
        let mut index = address >> 4 & last;
        loop {
            let slot = self.slots[index];
            if slot.pickle != self.pickle {
                return Entry::Vacant(index);
            }
            if slot.address == address {
                return Entry::Number(slot.number);
            }
            index = (index + 1) & last;
        }
    }

    /// Puts an object into the vacant place that [`entry`](Self::entry) has just found for it.
    ///
    /// After an error nothing more may be put: the table has to have vacant places.
    #[inline]
    pub fn put(&mut self, vacant: usize, address: usize, number: u32) -> Result<()> {
        self.slots[vacant] = Slot {
            address,
            number,
            pickle: self.pickle,
        };
        self.used += 1;
        if self.used * 2 > self.slots.len() {
            self.grow()?;
        }
        Ok(())
    }

    /// Gives an object that is in the memo another number.
    pub fn renumber(&mut self, address: usize, number: u32) {
        let last = self.slots.len() - 1;
        let mut index = address >> 4 & last;
        while self.slots[index].pickle == self.pickle {
            if self.slots[index].address == address {
                self.slots[index].number = number;
                return;
            }
            index = (index + 1) & last;
        }
    }

    #[cold]
    fn grow(&mut self) -> Result<()> {
        let larger = slots(self.slots.len() * 4)?;
        let slots = std::mem::replace(&mut self.slots, larger);
        for slot in slots.into_iter().filter(|slot| slot.pickle == self.pickle) {
            if let Entry::Vacant(index) = self.entry(slot.address) {
                self.slots[index] = slot;
            }
        }
        Ok(())
    }
}

fn slots(count: usize) -> Result<Vec<Slot>> {
    let mut slots = Vec::new();
    grow(&mut slots, count)?;
    slots.resize(count, Slot::default());
    Ok(slots)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_hash_map(pickles in prop::collection::vec(prop::collection::vec(0usize..5000, 0..2000), 1..5)) {
            let mut memo = Memo::default();
            for addresses in pickles {
                memo.clear().unwrap();
                let mut model = HashMap::new();
                for address in addresses.into_iter().map(|address| address * 16) {
                    let number = model.len() as u32;
                    match memo.entry(address) {
                        Entry::Number(number) => prop_assert_eq!(model.get(&address), Some(&number)),
                        Entry::Vacant(vacant) => {
                            prop_assert!(model.insert(address, number).is_none());
                            memo.put(vacant, address, number).unwrap();
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn renumbers() {
        // Side by side, and all in one place of the smallest table.
        for step in [16, 16 * SMALLEST] {
            let mut memo = Memo::default();
            memo.clear().unwrap();
            let addresses = || (1..100).map(|number| number * step);
            for address in addresses() {
                if let Entry::Vacant(vacant) = memo.entry(address) {
                    memo.put(vacant, address, 0).unwrap();
                }
                memo.renumber(address, address as u32);
            }
            assert!(addresses().all(|address| memo.entry(address) == Entry::Number(address as u32)));
        }
    }
}
