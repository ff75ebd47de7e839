//! Imports go downward only, by the table in `src/lib.rs`, and the core (layers 0 to 3) knows no socket and no clock.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::code::modules;

/// Names that the core must not use. `SystemTime` as a type is fine: a timestamp is made from one.
const NOT_IN_CORE: [&str; 12] = [
    "tokio",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "net::Tcp",
    "net::Udp",
    "pcap",
    "prometheus",
    "socket2",
    "rustix",
    "Instant::now",
    "SystemTime::now",
];

/// A module of a base is below the others of its number, which may import it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Layer {
    number: u8,
    is_above_base: bool,
}

impl Layer {
    /// `4`, or `4, base`.
    fn parse(text: &str) -> Option<Self> {
        let number = text.strip_suffix(", base");
        let is_above_base = number.is_none();
        Some(Self { number: number.unwrap_or(text).parse().ok()?, is_above_base })
    }
}

/// Modules and their layers, from the table in `src/lib.rs`.
fn layers(lib: &str) -> BTreeMap<String, Layer> {
    let rows = lib.lines().filter_map(|line| line.strip_prefix("//! | "));
    rows.filter_map(|row| row.split_once(" | "))
        .filter_map(|(layer, modules)| Some((Layer::parse(layer.trim())?, modules)))
        .flat_map(|(layer, modules)| {
            let names = modules.split('`').skip(1).step_by(2);
            names.map(move |name| (name.to_owned(), layer))
        })
        .collect()
}

/// The modules of this crate that `code` names: `crate::x`, `crate::{x, y::z}`, `gatepost::x`.
fn named(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for root in ["crate::", "gatepost::"] {
        for (at, _) in code.match_indices(root) {
            let path = &code[at + root.len()..];
            match path.strip_prefix('{') {
                Some(group) => names.extend(group_heads(group)),
                None => names.push(identifier(path)),
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn identifier(path: &str) -> String {
    let is_part = |c: &char| c.is_alphanumeric() || *c == '_';
    path.chars().take_while(is_part).collect()
}

/// First identifiers of the items of a `{…}` group, which `group` follows the brace of.
fn group_heads(group: &str) -> Vec<String> {
    let mut heads = vec![identifier(group.trim_start())];
    let mut depth = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(identifier(group[at + 1..].trim_start())),
            _ => {}
        }
    }
    heads
}

/// The faulty imports of `code`, a file of `module`.
fn mistakes(layers: &BTreeMap<String, Layer>, module: &str, code: &str) -> Vec<String> {
    let Some(&layer) = layers.get(module) else {
        return vec![format!("{module}: not in the table of src/lib.rs")];
    };
    let mut mistakes = Vec::new();
    for name in named(code) {
        match layers.get(&name) {
            Some(&below) if name != module && below > layer => {
                let (own, other) = (layer.number, below.number);
                mistakes.push(format!("{module} (layer {own}) uses {name} (layer {other})"));
            }
            Some(&other) if name != module && other == layer && layer.number == 4 => {
                mistakes.push(format!("{module} and {name} are both of layer 4: `app` joins them"));
            }
            _ => {}
        }
    }
    if layer.number < 4 {
        let named = NOT_IN_CORE.iter().filter(|word| code.contains(**word));
        let number = layer.number;
        mistakes.extend(named.map(|word| format!("{module} (layer {number}) names {word}")));
    }
    mistakes
}

#[test]
fn imports_go_downward_only() {
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let layers = layers(&fs::read_to_string(lib).unwrap());
    assert!(layers.len() >= 8, "the table in src/lib.rs was not understood");
    let mut wrong = Vec::new();
    for module in modules() {
        let Some(name) = module.path.first() else { continue };
        for mistake in mistakes(&layers, name, &module.code) {
            wrong.push(format!("{}: {mistake}", module.file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn table() -> BTreeMap<String, Layer> {
    layers(
        "//! | layer | modules |\n//! |---|---|\n//! | 5 | `app` |\n//! | 4 | `relay`, `metrics` |\n//! | 4, base | `socket` |\n\
         //! | 3 | `engine` |\n//! | 1 | `smtp` |\n//! | 0 | `time` |\n",
    )
}

#[test]
fn upward_and_sideways_are_found() {
    for (module, source, count) in [
        ("engine", "use crate::smtp::Reply;", 0),
        ("smtp", "use crate::engine::Proxy;", 1),
        ("smtp", "fn f() { crate::engine::f() }", 1),
        ("smtp", "use crate::{time::Timestamp, engine::{Proxy, smtp}};", 1),
        ("smtp", "use crate::{\n    engine,\n    relay::{a, b},\n};", 2),
        ("relay", "use crate::engine::Proxy;", 0),
        ("relay", "use crate::metrics;", 1),
        ("relay", "use crate::socket;", 0),
        ("socket", "use crate::relay;", 1),
        ("socket", "use crate::engine::Proxy;", 0),
        ("engine", "use crate::socket;", 1),
        ("relay", "use crate::relay::pump;", 0),
        ("engine", "use crate::app::run;", 1),
        ("nowhere", "", 1),
    ] {
        let found = mistakes(&table(), module, source);
        assert_eq!(found.len(), count, "{source}: {found:?}");
    }
}

#[test]
fn sockets_and_clocks_are_found_below_layer_4() {
    for source in [
        "use tokio::net::TcpStream;",
        "use std::net::TcpListener;",
        "use std::net::{IpAddr, UdpSocket};",
        "let now = std::time::Instant::now();",
        "SystemTime::now()",
        "use prometheus::Counter;",
    ] {
        assert!(!mistakes(&table(), "engine", source).is_empty(), "{source}");
        assert!(mistakes(&table(), "relay", source).is_empty(), "{source}");
        assert!(mistakes(&table(), "socket", source).is_empty(), "{source}");
    }
    assert!(mistakes(&table(), "time", "use std::time::{Duration, SystemTime};").is_empty());
}
