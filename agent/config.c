/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.c -- see config.h: finding the file, the top level, "listen", "limits", "routes", and the life of the result.
 *
 * Providers are in config_provider.c, the reading of JSON by tables in config_read.c.
 */
#include "agent/config.h"

#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <signalbox/errors.h>

#include "agent/catalog.h"
#include "agent/config_build.h"
#include "agent/dialect/json_scan.h"
#include "agent/paths.h"

#define MEMORY_MIN_BYTES     (INT64_C(64) << 20) /* the agent itself has 16 MiB; below this nothing is left for requests */
#define MEMORY_MAX_BYTES     (INT64_C(16) << 40)
#define MEMORY_DEFAULT_BYTES (UINT64_C(1) << 30)
#define IN_FLIGHT_MAX        1000000
#define PATH_BYTES           4096
#define UID_MAX              4294967294 /* the last number is none */
#define UNMAPPED_UID         65534
#define STORE_PATH_MAX       4000 /* PATH_MAX less the suffixes of the files beside it */

#define N(table) (sizeof(table) / sizeof(table)[0])

/* ==== the shape of the file ==== */

struct root {
	struct sbx_span listen, limits, timeouts, attempts, warm, providers, routes, catalog, store;
	bool replay_uncertain;
};
#define SPAN(type, member) { #member, sbx_read_span, offsetof(type, member), 0, 0, NULL }
#define LATER(name)        { name, sbx_read_unsupported, 0, 0, 0, NULL }
static const struct sbx_read_field root_fields[] = {
	SPAN(struct root, listen), SPAN(struct root, limits), SPAN(struct root, timeouts), SPAN(struct root, attempts),
	SPAN(struct root, warm), SPAN(struct root, providers), SPAN(struct root, routes), SPAN(struct root, catalog),
	SPAN(struct root, store),
	{ "replay_uncertain", sbx_read_bool, offsetof(struct root, replay_uncertain), 0, 0, NULL },
	LATER("budgets"), LATER("prices"), LATER("hedging"),
};

struct listen {
	char *socket, *admin_socket;
	struct sbx_span group, trusted_uids;
};
static const struct sbx_read_field listen_fields[] = {
	{ "socket", sbx_read_text, offsetof(struct listen, socket), 0, PATH_BYTES, NULL },
	{ "admin_socket", sbx_read_text, offsetof(struct listen, admin_socket), 0, PATH_BYTES, NULL },
	SPAN(struct listen, group), SPAN(struct listen, trusted_uids),
};

struct limits {
	uint32_t max_in_flight;
	uint64_t memory_max;
};
static const struct sbx_read_field limit_fields[] = {
	{ "max_in_flight", sbx_read_u32, offsetof(struct limits, max_in_flight), 1, IN_FLIGHT_MAX, NULL },
	{ "memory_max", sbx_read_size, offsetof(struct limits, memory_max), MEMORY_MIN_BYTES, MEMORY_MAX_BYTES, NULL },
};

struct route {
	struct sbx_span targets, policy, on_stream_failure;
};
static const struct sbx_read_field route_fields[] = {
	SPAN(struct route, targets), SPAN(struct route, policy), SPAN(struct route, on_stream_failure),
	LATER("require"), LATER("max_cost"), LATER("rescue_max_cost"), LATER("weights"), LATER("hedging"),
};
#undef SPAN
#undef LATER

/* The words of a choice of which only some work: those from `supported` on are refused by name. */
static const char *const policy_words[] = { "priority", "cheapest", "fastest", "balanced", "weighted", NULL };
#define POLICIES_SUPPORTED 1
static const char *const stream_failure_words[] = { "restart", "error", "rescue", NULL };
#define STREAM_FAILURE_RESTART 0
#define STREAM_FAILURES_SUPPORTED 2

/* ==== listen, limits ==== */

