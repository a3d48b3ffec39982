/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tables.h -- the immutable facts that judgement works on: providers, credentials, targets, routes.
 *
 * Built by config.c from the configuration and the table of known providers, never changed afterwards; a reload builds
 * new tables and swaps. Everything refers by index. The tables own their strings; whoever holds a reference to the
 * configuration may keep pointers into them.
 */
#ifndef SBX_AGENT_CORE_TABLES_H
#define SBX_AGENT_CORE_TABLES_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/dialect/hub.h"

#define SBX_PROVIDERS_MAX 128
#define SBX_KEYS_MAX 8            /* credentials of one provider */
#define SBX_TARGETS_MAX 4096      /* configured ones */
#define SBX_TARGETS_ADHOC_MAX 256 /* "provider/model" asked for without being configured; the least recently used row is reused */
#define SBX_ROUTES_MAX 1024
#define SBX_ROUTE_TARGETS_MAX 16  /* also the most of `targets[]` in a SUBMIT */
#define SBX_NAME_MAX_BYTES 128    /* provider and route names */

/* Times and counts of one provider's attempts. Defaults: sbx_policy_default(). */
struct sbx_policy {
	uint64_t connect_ns;                 /* name resolution, TCP and TLS together */
	uint64_t first_content_ns;           /* seed and lower bound: until enough answers were seen */
	uint64_t first_content_max_ns;       /* upper bound of 3 x p99 */
	uint64_t reasoning_first_content_ns; /* seed and upper bound where the model reasons */
	uint64_t whole_ns;                   /* a non-streamed answer: lower bound of 3 x p99 of its total */
	uint64_t reasoning_whole_ns;
	uint64_t idle_bytes_ns;              /* between bytes, after the first content */
	uint64_t idle_content_ns;            /* between pieces of content; comments do not feed it */
	uint64_t after_finish_ns;            /* wait for usage and the end mark once the answer is complete */
	uint64_t backoff_base_ns, backoff_cap_ns; /* same target: full jitter, doubling */
	uint64_t wait_short_ns;              /* a Retry-After up to this is waited out once before failing over */
	uint64_t wait_max_ns;                /* a longer one than this is never waited for: 429 to the client */
	uint8_t attempts_max;                /* counted attempts of a request, all targets */
	uint8_t attempts_per_target;
	bool replay_uncertain;               /* may an attempt that perhaps was carried out be tried elsewhere */
	uint8_t warm_connections;            /* kept open ahead of need (core/warm.h); 0 = none */
	uint64_t warm_every_ns;              /* so often each of them is used, lest it be closed */
	uint64_t warm_after_use_ns;          /* for so long after a request */
};

/* How a key is sent: X(NAME, "word", "the header up to the key"). The board has the same words (signalbox/board.h). */
#define SBX_AUTHS(X)                                                                                                           \
	X(NONE, "none", NULL)                                                                                                  \
	X(BEARER, "bearer", "Authorization: Bearer ")                                                                          \
	X(API_KEY, "api-key", "api-key: ")                                                                                     \
	X(X_API_KEY, "x-api-key", "x-api-key: ")
enum sbx_auth {
#define X(name, word, header) SBX_AUTH_##name,
	SBX_AUTHS(X)
#undef X
	SBX_AUTH__COUNT
};
enum sbx_http { SBX_HTTP_1_1, SBX_HTTP_2, SBX_HTTP_AUTO };

/* A secret in memory of its own: locked, not dumped, wiped on free and in a forked child (agent/keys.h). */
struct sbx_secret;

struct sbx_credential {
	uint16_t provider;
	char *source;              /* "env:OPENAI_API_KEY": what may be shown */
	char fingerprint[9];       /* 8 hex digits of SHA-256 */
	struct sbx_secret *secret; /* NULL = the provider wants no key */
};

struct sbx_provider {
	char *name;
	const struct sbx_dialect *dialect;
	char *base_url;            /* scheme, host, port, path; no trailing slash */
	char *query;               /* e.g. "api-version=2024-10-21"; NULL = none */
	enum sbx_auth auth;
	enum sbx_http http;
	char *ca_file, *proxy;     /* NULL = the system's bundle; no proxy */
	bool plaintext;            /* http:// beyond loopback is allowed */
	uint32_t lacks;            /* bit n: it has no operation n, be it for its dialect or for itself */
	bool idempotency_key;      /* takes a header Idempotency-Key; no provider is known to act on one by itself */
	struct sbx_quirks quirks;
	struct sbx_policy policy;
	uint32_t first_credential, n_credentials; /* n = 0: not usable, key missing */
};

static inline bool
sbx_provider_does(const struct sbx_provider *p, enum sbx_op op)
{
	return !(p->lacks & 1u << op);
}

struct sbx_facts;
struct sbx_model;

struct sbx_target {
	char *name;                /* "provider/model" */
	uint16_t provider;
	char *model;               /* as the provider calls it */
	bool reasoning;
	int64_t context_tokens;    /* 0 = unknown */
	const struct sbx_model *known; /* limits and prices (facts.h); NULL = nothing is known of it */
};

struct sbx_route {
	char *name;
	uint32_t target[SBX_ROUTE_TARGETS_MAX];
	uint32_t n_targets;
	bool restart;              /* a stream that breaks after content may start over, where the client takes a RESET */
};

struct sbx_tables {
	struct sbx_provider *provider;     uint32_t n_providers;
	struct sbx_credential *credential; uint32_t n_credentials;
	struct sbx_target *target;         uint32_t n_targets;
	struct sbx_route *route;           uint32_t n_routes;
	const struct sbx_facts *facts;     /* known models; NULL = none. Owned by the configuration */
};

struct sbx_policy sbx_policy_default(void); /* agent/core/tables.c; the numbers and their reasons stand there */

#endif
