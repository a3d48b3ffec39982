/* SPDX-License-Identifier: Apache-2.0 */
/*
 * facts.h -- what is known without asking the agent: a board, of a living agent its shared memory, else the snapshot that it left.
 * What the agent itself is doing is told beside it, and never guessed from one sign alone: see facts.c.
 */
#ifndef SBX_TOOLS_SIGNALBOX_FACTS_H
#define SBX_TOOLS_SIGNALBOX_FACTS_H

#include "tools/signalbox/cli.h"

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

int64_t ms_between(uint64_t from_ns, uint64_t to_ns); /* 0 where `to` is not later */

#endif
