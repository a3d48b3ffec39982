/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json_write.h -- JSON written piece by piece into a buffer: what a translator puts together out of spans of another text.
 *
 * The writer puts the commas; the caller opens and closes. A failure (no memory, the buffer's limit) is kept in `rc`, everything
 * after it does nothing, and one look at the end is enough. Values of checked text are copied as the spans they are: neither a
 * number nor a string is spelled anew.
 *
 *     struct sbx_json_writer w = sbx_json_writer(out);
 *     sbx_jw_open(&w, '{');
 *     sbx_jw_name(&w, "model");  sbx_jw_text(&w, sbx_span_of(model));
 *     sbx_jw_name(&w, "messages"); sbx_jw_value(&w, messages);
 *     sbx_jw_close(&w, '}');
 *     return w.rc;
 */
#ifndef SBX_DIALECT_JSON_WRITE_H
#define SBX_DIALECT_JSON_WRITE_H

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "agent/dialect/json_scan.h"
#include "client/buf.h"

struct sbx_json_writer {
	struct sbx_buf *out;
	bool follows;        /* the next value or name needs a comma before it */
	int rc;              /* 0, -SBX_ETOOBIG, -SBX_ENOMEM: the first failure */
};

static inline struct sbx_json_writer
sbx_json_writer(struct sbx_buf *out)
{
	return (struct sbx_json_writer){ .out = out };
}

/* Bytes as they are, without a look at commas. */
static inline void
sbx_jw_raw(struct sbx_json_writer *w, const char *bytes, size_t n)
{
	if (w->rc == 0)
		w->rc = sbx_buf_append(w->out, bytes, n);
}

static inline void
sbx_jw_comma(struct sbx_json_writer *w)
{
	if (w->follows)
		sbx_jw_raw(w, ",", 1);
	w->follows = true;
}

static inline void
sbx_jw_open(struct sbx_json_writer *w, char bracket)
{
	sbx_jw_comma(w);
	sbx_jw_raw(w, &bracket, 1);
	w->follows = false;
}

static inline void
sbx_jw_close(struct sbx_json_writer *w, char bracket)
{
	sbx_jw_raw(w, &bracket, 1);
	w->follows = true;
}

/* A member's name, of our own: it needs no escape. Its value comes next. */
static inline void
sbx_jw_name(struct sbx_json_writer *w, const char *name)
{
	sbx_jw_comma(w);
	sbx_jw_raw(w, "\"", 1);
	sbx_jw_raw(w, name, strlen(name));
	sbx_jw_raw(w, "\":", 2);
	w->follows = false;
}

/* A member's name as a span of checked JSON, quotes included. */
static inline void
sbx_jw_name_span(struct sbx_json_writer *w, struct sbx_span name)
{
	sbx_jw_comma(w);
	sbx_jw_raw(w, name.at, name.n);
	sbx_jw_raw(w, ":", 1);
	w->follows = false;
}

/* A value of checked JSON, copied. */
static inline void
sbx_jw_value(struct sbx_json_writer *w, struct sbx_span value)
{
	sbx_jw_comma(w);
	sbx_jw_raw(w, value.at, value.n);
}

/* A value written out in the program: true, null, {}, "auto". */
static inline void
sbx_jw_literal(struct sbx_json_writer *w, const char *json)
{
	sbx_jw_comma(w);
	sbx_jw_raw(w, json, strlen(json));
}

/* Plain text as a string. */
static inline void
sbx_jw_text(struct sbx_json_writer *w, struct sbx_span text)
{
	sbx_jw_comma(w);
	if (w->rc == 0)
		w->rc = sbx_json_string_encode(text.n ? text.at : "", text.n, w->out);
}

static inline void
sbx_jw_int(struct sbx_json_writer *w, int64_t number)
{
	sbx_jw_comma(w);
	if (w->rc == 0)
		w->rc = sbx_buf_printf(w->out, "%" PRId64, number);
}

/* Name and value at once; an absent value (an empty span) writes neither. */
static inline void
sbx_jw_member(struct sbx_json_writer *w, const char *name, struct sbx_span value)
{
	if (!value.n)
		return;
	sbx_jw_name(w, name);
	sbx_jw_value(w, value);
}

/* The member `from` of an object, if it is there, under the name `to`. */
static inline void
sbx_jw_copy(struct sbx_json_writer *w, struct sbx_span object, const char *from, const char *to)
{
	struct sbx_span value;
	if (sbx_json_get(object, from, &value))
		sbx_jw_member(w, to, value);
}

#endif
