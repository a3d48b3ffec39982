/* SPDX-License-Identifier: Apache-2.0 */
/*
 * endpoints.c -- what can be asked of the door: one row each. A row with an operation is carried to the agent, which knows the
 * dialect that belongs to it; a new one needs nothing else here.
 */
#include "tools/door/door.h"

static const struct endpoint table[] = {
	{ "/v1/chat/completions", "POST", "chat", relay_begin, NULL, false },
	{ "/v1/completions", "POST", "completions", relay_begin, NULL, false },
	{ "/v1/embeddings", "POST", "embeddings", relay_begin, NULL, false },
	{ "/v1/models", "GET", NULL, models_begin, models_on_stats, false },
	{ "/v1/models/", "GET", NULL, model_begin, models_on_stats, false },
	{ "/metrics", "GET", NULL, metrics_begin, metrics_on_reply, false },
	{ "/healthz", "GET", NULL, health_begin, NULL, true },
	{ "/readyz", "GET", NULL, ready_begin, models_on_stats, true },
};
#define ENDPOINTS (sizeof table / sizeof table[0])
_Static_assert(ENDPOINTS < ENDPOINTS_MAX, "each is counted");

const struct endpoint *
endpoint_find(const char *url, const char *method, const char **ret_name, const char **ret_allow)
{
	for (size_t i = 0; i < ENDPOINTS; i++) {
		const struct endpoint *e = &table[i];
		size_t n = strlen(e->path);
		bool named = e->path[n - 1] == '/';
		if (named ? strncmp(url, e->path, n) != 0 || !url[n] : strcmp(url, e->path) != 0)
			continue;
		*ret_allow = e->method;
		if (strcmp(method, e->method) != 0)
			return NULL;
		*ret_name = url + n;
		return e;
	}
	*ret_allow = NULL;
	return NULL;
}

uint32_t
endpoint_number(const struct endpoint *e)
{
	return e ? (uint32_t)(e - table) + 1 : 0;
}

const char *
endpoint_path(uint32_t number)
{
	return number == 0 ? "" : number <= ENDPOINTS ? table[number - 1].path : NULL;
}
