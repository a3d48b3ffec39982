/* SPDX-License-Identifier: Apache-2.0 */
/* facts.c -- see facts.h. */
#include "agent/core/facts.h"

#include <string.h>

const struct sbx_model *
sbx_facts_find(const struct sbx_facts *facts, struct sbx_span name)
{
	uint32_t low = 0, high = facts ? facts->n_models : 0;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		const struct sbx_model *m = &facts->model[middle];
		int order = strncmp(m->name, name.at, name.n);
		if (order == 0 && m->name[name.n] == '\0')
			return m;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

const char *
sbx_model_group(const struct sbx_model *m)
{
	return m->same_as ? m->same_as : m->model;
}
