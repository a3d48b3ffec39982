/* SPDX-License-Identifier: Apache-2.0 */
/* config_read.c -- see config_read.h. */
#include "agent/config_read.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <signalbox/errors.h>

#include "agent/dialect/json_scan.h"
#include "agent/keys.h"

#define NEAREST_MAX_BYTES 64 /* longer names are not compared */

/* ==== messages ==== */

void
sbx_config_messages_fini(struct sbx_config_messages *m)
{
	for (uint32_t i = 0; i < m->n; i++)
		free(m->message[i].text);
	memset(m, 0, sizeof *m);
}

static uint32_t
line_of(const struct sbx_reader *r, struct sbx_span at)
{
	uint32_t line = 1;
	for (const char *p = r->text; p < at.at; p++)
		line += *p == '\n';
	return line;
}

void
sbx_read_say(struct sbx_reader *r, enum sbx_config_severity severity, struct sbx_span at, const char *fmt, ...)
{
	struct sbx_config_messages *m = severity == SBX_CONFIG_ERROR ? r->errors : r->notes;
	if (m->n == SBX_CONFIG_MESSAGES_MAX) {
		m->dropped++;
		return;
	}
	char what[1024], where[32] = "";
	va_list ap;
	va_start(ap, fmt);
	(void)vsnprintf(what, sizeof what, fmt, ap); /* names are bounded, a cut message is still one */
	va_end(ap);
	if (at.at)
		(void)snprintf(where, sizeof where, ":%" PRIu32, line_of(r, at));
	char *text = NULL;
	if (asprintf(&text, "%s%s: %s%s%s", r->name, where, r->path, r->path_n ? ": " : "", what) < 0) {
		r->no_memory = true;
		return;
	}
	/* A key that somebody wrote into the file and that is known from elsewhere stays out of the logs all the same. */
	text[sbx_redact(text, strlen(text))] = '\0';
	m->message[m->n++] = (struct sbx_config_message){ severity, text };
}

size_t
sbx_read_enter(struct sbx_reader *r, const char *name)
{
	size_t mark = r->path_n;
	int n = snprintf(r->path + mark, sizeof r->path - mark, "%s%s", mark && name[0] != '[' ? "." : "", name);
	size_t room = sizeof r->path - mark - 1;
	r->path_n = mark + (n < 0 ? 0 : (size_t)n < room ? (size_t)n : room);
	return mark;
}

void
sbx_read_leave(struct sbx_reader *r, size_t mark)
{
	r->path_n = mark;
	r->path[mark] = '\0';
}

void
sbx_read_fmt(struct sbx_span value, char *buf, size_t cap)
{
	size_t n = sbx_json_string_fmt(value, buf, cap);
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)buf[i] < 0x20 || buf[i] == 0x7f)
			buf[i] = '?';
}

/* ==== the nearest name ==== */

/* Insertions, deletions, replacements and swapped neighbours that turn a into b. */
static size_t
distance(const char *a, size_t na, const char *b, size_t nb)
{
	size_t rows[3][NEAREST_MAX_BYTES + 1];
	size_t *before = rows[0], *last = rows[1], *row = rows[2];
	for (size_t j = 0; j <= nb; j++)
		last[j] = j;
	for (size_t i = 1; i <= na; i++) {
		row[0] = i;
		for (size_t j = 1; j <= nb; j++) {
			size_t best = last[j - 1] + (a[i - 1] != b[j - 1]);
			if (last[j] + 1 < best)
				best = last[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best)
				best = before[j - 2] + 1;
			row[j] = best;
		}
		size_t *oldest = before;
		before = last;
		last = row;
		row = oldest;
	}
	return last[nb];
}