/* What the kernel will let us use: the smallest memory.max on the way from our cgroup to the root; 0 = no limit. */
static uint64_t
cgroup_memory_max(void)
{
	char path[PATH_BYTES] = "", line[PATH_BYTES];
	FILE *f = fopen("/proc/self/cgroup", "re");
	if (!f)
		return 0;
	while (fgets(line, sizeof line, f)) { /* the unified hierarchy is the line "0::/path" */
		if (strncmp(line, "0::/", 4) == 0) {
			line[strcspn(line, "\n")] = '\0';
			(void)snprintf(path, sizeof path, "%s", line + 3);
		}
	}
	(void)fclose(f); /* read only */
	uint64_t lowest = 0;
	for (char *end = path + strlen(path);; end = strrchr(path, '/')) {
		if (!end)
			break;
		*end = '\0';
		char file[PATH_BYTES + 64], number[32];
		(void)snprintf(file, sizeof file, "/sys/fs/cgroup%s/memory.max", path);
		f = fopen(file, "re");
		if (f && fgets(number, sizeof number, f)) {
			uint64_t bytes = strtoull(number, NULL, 10); /* "max" reads as 0 */
			if (bytes && (lowest == 0 || bytes < lowest))
				lowest = bytes;
		}
		if (f)
			(void)fclose(f); /* read only */
	}
	return lowest;
}

static void
read_limits(struct sbx_build *b, struct sbx_span value)
{
	struct limits limits = { .max_in_flight = SBX_MAX_IN_FLIGHT };
	if (value.n) {
		size_t mark = sbx_read_enter(&b->r, "limits");
		sbx_read_object(&b->r, value, limit_fields, N(limit_fields), &limits);
		sbx_read_leave(&b->r, mark);
	}
	if (limits.memory_max == 0)
		limits.memory_max = cgroup_memory_max();
	if (limits.memory_max == 0)
		limits.memory_max = MEMORY_DEFAULT_BYTES;
	b->c->limits.max_in_flight = limits.max_in_flight;
	b->c->limits.memory_max_bytes = limits.memory_max;
}

static void
read_group(struct sbx_build *b, struct sbx_span value)
{
	size_t mark = sbx_read_enter(&b->r, "group");
	char *name = sbx_read_string(&b->r, value, 256);
	const struct group *g = name ? getgrnam(name) : NULL;
	if (g) {
		b->c->listen.group = g->gr_gid;
		b->c->listen.has_group = true;
	} else if (name) {
		sbx_read_error(&b->r, value, "there is no group \"%s\" on this host", name);
	}
	free(name);
	sbx_read_leave(&b->r, mark);
}

static void
read_trusted_uids(struct sbx_build *b, struct sbx_span list)
{
	size_t mark = sbx_read_enter(&b->r, "trusted_uids");
	struct sbx_json_iter it = sbx_json_array_iter(list);
	struct sbx_span value;
	if (sbx_json_type(list) != SBX_JSON_ARRAY)
		sbx_read_error(&b->r, list, "must be an array of user ids, or names of users");
	while (sbx_json_array_next(&it, &value)) {
		int64_t uid = -1;
		if (b->c->listen.n_trusted_uids == SBX_TRUSTED_UIDS_MAX) {
			sbx_read_error(&b->r, value, "more than %d users", SBX_TRUSTED_UIDS_MAX);
			break;
		}
		if (sbx_json_type(value) == SBX_JSON_STRING) {
			char *name = sbx_read_string(&b->r, value, 256);
			const struct passwd *user = name ? getpwnam(name) : NULL;
			if (user)
				uid = user->pw_uid;
			else if (name)
				sbx_read_error(&b->r, value, "there is no user \"%s\" on this host", name);
			free(name);
		} else if (!sbx_read_number(&b->r, value, 0, UID_MAX, &uid)) {
			continue; /* it said so */
		}
		if (uid == UNMAPPED_UID)
			sbx_read_error(&b->r, value, "65534 is every user who is not known here: nobody to be trusted");
		else if (uid >= 0)
			b->c->listen.trusted_uid[b->c->listen.n_trusted_uids++] = (uid_t)uid;
	}
	sbx_read_leave(&b->r, mark);
}

/* A socket's path: the one of the file, else `fallback`. Takes `written`. */
static char *
socket_path(struct sbx_build *b, struct sbx_span at, char *written, const char *fallback)
{
	char *path = written ? written : strdup(fallback);
	if (!path)
		b->r.no_memory = true;
	else if (!sbx_path_socket_ok(path))
		sbx_read_error(&b->r, at, "the socket's path must be absolute and at most 107 bytes long: %s", path);
	return path;
}

