/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The languages that the double speaks: one row each, found by the path of a
 * request (answer.c has the table).
 *
 * A row reads a request, refusing what the real provider refuses, and writes:
 * errors, whole bodies, the events of a stream.  What comes when, how much of
 * it, and what goes wrong is the business of answer.c and events.c and the same
 * for all of them: a row only knows how its provider would write it.
 *
 * The writers of a stream append to x->body.  Those who frame by server-sent
 * events do it between mock_sse_begin() and mock_sse_end(), which play the
 * faults of lines and of broken JSON.
 */
#ifndef SIGNALBOX_TOOLS_MOCK_DIALECT_H
#define SIGNALBOX_TOOLS_MOCK_DIALECT_H

#include "tools/mock/answer.h"

struct mock_dialect {
	const char *name;
	/* Whether a path, without its query, is one of its own, and what is asked for there. */
	bool (*takes)(struct mock_span path, enum mock_op *ret_op);
	bool (*key_fits)(const struct mock_exchange *x, const struct mock_request *request);
	/* The request: x->answer.op is set.  0, or the status that the real one would answer with, and a sentence. */
	int (*read)(struct mock_exchange *x, const struct mock_request *request, struct mock_ask *ask, char *why, size_t why_bytes);
	/* An error body; message NULL = what the provider says with that status. */
	void (*fmt_error)(struct mock_bytes *out, int status, const char *message);
	void (*body)(struct mock_exchange *x);  /* the whole answer to x->answer.op */
	/* A fault that this row cannot play: a sentence; NULL = none, and NULL the function: it plays them all. */
	const char *(*misfit)(const struct mock_exchange *x, const struct mock_faults *faults);

	/* ---- streams, in the order of the stages; NULL = it has nothing to say there ---- */
	const char *stream_type;                /* Content-Type */
	void (*role)(struct mock_exchange *x);
	void (*reasoning)(struct mock_exchange *x); /* piece x->answer.i, from 1; counts itself in n_said */
	/* A piece of the text, x->answer.i from 0, for every choice.  It puts the bytes of invalid-utf8 and nul in, by mock_say_text(). */
	void (*token)(struct mock_exchange *x, struct mock_span token);
	void (*line)(struct mock_exchange *x);  /* one event whose line has x->faults->line bytes */
	void (*tiny)(struct mock_exchange *x);  /* the smallest event with content that there is */
	bool (*tool)(struct mock_exchange *x);  /* fragment x->answer.i of the calls; false = there are no more */
	void (*finish)(struct mock_exchange *x);
	void (*usage)(struct mock_exchange *x);
	void (*done)(struct mock_exchange *x);
	void (*error)(struct mock_exchange *x, const char *body, size_t n); /* an event with this error body */
};

extern const struct mock_dialect mock_openai, mock_anthropic;

bool mock_path_ends(struct mock_span path, const char *tail);
bool mock_span_is(struct mock_span span, const char *word);
/* The value of a header; empty when it is not there. */
struct mock_span mock_request_header(const struct mock_request *request, const char *name);
/* Whether the key is the one that is demanded, if one is. */
bool mock_key_is(const struct mock_exchange *x, struct mock_span key);

/* Where the data begins in x->body.  type NULL = no `event:` line. */
size_t mock_sse_begin(struct mock_exchange *x, const char *type);
void mock_sse_end(struct mock_exchange *x, size_t data_at);
/* The token as the inside of a JSON string, with what the faults put into the first. */
void mock_say_text(struct mock_exchange *x, struct mock_span token);
/* Fills an event begun at `start` up to the length that line= asks for; `tail_bytes` follow, and the line's end. */
void mock_say_filling(struct mock_exchange *x, size_t start, size_t tail_bytes);

#endif
