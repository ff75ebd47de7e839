//! One file or folder per subcommand: wiring only. Layer 5.

pub mod demo;
