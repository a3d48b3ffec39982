/* SPDX-License-Identifier: Apache-2.0 */
/*
 * translate.h -- what translations between a dialect and the hub's form of a request have in common: faults that name the member, the
 * sorting of members, x_native both ways, and the few forms of data that chat hides in strings.
 *
 * The first thing that goes wrong stays: the writer's rc, or a fault. All that follows then writes into the void, so that nobody has
 * to look after each step.
 *
 * Every member of a body is translated, or says nothing, or is refused by its name. What says nothing is of two kinds: how the work is
 * to be done and who asks for it (sbx_tr_take), and values that everybody has anyway (n is 1).
 */
#ifndef SBX_DIALECT_TRANSLATE_H
#define SBX_DIALECT_TRANSLATE_H

#include "agent/dialect/hub.h"
#include "agent/dialect/json_write.h"

struct sbx_translating {
	const struct sbx_translation *t; /* NULL on the way to the hub */
	const char *dialect;      /* its name in x_native */
	const char *whose;        /* for people: "Cohere's dialect" */
	struct sbx_json_writer w;
	struct sbx_fault *fault;
	bool faulty;              /* *fault is set */
	bool native;              /* something was taken from x_native */
	struct sbx_json_scratch scratch; /* for JSON inside strings */
	struct sbx_buf text;      /* a string unescaped, for as long as it is looked at */
	size_t before;            /* what the writer's buffer held at first */
	/* Where in the body: for the names of members in faults. Negative = not inside one. */
	int message, part, call, tool;
};

#define SBX_NO_SPAN ((struct sbx_span){ NULL, 0 })

void sbx_tr_begin(struct sbx_translating *x, const char *dialect, const char *whose, const struct sbx_translation *t, struct sbx_buf *out,
		  struct sbx_fault *fault);
/* What the translation came to: 0; -SBX_ESYNTAX with the fault; -SBX_ETOOBIG; -SBX_ENOMEM. */
int sbx_tr_end(struct sbx_translating *x);

static inline bool
sbx_tr_stopped(const struct sbx_translating *x)
{
	return x->faulty || x->w.rc != 0;
}

/* ---- looking ---- */

static inline struct sbx_span
sbx_tr_member(struct sbx_span object, const char *name) /* empty = absent or null */
{
	struct sbx_span value;
	if (sbx_json_get(object, name, &value) && sbx_json_type(value) != SBX_JSON_NULL)
		return value;
	return SBX_NO_SPAN;
}

static inline bool
sbx_tr_is(struct sbx_span object, const char *name, const char *want)
{
	return sbx_json_string_eq(sbx_tr_member(object, name), want);
}

static inline bool
sbx_tr_is_text(struct sbx_span value) /* that is not empty */
{
	return sbx_json_type(value) == SBX_JSON_STRING && value.n > 2;
}

/* Whether a list has an element, or an object a member. */
bool sbx_tr_holds(struct sbx_span value);
/* Whether a name is one of a list that ends with NULL. */
bool sbx_tr_listed(struct sbx_span name, const char *const *names);
/* Whether an object has members that are neither null nor listed. */
bool sbx_tr_has_rest(struct sbx_span object, const char *const *said);
/* A number as a double; NAN when it is none. For comparing with limits: what is written is the number's own spelling. */
double sbx_tr_number(struct sbx_span value);
/* A string's text: in place, or in x->text until the next one. */
struct sbx_span sbx_tr_text(struct sbx_translating *x, struct sbx_span string);
/* data:<type>;base64,<data>. False for any other text. */
bool sbx_tr_data_url(struct sbx_span url, struct sbx_span *ret_type, struct sbx_span *ret_data);
/* Whether every byte is of base64, padded to groups of four. */
bool sbx_tr_is_base64(struct sbx_span data);

/* ---- faults ---- */

/* The member is not what it has to be: a sentence that goes on behind its name. */
void sbx_tr_wrong(struct sbx_translating *x, const char *member, const char *rule);
/* The member says what the dialect has no words for: refused, or left out where that is allowed. */
void sbx_tr_cannot_say(struct sbx_translating *x, const char *member);
/* Refuses what the members of that name, one level down, say to a prompt cache. */
void sbx_tr_no_cache_mark(struct sbx_translating *x, struct sbx_span object);
/* An operation that the dialect has not. */
int sbx_tr_no_operation(const char *whose, enum sbx_op op, struct sbx_fault *ret_fault);

/* ---- out of the hub's form ---- */

struct sbx_tr_member_at {
	const char *name;
	size_t offset;     /* of a struct sbx_span in what the caller collects them in */
};
#define SBX_TR_MEMBER(type, name) { #name, offsetof(type, name) }
/* Collects the members of a body that are `known`, an empty span for the others; refuses the rest but for what says nothing. */
void sbx_tr_take(struct sbx_translating *x, struct sbx_span body, const struct sbx_tr_member_at *known, size_t n_known, void *ret);
/* What an object of the hub's has for this dialect alone; empty = nothing. What it has for others cannot be said. */
struct sbx_span sbx_tr_native(struct sbx_translating *x, struct sbx_span object);
/* The members of an object, into the one that is open. */
void sbx_tr_put_members(struct sbx_translating *x, struct sbx_span object);
/* A text, or a list of them, as a list. */
void sbx_tr_put_list(struct sbx_translating *x, const char *name, struct sbx_span one_or_many);
/* A call's arguments as an object: JSON inside a string; some clients forget the string. Empty after a fault. Lies in x->text, perhaps. */
struct sbx_span sbx_tr_arguments(struct sbx_translating *x, struct sbx_span arguments);
/* How the schema of a json_schema format is called in chat: response_format.json_schema.schema; empty = none. */
struct sbx_span sbx_tr_schema(struct sbx_span response_format);

/* ---- into the hub's form ---- */

static inline void
sbx_tr_put_word(struct sbx_json_writer *w, const char *name, const char *word)
{
	sbx_jw_name(w, name);
	sbx_jw_text(w, sbx_span_of(word));
}

/* x_native of the object that is open, begun when it is needed first. */
void sbx_tr_open_native(struct sbx_translating *x, bool *open);
void sbx_tr_close_native(struct sbx_translating *x, bool open);
/* The members that are not listed, into x_native. */
void sbx_tr_put_rest(struct sbx_translating *x, struct sbx_span object, const char *const *said, bool *open);
void sbx_tr_put_native(struct sbx_translating *x, struct sbx_span object, const char *const *said);
/* An object of which some members were said elsewhere: the others, under its name, into x_native. */
void sbx_tr_put_remains(struct sbx_translating *x, const char *name, struct sbx_span object, const char *const *said, bool *open);
/* A part, tool or message that chat knows nothing of. name: "type", or "role" for messages. */
void sbx_tr_put_whole(struct sbx_translating *x, const char *name, struct sbx_span object);
/* data:<type>;base64,<data>, where data is a string as it is spelled. */
void sbx_tr_put_data_url(struct sbx_translating *x, const char *name, const char *type, struct sbx_span data);
/* A tool of chat's, around its function object. */
void sbx_tr_open_function(struct sbx_json_writer *w);

#endif
