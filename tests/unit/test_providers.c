/* SPDX-License-Identifier: Apache-2.0 */
/* test_providers.c -- agent/providers: the table is well formed, and which models reason. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/config_url.h"
#include "agent/keys.h"
#include "agent/providers.h"

static void
test_table(void **state)
{
	(void)state;
	assert_true(sbx_known_providers_n <= SBX_PROVIDERS_MAX);
	for (size_t i = 0; i < sbx_known_providers_n; i++) {
		const struct sbx_known_provider *p = &sbx_known_providers[i];
		char why[256] = "", source[128];
		assert_ptr_equal(sbx_known_provider_find(p->name), p); /* which also says that names are unique */
		assert_null(strchr(p->name, '/'));
		assert_true(p->key_optional || p->key_var[0]);
		if (p->base_url) { /* spelled as the configuration would spell it */
			char *url = NULL;
			assert_int_equal(sbx_url_base(p->base_url, false, &url, why, sizeof why), 0);
			assert_string_equal(url, p->base_url);
			free(url);
		}
		for (size_t k = 0; k < SBX_KNOWN_KEY_VARS_MAX && p->key_var[k]; k++) {
			snprintf(source, sizeof source, "env:%s", p->key_var[k]);
			assert_true(sbx_key_source_ok(source));
		}
	}
	assert_null(sbx_known_provider_find("OpenAI"));
	assert_null(sbx_known_provider_find(""));
}

static void
test_rows(void **state)
{
	(void)state;
	static const struct {
		const char *name;
		bool no_stream_options, no_finish, reasoning_apart;
	} rows[] = {
		{ "openai", false, false, false }, { "mistral", true, false, false }, { "snowflake", false, true, false },
		{ "openrouter", false, true, false }, { "xai", false, false, true },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		const struct sbx_known_provider *p = sbx_known_provider_find(rows[i].name);
		assert_non_null(p);
		assert_int_equal(p->quirks.no_stream_options, rows[i].no_stream_options);
		assert_int_equal(p->quirks.no_finish, rows[i].no_finish);
		assert_int_equal(p->quirks.reasoning_apart, rows[i].reasoning_apart);
	}
	static const char *const must_be_there[] = { "azure", "azure-foundry", "groq", "deepseek", "together", "cerebras", "perplexity", "qwen",
	                                             "moonshot", "zai", "ollama", "vllm", "huggingface", "crusoe", "heroku", "gpustack", "google",
	                                             "fireworks", "bedrock-mantle" };
	for (size_t i = 0; i < sizeof must_be_there / sizeof must_be_there[0]; i++)
		assert_non_null(sbx_known_provider_find(must_be_there[i]));
	assert_int_equal(sbx_known_provider_find("azure")->auth, SBX_AUTH_API_KEY);
}

/* The manual page lists every provider with its address and variables. */
static void
test_manual(void **state)
{
	(void)state;
	static char page[65536];
	FILE *f = fopen("agent/signalboxd.conf.5", "re");
	if (!f)
		skip(); /* not run from the top of the tree */
	page[fread(page, 1, sizeof page - 1, f)] = '\0';
	fclose(f);
	for (size_t i = 0; i < sbx_known_providers_n; i++) {
		const struct sbx_known_provider *p = &sbx_known_providers[i];
		char entry[256];
		snprintf(entry, sizeof entry, ".TP\n.B %s\n.I %s\n", p->name, p->base_url ? p->base_url : "(to be configured)");
		assert_non_null(strstr(page, entry));
		for (size_t k = 0; k < SBX_KNOWN_KEY_VARS_MAX && p->key_var[k]; k++)
			assert_non_null(strstr(page, p->key_var[k]));
	}
}

static void
test_reasoning(void **state)
{
	(void)state;
	static const struct {
		const char *model;
		bool reasons;
	} cases[] = {
		{ "o1", true }, { "o1-mini", true }, { "o3", true }, { "o3-pro-2025-06-10", true }, { "o4-mini", true }, { "openai/o3-mini", true },
		{ "omni-moderation", false }, { "o10", false }, { "gpt-4o", false }, { "gpt-4.1-mini", false }, { "gpt-5", true }, { "gpt-5.2", true },
		{ "gpt-5-chat-latest", false }, { "GPT-5-mini", true }, { "openai/gpt-oss-120b", true }, { "openai.gpt-oss-20b-1:0", true },
		{ "deepseek-reasoner", true }, { "deepseek-chat", false }, { "deepseek-ai/DeepSeek-R1", true }, { "deepseek-r1-distill-llama-70b", true },
		{ "kimi-k2-thinking", true }, { "kimi-k2-0905-preview", false }, { "claude-sonnet-4:thinking", true }, { "claude-sonnet-4", false },
		{ "grok-3", false }, { "grok-3-mini", true }, { "grok-4", true }, { "grok-4-fast-non-reasoning", false }, { "grok-4-fast-reasoning", true },
		{ "sonar", false }, { "sonar-reasoning-pro", true }, { "sonar-deep-research", true }, { "gemini-2.0-flash", false },
		{ "gemini-2.5-pro", true }, { "gemini-2.5-flash-lite", false }, { "gemini-3-pro-preview", true }, { "magistral-medium-latest", true },
		{ "mistral-large-latest", false }, { "qwq-32b", true }, { "llama-3.3-70b-versatile", false }, { "glm-4.6", true }, { "", false }, { "/", false },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		if (sbx_model_reasons(cases[i].model) != cases[i].reasons) {
			print_error("%s\n", cases[i].model);
			fail();
		}
	}
}

int
main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table), cmocka_unit_test(test_rows), cmocka_unit_test(test_manual), cmocka_unit_test(test_reasoning),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
