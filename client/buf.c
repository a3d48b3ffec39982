/* SPDX-License-Identifier: Apache-2.0 */
/* buf.c -- see buf.h. Capacity doubles, so that n appends cost O(n). */
#include "client/buf.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <signalbox/errors.h>

#define BUF_FIRST_BYTES 256 /* most frames and events fit */

void
sbx_buf_init(struct sbx_buf *b, size_t max_bytes)
{
	memset(b, 0, sizeof *b);
	b->max_bytes = max_bytes;
}

void
sbx_buf_fini(struct sbx_buf *b)
{
	free(b->base);
	sbx_buf_init(b, b->max_bytes);
}

void
sbx_buf_clear(struct sbx_buf *b)
{
	b->data = b->base;
	b->n = 0;
}

void
sbx_buf_trim(struct sbx_buf *b, size_t keep_bytes)
{
	if (b->n == 0 && b->cap_bytes > keep_bytes)
		sbx_buf_fini(b);
}

/* 0, or -SBX_ETOOBIG, -SBX_ENOMEM with the content as it was. */
static int
grow(struct sbx_buf *b, size_t bytes)
{
	if (bytes > b->max_bytes || b->n > b->max_bytes - bytes)
		return -SBX_ETOOBIG;
	size_t front = b->base ? (size_t)(b->data - b->base) : 0;
	/* Reclaim the front when it is at least half: every byte is moved at most once per byte consumed. */
	if (front >= b->cap_bytes / 2 && b->cap_bytes >= b->n + bytes && front > 0) {
		memmove(b->base, b->data, b->n);
		b->data = b->base;
		return 0;
	}
	size_t cap = b->cap_bytes ? b->cap_bytes : BUF_FIRST_BYTES;
	while (cap < b->n + bytes)
		cap = cap > SIZE_MAX / 2 ? b->n + bytes : cap * 2;
	if (cap == b->cap_bytes) /* the front is small, yet in the way */
		cap *= 2;
	uint8_t *base = malloc(cap);
	if (!base)
		return -SBX_ENOMEM;
	if (b->n)
		memcpy(base, b->data, b->n);
	free(b->base);
	b->base = b->data = base;
	b->cap_bytes = cap;
	return 0;
}

/* Likewise. Nearly always there is room already: a frame is packed of dozens of small pieces. */
static inline int
make_room(struct sbx_buf *b, size_t bytes)
{
	if (b->base && bytes <= b->cap_bytes - (size_t)(b->data - b->base) - b->n && bytes <= b->max_bytes - b->n)
		return 0;
	return grow(b, bytes);
}

uint8_t *
sbx_buf_reserve(struct sbx_buf *b, size_t bytes)
{
	return make_room(b, bytes) == 0 ? b->data + b->n : NULL;
}

void
sbx_buf_commit(struct sbx_buf *b, size_t bytes)
{
	assert(b->base && (size_t)(b->data - b->base) + b->n + bytes <= b->cap_bytes);
	b->n += bytes;
}

int
sbx_buf_append(struct sbx_buf *b, const void *bytes_at, size_t bytes)
{
	int rc = make_room(b, bytes);
	if (rc)
		return rc;
	if (bytes)
		memcpy(b->data + b->n, bytes_at, bytes);
	b->n += bytes;
	return 0;
}

int
sbx_buf_printf(struct sbx_buf *b, const char *fmt, ...)
{
	va_list ap, again;
	va_start(ap, fmt);
	va_copy(again, ap);
	int len = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	int rc = len < 0 ? -SBX_EINVAL : make_room(b, (size_t)len + 1);
	if (rc == 0) {
		(void)vsnprintf((char *)b->data + b->n, (size_t)len + 1, fmt, again); /* measured above */
		b->n += (size_t)len;
	}
	va_end(again);
	return rc;
}

void
sbx_buf_consume(struct sbx_buf *b, size_t bytes)
{
	assert(bytes <= b->n);
	b->data += bytes;
	b->n -= bytes;
	if (b->n == 0)
		b->data = b->base;
}

uint8_t *
sbx_buf_take(struct sbx_buf *b, size_t *ret_bytes)
{
	uint8_t *taken = NULL;
	*ret_bytes = b->n;
	if (b->n) {
		if (b->data != b->base)
			memmove(b->base, b->data, b->n);
		taken = b->base;
		b->base = NULL;
	}
	sbx_buf_fini(b);
	return taken;
}
