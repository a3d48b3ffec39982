/* SPDX-License-Identifier: Apache-2.0 */
/*
 * world.h -- the world outside a request, as the simulation plays it: providers with a script, and weather.
 *
 * Each attempt follows one plan, a row of the table below: how far it gets, how much content it gives, and how it ends. A
 * target's weather decides which plan its next attempts get: mostly a healthy one, sometimes one fault for a while, sometimes
 * another fault each time. All randomness comes from one seed, so a seed replays to the last event.
 *
 * The table also says the truth about each plan (is its answer whole? did it cost?). The checks compare what the state machine
 * believes with this truth, never with the machine's own bookkeeping.
 */
#ifndef SBX_TESTS_SIM_WORLD_H
#define SBX_TESTS_SIM_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/core/request.h"

#define SIM_PROVIDERS_MAX 4
#define SIM_KEYS_MAX 3
#define SIM_TARGETS_MAX 6

/* How far an attempt gets by itself. */
enum sim_reach { SIM_NOWHERE, SIM_CONNECTED, SIM_SENT, SIM_CONTENT, SIM_COMPLETE };
/* What follows then. */
enum sim_tail { SIM_ENDS, SIM_SILENT, SIM_COMMENTS /* bytes without content, for ever */, SIM_TRICKLES /* content, for ever */ };

/* X(NAME, weight, reach, tail, transport, status, error kind (-1 = none), costs) */
#define SIM_PLANS(X)                                                                                                           \
	X(HEALTHY,        40, SIM_COMPLETE,  SIM_ENDS,     OK,      200, -1,                     true)                         \
	X(SLOW,           5,  SIM_COMPLETE,  SIM_ENDS,     OK,      200, -1,                     true)                         \
	X(NO_END_MARK,    3,  SIM_COMPLETE,  SIM_SILENT,   OK,      200, -1,                     true)                         \
	X(PINGS_AT_END,   1,  SIM_COMPLETE,  SIM_COMMENTS, OK,      200, -1,                     true)                         \
	X(RESET_AT_END,   2,  SIM_COMPLETE,  SIM_ENDS,     BROKEN,  200, -1,                     true)                         \
	X(LOSSY,          1,  SIM_CONTENT,   SIM_ENDS,     OK,      200, SBX_KIND_LOSSY,         true)                         \
	X(DEAD,           4,  SIM_NOWHERE,   SIM_ENDS,     CONNECT, 0,   -1,                     false)                        \
	X(BLACK_HOLE,     3,  SIM_NOWHERE,   SIM_SILENT,   CONNECT, 0,   -1,                     false)                        \
	X(TAKES_NOTHING,  1,  SIM_CONNECTED, SIM_SILENT,   CONNECT, 0,   -1,                     false)                        \
	X(GOAWAY,         2,  SIM_SENT,      SIM_ENDS,     UNSENT,  0,   -1,                     false)                        \
	X(LIMITED,        6,  SIM_SENT,      SIM_ENDS,     OK,      429, SBX_KIND_RATE_LIMIT,    false)                        \
	X(OVERLOADED,     3,  SIM_SENT,      SIM_ENDS,     OK,      529, SBX_KIND_OVERLOADED,    false)                        \
	X(OVERLOADED_200, 1,  SIM_SENT,      SIM_ENDS,     OK,      200, SBX_KIND_OVERLOADED,    false)                        \
	X(BAD_REQUEST,    2,  SIM_SENT,      SIM_ENDS,     OK,      400, SBX_KIND_INVALID,       true)                         \
	X(TOO_LONG,       2,  SIM_SENT,      SIM_ENDS,     OK,      400, SBX_KIND_CONTEXT_LENGTH, true)                        \
	X(FILTERED,       1,  SIM_SENT,      SIM_ENDS,     OK,      400, SBX_KIND_CONTENT_FILTER, true)                        \
	X(WRONG_KEY,      2,  SIM_SENT,      SIM_ENDS,     OK,      401, SBX_KIND_AUTH,          false)                        \
	X(NO_MONEY,       1,  SIM_SENT,      SIM_ENDS,     OK,      402, SBX_KIND_QUOTA,         false)                        \
	X(NOT_ALLOWED,    1,  SIM_SENT,      SIM_ENDS,     OK,      403, SBX_KIND_PERMISSION,    false)                        \
	X(NO_MODEL,       1,  SIM_SENT,      SIM_ENDS,     OK,      404, SBX_KIND_NOT_FOUND,     false)                        \
	X(FAILING,        6,  SIM_SENT,      SIM_ENDS,     OK,      500, SBX_KIND_SERVER,        true)                         \
	X(PROXY_HTML,     2,  SIM_SENT,      SIM_ENDS,     OK,      503, SBX_KIND_JUNK,          true)                         \
	X(NOT_HTTP,       1,  SIM_SENT,      SIM_ENDS,     JUNK,    0,   -1,                     true)                         \
	X(EMPTY_200,      2,  SIM_SENT,      SIM_ENDS,     OK,      200, -1,                     true)                         \
	X(RESET_EARLY,    3,  SIM_SENT,      SIM_ENDS,     BROKEN,  0,   -1,                     true)                         \
	X(HANGS,          4,  SIM_SENT,      SIM_SILENT,   BROKEN,  0,   -1,                     true)                         \
	X(PINGS,          3,  SIM_SENT,      SIM_COMMENTS, BROKEN,  200, -1,                     true)                         \
	X(CUT_RESET,      3,  SIM_CONTENT,   SIM_ENDS,     BROKEN,  200, -1,                     true)                         \
	X(CUT_CLEAN,      4,  SIM_CONTENT,   SIM_ENDS,     OK,      200, -1,                     true)                         \
	X(CUT_ERROR,      3,  SIM_CONTENT,   SIM_ENDS,     OK,      200, SBX_KIND_OVERLOADED,    true)                         \
	X(STALLS,         3,  SIM_CONTENT,   SIM_SILENT,   BROKEN,  200, -1,                     true)                         \
	X(PINGS_LATER,    2,  SIM_CONTENT,   SIM_COMMENTS, BROKEN,  200, -1,                     true)                         \
	X(TRICKLES,       1,  SIM_CONTENT,   SIM_TRICKLES, BROKEN,  200, -1,                     true)                         \
	X(OUT_OF_FILES,   1,  SIM_NOWHERE,   SIM_ENDS,     LOCAL,   0,   -1,                     false)

