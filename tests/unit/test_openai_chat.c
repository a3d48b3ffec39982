/* SPDX-License-Identifier: Apache-2.0 */
/* test_openai_chat.c -- the openai-chat dialect: requests in and out, answers streamed and whole, errors, usage. */
#include "agent/dialect/openai_chat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <signalbox/errors.h>

static const struct sbx_dialect *dialect;
static struct sbx_json_scratch scratch;

/* ==== requests ==== */

#define MSG "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

static const struct {
	const char *body, *why; /* why: what the refusal must contain; NULL = accepted */
} refused[] = {
	{"{" MSG "}", NULL},
	{"{\"model\":\"m\"," MSG ",\"stream\":null,\"n\":null,\"max_tokens\":null,\"stream_options\":null}", NULL},
	{"{\"model\":\"m\"," MSG ",\"n\":128,\"unknown\":{\"a\":[1e400]}}", NULL},
	{"", "empty"},
	{"[]", "must be a JSON object"},
	{"{\"model\":\"m\"", "line 1, byte 12"},
	{"{\"model\":\"m\",\"model\":\"n\"," MSG "}", "names this member twice"},
	{"{\"model\":\"m\",\"mod\\u0065l\":\"n\"," MSG "}", "names this member twice"},
	{"{\"model\":\"\xff\"," MSG "}", "not UTF-8"},
	{"{\"model\":7," MSG "}", "model must"},
	{"{\"model\":\"\"," MSG "}", "model must"},
	{"{\"model\":\"m\"}", "messages is missing"},
	{"{\"messages\":[]}", "messages must"},
	{"{\"messages\":\"hi\"}", "messages must"},
	{"{" MSG ",\"stream\":\"yes\"}", "stream must"},
	{"{" MSG ",\"stream_options\":[]}", "stream_options must"},
	{"{" MSG ",\"stream_options\":{\"include_usage\":1}}", "include_usage must"},
	{"{" MSG ",\"n\":0}", "n must"},
	{"{" MSG ",\"n\":129}", "n must"},
	{"{" MSG ",\"n\":1.5}", "n must"},
	{"{" MSG ",\"max_tokens\":-1}", "max_tokens must"},
	{"{" MSG ",\"max_completion_tokens\":\"9\"}", "max_completion_tokens must"},
};

static int
read_request(const char *body, struct sbx_ask *ret_ask, struct sbx_fault *ret_fault)
{
	return dialect->read_request(SBX_OP_CHAT, sbx_span_of(body), &scratch, NULL, ret_ask, ret_fault);
}

static void
test_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
		struct sbx_ask ask;
		struct sbx_fault fault;
		int rc = read_request(refused[i].body, &ask, &fault);
		if (rc != (refused[i].why ? -SBX_ESYNTAX : 0) || (refused[i].why && !strstr(fault.why, refused[i].why)))
			fail_msg("%s: %d %s", refused[i].body, rc, fault.why);
	}
}

/* What judgement learns: choices, max_tokens, then s(tream) u(sage) t(ools) j(son schema) i(mages) o(ff: reasoning). */
static const struct {
	const char *body, *want;
} asks[] = {
	{"{" MSG "}", "1 -1 "},
	{"{" MSG ",\"n\":3,\"max_tokens\":10,\"max_completion_tokens\":20}", "3 20 "},
	{"{" MSG ",\"max_completion_tokens\":20,\"max_tokens\":30.0}", "1 30 "},
	{"{" MSG ",\"stream\":true,\"stream_options\":{\"include_usage\":true}}", "1 -1 su"},
	{"{" MSG ",\"stream\":true,\"stream_options\":{\"include_usage\":false}}", "1 -1 s"},
	{"{" MSG ",\"tools\":[{\"type\":\"function\"}]}", "1 -1 t"},
	{"{" MSG ",\"tools\":[]}", "1 -1 "},
	{"{" MSG ",\"functions\":[{\"name\":\"f\"}]}", "1 -1 t"},
	{"{" MSG ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{}}}", "1 -1 j"},
	{"{" MSG ",\"response_format\":{\"type\":\"json_object\"}}", "1 -1 "},
	{"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"image_url\",\"image_url\":{}}]}]}", "1 -1 i"},
	{"{" MSG ",\"reasoning_effort\":\"none\"}", "1 -1 o"},
	{"{" MSG ",\"reasoning_effort\":\"low\"}", "1 -1 "},
	{"{" MSG ",\"thinking\":{\"type\":\"disabled\"}}", "1 -1 o"},
	{"{" MSG ",\"reasoning\":{\"enabled\":false}}", "1 -1 o"},
	{"{" MSG ",\"reasoning\":{\"effort\":\"none\"}}", "1 -1 o"},
	{"{" MSG ",\"enable_thinking\":false}", "1 -1 o"},
	{"{" MSG ",\"chat_template_kwargs\":{\"enable_thinking\":false}}", "1 -1 o"},
};

static void
test_asks(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof asks / sizeof asks[0]; i++) {
		struct sbx_ask ask;
		struct sbx_fault fault;
		char got[64];
		assert_int_equal(read_request(asks[i].body, &ask, &fault), 0);
		(void)snprintf(got, sizeof got, "%u %lld %s%s%s%s%s%s", (unsigned)ask.choices, (long long)ask.max_tokens,
			       ask.body_stream ? "s" : "", ask.body_include_usage ? "u" : "", ask.has_tools ? "t" : "",
			       ask.has_json_schema ? "j" : "", ask.has_images ? "i" : "", ask.reasoning_off ? "o" : "");
		if (strcmp(got, asks[i].want) != 0)
			fail_msg("%s: %s", asks[i].body, got);
	}
}

#define USAGE "\"include_usage\":true"

