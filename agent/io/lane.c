/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lane.c -- the options of every transfer with one credential of one provider, each with the reason why it is set.
 *
 * A handle is set up once and then used for many calls: setting two dozen options and copying the URL costs more than a
 * small request does.
 */
#include "agent/io/upstream_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <signalbox/errors.h>

#include "agent/keys.h"
#include "client/buf.h"

#define URL_MAX_BYTES 16384        /* a base URL and a query of the configuration's limits, and a model's name with every byte escaped */
#define KEEPALIVE_IDLE_S 30
#define IDLE_CONNECTION_MAX_S 30   /* below what providers and their load balancers keep an idle connection for */
#define CONNECTION_LIFE_MAX_S 600  /* DNS changes and certificate rotations arrive within ten minutes */
#define WARM_ANSWER_MS 2000        /* a warm-up ends so long after its connect; nobody waits for it */
#define DNS_CACHE_S 60
#define HAPPY_EYEBALLS_MS 200L
#define USER_AGENT "signalbox/" SBX_VERSION
#define CANCEL_FIXED_IN 0x080200   /* libcurl 8.2: a removed HTTP/2 transfer is reset at once (curl #17611 and before) */

static bool
may_use_h2(void)
{
	return curl_version_info(CURLVERSION_NOW)->version_num >= CANCEL_FIXED_IN;
}

const char *
sbx_upstream_about(void)
{
	return may_use_h2() ? "http auto means 2 where a provider offers it"
	                    : "this libcurl neither cancels HTTP/2 streams at once nor pauses them alone: http auto means 1.1";
}

void
sbx_headers_free(struct curl_slist *headers)
{
	for (struct curl_slist *h = headers; h; h = h->next)
		explicit_bzero(h->data, strlen(h->data));
	curl_slist_free_all(headers);
}

static bool
add_header(struct curl_slist **list, const char *line)
{
	struct curl_slist *more = curl_slist_append(*list, line);
	if (more)
		*list = more;
	return more != NULL;
}

static struct curl_slist *
copy_headers(const struct curl_slist *from)
{
	struct curl_slist *to = NULL;
	for (; from; from = from->next)
		if (!add_header(&to, from->data)) {
			sbx_headers_free(to);
			return NULL;
		}
	return to;
}

struct curl_slist *
sbx_lane_headers_with(struct sbx_lane *lane, const char *idempotency_key)
{
	char line[320]; /* keys have at most 255 characters */
	struct curl_slist *list = copy_headers(lane->headers);
	(void)snprintf(line, sizeof line, "Idempotency-Key: %s", idempotency_key);
	if (list && !add_header(&list, line)) {
		sbx_headers_free(list);
		return NULL;
	}
	return list;
}

