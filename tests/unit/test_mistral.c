/* SPDX-License-Identifier: Apache-2.0 */
/* The dialect of Mistral's API: requests into it and out of it, what cannot be said in it, and its answers as the decoder of openai-chat
 * reads them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include <signalbox/errors.h>

#include "agent/dialect/mistral.h"

#define OK "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define CALL(id) "{\"id\":\"" id "\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}"

static int
from_hub(enum sbx_op op, const char *hub, bool stream, bool drop, struct sbx_buf *out, struct sbx_fault *fault)
{
	const struct sbx_translation t = { .model = "m", .stream = stream, .drop_params = drop };
	struct sbx_json_scratch scratch;
	sbx_json_scratch_init(&scratch);
	assert_int_equal(sbx_json_check(hub, strlen(hub), &scratch, NULL), 0);
	int rc = sbx_dialect_mistral.from_hub(op, sbx_span_of(hub), &t, out, fault);
	if (rc == 0)
		assert_int_equal(sbx_json_check((const char *)out->data, out->n, &scratch, NULL), 0);
	sbx_json_scratch_fini(&scratch);
	return rc;
}

static void
assert_text(const struct sbx_buf *out, const char *want)
{
	if (out->n != strlen(want) || memcmp(out->data, want, out->n) != 0)
		fail_msg("got  %.*s\nwant %s", (int)out->n, (const char *)out->data, want);
}

/* ---- from the hub's form ---- */