enum sim_plan {
#define X(name, weight, reach, tail, transport, status, error, costs) SIM_PLAN_##name,
	SIM_PLANS(X)
#undef X
	SIM_PLAN__COUNT
};
struct sim_plan_row {
	const char *name;
	unsigned weight;           /* how often, against the others */
	enum sim_reach reach;
	enum sim_tail tail;
	enum sbx_transport transport;
	int status;
	int error;                 /* enum sbx_error_kind; -1 = none */
	bool costs;                /* the provider worked for it, or may have */
};
extern const struct sim_plan_row sim_plans[SIM_PLAN__COUNT];

/* One attempt, as its provider plays it. */
struct sim_script {
	enum sim_plan plan : 8;
	bool live;                 /* nobody has stopped it and it has not ended */
	bool connected, sent, pinged, completed; /* told the request so far */
	uint8_t tokens, told;      /* pieces of content: in all, so far */
	uint32_t pace_ms;          /* between events */
	int64_t retry_after_ns;    /* of a refusal; -1 = not said */
};

/* What the script does next: one event, and the pause after which it acts again. */
struct sim_act {
	bool silent;               /* no event: nothing comes any more */
	enum sbx_req_event_kind kind;
	uint64_t pause_ns;         /* UINT64_MAX = never again */
};

struct sim_world {
	uint64_t random;           /* state */
	struct sbx_tables tables;
	struct sbx_provider provider[SIM_PROVIDERS_MAX];
	struct sbx_credential credential[SIM_PROVIDERS_MAX * SIM_KEYS_MAX];
	struct sbx_target target[SIM_TARGETS_MAX];
	struct {
		enum { SIM_FAIR, SIM_STORM /* one fault */, SIM_MIXED /* any, each time */ } kind;
		enum sim_plan plan;    /* STORM */
		uint64_t until_ns;
	} weather[SIM_TARGETS_MAX];
};

uint64_t sim_random(struct sim_world *w, uint64_t n); /* 0 .. n-1 */
/* true in `percent` of 100 */
bool sim_chance(struct sim_world *w, unsigned percent);
void sim_world_init(struct sim_world *w, uint64_t seed);
/* From now on everybody is well. */
void sim_world_clear_up(struct sim_world *w);
void sim_script_draw(struct sim_world *w, struct sim_script *script, uint32_t target, bool stream, uint64_t now_ns);
struct sim_act sim_script_act(struct sim_world *w, struct sim_script *script);
/* The end that the script gives when it comes to SBX_REQ_EV_ENDED. *error holds what end->error points to. */
void sim_script_end(const struct sim_script *script, struct sbx_end *end, struct sbx_provider_error *error);

#endif
