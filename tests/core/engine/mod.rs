//! The engine under every segmentation of every dialogue: see `engine/dialogue.rs` for the script language.

mod canary;
mod client_certificate;
mod content;
mod deadlines;
mod dialogue;
mod driver;
mod early_data;
mod end_of_data;
mod ends;
mod greeting;
mod hostile;
mod identity;
mod model;
mod observer;
mod passthrough;
mod path_forms;
mod paths;
mod policy;
mod policy_model;
mod refusals;
mod sessions;
mod tls;
mod trace_header;
mod transaction;
mod transaction_model;
mod upstream_tls;