static const struct said {
	const char *hub, *want; /* both behind {"model":"m", */
} said[] = {
	{ OK, OK },
	{ OK ",\"max_completion_tokens\":5,\"max_tokens\":7", OK ",\"max_tokens\":5" },
	{ OK ",\"seed\":18446744073709551615,\"stop\":\"x\"", OK ",\"stop\":\"x\",\"random_seed\":18446744073709551615" },
	{ OK ",\"temperature\":0.70,\"n\":2,\"top_p\":1.0", OK ",\"temperature\":0.70,\"top_p\":1.0,\"n\":2" },
	{ OK ",\"temperature\":2", OK ",\"temperature\":1.5" },
	{ OK ",\"reasoning_effort\":\"low\"", OK ",\"reasoning_effort\":\"high\"" },
	{ OK ",\"reasoning_effort\":\"none\"", OK ",\"reasoning_effort\":\"none\"" },
	{ OK ",\"stream_options\":{\"include_usage\":true},\"user\":\"u\",\"store\":false,\"logprobs\":false,\"tools\":[]", OK },
	{ OK ",\"logit_bias\":{},\"modalities\":[\"text\"],\"service_tier\":\"auto\",\"verbosity\":null", OK },
	{ OK ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\",\"schema\":{}}}",
	  OK ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\",\"schema\":{}}}" },
	{ OK ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"tool_choice\":\"required\",\"parallel_tool_calls\":false",
	  OK ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\",\"properties\":{}}}}],"
	     "\"tool_choice\":\"any\",\"parallel_tool_calls\":false" },
	{ OK ",\"x_native\":{\"mistral\":{\"safe_prompt\":true}}", OK ",\"safe_prompt\":true" },
	{ "\"messages\":[{\"role\":\"developer\",\"content\":\"d\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
	  "{\"type\":\"image_url\",\"image_url\":{\"url\":\"http://x/y\"}},{\"type\":\"file\",\"file\":{\"file_data\":\"data:application/pdf;base64,"
	  "QQ==\",\"filename\":\"a.pdf\"}}]}]",
	  "\"messages\":[{\"role\":\"system\",\"content\":\"d\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
	  "{\"type\":\"image_url\",\"image_url\":{\"url\":\"http://x/y\"}},{\"type\":\"document_url\",\"document_url\":\"data:application/pdf;base64,"
	  "QQ==\",\"document_name\":\"a.pdf\"}]}]" },
	{ "\"messages\":[{\"role\":\"assistant\",\"content\":\"w\",\"reasoning_details\":[{\"type\":\"reasoning.text\",\"text\":\"t\",\"format\":"
	  "\"mistral-v1\",\"index\":0},{\"type\":\"reasoning.text\",\"text\":\"u\",\"signature\":\"s\",\"format\":\"anthropic-claude-v1\"}]}]",
	  "\"messages\":[{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":[{\"type\":\"text\",\"text\":\"t\"}]},"
	  "{\"type\":\"text\",\"text\":\"w\"}]}]" },
	/* an id of its own stays; any other becomes one of the form demanded, the same in both places */
	{ "\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[" CALL("abcDEF123") "]},{\"role\":\"tool\",\"content\":\"r\",\"tool_call_id\":"
	  "\"abcDEF123\",\"name\":\"f\",\"is_error\":false}]",
	  "\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[" CALL("abcDEF123") "]},{\"role\":\"tool\",\"content\":\"r\",\"tool_call_id\":"
	  "\"abcDEF123\",\"name\":\"f\"}]" },
};

static void
is_said(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof said / sizeof said[0]; i++) {
		struct sbx_buf out;
		struct sbx_fault fault;
		char hub[2048], want[2048];
		(void)snprintf(hub, sizeof hub, "{\"model\":\"theirs\",%s}", said[i].hub);
		(void)snprintf(want, sizeof want, "{\"model\":\"m\",%s}", said[i].want);
		sbx_buf_init(&out, 1 << 20);
		if (from_hub(SBX_OP_CHAT, hub, false, false, &out, &fault))
			fail_msg("%s: %s", hub, fault.why);
		assert_text(&out, want);
		sbx_buf_fini(&out);
	}
}

static void
asks_for_a_stream(void **state)
{
	struct sbx_buf out;
	struct sbx_fault fault;
	(void)state;
	sbx_buf_init(&out, 1 << 20);
	assert_int_equal(from_hub(SBX_OP_CHAT, "{" OK "}", true, false, &out, &fault), 0);
	assert_text(&out, "{\"model\":\"m\"," OK ",\"stream\":true}");
	sbx_buf_fini(&out);
}

static void
embeds(void **state)
{
	struct sbx_buf out;
	struct sbx_fault fault;
	(void)state;
	sbx_buf_init(&out, 1 << 20);
	assert_int_equal(from_hub(SBX_OP_EMBEDDINGS, "{\"model\":\"x\",\"input\":[\"a\",\"b\"],\"dimensions\":8,\"encoding_format\":\"base64\"}", false,
				  false, &out, &fault), 0);
	assert_text(&out, "{\"model\":\"m\",\"input\":[\"a\",\"b\"],\"output_dimension\":8}");
	assert_int_equal(from_hub(SBX_OP_COMPLETIONS, "{\"prompt\":\"x\"}", false, false, &out, &fault), -SBX_ESYNTAX);
	assert_true(fault.unsupported);
	sbx_buf_fini(&out);
}

/* ---- what cannot be said, or is wrong ---- */

static const struct refused {
	const char *hub, *param;
	bool unsupported;
} refused[] = {
	{ "{" OK ",\"logprobs\":true}", "logprobs", true },
	{ "{" OK ",\"logit_bias\":{\"1\":2}}", "logit_bias", true },
	{ "{" OK ",\"modalities\":[\"text\",\"audio\"]}", "modalities", true },
	{ "{" OK ",\"modalities\":[]}", "modalities", true },
	{ "{" OK ",\"top_k\":3}", "top_k", true },
	{ "{" OK ",\"tool_choice\":\"sometimes\"}", "tool_choice", true },
	{ "{" OK ",\"response_format\":{\"type\":\"grammar\"}}", "response_format.type", true },
	{ "{" OK ",\"x_native\":{\"anthropic\":{}}}", "x_native", true },
	{ "{" OK ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}},{\"type\":\"custom\"}]}", "tools[1].type", true },
	{ "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\",\"cache_control\":{\"type\":\"ephemeral\"}}]}]}",
	  "messages[0].content[0].cache_control", true },
	{ "{\"messages\":[{\"role\":\"user\",\"content\":\"a\",\"name\":\"n\"}]}", "messages[0].name", true },
	{ "{\"messages\":[{\"role\":\"function\",\"content\":\"a\"}]}", "messages[0].role", true },
	{ "{\"messages\":[{\"role\":\"tool\",\"content\":\"a\",\"tool_call_id\":\"123456789\",\"is_error\":true}]}", "messages[0].is_error", true },
	{ "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"video\"}]}]}", "messages[0].content[0].type", true },
	{ "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"type\":\"custom\",\"id\":\"1\"}]}]}", "messages[0].tool_calls[0].type", true },
	{ "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"type\":\"function\"}]}]}", "messages[0].tool_calls[0].id", false },
	{ "{\"messages\":[{\"role\":\"tool\",\"content\":\"a\"}]}", "messages[0].tool_call_id", false },
	{ "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"file\",\"file\":{}}]}]}", "messages[0].content[0].file.file_data", false },
	{ "{" OK ",\"x_native\":{\"mistral\":{\"model\":\"other\"}}}", "x_native", false }, /* a body that says two things */
};

