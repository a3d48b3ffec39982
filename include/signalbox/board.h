/* SPDX-License-Identifier: Apache-2.0 */
/*
 * signalbox/board.h -- the board: what the agent knows about every target, in shared memory; this file is its specification,
 * version 1.0. A program that uses libsignalbox calls sbx_board_pick() and its neighbours in <signalbox.h>; this is for those
 * who read the memory themselves, in C, C++ or another language.
 *
 * WHAT IT IS. A memfd that comes by SCM_RIGHTS with the agent's WELCOME and BOARD frames, sealed
 * F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL: it cannot shrink under a reader (no SIGBUS), and nobody but the
 * agent can write to it, not even a program of the same user. Map it PROT_READ, MAP_SHARED. `board.snapshot` is a copy of it
 * in a file, for when the agent is gone; read that into memory of your own, since a file can be truncated under a map.
 *
 * BYTES. Native byte order: it never leaves the host. Every table lies at its offset with its stride, both from the header:
 * use these and never sizeof, because a later 1.x appends fields to a row. A reader takes every version 1.x.
 *
 *   0                256
 *   +----------------+-----------+-------------------+-------------+---------------+-------------+-----------+
 *   | header         | hot rows  | credential rows   | target rows | provider rows | route rows  | text      |
 *   +----------------+-----------+-------------------+-------------+---------------+-------------+-----------+
 *     written once,    seqlock     seqlock             cold: written once, before the magic, and never again
 *     then 3 words     each row    each row
 *
 *   HEADER, 256 bytes                                        table: offset u64, stride u32, count u32
 *     0 magic            "SBXBOARD"; stored last, release   128 target    table, cold
 *     8 version_major u32, version_minor u32                144 route     table, cold
 *    16 board_bytes      of the whole                       160 text_offset
 *    24 header_bytes u32, reserved u32                      168 text_bytes     the last of them is 0
 *    32 generation       random, of the agent's start       176 agent_start_ticks  field 22 of /proc/PID/stat; 0 = not known
 *    40 edition          1, 2 ... with each reload          184 agent_pid_ns       inode of its pid namespace; 0 = not known
 *    48 agent_pid                                           --- these change while it is served ---
 *    56 agent_start_boot_ns                                 192 heartbeat_boot_ns
 *    64 heartbeat_interval_ns                               200 heartbeat_unix_ns  the same moment by the wall clock
 *    72 reserved                                            208 state              SBX_BOARD_STARTING ...
 *    80 hot       table                                     --- and these not ---
 *    96 credential table                                    216 boot_id[2]         random, of the host's start; 0 = not known
 *   112 provider  table, cold                              232 reserved (3 words)
 *
 *   HOT ROW, 256 bytes, one for each target; row i is of target row i
 *     0 seq                 odd = being written             128 why                  SBX_BOARD_WHY_*; of `state`
 *     8 shut_until_boot_ns  0 = up; all ones = its one      136 since_boot_ns        in this state
 *                           trial runs; else due then       144 first_p95_ns
 *    16 throttled_boot_ns   the latest of throttle[]        152 first_p99_ns
 *    24 price_change_unix_s 0 = none is known               160 first_n              answers behind first_*
 *    32 price_in            nano-USD per million tokens     168 total_p50_ns
 *    40 price_out           (SBX_BOARD_UNPRICED = unknown)  176 total_p95_ns
 *    48 in_flight                                           184 total_p99_ns
 *    56 first_p50_ns        to first content; 0 = none seen 192 total_n
 *    64 throttle_boot_ns[8] by the number of the            200 recent_good          ends of the last 30 s
 *                           provider's credential           208 recent_bad
 *   the first 64 bytes are what a choice reads              216 state                SBX_BOARD_UP ...
 *                                                           224 price_in_after
 *                                                           232 price_out_after
 *                                                           240 attempts             since the agent's start
 *                                                           248 reserved
 *   CREDENTIAL ROW, 64 bytes                                TARGET ROW, 64 bytes
 *     0 seq                                                   0 provider u32, keyless u32 (it wants no key)
 *     8 shut_until_boot_ns  as above                          8 caps u32, caps_known u32   SBX_CAP_*
 *    16 why                                                  16 context_tokens u32, output_tokens u32   0 = not known
 *    24 since_boot_ns                                        24 price_tokens u32, reserved u32
 *    32 provider u32, fingerprint u32 (written once)         32 name text         "provider/model"
 *    40 source text                  (written once)          40 model text        as the provider calls it
 *    48 reserved (2 words)                                   48 first_credential u32, n_credentials u32
 *                                                            56 price_request
 *   PROVIDER ROW, 64 bytes                                  ROUTE ROW, 96 bytes
 *     0 name text                                             0 name text
 *     8 base_url text                                         8 n_targets u32, policy u32   SBX_BOARD_POLICY_*
 *    16 chat_url text       whole, to POST to                16 target u32[16]              rows, in order
 *    24 dialect text                                         80 reserved (2 words)
 *    32 auth u32 (SBX_BOARD_AUTH_*), reserved u32
 *    40 first_credential u32, n_credentials u32
 *    48 wait_short_ns       a throttle of at most this is waited for rather than a target tried that is down
 *    56 reserved
 *
 *   text: offset u32 (into the text, not the board), bytes u32; a 0 follows. Names of keys stand there, never a key.
 *
 * READING A ROW, from another thread or process, while the agent writes. seq is even and the same before and after, or what
 * was read means nothing:
 *     do {
 *         while (!sbx_row_read_begin(&row->seq, &seq)) {}   -- bounded: SBX_BOARD_TRIES
 *         state = sbx_word_load(&row->state); ...             -- into locals, only the words that are needed
 *     } while (!sbx_row_read_end(&row->seq, seq));
 * A live writer can win many times: after SBX_BOARD_TRIES give up and call it busy. A writer that died in between leaves an odd
 * seq for ever: that row is unknown, the others are good. One row is consistent in itself; rows are no snapshot of one
 * instant. Strings are cold and are never read under a seqlock.
 *
 * TIME is CLOCK_BOOTTIME (_boot_ns), which every process of a host shares; prices change by the wall clock (_unix_s).
 *
 * PRICES are of input that comes from no cache, and of output. price_in and price_out hold until price_change_unix_s, then the
 * two after it; the agent writes the row anew within a heartbeat of that, and a reader need not wait for it. They are those of a
 * prompt of at most price_tokens (0 = of any): what a longer one costs does not stand here. price_request is a fee for each
 * request, 0 for most, nano-USD per million of them: the highest that is in force or announced.
 *
 * THE AGENT: state STOPPED = an orderly end; REPLACED = another board has taken over, ask for it; else a heartbeat older than
 * three intervals = it hangs or is dead. Its process tells which: pid and start, where agent_pid_ns is the reader's own pid
 * namespace. In another one that number is somebody else's or nobody's, and no more can be said than that the heartbeat is old. A
 * snapshot of another boot_id is of an agent that is dead, and its _boot_ns count from another zero: the wall clock bridges the two.
 */
