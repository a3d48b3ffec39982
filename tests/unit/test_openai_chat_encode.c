/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_openai_chat_encode.c -- hub events written as an answer: what the decoder of the same dialect reads out of it is what went in.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <string.h>

#include <signalbox/errors.h>

#include "agent/dialect/openai_chat.h"

static const struct sbx_usage usage = { 20, 9, 29, 8, 4, 3, false, false };

#define TEXT(c, t)    { .kind = SBX_HUB_TEXT, .choice = c, .text = { t, sizeof t - 1 } }
#define THINK(t)      { .kind = SBX_HUB_REASONING, .text = { t, sizeof t - 1 } }
#define CALL(i, id_, name_, t) { .kind = SBX_HUB_TOOL_CALL, .index = i, .id = { id_, sizeof id_ - 1 }, .name = { name_, sizeof name_ - 1 }, .text = { t, sizeof t - 1 } }
#define FINISH(c, f)  { .kind = SBX_HUB_FINISH, .choice = c, .finish = f }
#define USAGE         { .kind = SBX_HUB_USAGE, .usage = &usage }

struct answer {
	const char *what;
	uint32_t choices;
	struct sbx_hub_event event[12];
	size_t n;
	const char *sum;           /* what the decoder says of it: see on_event() */
};
static const struct answer answers[] = {
	{ "text, thought about", 1, { THINK("hm"), TEXT(0, "Two \"quoted\"\n"), TEXT(0, "l\xc3\xadnes"), FINISH(0, SBX_FINISH_STOP), USAGE }, 5,
	  "[0 thinks hm][0 says Two \"quoted\"\nl\xc3\xadnes][0 ends stop]" },
	{ "two calls, in pieces", 1, { CALL(0, "call_1", "sum", ""), CALL(0, "", "", "{\"a\":"), CALL(0, "", "", "1}"), CALL(1, "call_2", "now", "{}"), FINISH(0, SBX_FINISH_TOOL_CALLS), USAGE }, 6,
	  "[0 calls 0 call_1 sum {\"a\":1}][0 calls 1 call_2 now {}][0 ends tool_calls]" },
	{ "two choices that mix", 2, { TEXT(1, "B"), TEXT(0, "A"), TEXT(1, "b"), FINISH(0, SBX_FINISH_LENGTH), FINISH(1, SBX_FINISH_STOP), USAGE }, 6,
	  "[0 says A][0 ends length][1 says Bb][1 ends stop]" },
	{ "a refusal", 1, { { .kind = SBX_HUB_REFUSAL, .text = { "no", 2 } }, FINISH(0, SBX_FINISH_CONTENT_FILTER), USAGE }, 3, "[0 refuses no][0 ends content_filter]" },
	{ "an unknown end", 1, { TEXT(0, "x"), FINISH(0, SBX_FINISH_OTHER), USAGE }, 3, "[0 says x][0 ends stop]" },
};

/* ---- what the decoder says, in order of choices and calls ---- */

struct heard {
	char text[2][256], reasoning[2][256], refusal[2][256], call[2][4][256];
	enum sbx_finish finish[2];
	struct sbx_usage usage;
	bool complete, error;
};

static void
add(char *to, size_t cap, struct sbx_span s)
{
	const size_t at = strlen(to);
	(void)snprintf(to + at, cap - at, "%.*s", (int)s.n, s.n ? s.at : "");
}

