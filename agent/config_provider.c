/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_provider.c -- the "providers" of a configuration: known rows filled in, keys read, models turned into targets.
 *
 * A provider with mistakes still gets its row, so that a route which names it is not reported as well. A key goes only
 * where it was meant to go: a known provider that is moved to another host does not take its usual variable along.
 */
#include "agent/config_build.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <signalbox/errors.h>

#include "agent/config_url.h"
#include "agent/core/facts.h"
#include "agent/core/warm.h"
#include "agent/dialect/hub.h"
#include "agent/dialect/json_scan.h"

#define DAY_MS        86400000 /* no answer is waited for longer */
#define ATTEMPTS_MAX  16       /* of one request; SBX_ATTEMPTS_MAX leaves room for those that do not count */
#define PER_TARGET_MAX 8
#define CONTEXT_MAX   1000000000
#define WARM_EVERY_MAX_MS 25000 /* an idle connection is used no more after 30 s (io/lane.c) */

/* What a provider's object holds, before it is judged. */
struct draft {
	struct sbx_span key, keys, dialect, base_url, query, ca_file, proxy, models, timeouts, attempts, warm, quirks, like, operations;
	bool plaintext, replay_uncertain, idempotency_key;
	int http, auth; /* -1 = not said */
};

static const char *const http_words[] = { "1.1", "2", "auto", NULL };           /* enum sbx_http */
static const char *const auth_words[] = {
#define X(name, word, header) word,
	SBX_AUTHS(X)
#undef X
	NULL
};

#define SPAN(member) { #member, sbx_read_span, offsetof(struct draft, member), 0, 0, NULL }
static const struct sbx_read_field provider_fields[] = {
	SPAN(key), SPAN(keys), SPAN(dialect), SPAN(base_url), SPAN(query), SPAN(ca_file), SPAN(proxy), SPAN(models),
	SPAN(timeouts), SPAN(attempts), SPAN(warm), SPAN(quirks), SPAN(like), SPAN(operations),
	{ "plaintext", sbx_read_bool, offsetof(struct draft, plaintext), 0, 0, NULL },
	{ "http", sbx_read_choice, offsetof(struct draft, http), 0, 0, http_words },
	{ "auth", sbx_read_choice, offsetof(struct draft, auth), 0, 0, auth_words },
	{ "replay_uncertain", sbx_read_bool, offsetof(struct draft, replay_uncertain), 0, 0, NULL },
	{ "idempotency_key", sbx_read_bool, offsetof(struct draft, idempotency_key), 0, 0, NULL },
	{ "probe", sbx_read_unsupported, 0, 0, 0, NULL },
};
#undef SPAN

#define QUIRK(member) { #member, sbx_read_bool, offsetof(struct sbx_quirks, member), 0, 0, NULL }
static const struct sbx_read_field quirk_fields[] = { QUIRK(no_stream_options), QUIRK(no_finish), QUIRK(reasoning_apart) };
#undef QUIRK

#define MS(name, member, min) { name, sbx_read_ms, offsetof(struct sbx_policy, member), min, DAY_MS, NULL }
static const struct sbx_read_field timeout_fields[] = {
	MS("connect_ms", connect_ns, 1),
	MS("first_content_ms", first_content_ns, 1),
	MS("first_content_max_ms", first_content_max_ns, 1),
	MS("reasoning_first_content_ms", reasoning_first_content_ns, 1),
	MS("whole_ms", whole_ns, 1),
	MS("reasoning_whole_ms", reasoning_whole_ns, 1),
	MS("idle_bytes_ms", idle_bytes_ns, 1),
	MS("idle_content_ms", idle_content_ns, 1),
	MS("after_finish_ms", after_finish_ns, 1),
	MS("wait_short_ms", wait_short_ns, 0),
	MS("wait_max_ms", wait_max_ns, 0),
};
static const struct sbx_read_field attempt_fields[] = {
	{ "per_target", sbx_read_u8, offsetof(struct sbx_policy, attempts_per_target), 1, PER_TARGET_MAX, NULL },
	MS("backoff_base_ms", backoff_base_ns, 1),
	MS("backoff_cap_ms", backoff_cap_ns, 1),
	{ "total", sbx_read_u8, offsetof(struct sbx_policy, attempts_max), 1, ATTEMPTS_MAX, NULL }, /* the last: top level only */
};
static const struct sbx_read_field warm_fields[] = {
	{ "connections", sbx_read_u8, offsetof(struct sbx_policy, warm_connections), 1, SBX_WARM_AT_ONCE, NULL },
	{ "every_ms", sbx_read_ms, offsetof(struct sbx_policy, warm_every_ns), 100, WARM_EVERY_MAX_MS, NULL },
	MS("after_use_ms", warm_after_use_ns, 0),
};
#undef MS

