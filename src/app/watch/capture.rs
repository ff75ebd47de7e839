//! Capturing: packets of the interfaces through the pipeline, and the results to a sink.
//!
//! A source blocks, so it has a thread to itself. However the capture ends, the source is dropped and leaves nothing in the
//! kernel.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::own_addresses::OwnAddresses;
use crate::analyzer::FinishedSession;
use crate::app::pipeline::AnalysisPipeline;
use crate::metrics::Metrics;
use crate::report::watch::{CaptureSource, joined_names};
use crate::source::live::{LiveCapture, LiveError, SourceKind};
use crate::source::{CaptureLoss, PacketSource as _};
use crate::time::Timestamp;
use crate::traffic::fallback::Fallback;
use crate::wire::Packet;

/// Interval of [`CaptureSink::on_tick`].
const TICK: Duration = Duration::from_secs(1);
/// Interval at which the source is asked for losses while packets come.
const LOSS: Duration = Duration::from_millis(100);
/// Packets between two looks at the clock.
const STRIDE: u32 = 256;
/// Time to read the packets that the kernel still holds at the end.
const LAST_PACKETS: Duration = Duration::from_secs(1);

/// Receives the results of a capture. An error is that of the sink's own output and ends the capture.
pub(super) trait CaptureSink {
    /// Each packet, before it is analysed.
    fn on_packet(&mut self, _: &Packet<'_>) -> anyhow::Result<()> {
        Ok(())
    }

    fn on_session(&mut self, _: &FinishedSession) -> anyhow::Result<()> {
        Ok(())
    }

    /// [`Self::on_session`] has received its sessions before.
    fn on_fallback(&mut self, _: &Fallback) -> anyhow::Result<()> {
        Ok(())
    }

    /// Once a second, and at the end.
    fn on_tick(&mut self, _: &AnalysisPipeline, _: CaptureLoss) -> anyhow::Result<()> {
        Ok(())
    }

    /// Another source continues.
    fn on_source(&mut self, _: CaptureSource) {}

    /// An interface failed and the others continue, or packets may be missing.
    fn on_error(&mut self, error: &LiveError) -> anyhow::Result<()>;

    /// The sink needs no more sessions.
    fn is_done(&self) -> bool {
        false
    }
}

/// Why a capture ended on its own.
#[derive(Debug, thiserror::Error)]
pub(super) enum CaptureFailure {
    #[error(transparent)]
    Source(#[from] LiveError),
    #[error(transparent)]
    Sink(#[from] anyhow::Error),
}

/// Captures until `stop` is set, the source fails, or the sink is done. Then ends the open sessions as they are.
pub(super) fn capture(
    mut live: LiveCapture,
    pipeline: &mut AnalysisPipeline,
    sink: &mut dyn CaptureSink,
    stop: &AtomicBool,
    metrics: Option<&Metrics>,
    own: &mut OwnAddresses,
) -> Result<(), CaptureFailure> {
    let mut counter =
        LossCounter { metrics, noted: CaptureLoss::default(), reported: CaptureLoss::default() };
    let set_capturing = |active| metrics.inspect(|metrics| metrics.set_capturing(active));
    set_capturing(true);
    let ended = run(&mut live, pipeline, sink, stop, &mut counter, own);
    set_capturing(false);
    let loss = counter.note(&mut live, pipeline);
    drop(live);
    if let Err(CaptureFailure::Sink(_)) = ended {
        return ended;
    }
    pipeline.finish();
    publish(pipeline, sink)?;
    counter.report(pipeline, loss);
    sink.on_tick(pipeline, loss)?;
    ended
}

/// Tells the analysis of losses at once, and reports them and the evidence to the metrics.
struct LossCounter<'a> {
    metrics: Option<&'a Metrics>,
    noted: CaptureLoss,
    reported: CaptureLoss,
}

impl LossCounter<'_> {
    /// To be called before time or a socket event can end a connection whose answer may be among the lost packets.
    fn note(&mut self, live: &mut LiveCapture, pipeline: &mut AnalysisPipeline) -> CaptureLoss {
        let loss = live.loss();
        if loss != self.noted || loss.hidden > 0 {
            self.noted = loss;
            pipeline.on_loss(now());
        }
        loss
    }

