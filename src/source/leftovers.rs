//! What killed processes leave in the kernel.

/// Filters of clsact that gatepost processes attached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Of processes that have ended: interfaces and number of filters.
    pub removed: Vec<(String, usize)>,
    /// Of processes that run; they stay.
    pub in_use: usize,
}