const char *
sbx_nearest_hint(const char *name, sbx_name_at_fn *name_at, const void *arg, size_t n, char *buf, size_t cap)
{
	size_t name_n = strlen(name), best = SIZE_MAX;
	const char *nearest = NULL;
	for (size_t i = 0; i < n && name_n <= NEAREST_MAX_BYTES; i++) {
		const char *candidate = name_at(arg, i);
		size_t candidate_n = strlen(candidate);
		if (candidate_n > NEAREST_MAX_BYTES)
			continue;
		size_t d = distance(name, name_n, candidate, candidate_n);
		if (d < best) {
			best = d;
			nearest = candidate;
		}
	}
	/* Beyond a third of the letters it is another word. */
	if (nearest && best <= (name_n > 3 ? name_n / 3 + 1 : 1))
		(void)snprintf(buf, cap, " (did you mean \"%s\"?)", nearest);
	else
		buf[0] = '\0';
	return buf;
}

static const char *
field_name_at(const void *arg, size_t i)
{
	return ((const struct sbx_read_field *)arg)[i].name;
}

static const char *
word_at(const void *arg, size_t i)
{
	return ((const char *const *)arg)[i];
}

/* ==== objects ==== */

static const char *
type_word(struct sbx_span value)
{
	switch (sbx_json_type(value)) {
	case SBX_JSON_NONE: return "nothing";
	case SBX_JSON_NULL: return "null";
	case SBX_JSON_BOOL: return "true or false";
	case SBX_JSON_NUMBER: return "a number";
	case SBX_JSON_STRING: return "a string";
	case SBX_JSON_ARRAY: return "an array";
	case SBX_JSON_OBJECT: return "an object";
	}
	return "";
}

bool
sbx_read_is_object(struct sbx_reader *r, struct sbx_span value)
{
	if (sbx_json_type(value) == SBX_JSON_OBJECT)
		return true;
	sbx_read_error(r, value, "must be an object, not %s", type_word(value));
	return false;
}

void
sbx_read_object(struct sbx_reader *r, struct sbx_span value, const struct sbx_read_field *fields, size_t n, void *into)
{
	if (!sbx_read_is_object(r, value))
		return;
	struct sbx_json_iter it = sbx_json_object_iter(value);
	struct sbx_span name, member;
	while (sbx_json_object_next(&it, &name, &member)) {
		size_t i = 0;
		while (i < n && !sbx_json_string_eq(name, fields[i].name))
			i++;
		if (i == n) {
			char unknown[80], hint[128];
			sbx_read_fmt(name, unknown, sizeof unknown);
			sbx_read_error(r, name, "unknown member \"%s\"%s", unknown,
			               sbx_nearest_hint(unknown, field_name_at, fields, n, hint, sizeof hint));
			continue;
		}
		if (sbx_json_type(member) == SBX_JSON_NULL)
			continue;
		size_t mark = sbx_read_enter(r, fields[i].name);
		fields[i].read(r, &fields[i], member, (char *)into + fields[i].offset);
		sbx_read_leave(r, mark);
	}
}

/* ==== values ==== */

void
sbx_read_unsupported(struct sbx_reader *r, const struct sbx_read_field *f, struct sbx_span value, void *at)
{
	(void)f;
	(void)at;
	sbx_read_error(r, value, "is not supported yet by this version");
}

void
sbx_read_span(struct sbx_reader *r, const struct sbx_read_field *f, struct sbx_span value, void *at)
{
	(void)r;
	(void)f;
	*(struct sbx_span *)at = value;
}

void
sbx_read_bool(struct sbx_reader *r, const struct sbx_read_field *f, struct sbx_span value, void *at)
{
	(void)f;
	if (!sbx_json_bool(value, at))
		sbx_read_error(r, value, "must be true or false, not %s", type_word(value));
}

bool
sbx_read_number(struct sbx_reader *r, struct sbx_span value, int64_t min, int64_t max, int64_t *ret_number)
{
	int64_t number;
	if (sbx_json_int64(value, &number) && number >= min && number <= max) {
		*ret_number = number;
		return true;
	}
	if (sbx_json_type(value) != SBX_JSON_NUMBER)
		sbx_read_error(r, value, "must be a whole number, not %s", type_word(value));
	else
		sbx_read_error(r, value, "must be a whole number from %" PRId64 " to %" PRId64, min, max);
	return false;
}

