/* SPDX-License-Identifier: Apache-2.0 */
/* Answers in Anthropic's dialect: events of each rule, however the bytes are cut, and no success before the terminal event. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include <signalbox/errors.h>

#include "agent/dialect/anthropic.h"

static struct sbx_json_scratch scratch;
static const struct sbx_dialect *const dialect = &sbx_dialect_anthropic;

/* Events as text: L lifecycle, T R text, D detail, C tool call, U usage p/c cached/write/reasoning, S finish, E error, K complete, . end,
 * and W with the event's name and its flags: c content, e end, m malformed, w whole. */
static void
note(void *arg, const struct sbx_hub_event *ev)
{
	static const char *const kinds[] = {
#define X(name) #name,
		SBX_ERROR_KINDS(X)
#undef X
	};
	struct sbx_buf *out = arg;
	const struct sbx_usage *u = ev->usage;
	const struct sbx_provider_error *e = ev->error;
	int rc = 0;
#define OF(span) (int)(span).n, (span).n ? (span).at : ""
	switch (ev->kind) {
	case SBX_HUB_LIFECYCLE: rc = sbx_buf_printf(out, "L "); break;
	case SBX_HUB_TEXT: rc = sbx_buf_printf(out, "T[%.*s] ", OF(ev->text)); break;
	case SBX_HUB_REASONING: rc = sbx_buf_printf(out, "R[%.*s] ", OF(ev->text)); break;
	case SBX_HUB_DETAIL: rc = sbx_buf_printf(out, "D%.*s ", OF(ev->text)); break;
	case SBX_HUB_TOOL_CALL: rc = sbx_buf_printf(out, "C%u[%.*s|%.*s|%.*s] ", (unsigned)ev->index, OF(ev->id), OF(ev->name), OF(ev->text)); break;
	case SBX_HUB_USAGE:
		rc = sbx_buf_printf(out, "U[%lld/%lld %lld/%lld/%lld%s] ", (long long)u->prompt_tokens, (long long)u->completion_tokens,
				    (long long)u->cached_tokens, (long long)u->cache_write_tokens, (long long)u->reasoning_tokens,
				    u->clamped ? " clamped" : "");
		break;
	case SBX_HUB_FINISH: rc = sbx_buf_printf(out, "S[%s=%.*s] ", sbx_finish_word(ev->finish), OF(ev->finish_raw)); break;
	case SBX_HUB_ERROR:
		rc = sbx_buf_printf(out, "E[%s %d %s|%s|%s] ", kinds[e->kind] + strlen("SBX_KIND_"), e->status, e->type, e->code, e->message);
		break;
	case SBX_HUB_COMPLETE: rc = sbx_buf_printf(out, "K "); break;
	case SBX_HUB_END: rc = sbx_buf_printf(out, ". "); break;
	case SBX_HUB_WIRE:
		rc = sbx_buf_printf(out, "W%s%s%s%s ", ev->flags & SBX_WIRE_CONTENT ? "c" : "", ev->flags & SBX_WIRE_END ? "e" : "",
				    ev->flags & SBX_WIRE_MALFORMED ? "m" : "", ev->flags & SBX_WIRE_WHOLE ? "w" : "");
		break;
	default: fail();
	}
	assert_int_equal(rc, 0);
}

enum { WHOLE = 1, NO_TEXT = 2, ONLY = 4 };

struct answer_case {
	const char *name;
	int how, status;
	const char *input, *want;
};

/* n bytes in two pieces, the first of `first`; or, 0, one by one. */
static void
decode(const struct answer_case *c, size_t n, size_t first, struct sbx_buf *out)
{
	const struct sbx_decode_opts opts = {
		.op = SBX_OP_CHAT, .choices = 1, .stream = !(c->how & WHOLE), .want_text = !(c->how & NO_TEXT), .stream_only = c->how & ONLY
	};
	struct sbx_decoder *d = dialect->decoder_new(&opts, &scratch, note, out);
	assert_non_null(d);
	dialect->decoder_head(d, c->status, "");
	for (size_t at = 0, piece; at < n; at += piece) {
		piece = first == 0 ? 1 : at == 0 && first < n ? first : n - at;
		char *copy = malloc(piece); /* of its own, so that reading beyond it shows */
		assert_non_null(copy);
		memcpy(copy, c->input + at, piece);
		dialect->decoder_feed(d, copy, piece);
		free(copy);
	}
	dialect->decoder_end(d);
	dialect->decoder_free(d);
	assert_int_equal(sbx_buf_append(out, "", 1), 0);
}