static void
is_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
		struct sbx_buf out;
		struct sbx_fault fault = { .unsupported = false };
		sbx_buf_init(&out, 1 << 20);
		if (from_hub(SBX_OP_CHAT, refused[i].hub, false, false, &out, &fault) != -SBX_ESYNTAX)
			fail_msg("%s: taken", refused[i].hub);
		assert_string_equal(fault.param, refused[i].param);
		assert_int_equal(fault.unsupported, refused[i].unsupported);
		assert_non_null(strstr(fault.why, fault.param));
		/* what is only not to be said may be left out; what is wrong stays so */
		sbx_buf_clear(&out);
		assert_int_equal(from_hub(SBX_OP_CHAT, refused[i].hub, false, true, &out, &fault), refused[i].unsupported ? 0 : -SBX_ESYNTAX);
		sbx_buf_fini(&out);
	}
}

static void
makes_ids(void **state)
{
	static const char hub[] = "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[" CALL("call_a") "," CALL("call_b") "]},"
				  "{\"role\":\"tool\",\"tool_call_id\":\"call_a\",\"content\":\"\"}]}";
	struct sbx_buf out;
	struct sbx_fault fault;
	char id[3][10];
	const char *at;
	(void)state;
	sbx_buf_init(&out, 1 << 20);
	assert_int_equal(from_hub(SBX_OP_CHAT, hub, false, false, &out, &fault), 0);
	assert_int_equal(sbx_buf_append(&out, "", 1), 0);
	at = (const char *)out.data;
	for (int i = 0; i < 3; i++) {
		at = strstr(at, i < 2 ? "\"id\":\"" : "\"tool_call_id\":\"") + (i < 2 ? 6 : 16);
		memcpy(id[i], at, 9);
		id[i][9] = '\0';
		assert_int_equal(at[9], '"');
		assert_int_equal(strspn(id[i], "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"), 9);
	}
	assert_string_equal(id[0], id[2]);
	assert_string_not_equal(id[0], id[1]);
	sbx_buf_fini(&out);
}

/* ---- there and back ---- */