void
sbx_read_u8(struct sbx_reader *r, const struct sbx_read_field *f, struct sbx_span value, void *at)
{
	int64_t number;
	if (sbx_read_number(r, value, f->min, f->max, &number))
		*(uint8_t *)at = (uint8_t)number;
}

void
sbx_read_u32(struct sbx_reader *r, const struct sbx_read_field *f, struct sbx_span value, void *at)
{
	int64_t number;
	if (sbx_read_number(r, value, f->min, f->max, &number))
		*(uint32_t *)at = (uint32_t)number;
}

void
sbx_read_i64(struct sbx_reader *r, const struct sbx_read_field *f, struct sbx_span value, void *at)
{
	(void)sbx_read_number(r, value, f->min, f->max, at); /* says itself what is wrong */
}

void
sbx_read_ms(struct sbx_reader *r, const struct sbx_read_field *f, struct sbx_span value, void *at)
{
	int64_t ms;
	if (sbx_read_number(r, value, f->min, f->max, &ms))
		*(uint64_t *)at = (uint64_t)ms * 1000000;
}

/* "64MiB": digits and a binary unit. */
static bool
parse_size(const char *text, int64_t *ret_bytes)
{
	static const struct {
		const char *unit;
		int shift;
	} units[] = { { "", 0 }, { "B", 0 }, { "KiB", 10 }, { "MiB", 20 }, { "GiB", 30 }, { "TiB", 40 } };
	size_t digits = strspn(text, "0123456789");
	if (digits == 0 || digits > 12) /* 10^12 times the largest unit would not fit, 4,096 of it is more than enough */
		return false;
	int64_t n = 0;
	for (size_t i = 0; i < digits; i++)
		n = n * 10 + (text[i] - '0');
	text += digits;
	text += strspn(text, " ");
	for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
		if (strcmp(text, units[i].unit) == 0 && n <= INT64_MAX >> units[i].shift) {
			*ret_bytes = n << units[i].shift;
			return true;
		}
	}
	return false;
}

void
sbx_read_size(struct sbx_reader *r, const struct sbx_read_field *f, struct sbx_span value, void *at)
{
	char text[32];
	int64_t bytes;
	bool ok = sbx_json_int64(value, &bytes);
	if (sbx_json_type(value) == SBX_JSON_STRING && value.n < sizeof text) {
		sbx_read_fmt(value, text, sizeof text);
		ok = parse_size(text, &bytes);
	}
	if (ok && bytes >= f->min && bytes <= f->max)
		*(uint64_t *)at = (uint64_t)bytes;
	else if (ok)
		sbx_read_error(r, value, "must be from %" PRId64 " to %" PRId64 " MiB", f->min >> 20, f->max >> 20);
	else
		sbx_read_error(r, value, "must be a size: bytes, or a text like \"512MiB\" (KiB, MiB, GiB, TiB)");
}

char *
sbx_read_string(struct sbx_reader *r, struct sbx_span value, size_t max_bytes)
{
	if (sbx_json_type(value) != SBX_JSON_STRING) {
		sbx_read_error(r, value, "must be a string, not %s", type_word(value));
		return NULL;
	}
	char *text = malloc(value.n + 1); /* unescaping never makes longer */
	size_t n = 0;
	if (!text || sbx_json_string_decode(value, text, value.n, &n)) {
		free(text);
		r->no_memory = true;
		return NULL;
	}
	text[n] = '\0';
	const char *wrong = n == 0 ? "must not be empty" : n > max_bytes ? "is too long" : NULL;
	for (size_t i = 0; i < n && !wrong; i++)
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
			wrong = "has a control character in it";
	if (wrong) {
		sbx_read_error(r, value, "%s", wrong);
		free(text);
		return NULL;
	}
	return text;
}

