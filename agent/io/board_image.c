/* SPDX-License-Identifier: Apache-2.0 */
/* board_image.c -- see board_image.h. */
#include "agent/io/board_image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <signalbox/errors.h>

#include "agent/core/class.h"
#include "agent/core/health.h"
#include "agent/core/tariff.h"

/* The board's numbers are the agent's own: nothing is translated, so they must be the same. */
#define X(name, number, word) _Static_assert((int)SBX_BOARD_WHY_##name == (int)SBX_CLASS_##name, "why " #name);
SBX_BOARD_WHYS(X)
#undef X
_Static_assert((int)SBX_BOARD_WHY__COUNT == (int)SBX_CLASS__COUNT, "every class is a why");
_Static_assert((int)SBX_BOARD_UP == (int)SBX_BREAKER_CLOSED && (int)SBX_BOARD_DOWN == (int)SBX_BREAKER_OPEN &&
               (int)SBX_BOARD_PROBING == (int)SBX_BREAKER_HALF_OPEN && (int)SBX_BOARD_MISCONFIGURED == (int)SBX_BREAKER_AWAY && SBX_BREAKER__COUNT == 4, "states");
#define X(name, word, header) _Static_assert((int)SBX_BOARD_AUTH_##name == (int)SBX_AUTH_##name, "auth " word);
SBX_AUTHS(X)
#undef X
_Static_assert(SBX_BOARD_KEYS_MAX == SBX_KEYS_MAX && SBX_BOARD_ROUTE_TARGETS_MAX == SBX_ROUTE_TARGETS_MAX, "limits");

struct image {
	struct sbx_buf text;    /* grows while rows are filled */
	uint8_t *base;          /* the tables, zeroed */
	int rc;                 /* first failure */
};

static struct sbx_board_text
add_text(struct image *im, const char *text)
{
	const size_t n = strlen(text);
	const struct sbx_board_text t = { (uint32_t)im->text.n, (uint32_t)n };
	if (im->rc == 0)
		im->rc = sbx_buf_append(&im->text, text, n + 1);
	return t;
}

/* None where each model has its own, or a stream. */
static struct sbx_board_text
add_chat_url(struct image *im, const struct sbx_provider *p)
{
	const struct sbx_board_text t = { (uint32_t)im->text.n, 0 };
	if (p->dialect->path_of)
		return add_text(im, "");
	if (im->rc == 0)
		im->rc = sbx_buf_printf(&im->text, "%s%s%s%s", p->base_url, p->dialect->path[SBX_OP_CHAT], p->query ? "?" : "", p->query ? p->query : "");
	const uint32_t n = (uint32_t)im->text.n - t.offset;
	if (im->rc == 0)
		im->rc = sbx_buf_append(&im->text, "", 1);
	return (struct sbx_board_text){ t.offset, n };
}

static struct sbx_board_table
place(uint64_t *at, size_t row_bytes, uint32_t count)
{
	const struct sbx_board_table t = { *at, (uint32_t)row_bytes, count };
	*at += (uint64_t)row_bytes * count;
	return t;
}

/* What the model can do: what is stated, and what is known to be missing since a list that would name it does not. Where nobody
 * says, only what the agent itself goes by. */
static void
fill_caps(struct sbx_board_target *to, const struct sbx_target *from)
{
	static const struct { uint32_t model, cap; } caps[] = {
		{ SBX_MODEL_REASONING, SBX_CAP_REASONING }, { SBX_MODEL_TOOLS, SBX_CAP_TOOLS }, { SBX_MODEL_VISION, SBX_CAP_VISION },
		{ SBX_MODEL_JSON_SCHEMA, SBX_CAP_JSON_SCHEMA }, { SBX_MODEL_PREFILL, SBX_CAP_PREFILL },
	};
	to->caps = from->reasoning ? SBX_CAP_REASONING : 0;
	for (size_t i = 0; from->known && i < sizeof caps / sizeof caps[0]; i++) {
		if (from->known->caps & caps[i].model)
			to->caps |= caps[i].cap;
		if (from->known->says_caps && caps[i].cap != SBX_CAP_PREFILL)
			to->caps_known |= caps[i].cap;
	}
	to->caps_known |= to->caps;
}

static uint32_t
tokens_u32(uint64_t tokens) /* no model has 4 billion */
{
	return tokens < UINT32_MAX ? (uint32_t)tokens : UINT32_MAX;
}