static const struct {
	const char *body, *model;
	bool stream, no_stream_options;
	const char *want;
} writes[] = {
	{"{\"model\":\"a\"," MSG ",\"seed\":18446744073709551615,\"temperature\":0.7}", "b/c", false, false,
	 "{\"model\":\"b/c\"," MSG ",\"seed\":18446744073709551615,\"temperature\":0.7}"},
	{" {\n" MSG ", \"model\" : \"a\" } ", "q\"\\\n", false, false, " {\n" MSG ", \"model\" : \"q\\\"\\\\?\" } "},
	{"{" MSG "}", "b", false, false, "{\"model\":\"b\"," MSG "}"},
	{"{" MSG "}", "b", true, false, "{\"model\":\"b\",\"stream\":true,\"stream_options\":{" USAGE "}," MSG "}"},
	{"{" MSG "}", "b", true, true, "{\"model\":\"b\",\"stream\":true," MSG "}"},
	{"{\"model\":\"a\",\"stream\":true," MSG "}", "b", true, false, "{\"stream_options\":{" USAGE "},\"model\":\"b\",\"stream\":true," MSG "}"},
	{"{\"stream\":false," MSG ",\"model\":\"a\"}", "b", true, true, "{\"stream\":true," MSG ",\"model\":\"b\"}"},
	{"{\"stream\":null," MSG ",\"model\":\"a\"}", "b", true, true, "{\"stream\":true," MSG ",\"model\":\"b\"}"},
	{"{\"stream\":true," MSG ",\"model\":\"a\"}", "b", false, false, "{\"stream\":false," MSG ",\"model\":\"b\"}"},
	{"{\"stream\":false," MSG ",\"model\":\"a\"}", "b", false, false, "{\"stream\":false," MSG ",\"model\":\"b\"}"},
	{"{\"stream\":true,\"stream_options\":{" USAGE "}," MSG ",\"model\":\"a\"}", "b", true, false,
	 "{\"stream\":true,\"stream_options\":{" USAGE "}," MSG ",\"model\":\"b\"}"},
	{"{\"stream\":true,\"stream_options\":{\"include_usage\":false}," MSG ",\"model\":\"a\"}", "b", true, false,
	 "{\"stream\":true,\"stream_options\":{\"include_usage\":true}," MSG ",\"model\":\"b\"}"},
	{"{\"stream\":true,\"stream_options\":{}," MSG ",\"model\":\"a\"}", "b", true, false,
	 "{\"stream\":true,\"stream_options\":{" USAGE "}," MSG ",\"model\":\"b\"}"},
	{"{\"stream\":true,\"stream_options\":{\"include_obfuscation\":false}," MSG ",\"model\":\"a\"}", "b", true, false,
	 "{\"stream\":true,\"stream_options\":{" USAGE ",\"include_obfuscation\":false}," MSG ",\"model\":\"b\"}"},
	{"{\"stream\":true,\"stream_options\":null," MSG ",\"model\":\"a\"}", "b", true, false,
	 "{\"stream\":true,\"stream_options\":{" USAGE "}," MSG ",\"model\":\"b\"}"},
	/* stream_options are taken out where they are refused */
	{"{\"stream\":true, \"stream_options\" : {\"x\":[1,\",\"]} , " MSG ",\"model\":\"a\"}", "b", true, true,
	 "{\"stream\":true,  " MSG ",\"model\":\"b\"}"},
	{"{\"stream_options\":{}," MSG ",\"model\":\"a\"}", "b", false, false, "{" MSG ",\"model\":\"b\"}"},
	{"{\"stream_options\":{}," MSG "}", "b", false, false, "{\"model\":\"b\"," MSG "}"},
	{"{" MSG ",\"model\":\"a\" , \"stream_\\u006fptions\" : null }", "b", false, false, "{" MSG ",\"model\":\"b\"  }"},
	{"{" MSG ",\"stream\":true,\"stream_options\":{}}", "b", true, true, "{\"model\":\"b\"," MSG ",\"stream\":true}"},
	{"{" MSG ",\"stream\":true,\"stream_options\":{}}", "b", false, true, "{\"model\":\"b\"," MSG ",\"stream\":false}"},
};

static void
test_writes(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof writes / sizeof writes[0]; i++) {
		struct sbx_ask ask;
		struct sbx_pieces pieces;
		struct sbx_quirks quirks = {.no_stream_options = writes[i].no_stream_options};
		struct sbx_buf got;
		struct sbx_fault fault;
		sbx_buf_init(&got, 1u << 20);
		assert_int_equal(read_request(writes[i].body, &ask, &fault), 0);
		dialect->write_request(&ask, writes[i].model, writes[i].stream, &quirks, &pieces);
		for (uint32_t p = 0; p < pieces.n; p++)
			assert_int_equal(sbx_buf_append(&got, pieces.piece[p].at, pieces.piece[p].n), 0);
		assert_int_equal(got.n, pieces.bytes);
		if (got.n != strlen(writes[i].want) || memcmp(got.data, writes[i].want, got.n) != 0)
			fail_msg("%s\n  got  %.*s\n  want %s", writes[i].body, (int)got.n, (char *)got.data, writes[i].want);
		/* and what goes out reads as what was meant */
		assert_int_equal(dialect->read_request(SBX_OP_CHAT, (struct sbx_span){(char *)got.data, got.n}, &scratch, NULL, &ask, &fault), 0);
		assert_int_equal(ask.body_stream, writes[i].stream);
		assert_int_equal(ask.body_include_usage, writes[i].stream && !writes[i].no_stream_options);
		sbx_buf_fini(&got);
	}
	char longest[SBX_MODEL_MAX_BYTES + 1];
	struct sbx_ask ask;
	struct sbx_pieces pieces;
	struct sbx_quirks quirks = {.no_finish = false};
	struct sbx_fault fault;
	memset(longest, '"', SBX_MODEL_MAX_BYTES);
	longest[SBX_MODEL_MAX_BYTES] = '\0';
	assert_int_equal(read_request("{" MSG "}", &ask, &fault), 0);
	dialect->write_request(&ask, longest, true, &quirks, &pieces);
	assert_true(pieces.bytes > 2 * SBX_MODEL_MAX_BYTES);
}

/* ==== answers ==== */

/* Events as text: L lifecycle, T R F text (text, reasoning, refusal) with the choice where it is not 0, C tool call, U usage
 * p/c/t cached/write/reasoning, S finish, E error, K complete, D end, and W with its flags: c content, u unasked, e end,
 * m malformed, w whole. */
