//! `gatepost run` between a client and a real Postfix.

mod access;
mod delivery;
mod identity;
mod limits;
mod load;
mod proxied;
mod recovery;
mod smuggling;
mod starttls;
mod upstream;
mod upstream_lost;
