//! Every metric family in one file, and the HTTP endpoint. Layer 4.