static void
read_listen(struct sbx_build *b, struct sbx_span value)
{
	struct listen l = { .socket = NULL };
	size_t mark = sbx_read_enter(&b->r, "listen");
	if (value.n)
		sbx_read_object(&b->r, value, listen_fields, N(listen_fields), &l);
	if (l.group.n)
		read_group(b, l.group);
	if (l.trusted_uids.n)
		read_trusted_uids(b, l.trusted_uids);
	char fallback[PATH_BYTES] = "";
	if (sbx_path_socket(fallback, sizeof fallback))
		fallback[0] = '\0'; /* too long for a path at all; refused below */
	b->c->listen.socket = socket_path(b, value, l.socket, fallback);
	fallback[0] = '\0';
	if (b->c->listen.socket && sbx_path_admin_socket(b->c->listen.socket, fallback, sizeof fallback))
		fallback[0] = '\0';
	b->c->listen.admin_socket = socket_path(b, value, l.admin_socket, fallback);
	if (b->c->listen.socket && b->c->listen.admin_socket && strcmp(b->c->listen.socket, b->c->listen.admin_socket) == 0)
		sbx_read_error(&b->r, value, "socket and admin_socket are the same");
	sbx_read_leave(&b->r, mark);
}

/* ==== store ==== */

/* The path of the file, or false for none; by default where the service manager says that state belongs. */
static void
read_store(struct sbx_build *b, struct sbx_span value)
{
	char fallback[PATH_BYTES];
	bool on = true;
	size_t mark = sbx_read_enter(&b->r, "store");
	if (!value.n) {
		if (sbx_path_store(b->home_store, fallback, sizeof fallback) == 0) {
			b->c->store = strdup(fallback);
			b->c->store_by_default = true;
			b->r.no_memory |= !b->c->store;
		}
	} else if (!sbx_json_bool(value, &on)) {
		b->c->store = sbx_read_string(&b->r, value, STORE_PATH_MAX);
		if (b->c->store && b->c->store[0] != '/')
			sbx_read_error(&b->r, value, "the path must be absolute: %s", b->c->store);
	} else if (on) {
		sbx_read_error(&b->r, value, "must be a path, or false for no store");
	}
	sbx_read_leave(&b->r, mark);
}

/* ==== routes ==== */

static const char *
provider_name_at(const void *arg, size_t i)
{
	return ((const struct sbx_tables *)arg)->provider[i].name;
}

/* "provider/model" of a route, by index; UINT32_MAX when it said what is wrong. */
static uint32_t
read_target(struct sbx_build *b, struct sbx_span value)
{
	const struct sbx_tables *t = &b->c->tables;
	char *text = sbx_read_string(&b->r, value, SBX_NAME_MAX_BYTES + SBX_MODEL_MAX_BYTES);
	if (!text)
		return UINT32_MAX;
	uint32_t target = UINT32_MAX, provider = 0;
	char *slash = strchr(text, '/');
	if (!slash || slash == text || !slash[1] || strlen(slash + 1) > SBX_MODEL_MAX_BYTES) {
		sbx_read_error(&b->r, value, "must be \"provider/model\"; \"%s\" is not", text);
		goto out;
	}
	*slash = '\0';
	while (provider < t->n_providers && strcmp(t->provider[provider].name, text) != 0)
		provider++;
	if (provider < t->n_providers) {
		target = sbx_build_target(b, value, provider, slash + 1);
		goto out;
	}
	/* A route that names a known provider says that it is there; nothing else needs to be written about it. */
	const struct sbx_known_provider *known = sbx_known_provider_find(text);
	char hint[160];
	if (known && b->mentioned[known - sbx_known_providers])
		sbx_read_error(&b->r, value, "the provider \"%s\" is switched off in this file", text);
	else if (known && !known->base_url)
		sbx_read_error(&b->r, value, "the provider \"%s\" needs a \"base_url\" in \"providers\"", text);
	else if (known && (provider = sbx_build_known(b, value, known)) != UINT32_MAX)
		target = sbx_build_target(b, value, provider, slash + 1);
	else if (!known)
		sbx_read_error(&b->r, value, "there is no provider \"%s\"%s", text,
		               sbx_nearest_hint(text, provider_name_at, t, t->n_providers, hint, sizeof hint));
out:
	free(text);
	return target;
}