#define EV(type, members) "event: " type "\ndata: {\"type\":\"" type "\"" members "}\n\n"
#define START          EV("message_start", ",\"message\":{\"id\":\"m\",\"content\":[],\"usage\":{\"input_tokens\":5,\"cache_read_input_tokens\":3,\"cache_creation_input_tokens\":2,\"output_tokens\":1}}")
#define L_START        "L U[10/1 3/2/-1] W "
#define BLOCK(i, rest) EV("content_block_start", ",\"index\":" i ",\"content_block\":{" rest "}")
#define DELTA(i, rest) EV("content_block_delta", ",\"index\":" i ",\"delta\":{" rest "}")
#define STOP(i)        EV("content_block_stop", ",\"index\":" i)
#define TEXT_BLOCK(i)  BLOCK(i, "\"type\":\"text\",\"text\":\"\"")
#define TEXT(i, t)     DELTA(i, "\"type\":\"text_delta\",\"text\":\"" t "\"")
#define JSON(i, t)     DELTA(i, "\"type\":\"input_json_delta\",\"partial_json\":\"" t "\"")
#define CALL(i, id)    BLOCK(i, "\"type\":\"tool_use\",\"id\":\"" id "\",\"name\":\"f" id "\",\"input\":{}")
#define FINISH(word)   EV("message_delta", ",\"delta\":{\"stop_reason\":\"" word "\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":7}")
#define U_END          "U[10/7 3/2/-1] "
#define END            EV("message_stop", "")
#define PING           EV("ping", "")
#define BODY(content, reason) "{\"id\":\"m\",\"type\":\"message\",\"role\":\"assistant\",\"content\":[" content "],\"stop_reason\":" reason \
	",\"usage\":{\"input_tokens\":1,\"output_tokens\":2}}"
#define ERR(type, message) "{\"type\":\"error\",\"error\":{\"type\":\"" type "\",\"message\":\"" message "\"},\"request_id\":\"r\"}"

