/* SPDX-License-Identifier: Apache-2.0 */
/*
 * recordings_rig.h -- recorded exchanges of a dialect, where a folder of them is given by $SIGNALBOX_RECORDINGS: each answer decoded at
 * once and in pieces against what was expected of it, and so again after it was written anew where the dialect has an encoder; each stream
 * cut short, never a success; each recorded request through the hub's form and back, as it was but for what the dialect's test has
 * reviewed.
 */
#ifndef SBX_TESTS_RECORDINGS_RIG_H
#define SBX_TESTS_RECORDINGS_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/dialect/hub.h"

#define REC_FILE_MAX_BYTES (1u << 20)
#define REC_CALLS_MAX 16

/* What does not come back as it was, and why that is well. */
struct rec_reviewed {
	const char *what, *why;
	unsigned seen;
};

struct rec_subject {
	const char *name;                  /* of the dialect, in meta.json */
	const struct sbx_dialect *dialect;
	const char *model;                 /* where the recorded request has it elsewhere */
	/* Takes the reviewed differences out of both, and counts them; NULL = requests are not tried. */
	void (*review)(json_t *was, json_t *is);
	struct rec_reviewed *reviewed;
	size_t n_reviewed;
};

/* ---- the answer as it was decoded ---- */

struct rec_call {
	char name[128];
	struct sbx_buf arguments;
};

struct rec_got {
	const struct rec_subject *subject;
	struct sbx_encoder *again; /* writes what is decoded; NULL = nobody does */
	struct sbx_buf text, reasoning;
	struct rec_call call[REC_CALLS_MAX];
	uint32_t n_calls;
	enum sbx_finish finish;
	struct sbx_usage usage;
	bool complete, ended, failed;
	char error_type[64], error_message[1024];
	int error_status;
};

static void
rec_note(void *arg, const struct sbx_hub_event *ev)
{
	struct rec_got *g = arg;
	assert_false(g->failed || g->ended);
	if (g->again)
		assert_int_equal(g->subject->dialect->encoder_event(g->again, ev), 0);
	switch (ev->kind) {
	case SBX_HUB_TEXT:
		assert_int_equal(sbx_buf_append(&g->text, ev->text.at, ev->text.n), 0);
		break;
	case SBX_HUB_REASONING:
		assert_int_equal(sbx_buf_append(&g->reasoning, ev->text.at, ev->text.n), 0);
		break;
	case SBX_HUB_TOOL_CALL:
		assert_true(ev->index <= g->n_calls && ev->index < REC_CALLS_MAX);
		if (ev->index == g->n_calls) {
			assert_true(ev->id.n && ev->name.n);
			g->n_calls++;
			(void)snprintf(g->call[ev->index].name, sizeof g->call[0].name, "%.*s", (int)ev->name.n, ev->name.at);
			sbx_buf_init(&g->call[ev->index].arguments, SBX_BODY_MAX_BYTES);
		}
		assert_int_equal(sbx_buf_append(&g->call[ev->index].arguments, ev->text.at, ev->text.n), 0);
		break;
	case SBX_HUB_USAGE:
		g->usage = *ev->usage;
		break;
	case SBX_HUB_FINISH:
		g->finish = ev->finish;
		break;
	case SBX_HUB_ERROR:
		g->failed = true;
		g->error_status = ev->error->status;
		memcpy(g->error_type, ev->error->type, sizeof g->error_type);
		memcpy(g->error_message, ev->error->message, sizeof g->error_message);
		break;
	case SBX_HUB_COMPLETE:
		g->complete = true;
		break;
	case SBX_HUB_END:
		g->ended = true;
		break;
	default:
		break;
	}
}

static void
rec_got_fini(struct rec_got *g)
{
	sbx_buf_fini(&g->text);
	sbx_buf_fini(&g->reasoning);
	for (uint32_t i = 0; i < g->n_calls; i++)
		sbx_buf_fini(&g->call[i].arguments);
}

