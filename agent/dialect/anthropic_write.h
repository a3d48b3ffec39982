/* SPDX-License-Identifier: Apache-2.0 */
/*
 * anthropic_write.h -- a Messages request being written out of the hub's form: what anthropic_from_hub.c (its members) and
 * anthropic_messages.c (the conversation) share. Internal to those two.
 *
 * The first thing that goes wrong stays: the writer's rc, or a fault. All that follows then writes into the void.
 */
#ifndef SBX_DIALECT_ANTHROPIC_WRITE_H
#define SBX_DIALECT_ANTHROPIC_WRITE_H

#include "agent/dialect/anthropic.h"
#include "agent/dialect/json_write.h"

struct sbx_anthropic_writing {
	const struct sbx_translation *t;
	struct sbx_json_writer w;
	struct sbx_fault *fault;
	bool faulty;              /* *fault is set */
	bool native;              /* something was taken from x_native */
	bool open_tool_turn;      /* the last turn of the model's called tools without a thought given back before it, and what follows are results */
	struct sbx_json_scratch scratch; /* for arguments, which are JSON inside a string */
	struct sbx_buf text;      /* a string unescaped, for as long as it is looked at */
	/* Where in the hub's body: for the names of members in faults. Negative = not inside one. */
	int message, part, call, tool;
};

static inline bool
sbx_anthropic_stopped(const struct sbx_anthropic_writing *aw)
{
	return aw->faulty || aw->w.rc != 0;
}

static inline struct sbx_span
sbx_anthropic_member(struct sbx_span object, const char *name) /* empty = absent or null */
{
	struct sbx_span value;
	if (sbx_json_get(object, name, &value) && sbx_json_type(value) != SBX_JSON_NULL)
		return value;
	return (struct sbx_span){ NULL, 0 };
}

static inline bool
sbx_anthropic_is_text(struct sbx_span value) /* that is not empty */
{
	return sbx_json_type(value) == SBX_JSON_STRING && value.n > 2;
}

/* The member is not what it has to be: a sentence that goes on behind its name. */
void sbx_anthropic_wrong(struct sbx_anthropic_writing *aw, const char *member, const char *rule);
/* The member says what this dialect has no words for: refused, or left out where that is allowed. */
void sbx_anthropic_cannot_say(struct sbx_anthropic_writing *aw, const char *member);
/* A string's text: in place, or in aw->text until the next one. */
struct sbx_span sbx_anthropic_text(struct sbx_anthropic_writing *aw, struct sbx_span string);
/* What an object of the hub's has for this dialect alone; empty = nothing. What it has for others cannot be said. */
struct sbx_span sbx_anthropic_native(struct sbx_anthropic_writing *aw, struct sbx_span object);
/* The members of an object, into the one that is open. */
void sbx_anthropic_write_members(struct sbx_anthropic_writing *aw, struct sbx_span object);

/* `system` and `messages`. */
void sbx_anthropic_write_messages(struct sbx_anthropic_writing *aw, struct sbx_span messages);

#endif
