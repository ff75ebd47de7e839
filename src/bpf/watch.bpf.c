// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Copies SMTP-related parts of an interface's packets, and state changes of TCP sockets, to user space. Packets are never
 * changed, dropped or delayed: every packet program returns TC_ACT_UNSPEC, which equals TCX_NEXT.
 *
 * Requires Linux 5.8 (ring buffers; bpf_skc_to_tcp_sock is of 5.9). RFC 791, RFC 8200, RFC 4302 (AH), RFC 9293, IEEE 802.1Q;
 * RFC 5321 for reply 354, RFC 8446 for the start of TLS.
 *
 * While a client sends message content (from 354 to the server's next reply), and in TLS, most payload is skipped. The state
 * of such flows is in `flows`; a flow without an entry is in neither.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <stdbool.h>
#include <stddef.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_tracing.h>

#include "socket.h"
#include "watch.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define AF_INET 2
#define AF_INET6 10

/* Set before loading. */
const volatile __u64 watched_ports[1024]; /* one bit per port */
const volatile __u32 own_netns;		  /* inode number */
const volatile __u32 packets_quarter;	  /* a quarter of the ring `packets`, in bytes */

#define SYNS_SIZE (1 << 20)

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, SYNS_SIZE);
} syns SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 << 20);
} packets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

/*
 * Packets of each interface and direction, of any protocol: user space compares them with the interface's own counters.
 * Interfaces whose indexes are equal modulo WATCH_SEEN share counters, which may hide a fault but invents none.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2 * WATCH_SEEN);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

struct flow_key {
	__u8 client[16];
	__u8 server[16];
	__be16 client_port;
	__be16 server_port;
	__u32 family;
};

#define CLIENT 0
#define SERVER 1

struct flow {
	__u32 server_end; /* sequence number after the last inspected payload of the server */
	__u16 content;	  /* the client sends message content */
	__u16 is_tls;
	struct tls {
		__u32 at; /* sequence number of the first TLS segment of a direction */
		__u16 seen;
		__u16 over; /* no further payload is submitted */
	} client, server;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

static __always_inline bool is_watched(__u16 port)
{
	return watched_ports[port >> 6] >> (port & 63) & 1;
}

/* ---- Records ---- */

/*
 * Record sizes, without the kernel's 8-byte ring header. The verifier requires a constant size of a reservation, and a
 * reservation avoids a second copy. For headers; headers and WATCH_TAIL; an Ethernet frame; packets merged by GSO or GRO.
 */
#define HEADERS_SIZE (128 - 8)
#define TAIL_SIZE (416 - 8)
#define FRAME_SIZE (1600 - 8)
#define LARGE_SIZE (16384 - 8)
#define LONGEST_SIZE (sizeof(struct watch_record) + WATCH_LONGEST)

static __always_inline void count_lost(__u32 counter)
{
	__u64 *count = bpf_map_lookup_elem(&lost, &counter);

	if (count)
		*count += 1;
}

/* User space polls every few milliseconds. It is woken up only when a ring becomes a quarter full. */
static __always_inline __u64 wakeup(void *ring, __u32 quarter)
{
	__u64 waiting = bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA);

	return waiting - quarter < 2 * LONGEST_SIZE ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

/* The part of a packet to submit: `head` bytes from offset `ip`, then `tail` bytes from offset `tail_at`. */
struct part {
	__u32 ip;
	__u32 wire_len;
	__u32 head;
	__u32 omitted;
	__u32 tail_at;
	__u32 tail; /* at max WATCH_TAIL */
	bool is_syn;
};