struct model {
	int64_t context;
	bool reasoning;
};
static const struct sbx_read_field model_fields[] = {
	{ "context", sbx_read_i64, offsetof(struct model, context), 1, CONTEXT_MAX, NULL },
	{ "reasoning", sbx_read_bool, offsetof(struct model, reasoning), 0, 0, NULL },
	{ "max_output", sbx_read_unsupported, 0, 0, 0, NULL },
	{ "same_as", sbx_read_unsupported, 0, 0, 0, NULL },
	{ "prices", sbx_read_unsupported, 0, 0, 0, NULL },
};

#define N(table) (sizeof(table) / sizeof(table)[0])

/* ==== times and counts ==== */

static void
check_order(struct sbx_build *b, struct sbx_span at, const char *low_name, uint64_t low_ns, const char *high_name, uint64_t high_ns)
{
	if (low_ns > high_ns)
		sbx_read_error(&b->r, at, "%s (%llu) is above %s (%llu)", low_name, (unsigned long long)(low_ns / 1000000), high_name,
		               (unsigned long long)(high_ns / 1000000));
}

void
sbx_build_policy(struct sbx_build *b, struct sbx_span timeouts, struct sbx_span attempts, bool top, struct sbx_policy *policy)
{
	if (timeouts.n) {
		size_t mark = sbx_read_enter(&b->r, "timeouts");
		sbx_read_object(&b->r, timeouts, timeout_fields, N(timeout_fields), policy);
		check_order(b, timeouts, "first_content_ms", policy->first_content_ns, "first_content_max_ms", policy->first_content_max_ns);
		check_order(b, timeouts, "wait_short_ms", policy->wait_short_ns, "wait_max_ms", policy->wait_max_ns);
		sbx_read_leave(&b->r, mark);
	}
	if (attempts.n) {
		size_t mark = sbx_read_enter(&b->r, "attempts");
		struct sbx_span total;
		if (!top && sbx_json_get(attempts, "total", &total)) {
			size_t deeper = sbx_read_enter(&b->r, "total");
			sbx_read_error(&b->r, total, "counts the attempts of a request on all its targets: it belongs at the top level");
			sbx_read_leave(&b->r, deeper);
		}
		sbx_read_object(&b->r, attempts, attempt_fields, N(attempt_fields), policy);
		check_order(b, attempts, "backoff_base_ms", policy->backoff_base_ns, "backoff_cap_ms", policy->backoff_cap_ns);
		sbx_read_leave(&b->r, mark);
	}
}

void
sbx_build_warm(struct sbx_build *b, struct sbx_span warm, struct sbx_policy *policy)
{
	bool on = true;
	if (!warm.n)
		return;
	size_t mark = sbx_read_enter(&b->r, "warm");
	bool is_object = sbx_json_type(warm) == SBX_JSON_OBJECT;
	if (!is_object && !sbx_json_bool(warm, &on))
		sbx_read_error(&b->r, warm, "must be an object, or true or false");
	if (!on)
		policy->warm_connections = 0;
	else if (policy->warm_connections == 0) /* the top level says that there are none */
		policy->warm_connections = sbx_policy_default().warm_connections;
	if (is_object)
		sbx_read_object(&b->r, warm, warm_fields, N(warm_fields), policy);
	sbx_read_leave(&b->r, mark);
}

/* Without TLS there is little to save, and such a server is near: it is left alone unless its own "warm" says otherwise. */
static void
settle_warm(struct sbx_provider *p, bool told)
{
	if (!told && p->base_url && strncmp(p->base_url, "https:", 6) != 0)
		p->policy.warm_connections = 0;
}

/* ==== targets ==== */

