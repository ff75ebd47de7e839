//! Scripted sessions for the engine.

#[path = "../../core/engine/driver.rs"]
pub(super) mod driver;

use std::time::Duration;

use gatepost::engine::{
    BareNewlines, Event, Outcome, Pregreet, Profile, Timeouts, TlsMode, UpstreamTls,
};

use self::driver::Driver;
use super::unescaped;

/// A session: the first octet chooses the options, then each line is `C…`, `S…` (sent with CRLF), `c…`, `s…` (without),
/// `x` (the client closes), `y` (upstream does), `t` (time), `d` (drain), `a` (abort).
pub(crate) fn engine(input: &[u8]) {
    let Some((&options, script)) = input.split_first() else {
        return;
    };
    let mut profile = Profile { xclient: options & 1 != 0, ..Profile::default() };
    if options & 2 != 0 {
        profile.smtp.pregreet = Pregreet::Reject;
    }
    profile.smtp.bare_newlines = match options >> 2 & 3 {
        0 | 3 => BareNewlines::Normalize,
        1 => BareNewlines::Reject,
        _ => BareNewlines::Pass,
    };
    if options & 32 != 0 {
        profile.tls = TlsMode::Terminate { required: false };
    }
    let (client, server) = ("[2001:db8::1]:4000", "[2001:db8::2]:25");
    let splice = options & 16 != 0;
    let mut driver = Driver::new(profile, Timeouts::RFC_5321, client, server, splice);
    if options & 32 != 0 {
        driver.use_upstream_tls(UpstreamTls::Opportunistic);
    }
    let (mut accepted_by_upstream, mut client_closed, mut upstream_closed) = (0, false, false);
    for line in script.split(|&b| b == b'\n') {
        let Some((&what, text)) = line.split_first() else {
            continue;
        };
        let mut bytes = unescaped(text);
        match what {
            b'C' | b'S' => bytes.extend(b"\r\n"),
            _ => {}
        }
        match what {
            b'C' | b'c' if !client_closed => driver.client_sends(&bytes),
            b'S' | b's' if !upstream_closed => {
                accepted_by_upstream += bytes.iter().filter(|&&b| b == b'2').count();
                driver.upstream_sends(&bytes);
            }
            b'x' if !client_closed => {
                client_closed = true;
                driver.client_closes();
            }
            b'y' if !upstream_closed => {
                upstream_closed = true;
                driver.upstream_closes();
            }
            b't' => driver.wait(Duration::from_secs(100)),
            b'd' => driver.drain(),
            b'a' => driver.abort(Outcome::Shutdown),
            _ => {}
        }
    }
    driver.wait(Duration::from_secs(3600));
    assert!(driver.closed, "every session ends");
    let _ = driver.finish();
    let accepted = |event: &&Event| matches!(event, Event::Message { code: 200..300, .. });
    let accepted = driver.events.iter().filter(accepted).count();
    assert!(accepted <= accepted_by_upstream, "a 2xx that upstream did not send");
}
