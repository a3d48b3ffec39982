/* SPDX-License-Identifier: Apache-2.0 */
/*
 * endpoints.c -- what can be asked of the door: one row each. A row with an operation is carried to the agent, which knows the
 * dialect that belongs to it; a new one needs nothing else here.
 */
#include "tools/door/door.h"

static const struct endpoint table[] = {
	{ "/v1/chat/completions", "POST", "chat", relay_begin, false },
	{ "/v1/completions", "POST", "completions", relay_begin, false },
	{ "/v1/embeddings", "POST", "embeddings", relay_begin, false },
	{ "/v1/models", "GET", NULL, models_begin, false },
	{ "/v1/models/", "GET", NULL, model_begin, false },
	{ "/healthz", "GET", NULL, health_begin, true },
	{ "/readyz", "GET", NULL, ready_begin, true },
};

const struct endpoint *
endpoint_find(const char *url, const char *method, const char **ret_name, const char **ret_allow)
{
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
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