#ifndef SIGNALBOX_BOARD_H
#define SIGNALBOX_BOARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SBX_BOARD_MAGIC 0x4452414f42584253ull /* "SBXBOARD" as little-endian bytes */
#define SBX_BOARD_VERSION_MAJOR 1
#define SBX_BOARD_VERSION_MINOR 0
#define SBX_BOARD_HEARTBEAT_NS 1000000000ull  /* an idle agent wakes once a second for it */
#define SBX_BOARD_STALE_BEATS 3
#define SBX_BOARD_SNAPSHOT_NS 10000000000ull  /* between two snapshots: what an app loses of the facts when the agent dies */
#define SBX_BOARD_TRIES 64                    /* a publish takes under a microsecond and comes 100 times a second at most */
#define SBX_BOARD_KEYS_MAX 8
#define SBX_BOARD_ROUTE_TARGETS_MAX 16
#define SBX_BOARD_BYTES_MAX (64u << 20)       /* 4,096 targets with the longest of names are 4 MiB */
#define SBX_BOARD_UNPRICED INT64_MIN          /* a price that is not known is not 0 */
#define SBX_BOARD_NEVER UINT64_MAX

/* X(NAME, number, "word") */
#define SBX_BOARD_AGENT_STATES(X) X(STARTING, 0, "starting") X(SERVING, 1, "serving") X(DRAINING, 2, "draining") X(STOPPED, 3, "stopped") X(REPLACED, 4, "replaced")
#define SBX_BOARD_TARGET_STATES(X) X(UP, 0, "up") X(DOWN, 1, "down") X(PROBING, 2, "probing") X(MISCONFIGURED, 3, "misconfigured")
/* Why a target or a credential is shut: how the attempt ended that shut it. */
#define SBX_BOARD_WHYS(X)                                                                                                      \
	X(NONE, 0, "") X(OK, 1, "answered") X(NOT_SENT, 2, "cannot be reached") X(REFUSED, 3, "rate limit or overload")        \
	X(BAD_REQUEST, 4, "request rejected") X(CONTEXT_LENGTH, 5, "request too long") X(CONTENT_FILTER, 6, "content refused") \
	X(AUTH, 7, "key refused") X(QUOTA, 8, "account empty") X(FORBIDDEN, 9, "key may not use it")                           \
	X(NOT_THERE, 10, "model unknown there") X(FAILED, 11, "provider fails") X(UNCERTAIN, 12, "silence after sending")      \
	X(MIDSTREAM, 13, "streams break") X(CANCELLED, 14, "cancelled") X(LOCAL, 15, "this host's own failure")                \
	X(PASSED_OVER, 16, "not tried")
