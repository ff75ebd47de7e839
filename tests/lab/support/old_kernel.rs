//! A kernel before 6.6, for one thread and the processes that it starts: bpf(2) has no tcx.

#![allow(unsafe_code, reason = "neither nix nor rustix installs a filter of system calls")]

/// `enum bpf_cmd`
const BPF_PROG_QUERY: u32 = 16;
const BPF_LINK_CREATE: u32 = 28;

/// Offsets in `struct seccomp_data`: the number of the system call, and the lower half of its first argument.
const NUMBER: u32 = 0;
const FIRST_ARGUMENT: u32 = if cfg!(target_endian = "little") { 16 } else { 20 };

/// Attaching by tcx and asking for it fail with EINVAL, as for any unknown kind of attachment.
pub(crate) fn forget_tcx() {
    let load = |at: u32| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at);
    let answer = |with: u32| statement(libc::BPF_RET | libc::BPF_K, with);
    let if_equal = |to: u32, yes: u8, no: u8| {
        let code = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        libc::sock_filter { jt: yes, jf: no, ..statement(code, to) }
    };
    let mut filter = [
        load(NUMBER),
        if_equal(u32::try_from(libc::SYS_bpf).unwrap(), 0, 3),
        load(FIRST_ARGUMENT),
        if_equal(BPF_LINK_CREATE, 2, 0),
        if_equal(BPF_PROG_QUERY, 1, 0),
        answer(libc::SECCOMP_RET_ALLOW),
        answer(libc::SECCOMP_RET_ERRNO | libc::EINVAL.cast_unsigned()),
    ];
    let program =
        libc::sock_fprog { len: u16::try_from(filter.len()).unwrap(), filter: filter.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which lives on during the call.
    let status =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(status, 0, "seccomp(2): {}", std::io::Error::last_os_error());
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).unwrap(), jt: 0, jf: 0, k }
}