static void
read_targets(struct sbx_build *b, struct sbx_span targets, struct sbx_route *route)
{
	const struct sbx_tables *t = &b->c->tables;
	uint32_t n = 0, usable = 0, wrong = b->r.errors->n;
	struct sbx_json_iter it = sbx_json_array_iter(targets);
	struct sbx_span value;
	if (sbx_json_type(targets) != SBX_JSON_ARRAY)
		sbx_read_error(&b->r, targets, "must be an array of \"provider/model\"");
	for (; sbx_json_array_next(&it, &value); n++) {
		if (n == SBX_ROUTE_TARGETS_MAX) {
			sbx_read_error(&b->r, value, "more than %d targets", SBX_ROUTE_TARGETS_MAX);
			break;
		}
		uint32_t target = read_target(b, value);
		if (target == UINT32_MAX)
			continue;
		const struct sbx_provider *p = &t->provider[t->target[target].provider];
		for (uint32_t i = 0; i < route->n_targets; i++)
			if (route->target[i] == target)
				sbx_read_error(&b->r, value, "\"%s\" is in this route already", t->target[target].name);
		route->target[route->n_targets++] = target;
		usable += p->n_credentials > 0;
		if (p->n_credentials == 0)
			sbx_read_say(&b->r, SBX_CONFIG_NOTE, value, "\"%s\" is skipped: its provider is not usable", t->target[target].name);
	}
	if (b->r.errors->n != wrong)
		return;
	if (n == 0)
		sbx_read_error(&b->r, targets, "must name at least one target");
	else if (usable == 0)
		sbx_read_say(&b->r, SBX_CONFIG_WARNING, targets, "no target of this route is usable");
}

/* A choice of which some words do not work yet. */
static int
read_partial_choice(struct sbx_build *b, const char *member, struct sbx_span value, const char *const *words, int supported)
{
	int chosen = 0;
	if (value.n) {
		const struct sbx_read_field f = { .words = words };
		size_t mark = sbx_read_enter(&b->r, member);
		sbx_read_choice(&b->r, &f, value, &chosen);
		if (chosen >= supported)
			sbx_read_error(&b->r, value, "\"%s\" is not supported yet by this version", words[chosen]);
		sbx_read_leave(&b->r, mark);
	}
	return chosen;
}

static void
read_route(struct sbx_build *b, struct sbx_span at, const char *name, struct sbx_span value)
{
	struct sbx_tables *t = &b->c->tables;
	struct sbx_route *routes = realloc(t->route, (t->n_routes + 1) * sizeof *routes);
	if (routes)
		t->route = routes;
	char *copy = strdup(name);
	if (!routes || !copy) {
		free(copy);
		b->r.no_memory = true;
		return;
	}
	struct sbx_route *route = &t->route[t->n_routes];
	*route = (struct sbx_route){ .name = copy };

	struct route r = { .targets = { NULL, 0 } };
	sbx_read_object(&b->r, value, route_fields, N(route_fields), &r);
	(void)read_partial_choice(b, "policy", r.policy, policy_words, POLICIES_SUPPORTED); /* there is one that works */
	route->restart = read_partial_choice(b, "on_stream_failure", r.on_stream_failure, stream_failure_words, STREAM_FAILURES_SUPPORTED) ==
	                 STREAM_FAILURE_RESTART;
	t->n_routes++;
	if (r.targets.n) {
		size_t mark = sbx_read_enter(&b->r, "targets");
		read_targets(b, r.targets, route);
		sbx_read_leave(&b->r, mark);
	} else if (sbx_json_type(value) == SBX_JSON_OBJECT) {
		sbx_read_error(&b->r, at, "needs \"targets\"");
	}
}