static __always_inline void write_record(struct __sk_buff *skb, const struct part *part, const __u32 size)
{
	const __u32 counter = part->is_syn ? WATCH_LOST_SYNS : WATCH_LOST_PACKETS;
	__u32 head = part->head, tail = part->tail;
	struct watch_record *record;
	void *bytes;

	if (part->is_syn)
		record = bpf_ringbuf_reserve(&syns, size, 0);
	else
		record = bpf_ringbuf_reserve(&packets, size, 0);
	if (!record) {
		count_lost(counter);
		return;
	}
	bytes = record + 1;
	record->at = bpf_ktime_get_ns();
	record->interface = skb->ifindex;
	record->wire_len = part->wire_len;
	record->omitted = part->omitted;
	record->captured = head;
	record->tail = tail;
	record->kind = WATCH_PACKET;

	/* The bounds are checked already, but the verifier has lost them. */
	asm volatile("" : "+r"(head), "+r"(tail));
	if (head - 1 >= size - sizeof(*record))
		goto discard;
	if (!tail) {
		if (bpf_skb_load_bytes(skb, part->ip, bytes, head) < 0)
			goto discard;
	} else {
		if (size < TAIL_SIZE || head > size - sizeof(*record) - WATCH_TAIL || tail > WATCH_TAIL)
			goto discard;
		if (bpf_skb_load_bytes(skb, part->ip, bytes + WATCH_TAIL, head) < 0)
			goto discard;
		if (bpf_skb_load_bytes(skb, part->tail_at, bytes, tail) < 0)
			goto discard;
	}
	if (part->is_syn)
		bpf_ringbuf_submit(record, wakeup(&syns, SYNS_SIZE / 4));
	else
		bpf_ringbuf_submit(record, wakeup(&packets, packets_quarter));
	return;
discard:
	bpf_ringbuf_discard(record, BPF_RB_NO_WAKEUP);
	count_lost(counter);
}

/*
 * A global function (not inlined, not static), which the verifier checks once instead of on every path to it. Arguments are
 * integers only: kernels before 5.12 accept no pointers.
 */
__noinline int submit_part(struct __sk_buff *skb, __u64 offsets, __u64 wire_len_omitted, __u64 head_tail, __u32 is_syn)
{
	struct part part = {
		.ip = offsets >> 32,
		.tail_at = offsets,
		.wire_len = wire_len_omitted >> 32,
		.omitted = wire_len_omitted,
		.head = head_tail >> 32,
		.tail = head_tail,
		.is_syn = is_syn,
	};
	__u32 size;

	if (part.head > WATCH_LONGEST)
		part.head = WATCH_LONGEST;
	size = sizeof(struct watch_record) + part.head + (part.tail ? WATCH_TAIL : 0);
	if (size <= HEADERS_SIZE)
		write_record(skb, &part, HEADERS_SIZE);
	else if (size <= TAIL_SIZE)
		write_record(skb, &part, TAIL_SIZE);
	else if (size <= FRAME_SIZE)
		write_record(skb, &part, FRAME_SIZE);
	else if (size <= LARGE_SIZE)
		write_record(skb, &part, LARGE_SIZE);
	else
		write_record(skb, &part, LONGEST_SIZE);
	return 0;
}

#define BOTH(high, low) ((__u64)(high) << 32 | (low))

static __always_inline void submit(struct __sk_buff *skb, const struct part *part)
{
	submit_part(skb, BOTH(part->ip, part->tail_at), BOTH(part->wire_len, part->omitted),
		     BOTH(part->head, part->tail), part->is_syn);
}

/* Submits the first `max` bytes of a packet. */
static __always_inline void submit_prefix(struct __sk_buff *skb, __u32 ip, __u32 wire_len, __u32 max)
{
	struct part part = { .ip = ip, .wire_len = wire_len, .head = wire_len < max ? wire_len : max };

	submit(skb, &part);
}

/* ---- TCP ---- */

struct segment {
	struct flow_key key;
	__u32 payload; /* offset in the packet */
	__u32 len;     /* payload bytes */
	__u32 seq;
	__u32 from; /* CLIENT or SERVER */
};

/* 1 if `a` is not `b`, else 0, without a branch. */
static __always_inline __u32 differs(__u32 a, __u32 b)
{
	__u32 x = a ^ b, negative = -x;

	/* Keeps the compiler from turning this into a branch. */
	asm volatile("" : "+r"(negative));
	return (x | negative) >> 31;
}

/*
 * Whether the last line of a server's payload (`len` bytes at offset `payload`) is reply 354. Replies to MAIL and RCPT may
 * precede it. A global function like submit_part; free of branches because the verifier would follow each one in the loop.
 */