/* step: bytes fed at once. ret_complete_at: so many were fed when it was complete. */
static void
rec_decode(const struct rec_subject *s, const char *bytes, size_t n, size_t step, int status, bool stream, struct sbx_encoder *again,
	   struct rec_got *g, size_t *ret_complete_at)
{
	struct sbx_json_scratch scratch;
	const struct sbx_decode_opts opts = { .op = SBX_OP_CHAT, .choices = 1, .stream = stream, .want_text = true };
	sbx_json_scratch_init(&scratch);
	memset(g, 0, sizeof *g);
	g->subject = s;
	g->again = again;
	g->usage = SBX_USAGE_NONE;
	sbx_buf_init(&g->text, SBX_BODY_MAX_BYTES);
	sbx_buf_init(&g->reasoning, SBX_BODY_MAX_BYTES);
	struct sbx_decoder *d = s->dialect->decoder_new(&opts, &scratch, rec_note, g);
	assert_non_null(d);
	s->dialect->decoder_head(d, status, "");
	for (size_t at = 0; at < n; at += step) {
		s->dialect->decoder_feed(d, bytes + at, n - at < step ? n - at : step);
		if (!g->complete)
			*ret_complete_at = at + step;
	}
	s->dialect->decoder_end(d);
	s->dialect->decoder_free(d);
	sbx_json_scratch_fini(&scratch);
}

/* ---- against what was expected ---- */

static int64_t
rec_figure(const json_t *usage, const char *name)
{
	return json_integer_value(json_object_get(usage, name));
}

static int64_t
rec_given(int64_t tokens)
{
	return tokens < 0 ? 0 : tokens;
}

static bool
rec_ambiguous(const json_t *expected, const char *field)
{
	size_t i;
	json_t *name;
	json_array_foreach(json_object_get(expected, "ambiguous"), i, name)
		if (strcmp(json_string_value(name), field) == 0)
			return true;
	return false;
}

static void
rec_compare_text(const char *id, const char *what, const struct sbx_buf *got, const json_t *expected)
{
	const json_t *want = json_object_get(expected, what);
	const char *text = json_string_value(want);
	if (text && (got->n != json_string_length(want) || memcmp(got->n ? (const char *)got->data : "", text, got->n) != 0))
		fail_msg("%s: %s [%.*s], expected [%s]", id, what, (int)got->n, (const char *)got->data, text);
}

static void
rec_compare(const char *id, const struct rec_got *g, const json_t *expected)
{
	const char *finish = json_string_value(json_object_get(expected, "finish_reason"));
	const json_t *error = json_object_get(expected, "error"), *usage = json_object_get(expected, "usage");
	const json_t *calls = json_object_get(expected, "tool_calls");
	rec_compare_text(id, "text", &g->text, expected);
	if (!rec_ambiguous(expected, "reasoning"))
		rec_compare_text(id, "reasoning", &g->reasoning, expected);
	if (json_is_object(error)) {
		const char *type = json_string_value(json_object_get(error, "type"));
		if (!g->failed || g->error_status != json_integer_value(json_object_get(error, "status")))
			fail_msg("%s: failed %d, status %d", id, g->failed, g->error_status);
		if (type)
			assert_string_equal(g->error_type, type);
		assert_string_equal(g->error_message, json_string_value(json_object_get(error, "message")));
	} else {
		if (g->failed || !g->complete || !g->ended)
			fail_msg("%s: failed %d complete %d ended %d: %s", id, g->failed, g->complete, g->ended, g->error_message);
	}
	if (finish && !rec_ambiguous(expected, "finish_reason"))
		assert_string_equal(sbx_finish_word(g->finish), finish);
	if (json_is_object(usage) && !rec_ambiguous(expected, "usage")) {
		if (rec_given(g->usage.prompt_tokens) != rec_figure(usage, "prompt_tokens") ||
		    rec_given(g->usage.completion_tokens) != rec_figure(usage, "completion_tokens") ||
		    rec_given(g->usage.cached_tokens) != rec_figure(usage, "cached_tokens") ||
		    rec_given(g->usage.cache_write_tokens) != rec_figure(usage, "cache_creation_tokens") ||
		    rec_given(g->usage.reasoning_tokens) != rec_figure(usage, "reasoning_tokens"))
			fail_msg("%s: usage %lld %lld %lld %lld %lld", id, (long long)g->usage.prompt_tokens, (long long)g->usage.completion_tokens,
				 (long long)g->usage.cached_tokens, (long long)g->usage.cache_write_tokens, (long long)g->usage.reasoning_tokens);
	}
	if (g->n_calls != json_array_size(calls))
		fail_msg("%s: %u tool calls", id, (unsigned)g->n_calls);
	for (uint32_t i = 0; i < g->n_calls; i++) {
		const json_t *want = json_array_get(calls, i);
		assert_string_equal(g->call[i].name, json_string_value(json_object_get(want, "name")));
		json_t *arguments = json_loadb((const char *)g->call[i].arguments.data, g->call[i].arguments.n, 0, NULL);
		if (!json_equal(arguments, json_object_get(want, "arguments")))
			fail_msg("%s: arguments of call %u", id, (unsigned)i);
		json_decref(arguments);
	}
}