static void
on_event(void *arg, const struct sbx_hub_event *ev)
{
	struct heard *h = arg;
	const uint32_t c = ev->choice < 2 ? ev->choice : 1;
	switch (ev->kind) {
	case SBX_HUB_TEXT: add(h->text[c], sizeof h->text[c], ev->text); break;
	case SBX_HUB_REASONING: add(h->reasoning[c], sizeof h->reasoning[c], ev->text); break;
	case SBX_HUB_REFUSAL: add(h->refusal[c], sizeof h->refusal[c], ev->text); break;
	case SBX_HUB_TOOL_CALL:
		assert_true(ev->index < 4);
		if (ev->id.n) {
			add(h->call[c][ev->index], 256, ev->id);
			add(h->call[c][ev->index], 256, SBX_SPAN(" "));
			add(h->call[c][ev->index], 256, ev->name);
			add(h->call[c][ev->index], 256, SBX_SPAN(" "));
		}
		add(h->call[c][ev->index], 256, ev->text);
		break;
	case SBX_HUB_FINISH: h->finish[c] = ev->finish; break;
	case SBX_HUB_USAGE: h->usage = *ev->usage; break;
	case SBX_HUB_COMPLETE: h->complete = true; break;
	case SBX_HUB_ERROR: h->error = true; break;
	default: break;
	}
}

static void
sum_up(const struct heard *h, uint32_t choices, char *to, size_t cap)
{
	size_t n = 0;
	*to = '\0';
#define SAY(...) (n += (size_t)snprintf(to + n, cap - n, __VA_ARGS__))
	for (uint32_t c = 0; c < choices; c++) {
		if (h->reasoning[c][0]) SAY("[%u thinks %s]", c, h->reasoning[c]);
		if (h->text[c][0]) SAY("[%u says %s]", c, h->text[c]);
		if (h->refusal[c][0]) SAY("[%u refuses %s]", c, h->refusal[c]);
		for (int i = 0; i < 4; i++)
			if (h->call[c][i][0]) SAY("[%u calls %d %s]", c, i, h->call[c][i]);
		if (h->finish[c]) SAY("[%u ends %s]", c, sbx_finish_word(h->finish[c]));
	}
#undef SAY
}

static void
encode(const struct answer *a, bool stream, bool include_usage, struct sbx_buf *out)
{
	const struct sbx_encode_opts opts = { .stream = stream, .include_usage = include_usage, .model = "m\"1", .id = "chatcmpl-1", .created_unix_s = 1700000000 };
	struct sbx_encoder *e = sbx_dialect_openai_chat.encoder_new(&opts, out);
	assert_non_null(e);
	for (size_t i = 0; i < a->n; i++)
		assert_int_equal(sbx_dialect_openai_chat.encoder_event(e, &a->event[i]), 0);
	assert_int_equal(sbx_dialect_openai_chat.encoder_end(e), 0);
	sbx_dialect_openai_chat.encoder_free(e);
}

static void
decode(const struct sbx_buf *b, uint32_t choices, bool stream, struct heard *ret)
{
	const struct sbx_decode_opts opts = { .choices = choices, .stream = stream, .want_text = true };
	struct sbx_json_scratch scratch;
	sbx_json_scratch_init(&scratch);
	struct sbx_decoder *d = sbx_dialect_openai_chat.decoder_new(&opts, &scratch, on_event, ret);
	assert_non_null(d);
	memset(ret, 0, sizeof *ret);
	sbx_dialect_openai_chat.decoder_head(d, 200, stream ? "text/event-stream" : "application/json");
	sbx_dialect_openai_chat.decoder_feed(d, (const char *)b->data, b->n);
	sbx_dialect_openai_chat.decoder_end(d);
	assert_int_equal(sbx_dialect_openai_chat.decoder_malformed(d), 0);
	sbx_dialect_openai_chat.decoder_free(d);
	sbx_json_scratch_fini(&scratch);
}

static void
assert_usage(const struct sbx_usage *u)
{
	assert_int_equal(u->prompt_tokens, usage.prompt_tokens);
	assert_int_equal(u->completion_tokens, usage.completion_tokens);
	assert_int_equal(u->total_tokens, usage.total_tokens);
	assert_int_equal(u->cached_tokens, usage.cached_tokens);
	assert_int_equal(u->cache_write_tokens, usage.cache_write_tokens);
	assert_int_equal(u->reasoning_tokens, usage.reasoning_tokens);
	assert_false(u->clamped || u->estimated);
}

