/* SPDX-License-Identifier: Apache-2.0 */
/*
 * providers.c -- see providers.h. Rows are facts from the providers' own documentation and from recorded answers of
 * theirs; the reason of each quirk stands beside it.
 *
 * A base URL ends where the dialect's path ("/chat/completions") begins, so that no row needs a path of its own. Key variables: the provider's
 * own name for it first, then the one that other gateways made usual.
 */
#include "agent/providers.h"

#include <fnmatch.h>
#include <stdint.h>
#include <string.h>

#define CHAT_ONLY (1u << SBX_OP_COMPLETIONS | 1u << SBX_OP_EMBEDDINGS)

const struct sbx_known_provider sbx_known_providers[] = {
	{ .name = "openai", .base_url = "https://api.openai.com/v1", .key_var = { "OPENAI_API_KEY" }, .auth = SBX_AUTH_BEARER },

	/* The v1 surface of a resource, https://RESOURCE.openai.azure.com/openai/v1, takes the deployment as the model's name and
	 * needs no api-version. The older form works as base_url .../openai/deployments/NAME with "query": "api-version=...". */
	{ .name = "azure", .key_var = { "AZURE_OPENAI_API_KEY", "AZURE_API_KEY" }, .auth = SBX_AUTH_API_KEY },
	/* https://RESOURCE.services.ai.azure.com/models with "query": "api-version=..." */
	{ .name = "azure-foundry", .key_var = { "AZURE_AI_API_KEY", "AZURE_INFERENCE_CREDENTIAL" }, .auth = SBX_AUTH_API_KEY },

	{ .name = "groq", .base_url = "https://api.groq.com/openai/v1", .key_var = { "GROQ_API_KEY" }, .auth = SBX_AUTH_BEARER,
	  .lacks = CHAT_ONLY },
	/* Its completions are at another base URL, https://api.deepseek.com/beta: a provider of one's own, "like": "deepseek". */
	{ .name = "deepseek", .base_url = "https://api.deepseek.com", .key_var = { "DEEPSEEK_API_KEY" }, .auth = SBX_AUTH_BEARER,
	  .lacks = CHAT_ONLY },

	/* total_tokens = prompt + completion + reasoning in every recorded answer: its completion_tokens leave reasoning out. */
	{ .name = "xai", .base_url = "https://api.x.ai/v1", .key_var = { "XAI_API_KEY" }, .auth = SBX_AUTH_BEARER,
	  .quirks = { .reasoning_apart = true } },

	/* Some of the upstreams behind it never send a finish_reason; [DONE] follows all the same. */
	{ .name = "openrouter", .base_url = "https://openrouter.ai/api/v1", .key_var = { "OPENROUTER_API_KEY" },
	  .auth = SBX_AUTH_BEARER, .quirks = { .no_finish = true } },

	{ .name = "together", .base_url = "https://api.together.xyz/v1", .key_var = { "TOGETHER_API_KEY", "TOGETHERAI_API_KEY" },
	  .auth = SBX_AUTH_BEARER },
	{ .name = "cerebras", .base_url = "https://api.cerebras.ai/v1", .key_var = { "CEREBRAS_API_KEY" }, .auth = SBX_AUTH_BEARER },
	{ .name = "perplexity", .base_url = "https://api.perplexity.ai",
	  .key_var = { "PERPLEXITY_API_KEY", "PPLX_API_KEY", "PERPLEXITYAI_API_KEY" }, .auth = SBX_AUTH_BEARER },
	/* The international endpoint; keys of the mainland's dashscope.aliyuncs.com are separate ones. */
	{ .name = "qwen", .base_url = "https://dashscope-intl.aliyuncs.com/compatible-mode/v1", .key_var = { "DASHSCOPE_API_KEY" },
	  .auth = SBX_AUTH_BEARER },
	{ .name = "moonshot", .base_url = "https://api.moonshot.ai/v1", .key_var = { "MOONSHOT_API_KEY" }, .auth = SBX_AUTH_BEARER },
	{ .name = "zai", .base_url = "https://api.z.ai/api/paas/v4", .key_var = { "ZAI_API_KEY" }, .auth = SBX_AUTH_BEARER },

	/* Refuses members it does not know, stream_options among them, with 422; sends its usage unasked. */
	{ .name = "mistral", .base_url = "https://api.mistral.ai/v1", .key_var = { "MISTRAL_API_KEY" }, .auth = SBX_AUTH_BEARER,
	  .quirks = { .no_stream_options = true } },

	{ .name = "google", .base_url = "https://generativelanguage.googleapis.com/v1beta/openai",
	  .key_var = { "GEMINI_API_KEY", "GOOGLE_API_KEY" }, .auth = SBX_AUTH_BEARER,
	  .quirks = { .reasoning_apart = true } }, /* thinking is only in the total */
	{ .name = "fireworks", .base_url = "https://api.fireworks.ai/inference/v1", .key_var = { "FIREWORKS_API_KEY" },
	  .auth = SBX_AUTH_BEARER },
	{ .name = "huggingface", .base_url = "https://router.huggingface.co/v1", .key_var = { "HF_TOKEN", "HUGGINGFACE_API_KEY" },
	  .auth = SBX_AUTH_BEARER },
	{ .name = "crusoe", .base_url = "https://api.inference.crusoecloud.com/v1", .key_var = { "CRUSOE_API_KEY" },
	  .auth = SBX_AUTH_BEARER },
	{ .name = "heroku", .base_url = "https://us.inference.heroku.com/v1", .key_var = { "INFERENCE_KEY", "HEROKU_API_KEY" },
	  .auth = SBX_AUTH_BEARER },

	/* https://bedrock-mantle.REGION.api.aws/v1 (some models: /openai/v1): Bedrock with an API key in OpenAI's dialect. */
	{ .name = "bedrock-mantle", .key_var = { "AWS_BEARER_TOKEN_BEDROCK" }, .auth = SBX_AUTH_BEARER },
	/* https://ACCOUNT.snowflakecomputing.com/api/v2/cortex/v1; its streams carry no finish_reason at all. */
	{ .name = "snowflake", .key_var = { "SNOWFLAKE_PAT" }, .auth = SBX_AUTH_BEARER, .quirks = { .no_finish = true } },

	/* Servers of one's own. */
	{ .name = "ollama", .base_url = "http://127.0.0.1:11434/v1", .host_var = "OLLAMA_HOST", .auth = SBX_AUTH_BEARER,
	  .key_optional = true },
	{ .name = "vllm", .base_url = "http://127.0.0.1:8000/v1", .key_var = { "VLLM_API_KEY" }, .auth = SBX_AUTH_BEARER,
	  .key_optional = true },
	{ .name = "gpustack", .key_var = { "GPUSTACK_API_KEY" }, .auth = SBX_AUTH_BEARER },
};
const size_t sbx_known_providers_n = sizeof sbx_known_providers / sizeof sbx_known_providers[0];

