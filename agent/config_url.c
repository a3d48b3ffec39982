/* SPDX-License-Identifier: Apache-2.0 */
/* config_url.c -- see config_url.h. */
#include "agent/config_url.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <signalbox/errors.h>

#define HOST_VAR_PORT "11434" /* Ollama's own default */

struct parts {
	CURLU *url;
	char *scheme, *host, *port, *path; /* curl_free(); port NULL when not given */
};

static void
parts_fini(struct parts *p)
{
	curl_free(p->scheme);
	curl_free(p->host);
	curl_free(p->port);
	curl_free(p->path);
	curl_url_cleanup(p->url);
}

/* A part that may be missing. */
static bool
take_part(CURLU *url, CURLUPart part, char **ret)
{
	return curl_url_get(url, part, ret, 0) == CURLUE_OK;
}

/* 0 with the parts filled, or negative with nothing to free. */
static int
split(const char *text, struct parts *p, char *why, size_t why_bytes)
{
	memset(p, 0, sizeof *p);
	for (const char *c = text; *c; c++) {
		if (*c <= 0x20 || *c > 0x7e) {
			(void)snprintf(why, why_bytes, "has a character that no URL has");
			return -SBX_EINVAL;
		}
	}
	p->url = curl_url();
	if (!p->url)
		return -SBX_ENOMEM;
	char *user = NULL, *password = NULL;
	CURLUcode uc = curl_url_set(p->url, CURLUPART_URL, text, CURLU_NON_SUPPORT_SCHEME);
	bool named = uc == CURLUE_OK &&
	             (take_part(p->url, CURLUPART_USER, &user) || take_part(p->url, CURLUPART_PASSWORD, &password));
	curl_free(user);
	curl_free(password);
	int rc = -SBX_EINVAL;
	if (uc == CURLUE_OUT_OF_MEMORY)
		rc = -SBX_ENOMEM;
	else if (uc != CURLUE_OK)
		(void)snprintf(why, why_bytes, "is not a URL: %s", curl_url_strerror(uc));
	else if (named)
		(void)snprintf(why, why_bytes, "must not carry a user or password: credentials do not stand in the configuration");
	else if (strpbrk(text, "?#"))
		(void)snprintf(why, why_bytes, "must not have a query or fragment");
	else if (!take_part(p->url, CURLUPART_SCHEME, &p->scheme) || !take_part(p->url, CURLUPART_HOST, &p->host) ||
	         !take_part(p->url, CURLUPART_PATH, &p->path))
		(void)snprintf(why, why_bytes, "needs a scheme and a host");
	else
		rc = 0;
	if (rc)
		parts_fini(p);
	else
		(void)take_part(p->url, CURLUPART_PORT, &p->port);
	return rc;
}