uint32_t
sbx_build_target(struct sbx_build *b, struct sbx_span at, uint32_t provider, const char *model)
{
	struct sbx_tables *t = &b->c->tables;
	for (uint32_t i = 0; i < t->n_targets; i++)
		if (t->target[i].provider == provider && strcmp(t->target[i].model, model) == 0)
			return i;
	if (t->n_targets == SBX_TARGETS_MAX) {
		sbx_read_error(&b->r, at, "more than %d models and route targets in all", SBX_TARGETS_MAX);
		return UINT32_MAX;
	}
	if (t->n_targets == b->target_cap) {
		uint32_t cap = b->target_cap ? 2 * b->target_cap : 64;
		struct sbx_target *grown = realloc(t->target, cap * sizeof *grown);
		if (!grown) {
			b->r.no_memory = true;
			return UINT32_MAX;
		}
		t->target = grown;
		b->target_cap = cap;
	}
	struct sbx_target target = { .provider = (uint16_t)provider, .model = strdup(model), .reasoning = sbx_model_reasons(model) };
	if (!target.model || asprintf(&target.name, "%s/%s", t->provider[provider].name, model) < 0) {
		free(target.model);
		b->r.no_memory = true;
		return UINT32_MAX;
	}
	target.known = sbx_facts_find(t->facts, sbx_span_of(target.name));
	if (target.known) {
		target.reasoning = target.known->caps & SBX_MODEL_REASONS;
		target.context_tokens = target.known->context_tokens;
	}
	t->target[t->n_targets] = target;
	return t->n_targets++;
}

static void
read_models(struct sbx_build *b, struct sbx_span models, uint32_t provider)
{
	if (!sbx_read_is_object(&b->r, models))
		return;
	struct sbx_json_iter it = sbx_json_object_iter(models);
	struct sbx_span name, value;
	while (sbx_json_object_next(&it, &name, &value)) {
		char *model = sbx_read_string(&b->r, name, SBX_MODEL_MAX_BYTES);
		uint32_t i = model ? sbx_build_target(b, name, provider, model) : UINT32_MAX;
		if (i != UINT32_MAX) {
			struct sbx_target *t = &b->c->tables.target[i];
			struct model m = { .context = t->context_tokens, .reasoning = t->reasoning };
			size_t mark = sbx_read_enter(&b->r, model);
			sbx_read_object(&b->r, value, model_fields, N(model_fields), &m);
			sbx_read_leave(&b->r, mark);
			t->context_tokens = m.context;
			t->reasoning = m.reasoning;
		}
		free(model);
	}
}

/* ==== keys ==== */

/* A credential of the provider that was added last. secret NULL: it wants no key. Takes the reference. */
static void
add_credential(struct sbx_build *b, const char *source, struct sbx_secret *secret)
{
	struct sbx_tables *t = &b->c->tables;
	struct sbx_provider *p = &t->provider[t->n_providers - 1];
	struct sbx_credential *grown = realloc(t->credential, (t->n_credentials + 1) * sizeof *grown);
	if (grown)
		t->credential = grown;
	struct sbx_credential c = { .provider = (uint16_t)(t->n_providers - 1), .source = strdup(source), .secret = secret };
	if (!grown || !c.source) {
		free(c.source);
		sbx_secret_put(secret);
		b->r.no_memory = true;
		return;
	}
	if (secret)
		memcpy(c.fingerprint, sbx_secret_fingerprint(secret), sizeof c.fingerprint);
	if (p->n_credentials == 0)
		p->first_credential = t->n_credentials;
	t->credential[t->n_credentials++] = c;
	p->n_credentials++;
}

/* A variable that is not set leaves the provider without that key, which is a warning; everything else that goes wrong
 * with a source was written on purpose and is a mistake. */
static void
read_key(struct sbx_build *b, struct sbx_span at, const char *source)
{
	char why[512];
	struct sbx_secret *secret = NULL;
	int rc = sbx_key_read(b->vault, source, &secret, why, sizeof why);
	if (rc == 0) {
		if (why[0])
			sbx_read_say(&b->r, SBX_CONFIG_WARNING, at, "%s", why);
		add_credential(b, source, secret);
	} else if (rc == -SBX_ENOMEM) {
		b->r.no_memory = true;
	} else if (rc == -SBX_ENOENT && strncmp(source, "env:", 4) == 0) {
		sbx_read_say(&b->r, SBX_CONFIG_WARNING, at, "%s", why);
	} else {
		sbx_read_error(&b->r, at, "%s", why);
	}
}