    fn report(&mut self, pipeline: &AnalysisPipeline, loss: CaptureLoss) {
        let Some(metrics) = self.metrics else { return };
        metrics.add_capture_drops(
            loss.syns.saturating_sub(self.reported.syns),
            loss.packets.saturating_sub(self.reported.packets),
        );
        metrics.set_evidence(&pipeline.traffic().evidence());
        self.reported = loss;
    }
}

fn run(
    live: &mut LiveCapture,
    pipeline: &mut AnalysisPipeline,
    sink: &mut dyn CaptureSink,
    stop: &AtomicBool,
    counter: &mut LossCounter<'_>,
    own: &mut OwnAddresses,
) -> Result<(), CaptureFailure> {
    let mut next_tick = Instant::now();
    let mut next_loss = Instant::now();
    let mut packets = 0_u32;
    let mut deadline: Option<Instant> = None;
    loop {
        let is_idle = match live.next() {
            Ok(Some(packet)) => {
                sink.on_packet(&packet)?;
                pipeline.packet(&packet);
                packets = packets.wrapping_add(1);
                false
            }
            Ok(None) => true,
            Err(error) if error.is_fatal() => return Err(error.into()),
            Err(error) => {
                sink.on_error(&error)?;
                if let LiveError::SourceChanged { .. } = error {
                    sink.on_source(CaptureSource {
                        source: title(SourceKind::Pcap).to_owned(),
                        ..source(live)
                    });
                }
                // What was hidden until now proves nothing.
                pipeline.on_loss(now());
                false
            }
        };
        while let Some(event) = live.next_socket_event() {
            if event.closed {
                counter.note(live, pipeline);
            }
            pipeline.socket(&event);
        }
        if is_idle {
            counter.note(live, pipeline);
            // Only when no packet is queued: packets older than the clock would then seem late.
            pipeline.tick(now());
        }
        publish(pipeline, sink)?;
        if sink.is_done() {
            return Ok(());
        }
        if !is_idle && !packets.is_multiple_of(STRIDE) {
            continue;
        }
        if stop.load(Ordering::Relaxed) {
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + LAST_PACKETS);
            if is_idle || Instant::now() >= deadline {
                return Ok(());
            }
        }
        if Instant::now() >= next_loss {
            next_loss = Instant::now() + LOSS;
            counter.note(live, pipeline);
        }
        if Instant::now() >= next_tick {
            next_tick = Instant::now() + TICK;
            if let Some(ours) = own.refreshed() {
                pipeline.set_ours(ours);
            }
            let loss = counter.note(live, pipeline);
            counter.report(pipeline, loss);
            sink.on_tick(pipeline, loss)?;
        }
    }
}

fn publish(pipeline: &mut AnalysisPipeline, sink: &mut dyn CaptureSink) -> anyhow::Result<()> {
    for session in pipeline.sessions() {
        if sink.is_done() {
            break;
        }
        sink.on_session(&session)?;
    }
    pipeline.fallbacks().iter().try_for_each(|fallback| sink.on_fallback(fallback))
}

fn now() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}

const fn title(kind: SourceKind) -> &'static str {
    match kind {
        SourceKind::Ebpf => "eBPF",
        SourceKind::Pcap => "libpcap",
    }
}

pub(super) fn source(live: &LiveCapture) -> CaptureSource {
    CaptureSource {
        source: title(live.kind()).to_owned(),
        interfaces: live.interfaces().iter().map(|interface| interface.name.clone()).collect(),
    }
}

/// `watching eth0 and eth1 by libpcap, since eBPF needs CAP_BPF, which this process lacks`
pub(super) fn description(live: &LiveCapture) -> String {
    let CaptureSource { source, interfaces } = source(live);
    let reason =
        live.choice_reason().map_or_else(String::new, |reason| format!(", since {reason}"));
    // libpcap never has socket events.
    let missing = live.socket_events_unavailable().filter(|_| live.kind() == SourceKind::Ebpf);
    let missing = missing.map_or_else(String::new, |reason| {
        format!("; without round-trip times of sockets: {reason}")
    });
    format!("watching {} by {source}{reason}{missing}", joined_names(&interfaces))
}

/// The message of a panic.
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