/* "localhost" is this host too: libcurl resolves it without asking anybody. */
static bool
is_loopback(const char *host)
{
	struct in_addr v4;
	if (strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0)
		return true;
	return inet_pton(AF_INET, host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127;
}

static int
join(const struct parts *p, const char *path, char **ret_url)
{
	size_t path_n = strlen(path);
	while (path_n && path[path_n - 1] == '/')
		path_n--;
	if (asprintf(ret_url, "%s://%s%s%s%.*s", p->scheme, p->host, p->port ? ":" : "", p->port ? p->port : "", (int)path_n, path) >= 0)
		return 0;
	*ret_url = NULL;
	return -SBX_ENOMEM;
}

int
sbx_url_base(const char *text, bool plaintext, char **ret_url, char *why, size_t why_bytes)
{
	struct parts p;
	int rc = split(text, &p, why, why_bytes);
	if (rc)
		return rc;
	rc = -SBX_EINVAL;
	if (strcmp(p.scheme, "https") != 0 && strcmp(p.scheme, "http") != 0)
		(void)snprintf(why, why_bytes, "must begin with https:// (or http://)");
	else if (strcmp(p.scheme, "http") == 0 && !is_loopback(p.host) && !plaintext)
		(void)snprintf(why, why_bytes, "is http:// beyond this host: keys and prompts would travel in the clear; use https://, or say "
		                               "\"plaintext\": true where the network is trusted");
	else
		rc = join(&p, p.path, ret_url);
	parts_fini(&p);
	return rc;
}

int
sbx_url_proxy(const char *text, char **ret_url, char *why, size_t why_bytes)
{
	static const char *const schemes[] = { "http", "https", "socks5", "socks5h" };
	struct parts p;
	int rc = split(text, &p, why, why_bytes);
	if (rc)
		return rc;
	rc = -SBX_EINVAL;
	size_t i = 0;
	while (i < sizeof schemes / sizeof schemes[0] && strcmp(p.scheme, schemes[i]) != 0)
		i++;
	if (i == sizeof schemes / sizeof schemes[0])
		(void)snprintf(why, why_bytes, "must begin with http://, https://, socks5:// or socks5h://");
	else if (p.path[0] && strcmp(p.path, "/") != 0)
		(void)snprintf(why, why_bytes, "must be a host and a port, without a path");
	else
		rc = join(&p, "", ret_url);
	parts_fini(&p);
	return rc;
}

static size_t
origin_bytes(const char *url)
{
	const char *host = strstr(url, "://");
	return host ? (size_t)(host - url) + 3 + strcspn(host + 3, "/") : strlen(url);
}

bool
sbx_url_same_origin(const char *a, const char *b)
{
	size_t n = origin_bytes(a);
	return n == origin_bytes(b) && strncasecmp(a, b, n) == 0;
}

bool
sbx_url_query_ok(const char *query, char *why, size_t why_bytes)
{
	static const char *const secret_names[] = { "key", "api_key", "api-key", "apikey", "token", "access_token", "sig", "password" };
	for (const char *c = query; *c; c++) {
		if (*c <= 0x20 || *c > 0x7e || strchr("#?\"<>\\^`{|}", *c)) {
			(void)snprintf(why, why_bytes, "has a character that no query has; percent-encode it");
			return false;
		}
	}
	for (const char *p = query; *p; p += strcspn(p, "&"), p += *p == '&') {
		size_t n = strcspn(p, "=&");
		for (size_t i = 0; i < sizeof secret_names / sizeof secret_names[0]; i++) {
			if (n == strlen(secret_names[i]) && strncasecmp(p, secret_names[i], n) == 0) {
				(void)snprintf(why, why_bytes, "has the parameter \"%s\": a key never travels in a URL, where logs keep it; use \"key\"",
				               secret_names[i]);
				return false;
			}
		}
	}
	return true;
}

int
sbx_url_from_host_var(const char *value, char *ret_url, size_t url_bytes)
{
	const char *scheme_end = strstr(value, "://");
	const char *scheme = "http", *port = HOST_VAR_PORT;
	const char *host = scheme_end ? scheme_end + 3 : value;
	if (scheme_end) { /* with a scheme, the scheme's own port is meant */
		bool tls = strncasecmp(value, "https", 5) == 0;
		scheme = tls ? "https" : "http";
		port = tls ? "443" : "80";
	}
	size_t n = strcspn(host, "/");
	const char *colon = NULL;
	for (size_t i = 0; i < n; i++) {
		if (host[i] == ':')
			colon = host + i;
		else if (host[i] == ']')
			colon = NULL;
	}
	int port_n = colon ? (int)(host + n - colon) - 1 : (int)strlen(port);
	int host_n = colon ? (int)(colon - host) : (int)n;
	if (colon)
		port = colon + 1;
	/* What a server listens on is not where a client goes. */
	const char *where = host;
	if (host_n == 0 || (host_n == 7 && strncmp(host, "0.0.0.0", 7) == 0)) {
		where = "127.0.0.1";
		host_n = 9;
	} else if (host_n == 4 && strncmp(host, "[::]", 4) == 0) {
		where = "[::1]";
		host_n = 5;
	}
	int len = snprintf(ret_url, url_bytes, "%s://%.*s:%.*s/v1", scheme, host_n, where, port_n, port);
	return len < 0 || (size_t)len >= url_bytes ? -SBX_ETOOBIG : 0;
}
