/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ask.h -- the parts of `signalbox ask`: arguments and the request's course (ask.c), its body (ask_body.c), what is shown of
 * the answer (ask_show.c); and the way past the agent (ask_direct.c).
 */
#ifndef SBX_TOOLS_SIGNALBOX_ASK_H
#define SBX_TOOLS_SIGNALBOX_ASK_H

#include "tools/signalbox/cli.h"

struct ask_options {
	const char *route, *model;  /* NULL = not given */
	const char **targets;       /* owned array of borrowed names */
	size_t n_targets;
	const char **files;         /* owned array of borrowed paths */
	size_t n_files;
	const char *system, *body, *socket; /* NULL = not given */
	int max_tokens;             /* 0 = not given */
	uint32_t deadline_ms;       /* 0 = the agent's default */
	bool stream, json, reasoning, verbose, quiet;
	bool direct;                /* past the agent: ask_direct.c */
	const char *snapshot;       /* for that; NULL = not given */
	char *const *words;         /* the text; borrowed */
	size_t n_words;
};

/* ---- ask_body.c ---- */
/* The request's body: built from text and files, or read whole. CLI_OK with a malloc'd body, else it said why. */
int ask_body(const struct ask_options *o, char **ret_body, size_t *ret_bytes);

/* ---- ask_show.c ---- */
/* Four ways: for people as it comes (stream) or at the end; JSON as a line an event (stream) or as one object at the end. */
struct ask_text {
	char *at; /* owned, NUL-terminated; NULL = empty */
	size_t n, room;
};

struct ask_choice {
	struct ask_text text, reasoning, refusal, finish;
};

struct ask_call {
	uint32_t choice, index;
	struct ask_text id, name, arguments;
};

struct ask_show {
	const struct ask_options *o;
	struct term out, err;
	bool notes;                /* target, attempts and figures go to standard error */
	bool reasoning;            /* and the reasoning is shown */
	struct ask_choice *choice; /* owned; by number */
	size_t n_choices;
	struct ask_call *call;     /* owned; in the order of their beginning */
	size_t n_calls;
	size_t gathered_bytes;
	enum sbx_note speaking;    /* TEXT, REFUSAL or REASONING: what was written to standard output last; 0 = nothing */
	char asked[400];           /* the target that is asked now; "" = none yet */
	bool mid_line;             /* and it did not end its line */
};

/* How it ended. As sbx_reply_*() tell it, and what they point to is borrowed. */
enum { ASK_ERROR_PROVIDER, ASK_ERROR_STATUS, ASK_ERROR_TYPE, ASK_ERROR_CODE, ASK_ERROR_PARAM, ASK_ERROR_MESSAGE, ASK_ERROR__COUNT };
struct ask_end {
	bool ok, retryable, sent;
	bool direct;               /* past the agent */
	enum sbx_code code;
	const char *code_word, *message, *finish, *target;
	const char *error[ASK_ERROR__COUNT]; /* the provider's own; "" = not said */
	int status;
	int64_t retry_after_ms, first_content_ms, cost_nanousd;
	uint32_t total_ms;
	struct sbx_tokens tokens;
	const struct sbx_attempt_info *attempt;
	size_t n_attempts;
};
void ask_show_init(struct ask_show *s, const struct ask_options *o);
/* True = the answer is beyond what is kept: the request is to be given up. */
bool ask_show_event(struct ask_show *s, const struct sbx_event *ev);
void ask_show_end(struct ask_show *s, const struct ask_end *end);
void ask_show_fini(struct ask_show *s);

/* ---- ask_direct.c ---- */
/* The request with this body, past the agent. Exit status. */
int ask_direct(const struct ask_options *o, const char *body, size_t body_bytes);

#endif
