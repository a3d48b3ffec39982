/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What answer.c, body.c, events.c and the dialects share: pieces of an answer,
 * appended to x->body unless `out` is given.
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
/* Of the prompt, as the faults have it. */
uint64_t mock_say_prompt_tokens(const struct mock_exchange *x);
uint64_t mock_say_cached_tokens(const struct mock_exchange *x);
/* The finish_reason, "none" included; and whether it is said at all. */
const char *mock_say_finish(const struct mock_exchange *x, const char *usual, const char *of_tools);
bool mock_says_finish(const struct mock_exchange *x);
/* The whole text, token by token, as the inside of a JSON string. */
void mock_say_whole_text(struct mock_exchange *x);

/* Whole bodies. */
void mock_body_models(struct mock_exchange *x);
const struct mock_bytes *mock_body_bomb(void); /* packed; made once, never freed */

#endif