static void
note(void *arg, const struct sbx_hub_event *ev)
{
	struct sbx_buf *out = arg;
	char choice[12] = "";
	const struct sbx_usage *u = ev->usage;
	const struct sbx_provider_error *e = ev->error;
	int rc = 0;
	if (ev->choice)
		(void)snprintf(choice, sizeof choice, "%u:", (unsigned)ev->choice);
#define TEXT (int)ev->text.n, ev->text.n ? ev->text.at : ""
	switch (ev->kind) {
	case SBX_HUB_LIFECYCLE: rc = sbx_buf_printf(out, "L "); break;
	case SBX_HUB_TEXT: rc = sbx_buf_printf(out, "T%s[%.*s] ", choice, TEXT); break;
	case SBX_HUB_REASONING: rc = sbx_buf_printf(out, "R%s[%.*s] ", choice, TEXT); break;
	case SBX_HUB_REFUSAL: rc = sbx_buf_printf(out, "F%s[%.*s] ", choice, TEXT); break;
	case SBX_HUB_DETAIL: rc = sbx_buf_printf(out, "D%s[%.*s] ", choice, TEXT); break;
	case SBX_HUB_TOOL_CALL:
		rc = sbx_buf_printf(out, "C%s%u[%.*s|%.*s|%.*s] ", choice, (unsigned)ev->index, (int)ev->id.n,
				    ev->id.n ? ev->id.at : "", (int)ev->name.n, ev->name.n ? ev->name.at : "", TEXT);
		break;
	case SBX_HUB_VECTOR: rc = sbx_buf_printf(out, "V%u[%.*s] ", (unsigned)ev->index, TEXT); break;
	case SBX_HUB_USAGE:
		rc = sbx_buf_printf(out, "U[%lld/%lld/%lld %lld/%lld/%lld%s] ", (long long)u->prompt_tokens,
				    (long long)u->completion_tokens, (long long)u->total_tokens, (long long)u->cached_tokens,
				    (long long)u->cache_write_tokens, (long long)u->reasoning_tokens, u->clamped ? " clamped" : "");
		break;
	case SBX_HUB_FINISH: {
		const char *word = sbx_finish_word(ev->finish);
		rc = sbx_buf_printf(out, "S%s[%s", choice, word);
		if (!sbx_span_is(ev->finish_raw, word))
			rc |= sbx_buf_printf(out, "=%.*s", (int)ev->finish_raw.n, ev->finish_raw.at);
		rc |= sbx_buf_printf(out, "] ");
		break;
	}
	case SBX_HUB_ERROR: {
		static const char *const kinds[] = {
#define X(name) #name,
			SBX_ERROR_KINDS(X)
#undef X
		};
		rc = sbx_buf_printf(out, "E[%s %d %s|%s|%s|%s] ", kinds[e->kind] + strlen("SBX_KIND_"), e->status, e->type, e->code,
				    e->param, e->message);
		break;
	}
	case SBX_HUB_COMPLETE: rc = sbx_buf_printf(out, "K "); break;
	case SBX_HUB_END: rc = sbx_buf_printf(out, "D "); break;
	case SBX_HUB_WIRE:
		assert_true(ev->text.n > 0);
		rc = sbx_buf_printf(out, "W%s%s%s%s%s ", ev->flags & SBX_WIRE_CONTENT ? "c" : "", ev->flags & SBX_WIRE_UNASKED ? "u" : "",
				    ev->flags & SBX_WIRE_END ? "e" : "", ev->flags & SBX_WIRE_MALFORMED ? "m" : "",
				    ev->flags & SBX_WIRE_WHOLE ? "w" : "");
		break;
	}
	assert_int_equal(rc, 0);
}

enum { /* how a case is read */
	WHOLE = 1,      /* nothing streamed was asked for */
	NO_FINISH = 2,  /* quirks */
	APART = 4,
	DROP = 8,       /* the usage chunk was asked for by us alone */
	TWO = 16,       /* two choices asked for */
	NO_TEXT = 32,
};

struct answer_case {
	const char *name;
	int how, status;
	const char *input, *want;
};

/* Decodes n bytes in pieces of `size`; the log is out's content. */
static void
decode(const struct answer_case *c, size_t n, size_t size, struct sbx_buf *out)
{
	struct sbx_decode_opts opts = {
		.quirks = {.no_finish = c->how & NO_FINISH, .reasoning_apart = c->how & APART},
		.choices = c->how & TWO ? 2 : 1,
		.stream = !(c->how & WHOLE),
		.want_text = !(c->how & NO_TEXT),
		.drop_usage = c->how & DROP,
	};
	struct sbx_decoder *d = dialect->decoder_new(&opts, &scratch, note, out);
	assert_non_null(d);
	dialect->decoder_head(d, c->status, "application/octet-stream");
	for (size_t at = 0; at < n; at += size) {
		size_t piece = n - at < size ? n - at : size;
		char *copy = malloc(piece);
		assert_non_null(copy);
		memcpy(copy, c->input + at, piece);
		dialect->decoder_feed(d, copy, piece);
		free(copy);
	}
	dialect->decoder_end(d);
	dialect->decoder_free(d);
	assert_int_equal(sbx_buf_append(out, "", 1), 0);
}

#define EV(json)      "data: " json "\n\n"
#define CHUNK(delta)  EV("{\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{" delta "},\"finish_reason\":null}]}")
#define FINISH(word)  EV("{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"" word "\"}]}")
#define USAGE_EV      EV("{\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}")
#define DONE          EV("[DONE]")
#define TEXT_EV(text) CHUNK("\"content\":\"" text "\"")
#define CALL(inside)  CHUNK("\"tool_calls\":[{" inside "}]")
#define BODY(message, finish) "{\"id\":\"x\",\"choices\":[{\"index\":0,\"message\":{" message "},\"finish_reason\":" finish "}]}"