/* "key": a source, or "none". */
static void
read_key_value(struct sbx_build *b, struct sbx_span value, bool none_ok, struct sbx_provider *p)
{
	char *source = sbx_read_string(&b->r, value, 4096);
	if (!source)
		return;
	if (strcmp(source, "none") == 0 && none_ok) {
		p->auth = SBX_AUTH_NONE;
		add_credential(b, "none", NULL);
	} else if (!sbx_key_source_ok(source)) {
		sbx_read_error(&b->r, value, "must say where the key is: \"env:NAME\", \"file:/PATH\" or \"cred:NAME\"%s. A key itself never stands "
		               "in the configuration; if this is one, replace it at the provider", none_ok ? ", or \"none\"" : "");
	} else {
		read_key(b, value, source);
	}
	free(source);
}

static void
read_keys(struct sbx_build *b, struct sbx_span keys, struct sbx_provider *p)
{
	if (sbx_json_type(keys) != SBX_JSON_ARRAY) {
		sbx_read_error(&b->r, keys, "must be an array of key sources; one alone is \"key\"");
		return;
	}
	struct sbx_json_iter it = sbx_json_array_iter(keys);
	struct sbx_span value, seen[SBX_KEYS_MAX];
	uint32_t n = 0;
	while (sbx_json_array_next(&it, &value)) {
		if (n == SBX_KEYS_MAX) {
			sbx_read_error(&b->r, value, "more than %d keys", SBX_KEYS_MAX);
			break;
		}
		bool again = false;
		for (uint32_t i = 0; i < n; i++)
			again |= sbx_span_eq(seen[i], value);
		seen[n++] = value;
		if (again)
			sbx_read_error(&b->r, value, "the same key source twice");
		else
			read_key_value(b, value, false, p);
	}
	if (n == 0)
		sbx_read_error(&b->r, keys, "must not be empty");
}

/* The first usual variable that is set; NULL: none is. */
static const char *
usual_variable(const struct sbx_build *b, const struct sbx_known_provider *known)
{
	for (size_t i = 0; i < SBX_KNOWN_KEY_VARS_MAX && known->key_var[i]; i++)
		if (sbx_vault_has(b->vault, known->key_var[i]))
			return known->key_var[i];
	return NULL;
}

/* No "key" was written. `at`: the provider's name in the file, empty when it is not there. */
static void
read_usual_key(struct sbx_build *b, struct sbx_span at, const struct sbx_known_provider *known, bool moved, struct sbx_provider *p)
{
	const char *variable = known ? usual_variable(b, known) : NULL;
	if (!known) {
		sbx_read_error(&b->r, at, "needs \"key\": \"env:NAME\", \"file:/PATH\", \"cred:NAME\", or \"none\" if it takes none");
	} else if (moved && !known->key_optional) {
		sbx_read_error(&b->r, at, "needs \"key\": base_url moves it to another host, and %s is not sent there unasked", known->key_var[0]);
	} else if (variable) {
		char source[80];
		(void)snprintf(source, sizeof source, "env:%s", variable);
		read_key(b, at, source);
	} else if (known->key_optional) {
		p->auth = SBX_AUTH_NONE;
		add_credential(b, "none", NULL);
	} else {
		sbx_read_say(&b->r, SBX_CONFIG_WARNING, at, "no key: the variable %s is not set, and the configuration names no other source",
		             known->key_var[0]);
	}
}

/* ==== one provider ==== */

static const char *
known_name_at(const void *arg, size_t i)
{
	(void)arg;
	return sbx_known_providers[i].name;
}

/* A row with the defaults; the caller fills it. NULL: no room. */
static struct sbx_provider *
add_provider(struct sbx_build *b, struct sbx_span at, const char *name)
{
	struct sbx_tables *t = &b->c->tables;
	if (t->n_providers == SBX_PROVIDERS_MAX) {
		sbx_read_error(&b->r, at, "more than %d providers", SBX_PROVIDERS_MAX);
		return NULL;
	}
	struct sbx_provider *p = &t->provider[t->n_providers];
	*p = (struct sbx_provider){ .name = strdup(name), .auth = SBX_AUTH_BEARER, .http = SBX_HTTP_1_1, .policy = b->c->policy };
	p->dialect = sbx_dialect_find("openai-chat");
	if (!p->name) {
		b->r.no_memory = true;
		return NULL;
	}
	t->n_providers++;
	return p;
}

