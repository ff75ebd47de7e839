//! Notices when others keep packets from gatepost's programs: by running before them, by detaching them, or unseen.

use std::time::{Duration, Instant};

use super::blindness::SeenCounter;
use super::error::EbpfError;
use super::netlink::{LinkCounters, PacketDirection, RouteNetlink};
use super::order::{ChainPosition, Place};
use super::programs::Programs;

/// Interval of [`Visibility::check`].
const CHECK: Duration = Duration::from_secs(2);

pub(super) struct Visibility {
    netlink: RouteNetlink,
    places: Vec<PlaceState>,
    checked: Instant,
}

/// The state of one direction of an interface.
struct PlaceState {
    index: u32,
    direction: PacketDirection,
    /// What runs before our program.
    before: Vec<String>,
    was_detached: bool,
    counter: Option<SeenCounter>,
}

impl Visibility {
    /// With the netlink connection of the network namespace of `programs`.
    pub(super) fn new(netlink: RouteNetlink, programs: &Programs) -> Self {
        let state = |place: Place<'_>| PlaceState {
            index: place.index,
            direction: place.direction,
            before: Vec::new(),
            was_detached: false,
            counter: None,
        };
        let places = programs.places().map(state).collect();
        Self { netlink, places, checked: Instant::now() }
    }

    /// Number of places where packets may be hidden at present.
    pub(super) fn hidden(&self) -> u32 {
        let is_hidden = |place: &&PlaceState| {
            !place.before.is_empty() || place.counter.is_some_and(|counter| counter.is_blind())
        };
        self.places.iter().filter(is_hidden).count() as u32
    }

    pub(super) fn is_due(&self) -> bool {
        self.checked.elapsed() >= CHECK
    }

    /// Returns what changed for the worse, each once. An error that is not one of these ends the capture.
    pub(super) fn check(&mut self, programs: &mut Programs) -> Vec<EbpfError> {
        self.checked = Instant::now();
        let mut found = Vec::new();
        let mut detached = Vec::new();
        for (place, position) in programs.positions(&self.netlink) {
            let Some(state) = state_of(&mut self.places, place) else { continue };
            match position {
                None => {}
                Some(ChainPosition::Missing) => detached.push((place.index, place.direction)),
                Some(ChainPosition::After(before)) => found.extend(state.on_order(place, before)),
            }
        }
        self.compare_counters(programs, &mut found);
        for (index, direction) in detached {
            let name = programs.interface_name(index).unwrap_or_default().to_owned();
            let state = self.places.iter_mut().find(|s| s.is_at(index, direction));
            match programs.attach_again(index, direction, &self.netlink) {
                Ok(()) => {
                    if state.is_some_and(|state| !std::mem::replace(&mut state.was_detached, true))
                    {
                        found.push(EbpfError::Detached { name, verb: direction.verb() });
                    }
                }
                // Reported by the check of interfaces.
                Err(EbpfError::InterfaceRemoved { .. }) => {}
                Err(error) => found.push(error),
            }
        }
        found
    }

    fn compare_counters(&mut self, programs: &Programs, found: &mut Vec<EbpfError>) {
        // Without them nothing is compared.
        let Ok(links) = self.netlink.link_counters() else { return };
        let now = Instant::now();
        for place in programs.places() {
            let Some(link) = links.iter().find(|link| link.index == place.index) else { continue };
            let Some(state) = state_of(&mut self.places, place) else { continue };
            let Some(seen) = programs.seen(place.index, place.direction) else { continue };
            found.extend(state.on_counters(place, seen, link, now));
        }
    }
}

fn state_of<'a>(places: &'a mut [PlaceState], place: Place<'_>) -> Option<&'a mut PlaceState> {
    places.iter_mut().find(|state| state.is_at(place.index, place.direction))
}

impl PlaceState {
    fn is_at(&self, index: u32, direction: PacketDirection) -> bool {
        self.index == index && self.direction == direction
    }

    fn on_order(&mut self, place: Place<'_>, before: Vec<String>) -> Option<EbpfError> {
        let new: Vec<&str> =
            before.iter().filter(|one| !self.before.contains(one)).map(String::as_str).collect();
        let new = new.join(" and ");
        self.before = before;
        let (name, verb) = (place.interface.to_owned(), place.direction.verb());
        (!new.is_empty()).then_some(EbpfError::Hidden { name, verb, before: new })
    }

    fn on_counters(
        &mut self,
        place: Place<'_>,
        seen: u64,
        link: &LinkCounters,
        now: Instant,
    ) -> Option<EbpfError> {
        let carried = match place.direction {
            PacketDirection::In => link.received,
            PacketDirection::Out => link.sent,
        };
        let Some(counter) = &mut self.counter else {
            self.counter = Some(SeenCounter::new(seen, carried, now));
            return None;
        };
        let unseen = counter.update(seen, carried, now)?;
        Some(EbpfError::Blind {
            name: place.interface.to_owned(),
            verb: place.direction.verb(),
            packets: unseen.packets,
            time: unseen.time,
            xdp: link.xdp,
        })
    }
}
