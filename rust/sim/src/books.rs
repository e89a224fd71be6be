//! Double-entry books: what enters a stage leaves it, is dropped under a name, or is still there.

use std::collections::BTreeMap;
use std::fmt::Debug;

use crate::Broken;

/// One stage's books.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stage {
    pub(crate) entered: u64,
    pub(crate) left: u64,
    pub(crate) dropped: BTreeMap<&'static str, u64>,
}

impl Stage {
    pub(crate) fn drop_one(&mut self, reason: &'static str) {
        self.drop_many(reason, 1);
    }

    pub(crate) fn drop_many(&mut self, reason: &'static str, count: u64) {
        *self.dropped.entry(reason).or_default() += count;
    }

    pub(crate) fn drops(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// Closes the books when `holding` are still there.
    pub(crate) fn close(&self, name: &str, holding: u64) -> Result<(), Broken> {
        same(name, self.entered, self.left + self.drops() + holding, self)
    }
}

/// Holds two figures to be the same; `facts` are printed if they are not.
pub(crate) fn same(what: &str, one: u64, other: u64, facts: &impl Debug) -> Result<(), Broken> {
    holds(one == other, || format!("{what}: {one} is not {other}: {facts:?}"))
}

/// Holds a condition.
pub(crate) fn holds(condition: bool, otherwise: impl FnOnce() -> String) -> Result<(), Broken> {
    if condition { Ok(()) } else { Err(Broken(otherwise())) }
}