static void
read_dialect(struct sbx_build *b, struct sbx_span value, struct sbx_provider *p)
{
	static const char *const later[] = { "openai-responses", "anthropic", "gemini", "mistral", "cohere-v2", "bedrock-converse", NULL };
	size_t mark = sbx_read_enter(&b->r, "dialect");
	char *name = sbx_read_string(&b->r, value, 64);
	const struct sbx_dialect *dialect = name ? sbx_dialect_find(name) : NULL;
	if (dialect) {
		p->dialect = dialect;
	} else if (name) {
		size_t i = 0;
		while (later[i] && strcmp(later[i], name) != 0)
			i++;
		sbx_read_error(&b->r, value, later[i] ? "\"%s\" is not supported yet by this version" : "unknown dialect \"%s\"; known: openai-chat", name);
	}
	free(name);
	sbx_read_leave(&b->r, mark);
}

/* What the provider lacks, by its list of what it has, or else by its row; and what its dialect lacks. */
static void
read_operations(struct sbx_build *b, struct sbx_span list, uint32_t row_lacks, struct sbx_provider *p)
{
	size_t mark = sbx_read_enter(&b->r, "operations");
	struct sbx_json_iter it = sbx_json_array_iter(list);
	struct sbx_span value;
	uint32_t has = 0;
	if (list.n && sbx_json_type(list) != SBX_JSON_ARRAY)
		sbx_read_error(&b->r, list, "must be an array of \"chat\", \"completions\", \"embeddings\", \"count_tokens\"");
	while (sbx_json_array_next(&it, &value)) {
		enum sbx_op op = SBX_OP_CHAT;
		while (op < SBX_OP__COUNT && !sbx_json_string_eq(value, sbx_op_word(op)))
			op++;
		if (op == SBX_OP__COUNT)
			sbx_read_error(&b->r, value, "must be \"chat\", \"completions\", \"embeddings\" or \"count_tokens\"");
		else if (!p->dialect->path[op])
			sbx_read_error(&b->r, value, "the dialect \"%s\" has no %s", p->dialect->name, sbx_op_word(op));
		has |= 1u << op;
	}
	p->lacks = list.n ? ~has : row_lacks;
	for (int op = 0; op < SBX_OP__COUNT; op++)
		if (!p->dialect->path[op])
			p->lacks |= 1u << op;
	sbx_read_leave(&b->r, mark);
}

/* A text member that a check turns into its final form. */
static void
read_url(struct sbx_build *b, const char *member, struct sbx_span value, bool plaintext, char **ret_url)
{
	if (!value.n)
		return;
	char why[256] = "";
	bool proxy = strcmp(member, "proxy") == 0;
	size_t mark = sbx_read_enter(&b->r, member);
	char *text = sbx_read_string(&b->r, value, 2048);
	int rc = !text ? 0 : proxy ? sbx_url_proxy(text, ret_url, why, sizeof why) : sbx_url_base(text, plaintext, ret_url, why, sizeof why);
	if (rc == -SBX_ENOMEM)
		b->r.no_memory = true;
	else if (rc)
		sbx_read_error(&b->r, value, "%s", why);
	free(text);
	sbx_read_leave(&b->r, mark);
}

static void
read_query_and_ca(struct sbx_build *b, const struct draft *d, struct sbx_provider *p)
{
	char why[256];
	if (d->query.n) {
		size_t mark = sbx_read_enter(&b->r, "query");
		p->query = sbx_read_string(&b->r, d->query, 1024);
		if (p->query && !sbx_url_query_ok(p->query, why, sizeof why))
			sbx_read_error(&b->r, d->query, "%s", why);
		sbx_read_leave(&b->r, mark);
	}
	if (d->ca_file.n) {
		size_t mark = sbx_read_enter(&b->r, "ca_file");
		p->ca_file = sbx_read_string(&b->r, d->ca_file, 4096);
		if (p->ca_file && p->ca_file[0] != '/')
			sbx_read_error(&b->r, d->ca_file, "must be an absolute path");
		else if (p->ca_file && access(p->ca_file, R_OK) < 0)
			sbx_read_error(&b->r, d->ca_file, "cannot be read");
		sbx_read_leave(&b->r, mark);
	}
}

/* The row whose ways this provider has: its own if it is known, else that of "like". */
static const struct sbx_known_provider *
read_like(struct sbx_build *b, struct sbx_span value, const struct sbx_known_provider *own)
{
	if (!value.n)
		return own;
	size_t mark = sbx_read_enter(&b->r, "like");
	char hint[128];
	char *name = sbx_read_string(&b->r, value, SBX_NAME_MAX_BYTES);
	const struct sbx_known_provider *like = name ? sbx_known_provider_find(name) : NULL;
	if (name && !like)
		sbx_read_error(&b->r, value, "no known provider \"%s\"%s", name,
		               sbx_nearest_hint(name, known_name_at, NULL, sbx_known_providers_n, hint, sizeof hint));
	free(name);
	sbx_read_leave(&b->r, mark);
	return like;
}