static void
what_is_written_is_read_again(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
		for (int stream = 0; stream < 2; stream++) {
			struct sbx_buf out;
			struct heard h;
			char sum[2048];
			print_message("  %s, %s\n", answers[i].what, stream ? "streamed" : "whole");
			sbx_buf_init(&out, 1 << 20);
			encode(&answers[i], stream, true, &out);
			decode(&out, answers[i].choices, stream, &h);
			sum_up(&h, answers[i].choices, sum, sizeof sum);
			assert_string_equal(sum, answers[i].sum);
			assert_true(h.complete && !h.error);
			assert_usage(&h.usage);
			sbx_buf_fini(&out);
		}
	}
}

static bool
holds(const struct sbx_buf *b, const char *what)
{
	return memmem(b->data, b->n, what, strlen(what)) != NULL;
}

/* What a client's SDK relies on, beyond what our own decoder does. */
static void
the_form_is_that_of_the_api(void **state)
{
	(void)state;
	struct sbx_buf out;
	sbx_buf_init(&out, 1 << 20);
	encode(&answers[1], true, false, &out);
	assert_false(holds(&out, "usage"));
	assert_true(holds(&out, "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"m\\\"1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n"));
	assert_true(holds(&out, "{\"tool_calls\":[{\"index\":0,\"id\":\"call_1\",\"type\":\"function\",\"function\":{\"name\":\"sum\",\"arguments\":\"\"}}]}"));
	assert_true(holds(&out, "{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"1}\"}}]}"));
	assert_true(holds(&out, "\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n"));
	assert_memory_equal(out.data + out.n - 14, "data: [DONE]\n\n", 14);
	sbx_buf_clear(&out);
	encode(&answers[1], false, false, &out);
	assert_true(holds(&out, "\"message\":{\"role\":\"assistant\",\"content\":null,\"refusal\":null,\"tool_calls\":[{\"id\":\"call_1\",\"type\":\"function\",\"function\":{\"name\":\"sum\",\"arguments\":\"{\\\"a\\\":1}\"}}"));
	assert_true(holds(&out, "\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":9,\"total_tokens\":29,\"prompt_tokens_details\":{\"cached_tokens\":8,\"cache_write_tokens\":4},\"completion_tokens_details\":{\"reasoning_tokens\":3}}"));
	sbx_buf_fini(&out);
}

static void
details_go_to_their_choice(void **state)
{
	(void)state;
	static const struct answer a = { "details", 1, { THINK("hm"), { .kind = SBX_HUB_DETAIL, .text = { "{\"n\":1}", 7 } }, { .kind = SBX_HUB_DETAIL, .text = { "{\"n\":2}", 7 } }, TEXT(0, "x"), FINISH(0, SBX_FINISH_STOP) }, 5, "" };
	struct sbx_buf out;
	sbx_buf_init(&out, 1 << 20);
	encode(&a, true, true, &out);
	assert_true(holds(&out, "\"delta\":{\"reasoning_details\":[{\"n\":2}]}"));
	assert_false(holds(&out, "usage")); /* none was given: there is nothing to say */
	sbx_buf_clear(&out);
	encode(&a, false, true, &out);
	assert_true(holds(&out, "\"reasoning\":\"hm\",\"reasoning_details\":[{\"n\":1},{\"n\":2}]}"));
	sbx_buf_fini(&out);
}

