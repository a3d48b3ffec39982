/* SPDX-License-Identifier: Apache-2.0 */
/*
 * direct.h -- what `signalbox ask --direct` needs beside ask_direct.c to call a provider by itself: the key (direct_key.c), one HTTP
 * call by libcurl (direct_call.c), and the answer of the dialect openai-chat as events (direct_answer.c).
 *
 * It is an emergency exit and no second agent: one attempt a target, no health, no queue, no cost.
 */
#ifndef SBX_TOOLS_SIGNALBOX_DIRECT_H
#define SBX_TOOLS_SIGNALBOX_DIRECT_H

#include "tools/signalbox/cli.h"

/* How an attempt ended. X(NAME, next, rank, code): may another target be asked after it; of those that failed the one of the
 * highest rank is told; as what. The words are those of the agent, signalbox(1). */
#define DIRECT_OUTCOMES(X)                                                                                          \
	X(OK, false, 0, NONE) X(PASSED_OVER, true, 0, UNREACHABLE) X(AUTH, true, 1, CREDENTIALS) X(QUOTA, true, 1, QUOTA) \
	X(FORBIDDEN, true, 1, CREDENTIALS) X(NOT_THERE, true, 1, NOT_FOUND) X(NOT_SENT, true, 2, UNREACHABLE)            \
	X(UNCERTAIN, true, 3, UNCERTAIN) X(FAILED, true, 4, UPSTREAM) X(REFUSED, true, 5, RATE_LIMITED)                  \
	X(MIDSTREAM, false, 6, STREAM_BROKEN) X(BAD_REQUEST, false, 6, REJECTED) X(CANCELLED, false, 7, CANCELLED)
enum direct_outcome {
#define X(name, next, rank, code) DIRECT_##name,
	DIRECT_OUTCOMES(X)
#undef X
};

/* ---- direct_key.c ---- */
struct direct_key {
	char *at;        /* owned, locked into memory as far as the limits allow; NUL-terminated */
	size_t room;
};
/* The key that the agent has from `source`, read anew by whoever runs this. False: why, at most why_bytes, never with a piece of it. */
bool direct_key_read(struct direct_key *k, const char *source, char *why, size_t why_bytes);
void direct_key_wipe(struct direct_key *k);

/* ---- direct_answer.c ---- */
struct direct_answer {
	void (*on_event)(void *arg, const struct sbx_event *ev);
	void *arg;
	char *line, *data;         /* of a stream: the line, the event that are not whole yet; owned */
	size_t n_line, n_data;
	bool content;              /* some was given out */
	bool finished;             /* a choice said why it ended */
	bool complete;             /* nothing more is to come */
	bool bad;                  /* what came is no answer: error_message says what it is */
	char finish[64];
	struct sbx_tokens tokens;
	char error_message[512], error_type[64], error_code[64], error_param[64]; /* the provider's own; "" = none */
};
void direct_answer_init(struct direct_answer *a, void (*on_event)(void *arg, const struct sbx_event *ev), void *arg);
void direct_answer_stream(struct direct_answer *a, const char *bytes, size_t n); /* server-sent events, cut anywhere */
void direct_answer_whole(struct direct_answer *a, const char *body, size_t n);
void direct_answer_error(struct direct_answer *a, const char *body, size_t n);   /* of a failure: fills in error_* as far as it is one */
void direct_answer_fini(struct direct_answer *a);

/* ---- direct_call.c ---- */
struct direct_call {
	const char *url, *auth;    /* of struct sbx_direct */
	const struct direct_key *key; /* NULL = the provider wants none */
	const char *body;
	size_t body_bytes;
	bool stream;
	uint32_t timeout_ms;
};
struct direct_end {
	enum direct_outcome outcome;
	int status;                /* HTTP; 0 = none */
	int64_t retry_after_ms;    /* -1 = not said */
	bool timed_out;            /* all of timeout_ms went by */
	char message[600];
};
/* One attempt, until its end, the time limit or Ctrl-C. Redirects are never followed, certificates always checked. */
void direct_call(const struct direct_call *c, struct direct_answer *a, struct direct_end *ret_end);

#endif
