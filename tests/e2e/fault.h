/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fault.h -- what the tests of faults share: requests to targets in a given order, and what became of them as one line of text.
 *
 * A line such as "a/m REFUSED, b/m OK" says which targets were asked, in what order, and how each attempt ended; comparing
 * it whole catches the attempt too many as well as the one too few.
 */
#ifndef SBX_TESTS_E2E_FAULT_H
#define SBX_TESTS_E2E_FAULT_H

#include "tests/e2e/harness.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

#define TARGETS_MAX 8

struct question {
	const char *route;                     /* or else: */
	const char *targets[TARGETS_MAX + 1];  /* NULL-terminated */
	const char *body;                      /* NULL = BODY */
	bool stream, data, restart;
	uint32_t deadline_ms;                  /* 0 = 20 s */
};
void question_fill(const struct question *q, struct sbx_request_options *ret);

/* What a question brought. Everything owned; answer_free(). */
struct answer {
	bool ok;
	enum sbx_code code;
	int status;
	int64_t retry_after_ms;
	char *attempts;                 /* "a/m REFUSED, b/m OK" */
	char *text;                     /* of choice 0, gathered since the last RESET; NUL-terminated */
	size_t text_bytes;
	char *data;                     /* with `data`; NUL-terminated */
	size_t data_bytes;
	char *message, *provider_type;
	int provider_status;            /* 0 = the provider said no error */
	struct sbx_tokens tokens;
	uint32_t n_attempts, resets, text_events;
	struct sbx_attempt_info attempt[16]; /* the strings in it are not kept: NULL */
	uint32_t total_ms;
};
/* One after the other: submit, take every event, return the end. Unlike sbx_ask() it does not set `restart` by itself. */
struct answer answer_of(struct sbx_client *c, const struct question *q);
/* All at once on one connection; answers in the order of the questions. */
void answers_of(struct sbx_client *c, const struct question *q, struct answer *ret, size_t n);
void answer_free(struct answer *a);

char *agent_text(struct world *w, const char *name); /* a string of STATS, malloc'd; fails the test where there is none */
int64_t agent_peak_bytes(struct world *w);           /* the most that was ever resident of it */
void double_forget(struct world *w, int n);          /* empties its log */
int double_posts_of(struct world *w, int n, const char *model); /* POSTs for that model, as stats count them */
void write_file(const struct world *w, const char *name, const char *text, size_t bytes, char *ret_path, size_t path_bytes);

/* A limit of `limit_ms` fired: not before it (but for the rounding of two times to milliseconds), and at most 250 ms after. */
#define LATE_MS (SANITIZED ? 1500u : 250u)
#define assert_fired_at(ms, limit_ms) assert_in_range((ms), (limit_ms) - 2, (limit_ms) + LATE_MS)

#endif