/* Written for a client of the dialect, as a stream and whole, an answer says what it said. */
static void
rec_write_again(const struct rec_subject *s, const char *id, const char *bytes, size_t n, bool stream, const json_t *expected)
{
	for (int as_stream = 0; as_stream < 2; as_stream++) {
		const struct sbx_encode_opts opts = { .op = SBX_OP_CHAT, .stream = as_stream, .model = "m", .id = "msg" };
		struct sbx_buf out;
		struct rec_got g;
		size_t at;
		sbx_buf_init(&out, SBX_BODY_MAX_BYTES);
		struct sbx_encoder *again = s->dialect->encoder_new(&opts, &out);
		rec_decode(s, bytes, n, n, 200, stream, again, &g, &at);
		bool whole = g.complete;
		rec_got_fini(&g);
		if (whole) {
			assert_int_equal(s->dialect->encoder_end(again), 0);
			rec_decode(s, (const char *)out.data, out.n, out.n, 200, as_stream, NULL, &g, &at);
			rec_compare(id, &g, expected);
			rec_got_fini(&g);
		}
		s->dialect->encoder_free(again);
		sbx_buf_fini(&out);
	}
}

/* ---- requests there and back ---- */

static void
rec_there_and_back(const struct rec_subject *s, const char *id, const char *bytes, size_t n)
{
	struct sbx_buf hub, back;
	struct sbx_fault fault;
	struct sbx_json_scratch scratch;
	json_t *was = json_loadb(bytes, n, 0, NULL);
	const char *model = json_string_value(json_object_get(was, "model"));
	const struct sbx_translation t = { .model = model ? model : s->model, .stream = json_is_true(json_object_get(was, "stream")) };
	sbx_json_scratch_init(&scratch);
	sbx_buf_init(&hub, SBX_BODY_MAX_BYTES);
	sbx_buf_init(&back, SBX_BODY_MAX_BYTES);
	assert_int_equal(sbx_json_check(bytes, n, &scratch, NULL), 0);
	if (s->dialect->to_hub(SBX_OP_CHAT, (struct sbx_span){ bytes, n }, &hub, &fault))
		fail_msg("%s: to_hub: %s", id, fault.why);
	if (sbx_json_check((const char *)hub.data, hub.n, &scratch, NULL))
		fail_msg("%s: to_hub wrote no JSON: %.*s", id, (int)hub.n, (const char *)hub.data);
	if (s->dialect->from_hub(SBX_OP_CHAT, (struct sbx_span){ (const char *)hub.data, hub.n }, &t, &back, &fault))
		fail_msg("%s: from_hub: %s\n%.*s", id, fault.why, (int)hub.n, (const char *)hub.data);
	json_t *is = json_loadb((const char *)back.data, back.n, JSON_REJECT_DUPLICATES, NULL);
	if (!is)
		fail_msg("%s: from_hub wrote no JSON: %.*s", id, (int)back.n, (const char *)back.data);
	s->review(was, is);
	if (!json_equal(was, is)) { /* whole, which a message of the test kit's is not */
		fprintf(stderr, "%s\n%s\n%.*s\n", json_dumps(was, JSON_SORT_KEYS), json_dumps(is, JSON_SORT_KEYS), (int)hub.n, (const char *)hub.data);
		fail_msg("%s does not come back as it was", id);
	}
	json_decref(was);
	json_decref(is);
	sbx_buf_fini(&hub);
	sbx_buf_fini(&back);
	sbx_json_scratch_fini(&scratch);
}

/* ---- the folder ---- */

static char *
rec_slurp(const char *folder, const char *id, const char *file, size_t *ret_n)
{
	char path[1024];
	(void)snprintf(path, sizeof path, "%s/%s/%s", folder, id, file);
	FILE *f = fopen(path, "rb");
	if (!f)
		return NULL;
	char *bytes = malloc(REC_FILE_MAX_BYTES);
	*ret_n = fread(bytes, 1, REC_FILE_MAX_BYTES, f);
	assert_true(*ret_n < REC_FILE_MAX_BYTES);
	(void)fclose(f);
	return bytes;
}

