//! PcapReader by hand, and real traffic in namespaces.

mod frames;
mod leaving;
mod namespaces;
mod records;
mod traffic;
