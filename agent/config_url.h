/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_url.h -- the addresses that a configuration may name, checked and spelled in one way.
 *
 * A key is bound to the address of its provider, so what is accepted here decides where keys may go. libcurl does the
 * parsing: what it would make of an address when it is used is what is judged.
 */
#ifndef SBX_AGENT_CONFIG_URL_H
#define SBX_AGENT_CONFIG_URL_H

#include <stdbool.h>
#include <stddef.h>

/* sbx_url_base() -- the base URL of a provider.
 *  plaintext  http:// is allowed beyond this host
 *  ret_url    heap; scheme, host, port if given, path without a slash at its end
 *  why        on failure what is wrong; it does not repeat the text, which may hold a password
 * Returns 0, -SBX_EINVAL, -SBX_ENOMEM. */
int sbx_url_base(const char *text, bool plaintext, char **ret_url, char *why, size_t why_bytes);
/* A proxy: http, https, socks5 or socks5h, host and port, nothing else. Same returns. */
int sbx_url_proxy(const char *text, char **ret_url, char *why, size_t why_bytes);
/* Do two base URLs (as returned above) have the same scheme, host and port? */
bool sbx_url_same_origin(const char *a, const char *b);
/* A query string to be sent with every request: visible ASCII, no '#', and no parameter whose name says that it is a key. */
bool sbx_url_query_ok(const char *query, char *why, size_t why_bytes);
/* The base URL that a variable such as OLLAMA_HOST means ("", "host", ":port", "http://host:port"). 0 or -SBX_ETOOBIG. */
int sbx_url_from_host_var(const char *value, char *ret_url, size_t url_bytes);

#endif