static void
fill_target(struct image *im, const struct sbx_tables *t, const struct sbx_target *from, int64_t unix_s, struct sbx_board_target *to)
{
	const struct sbx_provider *p = &t->provider[from->provider];
	uint64_t prompt_tokens;

	fill_caps(to, from);
	sbx_tariff_bounds(t->facts, from->known, unix_s, &prompt_tokens, &to->price_request);
	to->price_tokens = tokens_u32(prompt_tokens);
	to->provider = from->provider;
	to->keyless = p->n_credentials == 0 && p->auth == SBX_AUTH_NONE;
	to->context_tokens = from->context_tokens > 0 ? tokens_u32((uint64_t)from->context_tokens) : 0;
	to->output_tokens = from->known && from->known->max_output_tokens > 0 ? tokens_u32((uint64_t)from->known->max_output_tokens) : 0;
	to->name = add_text(im, from->name);
	to->model = add_text(im, from->model);
	to->first_credential = p->n_credentials ? p->first_credential : 0;
	to->n_credentials = p->n_credentials;
}

static void
fill(struct image *im, const struct sbx_tables *t, int64_t unix_s, const struct sbx_board_header *h)
{
	for (uint32_t i = 0; i < t->n_targets; i++) {
		struct sbx_board_hot *hot = sbx_board_slot(im->base, &h->hot, i);
		hot->price_in = hot->price_out = hot->price_in_after = hot->price_out_after = (uint64_t)SBX_BOARD_UNPRICED;
		fill_target(im, t, &t->target[i], unix_s, sbx_board_slot(im->base, &h->target, i));
	}
	for (uint32_t i = 0; i < t->n_credentials; i++) {
		struct sbx_board_credential *to = sbx_board_slot(im->base, &h->credential, i);
		to->provider = t->credential[i].provider;
		to->fingerprint = (uint32_t)strtoul(t->credential[i].fingerprint, NULL, 16);
		to->source = add_text(im, t->credential[i].source);
	}
	for (uint32_t i = 0; i < t->n_providers; i++) {
		const struct sbx_provider *from = &t->provider[i];
		struct sbx_board_provider *to = sbx_board_slot(im->base, &h->provider, i);
		to->name = add_text(im, from->name);
		to->base_url = add_text(im, from->base_url);
		to->chat_url = add_chat_url(im, from);
		to->dialect = add_text(im, from->dialect->name);
		to->auth = (uint32_t)from->auth;
		to->first_credential = from->n_credentials ? from->first_credential : 0;
		to->n_credentials = from->n_credentials;
		to->wait_short_ns = from->policy.wait_short_ns;
	}
	for (uint32_t i = 0; i < t->n_routes; i++) {
		struct sbx_board_route *to = sbx_board_slot(im->base, &h->route, i);
		to->name = add_text(im, t->route[i].name);
		to->n_targets = t->route[i].n_targets;
		to->policy = SBX_BOARD_POLICY_PRIORITY;
		memcpy(to->target, t->route[i].target, t->route[i].n_targets * sizeof to->target[0]);
	}
}

int
sbx_board_image(const struct sbx_tables *t, const struct sbx_board_identity *id, int64_t unix_s, struct sbx_buf *out)
{
	uint64_t at = sizeof(struct sbx_board_header);
	struct sbx_board_header h = {
		.version_major = SBX_BOARD_VERSION_MAJOR,
		.version_minor = SBX_BOARD_VERSION_MINOR,
		.header_bytes = sizeof h,
		.generation = id->generation,
		.edition = id->edition,
		.agent_pid = id->pid,
		.agent_start_boot_ns = id->start_boot_ns,
		.heartbeat_interval_ns = SBX_BOARD_HEARTBEAT_NS,
		.agent_start_ticks = id->start_ticks,
		.agent_pid_ns = id->pid_ns,
		.boot_id = { id->boot_id[0], id->boot_id[1] },
		.state = SBX_BOARD_STARTING,
	};
	struct image im = { .rc = 0 };

	h.hot = place(&at, sizeof(struct sbx_board_hot), t->n_targets);
	h.credential = place(&at, sizeof(struct sbx_board_credential), t->n_credentials);
	h.target = place(&at, sizeof(struct sbx_board_target), t->n_targets);
	h.provider = place(&at, sizeof(struct sbx_board_provider), t->n_providers);
	h.route = place(&at, sizeof(struct sbx_board_route), t->n_routes);
	h.text_offset = at;
	im.base = sbx_buf_reserve(out, at);
	if (!im.base)
		return -SBX_ENOMEM;
	memset(im.base, 0, at);
	sbx_buf_init(&im.text, SBX_BOARD_BYTES_MAX / 2);
	im.rc = sbx_buf_append(&im.text, "", 1); /* the text of a zeroed reference: none */
	fill(&im, t, unix_s, &h);
	h.text_bytes = im.text.n;
	h.board_bytes = at + im.text.n;
	memcpy(im.base, &h, sizeof h);
	sbx_buf_commit(out, at);
	if (im.rc == 0)
		im.rc = sbx_buf_append(out, im.text.data, im.text.n);
	sbx_buf_fini(&im.text);
	return im.rc;
}