static const struct answer_case answers[] = {
	/* ---- streams that end well ---- */
	{ "text", 0, 200, START TEXT_BLOCK("0") PING TEXT("0", "a\\n") TEXT("0", "\\u00e9") STOP("0") FINISH("end_turn") END,
	  L_START "L W L W T[a\n] Wc T[\xc3\xa9] Wc L W S[stop=end_turn] " U_END "K W We . " },
	{ "no text wanted", NO_TEXT, 200, START TEXT_BLOCK("0") TEXT("0", "a\\n") CALL("1", "x") JSON("1", "{") FINISH("end_turn") END,
	  L_START "L W T[] Wc C0[||] Wc C0[||] Wc S[stop=end_turn] " U_END "K W We . " },
	{ "blanks before the brace, no end mark", 0, 200, TEXT_BLOCK("0") TEXT("0", "a")
	  "event: message_delta\r\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"max_tokens\"}    }\r\n\r\n", "L W T[a] Wc S[length=max_tokens] K W " },
	{ "events without a name", 0, 200, "data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"b\"}}\n\n"
	  "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"stop_sequence\"}}\n\n", "T[b] Wc S[stop=stop_sequence] K W " },
	{ "the end mark alone ends it as well", 0, 200, TEXT_BLOCK("0") TEXT("0", "a") END, "L W T[a] Wc K We . " },
	{ "nothing behind the end", 0, 200, END TEXT_BLOCK("0") TEXT("0", "a"), "K We . " },
	{ "an error behind the finish is none", 0, 200, FINISH("end_turn") "event: error\ndata: " ERR("api_error", "x") "\n\n" END, "S[stop=end_turn] U[-1/7 -1/-1/-1] K W We . " },
	{ "a [DONE] from elsewhere", 0, 200, FINISH("end_turn") "data: [DONE]\n\n", "S[stop=end_turn] U[-1/7 -1/-1/-1] K W L " },
	{ "unknown events, blocks and deltas", 0, 200, EV("new_thing", ",\"x\":1") BLOCK("0", "\"type\":\"new\",\"text\":\"n\"") DELTA("0", "\"type\":\"new_delta\"")
	  STOP("0") TEXT_BLOCK("1") DELTA("1", "\"type\":\"citations_delta\",\"citation\":{\"x\":1}") TEXT("1", "a") FINISH("end_turn"),
	  "L W Wc Wc L W L W L W T[a] Wc S[stop=end_turn] U[-1/7 -1/-1/-1] K W " },
	/* ---- thinking ---- */
	{ "thinking", 0, 200, BLOCK("0", "\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"") DELTA("0", "\"type\":\"thinking_delta\",\"thinking\":\"a\\\"\"")
	  DELTA("0", "\"type\":\"thinking_delta\",\"thinking\":\"\\u00e9\"") DELTA("0", "\"type\":\"signature_delta\",\"signature\":\"s+/=\"") STOP("0") FINISH("end_turn"),
	  "L W R[a\"] Wc R[\xc3\xa9] Wc L W D{\"type\":\"reasoning.text\",\"text\":\"a\\\"\\u00e9\",\"signature\":\"s+/=\",\"format\":\"anthropic-claude-v1\",\"index\":0} W "
	  "S[stop=end_turn] U[-1/7 -1/-1/-1] K W " },
	{ "thinking without words", 0, 200, BLOCK("0", "\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"s\"") STOP("0") FINISH("end_turn"),
	  "L W D{\"type\":\"reasoning.text\",\"text\":\"\",\"signature\":\"s\",\"format\":\"anthropic-claude-v1\",\"index\":0} W S[stop=end_turn] U[-1/7 -1/-1/-1] K W " },
	{ "thinking without a signature", 0, 200, BLOCK("0", "\"type\":\"thinking\",\"thinking\":\"a\"") STOP("0") FINISH("end_turn"),
	  "R[a] Wc L W S[stop=end_turn] U[-1/7 -1/-1/-1] K W " },
	{ "redacted", 0, 200, BLOCK("0", "\"type\":\"redacted_thinking\",\"data\":\"E\"") STOP("0") BLOCK("1", "\"type\":\"redacted_thinking\",\"data\":\"F\"") FINISH("end_turn"),
	  "D{\"type\":\"reasoning.encrypted\",\"data\":\"E\",\"format\":\"anthropic-claude-v1\",\"index\":0} Wc L W "
	  "D{\"type\":\"reasoning.encrypted\",\"data\":\"F\",\"format\":\"anthropic-claude-v1\",\"index\":1} Wc S[stop=end_turn] U[-1/7 -1/-1/-1] K W " },
	/* ---- tools ---- */
	{ "tool calls", 0, 200, CALL("1", "x") JSON("1", "") JSON("1", "{\\\"a\\\"") JSON("1", ":1}") STOP("1") CALL("2", "y") STOP("2") FINISH("tool_use"),
	  "C0[x|fx|] Wc L W C0[||{\"a\"] Wc C0[||:1}] Wc L W C1[y|fy|] Wc C1[||{}] Wc S[tool_calls=tool_use] U[-1/7 -1/-1/-1] K W " },
	{ "arguments with the start", 0, 200, BLOCK("0", "\"type\":\"tool_use\",\"id\":\"x\",\"name\":\"f\",\"input\":{\"a\":1}") JSON("0", "{\\\"a\\\":1}") STOP("0") FINISH("tool_use"),
	  "C0[x|f|{\"a\":1}] Wc L W L W S[tool_calls=tool_use] U[-1/7 -1/-1/-1] K W " },
	{ "two calls at once", 0, 200, CALL("0", "x") CALL("1", "y") JSON("1", "{}") JSON("0", "{ }") STOP("0") STOP("1") FINISH("tool_use"),
	  "C0[x|fx|] Wc C1[y|fy|] Wc C1[||{}] Wc C0[||{ }] Wc L W L W S[tool_calls=tool_use] U[-1/7 -1/-1/-1] K W " },
	{ "a tool of the provider's own is no call", 0, 200, BLOCK("0", "\"type\":\"server_tool_use\",\"id\":\"x\",\"name\":\"web_search\",\"input\":{}") JSON("0", "{}") STOP("0")
	  BLOCK("1", "\"type\":\"web_search_tool_result\",\"content\":[]") STOP("1") FINISH("pause_turn"),
	  "Wc Wc L W Wc L W S[stop=pause_turn] U[-1/7 -1/-1/-1] K W " },
	/* ---- usage ---- */
	{ "later figures replace earlier ones", 0, 200, START EV("message_delta", ",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"input_tokens\":0,\"cache_read_input_tokens\":null,\"output_tokens\":9,\"output_tokens_details\":{\"thinking_tokens\":4}}"),
	  L_START "S[stop=end_turn] U[5/9 3/2/4] K W " },
	{ "writes apart by their life", 0, 200, EV("message_delta", ",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"input_tokens\":1,\"cache_creation\":{\"ephemeral_5m_input_tokens\":2,\"ephemeral_1h_input_tokens\":3},\"output_tokens\":0}"),
	  "S[stop=end_turn] U[6/0 -1/5/-1] K W " },
	{ "more thinking than tokens", 0, 200, EV("message_delta", ",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":1,\"output_tokens_details\":{\"thinking_tokens\":4}}"),
	  "S[stop=end_turn] U[-1/1 -1/-1/1 clamped] K W " },
	{ "no figures", 0, 200, EV("message_delta", ",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"input_tokens\":-4,\"output_tokens\":\"x\"}"), "S[stop=end_turn] K W " },
	{ "beyond all numbers", 0, 200, EV("message_delta", ",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"input_tokens\":9223372036854775807,\"cache_read_input_tokens\":9}"),
	  "S[stop=end_turn] U[9223372036854775807/-1 9/-1/-1] K W " },
	/* ---- reasons ---- */
	{ "refusal", 0, 200, FINISH("refusal"), "S[content_filter=refusal] U[-1/7 -1/-1/-1] K W " },
	{ "the window is full", 0, 200, FINISH("model_context_window_exceeded"), "S[length=model_context_window_exceeded] U[-1/7 -1/-1/-1] K W " },
	{ "a new reason", 0, 200, FINISH("new"), "S[other=new] U[-1/7 -1/-1/-1] K W " },
	/* ---- streams that do not ---- */
	{ "no end", 0, 200, START TEXT_BLOCK("0") TEXT("0", "a") STOP("0"), L_START "L W T[a] Wc L W " },
	{ "a delta without a reason is no end", 0, 200, EV("message_delta", ",\"delta\":{\"stop_reason\":null},\"usage\":{\"output_tokens\":1}"), "U[-1/1 -1/-1/-1] W " },
	{ "an error at once", 0, 200, "event: error\ndata: {\"type\":\"error\",\"error\":{\"details\":null,\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}               }\n\n",
	  "E[OVERLOADED 200 overloaded_error||Overloaded] " },
	{ "an error in the midst", 0, 200, TEXT_BLOCK("0") TEXT("0", "a") "event: error\ndata: " ERR("api_error", "Internal") "\n\n" END, "L W T[a] Wc E[SERVER 200 api_error||Internal] " },
	{ "an event that is no JSON", 0, 200, TEXT_BLOCK("0") "data: {\"type\":\"content_block_delta\n\n" FINISH("end_turn"),
	  "L W Wm S[stop=end_turn] U[-1/7 -1/-1/-1] E[LOSSY 200 ||an event that may have held content could not be read] " },
	{ "without a quote nothing was lost", 0, 200, "data: {\n\n" FINISH("end_turn"), "Wm S[stop=end_turn] U[-1/7 -1/-1/-1] K W " },
	{ "a delta of no block", 0, 200, TEXT("3", "a") FINISH("end_turn"), "L W S[stop=end_turn] U[-1/7 -1/-1/-1] E[LOSSY 200 ||an event that may have held content could not be read] " },
	{ "a call without a name", 0, 200, BLOCK("0", "\"type\":\"tool_use\",\"id\":\"x\"") END, "L W E[LOSSY 200 ||an event that may have held content could not be read] " },
	{ "another dialect's stream", 0, 200, "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n", "L W L " },
	{ "no event", 0, 200, ": \n", "L " },
	{ "nothing", 0, 200, "", "E[JUNK 200 ||empty body] " },
	{ "a page", 0, 200, "<html><title>Bad gateway</title>", "E[JUNK 200 ||Bad gateway] " },
	/* ---- whole bodies ---- */
	{ "body", WHOLE, 200, BODY("{\"type\":\"thinking\",\"thinking\":\"r\",\"signature\":\"s\"},{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"tool_use\",\"id\":\"x\",\"name\":\"f\",\"input\":{\"b\": 1}},{\"type\":\"server_tool_use\"},{\"type\":\"tool_use\",\"id\":\"y\",\"name\":\"g\"}", "\"tool_use\""),
	  "R[r] D{\"type\":\"reasoning.text\",\"text\":\"r\",\"signature\":\"s\",\"format\":\"anthropic-claude-v1\",\"index\":0} T[a] C0[x|f|{\"b\": 1}] C1[y|g|{}] S[tool_calls=tool_use] U[1/2 -1/-1/-1] K Wcw . " },
	{ "a body where a stream was asked for", 0, 200, " \n" BODY("{\"type\":\"text\",\"text\":\"a\"}", "\"end_turn\""), "T[a] S[stop=end_turn] U[1/2 -1/-1/-1] K Wcw . " },
	{ "which may not be", ONLY, 200, BODY("{\"type\":\"text\",\"text\":\"a\"}", "\"end_turn\""), "E[JUNK 200 ||a whole answer where a stream was asked for] " },
	{ "an empty body's content", WHOLE, 200, BODY("", "\"end_turn\""), "S[stop=end_turn] U[1/2 -1/-1/-1] K Ww . " },
	{ "a cut body", WHOLE, 200, "{\"content\":[{\"type\":\"text\",\"te", "E[JUNK 200 ||{\"content\":[{\"type\":\"text\",\"te] " },
	{ "another dialect's body", WHOLE, 200, "{\"choices\":[]}", "E[JUNK 200 ||not an answer of this dialect] " },
	{ "an error with status 200", WHOLE, 200, ERR("overloaded_error", "Overloaded"), "E[OVERLOADED 200 overloaded_error||Overloaded] " },
	/* ---- error answers ---- */
	{ "key", 0, 401, ERR("authentication_error", "invalid x-api-key"), "E[AUTH 401 authentication_error||invalid x-api-key] " },
	{ "money", 0, 402, ERR("billing_error", "x"), "E[QUOTA 402 billing_error||x] " },
	{ "money in other words", 0, 400, ERR("invalid_request_error", "Your credit balance is too low"), "E[QUOTA 400 invalid_request_error||Your credit balance is too low] " },
	{ "a spend limit", 0, 429, "{\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\",\"message\":\"x\",\"details\":{\"error_code\":\"enforced_spend_limit_reached\"}}}",
	  "E[QUOTA 429 rate_limit_error|enforced_spend_limit_reached|x] " },
	{ "rate", 0, 429, ERR("rate_limit_error", "x"), "E[RATE_LIMIT 429 rate_limit_error||x] " },
	{ "too long", 0, 400, ERR("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"), "E[CONTEXT_LENGTH 400 invalid_request_error||prompt is too long: 9 tokens > 8 maximum] " },
	{ "invalid", 0, 400, ERR("invalid_request_error", "max_tokens: required"), "E[INVALID 400 invalid_request_error||max_tokens: required] " },
	{ "permission", 0, 403, ERR("permission_error", "x"), "E[PERMISSION 403 permission_error||x] " },
	{ "no such model", 0, 404, ERR("not_found_error", "model: x"), "E[NOT_FOUND 404 not_found_error||model: x] " },
	{ "overloaded", 0, 529, ERR("overloaded_error", "x"), "E[OVERLOADED 529 overloaded_error||x] " },
	{ "timeout", 0, 504, ERR("timeout_error", "x"), "E[SERVER 504 timeout_error||x] " },
	{ "their own", 0, 500, ERR("api_error", "x"), "E[SERVER 500 api_error||x] " },
};

