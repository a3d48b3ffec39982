/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sse.c -- see sse.h.
 *
 * Lines first, fields second. A line that lies in the fed piece is used where it is; its beginning is put aside in `line`
 * only when the piece ends inside it. A data line in the piece is remembered as `only` in the hope that the blank line
 * follows in the same piece, as it does for nearly every event of a real stream; where it does not, or where a second data
 * line comes, the text moves to `data`.
 */
#include "agent/dialect/sse.h"

#include <assert.h>

#include <signalbox/errors.h>

#include "agent/dialect/swar.h"

#define KEEP_BYTES 4096 /* memory kept from one gathered event to the next: usual events fit, a stream at rest costs little */

/* First \n or \r of [p, end), or end. Not two memchr: one of the two is usually far away, and would be sought each line. */
static const char *
find_line_end(const char *p, const char *end)
{
	while (end - p >= 8) {
		uint64_t w = sbx_swar_load(p);
		uint64_t marks = sbx_swar_is(w, '\n') | sbx_swar_is(w, '\r');
		if (marks)
			return p + sbx_swar_first(marks);
		p += 8;
	}
	while (p < end && *p != '\n' && *p != '\r')
		p++;
	return p;
}

/* Moves the data line that lies in the piece to where it outlives it. */
static int
keep_only(struct sbx_sse *s)
{
	int rc = s->only.at ? sbx_buf_append(&s->data, s->only.at, s->only.n) : 0;
	s->only = (struct sbx_span){NULL, 0};
	return rc;
}

static int
add_data(struct sbx_sse *s, struct sbx_span value, bool in_piece)
{
	if (!s->has_data && in_piece) {
		s->only = value;
		s->has_data = true;
		return 0;
	}
	int rc = keep_only(s);
	if (rc == 0 && s->has_data)
		rc = sbx_buf_append(&s->data, "\n", 1);
	if (rc == 0)
		rc = sbx_buf_append(&s->data, value.at, value.n);
	s->has_data = true;
	return rc;
}

/* A blank line: the event is whole. Returns 1, or 0 if there is nothing in it. */
static int
take_event(struct sbx_sse *s, struct sbx_sse_event *ret_ev)
{
	if (!s->has_data) {
		s->type_n = 0;
		return 0;
	}
	struct sbx_span data = s->only;
	if (!data.at)
		data = (struct sbx_span){s->data.n ? (const char *)s->data.data : "", s->data.n};
	*ret_ev = (struct sbx_sse_event){.type = {s->type, s->type_n}, .data = data};
	s->event_used = true;
	return 1;
}

/* A whole line without its end. Returns 1 with *ret_ev set, 0, or a negative code. */
static int
on_line(struct sbx_sse *s, struct sbx_span line, bool in_piece, struct sbx_sse_event *ret_ev)
{
	if (line.n > SBX_SSE_LINE_MAX_BYTES)
		return -SBX_ETOOBIG;
	if (!s->begun) {
		s->begun = true;
		if (line.n >= 3 && memcmp(line.at, "\xef\xbb\xbf", 3) == 0)
			line = (struct sbx_span){line.at + 3, line.n - 3};
	}
	if (line.n == 0)
		return take_event(s, ret_ev);
	const char *colon = memchr(line.at, ':', line.n);
	if (colon == line.at) {
		*ret_ev = (struct sbx_sse_event){.comment = true, .data = {line.at + 1, line.n - 1}};
		return 1;
	}
	struct sbx_span name = {line.at, colon ? (size_t)(colon - line.at) : line.n};
	struct sbx_span value = {line.at + line.n, 0};
	if (colon) {
		const char *from = colon + 1;
		if (from < line.at + line.n && *from == ' ')
			from++;
		value = (struct sbx_span){from, (size_t)(line.at + line.n - from)};
	}
	if (sbx_span_is(name, "data"))
		return add_data(s, value, in_piece);
	if (sbx_span_is(name, "event")) {
		s->type_n = (uint32_t)(value.n < sizeof s->type ? value.n : sizeof s->type);
		memcpy(s->type, value.at, s->type_n);
	}
	return 0;
}

/* What the last returned event pointed to is not needed any more. */
static void
drop_used(struct sbx_sse *s)
{
	if (s->line_used) {
		sbx_buf_clear(&s->line);
		sbx_buf_trim(&s->line, KEEP_BYTES);
		s->line_used = false;
	}
	if (s->event_used) {
		sbx_buf_clear(&s->data);
		sbx_buf_trim(&s->data, KEEP_BYTES);
		s->only = (struct sbx_span){NULL, 0};
		s->has_data = false;
		s->type_n = 0;
		s->event_used = false;
	}
}

/* The next line of the piece, joined with what was put aside of it. Returns 1, 0 if its end was not fed yet, or a failure. */
static int
next_line(struct sbx_sse *s, struct sbx_span *ret_line, bool *ret_in_piece)
{
	if (s->skip_lf && s->p < s->end) {
		s->skip_lf = false;
		if (*s->p == '\n')
			s->p++;
	}
	const char *start = s->p;
	const char *stop = find_line_end(start, s->end);
	struct sbx_span part = {start, (size_t)(stop - start)};
	bool whole = stop < s->end;
	s->p = stop;
	if (whole) {
		s->skip_lf = *stop == '\r';
		s->p++;
		if (s->line.n == 0) {
			*ret_line = part;
			*ret_in_piece = true;
			return 1;
		}
	}
	int rc = part.n ? sbx_buf_append(&s->line, part.at, part.n) : 0;
	if (rc || !whole)
		return rc;
	s->line_used = true;
	*ret_line = (struct sbx_span){(const char *)s->line.data, s->line.n};
	*ret_in_piece = false;
	return 1;
}

void
sbx_sse_init(struct sbx_sse *s)
{
	memset(s, 0, sizeof *s);
	sbx_buf_init(&s->line, SBX_SSE_LINE_MAX_BYTES);
	sbx_buf_init(&s->data, SBX_SSE_EVENT_MAX_BYTES);
}

void
sbx_sse_fini(struct sbx_sse *s)
{
	sbx_buf_fini(&s->line);
	sbx_buf_fini(&s->data);
}

void
sbx_sse_feed(struct sbx_sse *s, const char *bytes, size_t n)
{
	assert(s->rc || s->p == s->end);
	s->p = bytes;
	s->end = bytes + n;
}

int
sbx_sse_next(struct sbx_sse *s, struct sbx_sse_event *ret_ev)
{
	while (s->rc == 0) {
		struct sbx_span line;
		bool in_piece = false;
		drop_used(s);
		int rc = next_line(s, &line, &in_piece);
		if (rc == 0) {
			s->rc = keep_only(s);
			return s->rc;
		}
		if (rc > 0)
			rc = on_line(s, line, in_piece, ret_ev);
		if (rc > 0)
			return 1;
		s->rc = rc;
	}
	return s->rc;
}

int
sbx_sse_end(struct sbx_sse *s, struct sbx_sse_event *ret_ev)
{
	assert(s->rc || s->p == s->end);
	if (s->rc)
		return s->rc;
	drop_used(s);
	if (s->line.n) {
		s->line_used = true;
		int rc = on_line(s, (struct sbx_span){(const char *)s->line.data, s->line.n}, false, ret_ev);
		if (rc < 0) {
			s->rc = rc;
			return rc;
		}
	}
	return take_event(s, ret_ev);
}
