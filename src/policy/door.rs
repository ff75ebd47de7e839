//! The door of one family: whether new sessions of it are let in, as a pure function of signs and time.
//!
//! It closes when mail over its family is known not to work, so that a sender is refused at once and goes to the other
//! family. It never closes where there is no other: it says so instead.
