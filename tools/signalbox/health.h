/* SPDX-License-Identifier: Apache-2.0 */
/*
 * health.h -- the parts of `signalbox health`: arguments, choice of targets and exit status (health.c), where the facts come
 * from (facts.c), the table and the JSON (health_show.c, health_json.c).
 *
 * FACTS are a board: of a living agent its shared memory, else the snapshot that it left. What the agent itself is doing is
 * told beside them, and never guessed from one sign alone: see facts.c.
 */
#ifndef SBX_TOOLS_SIGNALBOX_HEALTH_H
#define SBX_TOOLS_SIGNALBOX_HEALTH_H

#include "tools/signalbox/cli.h"

/* ---- facts.c ---- */
enum agent_word { /* X(NAME, "word", the agent takes requests) */
#define AGENT_WORDS(X)                                                                                                    \
	X(STARTING, "starting", true) X(SERVING, "serving", true) X(DRAINING, "draining", true) X(REPLACED, "replaced", false) \
	X(STOPPED, "stopped", false) X(HUNG, "hung", false) X(DEAD, "dead", false) X(UNREACHABLE, "unreachable", false)
#define X(name, word, takes) AGENT_##name,
	AGENT_WORDS(X)
#undef X
};

struct facts {
	const char *socket;        /* borrowed; NULL = that of the library */
	const char *snapshot;      /* borrowed; NULL = beside the socket */
	struct sbx_client *client; /* of the agent that the board is from; NULL = none */
	struct sbx_board *board;   /* NULL = nothing is known */
	enum agent_word agent;
	char snapshot_path[512];   /* the board is from there; "" = from shared memory */
	char says[640];            /* what stands in the way of better facts; "" = nothing */
	uint64_t now_boot_ns;      /* by the board's own clock: see facts_look() */
	int64_t age_ms;            /* of the facts; -1 = there are none */
	struct sbx_board_info info;
};

void facts_init(struct facts *f, const char *socket, const char *snapshot);
/* Look (again). While a board of a living agent is held this reads shared memory and nothing else. timeout_ms: how long an agent may
 * take to answer a connection. now_boot_ns is CLOCK_BOOTTIME, but on a snapshot from before the host's last boot it goes on from
 * the snapshot's moment, so that its times can be compared with it. */
void facts_look(struct facts *f, uint32_t timeout_ms);
void facts_fini(struct facts *f);
const char *agent_word(enum agent_word agent);
bool agent_takes_requests(enum agent_word agent);

/* ---- health.c ---- */
/* One target as it is judged: X(NAME, "word", style, how it counts) */
#define HEALTH_STATES(X)                                                                                                              \
	X(UP, "up", STYLE_PLAIN, 0) X(TRIAL, "trial", STYLE_WARN, 1) X(PROBING, "probing", STYLE_WARN, 1)                             \
	X(THROTTLED, "throttled", STYLE_WARN, 1) X(DOWN, "down", STYLE_BAD, 1) X(MISCONFIGURED, "misconfigured", STYLE_BAD, 1)        \
	X(SHUT, "keys shut", STYLE_BAD, 1) X(NO_KEY, "no key", STYLE_DIM, 0) X(UNKNOWN, "unknown", STYLE_BAD, 1)
enum health_state {
#define X(name, word, style, counts) HEALTH_##name,
	HEALTH_STATES(X)
#undef X
	HEALTH__COUNT
};

struct health_row {
	struct sbx_target_view view;
	enum health_state state;
	bool has_since;          /* since_boot_ns of the view is that of this state; a throttle's beginning is not on the board */
};

/* What is to be shown of the facts. */
struct health {
	const struct facts *facts;
	struct health_row *row;  /* owned */
	size_t n_rows;
	struct sbx_credential_view *key; /* owned: those that are shut */
	size_t n_keys;
	size_t n_in[HEALTH__COUNT]; /* rows in each state */
	int status;              /* CLI_OK, CLI_FAILED, CLI_NO_AGENT */
};
const char *health_word(enum health_state state);
enum style health_style(enum health_state state);
int64_t ms_between(uint64_t from_ns, uint64_t to_ns); /* 0 where `to` is not later */
int64_t ms_up(uint64_t ns);                            /* rounded up: what was measured is never 0 */
/* Error rate of the last 30 s in tenths of a percent; -1 = nothing ended. */
int64_t health_permille_bad(const struct sbx_target_view *v);

/* ---- health_show.c, health_json.c ---- */
void health_show(const struct health *h, const struct term *to, bool wide);
json_t *health_json(const struct health *h);

#endif
