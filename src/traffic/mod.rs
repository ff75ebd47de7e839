//! What several flows tell together: the families compared.
//!
//! Layer 2. Attempts, names and time come in as arguments; nothing here asks a clock or a resolver.

pub mod pairs;
