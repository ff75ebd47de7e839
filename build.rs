//! Compiles the kernel programs in `src/bpf`, which `source::ebpf` and `intercept::door` include from `OUT_DIR`; does nothing
//! without the feature `ebpf`.
//!
//! The environment variable `CLANG` replaces `clang`.

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
        Err(error) => {
            println!(
                "cargo::error=cannot build the eBPF programs: {error}. Install clang and libbpf's headers (Debian: \
                 clang libbpf-dev), or build with --no-default-features: `watch` then captures with libpcap only, and a closed door replies 421"
            );
            ExitCode::FAILURE
        }
    }
}

fn source(name: &str) -> String {
    format!("src/bpf/{name}.bpf.c")
}

fn compile(name: &str) -> Result<(), String> {
    let variable = |name: &str| env::var(name).map_err(|error| format!("{name}: {error}"));
    let object = PathBuf::from(variable("OUT_DIR")?).join(format!("{name}.bpf.o"));
    let target = match variable("CARGO_CFG_TARGET_ENDIAN")?.as_str() {
        "big" => "bpfeb",
        _ => "bpfel",
    };
    // Debian's folder for architecture-specific headers (asm/types.h). A missing folder does no harm.
    let headers = format!("/usr/include/{}-linux-gnu", variable("CARGO_CFG_TARGET_ARCH")?);
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    // -g generates BTF, which the loader uses to locate fields of kernel structures. Kernel 5.1 and later run v3.
    let output = Command::new(&clang)
        .args(["-O2", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"])
        .args(["-target", target, "-mcpu=v3", "-isystem", &headers, "-c"])
        .args([&source(name), "-o"])
        .arg(&object)
        .output()
        .map_err(|error| format!("cannot run {clang}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    // One warning per line, because cargo reads no others.
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        println!("cargo::warning={line}");
    }
    Err(format!("{clang} ended with {}", output.status))
}
