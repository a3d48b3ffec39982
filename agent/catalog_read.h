/* SPDX-License-Identifier: Apache-2.0 */
/* catalog_read.h -- reading one model's block into the tables. Shared by catalog.c and catalog_read.c; private to them. */
#ifndef SBX_AGENT_CATALOG_READ_H
#define SBX_AGENT_CATALOG_READ_H

#include "agent/catalog.h"
#include "agent/config_read.h"

struct sbx_catalog_build {
	struct sbx_reader r;
	struct sbx_catalog *c;
	uint32_t model_cap, row_cap, window_cap, tier_cap; /* allocated; they double */
	uint32_t n_before; /* models of lists read earlier: what they have is not read again */
};

/* Appends the model, or says why not. */
void sbx_catalog_read_model(struct sbx_catalog_build *b, struct sbx_span block);
/* Frees and forgets everything after these counts. */
struct sbx_catalog_mark {
	uint32_t models, rows, windows, tiers;
};
void sbx_catalog_cut(struct sbx_catalog *c, struct sbx_catalog_mark to);

#endif
