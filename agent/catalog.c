/* SPDX-License-Identifier: Apache-2.0 */
/* catalog.c -- see catalog.h: lists into one sorted table, and its life. A model's block is read in catalog_read.c. */
#include "agent/catalog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <signalbox/errors.h>

#include "agent/catalog_read.h"
#include "agent/dialect/json_scan.h"

struct list {
	struct sbx_span models;
};
static const struct sbx_read_field list_fields[] = { { "models", sbx_read_span, offsetof(struct list, models), 0, 0, NULL } };

/* Takes `text`. 0, -SBX_ENOMEM, or -SBX_ESYNTAX with `why` set: no list. */
static int
read_list(struct sbx_catalog_build *b, const char *name, char *text, size_t n, char *why, size_t why_bytes)
{
	struct sbx_json_scratch scratch;
	struct sbx_json_error err = { .what = "" };
	struct list list = { .models = { NULL, 0 } };
	sbx_json_scratch_init(&scratch);
	b->r.name = name;
	b->r.text = text;
	b->n_before = b->c->facts.n_models;
	sbx_read_blank_comments(text, n);
	int rc = sbx_json_check(text, n, &scratch, &err);
	if (rc) {
		(void)snprintf(why, why_bytes, "line %u: %s", err.line, err.what);
		rc = rc == -SBX_ENOMEM ? rc : -SBX_ESYNTAX;
		goto out;
	}
	sbx_read_object(&b->r, sbx_json_root(text, n), list_fields, 1, &list);
	if (sbx_json_type(list.models) != SBX_JSON_ARRAY) {
		(void)snprintf(why, why_bytes, "needs an array \"models\"");
		rc = -SBX_ESYNTAX;
		goto out;
	}
	struct sbx_json_iter it = sbx_json_array_iter(list.models);
	struct sbx_span block;
	char place[32];
	for (uint32_t i = 0; sbx_json_array_next(&it, &block); i++) {
		(void)snprintf(place, sizeof place, "models[%u]", i);
		size_t mark = sbx_read_enter(&b->r, place);
		sbx_catalog_read_model(b, block);
		sbx_read_leave(&b->r, mark);
	}
	rc = b->r.no_memory ? -SBX_ENOMEM : 0;
out:
	sbx_json_scratch_fini(&scratch);
	free(text);
	return rc;
}

static int
by_name(const void *a, const void *b)
{
	return strcmp(((const struct sbx_model *)a)->name, ((const struct sbx_model *)b)->name);
}

static int
begin(struct sbx_catalog_build *b, struct sbx_config_messages *ret_refused)
{
	sbx_config_messages_fini(ret_refused);
	*b = (struct sbx_catalog_build){ .r = { .errors = ret_refused }, .c = calloc(1, sizeof *b->c) };
	return b->c ? 0 : -SBX_ENOMEM;
}

static int
finish(struct sbx_catalog_build *b, int rc, struct sbx_catalog **ret_catalog)
{
	if (rc) {
		sbx_catalog_free(b->c);
		return rc;
	}
	struct sbx_facts *f = &b->c->facts;
	if (f->n_models)
		qsort(f->model, f->n_models, sizeof *f->model, by_name);
	*ret_catalog = b->c;
	return 0;
}

static char *
copy_of(const char *text, size_t n)
{
	char *copy = malloc(n + 1);
	if (copy) {
		memcpy(copy, text, n);
		copy[n] = '\0';
	}
	return copy;
}

int
sbx_catalog_parse(const char *name, const char *text, size_t n, struct sbx_config_messages *ret_refused, struct sbx_catalog **ret_catalog,
                  char *why, size_t why_bytes)
{
	struct sbx_catalog_build b;
	int rc = begin(&b, ret_refused);
	char *copy = copy_of(text, n);
	if (!copy)
		rc = -SBX_ENOMEM;
	if (rc == 0)
		rc = read_list(&b, name, copy, n, why, why_bytes);
	else
		free(copy);
	return finish(&b, rc, ret_catalog);
}

int
sbx_catalog_load(const char *path, struct sbx_config_messages *ret_refused, struct sbx_catalog **ret_catalog, char *why, size_t why_bytes)
{
	struct sbx_catalog_build b;
	char *text = NULL;
	size_t n = 0, builtin_n = (size_t)(sbx_catalog_builtin_end - sbx_catalog_builtin);
	int rc = begin(&b, ret_refused);
	if (rc == 0 && path)
		rc = sbx_read_file(path, SBX_CATALOG_MAX_BYTES, &text, &n, why, why_bytes);
	if (rc == 0 && path)
		rc = read_list(&b, path, text, n, why, why_bytes);
	if (rc == 0)
		rc = (text = copy_of(sbx_catalog_builtin, builtin_n)) ? read_list(&b, "built-in catalog", text, builtin_n, why, why_bytes) : -SBX_ENOMEM;
	return finish(&b, rc, ret_catalog);
}

void
sbx_catalog_cut(struct sbx_catalog *c, struct sbx_catalog_mark to)
{
	struct sbx_facts *f = &c->facts;
	while (f->n_models > to.models) {
		struct sbx_model *m = &f->model[--f->n_models];
		free(m->name);
		free(m->same_as);
	}
	while (f->n_rows > to.rows) {
		struct sbx_price_row *row = &f->row[--f->n_rows];
		free(row->id);
		free(row->source);
		free(row->read_on);
	}
	f->n_windows = to.windows;
	f->n_tiers = to.tiers;
}

void
sbx_catalog_free(struct sbx_catalog *c)
{
	if (!c)
		return;
	sbx_catalog_cut(c, (struct sbx_catalog_mark){ 0, 0, 0, 0 });
	free(c->facts.model);
	free(c->facts.row);
	free(c->facts.window);
	free(c->facts.tier);
	free(c);
}
