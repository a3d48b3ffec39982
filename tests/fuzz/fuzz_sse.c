/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_sse.c -- any bytes as an event stream, once in one piece and once in pieces whose sizes derive from the first byte:
 * both must give the same events.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "agent/dialect/sse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define LOG_MAX_BYTES (64u << 20)

static void
note(struct sbx_buf *out, char mark, const struct sbx_sse_event *ev)
{
	(void)sbx_buf_append(out, &mark, 1);
	(void)sbx_buf_append(out, &ev->comment, 1);
	(void)sbx_buf_append(out, &ev->type.n, sizeof ev->type.n);
	(void)sbx_buf_append(out, ev->type.at, ev->type.n);
	(void)sbx_buf_append(out, &ev->data.n, sizeof ev->data.n);
	(void)sbx_buf_append(out, ev->data.at, ev->data.n);
}

static void
parse(const uint8_t *data, size_t bytes, unsigned seed, struct sbx_buf *out)
{
	struct sbx_sse s;
	struct sbx_sse_event ev = {.comment = false};
	sbx_sse_init(&s);
	for (size_t at = 0, n; at < bytes; at += n) {
		seed = seed * 1103515245u + 12345u;
		n = 1 + (seed >> 16) % 9;
		if (n > bytes - at)
			n = bytes - at;
		char *piece = malloc(n);
		if (!piece)
			break;
		memcpy(piece, data + at, n);
		sbx_sse_feed(&s, piece, n);
		while (sbx_sse_next(&s, &ev) > 0)
			note(out, 'e', &ev);
		free(piece);
	}
	if (sbx_sse_end(&s, &ev) > 0)
		note(out, '$', &ev);
	sbx_sse_fini(&s);
}

static void
parse_whole(const uint8_t *data, size_t bytes, struct sbx_buf *out)
{
	struct sbx_sse s;
	struct sbx_sse_event ev = {.comment = false};
	sbx_sse_init(&s);
	sbx_sse_feed(&s, (const char *)data, bytes);
	while (sbx_sse_next(&s, &ev) > 0)
		note(out, 'e', &ev);
	if (sbx_sse_end(&s, &ev) > 0)
		note(out, '$', &ev);
	sbx_sse_fini(&s);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct sbx_buf whole, pieces;
	if (bytes == 0)
		return 0;
	sbx_buf_init(&whole, LOG_MAX_BYTES);
	sbx_buf_init(&pieces, LOG_MAX_BYTES);
	parse_whole(data + 1, bytes - 1, &whole);
	parse(data + 1, bytes - 1, data[0], &pieces);
	assert(whole.n == pieces.n && (whole.n == 0 || memcmp(whole.data, pieces.data, whole.n) == 0));
	sbx_buf_fini(&whole);
	sbx_buf_fini(&pieces);
	return 0;
}