static const struct answer_case answers[] = {
	/* ---- streams that end well ---- */
	{"plain", 0, 200, CHUNK("\"role\":\"assistant\",\"content\":\"\"") TEXT_EV("a\\n") TEXT_EV("\\u00e9") FINISH("stop") DONE,
	 "L W T[a\n] Wc T[\xc3\xa9] Wc S[stop] K W We D "},
	{"usage of our own asking", DROP, 200, TEXT_EV("a") FINISH("length") USAGE_EV DONE,
	 "T[a] Wc S[length] K W U[3/2/5 -1/-1/-1] Wu We D "},
	{"usage asked for", 0, 200, TEXT_EV("a") FINISH("stop") USAGE_EV DONE, "T[a] Wc S[stop] K W U[3/2/5 -1/-1/-1] W We D "},
	{"usage null is none", 0, 200, EV("{\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}],\"usage\":null}") DONE,
	 "T[a] S[stop] K Wc We D "},
	{"no text wanted", NO_TEXT, 200, TEXT_EV("a\\n") CALL("\"index\":0,\"id\":\"i\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}") FINISH("stop") DONE,
	 "T[] Wc C0[||] Wc S[stop] K W We D "},
	{"no end mark", 0, 200, TEXT_EV("a") FINISH("stop"), "T[a] Wc S[stop] K W "},
	{"no blank line at the end", 0, 200, TEXT_EV("a") "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}", "T[a] Wc S[stop] K W "},
	{"crlf, comments, blank lines before", 0, 200, "\r\n\n: hello\r\n\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\r\n\r\n: \r\n",
	 "L T[a] S[stop] K Wc L "},
	{"byte order mark", 0, 200, "\xef\xbb\xbf" TEXT_EV("a") FINISH("stop"), "T[a] Wc S[stop] K W "},
	{"reasoning", 0, 200, CHUNK("\"reasoning_content\":\"r\",\"content\":null") CHUNK("\"reasoning\":\"s\",\"channel\":\"analysis\"")
	 CHUNK("\"reasoning\":\"t\",\"reasoning_content\":\"t\"") TEXT_EV("a") FINISH("stop"),
	 "R[r] Wc R[s] Wc R[t] Wc T[a] Wc S[stop] K W "},
	{"reasoning details", 0, 200, CHUNK("\"reasoning_details\":[{\"type\":\"reasoning.summary\",\"summary\":\"s\"},{\"type\":\"reasoning.encrypted\",\"data\":\"x\"}]")
	 CHUNK("\"reasoning\":\"t\",\"reasoning_details\":[{\"text\":\"t\"}]") FINISH("stop"), "R[s] Wc R[t] Wc S[stop] K W "},
	{"refusal", 0, 200, CHUNK("\"refusal\":\"no\"") FINISH("stop"), "F[no] Wc S[stop] K W "},
	{"audio is content", 0, 200, CHUNK("\"audio\":{\"data\":\"AAAA\"}") FINISH("stop"), "L Wc S[stop] K W "},
	{"content in parts", 0, 200, CHUNK("\"content\":[{\"type\":\"thinking\",\"thinking\":[{\"type\":\"text\",\"text\":\"r\"}]},{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"reference\",\"reference_ids\":[1]}]") FINISH("stop"),
	 "R[r] T[a] Wc S[stop] K W "},
	{"azure's first chunk", 0, 200, EV("{\"choices\":[],\"id\":\"\",\"prompt_filter_results\":[{}]}") TEXT_EV("a") FINISH("stop"),
	 "L W T[a] Wc S[stop] K W "},
	{"groq's usage", 0, 200, TEXT_EV("a") EV("{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"x_groq\":{\"id\":\"r\",\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,\"total_tokens\":3}}}"),
	 "T[a] Wc S[stop] U[1/2/3 -1/-1/-1] K W "},
	{"moonshot's usage", 0, 200, EV("{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\",\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,\"total_tokens\":11,\"cached_tokens\":4}}]}"),
	 "S[stop] U[9/2/11 4/-1/-1] K W "},
	{"openrouter repeats the choice", DROP, 200, TEXT_EV("a") FINISH("stop")
	 EV("{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1,\"total_tokens\":2}}") DONE,
	 "T[a] Wc S[stop] K W U[1/1/2 -1/-1/-1] W We D "},
	{"perplexity", 0, 200, EV("{\"object\":\"chat.completion.chunk\",\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1},\"choices\":[{\"delta\":{\"content\":\"a\"}}]}")
	 EV("{\"object\":\"chat.completion.done\",\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2},\"choices\":[{\"delta\":{\"content\":\"\"},\"message\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}"),
	 "T[a] U[1/1/-1 -1/-1/-1] Wc S[stop] U[1/2/-1 -1/-1/-1] K W "},
	{"a whole answer in one event", 0, 200, EV("{\"object\":\"chat.completion\",\"choices\":[{\"message\":{\"content\":\"a\",\"tool_calls\":[{\"id\":\"i\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}},{\"id\":\"j\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},\"finish_reason\":\"stop\"}]}"),
	 "T[a] C0[i|f|{}] C1[j|f|{}] S[stop] K Wc "},
	{"two choices", TWO, 200, EV("{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}},{\"index\":1,\"delta\":{\"content\":\"b\"}}]}")
	 EV("{\"choices\":[{\"index\":1,\"delta\":{},\"finish_reason\":\"stop\"}]}") EV("{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"length\"}]}") DONE,
	 "T[a] T1:[b] Wc S1:[stop] W S[length] K W We D "},
	{"two asked for, one given", TWO, 200, TEXT_EV("a") FINISH("stop") DONE, "T[a] Wc S[stop] W K We D "},
	{"unknown finish", 0, 200, TEXT_EV("a") FINISH("because") DONE, "T[a] Wc S[other=because] K W We D "},
	{"other words for finish", 0, 200, FINISH("eos"), "S[stop=eos] K W "},
	{"empty finish is none", 0, 200, FINISH("") FINISH("model_length"), "L W S[length=model_length] K W "},
	{"no finish, allowed", NO_FINISH, 200, TEXT_EV("a") USAGE_EV DONE, "T[a] Wc U[3/2/5 -1/-1/-1] W K We D "},
	/* ---- tool calls ---- */
	{"fragments by index", 0, 200,
	 CALL("\"index\":0,\"id\":\"i\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}")
	 CALL("\"index\":1,\"id\":\"j\",\"function\":{\"name\":\"g\",\"arguments\":\"{\\\"b\\\"\"}")
	 CALL("\"index\":0,\"function\":{\"arguments\":\"{\\\"a\\\"\"}") CALL("\"index\":1,\"id\":\"\",\"function\":{\"name\":null,\"arguments\":\":2}\"}")
	 CALL("\"index\":0,\"id\":\"i\",\"function\":{\"name\":\"f\",\"arguments\":\":1}\"}") FINISH("tool_calls"),
	 "C0[i|f|] Wc C1[j|g|{\"b\"] Wc C0[||{\"a\"] Wc C1[||:2}] Wc C0[||:1}] Wc S[tool_calls] K W "},
	{"fragments by id", 0, 200, CALL("\"id\":\"i\",\"function\":{\"name\":\"f\",\"arguments\":\"1\"}") CALL("\"id\":\"j\",\"function\":{\"name\":\"g\",\"arguments\":\"2\"}")
	 CALL("\"id\":\"i\",\"function\":{\"arguments\":\"3\"}") FINISH("tool_calls"), "C0[i|f|1] Wc C1[j|g|2] Wc C0[||3] Wc S[tool_calls] K W "},
	{"whole calls with neither", 0, 200, CALL("\"function\":{\"name\":\"f\",\"arguments\":\"1\"}") CALL("\"function\":{\"name\":\"f\",\"arguments\":\"2\"}") FINISH("tool_calls"),
	 "C0[|f|1] Wc C1[|f|2] Wc S[tool_calls] K W "},
	{"the same index for all", 0, 200, CALL("\"index\":0,\"id\":\"i\",\"function\":{\"name\":\"f\",\"arguments\":\"1\"}") CALL("\"index\":0,\"id\":\"j\",\"function\":{\"name\":\"f\",\"arguments\":\"2\"}")
	 CALL("\"index\":0,\"function\":{\"arguments\":\"3\"}") FINISH("tool_calls"), "C0[i|f|1] Wc C1[j|f|2] Wc C1[||3] Wc S[tool_calls] K W "},
	{"indexes from 1, with gaps", 0, 200, CALL("\"index\":5,\"id\":\"i\",\"function\":{\"name\":\"f\",\"arguments\":\"1\"}") CALL("\"index\":1,\"id\":\"j\",\"function\":{\"name\":\"g\",\"arguments\":\"2\"}") FINISH("tool_calls"),
	 "C0[i|f|1] Wc C1[j|g|2] Wc S[tool_calls] K W "},
	{"id before name", 0, 200, CALL("\"index\":0,\"id\":\"i\"") CALL("\"index\":0,\"function\":{\"name\":\"f\"}") CALL("\"index\":0,\"function\":{\"arguments\":\"1\"}") FINISH("tool_calls"),
	 "C0[i||] Wc C0[|f|] Wc C0[||1] Wc S[tool_calls] K W "},
	{"nothing to tell by, one call", 0, 200, CALL("\"id\":\"i\",\"function\":{\"name\":\"f\",\"arguments\":\"1\"}") CALL("\"function\":{\"arguments\":\"2\"}") FINISH("tool_calls"),
	 "C0[i|f|1] Wc C0[||2] Wc S[tool_calls] K W "},
	{"nothing to tell by, two calls", 0, 200, CALL("\"id\":\"i\",\"function\":{\"name\":\"f\",\"arguments\":\"1\"}") CALL("\"id\":\"j\",\"function\":{\"name\":\"f\",\"arguments\":\"1\"}")
	 CALL("\"function\":{\"arguments\":\"2\"}") FINISH("tool_calls"),
	 "C0[i|f|1] Wc C1[j|f|1] Wc L W S[tool_calls] E[LOSSY 200 |||an event that may have held content could not be read] "},
	{"arguments as an object", 0, 200, CALL("\"index\":0,\"id\":\"i\",\"function\":{\"name\":\"f\",\"arguments\":{\"a\": 1}}") FINISH("stop"), "C0[i|f|{\"a\": 1}] Wc S[stop] K W "},
	{"function_call", 0, 200, CHUNK("\"function_call\":{\"name\":\"f\",\"arguments\":\"\"}") CHUNK("\"function_call\":{\"arguments\":\"1\"}") FINISH("function_call"),
	 "C0[|f|] Wc C0[||1] Wc S[function_call] K W "},
	/* ---- streams that do not ---- */
	{"cut", 0, 200, TEXT_EV("a") "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"sto", "T[a] Wc "},
	{"end mark without a finish", 0, 200, TEXT_EV("a") USAGE_EV DONE, "T[a] Wc U[3/2/5 -1/-1/-1] W We D "},
	{"end mark without usage", NO_FINISH, 200, TEXT_EV("a") DONE, "T[a] Wc We D "},
	{"one of two choices open", 0, 200, EV("{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}},{\"index\":1,\"delta\":{\"content\":\"b\"}}]}") FINISH("stop") DONE,
	 "T[a] T1:[b] Wc S[stop] W We D "},
	{"only comments", 0, 200, ": a\n\n: b\n\n", "L L "},
	{"empty", 0, 200, "", "E[JUNK 200 |||empty body] "},
	{"blank", 0, 200, "\r\n \n", "E[JUNK 200 |||empty body] "},
	{"text", 0, 200, "upstream connect error\n", "E[JUNK 200 |||the answer holds no event] "},
	{"html", 0, 200, "<!doctype html><html><head><title> Just a\n moment </title></head></html>", "E[JUNK 200 |||Just a moment] "},
	{"an error instead of a stream", 0, 200, "{\"error\":{\"message\":\"m\",\"type\":\"overloaded_error\",\"code\":503}}", "E[OVERLOADED 503 overloaded_error|503||m] "},
	{"a body instead of a stream", 0, 200, BODY("\"content\":\"a\"", "\"stop\""), "T[a] S[stop] K Wcw D "},
	{"error first", 0, 200, EV("{\"error\":{\"message\":\"m\",\"type\":\"server_error\"}}"), "E[SERVER 200 server_error|||m] "},
	{"error later", 0, 200, TEXT_EV("a") "event: error\n" EV("{\"error\":{\"message\":\"m\",\"code\":\"tool_use_failed\",\"status_code\":400}}") FINISH("stop"),
	 "T[a] Wc E[SERVER 400 |tool_use_failed||m] "},
	{"error beside choices", 0, 200, EV("{\"error\":{\"code\":502,\"message\":\"m\"},\"choices\":[{\"delta\":{\"content\":\"\"},\"finish_reason\":\"error\"}]}") USAGE_EV DONE,
	 "E[UNKNOWN 502 |502||m] "},
	{"error inside a choice", 0, 200, EV("{\"choices\":[{\"delta\":{},\"error\":{\"code\":429,\"message\":\"m\"},\"finish_reason\":\"error\"}]}"), "E[UNKNOWN 429 |429||m] "},
	{"error by its event's name", 0, 200, "event: error\n" EV("{\"message\":\"m\"}"), "E[UNKNOWN 200 |||m] "},
	{"error in a list", 0, 200, EV("[{\"error\":{\"code\":503,\"message\":\"m\",\"status\":\"UNAVAILABLE\"}}]"), "E[OVERLOADED 503 UNAVAILABLE|503||m] "},
	{"finish error", 0, 200, TEXT_EV("a") FINISH("error"), "T[a] Wc E[SERVER 200 |||the provider ended the answer with finish_reason \"error\"] "},
	{"error null is none", 0, 200, EV("{\"error\":null,\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}"), "T[a] S[stop] K Wc "},
	{"error behind the end", 0, 200, TEXT_EV("a") FINISH("stop") EV("{\"error\":{\"message\":\"m\"}}") DONE, "T[a] Wc S[stop] K W We D "},
	{"malformed content", 0, 200, TEXT_EV("a") EV("{\"choices\":[{\"delta\":{\"content\":\"b\"") TEXT_EV("c") FINISH("stop") DONE,
	 "T[a] Wc Wm T[c] Wc S[stop] E[LOSSY 200 |||an event that may have held content could not be read] "},
	{"malformed, without a string", 0, 200, TEXT_EV("a") EV("keep-alive") FINISH("stop"), "T[a] Wc Wm S[stop] K W "},
	{"malformed behind the end", 0, 200, TEXT_EV("a") FINISH("stop") EV("{\"usage\":") DONE, "T[a] Wc S[stop] K W Wm We D "},
	{"a name twice", 0, 200, EV("{\"choices\":[{\"delta\":{\"content\":\"a\",\"content\":\"b\"}}]}") FINISH("stop"),
	 "Wm S[stop] E[LOSSY 200 |||an event that may have held content could not be read] "},
	{"a choice out of bounds", 0, 200, EV("{\"choices\":[{\"index\":128,\"delta\":{\"content\":\"a\"}}]}") FINISH("stop"),
	 "L W S[stop] E[LOSSY 200 |||an event that may have held content could not be read] "},
	{"odd types everywhere", 0, 200, EV("7") EV("[]") EV("{\"choices\":{},\"usage\":[],\"x_groq\":1,\"object\":2}")
	 EV("{\"choices\":[1,null,{\"delta\":7,\"message\":[],\"finish_reason\":1,\"index\":\"0\"}]}") CHUNK("\"content\":{},\"tool_calls\":[1,{\"function\":3}],\"function_call\":[]") FINISH("stop"),
	 "L W L W L W L W L W S[stop] W "}, /* three choices appeared, one has finished */
	/* ---- whole bodies ---- */
	{"body", WHOLE, 200, "\n\n {\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"a\\\"b\",\"refusal\":null},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0,\"total_tokens\":0}} ",
	 "T[a\"b] S[stop] U[0/0/0 -1/-1/-1] K Wcw D "},
	{"body with calls", WHOLE, 200, BODY("\"content\":null,\"tool_calls\":[{\"id\":\"i\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}},{\"id\":\"i\",\"index\":0,\"function\":{\"name\":\"f\",\"arguments\":null}}]", "\"tool_calls\""),
	 "C0[i|f|] C1[i|f|] S[tool_calls] K Wcw D "},
	{"body with two choices", WHOLE, 200, "{\"choices\":[{\"message\":{\"content\":\"a\"},\"finish_reason\":\"stop\"},{\"message\":{\"content\":\"b\"},\"finish_reason\":\"stop\"}]}",
	 "T[a] S[stop] T1:[b] S1:[stop] K Wcw D "},
	{"body without message", WHOLE, 200, "{\"choices\":[{\"index\":0,\"finish_reason\":\"content_filter\"}]}", "S[content_filter] K Ww D "},
	{"body without finish", WHOLE, 200, BODY("\"content\":\"a\"", "null"), "T[a] K Wcw D "},
	{"body with reasoning", WHOLE, 200, BODY("\"content\":\"a\",\"reasoning\":\"r\"", "\"stop\""), "R[r] T[a] S[stop] K Wcw D "},
	{"body, byte order mark", WHOLE, 200, "\xef\xbb\xbf" BODY("\"content\":\"a\"", "\"stop\""), "T[a] S[stop] K Wcw D "},
	{"body, created", WHOLE, 201, BODY("\"content\":\"a\"", "\"stop\""), "T[a] S[stop] K Wcw D "},
	{"body cut", WHOLE, 200, "{\"choices\":[{\"index\":0,", "E[JUNK 200 |||{\"choices\":[{\"index\":0,] "},
	{"body without choices", WHOLE, 200, "{\"choices\":[]}", "E[JUNK 200 |||not an answer of this dialect] "},
	{"body of something else", WHOLE, 200, "[1]", "E[JUNK 200 |||not an answer of this dialect] "},
	{"body empty", WHOLE, 200, "", "E[JUNK 200 |||empty body] "},
	{"body error", WHOLE, 200, "{\"error\":{\"message\":\"filtered\",\"type\":null,\"code\":\"content_filter\",\"status\":400,\"param\":\"prompt\"}}", "E[CONTENT_FILTER 400 400|content_filter|prompt|filtered] "},
	{"body detail", WHOLE, 200, "{\"detail\":\"busy\"}", "E[UNKNOWN 200 |||busy] "},
	/* ---- error answers ---- */
	{"invalid key", 0, 401, "{\"error\":{\"message\":\"m\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"invalid_api_key\"}}", "E[AUTH 401 invalid_request_error|invalid_api_key||m] "},
	{"key by type", 0, 401, "{\"error\":{\"message\":\"m\",\"type\":\"authentication_error\",\"code\":\"invalid_request_error\"}}", "E[AUTH 401 authentication_error|invalid_request_error||m] "},
	{"key as a 400", 0, 400, "{\"code\":\"Client specified an invalid argument\",\"error\":\"Incorrect API key provided: xx\"}", "E[AUTH 400 |Client specified an invalid argument||Incorrect API key provided: xx] "},
	{"key as a 400, in a list", 0, 400, "[{\"error\":{\"code\":400,\"message\":\"API key not valid.\",\"status\":\"INVALID_ARGUMENT\"}}]", "E[AUTH 400 INVALID_ARGUMENT|400||API key not valid.] "},
	{"context", 0, 400, "{\"error\":{\"message\":\"m\",\"type\":\"invalid_request_error\",\"code\":\"context_length_exceeded\",\"param\":\"messages\"}}", "E[CONTEXT_LENGTH 400 invalid_request_error|context_length_exceeded|messages|m] "},
	{"context by its sentence", 0, 400, "{\"object\":\"error\",\"message\":\"This model's maximum context length is 8 tokens\",\"type\":\"BadRequestError\",\"code\":400}", "E[CONTEXT_LENGTH 400 BadRequestError|400||This model's maximum context length is 8 tokens] "},
	{"invalid", 0, 400, "{\"error\":{\"message\":\"m\",\"type\":\"invalid_request_error\",\"code\":\"unsupported_value\",\"param\":\"messages[0].role\"}}", "E[INVALID 400 invalid_request_error|unsupported_value|messages[0].role|m] "},
	{"weak word on another status", 0, 429, "{\"error\":{\"message\":\"Service tier capacity exceeded\",\"type\":\"invalid_request_error\",\"code\":null}}", "E[UNKNOWN 429 invalid_request_error|||Service tier capacity exceeded] "},
	{"rate", 0, 429, "{\"error\":{\"message\":\"m\",\"type\":\"tokens\",\"code\":\"rate_limit_exceeded\"}}", "E[RATE_LIMIT 429 tokens|rate_limit_exceeded||m] "},
	{"money as a 429", 0, 429, "{\"error\":{\"message\":\"m\",\"type\":\"insufficient_quota\",\"code\":\"insufficient_quota\"}}", "E[QUOTA 429 insufficient_quota|insufficient_quota||m] "},
	{"daily allowance", 0, 429, "{\"error\":{\"code\":429,\"message\":\"m\",\"status\":\"RESOURCE_EXHAUSTED\",\"details\":[{\"violations\":[{\"quotaId\":\"GenerateRequestsPerDayPerProject\"}]},{\"retryDelay\":\"34.5s\"}]}}", "E[QUOTA 429 RESOURCE_EXHAUSTED|429||m] "},
	{"not there", 0, 404, "{\"error\":{\"message\":\"m\",\"code\":\"model_not_found\"}}", "E[NOT_FOUND 404 |model_not_found||m] "},
	{"overloaded", 0, 503, "{\"error\":{\"message\":\"m\",\"code\":\"server_is_overloaded\"}}", "E[OVERLOADED 503 |server_is_overloaded||m] "},
	{"detail", 0, 422, "{\"detail\":[{\"type\":\"extra_forbidden\",\"loc\":[\"body\"],\"msg\":\"Extra inputs are not permitted\"}]}", "E[UNKNOWN 422 |||Extra inputs are not permitted] "},
	{"message as an object", 0, 422, "{\"object\":\"error\",\"message\":{\"detail\":[{\"msg\":\"deep\"}]},\"type\":\"invalid_request_error\"}", "E[INVALID 422 invalid_request_error|||deep] "},
	{"api_error on a 401", 0, 401, "{\"error\":{\"message\":\"Unauthorized\",\"type\":\"api_error\",\"code\":null}}", "E[UNKNOWN 401 api_error|||Unauthorized] "},
	{"html page", 0, 502, "<html>\r\n<head><title>502 Bad Gateway</title></head></html>", "E[JUNK 502 |||502 Bad Gateway] "},
	{"plain text", 0, 500, "Internal \x01 Server\xff Error\n", "E[JUNK 500 |||Internal Server Error] "},
	{"no body", WHOLE, 503, "", "E[JUNK 503 |||empty body] "},
	{"error in the clothes of a stream", 0, 400, "data: {\"error\":{\"message\":\"m\",\"code\":\"invalid_value\"}}\n\n", "E[INVALID 400 |invalid_value||m] "},
	{"success as an error", 0, 500, BODY("\"content\":\"a\"", "\"stop\""), "E[UNKNOWN 500 |||] "},
};

static void
run_answer(const struct answer_case *c, size_t n, size_t size, const char *want)
{
	struct sbx_buf out;
	sbx_buf_init(&out, 1u << 20);
	decode(c, n, size, &out);
	if (strcmp((char *)out.data, want) != 0)
		fail_msg("%s, pieces of %zu:\n  got  %s\n  want %s", c->name, size, (char *)out.data, want);
	sbx_buf_fini(&out);
}

static void
test_answers(void **state)
{
	(void)state;
	static const size_t sizes[] = {SIZE_MAX, 1, 2, 3, 7};
	for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++)
		for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
			run_answer(&answers[i], strlen(answers[i].input), sizes[s], answers[i].want);
}

