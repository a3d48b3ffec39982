/* SPDX-License-Identifier: Apache-2.0 */
/*
 * openai_chat.h -- the dialect of OpenAI's chat completions, as OpenAI and everybody who imitates it speak it; and with it the
 * older completions and the embeddings, which are the same in all but what sbx_openai_ops tells.
 *
 *   openai_chat.c          the row, and the decoder's outside: which of the three forms an answer has (stream, whole body,
 *                          error body), framing, completion
 *   openai_chat_request.c  a request body: what judgement needs of it, and its edits for a target
 *   openai_chat_answer.c   one JSON object of an answer (chunk or body): choices, deltas, tool calls -> hub events
 *   openai_chat_usage.c    the usage object, with everybody's additions to it
 *   openai_chat_encode.c   hub events -> an answer, for clients whose target speaks another dialect
 *   openai_chat_vector.c   and the embeddings in it
 *   openai_chat_error.c    an error towards clients
 *   provider_error.c       error objects and error bodies of providers
 *   routing_members.c      members of a request that are for us, and not for the model
 *
 * One decoder serves all of them; what a provider does differently is told apart by what its answer contains, and only
 * where that cannot decide by a quirk of its row (struct sbx_quirks).
 *
 * Order of events: for each wire event first what it means, then WIRE with the payload; END comes behind the WIRE of the
 * end mark (flag SBX_WIRE_END) or of the whole body. ERROR ends everything and has no WIRE.
 *
 * A stream is complete when every choice that appeared, and as many as were asked for, has a finish reason; when [DONE]
 * comes and every choice that appeared has one (some ignore n); or, for a provider with the no_finish quirk, when [DONE]
 * comes after a usage. If an event that may have held content could not be read before, ERROR (LOSSY) comes in place of
 * COMPLETE.
 */
#ifndef SBX_DIALECT_OPENAI_CHAT_H
#define SBX_DIALECT_OPENAI_CHAT_H

#include "agent/dialect/hub.h"
#include "agent/dialect/json_write.h"

extern const struct sbx_dialect sbx_dialect_openai_chat;

/* ---- between the files of this dialect ---- */

/* What an operation is: a new one is a row, and perhaps a way to read its answer. */
struct sbx_answer;
struct sbx_answer_step;
struct sbx_openai_op {
	const char *needs;  /* the member without which a body is none of its requests */
	bool takes_text;    /* that may be a text; it may always be a list that is not empty */
	bool streams;
	const char *holds;  /* the member of an answer that is a list of what was asked for */
	/* One element of that list. ret_usage: set if it has one inside. */
	void (*read_element)(struct sbx_answer *a, struct sbx_answer_step *step, struct sbx_span element, int form, uint32_t position,
			     struct sbx_span *ret_usage);
};
extern const struct sbx_openai_op sbx_openai_ops[SBX_OP__COUNT]; /* openai_chat_answer.c */

int sbx_openai_chat_read_request(enum sbx_op op, struct sbx_span body, struct sbx_json_scratch *scratch, struct sbx_routing *routing,
				 struct sbx_ask *ret_ask, struct sbx_fault *ret_fault);
void sbx_openai_chat_write_request(const struct sbx_ask *ask, const char *model, bool stream, const struct sbx_quirks *quirks,
				   struct sbx_pieces *ret);

int sbx_openai_chat_write_error(enum sbx_code code, const char *message, const char *param, const struct sbx_provider_error *said,
				struct sbx_buf *out);

/* The decoder, also of dialects whose answers are the same. */
struct sbx_decoder *sbx_openai_chat_decoder_new(const struct sbx_decode_opts *opts, struct sbx_json_scratch *scratch, sbx_hub_fn *emit_fn,
						void *arg);