__noinline int ends_with_354(struct __sk_buff *skb, __u32 payload, __u32 len)
{
	const __u32 reply = '\n' << 24 | '3' << 16 | '5' << 8 | '4';
	__u8 bytes[128] = {};
	__u32 last = len < sizeof(bytes) ? len : sizeof(bytes);
	__u32 word = len <= sizeof(bytes) ? '\n' : 0;
	__u32 matches = 0;

	asm volatile("" : "+r"(last));
	if (last - 1 >= sizeof(bytes))
		return 0;
	if (bpf_skb_load_bytes(skb, payload + len - last, bytes, last) < 0)
		return 0;
	/* Unrolled: a variable stack index would need CAP_PERFMON. */
#pragma unroll
	for (__u32 i = 0; i < sizeof(bytes); i++) {
		/* Zeros after the end do not start a line. */
		__u32 starts = (1 - differs(word & 0xff, '\n')) & differs(bytes[i], 0);

		word = word << 8 | bytes[i];
		matches = (matches & ~starts) | (1 - differs(word, reply));
	}
	return matches;
}

/*
 * A server sends no other binary data than TLS, so the first three bytes of a record identify it. A client may (BDAT), so its
 * data must start with a ClientHello.
 */
static __always_inline bool starts_tls(struct __sk_buff *skb, const struct segment *segment)
{
	__u8 bytes[6];

	if (segment->len < sizeof(bytes))
		return false;
	if (bpf_skb_load_bytes(skb, segment->payload, bytes, sizeof(bytes)) < 0)
		return false;
	if (bytes[1] != 3 || bytes[2] > 4)
		return false;
	if (segment->from == SERVER)
		return bytes[0] >= 20 && bytes[0] <= 23;
	return bytes[0] == 22 && bytes[5] == 1;
}

/*
 * Whether a segment is within the first WATCH_TLS bytes of its direction. By sequence number, so that retransmits count once.
 */
static __always_inline bool is_tls_start(struct flow *flow, const struct segment *segment)
{
	struct tls *tls = &flow->client;
	__s32 offset;

	if (segment->from == SERVER) {
		tls = &flow->server;
		/* Prevents pointer arithmetic, which would need CAP_PERFMON. */
		asm volatile("" : "+r"(tls));
	}
	if (tls->over)
		return false;
	if (!tls->seen) {
		tls->at = segment->seq;
		tls->seen = 1;
	}
	offset = segment->seq - tls->at;
	/* Well past it, before sequence numbers wrap. */
	if (offset > 1 << 20)
		tls->over = 1;
	return offset < WATCH_TLS;
}

/* Number of payload bytes to submit, counted from the end. Updates the state of the flow. */
static __always_inline __u32 wanted(struct __sk_buff *skb, const struct segment *segment)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, &segment->key);
	__u32 end = segment->seq + segment->len;
	struct flow new = {};

	if (flow && flow->is_tls)
		return is_tls_start(flow, segment) ? segment->len : 0;
	if (segment->from == CLIENT && flow && flow->content)
		return segment->len <= WATCH_SHORT ? segment->len : WATCH_TAIL;
	/* Retransmits and copies from another interface do not change the state. */
	if (segment->from == SERVER && flow && (__s32)(end - flow->server_end) <= 0)
		return segment->len;

	if (starts_tls(skb, segment)) {
		new.is_tls = 1;
		bpf_map_update_elem(&flows, &segment->key, &new, BPF_ANY);
		flow = bpf_map_lookup_elem(&flows, &segment->key);
		if (flow)
			is_tls_start(flow, segment);
	} else if (segment->from == SERVER) {
		bool is_354 = ends_with_354(skb, segment->payload, segment->len);

		if (flow) {
			flow->content = is_354;
			flow->server_end = end;
		} else if (is_354) {
			new.content = 1;
			new.server_end = end;
			bpf_map_update_elem(&flows, &segment->key, &new, BPF_ANY);
		}
	}
	return segment->len;
}

/* Reads the addresses of the packet at offset `ip` in the roles of `segment`. */
static __always_inline bool read_addresses(struct __sk_buff *skb, __u32 ip, struct segment *segment)
{
	const bool v4 = segment->key.family == AF_INET;
	__u32 source = ip + (v4 ? offsetof(struct iphdr, saddr) : offsetof(struct ipv6hdr, saddr));
	__u32 destination = ip + (v4 ? offsetof(struct iphdr, daddr) : offsetof(struct ipv6hdr, daddr));
	__u32 client = segment->from == CLIENT ? source : destination;
	__u32 server = segment->from == CLIENT ? destination : source;

	if (v4)
		return bpf_skb_load_bytes(skb, client, segment->key.client, 4) == 0 &&
		       bpf_skb_load_bytes(skb, server, segment->key.server, 4) == 0;
	return bpf_skb_load_bytes(skb, client, segment->key.client, 16) == 0 &&
	       bpf_skb_load_bytes(skb, server, segment->key.server, 16) == 0;
}