/* Cut anywhere: what was said stands, nothing else is said, and COMPLETE only with what makes it so. */
static void
test_answers_cut(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
		const struct answer_case *c = &answers[i];
		size_t n = strlen(c->input);
		bool complete_before = false;
		for (size_t cut = 0; cut <= n; cut++) {
			struct sbx_buf out;
			sbx_buf_init(&out, 1u << 20);
			decode(c, cut, SIZE_MAX, &out);
			const char *log = (char *)out.data;
			bool complete = strstr(log, " K ") != NULL;
			if (c->status == 200 && strncmp(c->input, "data:", 5) == 0 && cut > 5 && !strstr(log, "E[") &&
			    strncmp(log, c->want, strlen(log)) != 0)
				fail_msg("%s cut at %zu: %s", c->name, cut, log);
			if (complete_before && !complete)
				fail_msg("%s cut at %zu: not complete any more", c->name, cut);
			if (complete && !strstr(log, "S") && !(c->how & (WHOLE | NO_FINISH)))
				fail_msg("%s cut at %zu: complete without a finish: %s", c->name, cut, log);
			complete_before = complete;
			sbx_buf_fini(&out);
		}
	}
}

/* ==== usage ==== */

static const struct {
	const char *usage;
	bool apart;
	const char *want; /* NULL: says nothing */
} usages[] = {
	{"{}", false, NULL},
	{"null", false, NULL},
	{"{\"prompt_tokens\":null,\"completion_tokens\":\"3\"}", false, NULL},
	{"{\"prompt_tokens\":-5,\"completion_tokens\":1}", false, "-1/1/-1 -1/-1/-1"},
	{"{\"prompt_tokens\":0,\"completion_tokens\":0,\"total_tokens\":0}", false, "0/0/0 -1/-1/-1"},
	{"{\"prompt_tokens\":10.0,\"completion_tokens\":2}", false, "10/2/-1 -1/-1/-1"},
	{"{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":15,\"prompt_tokens_details\":{\"cached_tokens\":4,\"cache_write_tokens\":3},\"completion_tokens_details\":{\"reasoning_tokens\":2}}", false, "10/5/15 4/3/2"},
	{"{\"prompt_tokens\":10,\"completion_tokens\":5,\"prompt_cache_hit_tokens\":4,\"prompt_cache_miss_tokens\":6}", false, "10/5/-1 4/-1/-1"},
	{"{\"prompt_cache_hit_tokens\":9,\"prompt_tokens_details\":{\"cached_tokens\":4},\"prompt_tokens\":10}", false, "10/-1/-1 4/-1/-1"},
	{"{\"prompt_tokens\":10,\"completion_tokens\":5,\"cached_tokens\":6}", false, "10/5/-1 6/-1/-1"},
	{"{\"prompt_tokens\":10,\"completion_tokens\":5,\"num_cached_tokens\":7,\"prompt_tokens_details\":null}", false, "10/5/-1 7/-1/-1"},
	{"{\"prompt_tokens\":7,\"completion_tokens\":8,\"total_tokens\":15,\"prompt_tokens_details\":{\"cached_tokens\":161}}", false, "7/8/15 7/-1/-1 clamped"},
	{"{\"prompt_tokens\":7,\"completion_tokens\":8,\"prompt_tokens_details\":{\"cached_tokens\":5,\"cache_write_tokens\":5}}", false, "7/8/-1 5/2/-1 clamped"},
	/* reasoning beside completion: the sum tells, whatever the row says */
	{"{\"prompt_tokens\":12,\"completion_tokens\":1,\"total_tokens\":241,\"completion_tokens_details\":{\"reasoning_tokens\":228}}", true, "12/229/241 -1/-1/228"},
	{"{\"prompt_tokens\":12,\"completion_tokens\":1,\"total_tokens\":241,\"completion_tokens_details\":{\"reasoning_tokens\":228}}", false, "12/229/241 -1/-1/228"},
	{"{\"prompt_tokens\":12,\"completion_tokens\":9,\"total_tokens\":21,\"completion_tokens_details\":{\"reasoning_tokens\":8}}", true, "12/9/21 -1/-1/8"},
	{"{\"prompt_tokens\":12,\"completion_tokens\":9,\"completion_tokens_details\":{\"reasoning_tokens\":8}}", true, "12/17/-1 -1/-1/8"},
	{"{\"prompt_tokens\":12,\"completion_tokens\":9,\"completion_tokens_details\":{\"reasoning_tokens\":8}}", false, "12/9/-1 -1/-1/8"},
	/* reasoning hidden in the total */
	{"{\"prompt_tokens\":35,\"completion_tokens\":12,\"total_tokens\":109}", true, "35/74/109 -1/-1/62"},
	{"{\"prompt_tokens\":35,\"completion_tokens\":12,\"total_tokens\":109}", false, "35/12/109 -1/-1/-1"},
	{"{\"prompt_tokens\":9223372036854775807,\"completion_tokens\":9223372036854775807,\"total_tokens\":1,\"reasoning_tokens\":1}", true, "9223372036854775807/9223372036854775807/1 -1/-1/1"},
};

