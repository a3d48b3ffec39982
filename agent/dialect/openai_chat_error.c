/* SPDX-License-Identifier: Apache-2.0 */
/*
 * openai_chat_error.c -- an error as OpenAI's API has it: {"error":{message, type, param, code}}, whoever it comes from.
 *
 * Programs look at `type` and `code`, so what a provider gave is passed on as it gave it, null included. Where the error is the
 * agent's own, or the provider gave neither, the table says what OpenAI would have said of the same thing.
 */
#include "agent/dialect/openai_chat.h"

#include "agent/dialect/json_write.h"
#include "client/wire.h"

/* Those that the API has words for; any other is {"server_error", its own word}. */
static const struct row {
	enum sbx_code code;
	const char *type, *word; /* word NULL = null */
} rows[] = {
	{SBX_CODE_INVALID_REQUEST, "invalid_request_error", NULL},
	{SBX_CODE_UNSUPPORTED, "invalid_request_error", "unsupported_parameter"},
	{SBX_CODE_UNKNOWN_MODEL, "invalid_request_error", "model_not_found"},
	{SBX_CODE_NOT_FOUND, "invalid_request_error", "model_not_found"},
	{SBX_CODE_TOO_LARGE, "invalid_request_error", "request_too_large"},
	{SBX_CODE_FORBIDDEN, "permission_error", "forbidden"},
	{SBX_CODE_INVALID_KEY, "invalid_request_error", "invalid_api_key"},
	{SBX_CODE_REJECTED, "invalid_request_error", NULL},
	{SBX_CODE_CONTEXT_LENGTH, "invalid_request_error", "context_length_exceeded"},
	{SBX_CODE_CONTENT_FILTER, "invalid_request_error", "content_filter"},
	{SBX_CODE_QUOTA, "insufficient_quota", "insufficient_quota"},
	{SBX_CODE_RATE_LIMITED, "requests", "rate_limit_exceeded"},
	{SBX_CODE_BUSY, "server_error", "server_is_overloaded"},
	{SBX_CODE_INTERNAL, "server_error", "internal_error"},
};

int
sbx_openai_chat_write_error(enum sbx_code code, const char *message, const char *param, const struct sbx_provider_error *said, struct sbx_buf *out)
{
	const char *type = "server_error", *word = sbx_code_word(code);
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		if (rows[i].code == code) {
			type = rows[i].type;
			word = rows[i].word;
		}
	if (said && (said->type[0] || said->code[0])) {
		type = said->type[0] ? said->type : NULL;
		word = said->code[0] ? said->code : NULL;
	}
	if (said && said->param[0])
		param = said->param;
	const struct {
		const char *name, *text; /* text NULL = null */
	} member[] = {{"message", message}, {"type", type}, {"param", param && *param ? param : NULL}, {"code", word}};
	struct sbx_json_writer w = sbx_json_writer(out);
	sbx_jw_open(&w, '{');
	sbx_jw_name(&w, "error");
	sbx_jw_open(&w, '{');
	for (size_t i = 0; i < sizeof member / sizeof member[0]; i++) {
		sbx_jw_name(&w, member[i].name);
		if (member[i].text)
			sbx_jw_text(&w, sbx_span_of(member[i].text));
		else
			sbx_jw_literal(&w, "null");
	}
	sbx_jw_close(&w, '}');
	sbx_jw_close(&w, '}');
	return w.rc;
}
