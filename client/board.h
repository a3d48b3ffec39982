/* SPDX-License-Identifier: Apache-2.0 */
/*
 * board.h -- the inside of a board in a reader's hands: memory that was checked once, and is still not believed.
 *
 * What sbx_board_check() has accepted is kept in the handle (tables' places, strides and counts), so that nothing in the memory can
 * move them later. Indexes and texts in rows are checked there as well, so that a bad board is refused with a reason, and once
 * more where they are used, so that memory that changes under the reader (which no honest agent does) gives wrong answers
 * at worst.
 */
#ifndef SBX_CLIENT_BOARD_H
#define SBX_CLIENT_BOARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <signalbox.h>
#include <signalbox/board.h>

struct sbx_board {
	const uint8_t *base;
	size_t bytes;
	bool snapshot;           /* heap memory that was read from a file; else a map */
	bool other_boot;         /* of a time before the host's last start */
	uint32_t refs;           /* atomic: handles of several threads may share it */
	struct sbx_board_table hot, credential, provider, target, route;
	const char *text;
	uint64_t text_bytes;
};

/* Is this memory (8-byte aligned, of `bytes` bytes) a board? Fills in all of *ret_board but snapshot, other_boot and refs. 0; -SBX_EBUSY not
 * ready; -SBX_EVERSION; -SBX_EPROTO; with a sentence in why (may be NULL). */
int sbx_board_check(const void *base, size_t bytes, struct sbx_board *ret_board, char *why, size_t why_bytes);
struct sbx_board *sbx_board_get(struct sbx_board *b); /* one more reference */
/* The kernel's random id of this start of the host. 0, or -SBX_ENOENT: there is no /proc. */
int sbx_boot_id(uint64_t ret_id[2]);

static inline const struct sbx_board_header *
sbx_board_header(const struct sbx_board *b)
{
	return (const struct sbx_board_header *)(const void *)b->base;
}

/* Row i of a table; i is below its count. */
static inline const void *
sbx_board_row(const struct sbx_board *b, const struct sbx_board_table *t, uint32_t i)
{
	return b->base + t->offset + (uint64_t)i * t->stride;
}

/* "" for what is no text of this board. */
static inline const char *
sbx_board_text_of(const struct sbx_board *b, struct sbx_board_text t)
{
	return t.offset < b->text_bytes && t.bytes < b->text_bytes - t.offset && b->text[t.offset + t.bytes] == 0 ? b->text + t.offset : "";
}

/* A target's credentials, cut to what exists. */
static inline uint32_t
sbx_board_n_keys(const struct sbx_board *b, const struct sbx_board_target *t, uint32_t *ret_first)
{
	const uint32_t first = t->first_credential, n = t->n_credentials;
	*ret_first = first;
	return n <= SBX_BOARD_KEYS_MAX && first <= b->credential.count && n <= b->credential.count - first ? n : 0;
}

static inline const struct sbx_board_provider *
sbx_board_provider_of(const struct sbx_board *b, uint32_t provider) /* NULL if there is no such one */
{
	return provider < b->provider.count ? (const struct sbx_board_provider *)sbx_board_row(b, &b->provider, provider) : NULL;
}

#endif