/* Where its host variable says that it is, where there is one; else the row's own base URL. false: that address is not to
 * be used, and the provider is kept out of use at its own. *ret_url is NULL where the row has none. */
static bool
default_base_url(struct sbx_build *b, struct sbx_span at, const struct sbx_known_provider *known, char **ret_url)
{
	const char *host = known->host_var ? getenv(known->host_var) : NULL;
	char text[512], why[256] = "";
	int rc = 0;
	if (host && *host) {
		rc = sbx_url_from_host_var(host, text, sizeof text);
		if (rc == 0)
			rc = sbx_url_base(text, false, ret_url, why, sizeof why);
		if (rc == 0)
			return true;
		if (rc != -SBX_ENOMEM)
			sbx_read_say(&b->r, SBX_CONFIG_WARNING, at, "not used: the address in %s %s", known->host_var, why[0] ? why : "is too long");
	}
	if (known->base_url && (*ret_url = strdup(known->base_url)) == NULL)
		b->r.no_memory = true;
	return rc == 0;
}

static void
read_provider(struct sbx_build *b, struct sbx_span at, const char *name, struct sbx_span value)
{
	const struct sbx_known_provider *known = sbx_known_provider_find(name);
	struct sbx_provider *p = add_provider(b, at, name);
	if (!p)
		return;
	struct draft d = { .http = -1, .auth = -1, .replay_uncertain = p->policy.replay_uncertain };
	bool is_object = sbx_json_type(value) == SBX_JSON_OBJECT;
	if (is_object)
		sbx_read_object(&b->r, value, provider_fields, N(provider_fields), &d);
	else if (!known) /* true */
		sbx_read_error(&b->r, value, "must be an object: \"%s\" is not a provider that is known without one", name);

	const struct sbx_known_provider *row = read_like(b, d.like, known);
	if (row) {
		p->auth = row->auth;
		p->quirks = row->quirks;
		p->dialect = sbx_known_provider_dialect(row);
	}
	if (d.auth >= 0)
		p->auth = (enum sbx_auth)d.auth;
	if (d.http >= 0)
		p->http = (enum sbx_http)d.http;
	p->plaintext = d.plaintext;
	p->idempotency_key = d.idempotency_key;
	p->policy.replay_uncertain = d.replay_uncertain;
	if (d.dialect.n)
		read_dialect(b, d.dialect, p);
	read_operations(b, d.operations, row ? row->lacks : 0, p);
	if (d.quirks.n) {
		size_t mark = sbx_read_enter(&b->r, "quirks");
		sbx_read_object(&b->r, d.quirks, quirk_fields, N(quirk_fields), &p->quirks);
		sbx_read_leave(&b->r, mark);
	}
	sbx_build_policy(b, d.timeouts, d.attempts, false, &p->policy);
	read_url(b, "base_url", d.base_url, d.plaintext, &p->base_url);
	read_url(b, "proxy", d.proxy, true, &p->proxy);
	read_query_and_ca(b, &d, p);
	sbx_build_warm(b, d.warm, &p->policy);

	bool moved = p->base_url && known && known->base_url && !sbx_url_same_origin(p->base_url, known->base_url);
	bool usable = d.base_url.n || !known || default_base_url(b, at, known, &p->base_url);
	bool placed = p->base_url || d.base_url.n;
	if (!placed && is_object) {
		char hint[128] = "";
		if (!known)
			(void)sbx_nearest_hint(name, known_name_at, NULL, sbx_known_providers_n, hint, sizeof hint);
		sbx_read_error(&b->r, at, known ? "needs \"base_url\": its address differs for each customer%s" :
		                                  "needs \"base_url\": it is not a provider that this version knows%s", hint);
	}

	if (d.key.n && d.keys.n) {
		sbx_read_error(&b->r, d.keys, "\"key\" and \"keys\" exclude each other");
	} else if (d.key.n || d.keys.n) {
		size_t mark = sbx_read_enter(&b->r, d.key.n ? "key" : "keys");
		if (d.key.n)
			read_key_value(b, d.key, true, p);
		else
			read_keys(b, d.keys, p);
		sbx_read_leave(&b->r, mark);
	} else if (d.auth == SBX_AUTH_NONE) {
		add_credential(b, "none", NULL);
	} else if (placed) {
		read_usual_key(b, at, known, moved, p);
	}
	if (d.auth == SBX_AUTH_NONE && p->n_credentials && b->c->tables.credential[p->first_credential].secret)
		sbx_read_error(&b->r, at, "\"auth\": \"none\" and a key exclude each other");
	if (d.models.n) {
		size_t mark = sbx_read_enter(&b->r, "models");
		read_models(b, d.models, b->c->tables.n_providers - 1);
		sbx_read_leave(&b->r, mark);
	}
	settle_warm(p, d.warm.n);
	if (!usable)
		p->n_credentials = 0;
}

