//! Hand-made records, and real traffic in network namespaces.

mod cleanup;
mod frames;
mod namespaces;
mod records;
mod traffic;
