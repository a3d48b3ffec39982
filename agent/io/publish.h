/* SPDX-License-Identifier: Apache-2.0 */
/*
 * publish.h -- the writer's half of the board: a sealed memfd that follows the health of the current world.
 *
 * Rows that changed are written once per turn of the loop and at most every 10 ms, never per token; a heartbeat every second;
 * and with each heartbeat a tenth of all rows anew, since quantiles and rates fade with time alone. Prices follow the wall clock by
 * the same beat: a row whose hour or date has come is written with what holds now and what comes next. The agent never reads its
 * own board. Everything here is of the loop's thread.
 *
 * A reload makes a new memfd. The old one is marked `replaced` and let go; whoever still maps it keeps it.
 *
 * Where no memfd can be had (or it cannot be sealed) there is no board: that is logged once, sbx_publisher_fd() is -1, and
 * everything else works.
 *
 * The snapshot is the same bytes in a file: every 10 s and at the end, written whole and renamed.
 */
#ifndef SBX_AGENT_IO_PUBLISH_H
#define SBX_AGENT_IO_PUBLISH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <signalbox/board.h>

#include "agent/io/world.h"

#define SBX_PUBLISH_EVERY_NS 10000000ull /* people and pickers see nothing finer, and caches of readers stay warm */

struct sbx_publisher;
struct sbx_publish_opts {
	uint64_t generation;       /* as WELCOME says it */
	const char *snapshot_path; /* copied; NULL = no snapshot */
	bool has_group;            /* of those who may read the snapshot: that of the socket */
	gid_t group;
};

/* 0 or -SBX_ENOMEM. No board yet. */
int sbx_publisher_new(const struct sbx_publish_opts *opts, struct sbx_publisher **ret_publisher);
void sbx_publisher_free(struct sbx_publisher *p); /* NULL is fine; marks nothing */

/* A new board, of this world, which becomes the current one: all rows are there when it is handed out. The one before it, if any, is
 * marked `replaced`. 0, or -SBX_ENOBOARD, logged, and there is none from now on. */
int sbx_publish_world(struct sbx_publisher *p, const struct sbx_world *w, uint64_t now_ns);
/* Once per turn: whatever is due. w is the world that was published last. */
void sbx_publish_turn(struct sbx_publisher *p, const struct sbx_world *w, uint64_t now_ns);
uint64_t sbx_publish_wake_ns(const struct sbx_publisher *p, const struct sbx_world *w); /* when the next turn must be at the latest */
/* DRAINING, STOPPED ... at once. With STOPPED the last rows and the last snapshot are written; call it last. With REPLACED another agent
 * publishes from now on, and the snapshot is its. */
void sbx_publish_state(struct sbx_publisher *p, const struct sbx_world *w, enum sbx_board_agent_state state, uint64_t now_ns);

int sbx_publisher_fd(const struct sbx_publisher *p);          /* the publisher's; -1 = there is no board. p may be NULL */
uint64_t sbx_publisher_edition(const struct sbx_publisher *p); /* 1, 2 ... with each world */

/* A file that appears whole or not at all: temporary name beside it, mode 0440, rename. 0 or -errno. */
int sbx_snapshot_write(const char *path, bool has_group, gid_t group, const void *data, size_t n);

#endif
