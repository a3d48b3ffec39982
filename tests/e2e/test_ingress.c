/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_ingress.c -- what a door for other protocols needs of the agent: every operation, and bodies that speak for themselves.
 */
#include "tests/e2e/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define EMBED "{\"model\":\"%s\",\"input\":[\"one\",\"two\"]%s}"
#define PROMPT "{\"model\":\"r\",\"prompt\":\"Once\",\"stream\":true,\"stream_options\":{\"include_usage\":true}}"

/* What came of one request: its first event, its bytes, and its end. */
struct heard {
	bool accepted, streamed;
	char data[65536];
	size_t n;
	bool ok;
	int status;
	char code[32], target[128], message[512];
	int64_t cost_nanousd;
	uint32_t attempts;
};

static void
hear(struct sbx_client *c, const struct sbx_request_options *o, struct heard *h)
{
	struct sbx_event ev;
	uint64_t id;
	memset(h, 0, sizeof *h);
	assert_int_equal(sbx_submit(c, o, &id), 0);
	for (;;) {
		int rc = sbx_next(c, 15000, &ev);
		if (rc)
			fail_msg("%d: %s", rc, sbx_client_error(c));
		if (ev.note == SBX_NOTE_ACCEPTED) {
			h->accepted = true;
			h->streamed = ev.streamed;
		} else if (ev.note == SBX_NOTE_DATA) {
			assert_true(h->n + ev.text_bytes < sizeof h->data);
			memcpy(h->data + h->n, ev.text, ev.text_bytes);
			h->n += ev.text_bytes;
		}
		if (!ev.last)
			continue;
		h->ok = sbx_reply_ok(ev.reply);
		h->status = sbx_reply_status(ev.reply);
		(void)snprintf(h->code, sizeof h->code, "%s", sbx_reply_code_word(ev.reply));
		(void)snprintf(h->target, sizeof h->target, "%s", sbx_reply_target(ev.reply));
		(void)snprintf(h->message, sizeof h->message, "%s", sbx_reply_message(ev.reply));
		h->cost_nanousd = sbx_reply_cost_nanousd(ev.reply);
		h->attempts = sbx_reply_attempts(ev.reply);
		if (!h->ok)
			(void)snprintf(h->data, sizeof h->data, "%s", sbx_reply_data(ev.reply, &h->n));
		return;
	}
}

/* As a door hands it over: the body says everything. */
static void
http(struct sbx_client *c, const char *operation, const char *body, struct heard *h)
{
	struct sbx_request_options o = SBX_REQUEST_INIT;
	o.operation = operation;
	o.as_http = true;
	o.body = body;
	o.body_bytes = strlen(body);
	hear(c, &o, h);
}

#define ASSERT_OK(h)                                                                                                           \
	do {                                                                                                                   \
		if (!(h)->ok)                                                                                                  \
			fail_msg("%s: %s", (h)->code, (h)->message);                                                           \
	} while (0)

/* ---- operations ---- */