static CURL *
handle_new(struct sbx_lane *lane)
{
	CURL *e = curl_easy_init();
	if (!e)
		return NULL;
	const char *ca = lane->ca_file ? lane->ca_file : curl_version_info(CURLVERSION_NOW)->cainfo;
	CURLcode rc = CURLE_OK;
#define SET(option, value) \
	if (rc == CURLE_OK) \
	rc = curl_easy_setopt(e, option, value)
	SET(CURLOPT_POST, 1L);
	SET(CURLOPT_READFUNCTION, sbx_call_on_read);
	SET(CURLOPT_SEEKFUNCTION, sbx_call_on_seek);
	SET(CURLOPT_PREREQFUNCTION, sbx_call_on_request);
	SET(CURLOPT_OPENSOCKETFUNCTION, sbx_call_on_open);
	SET(CURLOPT_CLOSESOCKETFUNCTION, sbx_call_on_close);
	SET(CURLOPT_CLOSESOCKETDATA, lane->u); /* outlives the connections; a call does not */
	SET(CURLOPT_HEADERFUNCTION, sbx_call_on_header);
	SET(CURLOPT_WRITEFUNCTION, sbx_call_on_write);
	SET(CURLOPT_PROTOCOLS_STR, lane->https ? "https" : "http");
	SET(CURLOPT_FOLLOWLOCATION, 0L);        /* a redirect would carry the key elsewhere */
	SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
	SET(CURLOPT_PROXY, lane->proxy ? lane->proxy : ""); /* "" = also none from the environment, */
	SET(CURLOPT_NOPROXY, "");               /* nor an exception from it */
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_QUICK_EXIT, 1L);            /* a transfer that ends early does not wait for its resolver thread */
	SET(CURLOPT_HTTP09_ALLOWED, 0L);
	SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	SET(CURLOPT_HTTP_VERSION, !lane->https ? (long)CURL_HTTP_VERSION_1_1 : lane->h2 ? (long)CURL_HTTP_VERSION_2TLS : (long)CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_PIPEWAIT, lane->h2 ? 1L : 0L);
	SET(CURLOPT_CONNECTTIMEOUT_MS, (long)(lane->connect_ns / 1000000u) + 1000L); /* core/ has the deadline; this is behind it */
	SET(CURLOPT_HAPPY_EYEBALLS_TIMEOUT_MS, HAPPY_EYEBALLS_MS);
	SET(CURLOPT_DNS_CACHE_TIMEOUT, (long)DNS_CACHE_S);
	SET(CURLOPT_MAXAGE_CONN, (long)IDLE_CONNECTION_MAX_S);
	SET(CURLOPT_MAXLIFETIME_CONN, (long)CONNECTION_LIFE_MAX_S);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_TCP_KEEPIDLE, (long)KEEPALIVE_IDLE_S);
	SET(CURLOPT_TCP_KEEPINTVL, (long)KEEPALIVE_IDLE_S);
	SET(CURLOPT_UPLOAD_BUFFERSIZE, 16384L); /* the smallest that libcurl takes */
	if (lane->https) {
		SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
		SET(CURLOPT_SSL_VERIFYPEER, 1L);
		SET(CURLOPT_SSL_VERIFYHOST, 2L);
		SET(CURLOPT_CAPATH, NULL); /* a CAPATH turns the cache of the parsed bundle off: 24 ms and 0.8 MB a connection */
		SET(CURLOPT_CAINFO, ca ? ca : "/etc/ssl/certs/ca-certificates.crt");
	}
	if (lane->h2) { /* libcurl tells in its trace only whether a failed stream was looked at */
		SET(CURLOPT_VERBOSE, 1L);
		SET(CURLOPT_DEBUGFUNCTION, sbx_call_on_debug);
	}
#undef SET
	if (rc != CURLE_OK) {
		curl_easy_cleanup(e);
		return NULL;
	}
	return e;
}

CURL *
sbx_lane_take(struct sbx_lane *lane)
{
	return lane->n_idle ? lane->idle[--lane->n_idle] : handle_new(lane);
}

/* HEAD of the list of models: free everywhere, and nothing is generated by it. Without the key: so it counts against no limit of
 * the account, needs no good key, and serves all keys, as connections belong to an address and not to a key. Whatever it is
 * answered, "who are you?" included, the connection stands afterwards.
 *
 * Warm-ups retire connections before the calls would: one that is as good as too old is closed by a warm-up, which opens
 * another, and never by a call that then has to wait for that. */
CURL *
sbx_lane_warm_handle(struct sbx_lane *lane)
{
	CURL *e = handle_new(lane);
	if (!e)
		return NULL;
	CURLcode rc = curl_easy_setopt(e, CURLOPT_URL, lane->warm_url);
	if (rc == CURLE_OK)
		rc = curl_easy_setopt(e, CURLOPT_USERAGENT, USER_AGENT);
	if (rc != CURLE_OK) {
		curl_easy_cleanup(e);
		return NULL;
	}
	(void)curl_easy_setopt(e, CURLOPT_NOBODY, 1L); /* and with it HEAD; as the rest, it stores a number */
	(void)curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)(lane->connect_ns / 1000000u) + WARM_ANSWER_MS);
	(void)curl_easy_setopt(e, CURLOPT_MAXLIFETIME_CONN, (long)(CONNECTION_LIFE_MAX_S - IDLE_CONNECTION_MAX_S));
	return e;
}

bool
sbx_lane_multiplexes(const struct sbx_lane *lane)
{
	return lane->https && lane->h2;
}

void
sbx_lane_give_back(struct sbx_lane *lane, CURL *easy)
{
	if (lane->closed || lane->n_idle == SBX_LANE_IDLE_MAX) {
		curl_easy_cleanup(easy);
		return;
	}
	/* These belong to the call that is over, and libcurl may have more to say of its connection. */
	(void)curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, NULL);
	(void)curl_easy_setopt(easy, CURLOPT_DEBUGDATA, NULL);
	lane->idle[lane->n_idle++] = easy;
}

static void
lane_free(struct sbx_lane *lane)
{
	while (lane->n_idle)
		curl_easy_cleanup(lane->idle[--lane->n_idle]);
	sbx_headers_free(lane->headers);
	for (int op = 0; op < SBX_OP__COUNT; op++)
		free(lane->url[op]);
	free(lane->base_url);
	free(lane->query);
	free(lane->warm_url);
	free(lane->name);
	free(lane->ca_file);
	free(lane->proxy);
	free(lane);
}

