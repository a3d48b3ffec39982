/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ask_body.c -- the request's body: a system message and one user message made of text and files, or what --body holds.
 *
 * A file stands in the message under its name and between fences, which are longer than any run of backticks in it, so that
 * a file cannot end its own fence.
 */
#include "tools/signalbox/ask.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <signalbox/wire.h>

/* Appends all of `from`; name is for messages. False = said why. */
static bool
append_stream(FILE *to, FILE *from, const char *name, size_t *total_bytes)
{
	char piece[65536];
	size_t n;
	while ((n = fread(piece, 1, sizeof piece, from)) > 0) {
		*total_bytes += n;
		if (*total_bytes > SBX_BODY_IN_MAX_BYTES) {
			(void)fprintf(stderr, "signalbox: with %s the request is larger than %u MiB\n", name, SBX_BODY_IN_MAX_BYTES >> 20);
			return false;
		}
		(void)fwrite(piece, 1, n, to); /* memory: fclose() tells */
	}
	if (ferror(from)) {
		(void)fprintf(stderr, "signalbox: cannot read %s: %m\n", name);
		return false;
	}
	return true;
}

static bool
append_path(FILE *to, const char *path, size_t *total_bytes)
{
	if (strcmp(path, "-") == 0)
		return append_stream(to, stdin, "standard input", total_bytes);
	FILE *from = fopen(path, "re");
	if (!from) {
		(void)fprintf(stderr, "signalbox: cannot open %s: %m\n", path);
		return false;
	}
	bool ok = append_stream(to, from, path, total_bytes);
	(void)fclose(from); /* it was only read */
	return ok;
}

/* All of a file in memory, as a NUL-terminated string of its own. False = said why. */
static bool
read_path(const char *path, char **ret_text, size_t *ret_bytes)
{
	size_t total_bytes = 0;
	FILE *to = must(open_memstream(ret_text, ret_bytes));
	bool ok = append_path(to, path, &total_bytes);
	if (fclose(to) != 0)
		must(NULL);
	if (!ok)
		free(*ret_text);
	return ok;
}

static size_t
longest_fence(const char *text, size_t n)
{
	size_t longest = 0, run = 0;
	for (size_t i = 0; i < n; i++) {
		run = text[i] == '`' ? run + 1 : 0;
		longest = run > longest ? run : longest;
	}
	return longest;
}

static bool
append_file(FILE *to, const char *path)
{
	char *text;
	size_t n;
	if (!read_path(path, &text, &n))
		return false;
	size_t fence = longest_fence(text, n) + 1;
	fence = fence < 3 ? 3 : fence;
	if (ftell(to) > 0)
		(void)fputs("\n\n", to);
	(void)fprintf(to, "%s:\n", strcmp(path, "-") == 0 ? "standard input" : path);
	for (size_t i = 0; i < fence; i++)
		(void)putc('`', to);
	(void)putc('\n', to);
	(void)fwrite(text, 1, n, to);
	if (n && text[n - 1] != '\n')
		(void)putc('\n', to);
	for (size_t i = 0; i < fence; i++)
		(void)putc('`', to);
	free(text);
	return true;
}

/* The user's message: words, standard input, files. */
static bool
user_text(const struct ask_options *o, char **ret_text, size_t *ret_bytes)
{
	size_t read_bytes = 0;
	FILE *to = must(open_memstream(ret_text, ret_bytes));
	bool ok = true;
	for (size_t i = 0; ok && i < o->n_words; i++) {
		bool input = strcmp(o->words[i], "-") == 0;
		if (i)
			(void)putc(input || strcmp(o->words[i - 1], "-") == 0 ? '\n' : ' ', to);
		if (input)
			ok = append_path(to, "-", &read_bytes);
		else
			(void)fputs(o->words[i], to);
	}
	if (o->n_words == 0 && o->n_files == 0)
		ok = append_path(to, "-", &read_bytes);
	for (size_t i = 0; ok && i < o->n_files; i++)
		ok = append_file(to, o->files[i]);
	if (fclose(to) != 0)
		must(NULL);
	if (ok && *ret_bytes == 0) {
		(void)fputs("signalbox: there is nothing to ask: the text is empty\n", stderr);
		ok = false;
	}
	if (!ok)
		free(*ret_text);
	return ok;
}

static json_t *
message(const char *role, const char *text, size_t n)
{
	json_t *content = json_stringn(text, n);
	if (!content) {
		(void)fprintf(stderr, "signalbox: the %s message is not UTF-8 text\n", role);
		return NULL;
	}
	return must(json_pack("{s:s, s:o}", "role", role, "content", content));
}

int
ask_body(const struct ask_options *o, char **ret_body, size_t *ret_bytes)
{
	char *text;
	size_t n;
	if (o->body)
		return read_path(o->body, ret_body, ret_bytes) ? CLI_OK : CLI_USAGE;
	if (!user_text(o, &text, &n))
		return CLI_USAGE;
	json_t *messages = must(json_array());
	json_t *system = o->system ? message("system", o->system, strlen(o->system)) : NULL;
	json_t *user = message("user", text, n);
	free(text);
	bool ok = user && (system || !o->system);
	if (system)
		(void)json_array_append_new(messages, system); /* a lack of memory shows in the dump */
	if (user)
		(void)json_array_append_new(messages, user);
	json_t *body = must(json_pack("{s:o}", "messages", messages));
	if (o->max_tokens)
		(void)json_object_set_new(body, "max_tokens", json_integer(o->max_tokens));
	if (ok) {
		*ret_body = must(json_dumps(body, JSON_COMPACT));
		*ret_bytes = strlen(*ret_body);
	}
	json_decref(body);
	return ok ? CLI_OK : CLI_USAGE;
}