/* In place. */
static size_t
rec_unbase64(char *bytes, size_t n)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	uint32_t held = 0;
	size_t n_bits = 0, out = 0;
	for (size_t i = 0; i < n; i++) {
		const char *at = bytes[i] ? strchr(digits, bytes[i]) : NULL;
		if (!at)
			continue;
		held = held << 6 | (uint32_t)(at - digits);
		n_bits += 6;
		if (n_bits >= 8) {
			n_bits -= 8;
			bytes[out++] = (char)(held >> n_bits);
		}
	}
	return out;
}

struct rec_counts {
	unsigned answers, requests, cuts;
};

static void
rec_try_case(const struct rec_subject *s, const char *folder, const char *id, struct rec_counts *c)
{
	size_t n = 0, complete_at = 0, cut_at = 0;
	char *bytes = rec_slurp(folder, id, "meta.json", &n);
	if (!bytes)
		return;
	json_t *meta = json_loadb(bytes, n, 0, NULL);
	free(bytes);
	if (strcmp(json_string_value(json_object_get(meta, "dialect")), s->name) != 0) {
		json_decref(meta);
		return;
	}
	bytes = rec_slurp(folder, id, "expected.json", &n);
	json_t *expected = json_loadb(bytes, n, 0, NULL);
	free(bytes);

	bool stream = json_is_true(json_object_get(meta, "stream"));
	int status = (int)json_integer_value(json_object_get(meta, "status"));
	const char *file = json_string_value(json_object_get(meta, "response_file"));
	bytes = rec_slurp(folder, id, file, &n);
	if (strstr(file, ".b64"))
		n = rec_unbase64(bytes, n);
	const size_t steps[] = { n, 1, 7 };
	struct rec_got g;
	for (size_t i = 0; i < 3; i++) {
		rec_decode(s, bytes, n, steps[i], status, stream, NULL, &g, i == 1 ? &complete_at : &cut_at);
		rec_compare(id, &g, expected);
		rec_got_fini(&g);
	}
	c->answers++;
	if (status == 200 && s->dialect->encoder_new)
		rec_write_again(s, id, bytes, n, stream, expected);
	for (size_t cut = 0; stream && cut + 2 < complete_at; cut += 1 + n / 997) { /* two: the line ends behind the event itself */
		char *part = malloc(cut + 1); /* of its own, so that reading beyond it shows */
		memcpy(part, bytes, cut);
		rec_decode(s, part, cut, cut + 1, status, stream, NULL, &g, &cut_at);
		if (g.complete)
			fail_msg("%s: a success when cut at %zu", id, cut);
		rec_got_fini(&g);
		free(part);
		c->cuts++;
	}
	free(bytes);
	bytes = s->review ? rec_slurp(folder, id, "request.json", &n) : NULL;
	if (bytes) {
		rec_there_and_back(s, id, bytes, n);
		c->requests++;
	}
	free(bytes);
	json_decref(meta);
	json_decref(expected);
}

static void
rec_run(const struct rec_subject *s)
{
	const char *folder = getenv("SIGNALBOX_RECORDINGS");
	struct rec_counts c = { 0, 0, 0 };
	if (!folder)
		skip();
	DIR *dir = opendir(folder);
	assert_non_null(dir);
	for (struct dirent *entry; (entry = readdir(dir));)
		if (entry->d_name[0] != '.')
			rec_try_case(s, folder, entry->d_name, &c);
	(void)closedir(dir);
	assert_true(c.answers > 0);
	print_message("%s: %u answers, %u cuts of streams, %u requests there and back\n", s->name, c.answers, c.cuts, c.requests);
	for (size_t i = 0; i < s->n_reviewed; i++)
		print_message("  %u times %s: %s\n", s->reviewed[i].seen, s->reviewed[i].what, s->reviewed[i].why);
}

/* Takes every member that is null out of a tree, but not below members of these names, which are the client's own. Returns how many. */
static unsigned
rec_strip_null(json_t *value, const char *const *opaque)
{
	size_t i;
	json_t *child;
	const char *name;
	void *next;
	unsigned n = 0;
	if (json_is_array(value)) {
		json_array_foreach(value, i, child)
			n += rec_strip_null(child, opaque);
	} else if (json_is_object(value)) {
		json_object_foreach_safe(value, next, name, child) {
			bool skipped = false;
			for (size_t k = 0; opaque[k]; k++)
				skipped |= strcmp(name, opaque[k]) == 0;
			if (json_is_null(child)) {
				json_object_del(value, name);
				n++;
			} else if (!skipped) {
				n += rec_strip_null(child, opaque);
			}
		}
	}
	return n;
}

#endif
