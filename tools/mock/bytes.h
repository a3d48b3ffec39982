/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growable run of bytes, eaten from the front: the input, output and body
 * buffers of the double.
 *
 * Appending never fails from the caller's point of view: a test double that
 * cannot get memory has nothing useful left to say, so it says that and ends.
 * The same holds for MOCK_BYTES_MAX, which is far above every limit that the
 * parsers and the faults set for themselves.  An emptied buffer keeps a small
 * block and returns a large one, so that ten thousand quiet streams stay small
 * after a burst.
 */
#ifndef SIGNALBOX_TOOLS_MOCK_BYTES_H
#define SIGNALBOX_TOOLS_MOCK_BYTES_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOCK_BYTES_MAX ((size_t)512 << 20) /* above any fault's own maximum */
#define MOCK_BYTES_KEEP ((size_t)16 << 10) /* an empty buffer keeps at most this */

/* A borrowed run of bytes; not terminated. */
struct mock_span {
	const char *at;
	size_t n;
};

struct mock_bytes {
	char *base; /* malloc'd block, owned; NULL while nothing was ever put */
	size_t off; /* bytes already eaten from the front */
	size_t n;   /* bytes present, from base + off */
	size_t cap; /* size of the block */
};

static inline void mock_bytes_fini(struct mock_bytes *b)
{
	free(b->base);
	*b = (struct mock_bytes){ 0 };
}

static inline const char *mock_bytes_at(const struct mock_bytes *b)
{
	return b->base + b->off;
}

/* Room for `more` bytes at the end; returns where they go. */
static inline char *mock_bytes_reserve(struct mock_bytes *b, size_t more)
{
	if (b->cap - b->off - b->n >= more && b->base != NULL)
		return b->base + b->off + b->n;
	if (b->off > 0 && b->n > 0)
		memmove(b->base, b->base + b->off, b->n);
	b->off = 0;
	if (b->cap - b->n < more || b->base == NULL) {
		size_t cap = b->cap < 256 ? 256 : b->cap;

		if (more > MOCK_BYTES_MAX - b->n) {
			fputs("signalbox-mock: a buffer passed its maximum\n", stderr);
			exit(70);
		}
		while (cap - b->n < more)
			cap *= 2;
		b->base = realloc(b->base, cap);
		if (b->base == NULL) {
			fputs("signalbox-mock: out of memory\n", stderr);
			exit(70);
		}
		b->cap = cap;
	}
	return b->base + b->n;
}

static inline void mock_bytes_put(struct mock_bytes *b, const void *at, size_t n)
{
	if (n > 0)
		memcpy(mock_bytes_reserve(b, n), at, n);
	b->n += n;
}

static inline void mock_bytes_puts(struct mock_bytes *b, const char *text)
{
	mock_bytes_put(b, text, strlen(text));
}

/* A literal: its length is known to the compiler. */
#define mock_bytes_lit(b, literal) mock_bytes_put((b), "" literal, sizeof(literal) - 1)

static inline void mock_bytes_putc(struct mock_bytes *b, char c)
{
	*mock_bytes_reserve(b, 1) = c;
	b->n++;
}

static inline void mock_bytes_fill(struct mock_bytes *b, char c, size_t n)
{
	if (n > 0)
		memset(mock_bytes_reserve(b, n), c, n);
	b->n += n;
}

static inline void mock_bytes_u64(struct mock_bytes *b, uint64_t v)
{
	char digits[20];
	size_t i = sizeof(digits);

	do
		digits[--i] = (char)('0' + v % 10);
	while ((v /= 10) != 0);
	mock_bytes_put(b, digits + i, sizeof(digits) - i);
}

/* The inside of a JSON string.  Bytes from 0x80 up go through as they are. */
static inline void mock_bytes_json(struct mock_bytes *b, const char *at, size_t n)
{
	static const char hex[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)at[i];

		if (c == '"' || c == '\\') {
			mock_bytes_putc(b, '\\');
			mock_bytes_putc(b, (char)c);
		} else if (c == '\n') {
			mock_bytes_lit(b, "\\n");
		} else if (c < 0x20 || c == 0x7f) {
			mock_bytes_lit(b, "\\u00");
			mock_bytes_putc(b, hex[c >> 4]);
			mock_bytes_putc(b, hex[c & 15]);
		} else {
			mock_bytes_putc(b, (char)c);
		}
	}
}

__attribute__((format(printf, 2, 3)))
static inline void mock_bytes_fmt(struct mock_bytes *b, const char *fmt, ...)
{
	size_t room = 120; /* most pieces fit at the first try */
	va_list ap;
	int n;

	for (;;) {
		char *at = mock_bytes_reserve(b, room);

		va_start(ap, fmt);
		n = vsnprintf(at, room, fmt, ap);
		va_end(ap);
		if (n < 0)
			return;
		if ((size_t)n < room)
			break;
		room = (size_t)n + 1;
	}
	b->n += (size_t)n;
}

/* Eats n bytes (n <= b->n) from the front. */
static inline void mock_bytes_eat(struct mock_bytes *b, size_t n)
{
	b->off += n;
	b->n -= n;
	if (b->n == 0) {
		b->off = 0;
		if (b->cap > MOCK_BYTES_KEEP)
			mock_bytes_fini(b);
	}
}

#endif
