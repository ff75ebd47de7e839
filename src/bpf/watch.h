/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * What the programs of watch.bpf.c hand to user space. src/source/ebpf/record.rs reads it, with the same names and
 * numbers; a test there holds both together. All of it is in the byte order of the machine, but for addresses and for the
 * octets of packets.
 */
#ifndef GATEPOST_WATCH_H
#define GATEPOST_WATCH_H

#include <linux/types.h>

/* watch_record.kind */
#define WATCH_PACKET 1 /* octets of a packet follow, from its IP header */
#define WATCH_SOCKET 2 /* a struct watch_socket follows */

/* Octets of a client's payload that come up while it sends content: all of it up to WATCH_SHORT, else the last. */
#define WATCH_SHORT 1024
#define WATCH_TAIL 256

/* Octets of TLS, from its first segment on, that come up of each direction. */
#define WATCH_TLS 4096

/* Octets of an ICMP error and of a datagram, from the IP header. */
#define WATCH_ICMP 256
#define WATCH_DATAGRAM 1500

/* Octets of any packet that come up at most. Longer ones (IPv6 jumbograms of BIG TCP) are cut. */
#define WATCH_LONGEST 65536

/* The counters of the map `lost`. */
#define WATCH_LOST_OPENINGS 0
#define WATCH_LOST_PACKETS 1

struct watch_record {
	__u64 at;	 /* CLOCK_MONOTONIC, ns */
	__u32 interface; /* ifindex */
	__u32 wire_len;	 /* octets of the IP packet */
	__u32 omitted;	 /* octets of TCP payload left out behind the headers */
	__u32 captured;	 /* octets that follow: all, or where there is a tail, those before what is omitted */
	__u32 tail;	 /* octets behind what is omitted. They stand first, in room for WATCH_TAIL */
	__u32 kind;
};

struct watch_socket {
	__u8 local[16]; /* IPv4: the first four octets */
	__u8 peer[16];
	__u32 srtt_us; /* 8 times the smoothed round-trip time */
	__u32 total_retrans;
	__u16 local_port;
	__u16 peer_port;
	__u16 family; /* AF_INET or AF_INET6 */
	__u16 closed; /* 1 in TCP_CLOSE */
};

_Static_assert(sizeof(struct watch_record) == 32, "as record.rs has it");
_Static_assert(sizeof(struct watch_socket) == 48, "as record.rs has it");

#endif
