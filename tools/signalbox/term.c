/* SPDX-License-Identifier: Apache-2.0 */
/* term.c -- what is written and how it looks. See cli.h. */
#include "tools/signalbox/cli.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const char *const escapes[] = {
	[STYLE_PLAIN] = "\033[0m", [STYLE_DIM] = "\033[2m",   [STYLE_BOLD] = "\033[1m",
	[STYLE_GOOD] = "\033[32m", [STYLE_WARN] = "\033[33m", [STYLE_BAD] = "\033[31m",
};

struct term
term_of(FILE *file)
{
	const char *no_colour = getenv("NO_COLOR"), *kind = getenv("TERM");
	struct term t = { .file = file, .tty = isatty(fileno(file)) == 1 };
	t.colour = t.tty && !(no_colour && *no_colour) && !(kind && strcmp(kind, "dumb") == 0);
	return t;
}

void
term_style(const struct term *t, enum style style)
{
	if (t->colour)
		(void)fputs(escapes[style], t->file);
}

/* How many bytes at `at` are a control character that is to be shown instead of obeyed: C0 but for newline and tab, DEL, and C1
 * in its UTF-8 form. 0 = none. */
static size_t
control_bytes(const char *at, size_t n)
{
	unsigned char c = (unsigned char)*at;
	if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f)
		return 1;
	return c == 0xc2 && n > 1 && ((unsigned char)at[1] & 0xe0) == 0x80 ? 2 : 0;
}

void
term_put(const struct term *t, const char *text, size_t n)
{
	if (!t->tty) { /* a file gets what the model said, byte for byte */
		(void)fwrite(text, 1, n, t->file);
		return;
	}
	size_t from = 0;
	for (size_t i = 0; i < n; i++) {
		size_t control = control_bytes(text + i, n - i);
		if (control == 0)
			continue;
		(void)fwrite(text + from, 1, i - from, t->file);
		if (text[i] != '\r') /* of CR LF: the rest is enough */
			(void)fputs("\xef\xbf\xbd", t->file);
		i += control - 1;
		from = i + 1;
	}
	(void)fwrite(text + from, 1, n - from, t->file);
}

void
term_say(const struct term *t, enum style style, const char *fmt, ...)
{
	char *text;
	va_list ap;
	va_start(ap, fmt);
	int n = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (n < 0)
		return;
	if (style != STYLE_PLAIN)
		term_style(t, style);
	term_put(t, text, (size_t)n);
	if (style != STYLE_PLAIN)
		term_style(t, STYLE_PLAIN);
	free(text);
}

void
term_size(const struct term *t, size_t *ret_columns, size_t *ret_lines)
{
	struct winsize size = { 0, 0, 0, 0 };
	const char *columns = getenv("COLUMNS");
	if (t->tty)
		(void)ioctl(STDOUT_FILENO, TIOCGWINSZ, &size); /* a terminal that does not know leaves zeros */
	unsigned long said = columns ? strtoul(columns, NULL, 10) : 0;
	*ret_columns = said > 0 && said < 10000 ? said : size.ws_col ? size.ws_col : 80;
	*ret_lines = size.ws_row;
}

int
close_output(void)
{
	bool failed = ferror(stdout) != 0;
	if (fflush(stdout) != 0 || failed) {
		(void)fprintf(stderr, "signalbox: cannot write to standard output: %m\n");
		return CLI_FAILED;
	}
	return CLI_OK;
}

json_t *
json_text(const char *text, size_t n)
{
	json_t *value = json_stringn(text, n);
	return value ? value : json_null();
}

void
json_print_line(const json_t *value)
{
	(void)json_dumpf(value, stdout, JSON_COMPACT | JSON_ENCODE_ANY); /* a failure stays in the stream: close_output() */
	(void)putchar('\n');
}

static json_t *
inner_object(json_t *outer, const char *key)
{
	json_t *inner = json_object_get(outer, key);
	if (!json_is_object(inner)) {
		inner = must(json_object());
		(void)json_object_set_new(outer, key, inner);
	}
	return inner;
}

/* The library flattens: "row.openai/gpt-5.2.attempts". A name in the middle may hold dots, what is before and behind it never does. */
void
json_add_fields(json_t *object, const struct sbx_reply *reply)
{
	const char *field, *text;
	int64_t number;
	for (uint32_t i = 0; sbx_reply_field(reply, i, &field, &text, &number); i++) {
		json_t *to = object;
		const char *dot = strrchr(field, '.'), *first = strchr(field, '.');
		if (dot) {
			char *outer = must(strndup(field, (size_t)(first - field)));
			to = inner_object(object, outer);
			free(outer);
		}
		if (dot > first) {
			char *name = must(strndup(first + 1, (size_t)(dot - first - 1)));
			to = inner_object(to, name);
			free(name);
		}
		(void)json_object_set_new(to, dot ? dot + 1 : field, text ? json_text(text, strlen(text)) : json_integer(number));
	}
}
