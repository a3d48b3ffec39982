/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What answer.c, body.c and events.c share: pieces of an answer, appended to
 * x->body unless `out` is given.
 */
#ifndef SIGNALBOX_TOOLS_MOCK_ANSWER_H
#define SIGNALBOX_TOOLS_MOCK_ANSWER_H

#include "tools/mock/mock.h"

extern const char mock_tool_arguments[];
#define MOCK_TOOL_ARGUMENTS_BYTES 33 /* of it, without the NUL; checked where it is defined */

/* Words in the answer's text. */
int64_t mock_say_count_words(const struct mock_answer *a);
/* Token a->i, in caller's buffer or in the text itself; does not move on. */
struct mock_span mock_say_token(const struct mock_answer *a, char buffer[static 32]);
/* The inside of a JSON string. */
void mock_say_span(struct mock_bytes *out, struct mock_span span);
/* Reasoning deltas per choice. */
int64_t mock_say_reasoning(const struct mock_exchange *x);
/* "usage":{...} for that many completion tokens. */
void mock_say_usage(struct mock_exchange *x, uint64_t completion);
/* The finish_reason, "none" included; and whether it is said at all. */
const char *mock_say_finish(const struct mock_exchange *x);
bool mock_says_finish(const struct mock_exchange *x);
/* {"id":..,"object":..,"created":..,"model":.., */
void mock_say_opening(struct mock_exchange *x, struct mock_bytes *out, const char *object);

/* Whole bodies. */
void mock_body_completion(struct mock_exchange *x);
void mock_body_embeddings(struct mock_exchange *x); /* answer.n_choices of them */
void mock_body_models(struct mock_exchange *x);
const struct mock_bytes *mock_body_bomb(void); /* packed; made once, never freed */

#endif
