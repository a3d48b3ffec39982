/* SPDX-License-Identifier: Apache-2.0 */
/*
 * intake.h -- the outside of a decoder: bytes of an answer -> checked JSON values, for every dialect that speaks JSON, alone or in
 * server-sent events.
 *
 * The form of an answer is decided by what arrives, not by its Content-Type, which lies in both directions: an answer with an error
 * status is an error body; else, where a stream was asked for, the first byte that is no white space tells (an event stream cannot
 * begin with '{', '[' or '<'); else it is a whole body.
 *
 * The dialect reads one value at a time and says in a step what it was; the intake keeps the order of events that hub.h promises:
 * what the value means, COMPLETE when it made the answer whole, WIRE, and END behind the end mark. If an event that may have held
 * content could not be read before, ERROR (LOSSY) comes in place of COMPLETE. ERROR ends everything and has no WIRE.
 *
 * A decoder has it as its first member, so that a reader finds its own state from it.
 */
#ifndef SBX_DIALECT_INTAKE_H
#define SBX_DIALECT_INTAKE_H

#include "agent/dialect/hub.h"
#include "agent/dialect/sse.h"

/* What one value of an answer turned out to be. */
struct sbx_intake_step {
	bool content;     /* it held content */
	bool meant;       /* some event was emitted for it: else it is a sign of life */
	bool finished;    /* with it the answer is whole by its content */
	bool ended;       /* it is the end mark */
	bool skip;        /* an error that came too late to matter: not to be passed on */
};

struct sbx_intake;
struct sbx_intake_reader {
	const char *holds; /* the member that makes an object a whole answer */
	/* One event of a stream. name: its SSE event field, or empty. root: checked JSON of any type */
	void (*event)(struct sbx_intake *in, struct sbx_span name, struct sbx_span root, struct sbx_intake_step *step);
	/* A whole body: an object that has `holds`. */
	void (*body)(struct sbx_intake *in, struct sbx_span root, struct sbx_intake_step *step);
};

enum sbx_intake_form {
	SBX_INTAKE_UNDECIDED,  /* a stream was asked for, and nothing but white space came yet */
	SBX_INTAKE_STREAM,
	SBX_INTAKE_BODY,
	SBX_INTAKE_ERROR_BODY, /* error status: only its beginning is kept */
	SBX_INTAKE_OVER,       /* END or ERROR was emitted */
};

struct sbx_intake {
	const struct sbx_intake_reader *reader;
	struct sbx_decode_opts opts;
	struct sbx_json_scratch *scratch; /* the caller's */
	sbx_hub_fn *emit;
	void *arg;
	struct sbx_sse sse;
	struct sbx_buf body;    /* of BODY and ERROR_BODY */
	struct sbx_buf text;    /* unescaped text of the event being emitted */
	enum sbx_intake_form form;
	int status;             /* 200 for every success */
	uint32_t n_malformed;
	bool any_event;         /* of a stream: an event or a comment came */
	bool lost;              /* something that may have been content could not be placed */
	bool complete;          /* what comes now cannot spoil it any more */
};

void sbx_intake_init(struct sbx_intake *in, const struct sbx_intake_reader *reader, const struct sbx_decode_opts *opts,
		     struct sbx_json_scratch *scratch, sbx_hub_fn *emit, void *arg);
void sbx_intake_fini(struct sbx_intake *in);

/* As the row of a dialect has them. */
void sbx_intake_head(struct sbx_intake *in, int status);
void sbx_intake_feed(struct sbx_intake *in, const char *bytes, size_t n);
void sbx_intake_end(struct sbx_intake *in);

/* ---- for readers ---- */

static inline bool
sbx_intake_over(const struct sbx_intake *in)
{
	return in->form == SBX_INTAKE_OVER;
}

void sbx_intake_emit(struct sbx_intake *in, struct sbx_intake_step *step, const struct sbx_hub_event *ev);
/* The same for TEXT, REASONING, REFUSAL and TOOL_CALL. */
void sbx_intake_emit_content(struct sbx_intake *in, struct sbx_intake_step *step, const struct sbx_hub_event *ev);
/* A string's text, in place or unescaped behind what in->text holds (reserve before taking several of them); empty when it is no
 * string or when nobody wants text. False after failing. */
bool sbx_intake_text(struct sbx_intake *in, struct sbx_span value, struct sbx_span *ret_text);

/* ERROR: nothing follows. */
void sbx_intake_fail(struct sbx_intake *in, enum sbx_error_kind kind, const char *message);
void sbx_intake_fail_rc(struct sbx_intake *in, int rc, const char *what); /* -SBX_ETOOBIG: what is too big; -SBX_ENOMEM */
/* What the provider says in place of an answer, or in the midst of it; too late when the answer is whole. */
void sbx_intake_fail_json(struct sbx_intake *in, struct sbx_span root, struct sbx_intake_step *step);

#endif