static const char *const whole[] = {
	"{\"model\":\"m\"," OK ",\"max_tokens\":3,\"random_seed\":1,\"safe_prompt\":true,\"tool_choice\":\"any\",\"prompt_mode\":\"reasoning\"}",
	"{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":[{\"type\":\"text\",\"text\":\"a\"}]},"
	"{\"type\":\"text\",\"text\":\"b\"},{\"type\":\"thinking\",\"thinking\":[{\"type\":\"text\",\"text\":\"late\"}]},"
	"{\"type\":\"reference\",\"reference_ids\":[1]}],\"prefix\":true}]}",
	"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_audio\",\"input_audio\":\"QUJD\"},{\"type\":\"document_url\","
	"\"document_url\":\"https://x/a.pdf\"},{\"type\":\"file\",\"file_id\":\"f\"}]}]}",
	"{\"model\":\"m\",\"messages\":[{\"role\":\"critic\",\"content\":\"c\"}],\"tools\":[{\"type\":\"web_search\"}]}",
};

static void
comes_back(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++) {
		struct sbx_buf hub, again, hub_again;
		struct sbx_fault fault;
		sbx_buf_init(&hub, 1 << 20);
		sbx_buf_init(&again, 1 << 20);
		sbx_buf_init(&hub_again, 1 << 20);
		assert_int_equal(sbx_dialect_mistral.to_hub(SBX_OP_CHAT, sbx_span_of(whole[i]), &hub, &fault), 0);
		assert_int_equal(sbx_buf_append(&hub, "", 1), 0);
		if (from_hub(SBX_OP_CHAT, (const char *)hub.data, false, false, &again, &fault))
			fail_msg("%s: %s", (const char *)hub.data, fault.why);
		if (again.n != strlen(whole[i])) /* members stand in another order; none is lost */
			fail_msg("%.*s\nwas %s", (int)again.n, (const char *)again.data, whole[i]);
		sbx_buf_fini(&hub);
		sbx_buf_fini(&again);
		sbx_buf_fini(&hub_again);
	}
}

/* ---- answers ---- */

struct heard {
	struct sbx_buf log;
	bool complete;
};

static void
hear(void *arg, const struct sbx_hub_event *ev)
{
	struct heard *h = arg;
	h->complete |= ev->kind == SBX_HUB_COMPLETE;
	if (ev->kind == SBX_HUB_TEXT)
		(void)sbx_buf_printf(&h->log, "T(%.*s)", (int)ev->text.n, ev->text.at);
	else if (ev->kind == SBX_HUB_REASONING)
		(void)sbx_buf_printf(&h->log, "R(%.*s)", (int)ev->text.n, ev->text.at);
	else if (ev->kind == SBX_HUB_TOOL_CALL)
		(void)sbx_buf_printf(&h->log, "C%u(%.*s)", ev->index, (int)ev->text.n, ev->text.at);
	else if (ev->kind == SBX_HUB_FINISH)
		(void)sbx_buf_printf(&h->log, "F(%s)", sbx_finish_word(ev->finish));
	else if (ev->kind == SBX_HUB_USAGE)
		(void)sbx_buf_printf(&h->log, "U(%lld,%lld)", (long long)ev->usage->prompt_tokens, (long long)ev->usage->cached_tokens);
	else if (ev->kind == SBX_HUB_ERROR)
		(void)sbx_buf_printf(&h->log, "E(%d,%s)", (int)ev->error->kind, ev->error->message);
}

static const struct answer {
	const char *bytes, *want;
	int status;
	bool stream;
} answers[] = {
	{ "data: {\"p\":\"abc\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":[{\"type\":"
	  "\"text\",\"text\":\"hm\"}]}]},\"finish_reason\":null}]}\n\n"
	  "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"},\"finish_reason\":null}]}\n\n"
	  "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\",\"tool_calls\":[{\"id\":\"a12345678\",\"function\":{\"name\":\"f\",\"arguments\":"
	  "\"{}\"}}]},\"finish_reason\":\"tool_calls\"}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1,\"num_cached_tokens\":4}}\n\n"
	  "data: [DONE]\n\n", "R(hm)T(hi)C0({})F(tool_calls)U(9,4)", 200, true },
	{ "{\"choices\":[{\"index\":0,\"message\":{\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"reference\",\"reference_ids\":[1]},"
	  "{\"type\":\"text\",\"text\":\"b\"}]},\"finish_reason\":\"model_length\"}]}", "T(a)T(b)F(length)", 200, false },
	{ "{\"choices\":[{\"index\":0,\"message\":{\"content\":\"a\"},\"finish_reason\":\"error\"}]}", NULL, 200, false },
	{ "{\"detail\":\"Invalid API Key\"}", "E(4,Invalid API Key)", 401, false },
	{ "{\"object\":\"error\",\"message\":{\"detail\":[{\"type\":\"extra_forbidden\",\"msg\":\"not permitted\"}]},\"type\":\"invalid_request_error\"}",
	  "E(1,not permitted)", 422, false },
	{ "{\"object\":\"error\",\"message\":\"Requests rate limit exceeded\",\"type\":\"rate_limited\",\"code\":\"1300\"}",
	  "E(7,Requests rate limit exceeded)", 429, false },
	/* its words are those of a bad request, but they do not count on a 429 */
	{ "{\"object\":\"error\",\"message\":\"Service tier capacity exceeded\",\"type\":\"invalid_request_error\",\"code\":\"3505\"}",
	  "E(0,Service tier capacity exceeded)", 429, false },
};

static void
answers_are_read(void **state)
{
	const struct sbx_dialect *m = &sbx_dialect_mistral;
	(void)state;
	for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
		const struct answer *a = &answers[i];
		const size_t n = strlen(a->bytes);
		for (size_t cut = 0; cut <= n; cut++) { /* fed in two pieces; and the first alone is no success before the finish */
			const struct sbx_decode_opts opts = { .op = SBX_OP_CHAT, .choices = 1, .stream = a->stream, .want_text = true };
			struct sbx_json_scratch scratch;
			struct heard h = { .complete = false };
			sbx_json_scratch_init(&scratch);
			sbx_buf_init(&h.log, 1 << 16);
			struct sbx_decoder *d = m->decoder_new(&opts, &scratch, hear, &h);
			m->decoder_head(d, a->status, "");
			m->decoder_feed(d, a->bytes, cut);
			m->decoder_feed(d, a->bytes + cut, n - cut);
			m->decoder_end(d);
			m->decoder_free(d);
			if (a->want)
				assert_text(&h.log, a->want);
			else
				assert_memory_equal(h.log.data, "T(a)E(", 6);
			assert_int_equal(h.complete, a->status == 200 && a->want);
			sbx_buf_fini(&h.log);
			sbx_json_scratch_fini(&scratch);
		}
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(is_said),       cmocka_unit_test(asks_for_a_stream), cmocka_unit_test(embeds), cmocka_unit_test(is_refused),
		cmocka_unit_test(makes_ids),     cmocka_unit_test(comes_back),        cmocka_unit_test(answers_are_read),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