static void
embeddings_pass_through_fail_over_and_have_their_price(void **state)
{
	(void)state;
	static const char prices[] = "{\"models\":[{\"model\":\"b/e\",\"prices\":[{\"from\":\"2020-01-01\",\"source\":\"s\",\"read_on\":\"2020-01-01\","
	                             "\"input_cost_per_token\":2e-8}]}]}";
	struct world w;
	struct heard h;
	char path[256], body[256];
	world_up(&w);
	world_double(&w, "a", (const char *[]){ "--rule", "*: status=503", NULL });
	world_double(&w, "b", (const char *[]){ "--rule", "e: prompt-tokens=1001", NULL });
	(void)snprintf(path, sizeof path, "%s/prices.json", w.dir);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	(void)fputs(prices, f);
	assert_int_equal(fclose(f), 0);
	world_agent(&w, "{\"catalog\":\"$DIR/prices.json\",\"providers\":{\"a\":{\"base_url\":\"$0\",\"key\":\"$KEY\"},\"b\":{\"base_url\":\"$1\",\"key\":\"$KEY\"}},"
	            "\"routes\":{\"r\":{\"targets\":[\"a/e\",\"b/e\"]}}}", NULL);
	struct sbx_client *c = client_up(&w);
	(void)snprintf(body, sizeof body, EMBED, "r", "");
	http(c, "embeddings", body, &h);
	ASSERT_OK(&h);
	assert_true(h.accepted && !h.streamed);
	assert_string_equal(h.target, "b/e");
	assert_int_equal(h.attempts, 2);
	assert_int_equal(h.cost_nanousd, 1001 * 20);
	assert_non_null(strstr(h.data, "\"embedding\":[0.000,0.101,"));
	assert_non_null(strstr(h.data, "\"index\":1,\"embedding\":[0.037,"));
	char *sent = double_log_string(&w, 1, 0, "path");
	assert_string_equal(sent, "/v1/embeddings");
	free(sent);
	/* base64, as the SDK asks for it: untouched */
	(void)snprintf(body, sizeof body, EMBED, "b/e", ",\"encoding_format\":\"base64\",\"dimensions\":2");
	http(c, "embeddings", body, &h);
	ASSERT_OK(&h);
	assert_non_null(strstr(h.data, "\"embedding\":\"AAAAABfZzj0=\"")); /* 0, 0.101 */
	/* whoever asks by the library's own call */
	struct sbx_request_options o = SBX_REQUEST_INIT;
	struct sbx_reply *r;
	o.operation = "embeddings";
	o.data = true;
	o.body = body;
	o.body_bytes = strlen(body);
	assert_int_equal(sbx_ask(c, &o, &r), 0);
	assert_non_null(strstr(sbx_reply_data(r, NULL), "AAAAABfZzj0="));
	sbx_reply_free(r);
	/* what cannot be: a stream of them, and nothing to embed */
	http(c, "embeddings", "{\"model\":\"r\",\"input\":\"x\",\"stream\":true}", &h);
	assert_int_equal(h.status, 400);
	http(c, "embeddings", "{\"model\":\"r\",\"input\":[]}", &h);
	assert_int_equal(h.status, 400);
	assert_non_null(strstr(h.message, "input must"));
	sbx_close(c);
	world_down(&w);
}

static void
completions_stream_fail_over_and_are_held_back(void **state)
{
	(void)state;
	struct world w;
	struct heard h;
	world_simple(&w, 2, (const char *const[]){ "*: error-first", NULL }, NULL);
	struct sbx_client *c = client_up(&w);
	http(c, "completions", PROMPT, &h);
	ASSERT_OK(&h);
	assert_true(h.streamed);
	assert_string_equal(h.target, "b/m");
	assert_int_equal(h.attempts, 2);
	assert_null(strstr(h.data, "error")); /* the failed one was never seen */
	assert_non_null(strstr(h.data, "\"object\":\"text_completion\""));
	assert_non_null(strstr(h.data, "\"text\":\"hello\""));
	assert_non_null(strstr(h.data, "\"usage\":{\"prompt_tokens\""));
	assert_string_equal(h.data + h.n - 14, "data: [DONE]\n\n");
	http(c, "completions", "{\"model\":\"r\",\"prompt\":[\"a\",\"b\"],\"n\":2}", &h);
	ASSERT_OK(&h);
	assert_true(!h.streamed && strstr(h.data, "\"index\":3,\"text\":\"hello"));
	/* typed events, by the library */
	struct sbx_request_options o = SBX_REQUEST_INIT;
	struct sbx_reply *r;
	o.operation = "completions";
	o.model = "b/m";
	o.stream = true;
	o.body = "{\"prompt\":\"Once\"}";
	o.body_bytes = strlen(o.body);
	assert_int_equal(sbx_ask(c, &o, &r), 0);
	assert_string_equal(sbx_reply_text(r, 0, NULL), "hello from b");
	assert_string_equal(sbx_reply_finish(r, 0), "stop");
	sbx_reply_free(r);
	/* cut in the middle, and nobody to take it back: an error, and no end mark */
	double_rules(&w, 0, "*: cut-tokens=2");
	double_rules(&w, 1, "*: cut-tokens=2");
	http(c, "completions", PROMPT, &h);
	assert_string_equal(h.code, "stream_broken");
	sbx_close(c);
	world_down(&w);
}

