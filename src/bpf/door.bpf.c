// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Refuses new connections to the gateway's listeners while the door of their family is closed. The kernel calls this program
 * before its own lookup of a listening socket. SK_DROP means that there is none: the kernel answers RST (RFC 9293 §3.10.7.1),
 * as for a closed port. Established connections and handshakes in progress have sockets of their own and are not affected.
 *
 * Requires Linux 5.9. IPv4 addresses are mapped, ::ffff:a.b.c.d (RFC 4291 §2.5.5.2). src/intercept/door/lookup.rs fills the
 * maps.
 */
#include <linux/bpf.h>
#include <linux/in.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define AF_INET 2
#define AF_INET6 10

#define IPV4 0
#define IPV6 1

struct address {
	__be32 words[4];
};

struct listener {
	struct address address; /* :: or ::ffff:0.0.0.0 is any address of the family */
	__u32 port;
};

struct network {
	__u32 length; /* prefix length in bits */
	struct address address;
};

/* By family: nonzero while its door is closed. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} closed SEC(".maps");

/* By family: number of SK_DROP results. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} refused SEC(".maps");

/* The gateway's listeners. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct listener);
	__type(value, __u8);
} listeners SEC(".maps");

/* Clients that are exempt from the door. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct network);
	__type(value, __u8);
} exempt SEC(".maps");

static __always_inline void from_ipv4(struct address *address, __be32 ipv4)
{
	address->words[0] = 0;
	address->words[1] = 0;
	address->words[2] = bpf_htonl(0xffff);
	address->words[3] = ipv4;
}

/*
 * Without CAP_PERFMON the verifier rejects loads through a computed context pointer. With a volatile context, and all loads
 * before the branch by family, clang computes none.
 */
SEC("sk_lookup")
int door(volatile struct bpf_sk_lookup *lookup)
{
	__u32 family = lookup->family == AF_INET6 ? IPV6 : IPV4;
	struct listener listener = {};
	struct network client = { .length = 128 };
	__be32 local_ipv4, remote_ipv4;
	__u32 *is_closed;
	__u64 *count;

	if (lookup->protocol != IPPROTO_TCP)
		return SK_PASS;
	is_closed = bpf_map_lookup_elem(&closed, &family);
	if (!is_closed || !*is_closed)
		return SK_PASS;

	listener.port = lookup->local_port;
	local_ipv4 = lookup->local_ip4;
	remote_ipv4 = lookup->remote_ip4;
	listener.address.words[0] = lookup->local_ip6[0];
	listener.address.words[1] = lookup->local_ip6[1];
	listener.address.words[2] = lookup->local_ip6[2];
	listener.address.words[3] = lookup->local_ip6[3];
	client.address.words[0] = lookup->remote_ip6[0];
	client.address.words[1] = lookup->remote_ip6[1];
	client.address.words[2] = lookup->remote_ip6[2];
	client.address.words[3] = lookup->remote_ip6[3];
	if (family == IPV4) {
		from_ipv4(&listener.address, local_ipv4);
		from_ipv4(&client.address, remote_ipv4);
	}
	if (!bpf_map_lookup_elem(&listeners, &listener)) {
		/* A listener on the wildcard address. */
		if (family == IPV6)
			__builtin_memset(&listener.address, 0, sizeof(listener.address));
		else
			from_ipv4(&listener.address, 0);
		if (!bpf_map_lookup_elem(&listeners, &listener))
			return SK_PASS;
	}
	if (bpf_map_lookup_elem(&exempt, &client))
		return SK_PASS;
	count = bpf_map_lookup_elem(&refused, &family);
	if (count)
		*count += 1;
	return SK_DROP;
}
