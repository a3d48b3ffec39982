/* SPDX-License-Identifier: Apache-2.0 */
/* hub.c -- the table of dialects, and the words of finish reasons: see hub.h. A new dialect is a new line here. */
#include "agent/dialect/hub.h"

#include "agent/dialect/openai_chat.h"

static const struct sbx_dialect *const dialects[] = {
	&sbx_dialect_openai_chat,
};

const char *
sbx_op_word(enum sbx_op op)
{
	static const char *const words[SBX_OP__COUNT] = {
#define X(name, word) [name] = word,
		SBX_OPS(X)
#undef X
	};
	return words[op];
}

static const char *const finish_words[SBX_FINISH__COUNT] = {
#define X(name, word) [name] = word,
	SBX_FINISHES(X)
#undef X
};

const char *
sbx_finish_word(enum sbx_finish finish)
{
	return finish_words[finish];
}

const struct sbx_dialect *
sbx_dialect_find(const char *name)
{
	for (size_t i = 0; i < sizeof dialects / sizeof dialects[0]; i++)
		if (strcmp(dialects[i]->name, name) == 0)
			return dialects[i];
	return NULL;
}