const struct sbx_known_provider *
sbx_known_provider_find(const char *name)
{
	for (size_t i = 0; i < sbx_known_providers_n; i++)
		if (strcmp(sbx_known_providers[i].name, name) == 0)
			return &sbx_known_providers[i];
	return NULL;
}

const struct sbx_dialect *
sbx_known_provider_dialect(const struct sbx_known_provider *p)
{
	return sbx_dialect_find(p->dialect ? p->dialect : "openai-chat");
}

/* The first pattern that matches the last part of the name decides. A model wrongly taken for a reasoning one only waits
 * longer for a silent provider; one wrongly taken for a plain one is cut off while it thinks: in doubt, true. */
static const struct {
	const char *pattern;
	bool reasons;
} families[] = {
	{ "*non-reasoning*", false },  /* grok-4-fast-non-reasoning */
	{ "*nothink*", false },
	{ "gpt-5*chat*", false },      /* gpt-5-chat-latest: the plain one of the family */
	{ "*thinking*", true },        /* kimi-k2-thinking, qwen3-...-thinking-2507, ...:thinking */
	{ "*reason*", true },          /* deepseek-reasoner, sonar-reasoning-pro, phi-4-reasoning, grok-4-1-fast-reasoning */
	{ "*deep-research*", true },
	{ "o[134]", true },
	{ "o[134]-*", true },
	{ "gpt-[5-9]*", true },
	{ "*gpt-oss*", true },         /* also as openai.gpt-oss-120b-1:0 */
	{ "*codex*", true },
	{ "*deepseek-r[1-9]*", true },
	{ "grok-3-mini*", true },
	{ "grok-[4-9]*", true },
	{ "gemini-2.5-flash-lite*", false }, /* thinks only when asked to */
	{ "gemini-2.5*", true },
	{ "gemini-[3-9]*", true },
	{ "magistral*", true },
	{ "qwq*", true },
	{ "glm-4.[5-9]*", true },      /* thinking is their default */
	{ "glm-[5-9]*", true },
	{ "minimax-m[1-9]*", true },
};

bool
sbx_model_reasons(const char *model)
{
	const char *slash = strrchr(model, '/');
	const char *last = slash ? slash + 1 : model;
	for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
		if (fnmatch(families[i].pattern, last, FNM_CASEFOLD) == 0)
			return families[i].reasons;
	return false;
}