static void
test_answers(void **state)
{
	struct sbx_buf out;
	(void)state;
	for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
		const struct answer_case *c = &answers[i];
		size_t n = strlen(c->input);
		for (size_t first = 0; first <= n; first++) {
			sbx_buf_init(&out, SBX_BODY_MAX_BYTES);
			decode(c, n, first, &out);
			if (strcmp((const char *)out.data, c->want) != 0)
				fail_msg("%s, cut at %zu:\n  %s\nnot\n  %s", c->name, first, (const char *)out.data, c->want);
			sbx_buf_fini(&out);
		}
	}
}

static bool
succeeded(const char *events)
{
	return strncmp(events, "K ", 2) == 0 || strstr(events, " K ");
}

/* Cut anywhere before its terminal event, a stream is no success, and neither is any cut body. */
static void
test_truncation(void **state)
{
	struct sbx_buf out;
	(void)state;
	for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
		const struct answer_case *c = &answers[i];
		const char *terminal = strstr(c->input, "\"stop_reason\":\""), *stop = strstr(c->input, "message_stop\"}");
		if (!succeeded(c->want))
			continue;
		if (!terminal || (stop && stop < terminal))
			terminal = stop;
		assert_non_null(terminal);
		size_t before = (size_t)(strstr(terminal, "}") - c->input); /* its brace is still missing */
		for (size_t n = 0; n <= before; n++) {
			sbx_buf_init(&out, SBX_BODY_MAX_BYTES);
			decode(c, n, n + 1, &out);
			if (succeeded((const char *)out.data))
				fail_msg("%s: a success with %zu bytes: %s", c->name, n, (const char *)out.data);
			sbx_buf_fini(&out);
		}
	}
}

