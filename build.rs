//! Compiles the kernel programs of `src/bpf`, which `source::ebpf` and `intercept::door` take from `OUT_DIR`. Without the
//! feature `ebpf` there is nothing to do.
//!
//! `CLANG` names another compiler than `clang`.

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

const PROGRAMS: [&str; 2] = ["watch", "door"];
const HEADERS: [&str; 2] = ["src/bpf/socket.h", "src/bpf/watch.h"];

fn main() -> ExitCode {
    for name in PROGRAMS {
        println!("cargo::rerun-if-changed={}", source(name));
    }
    for header in HEADERS {
        println!("cargo::rerun-if-changed={header}");
    }
    println!("cargo::rerun-if-env-changed=CLANG");
    if env::var_os("CARGO_FEATURE_EBPF").is_none() {
        return ExitCode::SUCCESS;
    }
    match PROGRAMS.into_iter().try_for_each(compile) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!(
                "cargo::error=cannot build the eBPF programs: {why}. Install clang and libbpf's headers (Debian: \
                 clang libbpf-dev), or build with --no-default-features: then `watch` has libpcap only and a closed door refuses by 421"
            );
            ExitCode::FAILURE
        }
    }
}

fn source(name: &str) -> String {
    format!("src/bpf/{name}.bpf.c")
}

fn compile(name: &str) -> Result<(), String> {
    let of_target = |name: &str| env::var(name).map_err(|error| format!("{name}: {error}"));
    let object = PathBuf::from(of_target("OUT_DIR")?).join(format!("{name}.bpf.o"));
    let target = match of_target("CARGO_CFG_TARGET_ENDIAN")?.as_str() {
        "big" => "bpfeb",
        _ => "bpfel",
    };
    // Where Debian keeps the headers that differ between machines (asm/types.h); elsewhere there is no such folder.
    let of_machine = format!("/usr/include/{}-linux-gnu", of_target("CARGO_CFG_TARGET_ARCH")?);
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    // -g for BTF, by which the loader finds the fields of kernel structures. v3 is what kernel 5.1 and later run.
    let output = Command::new(&clang)
        .args(["-O2", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"])
        .args(["-target", target, "-mcpu=v3", "-isystem", &of_machine, "-c"])
        .args([&source(name), "-o"])
        .arg(&object)
        .output()
        .map_err(|error| format!("cannot run {clang}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // Every line of it is told as an error of its own, since cargo wants one line each.
    for line in said.lines() {
        println!("cargo::warning={line}");
    }
    Err(format!("{clang} ended with {}", output.status))
}