void
sbx_read_text(struct sbx_reader *r, const struct sbx_read_field *f, struct sbx_span value, void *at)
{
	char *text = sbx_read_string(r, value, (size_t)f->max);
	if (text) {
		free(*(char **)at);
		*(char **)at = text;
	}
}

void
sbx_read_choice(struct sbx_reader *r, const struct sbx_read_field *f, struct sbx_span value, void *at)
{
	char text[64], hint[128];
	size_t n = 0;
	if (sbx_json_type(value) != SBX_JSON_STRING) {
		sbx_read_error(r, value, "must be a string, not %s", type_word(value));
		return;
	}
	for (; f->words[n]; n++) {
		if (sbx_json_string_eq(value, f->words[n])) {
			*(int *)at = (int)n;
			return;
		}
	}
	char all[256];
	size_t all_n = 0;
	for (size_t i = 0; i < n; i++)
		all_n += (size_t)snprintf(all + all_n, sizeof all - all_n, "%s\"%s\"", i ? ", " : "", f->words[i]); /* few short words */
	sbx_read_fmt(value, text, sizeof text);
	sbx_read_error(r, value, "must be one of %s%s", all, sbx_nearest_hint(text, word_at, f->words, n, hint, sizeof hint));
}

bool
sbx_read_name_ok(struct sbx_reader *r, struct sbx_span name, char *buf, size_t cap)
{
	sbx_read_fmt(name, buf, cap);
	size_t n = strlen(buf);
	/* A name without escapes is as long as its span without the quotes; others have characters that are refused anyway. */
	if (n > 0 && n < SBX_NAME_MAX_BYTES && n == name.n - 2 &&
	    strspn(buf, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-:@+") == n)
		return true;
	size_t mark = sbx_read_enter(r, buf);
	sbx_read_error(r, name, "a name has letters, digits and . _ - : @ + only, 1 to %d of them%s", SBX_NAME_MAX_BYTES - 1,
	               strchr(buf, '/') ? " (a slash stands between provider and model)" : "");
	sbx_read_leave(r, mark);
	return false;
}

void
sbx_read_blank_comments(char *text, size_t n)
{
	bool in_string = false;
	for (size_t i = 0; i < n; i++) {
		if (in_string && text[i] == '\\') {
			i++;
		} else if (text[i] == '"') {
			in_string = !in_string;
		} else if (in_string && text[i] == '\n') {
			in_string = false; /* a string never spans lines; the checker reports it, later comments are still comments */
		} else if (!in_string && text[i] == '/' && i + 1 < n && text[i + 1] == '/') {
			for (; i < n && text[i] != '\n'; i++)
				text[i] = ' ';
		}
	}
}

/* ==== the file ==== */

int
sbx_read_file(const char *path, size_t max_bytes, char **ret_text, size_t *ret_n, char *why, size_t why_bytes)
{
	/* NONBLOCK: a FIFO must not hang the agent before fstat() can refuse it. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0) {
		(void)snprintf(why, why_bytes, "cannot be opened: %s", strerror(errno));
		return -SBX_ESYNTAX;
	}
	int rc = -SBX_ESYNTAX;
	char *text = NULL;
	size_t n = 0, cap = 0;
	struct stat st;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		(void)snprintf(why, why_bytes, "is not a regular file");
		goto out;
	}
	if (st.st_size > (off_t)max_bytes) {
		(void)snprintf(why, why_bytes, "is larger than %zu MiB", max_bytes >> 20);
		goto out;
	}
	cap = (size_t)st.st_size;
	text = malloc(cap + 1);
	if (!text) {
		rc = -SBX_ENOMEM;
		goto out;
	}
	while (n < cap) {
		ssize_t got = read(fd, text + n, cap - n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			(void)snprintf(why, why_bytes, "cannot be read: %s", strerror(errno));
			goto out;
		}
		if (got == 0)
			break;
		n += (size_t)got;
	}
	text[n] = '\0';
	*ret_text = text;
	*ret_n = n;
	text = NULL;
	rc = 0;
out:
	free(text);
	(void)close(fd); /* read only */
	return rc;
}
