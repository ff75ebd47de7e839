/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * Records from the programs of watch.bpf.c to user space. src/source/ebpf/record.rs parses them; a test compares the
 * constants of both. Integers are in host byte order; addresses and packet bytes are as on the wire.
 */
#ifndef GATEPOST_WATCH_H
#define GATEPOST_WATCH_H

#include <linux/types.h>

/* watch_record.kind */
#define WATCH_PACKET 1 /* followed by bytes of a packet, from its IP header */
#define WATCH_SOCKET 2 /* followed by a struct watch_socket */

/*
 * While a client sends message content: payload bytes to submit. A payload of up to WATCH_SHORT bytes is submitted whole, of
 * a longer one the last WATCH_TAIL bytes.
 */
#define WATCH_SHORT 1024
#define WATCH_TAIL 256

/* Bytes of TLS to submit in each direction, from its first segment. */
#define WATCH_TLS 4096

/* Maximum bytes of an ICMP error and of a datagram, from the IP header. */
#define WATCH_ICMP 256
#define WATCH_DATAGRAM 1500

/* Maximum bytes of any packet. Longer ones (IPv6 jumbograms of BIG TCP) are truncated. */
#define WATCH_LONGEST 65536

/* The counters of the map `lost`. */
#define WATCH_LOST_SYNS 0
#define WATCH_LOST_PACKETS 1

/* The counters of the map `seen`: for ifindex modulo WATCH_SEEN, one for each direction. */
#define WATCH_SEEN 1024
#define WATCH_IN 0
#define WATCH_OUT 1

struct watch_record {
	__u64 at;	 /* CLOCK_MONOTONIC, ns */
	__u32 interface; /* ifindex */
	__u32 wire_len;	 /* bytes of the IP packet */
	__u32 omitted;	 /* bytes of TCP payload skipped after the headers */
	__u32 captured;	 /* bytes that follow; with a tail, those before the omitted ones */
	__u32 tail;	 /* bytes after the omitted ones; stored first, in WATCH_TAIL bytes of space */
	__u32 kind;
};

struct watch_socket {
	__u8 local[16]; /* IPv4: the first four bytes */
	__u8 peer[16];
	__u32 srtt_us; /* 8 times the smoothed round-trip time */
	__u32 total_retrans;
	__u16 local_port;
	__u16 peer_port;
	__u16 family; /* AF_INET or AF_INET6 */
	__u16 closed; /* 1 in TCP_CLOSE */
};

_Static_assert(sizeof(struct watch_record) == 32, "must match record.rs");
_Static_assert(sizeof(struct watch_socket) == 48, "must match record.rs");

#endif