void
sbx_lane_release(struct sbx_lane *lane)
{
	assert(lane->n_calls > 0);
	if (--lane->n_calls == 0 && lane->closed)
		lane_free(lane);
}

void
sbx_lane_close(struct sbx_lane *lane)
{
	if (!lane)
		return;
	lane->closed = true;
	if (lane->n_calls == 0)
		lane_free(lane);
}

/* The copies that libcurl makes, the key's own line among them, are wiped when the lane goes. */
static bool
build_headers(struct sbx_lane *lane, const struct sbx_provider *p, const struct sbx_credential *credential)
{
	bool ok = add_header(&lane->headers, "Content-Type: application/json") &&
	          add_header(&lane->headers, "Expect:") && /* no 100-continue: it costs a round trip */
	          add_header(&lane->headers, "User-Agent: " USER_AGENT);
	for (const char *const *h = p->dialect->headers; ok && h && *h; h++)
		ok = add_header(&lane->headers, *h);
	if (!ok || !credential || !credential->secret || p->auth == SBX_AUTH_NONE)
		return ok;
	const char *line = sbx_secret_header(credential->secret, p->auth);
	return line && add_header(&lane->headers, line);
}

static char *
url_of(const struct sbx_provider *p, const char *path)
{
	char *url;
	return asprintf(&url, "%s%s%s%s", p->base_url, path, p->query ? "?" : "", p->query ? p->query : "") < 0 ? NULL : url;
}

int
sbx_lane_set_url(const struct sbx_lane *lane, CURL *easy, const struct sbx_call_ask *ask)
{
	struct sbx_buf url;
	if (!lane->path_of) {
		assert(lane->url[ask->op]);
		return curl_easy_setopt(easy, CURLOPT_URL, lane->url[ask->op]) ? -SBX_ENOMEM : 0;
	}
	sbx_buf_init(&url, URL_MAX_BYTES);
	int rc = sbx_buf_append(&url, lane->base_url, strlen(lane->base_url));
	if (rc == 0)
		rc = lane->path_of(ask->op, ask->model, ask->stream, &url);
	if (rc == 0 && lane->query) {
		rc = sbx_buf_append(&url, memchr(url.data, '?', url.n) ? "&" : "?", 1);
		if (rc == 0)
			rc = sbx_buf_append(&url, lane->query, strlen(lane->query));
	}
	if (rc == 0)
		rc = sbx_buf_append(&url, "", 1);
	if (rc == 0 && curl_easy_setopt(easy, CURLOPT_URL, (const char *)url.data))
		rc = -SBX_ENOMEM;
	sbx_buf_fini(&url);
	return rc ? -SBX_ENOMEM : 0; /* all of it is bounded below the limit */
}

static bool
build_urls(struct sbx_lane *lane, const struct sbx_provider *p)
{
	lane->path_of = p->dialect->path_of;
	if (lane->path_of) {
		lane->base_url = strdup(p->base_url);
		lane->query = p->query ? strdup(p->query) : NULL;
		if (!lane->base_url || (p->query && !lane->query))
			return false;
	}
	for (int op = 0; op < SBX_OP__COUNT && !lane->path_of; op++)
		if (sbx_provider_does(p, (enum sbx_op)op)) {
			lane->url[op] = url_of(p, p->dialect->path[op]);
			if (!lane->url[op])
				return false;
		}
	lane->warm_url = url_of(p, p->dialect->models_path);
	return lane->warm_url != NULL;
}

struct sbx_lane *
sbx_lane_new(struct sbx_upstream *u, const struct sbx_provider *p, const struct sbx_credential *credential)
{
	struct sbx_lane *lane = calloc(1, sizeof *lane);
	if (!lane)
		return NULL;
	lane->u = u;
	lane->https = strncmp(p->base_url, "https:", 6) == 0;
	lane->h2 = p->http == SBX_HTTP_2 || (p->http == SBX_HTTP_AUTO && may_use_h2());
	lane->connect_ns = p->policy.connect_ns;
	lane->name = strdup(p->name);
	lane->ca_file = p->ca_file ? strdup(p->ca_file) : NULL;
	lane->proxy = p->proxy ? strdup(p->proxy) : NULL;
	if (!build_urls(lane, p) || !lane->name || (p->ca_file && !lane->ca_file) || (p->proxy && !lane->proxy) || !build_headers(lane, p, credential)) {
		lane_free(lane);
		return NULL;
	}
	return lane;
}