static void
read_routes(struct sbx_build *b, struct sbx_span routes)
{
	if (!routes.n)
		return;
	size_t outer = sbx_read_enter(&b->r, "routes");
	if (sbx_read_is_object(&b->r, routes)) {
		struct sbx_json_iter it = sbx_json_object_iter(routes);
		struct sbx_span at, value;
		char name[SBX_NAME_MAX_BYTES];
		while (sbx_json_object_next(&it, &at, &value)) {
			if (!sbx_read_name_ok(&b->r, at, name, sizeof name))
				continue;
			if (b->c->tables.n_routes == SBX_ROUTES_MAX) {
				sbx_read_error(&b->r, at, "more than %d routes", SBX_ROUTES_MAX);
				break;
			}
			size_t mark = sbx_read_enter(&b->r, name);
			read_route(b, at, name, value);
			sbx_read_leave(&b->r, mark);
		}
	}
	sbx_read_leave(&b->r, outer);
}

/* ==== the catalog ==== */

/* The known models: the built-in ones, and those of the file that "catalog" names. What is refused in them is a warning. */
static void
read_catalog(struct sbx_build *b, struct sbx_span value)
{
	struct sbx_config_messages refused = { .n = 0 };
	char why[512] = "";
	size_t mark = sbx_read_enter(&b->r, "catalog");
	char *path = value.n ? sbx_read_string(&b->r, value, PATH_BYTES) : NULL;
	if (path && path[0] != '/') {
		sbx_read_error(&b->r, value, "must be an absolute path");
		goto out;
	}
	int rc = sbx_catalog_load(path, &refused, &b->c->catalog, why, sizeof why);
	if (rc == -SBX_ENOMEM)
		b->r.no_memory = true;
	else if (rc)
		sbx_read_error(&b->r, value, "%s: %s", path ? path : "built in", why);
	else
		b->c->tables.facts = &b->c->catalog->facts;
	for (uint32_t i = 0; i < refused.n; i++)
		sbx_read_say(&b->r, SBX_CONFIG_WARNING, value, "not used: %s", refused.message[i].text);
	if (refused.dropped)
		sbx_read_say(&b->r, SBX_CONFIG_WARNING, value, "not used: %u more", refused.dropped);
out:
	free(path);
	sbx_config_messages_fini(&refused);
	sbx_read_leave(&b->r, mark);
}

/* ==== the whole ==== */

/* text: checked JSON without comments, or NULL for no file at all. */
static void
build(struct sbx_build *b, const char *text, size_t n, bool strict)
{
	struct sbx_config *c = b->c;
	c->policy = sbx_policy_default();
	struct root root = { .replay_uncertain = c->policy.replay_uncertain };
	if (text)
		sbx_read_object(&b->r, sbx_json_root(text, n), root_fields, N(root_fields), &root);
	c->policy.replay_uncertain = root.replay_uncertain;
	sbx_build_policy(b, root.timeouts, root.attempts, true, &c->policy);
	sbx_build_warm(b, root.warm, &c->policy);
	read_limits(b, root.limits);
	read_listen(b, root.listen);
	read_store(b, root.store);
	read_catalog(b, root.catalog);
	sbx_build_providers(b, root.providers);
	sbx_build_environment(b);
	read_routes(b, root.routes);
	for (uint32_t i = 0; i < c->tables.n_providers; i++)
		c->n_usable += c->tables.provider[i].n_credentials > 0;
	if (c->n_usable == 0)
		sbx_read_say(&b->r, strict ? SBX_CONFIG_ERROR : SBX_CONFIG_WARNING, (struct sbx_span){ NULL, 0 },
		             "no provider is usable: every request will be refused; set a key such as OPENAI_API_KEY, or configure one");
}