#define SBX_BOARD_AUTHS(X) X(NONE, 0, "none") X(BEARER, 1, "bearer") X(API_KEY, 2, "api-key") X(X_API_KEY, 3, "x-api-key")

enum sbx_board_agent_state {
#define X(name, number, word) SBX_BOARD_##name = number,
	SBX_BOARD_AGENT_STATES(X)
#undef X
};
enum sbx_board_target_state {
#define X(name, number, word) SBX_BOARD_##name = number,
	SBX_BOARD_TARGET_STATES(X)
#undef X
};
enum sbx_board_why {
#define X(name, number, word) SBX_BOARD_WHY_##name = number,
	SBX_BOARD_WHYS(X)
#undef X
	SBX_BOARD_WHY__COUNT
};
enum sbx_board_auth {
#define X(name, number, word) SBX_BOARD_AUTH_##name = number,
	SBX_BOARD_AUTHS(X)
#undef X
};
enum { SBX_BOARD_POLICY_PRIORITY = 0 };
/* What a model can do. A bit counts only where the same bit of caps_known is set. */
enum { SBX_CAP_REASONING = 1, SBX_CAP_TOOLS = 2, SBX_CAP_VISION = 4, SBX_CAP_JSON_SCHEMA = 8, SBX_CAP_PREFILL = 16 };

struct sbx_board_text { uint32_t offset, bytes; };
struct sbx_board_table { uint64_t offset; uint32_t stride, count; };

struct sbx_board_header {
	uint64_t magic;
	uint32_t version_major, version_minor;
	uint64_t board_bytes;
	uint32_t header_bytes, reserved_28;
	uint64_t generation, edition, agent_pid, agent_start_boot_ns, heartbeat_interval_ns, reserved_72;
	struct sbx_board_table hot, credential, provider, target, route;
	uint64_t text_offset, text_bytes;
	uint64_t agent_start_ticks, agent_pid_ns;
	uint64_t heartbeat_boot_ns, heartbeat_unix_ns, state;
	uint64_t boot_id[2], reserved_232[3];
};

struct sbx_board_hot {
	uint64_t seq;
	uint64_t shut_until_boot_ns, throttled_boot_ns, price_change_unix_s, price_in, price_out, in_flight, first_p50_ns;
	uint64_t throttle_boot_ns[SBX_BOARD_KEYS_MAX];
	uint64_t why, since_boot_ns, first_p95_ns, first_p99_ns, first_n, total_p50_ns, total_p95_ns, total_p99_ns;
	uint64_t total_n, recent_good, recent_bad, state, price_in_after, price_out_after, attempts, reserved_248;
};

struct sbx_board_credential {
	uint64_t seq, shut_until_boot_ns, why, since_boot_ns;
	uint32_t provider, fingerprint; /* the first 32 bits of the key's SHA-256, as the log shows them: is it another key? */
	struct sbx_board_text source;
	uint64_t reserved_48[2];
};