static void
test_usage(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof usages / sizeof usages[0]; i++) {
		struct sbx_quirks quirks = {.reasoning_apart = usages[i].apart};
		struct sbx_usage u;
		char got[160] = "";
		assert_int_equal(sbx_json_check(usages[i].usage, strlen(usages[i].usage), &scratch, NULL), 0);
		bool said = sbx_openai_chat_read_usage(sbx_span_of(usages[i].usage), &quirks, &u);
		if (said)
			(void)snprintf(got, sizeof got, "%lld/%lld/%lld %lld/%lld/%lld%s", (long long)u.prompt_tokens,
				       (long long)u.completion_tokens, (long long)u.total_tokens, (long long)u.cached_tokens,
				       (long long)u.cache_write_tokens, (long long)u.reasoning_tokens, u.clamped ? " clamped" : "");
		if (said != (usages[i].want != NULL) || (said && strcmp(got, usages[i].want) != 0))
			fail_msg("%s: %s", usages[i].usage, got);
	}
}

/* ==== limits and leftovers ==== */

static void
note_retry(void *arg, const struct sbx_hub_event *ev)
{
	if (ev->kind == SBX_HUB_ERROR)
		*(struct sbx_provider_error *)arg = *ev->error;
}

static void
test_error_fields(void **state)
{
	(void)state;
	static const struct sbx_decode_opts opts = {.choices = 1};
	struct sbx_provider_error error;
	struct sbx_buf body;
	struct sbx_decoder *d = dialect->decoder_new(&opts, &scratch, note_retry, &error);
	static const char delayed[] = "{\"error\":{\"details\":[{\"retryDelay\":\"34.25s\"}]}}";
	assert_non_null(d);
	dialect->decoder_head(d, 429, "");
	dialect->decoder_feed(d, delayed, sizeof delayed - 1);
	dialect->decoder_end(d);
	assert_true(error.retry_after_ns == INT64_C(34250000000));
	dialect->decoder_free(d);

	/* a message longer than its place, cut between two characters; a body longer than is read */
	sbx_buf_init(&body, 1u << 20);
	assert_int_equal(sbx_buf_printf(&body, "{\"error\":{\"message\":\"x"), 0);
	while (body.n < 4000)
		assert_int_equal(sbx_buf_append(&body, "\xe2\x82\xac", 3), 0);
	assert_int_equal(sbx_buf_printf(&body, "\"}}"), 0);
	d = dialect->decoder_new(&opts, &scratch, note_retry, &error);
	dialect->decoder_head(d, 400, "");
	dialect->decoder_feed(d, (char *)body.data, body.n);
	dialect->decoder_end(d);
	dialect->decoder_free(d);
	assert_int_equal(strlen(error.message), 1 + 3 * ((sizeof error.message - 2) / 3));
	while (body.n < 3 * SBX_ERROR_BODY_MAX_BYTES)
		assert_int_equal(sbx_buf_append(&body, "          ", 10), 0);
	body.data[0] = 'X';
	d = dialect->decoder_new(&opts, &scratch, note_retry, &error);
	dialect->decoder_head(d, 500, "");
	for (size_t at = 0; at < body.n; at += 1000)
		dialect->decoder_feed(d, (char *)body.data + at, body.n - at < 1000 ? body.n - at : 1000);
	dialect->decoder_end(d);
	dialect->decoder_free(d);
	assert_int_equal(error.status, 500);
	assert_memory_equal(error.message, "X\"error\"", 8);
	sbx_buf_fini(&body);
}

