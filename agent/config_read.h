/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_read.h -- reading a JSON text into structs by tables, with a line for everything that is wrong.
 *
 * An object is read by a table of fields: name, how to read the value, where to put it. A reader that does not like a
 * value says so and goes on, so that one run finds every mistake; what it leaves behind is never used then. null is the
 * same as absent. A member that is not in the table is a mistake too, and the nearest name of the table is offered.
 *
 * The text is checked JSON (agent/dialect/json_scan.h) whose comments were overwritten with blanks, so that every span
 * still has its line. Messages carry the path of the value ("providers.openai.timeouts.connect_ms"); they quote names,
 * and values only where a value cannot be a secret.
 */
#ifndef SBX_AGENT_CONFIG_READ_H
#define SBX_AGENT_CONFIG_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/config.h"
#include "client/span.h"

struct sbx_reader {
	const char *name;                   /* the file, for messages */
	const char *text;                   /* spans lie in it */
	struct sbx_config_messages *errors; /* severity ERROR */
	struct sbx_config_messages *notes;  /* the others */
	bool no_memory;                     /* something could not be stored: the result is void */
	char path[512];                     /* of the value being read; "" at the root */
	size_t path_n;
};

struct sbx_read_field;
typedef void sbx_read_fn(struct sbx_reader *r, const struct sbx_read_field *f, struct sbx_span value, void *at);
struct sbx_read_field {
	const char *name;
	sbx_read_fn *read;
	size_t offset;          /* of the destination in the struct that is read into */
	int64_t min, max;       /* numbers: bounds; texts: most bytes */
	const char *const *words; /* choices: NULL-terminated, in the order of the enum */
};

/* ---- saying what is wrong ---- */

/* `at` is the value it is about; an empty span leaves the line out. */
void sbx_read_say(struct sbx_reader *r, enum sbx_config_severity severity, struct sbx_span at, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
#define sbx_read_error(r, at, ...) sbx_read_say((r), SBX_CONFIG_ERROR, (at), __VA_ARGS__)

/* Into a member and out again: the path in messages. */
size_t sbx_read_enter(struct sbx_reader *r, const char *name);
void sbx_read_leave(struct sbx_reader *r, size_t mark);
/* A member's name, or a string value, as text for names and messages: control characters become '?', cut to fit. */
void sbx_read_fmt(struct sbx_span value, char *buf, size_t cap);

/* " (did you mean \"...\"?)" or "" in the caller's buffer. name_at() gives the i-th of n candidates. */
typedef const char *sbx_name_at_fn(const void *arg, size_t i);
const char *sbx_nearest_hint(const char *name, sbx_name_at_fn *name_at, const void *arg, size_t n, char *buf, size_t cap);

/* ---- reading ---- */

void sbx_read_object(struct sbx_reader *r, struct sbx_span value, const struct sbx_read_field *fields, size_t n, void *into);

sbx_read_fn sbx_read_span;        /* struct sbx_span: kept for later */
sbx_read_fn sbx_read_bool;        /* bool */
sbx_read_fn sbx_read_u8;          /* uint8_t, min to max */
sbx_read_fn sbx_read_u32;         /* uint32_t, min to max */
sbx_read_fn sbx_read_i64;         /* int64_t, min to max */
sbx_read_fn sbx_read_ms;          /* uint64_t ns from milliseconds, min to max ms */
sbx_read_fn sbx_read_size;        /* uint64_t bytes, a number or "512MiB", min to max */
sbx_read_fn sbx_read_text;        /* char *, heap; not empty, at most max bytes, no control characters */
sbx_read_fn sbx_read_choice;      /* int: index into words */
sbx_read_fn sbx_read_unsupported; /* the member exists, its feature does not yet */

/* A whole number within bounds; says what is wrong otherwise. */
bool sbx_read_number(struct sbx_reader *r, struct sbx_span value, int64_t min, int64_t max, int64_t *ret_number);
/* A heap copy of a string as sbx_read_text has it; NULL when it said what is wrong. */
char *sbx_read_string(struct sbx_reader *r, struct sbx_span value, size_t max_bytes);
bool sbx_read_is_object(struct sbx_reader *r, struct sbx_span value); /* says so when it is not */
/* Names of providers and routes: letters, digits and . _ - : @ +, at most SBX_NAME_MAX_BYTES - 1. */
bool sbx_read_name_ok(struct sbx_reader *r, struct sbx_span name, char *buf, size_t cap);

/* Overwrites comments with blanks. In place. */
void sbx_read_blank_comments(char *text, size_t n);

/* A whole regular file of at most max_bytes, on the heap and NUL-terminated. 0, -SBX_ENOMEM, or -SBX_ESYNTAX with `why` set:
 * the end of a sentence whose subject is the file. */
int sbx_read_file(const char *path, size_t max_bytes, char **ret_text, size_t *ret_n, char *why, size_t why_bytes);

#endif