void sbx_openai_chat_decoder_free(struct sbx_decoder *d);
void sbx_openai_chat_decoder_head(struct sbx_decoder *d, int status, const char *content_type);
void sbx_openai_chat_decoder_feed(struct sbx_decoder *d, const char *bytes, size_t n);
void sbx_openai_chat_decoder_end(struct sbx_decoder *d);
uint32_t sbx_openai_chat_decoder_malformed(const struct sbx_decoder *d);

/* Reads a usage object. False when it says nothing. */
bool sbx_openai_chat_read_usage(struct sbx_span usage, const struct sbx_quirks *quirks, struct sbx_usage *ret_usage);

struct sbx_encoder *sbx_openai_chat_encoder_new(const struct sbx_encode_opts *opts, struct sbx_buf *out);
int sbx_openai_chat_encoder_event(struct sbx_encoder *e, const struct sbx_hub_event *ev);
int sbx_openai_chat_encoder_end(struct sbx_encoder *e);
void sbx_openai_chat_encoder_free(struct sbx_encoder *e);
int sbx_openai_chat_add_cost(struct sbx_span payload, struct sbx_span usage, const char *usd, struct sbx_buf *out);

/* An embedding as a SBX_HUB_VECTOR has it, as the next value. A text that is no embedding sets w->rc to -SBX_ESYNTAX. */
void sbx_openai_chat_write_vector(struct sbx_json_writer *w, struct sbx_span vector, bool base64);

#define SBX_TOOL_CALLS_MAX 1024 /* in all choices of an answer; parallel calls in use are a few dozen */

/* A tool call that has begun. */
struct sbx_tool_call {
	uint32_t choice;
	uint32_t number;    /* within its choice, in order of appearance: what the hub calls index */
	int64_t key;        /* the provider's index; negative: it gave none */
	uint64_t id_hash;   /* 0 = came without an id */
	bool named;         /* its name was given */
};

/* Where the answer stands, over all its chunks. */
struct sbx_answer {
	const struct sbx_decode_opts *opts;
	sbx_hub_fn *emit;
	void *arg;
	struct sbx_buf text;              /* unescaped text of the event being emitted */
	struct sbx_tool_call *calls;      /* owned */
	uint32_t n_calls, cap_calls;
	uint32_t last_call;               /* the one that the last fragment went to: looked at first */
	uint32_t n_seen, n_finished;      /* choices that appeared; of them, those with a finish reason */
	uint8_t choice[SBX_CHOICES_MAX];  /* flags CHOICE_* of each */
	bool usage_seen;
	bool lost;                        /* something that may have been content could not be placed */
	bool complete;                    /* set by the decoder: what comes now cannot spoil it any more */
	bool failed;                      /* an ERROR was emitted: over */
};

enum { SBX_CHOICE_SEEN = 1, SBX_CHOICE_FINISHED = 2, SBX_CHOICE_CONTENT = 4 };
enum { SBX_ANSWER_CHUNK, SBX_ANSWER_BODY };

void sbx_answer_init(struct sbx_answer *a, const struct sbx_decode_opts *opts, sbx_hub_fn *emit, void *arg);
void sbx_answer_fini(struct sbx_answer *a);

/* What one object of an answer turned out to be. */
struct sbx_answer_step {
	bool content;     /* it held content */
	bool meant;       /* some event was emitted for it */
	bool only_usage;  /* it has a usage, and no choice */
	bool has_choices; /* a choice at least */
	bool skip;        /* an error that came too late to matter: not to be passed on */
};

/* sbx_answer_read() -- emits what one object means, but for LIFECYCLE, COMPLETE, WIRE and END.
 *  root        checked JSON, an object
 *  form        CHUNK or BODY
 *  error_type  the SSE event said that this is an error
 * After a failure (a->failed) nothing more is to be emitted. */
void sbx_answer_read(struct sbx_answer *a, struct sbx_span root, int form, bool error_type, struct sbx_answer_step *ret_step);
void sbx_answer_fail(struct sbx_answer *a, const struct sbx_provider_error *error);

#endif
