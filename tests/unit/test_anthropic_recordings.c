/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recorded answers of Anthropic's, where a folder of them is given by $SIGNALBOX_RECORDINGS: decoded at once and byte by byte against what
 * was expected of them, and so again after they were written anew for a client of the dialect; cut short, never a success; and each
 * recorded request through the hub's form and back, as it was but for what the reviewed list names.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/dialect/anthropic.h"

/* ---- the answer as it was decoded ---- */

struct call {
	char name[128];
	struct sbx_buf arguments;
};

struct got {
	struct sbx_encoder *again; /* writes what is decoded; NULL = nobody does */
	struct sbx_buf text;
	struct call call[16];
	uint32_t n_calls;
	enum sbx_finish finish;
	struct sbx_usage usage;
	bool complete, ended, failed;
	char error_type[64], error_message[1024];
	int error_status;
};

static void
note(void *arg, const struct sbx_hub_event *ev)
{
	struct got *g = arg;
	assert_false(g->failed || g->ended);
	if (g->again)
		assert_int_equal(sbx_anthropic_encoder_event(g->again, ev), 0);
	switch (ev->kind) {
	case SBX_HUB_TEXT:
		assert_int_equal(sbx_buf_append(&g->text, ev->text.at, ev->text.n), 0);
		break;
	case SBX_HUB_TOOL_CALL:
		assert_true(ev->index <= g->n_calls && ev->index < 16);
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
got_init(struct got *g, struct sbx_encoder *again)
{
	memset(g, 0, sizeof *g);
	g->again = again;
	sbx_buf_init(&g->text, SBX_BODY_MAX_BYTES);
	g->usage = SBX_USAGE_NONE;
}

static void
got_fini(struct got *g)
{
	sbx_buf_fini(&g->text);
	for (uint32_t i = 0; i < g->n_calls; i++)
		sbx_buf_fini(&g->call[i].arguments);
}

/* step: bytes fed at once. ret_complete_at: so many were fed when it was complete. */
static void
decode(const char *bytes, size_t n, size_t step, int status, bool stream, struct sbx_encoder *again, struct got *g, size_t *ret_complete_at)
{
	struct sbx_json_scratch scratch;
	const struct sbx_decode_opts opts = { .op = SBX_OP_CHAT, .choices = 1, .stream = stream, .want_text = true };
	sbx_json_scratch_init(&scratch);
	got_init(g, again);
	const struct sbx_dialect *a = &sbx_dialect_anthropic;
	struct sbx_decoder *d = a->decoder_new(&opts, &scratch, note, g);
	assert_non_null(d);
	a->decoder_head(d, status, "");
	for (size_t at = 0; at < n; at += step) {
		a->decoder_feed(d, bytes + at, n - at < step ? n - at : step);
		if (!g->complete)
			*ret_complete_at = at + step;
	}
	a->decoder_end(d);
	a->decoder_free(d);
	sbx_json_scratch_fini(&scratch);
}

/* ---- against what was expected ---- */

static int64_t
figure(const json_t *usage, const char *name)
{
	return json_integer_value(json_object_get(usage, name));
}

static int64_t
given(int64_t tokens)
{
	return tokens < 0 ? 0 : tokens;
}

static bool
ambiguous(const json_t *expected, const char *field)
{
	size_t i;
	json_t *name;
	json_array_foreach(json_object_get(expected, "ambiguous"), i, name)
		if (strcmp(json_string_value(name), field) == 0)
			return true;
	return false;
}

static void
compare(const char *id, const struct got *g, const json_t *expected)
{
	const char *text = json_string_value(json_object_get(expected, "text"));
	const char *finish = json_string_value(json_object_get(expected, "finish_reason"));
	const json_t *error = json_object_get(expected, "error"), *usage = json_object_get(expected, "usage");
	const json_t *calls = json_object_get(expected, "tool_calls");
	if (g->text.n != strlen(text) || memcmp(g->text.n ? (const char *)g->text.data : "", text, g->text.n) != 0)
		fail_msg("%s: text [%.*s], expected [%s]", id, (int)g->text.n, (const char *)g->text.data, text);
	if (json_is_object(error)) {
		assert_true(g->failed);
		if (g->error_status != json_integer_value(json_object_get(error, "status")))
			fail_msg("%s: status %d", id, g->error_status);
		assert_string_equal(g->error_type, json_string_value(json_object_get(error, "type")));
		assert_string_equal(g->error_message, json_string_value(json_object_get(error, "message")));
	} else {
		if (g->failed || !g->complete || !g->ended)
			fail_msg("%s: failed %d complete %d ended %d: %s", id, g->failed, g->complete, g->ended, g->error_message);
	}
	if (finish && !ambiguous(expected, "finish_reason"))
		assert_string_equal(sbx_finish_word(g->finish), finish);
	if (json_is_object(usage) && !ambiguous(expected, "usage")) {
		if (given(g->usage.prompt_tokens) != figure(usage, "prompt_tokens") ||
		    given(g->usage.completion_tokens) != figure(usage, "completion_tokens") ||
		    given(g->usage.cached_tokens) != figure(usage, "cached_tokens") ||
		    given(g->usage.cache_write_tokens) != figure(usage, "cache_creation_tokens") ||
		    given(g->usage.reasoning_tokens) != figure(usage, "reasoning_tokens"))
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
write_again(const char *id, const char *bytes, size_t n, bool stream, const json_t *expected)
{
	for (int as_stream = 0; as_stream < 2; as_stream++) {
		const struct sbx_encode_opts opts = { .op = SBX_OP_CHAT, .stream = as_stream, .model = "m", .id = "msg" };
		struct sbx_buf out;
		struct got g;
		size_t at;
		sbx_buf_init(&out, SBX_BODY_MAX_BYTES);
		struct sbx_encoder *again = sbx_anthropic_encoder_new(&opts, &out);
		decode(bytes, n, n, 200, stream, again, &g, &at);
		bool whole = g.complete;
		got_fini(&g);
		if (whole) {
			assert_int_equal(sbx_anthropic_encoder_end(again), 0);
			decode((const char *)out.data, out.n, out.n, 200, as_stream, NULL, &g, &at);
			compare(id, &g, expected);
			got_fini(&g);
		}
		sbx_anthropic_encoder_free(again);
		sbx_buf_fini(&out);
	}
}

/* ---- requests there and back ---- */

/* What does not come back as it was, and why that is well. */
static const struct reviewed {
	const char *what, *why;
} reviewed[] = {
	{ "thinking.budget_tokens", "chat has words for how much, not numbers: it comes back as the share of max_tokens that the word stands for" },
	{ "output_config.effort", "adaptive thinking with nothing said is high, and comes back with the word" },
	{ "tool_use.caller", "\"direct\" is so anyway: the provider adds it to its answers" },
	{ "null", "a member that is null says nothing" },
	{ "stream", "false says nothing" },
	{ "model", "is written for a target: some of the recorded ones have it in the URL" },
};

static unsigned differences[sizeof reviewed / sizeof reviewed[0]];

static void
strip(json_t *value, bool counted)
{
	size_t i;
	json_t *child;
	const char *name;
	void *next;
	if (json_is_array(value)) {
		json_array_foreach(value, i, child)
			strip(child, counted);
	} else if (json_is_object(value)) {
		json_object_foreach_safe(value, next, name, child) {
			if (json_is_null(child)) {
				differences[3] += counted;
				json_object_del(value, name);
			} else if (strcmp(name, "caller") == 0) {
				differences[2] += counted;
				json_object_del(value, name);
			} else if (strcmp(name, "input") != 0 && strcmp(name, "input_schema") != 0) { /* what the client says in them is the client's */
				strip(child, counted);
			}
		}
	}
}

/* Takes the reviewed differences out of both. */
static void
review(json_t *was, json_t *is)
{
	strip(was, true);
	strip(is, false);
	if (!json_object_get(was, "model")) {
		differences[5]++;
		json_object_del(is, "model");
	}
	if (json_is_false(json_object_get(was, "stream"))) {
		differences[4]++;
		json_object_del(was, "stream");
	}
	json_t *was_thinking = json_object_get(was, "thinking"), *is_thinking = json_object_get(is, "thinking");
	if (json_object_get(was_thinking, "budget_tokens") && json_object_get(is_thinking, "budget_tokens")) {
		differences[0]++;
		json_object_del(was_thinking, "budget_tokens");
		json_object_del(is_thinking, "budget_tokens");
	}
	if (json_object_get(json_object_get(is, "output_config"), "effort") && !json_object_get(json_object_get(was, "output_config"), "effort")) {
		differences[1]++;
		json_object_del(json_object_get(is, "output_config"), "effort");
		if (json_object_size(json_object_get(is, "output_config")) == 0)
			json_object_del(is, "output_config");
	}
}

static void
there_and_back(const char *id, const char *bytes, size_t n)
{
	struct sbx_buf hub, back;
	struct sbx_fault fault;
	struct sbx_json_scratch scratch;
	json_t *was = json_loadb(bytes, n, 0, NULL);
	const char *model = json_string_value(json_object_get(was, "model"));
	const struct sbx_translation t = { .model = model ? model : "claude", .stream = json_is_true(json_object_get(was, "stream")) };
	sbx_json_scratch_init(&scratch);
	sbx_buf_init(&hub, SBX_BODY_MAX_BYTES);
	sbx_buf_init(&back, SBX_BODY_MAX_BYTES);
	assert_int_equal(sbx_json_check(bytes, n, &scratch, NULL), 0);
	if (sbx_anthropic_to_hub(SBX_OP_CHAT, (struct sbx_span){ bytes, n }, &hub, &fault))
		fail_msg("%s: to_hub: %s", id, fault.why);
	if (sbx_json_check((const char *)hub.data, hub.n, &scratch, NULL))
		fail_msg("%s: to_hub wrote no JSON: %.*s", id, (int)hub.n, (const char *)hub.data);
	if (sbx_anthropic_from_hub(SBX_OP_CHAT, (struct sbx_span){ (const char *)hub.data, hub.n }, &t, &back, &fault))
		fail_msg("%s: from_hub: %s", id, fault.why);
	json_t *is = json_loadb((const char *)back.data, back.n, JSON_REJECT_DUPLICATES, NULL);
	if (!is)
		fail_msg("%s: from_hub wrote no JSON: %.*s", id, (int)back.n, (const char *)back.data);
	review(was, is);
	if (!json_equal(was, is))
		fail_msg("%s:\n%s\n%s\n%.*s", id, json_dumps(was, JSON_SORT_KEYS), json_dumps(is, JSON_SORT_KEYS), (int)hub.n, (const char *)hub.data);
	json_decref(was);
	json_decref(is);
	sbx_buf_fini(&hub);
	sbx_buf_fini(&back);
	sbx_json_scratch_fini(&scratch);
}

/* ---- the folder ---- */

static char *
slurp(const char *folder, const char *id, const char *file, size_t *ret_n)
{
	char path[1024];
	(void)snprintf(path, sizeof path, "%s/%s/%s", folder, id, file);
	FILE *f = fopen(path, "rb");
	if (!f)
		return NULL;
	char *bytes = malloc(1 << 20);
	*ret_n = fread(bytes, 1, 1 << 20, f);
	assert_true(*ret_n < 1 << 20);
	(void)fclose(f);
	return bytes;
}

static void
try_case(const char *folder, const char *id, unsigned *n_answers, unsigned *n_requests, unsigned *n_cuts)
{
	size_t n = 0, complete_at = 0, cut_at = 0;
	char *bytes = slurp(folder, id, "meta.json", &n);
	if (!bytes)
		return;
	json_t *meta = json_loadb(bytes, n, 0, NULL);
	free(bytes);
	if (strcmp(json_string_value(json_object_get(meta, "dialect")), "anthropic") != 0) {
		json_decref(meta);
		return;
	}
	bytes = slurp(folder, id, "expected.json", &n);
	json_t *expected = json_loadb(bytes, n, 0, NULL);
	free(bytes);

	bool stream = json_is_true(json_object_get(meta, "stream"));
	int status = (int)json_integer_value(json_object_get(meta, "status"));
	bytes = slurp(folder, id, json_string_value(json_object_get(meta, "response_file")), &n);
	const size_t steps[] = { n, 1, 7 };
	struct got g;
	for (size_t i = 0; i < 3; i++) {
		decode(bytes, n, steps[i], status, stream, NULL, &g, i == 1 ? &complete_at : &cut_at);
		compare(id, &g, expected);
		got_fini(&g);
	}
	(*n_answers)++;
	if (status == 200)
		write_again(id, bytes, n, stream, expected);
	for (size_t cut = 0; stream && cut + 2 < complete_at; cut += 1 + n / 997) { /* two: the line ends behind the event itself */
		char *part = malloc(cut + 1); /* of its own, so that reading beyond it shows */
		memcpy(part, bytes, cut);
		decode(part, cut, cut + 1, status, stream, NULL, &g, &cut_at);
		if (g.complete)
			fail_msg("%s: a success when cut at %zu", id, cut);
		got_fini(&g);
		free(part);
		(*n_cuts)++;
	}
	free(bytes);
	bytes = slurp(folder, id, "request.json", &n);
	if (bytes) {
		there_and_back(id, bytes, n);
		(*n_requests)++;
	}
	free(bytes);
	json_decref(meta);
	json_decref(expected);
}

static void
recordings(void **state)
{
	const char *folder = getenv("SIGNALBOX_RECORDINGS");
	unsigned n_answers = 0, n_requests = 0, n_cuts = 0;
	(void)state;
	if (!folder)
		skip();
	DIR *dir = opendir(folder);
	assert_non_null(dir);
	for (struct dirent *entry; (entry = readdir(dir));)
		if (entry->d_name[0] != '.')
			try_case(folder, entry->d_name, &n_answers, &n_requests, &n_cuts);
	(void)closedir(dir);
	assert_true(n_answers > 0);
	print_message("%u answers, %u cuts of streams, %u requests there and back\n", n_answers, n_cuts, n_requests);
	for (size_t i = 0; i < sizeof reviewed / sizeof reviewed[0]; i++)
		print_message("  %u times %s: %s\n", differences[i], reviewed[i].what, reviewed[i].why);
}

int
main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(recordings) };
	return cmocka_run_group_tests(tests, NULL, NULL);
}