struct sbx_board_target {
	uint32_t provider, keyless, caps, caps_known, context_tokens, output_tokens, price_tokens, reserved_28;
	struct sbx_board_text name, model;
	uint32_t first_credential, n_credentials;
	uint64_t price_request;
};

struct sbx_board_provider {
	struct sbx_board_text name, base_url, chat_url, dialect;
	uint32_t auth, reserved_36, first_credential, n_credentials;
	uint64_t wait_short_ns, reserved_56;
};

struct sbx_board_route {
	struct sbx_board_text name;
	uint32_t n_targets, policy;
	uint32_t target[SBX_BOARD_ROUTE_TARGETS_MAX];
	uint64_t reserved_80[2];
};

/* ---- every offset, so that no compiler and no edit moves one unnoticed ---- */
#ifdef __cplusplus
#define SBX_BOARD_ASSERT(what) static_assert(what, #what)
#else
#define SBX_BOARD_ASSERT(what) _Static_assert(what, #what)
#endif
#define SBX_BOARD_AT(type, field, at) SBX_BOARD_ASSERT(offsetof(struct sbx_board_##type, field) == (at))
SBX_BOARD_AT(text, offset, 0); SBX_BOARD_AT(text, bytes, 4); SBX_BOARD_ASSERT(sizeof(struct sbx_board_text) == 8);
SBX_BOARD_AT(table, offset, 0); SBX_BOARD_AT(table, stride, 8); SBX_BOARD_AT(table, count, 12); SBX_BOARD_ASSERT(sizeof(struct sbx_board_table) == 16);
SBX_BOARD_AT(header, magic, 0); SBX_BOARD_AT(header, version_major, 8); SBX_BOARD_AT(header, version_minor, 12);
SBX_BOARD_AT(header, board_bytes, 16); SBX_BOARD_AT(header, header_bytes, 24); SBX_BOARD_AT(header, reserved_28, 28);
SBX_BOARD_AT(header, generation, 32); SBX_BOARD_AT(header, edition, 40); SBX_BOARD_AT(header, agent_pid, 48);
SBX_BOARD_AT(header, agent_start_boot_ns, 56); SBX_BOARD_AT(header, heartbeat_interval_ns, 64); SBX_BOARD_AT(header, reserved_72, 72);
SBX_BOARD_AT(header, hot, 80); SBX_BOARD_AT(header, credential, 96); SBX_BOARD_AT(header, provider, 112);
SBX_BOARD_AT(header, target, 128); SBX_BOARD_AT(header, route, 144); SBX_BOARD_AT(header, text_offset, 160);
SBX_BOARD_AT(header, text_bytes, 168); SBX_BOARD_AT(header, agent_start_ticks, 176); SBX_BOARD_AT(header, agent_pid_ns, 184);
SBX_BOARD_AT(header, heartbeat_boot_ns, 192); SBX_BOARD_AT(header, heartbeat_unix_ns, 200); SBX_BOARD_AT(header, state, 208);
SBX_BOARD_AT(header, boot_id, 216); SBX_BOARD_AT(header, reserved_232, 232); SBX_BOARD_ASSERT(sizeof(struct sbx_board_header) == 256);
SBX_BOARD_AT(hot, seq, 0); SBX_BOARD_AT(hot, shut_until_boot_ns, 8); SBX_BOARD_AT(hot, throttled_boot_ns, 16);
SBX_BOARD_AT(hot, price_change_unix_s, 24); SBX_BOARD_AT(hot, price_in, 32); SBX_BOARD_AT(hot, price_out, 40); SBX_BOARD_AT(hot, in_flight, 48);
SBX_BOARD_AT(hot, first_p50_ns, 56); SBX_BOARD_AT(hot, throttle_boot_ns, 64); SBX_BOARD_AT(hot, why, 128);
SBX_BOARD_AT(hot, since_boot_ns, 136); SBX_BOARD_AT(hot, first_p95_ns, 144); SBX_BOARD_AT(hot, first_p99_ns, 152);
SBX_BOARD_AT(hot, first_n, 160); SBX_BOARD_AT(hot, total_p50_ns, 168); SBX_BOARD_AT(hot, total_p95_ns, 176);
SBX_BOARD_AT(hot, total_p99_ns, 184); SBX_BOARD_AT(hot, total_n, 192); SBX_BOARD_AT(hot, recent_good, 200);
SBX_BOARD_AT(hot, recent_bad, 208); SBX_BOARD_AT(hot, state, 216); SBX_BOARD_AT(hot, price_in_after, 224);
SBX_BOARD_AT(hot, price_out_after, 232); SBX_BOARD_AT(hot, attempts, 240); SBX_BOARD_AT(hot, reserved_248, 248);
SBX_BOARD_ASSERT(sizeof(struct sbx_board_hot) == 256);
SBX_BOARD_AT(credential, seq, 0); SBX_BOARD_AT(credential, shut_until_boot_ns, 8); SBX_BOARD_AT(credential, why, 16);
SBX_BOARD_AT(credential, since_boot_ns, 24); SBX_BOARD_AT(credential, provider, 32); SBX_BOARD_AT(credential, fingerprint, 36);
SBX_BOARD_AT(credential, source, 40); SBX_BOARD_AT(credential, reserved_48, 48); SBX_BOARD_ASSERT(sizeof(struct sbx_board_credential) == 64);
SBX_BOARD_AT(target, provider, 0); SBX_BOARD_AT(target, keyless, 4); SBX_BOARD_AT(target, caps, 8); SBX_BOARD_AT(target, caps_known, 12);
SBX_BOARD_AT(target, context_tokens, 16); SBX_BOARD_AT(target, output_tokens, 20); SBX_BOARD_AT(target, price_tokens, 24);
SBX_BOARD_AT(target, reserved_28, 28); SBX_BOARD_AT(target, name, 32);
SBX_BOARD_AT(target, model, 40); SBX_BOARD_AT(target, first_credential, 48); SBX_BOARD_AT(target, n_credentials, 52);
SBX_BOARD_AT(target, price_request, 56); SBX_BOARD_ASSERT(sizeof(struct sbx_board_target) == 64);
SBX_BOARD_AT(provider, name, 0); SBX_BOARD_AT(provider, base_url, 8); SBX_BOARD_AT(provider, chat_url, 16); SBX_BOARD_AT(provider, dialect, 24);
SBX_BOARD_AT(provider, auth, 32); SBX_BOARD_AT(provider, reserved_36, 36); SBX_BOARD_AT(provider, first_credential, 40);
SBX_BOARD_AT(provider, n_credentials, 44); SBX_BOARD_AT(provider, wait_short_ns, 48); SBX_BOARD_AT(provider, reserved_56, 56); SBX_BOARD_ASSERT(sizeof(struct sbx_board_provider) == 64);
SBX_BOARD_AT(route, name, 0); SBX_BOARD_AT(route, n_targets, 8); SBX_BOARD_AT(route, policy, 12); SBX_BOARD_AT(route, target, 16);
SBX_BOARD_AT(route, reserved_80, 80); SBX_BOARD_ASSERT(sizeof(struct sbx_board_route) == 96);
/* A lock inside the memory would mean writing to a read-only map. */
SBX_BOARD_ASSERT(__GCC_ATOMIC_LLONG_LOCK_FREE == 2);

/* ---- reading ---- */

/* A word that may change. Relaxed: the seqlock around it gives the order. */
static inline uint64_t
sbx_word_load(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_RELAXED);
}

/* A word that stands alone: the magic, the state. What was written before it is seen. */
static inline uint64_t
sbx_word_load_acquire(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/* False while the row is being written. */
static inline bool
sbx_row_read_begin(const uint64_t *seq, uint64_t *ret_seq)
{
	*ret_seq = __atomic_load_n(seq, __ATOMIC_ACQUIRE);
	return (*ret_seq & 1) == 0;
}

/* True: what was read since sbx_row_read_begin() is of one moment. */
static inline bool
sbx_row_read_end(const uint64_t *seq, uint64_t was)
{
	__atomic_thread_fence(__ATOMIC_ACQUIRE); /* the words before the second look at seq */
	return __atomic_load_n(seq, __ATOMIC_RELAXED) == was;
}

/* Between two tries: lets a hyperthread that writes get on with it. */
static inline void
sbx_row_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ __volatile__("yield");
#endif
}

#endif