static void
who_lacks_an_operation_is_not_asked_for_it(void **state)
{
	(void)state;
	struct world w;
	struct heard h;
	char body[256];
	world_up(&w);
	world_double(&w, "a", NULL);
	world_double(&w, "b", NULL);
	world_agent(&w, "{\"providers\":{\"a\":{\"base_url\":\"$0\",\"key\":\"$KEY\",\"operations\":[\"chat\"]},\"b\":{\"base_url\":\"$1\",\"key\":\"$KEY\"}},"
	            "\"routes\":{\"r\":{\"targets\":[\"a/m\",\"b/m\"]},\"s\":{\"targets\":[\"a/m\"]}}}", NULL);
	struct sbx_client *c = client_up(&w);
	(void)snprintf(body, sizeof body, EMBED, "r", "");
	http(c, "embeddings", body, &h);
	ASSERT_OK(&h);
	assert_string_equal(h.target, "b/m");
	assert_int_equal(h.attempts, 1);
	(void)snprintf(body, sizeof body, EMBED, "m", ""); /* every provider that has it */
	http(c, "embeddings", body, &h);
	ASSERT_OK(&h);
	assert_string_equal(h.target, "b/m");
	(void)snprintf(body, sizeof body, EMBED, "s", "");
	http(c, "embeddings", body, &h);
	assert_string_equal(h.code, "unsupported");
	assert_non_null(strstr(h.message, "no target of \"s\" does embeddings"));
	(void)snprintf(body, sizeof body, EMBED, "a/m", "");
	http(c, "embeddings", body, &h);
	assert_string_equal(h.code, "unsupported");
	assert_int_equal(double_requests(&w, 0), 0);
	/* that it has no such model for completions is no reason to pass it over for chats */
	double_rules(&w, 1, "*: status=404");
	http(c, "completions", "{\"model\":\"b/m\",\"prompt\":\"x\"}", &h);
	assert_int_equal(h.status, 404);
	double_rules(&w, 1, "");
	struct sbx_reply *r = ask_body(c, NULL, "b/m", BODY, false, 10000);
	assert_true(sbx_reply_ok(r));
	sbx_reply_free(r);
	struct sbx_event ev;
	uint64_t id;
	const char *standing = "";
	assert_int_equal(sbx_stats(c, &id), 0);
	do
		assert_int_equal(sbx_next(c, 5000, &ev), 0);
	while (!ev.last);
	assert_true(sbx_reply_string(ev.reply, "target.b/m.state", &standing));
	assert_string_equal(standing, "up");
	sbx_close(c);
	world_down(&w);
}

/* ---- bodies that speak for themselves ---- */

static void
the_body_decides_whether_it_is_a_stream(void **state)
{
	(void)state;
	struct world w;
	struct heard h;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	http(c, NULL, "{\"model\":\"r\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"stream\":true}", &h);
	ASSERT_OK(&h);
	assert_true(h.streamed && strncmp(h.data, "data: ", 6) == 0 && !strstr(h.data, "\"usage\":{"));
	http(c, NULL, "{\"model\":\"r\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}", &h);
	ASSERT_OK(&h);
	assert_true(!h.streamed && h.data[0] == '{');
	sbx_close(c);
	world_down(&w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(embeddings_pass_through_fail_over_and_have_their_price),
		cmocka_unit_test(completions_stream_fail_over_and_are_held_back),
		cmocka_unit_test(who_lacks_an_operation_is_not_asked_for_it),
		cmocka_unit_test(the_body_decides_whether_it_is_a_stream),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