/*
 * Processes an unfragmented TCP packet with headers at offsets `ip` and `transport`. A global function like submit_part.
 */
__noinline int watch_tcp(struct __sk_buff *skb, __u32 ip, __u32 transport, __u32 wire_len, __u32 family)
{
	struct part part = { .ip = ip, .wire_len = wire_len };
	struct segment segment = { .key.family = family };
	bool to_watched, from_watched;
	__u16 source, destination;
	struct tcphdr tcp;
	__u32 count;

	if (bpf_skb_load_bytes(skb, transport, &tcp, sizeof(tcp)) < 0)
		return 0;
	source = bpf_ntohs(tcp.source);
	destination = bpf_ntohs(tcp.dest);
	to_watched = is_watched(destination);
	from_watched = is_watched(source);
	if (!to_watched && !from_watched)
		return 0;
	/* A client may connect from port 2525 to port 25. */
	segment.from = to_watched && (!from_watched || destination <= source) ? CLIENT : SERVER;
	segment.payload = transport + tcp.doff * 4;
	part.head = segment.payload - ip;
	if (tcp.doff < 5 || part.head > wire_len) {
		/* Invalid header: user space reports it. */
		submit_prefix(skb, ip, wire_len, WATCH_DATAGRAM);
		return 0;
	}
	segment.len = wire_len - part.head;
	part.is_syn = tcp.syn && !tcp.ack && to_watched;
	count = segment.len;
	if ((segment.len || part.is_syn) && read_addresses(skb, ip, &segment)) {
		segment.key.client_port = segment.from == CLIENT ? tcp.source : tcp.dest;
		segment.key.server_port = segment.from == CLIENT ? tcp.dest : tcp.source;
		segment.seq = bpf_ntohl(tcp.seq);
		if (part.is_syn)
			bpf_map_delete_elem(&flows, &segment.key);
		else
			count = wanted(skb, &segment);
	}
	if (count == segment.len) {
		part.head += count;
	} else {
		part.omitted = segment.len - count;
		part.tail_at = segment.payload + part.omitted;
		part.tail = count;
	}
	submit(skb, &part);
	return 0;
}

/* ---- The network layer ---- */

/* A packet and its headers. */
struct network {
	__u32 family;
	__u32 ip;	 /* offset of its header */
	__u32 transport; /* offset of the next header, after extension headers */
	__u32 wire_len;
};

static __always_inline bool is_dns_answer(struct __sk_buff *skb, const struct network *network)
{
	__be16 source;

	if (bpf_skb_load_bytes(skb, network->transport, &source, sizeof(source)) < 0)
		return false;
	return source == bpf_htons(53);
}

static __always_inline bool is_icmp_error(struct __sk_buff *skb, const struct network *network)
{
	__u8 type;

	if (bpf_skb_load_bytes(skb, network->transport, &type, sizeof(type)) < 0)
		return false;
	if (network->family == AF_INET6)
		return type >= 1 && type <= 4;
	return type == 3 || type == 11 || type == 12;
}

static __always_inline __u8 icmp_of(const struct network *network)
{
	return network->family == AF_INET6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
}

/* Processes a packet with transport header `protocol`. */
static __always_inline void watch_transport(struct __sk_buff *skb, const struct network *network, __u8 protocol)
{
	__u32 max;

	if (protocol == IPPROTO_TCP) {
		watch_tcp(skb, network->ip, network->transport, network->wire_len, network->family);
		return;
	}
	if (protocol == IPPROTO_UDP && is_dns_answer(skb, network))
		max = WATCH_DATAGRAM;
	else if (protocol == icmp_of(network) && is_icmp_error(skb, network))
		max = WATCH_ICMP;
	else
		return;
	submit_prefix(skb, network->ip, network->wire_len, max);
}

/*
 * Submits a whole fragment, since only the reassembled datagram can be classified. A first fragment has ports; of a later one
 * only the protocol is known.
 */
