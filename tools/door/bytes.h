/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bytes.h -- a growable run of bytes that is filled at the end and taken from the front; with a maximum, always.
 */
#ifndef SBX_DOOR_BYTES_H
#define SBX_DOOR_BYTES_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct bytes {
	char *at;        /* owned; NULL = nothing yet */
	size_t from, n;  /* what is there: at[from] and n bytes from it */
	size_t room;     /* of the allocation */
	size_t max;      /* n never goes beyond it */
};

static inline void
bytes_fini(struct bytes *b)
{
	free(b->at);
	b->at = NULL;
	b->from = b->n = b->room = 0;
}

/* False: beyond the maximum, or no memory. */
static inline bool
bytes_append(struct bytes *b, const void *what, size_t n)
{
	if (n > b->max - b->n)
		return false;
	if (b->from && b->from + b->n + n > b->room) {
		memmove(b->at, b->at + b->from, b->n);
		b->from = 0;
	}
	if (b->n + n > b->room) {
		size_t room = b->room ? b->room * 2 : 1024; /* most pieces of a stream, and most requests, are below it */
		while (room < b->n + n)
			room *= 2;
		char *at = realloc(b->at, room);
		if (!at)
			return false;
		b->at = at;
		b->room = room;
	}
	memcpy(b->at + b->from + b->n, what, n);
	b->n += n;
	return true;
}

static inline void
bytes_take(struct bytes *b, size_t n)
{
	b->n -= n;
	b->from = b->n ? b->from + n : 0;
}

#endif