static void
a_limit_is_an_answer(void **state)
{
	(void)state;
	for (size_t max = 0; max < 400; max += 7) {
		const struct sbx_encode_opts opts = { .stream = max % 2, .model = "m", .id = "i" };
		struct sbx_buf out;
		int rc = 0;
		sbx_buf_init(&out, max);
		struct sbx_encoder *e = sbx_dialect_openai_chat.encoder_new(&opts, &out);
		assert_non_null(e);
		for (size_t i = 0; i < answers[1].n && rc == 0; i++)
			rc = sbx_dialect_openai_chat.encoder_event(e, &answers[1].event[i]);
		if (rc == 0)
			rc = sbx_dialect_openai_chat.encoder_end(e);
		assert_int_equal(rc, -SBX_ETOOBIG);
		assert_int_equal(sbx_dialect_openai_chat.encoder_end(e), rc); /* it stays so */
		sbx_dialect_openai_chat.encoder_free(e);
		sbx_buf_fini(&out);
	}
	struct sbx_buf out;
	const struct sbx_hub_event far = TEXT(SBX_CHOICES_MAX, "x");
	const struct sbx_encode_opts opts = { .model = "m", .id = "i" };
	sbx_buf_init(&out, 1000);
	struct sbx_encoder *e = sbx_dialect_openai_chat.encoder_new(&opts, &out);
	assert_int_equal(sbx_dialect_openai_chat.encoder_event(e, &far), -SBX_ETOOBIG);
	sbx_dialect_openai_chat.encoder_free(e);
	sbx_buf_fini(&out);
}

/* As the other form, and back; what is no embedding is said to be none. */
static void
vectors_in_both_forms(void **state)
{
	(void)state;
	static const struct {
		const char *vector, *list, *base64; /* NULL = it is no embedding */
	} rows[] = {
		{ "[0, 1,-2.5]", "[0, 1,-2.5]", "\"AAAAAAAAgD8AACDA\"" },
		{ "[0.1]", "[0.1]", "\"zczMPQ==\"" },
		{ "[1e-3,0.25]", "[1e-3,0.25]", "\"bxKDOgAAgD4=\"" },
		{ "\"zczMPQ==\"", "[0.100000001]", "\"zczMPQ==\"" },
		{ "\"AAAAAAAAgD8AACDA\"", "[0,1,-2.5]", "\"AAAAAAAAgD8AACDA\"" },
		{ "\"\\/\\/9\\/fw==\"", "[3.40282347e+38]", NULL }, /* escapes, as some write a slash */
		{ "\"zczM\"", NULL, NULL },         /* three bytes */
		{ "\"AADAfw==\"", NULL, NULL },     /* not a number */
		{ "\"z-zMPQ==\"", NULL, NULL },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		for (int base64 = 0; base64 < 2; base64++) {
			const char *want = base64 ? rows[i].base64 : rows[i].list;
			const struct sbx_encode_opts opts = { .op = SBX_OP_EMBEDDINGS, .base64 = base64, .model = "m" };
			const struct sbx_hub_event ev = { .kind = SBX_HUB_VECTOR, .index = 3, .text = sbx_span_of(rows[i].vector) }, told = USAGE;
			struct sbx_buf out;
			char body[256];
			sbx_buf_init(&out, 4096);
			struct sbx_encoder *e = sbx_dialect_openai_chat.encoder_new(&opts, &out);
			int rc = sbx_dialect_openai_chat.encoder_event(e, &ev);
			if (want || !base64) {
				assert_int_equal(rc, want ? 0 : -SBX_ESYNTAX);
				assert_int_equal(sbx_dialect_openai_chat.encoder_event(e, &told), rc);
				assert_int_equal(sbx_dialect_openai_chat.encoder_end(e), rc);
			}
			(void)snprintf(body, sizeof body, "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":3,\"embedding\":%s}],\"model\":\"m\","
			               "\"usage\":{\"prompt_tokens\":20,\"total_tokens\":20}}", want ? want : "");
			if (want)
				assert_true(out.n == strlen(body) && memcmp(out.data, body, out.n) == 0);
			sbx_dialect_openai_chat.encoder_free(e);
			sbx_buf_fini(&out);
		}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_is_read_again),
		cmocka_unit_test(the_form_is_that_of_the_api),
		cmocka_unit_test(details_go_to_their_choice),
		cmocka_unit_test(a_limit_is_an_answer),
		cmocka_unit_test(vectors_in_both_forms),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