/* The result of text (blanked here), or of no text at all. Takes `text`. */
static int
parse(const char *name, const char *source, char *text, size_t n, const struct sbx_config_opts *opts, struct sbx_config **ret_config,
      struct sbx_config_messages *ret_errors)
{
	struct sbx_json_scratch scratch;
	struct sbx_json_error err = { .what = "" };
	struct sbx_build *b = calloc(1, sizeof *b);
	struct sbx_config *c = calloc(1, sizeof *c);
	int rc = -SBX_ENOMEM;
	sbx_json_scratch_init(&scratch);
	sbx_config_messages_fini(ret_errors);
	if (c)
		c->refs = 1;
	if (!b || !c)
		goto out;
	c->tables.provider = calloc(SBX_PROVIDERS_MAX, sizeof *c->tables.provider);
	c->source = source ? strdup(source) : NULL;
	if (!c->tables.provider || (source && !c->source))
		goto out;
	b->r = (struct sbx_reader){ .name = name, .text = text, .errors = ret_errors, .notes = &c->notes };
	b->vault = opts->vault;
	b->home_store = opts->home_store;
	b->c = c;
	if (text) {
		sbx_read_blank_comments(text, n);
		rc = sbx_json_check(text, n, &scratch, &err);
		if (rc == -SBX_ENOMEM)
			goto out;
		if (rc) {
			sbx_read_error(&b->r, ((struct sbx_span){ text + (err.offset < n ? err.offset : n), 0 }), "%s", err.what);
			rc = -SBX_ESYNTAX;
			goto out;
		}
	}
	build(b, text, n, opts->strict);
	rc = b->r.no_memory ? -SBX_ENOMEM : ret_errors->n ? -SBX_ESYNTAX : 0;
	if (rc == 0) {
		*ret_config = c;
		c = NULL;
	}
out:
	sbx_json_scratch_fini(&scratch);
	sbx_config_free(c);
	free(b);
	free(text);
	return rc;
}

int
sbx_config_parse(const char *name, const char *text, size_t n, const struct sbx_config_opts *opts, struct sbx_config **ret_config,
                 struct sbx_config_messages *ret_errors)
{
	char *copy = malloc(n + 1);
	if (!copy)
		return -SBX_ENOMEM;
	memcpy(copy, text, n);
	copy[n] = '\0';
	return parse(name, name, copy, n, opts, ret_config, ret_errors);
}

int
sbx_config_load(const struct sbx_config_opts *opts, struct sbx_config **ret_config, struct sbx_config_messages *ret_errors)
{
	char path[PATH_BYTES], why[256] = "";
	char *text = NULL;
	size_t n = 0;
	int rc = sbx_path_config(opts->path, path, sizeof path);
	if (rc == -SBX_ENOENT)
		return parse("environment", NULL, NULL, 0, opts, ret_config, ret_errors);
	if (rc) {
		(void)snprintf(path, sizeof path, "%s", "configuration");
		(void)snprintf(why, sizeof why, "its path is too long");
	} else {
		rc = sbx_read_file(path, SBX_CONFIG_MAX_BYTES, &text, &n, why, sizeof why);
	}
	if (rc == 0)
		return parse(path, path, text, n, opts, ret_config, ret_errors);
	sbx_config_messages_fini(ret_errors);
	if (rc == -SBX_ENOMEM)
		return rc;
	struct sbx_reader r = { .name = path, .errors = ret_errors };
	sbx_read_error(&r, ((struct sbx_span){ NULL, 0 }), "%s", why);
	return -SBX_ESYNTAX;
}

struct sbx_config *
sbx_config_get(struct sbx_config *config)
{
	config->refs++;
	return config;
}

void
sbx_config_free(struct sbx_config *c)
{
	if (!c || --c->refs)
		return;
	struct sbx_tables *t = &c->tables;
	for (uint32_t i = 0; i < t->n_credentials; i++) {
		free(t->credential[i].source);
		sbx_secret_put(t->credential[i].secret);
	}
	for (uint32_t i = 0; i < t->n_targets; i++) {
		free(t->target[i].name);
		free(t->target[i].model);
	}
	for (uint32_t i = 0; i < t->n_routes; i++)
		free(t->route[i].name);
	for (uint32_t i = 0; i < t->n_providers; i++) {
		struct sbx_provider *p = &t->provider[i];
		free(p->name);
		free(p->base_url);
		free(p->query);
		free(p->ca_file);
		free(p->proxy);
	}
	free(t->credential);
	free(t->target);
	free(t->route);
	free(t->provider);
	sbx_catalog_free(c->catalog);
	free(c->listen.socket);
	free(c->listen.admin_socket);
	free(c->store);
	free(c->source);
	sbx_config_messages_fini(&c->notes);
	free(c);
}
