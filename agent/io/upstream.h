/* SPDX-License-Identifier: Apache-2.0 */
/*
 * upstream.h -- the provider connections of the host: libcurl's multi interface on the agent's loop.
 *
 * One call (struct sbx_call) is one HTTP exchange: one POST with a body in pieces, one answer. Calls of all requests share one
 * connection pool. The rules of libcurl are kept in this file and nowhere else:
 *
 *  - libcurl's callbacks only record, or hand bytes to the owner of the call; nothing calls libcurl from inside libcurl. start,
 *    abort and pause may be called at any time, also from a callback of a call: what cannot be done at once is done before
 *    the turn ends.
 *  - A call is sent once. libcurl would silently send a POST again when a reused connection dies; a gate refuses (a large body's
 *    seek function, a small one's pre-request and open-socket functions), and the caller decides with its eyes open.
 *  - Completion is known from curl_multi_info_read() only. After abort() no callback comes any more.
 *  - A name that does not resolve never stops the loop (CURLOPT_QUICK_EXIT).
 *
 * Calls are made through a lane: the options that all calls with one credential of one provider have in common, kept in ready
 * handles. A lane lives as long as the configuration it came from, or the last call on it.
 */
#ifndef SBX_AGENT_IO_UPSTREAM_H
#define SBX_AGENT_IO_UPSTREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/core/class.h"
#include "agent/core/retry_after.h"
#include "agent/core/tables.h"
#include "agent/io/loop.h"

#define SBX_HEAD_MAX_BYTES (64u << 10) /* headers of an answer, all together */
#define SBX_INTERIM_MAX 16             /* 1xx answers before the real one */

struct sbx_upstream;
struct sbx_lane;
struct sbx_call;

struct sbx_upstream_stats {
	uint64_t calls, connections;          /* started; opened anew */
	uint64_t replays_refused;             /* times a gate stopped a silent second POST */
	uint64_t wakeups;                     /* times libcurl was given something to do */
	uint32_t active;                      /* calls not ended */
};

/* How a call went, beside what its callbacks said. Valid during on_end only. */
struct sbx_call_end {
	enum sbx_transport transport;
	bool sent, got_bytes;
	int status;                           /* 0 = no answer */
	const struct sbx_retry_after *retry;  /* headers seen */
	int64_t head_unix_s;                  /* wall clock then: what they say is turned into a duration by this one look at it */
	const char *message;                  /* for people: what the connection did; "" when it did well */
	int64_t connection;                   /* 0 = reused, > 0 = opened, -1 = none was there */
};

struct sbx_call_ops {
	void (*on_connected)(void *arg);      /* the connection stands, the request begins to leave */
	void (*on_sent)(void *arg);           /* libcurl has the last byte of the request, and needs the body no more */
	void (*on_head)(void *arg, int status, const char *content_type);
	void (*on_body)(void *arg, const char *bytes, size_t n);
	void (*on_end)(void *arg, const struct sbx_call_end *end); /* last; the call is gone after it */
};

int sbx_upstream_new(struct sbx_loop *loop, struct sbx_upstream **ret);
void sbx_upstream_free(struct sbx_upstream *u); /* every call was ended or aborted, every lane closed */
/* Once per turn, after the loop's: due timers of libcurl, finished calls, what callbacks asked for. */
void sbx_upstream_run(struct sbx_upstream *u, uint64_t now_ns);
uint64_t sbx_upstream_wake_ns(const struct sbx_upstream *u); /* UINT64_MAX = no need; 0 = at once */
const struct sbx_upstream_stats *sbx_upstream_stats(const struct sbx_upstream *u);
/* The sentence for the log about HTTP versions: what this libcurl is trusted with. */
const char *sbx_upstream_about(void);

/* credential NULL = the provider wants no key. NULL on no memory. */
struct sbx_lane *sbx_lane_new(struct sbx_upstream *u, const struct sbx_provider *provider, const struct sbx_credential *credential);
bool sbx_lane_multiplexes(const struct sbx_lane *lane); /* HTTP/2: one connection carries many calls */
void sbx_lane_close(struct sbx_lane *lane); /* NULL is fine; freed when its last call has ended */

/* What is asked for. */
struct sbx_call_ask {
	enum sbx_op op;                       /* one that the provider has */
	const char *model;                    /* as the provider calls it; used during the start only */
	bool stream;
	const char *idempotency_key;          /* NULL = none; likewise */
	const struct sbx_pieces *body;        /* its pieces stay valid until on_end or abort */
};
/* Start a call. 0, or -SBX_ENOMEM, -SBX_EBUSY (descriptors); no callback comes before the next sbx_upstream_run(). */
int sbx_call_start(struct sbx_lane *lane, const struct sbx_call_ask *ask, const struct sbx_call_ops *ops, void *arg, struct sbx_call **ret_call);
/* A call that only opens a connection, or keeps an idle one: a request without key or body that costs nothing. Only on_head and
 * on_end are called; it may be repeated by libcurl, and is counted among active calls, not among those started. Same returns. */
int sbx_call_start_warm(struct sbx_lane *lane, const struct sbx_call_ops *ops, void *arg, struct sbx_call **ret_call);
void sbx_call_abort(struct sbx_call *call);              /* no callback after it; the connection is closed */
void sbx_call_pause(struct sbx_call *call, bool paused); /* stop reading from the provider, or go on */
int64_t sbx_call_connection(const struct sbx_call *call); /* as in sbx_call_end; from on_head on */

#endif
