/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sse.h -- server-sent events out of bytes, however the bytes are cut.
 *
 * Pull parser: feed a piece, then take events until none is left, then feed the next piece. Any division into pieces gives
 * the same events. An event with one data line that lies wholly in the fed piece is not copied: its span points into the
 * piece. Anything else is gathered in a buffer that is given back after a large event. No byte is looked at twice, so
 * pieces of one byte cost no more than their number.
 *
 * Lines end with \n, \r\n or \r; several data lines are joined by \n; a byte order mark at the start is dropped; a comment
 * is reported, since it shows that the peer lives. `id` and `retry` are known and ignored: nobody reconnects to the answer
 * of a POST. Bytes are not interpreted: NUL and broken UTF-8 pass.
 */
#ifndef SBX_DIALECT_SSE_H
#define SBX_DIALECT_SSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/buf.h"
#include "client/span.h"

#define SBX_SSE_LINE_MAX_BYTES  (16u << 20) /* images of 4 MB in one line are real; unlimited is an out-of-memory */
#define SBX_SSE_EVENT_MAX_BYTES (32u << 20) /* all data lines of an event together */
#define SBX_SSE_TYPE_MAX_BYTES  64          /* an event's name is cut there: the longest in use has 40 */

struct sbx_sse_event {
	bool comment;          /* only a comment: data is its text, without the colon */
	struct sbx_span type;  /* the `event` field; empty when there was none */
	struct sbx_span data;
};

struct sbx_sse {
	const char *p, *end;      /* what is left of the fed piece; the caller's */
	struct sbx_buf line;      /* beginning of a line whose end was not fed yet */
	struct sbx_buf data;      /* data lines of the event so far, but for `only` */
	struct sbx_span only;     /* the first data line, while it lies in the fed piece and is the only one */
	bool has_data;            /* the event has a data line */
	bool begun;               /* the first line is past: no byte order mark any more */
	bool skip_lf;             /* the last line ended with \r: a \n now belongs to it */
	bool line_used;           /* `line` is whole and was handed on: drop it before going on */
	bool event_used;          /* likewise `only` and `data` */
	int rc;                   /* of a failure: final */
	uint32_t type_n;
	char type[SBX_SSE_TYPE_MAX_BYTES];
};

void sbx_sse_init(struct sbx_sse *s);
void sbx_sse_fini(struct sbx_sse *s);

/* The next piece. It must stay as it is until sbx_sse_next() has returned 0 for it, and every event of it was dealt with. */
void sbx_sse_feed(struct sbx_sse *s, const char *bytes, size_t n);

/* sbx_sse_next() -- the next event of what was fed.
 *  ret_ev  valid until the next call for this parser
 * Returns 1 with *ret_ev set, 0 when more bytes are needed, -SBX_ETOOBIG (a line or event above its limit) or -SBX_ENOMEM;
 * a failure is final, and what was returned before it stands. */
int sbx_sse_next(struct sbx_sse *s, struct sbx_sse_event *ret_ev);

/* sbx_sse_end() -- the stream has ended: the event that still lacks its blank line, or the end of its last line.
 * By the letter it is to be thrown away; some servers leave that line out. A caller that uses it must be able to tell a
 * cut payload from a whole one. Returns as sbx_sse_next(), 1 at most once. */
int sbx_sse_end(struct sbx_sse *s, struct sbx_sse_event *ret_ev);

#endif