static __always_inline void watch_fragment(struct __sk_buff *skb, const struct network *network, __u8 protocol,
					   bool is_first)
{
	__be16 ports[2];

	if (is_first && (protocol == IPPROTO_TCP || protocol == IPPROTO_UDP)) {
		if (bpf_skb_load_bytes(skb, network->transport, ports, sizeof(ports)) < 0)
			return;
		if (protocol == IPPROTO_UDP && ports[0] != bpf_htons(53))
			return;
		if (protocol == IPPROTO_TCP && !is_watched(bpf_ntohs(ports[0])) && !is_watched(bpf_ntohs(ports[1])))
			return;
	} else if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP && protocol != icmp_of(network) &&
		   !(network->family == AF_INET6 && protocol == IPPROTO_DSTOPTS)) {
		return;
	}
	submit_prefix(skb, network->ip, network->wire_len, WATCH_LONGEST);
}

/* The length from the header; if that is invalid or 0 (BIG TCP), the length of the buffer. */
static __always_inline __u32 wire_len(struct __sk_buff *skb, __u32 ip, __u32 claimed, __u32 min)
{
	__u32 available = skb->len - ip;

	return claimed < min || claimed > available ? available : claimed;
}

/* An authentication header may follow IPv4, too. */
static __always_inline void watch_ipv4(struct __sk_buff *skb, __u32 ip)
{
	struct network network = { .family = AF_INET, .ip = ip };
	__u8 extension[2];
	struct iphdr header;
	__u16 fragment;
	__u8 protocol;

	if (bpf_skb_load_bytes(skb, ip, &header, sizeof(header)) < 0 || header.version != 4 || header.ihl < 5)
		return;
	protocol = header.protocol;
	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP && protocol != IPPROTO_ICMP && protocol != IPPROTO_AH)
		return;
	network.wire_len = wire_len(skb, ip, bpf_ntohs(header.tot_len), header.ihl * 4);
	network.transport = ip + header.ihl * 4;
	fragment = bpf_ntohs(header.frag_off) & 0x3fff;
	if (fragment) {
		watch_fragment(skb, &network, protocol, !(fragment & 0x1fff));
		return;
	}
	if (protocol == IPPROTO_AH) {
		if (bpf_skb_load_bytes(skb, network.transport, extension, sizeof(extension)) < 0)
			return;
		protocol = extension[0];
		network.transport += (extension[1] + 2) * 4;
	}
	watch_transport(skb, &network, protocol);
}

/* Maximum number of extension headers; packets with more are ignored. */
#define EXTENSIONS 8

/* A global function like submit_part. */
__noinline int watch_ipv6(struct __sk_buff *skb, __u32 ip)
{
	struct network network = { .family = AF_INET6, .ip = ip, .transport = ip + sizeof(struct ipv6hdr) };
	struct ipv6hdr header;
	__u8 extension[8];
	__u8 protocol;
	__u32 payload_len;

	if (bpf_skb_load_bytes(skb, ip, &header, sizeof(header)) < 0 || header.version != 6)
		return 0;
	payload_len = bpf_ntohs(header.payload_len);
	network.wire_len = wire_len(skb, ip, payload_len ? payload_len + sizeof(header) : 0, sizeof(header));
	protocol = header.nexthdr;

	for (int i = 0; i < EXTENSIONS; i++) {
		if (protocol != IPPROTO_HOPOPTS && protocol != IPPROTO_ROUTING && protocol != IPPROTO_DSTOPTS &&
		    protocol != IPPROTO_AH && protocol != IPPROTO_FRAGMENT)
			break;
		if (bpf_skb_load_bytes(skb, network.transport, extension, sizeof(extension)) < 0)
			return 0;
		if (protocol == IPPROTO_FRAGMENT) {
			__u16 fragment = extension[2] << 8 | extension[3];

			/* An atomic fragment is a complete packet (RFC 6946). */
			network.transport += 8;
			if (fragment & 0xfff9) {
				watch_fragment(skb, &network, extension[0], !(fragment & 0xfff8));
				return 0;
			}
		} else if (protocol == IPPROTO_AH) {
			network.transport += (extension[1] + 2) * 4;
		} else {
			network.transport += (extension[1] + 1) * 8;
		}
		protocol = extension[0];
	}
	watch_transport(skb, &network, protocol);
	return 0;
}

/* ---- The link layer ---- */

/* Maximum number of VLAN tags in the packet; the kernel usually keeps the outer one in the skb. */
#define TAGS 3

static __always_inline bool is_tag(__be16 type)
{
	return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD) || type == bpf_htons(ETH_P_QINQ1);
}

static __always_inline void count_seen(struct __sk_buff *skb, __u32 direction)
{
	__u32 index = skb->ifindex % WATCH_SEEN * 2 + direction;
	__u64 *count = bpf_map_lookup_elem(&seen, &index);

	if (count)
		*count += 1;
}

