/* SPDX-License-Identifier: Apache-2.0 */
/*
 * board_image.h -- the board of one configuration as bytes (signalbox/board.h), and the writer's half of its seqlock.
 *
 * The image has every cold row and all texts; hot rows are all zero but for their prices, which are unknown until the row is
 * published. The magic is left 0: whoever publishes it stores the magic last.
 */
#ifndef SBX_AGENT_IO_BOARD_IMAGE_H
#define SBX_AGENT_IO_BOARD_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include <signalbox/board.h>

#include "agent/core/tables.h"
#include "client/buf.h"

struct sbx_board_identity {
	uint64_t generation, edition, pid, start_boot_ns, start_ticks, pid_ns, boot_id[2];
};

/* Appends the image to an empty buffer. unix_s: now by the wall clock, for prices that are over. 0, -SBX_ENOMEM, -SBX_ETOOBIG. */
int sbx_board_image(const struct sbx_tables *t, const struct sbx_board_identity *id, int64_t unix_s, struct sbx_buf *out);

/* Row i of a table in a board that we built ourselves. */
static inline void *
sbx_board_slot(void *base, const struct sbx_board_table *t, uint32_t i)
{
	return (uint8_t *)base + t->offset + (uint64_t)i * t->stride;
}

/* ---- the seqlock, writer's half; one thread only ----
 * An odd sequence is seen before any new word: a reader that saw one new word synchronizes with the fence here, so that its second
 * look at the sequence cannot find the old even number. The words are seen before the new even number. */
static inline uint64_t
sbx_row_write_begin(uint64_t *seq)
{
	const uint64_t s = __atomic_load_n(seq, __ATOMIC_RELAXED);
	__atomic_store_n(seq, s + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	return s;
}

static inline void
sbx_row_write_end(uint64_t *seq, uint64_t was)
{
	__atomic_store_n(seq, was + 2, __ATOMIC_RELEASE);
}

/* Words 1 to n-1 of a row whose word 0 is its sequence. Nothing is stored where nothing changed: readers' caches stay warm. */
static inline void
sbx_row_write(uint64_t *row, const uint64_t *words, size_t n)
{
	size_t same = 1;
	while (same < n && __atomic_load_n(&row[same], __ATOMIC_RELAXED) == words[same])
		same++;
	if (same == n)
		return;
	const uint64_t was = sbx_row_write_begin(row);
	for (size_t i = same; i < n; i++)
		__atomic_store_n(&row[i], words[i], __ATOMIC_RELAXED);
	sbx_row_write_end(row, was);
}

#endif
