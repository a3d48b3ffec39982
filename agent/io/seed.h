/* SPDX-License-Identifier: Apache-2.0 */
/*
 * seed.h -- what the agent before this one knew of the health of targets and keys, taken from its board.
 *
 * From the board itself where that agent hands over to us, else from the snapshot that it left. So a restart does not send the first
 * requests to a provider that is known to be down, ask a key that is known to be refused, or cut off answers that are known
 * to take long.
 *
 * A target is the same one if its name and its provider's address are; a key, if its provider, its source and its fingerprint are:
 * after a key was mended, nothing is held against it. What is taken from a row is judged by sbx_health_seed_*(); memory that
 * anybody could have written does no harm. Quantiles come back as they stood, with their counts (sbx_latency_refill()): deadlines
 * are learned from them, and a restart that forgot them would cut off the slow but good answers. Not taken: counters, the rate of the last
 * 30 s, the retry budget: they count what this agent did.
 *
 * TIME. Within one boot of the host CLOCK_BOOTTIME goes on, and times are used as they stand. After a reboot the wall clock says how
 * much has passed.
 */
#ifndef SBX_AGENT_IO_SEED_H
#define SBX_AGENT_IO_SEED_H

#include <stdint.h>

#include <signalbox.h>

#include "agent/io/world.h"

/* Nothing that a board says of the future reaches further than this, so an older one says nothing. */
#define SBX_SEED_AGE_MAX_NS (3600ull * 1000000000ull)

struct sbx_seed_clocks {
	uint64_t now_ns;       /* the loop's: CLOCK_MONOTONIC */
	uint64_t boot_ns, unix_ns;
};

/* Into a world whose health is new. The number of rows that were taken; 0 and a word in ret_why (static text) when the board is
 * too old or from the future. */
uint32_t sbx_seed(struct sbx_world *w, const struct sbx_board *from, const struct sbx_seed_clocks *now, const char **ret_why);
/* The same by the clocks of this host, and the log tells of it. source: what the board is, for the log. */
void sbx_seed_world(struct sbx_world *w, const struct sbx_board *from, const char *source);
/* From a snapshot, if there is one that can be read. */
void sbx_seed_from_file(struct sbx_world *w, const char *path);

#endif
