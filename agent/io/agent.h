/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent.h -- what the parts of io/ share: the one struct that main builds and takes down, and the counters.
 *
 * Everything here belongs to the loop's thread.
 */
#ifndef SBX_AGENT_IO_AGENT_H
#define SBX_AGENT_IO_AGENT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/core/tally.h"
#include "agent/core/timer.h"
#include "agent/dialect/json_scan.h"
#include "agent/io/loop.h"
#include "agent/io/publish.h"
#include "agent/io/upstream.h"
#include "agent/io/world.h"
#include "client/buf.h"

/* X(name, what it counts): each is shown by STATS under its name. */
#define SBX_COUNTERS(X)                                                                                                        \
	X(connections, "client connections accepted")                                                                          \
	X(connections_refused, "turned away: too many of one user, a user who cannot be told, or while stopping")              \
	X(frames_bad, "frames that broke the protocol and ended their connection")                                             \
	X(hello_timeouts, "connections that did not say HELLO, or left a frame half sent, in time")                            \
	X(requests, "SUBMITs")                                                                                                 \
	X(requests_ok, "ended in DONE")                                                                                        \
	X(requests_failed, "ended in ERROR, whatever the reason but the two below")                                            \
	X(requests_cancelled, "cancelled by the client, or the client went away")                                              \
	X(requests_refused, "answered without any attempt: malformed, unknown, busy")                                          \
	X(requests_lost, "ended while the agent stopped")                                                                      \
	X(attempts, "calls to providers")                                                                                      \
	X(attempts_failed, "of them, not answered well")                                                                       \
	X(failovers, "requests that were answered by another target than their first")                                         \
	X(resets, "streams started over after content")                                                                        \
	X(events, "EVENT frames")                                                                                              \
	X(events_malformed, "events of providers that were skipped because they did not parse")                                \
	X(credit_stalls, "times a provider's stream waited for its client")                                                    \
	X(warm_ups, "connections opened ahead of need, or kept so")                                                             \
	X(warm_ups_failed, "tries at that which found no provider")                                                            \
	X(key_checks, "virtual keys that doors asked about")                                                                   \
	X(key_checks_failed, "of them, of no active key")                                                                      \
	X(key_checks_limited, "not answered: faster than is allowed")                                                          \
	X(reloads, "configurations taken over")                                                                                \
	X(reloads_refused, "configurations refused")

struct sbx_counters {
#define X(name, what) uint64_t name;
	SBX_COUNTERS(X)
#undef X
};

/* One user of the host: limits are his, however many connections he has. */
struct sbx_peer {
	struct sbx_peer *next;
	uid_t uid;
	uint32_t connections;
	uint32_t in_flight;              /* requests for himself, and not for a tenant that he named (whom.h) */
};

#define SBX_TENANT_BUCKETS 1024
struct sbx_tenant;

struct sbx_session;
struct sbx_exchange;
struct sbx_leg;
struct sbx_store;
struct sbx_warmer;
struct sbx_vkeys;
struct sbx_listen_socket;

struct sbx_agent {
	struct sbx_loop *loop;
	struct sbx_timers timers;
	struct sbx_upstream *upstream;
	struct sbx_world *world;         /* the current one; requests hold their own reference */
	struct sbx_store *store;         /* NULL = none is configured */
	struct sbx_vkeys *vkeys;         /* virtual keys; NULL before the store is opened, and without one */
	struct sbx_publisher *publisher; /* of its board */
	struct sbx_warmer *warmer;       /* opens connections ahead of need; NULL = nobody does */
	struct sbx_json_scratch scratch;
	struct sbx_buf frame;            /* where frames are built before they go to a stream */
	struct sbx_counters count;
	struct sbx_tally *tally;         /* the same in detail, for METRICS */
	struct sbx_session *sessions;    /* all of them */
	struct sbx_peer *peers;
	struct sbx_tenant *tenants[SBX_TENANT_BUCKETS]; /* with requests in flight (whom.h) */
	uint32_t n_sessions, n_exchanges;
	size_t body_bytes;               /* of all requests in flight */
	size_t part_bytes;               /* received of frames that are not whole yet */
	uint64_t started_ns;
	int64_t started_unix_ms;
	uint64_t generation;             /* random, per start */
	uint64_t seed;                   /* of the requests' jitter */
	bool draining;                   /* no new request is taken */
	const struct sbx_listen_socket *client_socket, *admin_socket; /* main's; to be handed over */
	struct sbx_session *heir;        /* it was given them, and is getting ready; NULL = nobody */
	uid_t door_uid;                  /* of the door that this agent has started: it may speak for others; (uid_t)-1 = none */
	pid_t predecessor;               /* whose place this agent took; 0 = nobody's */
	uint64_t alone_ns;               /* since when nobody else serves for it; UINT64_MAX = the predecessor has not ended yet */
	struct sbx_exchange *dead_exchanges; /* freed at the end of the turn, when no caller can hold them */
	struct sbx_leg *dead_legs;
	struct sbx_leg *drained_legs;    /* their requests are answered; their connections end in order */
	struct sbx_session *dead_sessions;
	/* For RELOAD: reads the configuration again. 0, or -SBX_ESYNTAX with the errors in `say`; notes go there as well. */
	int (*reload)(struct sbx_agent *agent, struct sbx_buf *say);
	void (*leave)(struct sbx_agent *agent); /* for SERVING: the heir is ready */
};

#endif