static void
test_too_big(void **state)
{
	(void)state;
	struct sbx_decode_opts opts = {.choices = 1};
	struct sbx_provider_error error = {.kind = SBX_KIND_UNKNOWN};
	size_t n = 1u << 20;
	char *block = malloc(n);
	assert_non_null(block);
	memset(block, ' ', n);
	for (int stream = 0; stream < 2; stream++) {
		opts.stream = stream;
		memset(&error, 0, sizeof error);
		struct sbx_decoder *d = dialect->decoder_new(&opts, &scratch, note_retry, &error);
		dialect->decoder_head(d, 200, "");
		dialect->decoder_feed(d, stream ? "data:" : "{", stream ? 5 : 1);
		for (size_t at = 0; at <= SBX_BODY_MAX_BYTES && error.kind == SBX_KIND_UNKNOWN; at += n)
			dialect->decoder_feed(d, block, n);
		assert_int_equal(error.kind, SBX_KIND_TOO_BIG);
		dialect->decoder_feed(d, block, n);
		dialect->decoder_end(d);
		dialect->decoder_free(d);
	}
	free(block);
	/* a thousand tool calls and one more */
	struct sbx_buf events;
	sbx_buf_init(&events, 1u << 20);
	for (int i = 0; i <= SBX_TOOL_CALLS_MAX; i++)
		assert_int_equal(sbx_buf_printf(&events, "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":%d,\"function\":{\"name\":\"f\"}}]}}]}\n\n", i), 0);
	opts.stream = true;
	memset(&error, 0, sizeof error);
	struct sbx_decoder *d = dialect->decoder_new(&opts, &scratch, note_retry, &error);
	dialect->decoder_feed(d, (char *)events.data, events.n);
	assert_int_equal(error.kind, SBX_KIND_TOO_BIG);
	dialect->decoder_free(d);
	dialect->decoder_free(NULL);
	sbx_buf_fini(&events);
}

static int
setup(void **state)
{
	(void)state;
	sbx_json_scratch_init(&scratch);
	dialect = sbx_dialect_find("openai-chat");
	return dialect && !sbx_dialect_find("openai") && !sbx_finish_word(SBX_FINISH_NONE) ? 0 : -1;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refused),     cmocka_unit_test(test_asks),  cmocka_unit_test(test_writes),
		cmocka_unit_test(test_answers),     cmocka_unit_test(test_answers_cut), cmocka_unit_test(test_usage),
		cmocka_unit_test(test_error_fields), cmocka_unit_test(test_too_big),
	};
	return cmocka_run_group_tests(tests, setup, NULL);
}
