/* SPDX-License-Identifier: Apache-2.0 */
/* whom.c -- see whom.h. */
#include "agent/io/whom.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/core/names.h"

#define TAGS_JSON_MAX_BYTES (SBX_SAID_MAX * (2 * SBX_TAG_MAX_BYTES + 3) + 2) /* every byte a quote */

struct sbx_tenant {
	struct sbx_tenant *next;
	uint32_t in_flight;
	char name[SBX_PRINCIPAL_MAX_BYTES + 1];
};

bool
sbx_whom_trusts(const struct sbx_agent *agent, const struct sbx_peer *peer)
{
	const struct sbx_config *config = agent->world->config;
	if (peer->uid == 0 || peer->uid == geteuid() || peer->uid == agent->door_uid)
		return true;
	for (uint32_t i = 0; i < config->listen.n_trusted_uids; i++)
		if (config->listen.trusted_uid[i] == peer->uid)
			return true;
	return false;
}

/* Where the tenant is, or where he belongs. Names are chosen by who is trusted, so nobody gains by collisions. */
static struct sbx_tenant **
place_of(struct sbx_tenant **buckets, struct sbx_span name)
{
	struct sbx_tenant **at = &buckets[sbx_names_hash(0, name) % SBX_TENANT_BUCKETS];
	while (*at && !sbx_span_is(name, (*at)->name))
		at = &(*at)->next;
	return at;
}

uint32_t
sbx_whom_in_flight(const struct sbx_agent *agent, const struct sbx_peer *peer, struct sbx_span tenant)
{
	if (!tenant.n)
		return peer->in_flight;
	const struct sbx_tenant *t = *place_of((struct sbx_tenant **)(uintptr_t)agent->tenants, tenant); /* only looks */
	return t ? t->in_flight : 0;
}

static struct sbx_tenant *
take_share(struct sbx_agent *agent, struct sbx_span name)
{
	struct sbx_tenant **at = place_of(agent->tenants, name);
	if (!*at) {
		*at = calloc(1, sizeof **at);
		if (!*at)
			return NULL;
		memcpy((*at)->name, name.at, name.n);
	}
	(*at)->in_flight++;
	return *at;
}

static void
put_share(struct sbx_agent *agent, struct sbx_tenant *t)
{
	if (--t->in_flight)
		return;
	*place_of(agent->tenants, sbx_span_of(t->name)) = t->next;
	free(t);
}

static int
fmt_tags(const struct sbx_said *tags, struct sbx_buf *json)
{
	int rc = 0;
	for (uint32_t i = 0; i < tags->n && !rc; i++) {
		rc = sbx_buf_append(json, i ? "," : "[", 1);
		if (!rc)
			rc = sbx_json_string_encode(tags->name[i].at, tags->name[i].n, json);
	}
	return rc ? rc : sbx_buf_append(json, "]", 1);
}

static const char *
keep(struct sbx_whom *w, size_t *at, struct sbx_span text)
{
	char *copy = w->text + *at;
	if (!text.n)
		return NULL;
	memcpy(copy, text.at, text.n);
	copy[text.n] = '\0';
	*at += text.n + 1;
	return copy;
}

int
sbx_whom_new(struct sbx_agent *agent, struct sbx_peer *peer, const struct sbx_submit *submit, const struct sbx_routing *routing,
             struct sbx_whom **ret_whom)
{
	/* What the client says of the end user comes before what the body says, which the end user may have written. */
	struct sbx_span user = submit->user.n || !routing ? submit->user : sbx_span_of(routing->user);
	struct sbx_span tags = { NULL, 0 };
	struct sbx_whom *w = NULL;
	struct sbx_buf json;
	size_t at = 0;
	int rc = 0;
	sbx_buf_init(&json, TAGS_JSON_MAX_BYTES);
	if (routing && routing->tags.n) {
		rc = fmt_tags(&routing->tags, &json);
		tags = (struct sbx_span){ (const char *)json.data, json.n };
	}
	size_t bytes = submit->tenant.n + submit->key.n + user.n + tags.n;
	if (!rc && bytes) {
		w = calloc(1, sizeof *w + bytes + 4);
		rc = w ? 0 : -SBX_ENOMEM;
	}
	if (!rc && submit->tenant.n && !(w->share = take_share(agent, submit->tenant)))
		rc = -SBX_ENOMEM;
	if (rc) {
		free(w);
	} else {
		if (w) {
			w->tenant = keep(w, &at, submit->tenant);
			w->key = keep(w, &at, submit->key);
			w->user = keep(w, &at, user);
			w->tags = keep(w, &at, tags);
		}
		if (!w || !w->share)
			peer->in_flight++;
		*ret_whom = w;
	}
	sbx_buf_fini(&json);
	return rc;
}

void
sbx_whom_free(struct sbx_agent *agent, struct sbx_peer *peer, struct sbx_whom *w)
{
	if (w && w->share)
		put_share(agent, w->share);
	else
		peer->in_flight--;
	free(w);
}