static __always_inline int watch(struct __sk_buff *skb, bool ethernet, __u32 direction)
{
	__be16 type = skb->protocol;
	__u32 ip = 0;

	count_seen(skb, direction);
	if (ethernet) {
		ip = ETH_HLEN;
		if (bpf_skb_load_bytes(skb, ip - 2, &type, sizeof(type)) < 0)
			return TC_ACT_UNSPEC;
		for (int i = 0; i < TAGS && is_tag(type); i++) {
			ip += 4;
			if (bpf_skb_load_bytes(skb, ip - 2, &type, sizeof(type)) < 0)
				return TC_ACT_UNSPEC;
		}
	}
	if (type == bpf_htons(ETH_P_IP))
		watch_ipv4(skb, ip);
	else if (type == bpf_htons(ETH_P_IPV6))
		watch_ipv6(skb, ip);
	return TC_ACT_UNSPEC;
}

/*
 * The kernel does not tell a program which direction it is attached to, so there is one for each. User space recognizes
 * gatepost's programs by these names, of which the kernel keeps 15 bytes.
 */

/* For interfaces with an Ethernet header, including loopback, veth and bridges. */
SEC("classifier")
int watch_frame_in(struct __sk_buff *skb)
{
	return watch(skb, true, WATCH_IN);
}

SEC("classifier")
int watch_frame_out(struct __sk_buff *skb)
{
	return watch(skb, true, WATCH_OUT);
}

/* For interfaces whose packets start with the IP header: tun, tunnels, WireGuard, PPP. */
SEC("classifier")
int watch_ip_in(struct __sk_buff *skb)
{
	return watch(skb, false, WATCH_IN);
}

SEC("classifier")
int watch_ip_out(struct __sk_buff *skb)
{
	return watch(skb, false, WATCH_OUT);
}

/* ---- Sockets ---- */

/*
 * Called for every network namespace. The local port is that of inet_sock: sock_common's is 0 in TCP_CLOSE if the kernel
 * chose the port.
 */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(watch_socket, struct sock *sk, int old_state, int new_state)
{
	__u16 family = sk->__sk_common.skc_family;
	struct watch_socket *socket;
	struct watch_record *record;
	__u16 local_port, peer_port;
	struct tcp_sock *tcp;

	/* The round-trip time is known after the handshake; a reset socket changes state only once more. */
	if (new_state != TCP_ESTABLISHED && new_state < TCP_FIN_WAIT1)
		return 0;
	if (new_state == TCP_LISTEN || new_state == TCP_NEW_SYN_RECV || old_state == TCP_LISTEN)
		return 0;
	if (sk->sk_protocol != IPPROTO_TCP || (family != AF_INET && family != AF_INET6))
		return 0;
	peer_port = bpf_ntohs(sk->__sk_common.skc_dport);
	if (!peer_port || sk->__sk_common.skc_net.net->ns.inum != own_netns)
		return 0;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return 0;
	local_port = bpf_ntohs(tcp->inet_conn.icsk_inet.inet_sport);
	if (!is_watched(local_port) && !is_watched(peer_port))
		return 0;

	record = bpf_ringbuf_reserve(&packets, sizeof(*record) + sizeof(*socket), 0);
	if (!record) {
		count_lost(WATCH_LOST_PACKETS);
		return 0;
	}
	__builtin_memset(record, 0, sizeof(*record) + sizeof(*socket));
	record->at = bpf_ktime_get_ns();
	record->captured = sizeof(*socket);
	record->kind = WATCH_SOCKET;
	socket = (void *)(record + 1);
	if (family == AF_INET) {
		*(__be32 *)socket->local = sk->__sk_common.skc_rcv_saddr;
		*(__be32 *)socket->peer = sk->__sk_common.skc_daddr;
	} else {
		copy_address(socket->local, &sk->__sk_common.skc_v6_rcv_saddr);
		copy_address(socket->peer, &sk->__sk_common.skc_v6_daddr);
	}
	socket->srtt_us = tcp->srtt_us;
	socket->total_retrans = tcp->total_retrans;
	socket->local_port = local_port;
	socket->peer_port = peer_port;
	socket->family = family;
	socket->closed = new_state == TCP_CLOSE;
	bpf_ringbuf_submit(record, wakeup(&packets, packets_quarter));
	return 0;
}
