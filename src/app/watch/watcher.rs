//! The thread that watches: packets of the wire through the core, and whoever listens told what comes of them.
//!
//! A source blocks, so it has this thread to itself. When it ends, in whatever way, the source is dropped and nothing of it
//! is left in the kernel.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::addr::Networks;
use crate::analyzer::FinishedSession;
use crate::app::reading::Reading;
use crate::metrics::Metrics;
use crate::source::live::{LiveCapture, LiveError, SourceKind};
use crate::source::{CaptureLoss, PacketSource as _};
use crate::time::Timestamp;
use crate::traffic::fallback::Fallback;
use crate::wire::Packet;

/// How often listeners look at everything.
const LOOK: Duration = Duration::from_secs(1);
/// Packets between two looks at the clock.
const STRIDE: u32 = 256;
/// What the kernel still holds at the end is read for so long.
const LAST_PACKETS: Duration = Duration::from_secs(1);

/// Who is told. Errors are those of its own output, and end the watching.
pub(super) trait Listener {
    /// Each packet, before it is looked at.
    fn packet(&mut self, packet: &Packet<'_>) -> anyhow::Result<()>;

    fn session(&mut self, session: &FinishedSession) -> anyhow::Result<()>;

    /// Its sessions have been told before.
    fn fall_back(&mut self, pair: &Fallback) -> anyhow::Result<()>;

    /// Once a second, and at the end.
    fn look(&mut self, reading: &Reading, lost: CaptureLoss) -> anyhow::Result<()>;

    /// Something is wrong that the others of the interfaces go on without.
    fn trouble(&mut self, what: &LiveError) -> anyhow::Result<()>;

    /// It has heard enough.
    fn is_content(&self) -> bool {
        false
    }
}

/// Why it is over, when it was not told to end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Source(#[from] LiveError),
    #[error(transparent)]
    Listener(#[from] anyhow::Error),
}

/// Watches until `stop`, an error, or the listener is content; tells what is open then as it stands, whatever the reason.
pub(super) fn watch(
    mut live: LiveCapture,
    reading: &mut Reading,
    listener: &mut dyn Listener,
    stop: &AtomicBool,
    metrics: Option<&Metrics>,
) -> Result<(), Failure> {
    let mut ledger = Ledger { metrics, lost: CaptureLoss::default() };
    let capturing = |captures| metrics.inspect(|metrics| metrics.set_capturing(captures));
    capturing(true);
    let ended = follow(&mut live, reading, listener, stop, &mut ledger);
    capturing(false);
    let lost = live.loss();
    drop(live);
    if let Err(Failure::Listener(_)) = ended {
        return ended;
    }
    reading.finish();
    tell(reading, listener)?;
    ledger.enter(reading, lost);
    listener.look(reading, lost)?;
    ended
}

/// What the metrics know of the source, and what it proved.
struct Ledger<'a> {
    metrics: Option<&'a Metrics>,
    lost: CaptureLoss,
}

impl Ledger<'_> {
    fn enter(&mut self, reading: &Reading, lost: CaptureLoss) {
        let Some(metrics) = self.metrics else { return };
        metrics.add_capture_drops(
            lost.syns.saturating_sub(self.lost.syns),
            lost.packets.saturating_sub(self.lost.packets),
        );
        metrics.set_evidence(&reading.traffic().evidence());
        self.lost = lost;
    }
}

fn follow(
    live: &mut LiveCapture,
    reading: &mut Reading,
    listener: &mut dyn Listener,
    stop: &AtomicBool,
    ledger: &mut Ledger<'_>,
) -> Result<(), Failure> {
    let mut next_look = Instant::now();
    let mut packets = 0_u32;
    let mut until: Option<Instant> = None;
    loop {
        let idle = match live.next() {
            Ok(Some(packet)) => {
                listener.packet(&packet)?;
                reading.packet(&packet);
                packets = packets.wrapping_add(1);
                false
            }
            Ok(None) => true,
            Err(error) if error.is_end() => return Err(error.into()),
            Err(error) => {
                listener.trouble(&error)?;
                false
            }
        };
        while let Some(facts) = live.next_socket_event() {
            reading.socket(&facts);
        }
        if idle {
            // Nothing is on its way that would be late.
            reading.tick(now());
        }
        tell(reading, listener)?;
        if listener.is_content() {
            return Ok(());
        }
        if !idle && !packets.is_multiple_of(STRIDE) {
            continue;
        }
        if stop.load(Ordering::Relaxed) {
            let until = *until.get_or_insert_with(|| Instant::now() + LAST_PACKETS);
            if idle || Instant::now() >= until {
                return Ok(());
            }
        }
        if Instant::now() >= next_look {
            next_look = Instant::now() + LOOK;
            let lost = live.loss();
            ledger.enter(reading, lost);
            listener.look(reading, lost)?;
        }
    }
}

fn tell(reading: &mut Reading, listener: &mut dyn Listener) -> anyhow::Result<()> {
    for session in reading.sessions() {
        if listener.is_content() {
            break;
        }
        listener.session(&session)?;
    }
    reading.fall_backs().iter().try_for_each(|pair| listener.fall_back(pair))
}

fn now() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}

/// The addresses of the watched interfaces, and `more`.
pub(super) fn ours(live: &LiveCapture, more: impl IntoIterator<Item = ipnet::IpNet>) -> Networks {
    let own = live.interfaces().iter().flat_map(|interface| &interface.addresses);
    Networks::new(own.map(|net| net.addr().into()).chain(more))
}

/// `eBPF` or `libpcap`
pub(super) const fn source(kind: SourceKind) -> &'static str {
    match kind {
        SourceKind::Ebpf => "eBPF",
        SourceKind::Pcap => "libpcap",
    }
}