/* ==== all of them ==== */

void
sbx_build_providers(struct sbx_build *b, struct sbx_span providers)
{
	if (!providers.n)
		return;
	size_t outer = sbx_read_enter(&b->r, "providers");
	if (sbx_read_is_object(&b->r, providers)) {
		struct sbx_json_iter it = sbx_json_object_iter(providers);
		struct sbx_span at, value;
		char name[SBX_NAME_MAX_BYTES];
		while (sbx_json_object_next(&it, &at, &value)) {
			if (!sbx_read_name_ok(&b->r, at, name, sizeof name))
				continue;
			const struct sbx_known_provider *known = sbx_known_provider_find(name);
			if (known)
				b->mentioned[known - sbx_known_providers] = true;
			bool wanted = true;
			size_t mark = sbx_read_enter(&b->r, name);
			if (sbx_json_type(value) != SBX_JSON_OBJECT && !sbx_json_bool(value, &wanted))
				sbx_read_error(&b->r, value, "must be an object, or true or false");
			else if (wanted)
				read_provider(b, at, name, value);
			sbx_read_leave(&b->r, mark);
		}
	}
	sbx_read_leave(&b->r, outer);
}

uint32_t
sbx_build_known(struct sbx_build *b, struct sbx_span at, const struct sbx_known_provider *known)
{
	struct sbx_provider *p = add_provider(b, at, known->name);
	if (!p)
		return UINT32_MAX;
	size_t mark = sbx_read_enter(&b->r, known->name);
	p->auth = known->auth;
	p->quirks = known->quirks;
	p->dialect = sbx_known_provider_dialect(known);
	p->lacks = known->lacks;
	for (int op = 0; op < SBX_OP__COUNT; op++)
		if (!p->dialect->path[op])
			p->lacks |= 1u << op;
	if (default_base_url(b, at, known, &p->base_url))
		read_usual_key(b, at, known, false, p);
	settle_warm(p, false);
	sbx_read_leave(&b->r, mark);
	return b->c->tables.n_providers - 1;
}

void
sbx_build_environment(struct sbx_build *b)
{
	for (size_t i = 0; i < sbx_known_providers_n; i++) {
		const struct sbx_known_provider *known = &sbx_known_providers[i];
		const char *host = known->host_var ? getenv(known->host_var) : NULL;
		const char *variable = usual_variable(b, known);
		const char *because = host && *host ? known->host_var : variable;
		/* Without an address, or where the key is a side matter, a variable alone does not say that the provider is there. */
		if (b->mentioned[i] || !because || !known->base_url || (known->key_optional && because == variable))
			continue;
		uint32_t provider = sbx_build_known(b, (struct sbx_span){ NULL, 0 }, known);
		if (provider != UINT32_MAX && b->c->tables.provider[provider].n_credentials)
			sbx_read_say(&b->r, SBX_CONFIG_NOTE, (struct sbx_span){ NULL, 0 }, "provider %s is enabled because the variable %s is set",
			             known->name, because);
	}
	/* The keys of providers that are not used do not stay in the environment either. */
	for (size_t i = 0; i < sbx_known_providers_n; i++) {
		for (size_t k = 0; k < SBX_KNOWN_KEY_VARS_MAX && sbx_known_providers[i].key_var[k]; k++) {
			char source[80], why[256];
			struct sbx_secret *secret = NULL;
			(void)snprintf(source, sizeof source, "env:%s", sbx_known_providers[i].key_var[k]);
			if (sbx_key_read(b->vault, source, &secret, why, sizeof why) == 0)
				sbx_secret_put(secret); /* the vault holds its own */
		}
	}
}
