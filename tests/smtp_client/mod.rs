//! The SMTP client of the benchmarks and of the lab's load tests, in plaintext and under TLS.
//!
//! - [`TlsClient`] has the settings of TLS: trusted root, versions, cipher, group, resumption, SNI, client certificate.
//! - [`Connection`] is a blocking socket that [`Connection::start_tls`] turns into TLS; it returns the [`Handshake`]:
//!   version, cipher, group, whether it was resumed, the server's certificates.
//! - [`Session`] sends one command after the other and expects a reply code to each; a message goes by DATA or BDAT.
//! - [`Load`] runs many sessions on parallel threads and counts the handshakes by kind.
//!
//! ```ignore
//! let options = TlsOptions { versions: TlsVersions::Only13, resume: true, ..TlsOptions::default() };
//! let load = Load { to, sessions: 1_000, ..Load::default() };
//! let mut clients = LoadClients::new(20, Security::StartTls, &options);
//! clients.connect_once(to)?;                 // each client has a ticket now
//! let report = clients.run(&load)?;
//! assert_eq!((report.full, report.resumed), (0, 1_000));
//! ```
//!
//! Everything blocks, and runs in the network namespace of the thread that calls it. `Smtp` of the lab is made of the same
//! [`Connection`], for dialogues that a test spells out.

#![allow(dead_code, unused_imports, reason = "each user has its own part")]
#![allow(clippy::expect_used, clippy::panic, reason = "options that make no sense end the test")]

mod load;
mod session;
mod tls;

pub(crate) use self::load::{Load, LoadClients, LoadReport, Security};
pub(crate) use self::session::{MessageTransfer, Session, message_of, prepare};
pub(crate) use self::tls::{Connection, Handshake, TlsClient, TlsOptions, TlsVersions};