static void
test_usage_object(void **state)
{
	static const struct merge {
		const char *before, *later, *want;
	} merges[] = {
		{ "", "{\"a\":1}", "{\"a\":1}" },
		{ "{\"a\":1,\"b\":{\"c\": 2}}", "{\"a\":3}", "{\"a\":3,\"b\":{\"c\": 2}}" },
		{ "{\"a\":1,\"b\":null}", "{\"b\":0,\"a\":null,\"c\":4}", "{\"a\":1,\"b\":0,\"c\":4}" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof merges / sizeof merges[0]; i++) {
		struct sbx_buf out;
		sbx_buf_init(&out, 1 << 20);
		assert_int_equal(sbx_anthropic_merge_usage(sbx_span_of(merges[i].before), sbx_span_of(merges[i].later), &out), 0);
		assert_int_equal(sbx_buf_append(&out, "", 1), 0);
		assert_string_equal((const char *)out.data, merges[i].want);
		sbx_buf_fini(&out);
	}
}

/* More blocks open at once than anybody sends. */
static void
test_open_blocks(void **state)
{
	struct sbx_buf in, out;
	(void)state;
	sbx_buf_init(&in, 1 << 20);
	sbx_buf_init(&out, 1 << 20);
	for (int i = 0; i < 65; i++)
		assert_int_equal(sbx_buf_printf(&in, "data: {\"type\":\"content_block_start\",\"index\":%d,\"content_block\":{\"type\":\"text\"}}\n\n", i), 0);
	assert_int_equal(sbx_buf_append(&in, "", 1), 0);
	decode(&(struct answer_case){ "", 0, 200, (const char *)in.data, "" }, in.n - 1, 0, &out);
	assert_non_null(strstr((const char *)out.data, "E[TOO_BIG 200 ||too many blocks open at once]"));
	sbx_buf_fini(&in);
	sbx_buf_fini(&out);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_truncation),
		cmocka_unit_test(test_usage_object),
		cmocka_unit_test(test_open_blocks),
	};
	sbx_json_scratch_init(&scratch);
	int failures = cmocka_run_group_tests(tests, NULL, NULL);
	sbx_json_scratch_fini(&scratch);
	return failures;
}
