/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reply.h -- how a request ended, decoded from its last frame, and for sbx_ask() the answer that came before it.
 *
 * A reply owns everything that its accessors show: strings lie NUL-terminated one after another in one buffer and are named
 * by their offset in it, so that the buffer may move while it grows. A client keeps one reply for the ends that it reports
 * as events and uses its memory again; sbx_ask() makes one per call.
 */
#ifndef SBX_CLIENT_REPLY_H
#define SBX_CLIENT_REPLY_H

#include <signalbox.h>

#include "client/buf.h"
#include "client/wire.h"

#define SBX_REPLY_TEXT_MAX_BYTES (64u << 20) /* gathered text, and strings: as large as a whole answer may be in the agent */
#define SBX_REPLY_CHOICES_MAX 128            /* OpenAI's limit of `n` */
#define SBX_REPLY_CALLS_MAX 4096             /* tool calls of one answer */

typedef uint32_t sbx_ref; /* offset of a string in reply.strings; 0 is "" */

struct sbx_attempt_row {
	sbx_ref target, outcome, connection, message;
	int status;
	uint32_t started_ms, ended_ms;
	int64_t first_content_ms, cost_nanousd;
	struct sbx_tokens tokens;
};

struct sbx_field_row { /* of a STATS reply, its maps flattened */
	sbx_ref name, text;
	bool is_text;
	int64_t number;
};

struct sbx_choice_row {
	struct sbx_buf text, reasoning, refusal; /* a NUL stands behind the content */
	sbx_ref finish;
};

struct sbx_call_row {
	uint32_t choice, index;
	sbx_ref id, name;
	struct sbx_buf arguments;
};

#define SBX_PROVIDER_WORDS 6
extern const char *const sbx_provider_words[SBX_PROVIDER_WORDS]; /* members of provider_error that are shown */
extern const struct sbx_tokens sbx_tokens_unknown;               /* all -1 */

struct sbx_reply {
	struct sbx_buf strings;
	bool gathers; /* belongs to sbx_ask() */
	/* the end */
	bool ok, sent, retryable;
	enum sbx_code code;
	sbx_ref code_word, message, target, finish, usage_raw;
	sbx_ref provider_said[SBX_PROVIDER_WORDS];
	int status;
	int64_t retry_after_ms, cost_nanousd, first_content_ms;
	uint32_t total_ms;
	struct sbx_tokens tokens;
	struct sbx_buf attempts;   /* struct sbx_attempt_row */
	struct sbx_buf fields;     /* struct sbx_field_row */
	bool has_error_data;
	struct sbx_buf error_data; /* ERROR's `data` */
	/* the answer */
	struct sbx_buf choices;    /* struct sbx_choice_row */
	struct sbx_buf calls;      /* struct sbx_call_row */
	struct sbx_buf data;
	size_t gathered_bytes;     /* all of the answer's buffers together */
};


/* One piece of an answer: what an EVENT frame says. The spans lie in the frame. */
struct sbx_piece {
	enum sbx_note note;
	uint32_t choice, index;
	struct sbx_span text, call_id, call_name; /* .at NULL = not there */
	size_t paid_bytes;                        /* what it takes from the request's credit */
};

/* Decodes an EVENT. 1; 0 for a type that this version does not know; -SBX_EPROTO when a member is of the wrong type. */
int sbx_piece_read(const struct sbx_frame *frame, struct sbx_piece *ret_piece);

struct sbx_reply *sbx_reply_new(bool gathers); /* for sbx_ask() or for events; NULL = out of memory */
void sbx_reply_clear(struct sbx_reply *r); /* as new; keeps its memory */
void sbx_reply_clear_end(struct sbx_reply *r); /* only what the last frame said */
/* Keeps a NUL-terminated copy. 0, -SBX_ENOMEM, -SBX_ETOOBIG. */
int sbx_reply_keep(struct sbx_reply *r, struct sbx_span text, sbx_ref *ret_at);

/* Sets the end from a DONE, ERROR, STATS or RELOADED frame. 0, -SBX_ENOMEM, -SBX_EPROTO (with r to be cleared). */
int sbx_reply_read(struct sbx_reply *r, const struct sbx_frame *frame);
/* Sets the end that the library itself says: the agent was lost. */
int sbx_reply_set_lost(struct sbx_reply *r, bool sent, const char *message);

/* Adds a piece. 0, -SBX_ENOMEM, -SBX_ETOOBIG. */
int sbx_reply_gather(struct sbx_reply *r, const struct sbx_piece *piece);
void sbx_reply_drop(struct sbx_reply *r); /* forget the pieces: RESET */

#endif
