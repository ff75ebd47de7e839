//! Probes of other servers: whether they accept a connection, greet us, accept mail for a mailbox.
//!
//! RFC 5321 §3.1 to §3.3. Each probe goes only as far as its lookup needs: sites see a connection and QUIT after their greeting,
//! then EHLO, and MAIL FROM:<> and RCPT only if the operator enabled callouts (rule 12 of ARCHITECTURE.md).
//!
//! | observation | connect | greet | callout |
//! |---|---|---|---|
//! | RST, or an ICMP error | no: refused | no: refused | no: refused |
//! | no response to the SYNs | no: no_response | no: no_response | no: no_response |
//! | connected, then no data | yes | no: established_but_stalled | no: established_but_stalled |
//! | closed without a reply | yes | unknown: rejected_before_rcpt | unknown: rejected_before_rcpt |
//! | 4xx greeting or 4xx to EHLO | yes | unknown: rejected_before_rcpt | unknown: rejected_before_rcpt |
//! | 5xx greeting, 5xx to EHLO, or not SMTP | yes | no: rejected_before_rcpt | unknown: rejected_before_rcpt |
//! | 250 to EHLO | yes | yes | continues |
//! | MAIL FROM:<> rejected | | | unknown: rejected_before_rcpt |
//! | RCPT: 2xx | | | yes |
//! | RCPT: 5xx except 5.7.x | | | no: no_such_mailbox |
//! | RCPT: 5.7.x | | | unknown: rejected_before_rcpt |
//! | RCPT: 4xx | | | unknown: deferred |
//!
//! A 5xx greeting (554, RFC 5321 §3.1) states permanently that the server accepts no mail from us, so there is no return
//! path; a 4xx is temporary, and a closed connection may be either. A rejection before RCPT, or one that concerns us, does
//! not answer a lookup of a mailbox.

mod connect;
mod large;
mod prober;
mod smtp_client;
mod survey;

pub(super) use self::connect::{ConnectError, connect};
pub(super) use self::large::LARGE_ANSWERED;
pub(super) use self::prober::{Prober, is_path, null_sender_for};
pub(super) use self::smtp_client::{ProbeError, ProbeReply, SmtpClient};
pub(super) use self::survey::tls_facts;
pub use self::survey::{SurveySettings, SurveyTls, answers, survey};
