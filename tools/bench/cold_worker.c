/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cold_worker.c -- a new program that wants a streamed answer, and says when the first byte of it was there: by libsignalbox where it
 * is sent to a socket of the agent, else by libcurl from the provider itself. One process makes one call.
 */
#include "tools/bench/bench.h"

#include <curl/curl.h>
#include <signalbox.h>

#define PATIENCE_MS 10000

static void
ask_agent(const struct order *order, struct outcome *o)
{
	struct sbx_open_options open = SBX_OPEN_OPTIONS_INIT;
	struct sbx_request_options r = SBX_REQUEST_INIT;
	struct sbx_event ev = { .last = false };
	struct sbx_client *c = NULL;
	char model[80];
	uint64_t id;
	open.socket = order->to;
	(void)snprintf(model, sizeof model, "double/%s", order->model);
	r.model = model;
	r.body = request_body(order->model, true, order->body_bytes);
	r.body_bytes = order->body_bytes;
	r.stream = true;
	int rc = sbx_open(&open, &c);
	if (rc == 0)
		rc = sbx_submit(c, &r, &id);
	while (rc == 0 && !ev.last && (rc = sbx_next(c, PATIENCE_MS, &ev)) == 0)
		if (ev.note == SBX_NOTE_TEXT && !o->first_ns)
			o->first_ns = now_ns();
	if (rc || ev.note != SBX_NOTE_DONE || !o->first_ns)
		fail_outcome(o, "through the agent: %s", ev.last && ev.reply ? sbx_reply_message(ev.reply) : c ? sbx_client_error(c) : "out of memory");
	sbx_close(c);
}

static size_t
on_body(char *bytes, size_t size, size_t n, void *arg)
{
	struct outcome *o = arg;
	(void)bytes;
	if (!o->first_ns)
		o->first_ns = now_ns();
	return size * n;
}

static void
ask_provider(const struct order *order, struct outcome *o)
{
	char url[256];
	long status = 0;
	CURL *e = curl_global_init(CURL_GLOBAL_DEFAULT) ? NULL : curl_easy_init();
	struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
	if (!e || !headers) {
		fail_outcome(o, "out of memory");
		return;
	}
	(void)snprintf(url, sizeof url, "%s/chat/completions", order->to); /* an address, no name: nothing is looked up */
	(void)curl_easy_setopt(e, CURLOPT_URL, url);
	(void)curl_easy_setopt(e, CURLOPT_CAINFO, order->ca_file);
	(void)curl_easy_setopt(e, CURLOPT_HTTPHEADER, headers);
	(void)curl_easy_setopt(e, CURLOPT_POSTFIELDS, request_body(order->model, true, order->body_bytes));
	(void)curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
	(void)curl_easy_setopt(e, CURLOPT_WRITEDATA, o);
	(void)curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)PATIENCE_MS);
	CURLcode rc = curl_easy_perform(e);
	(void)curl_easy_getinfo(e, CURLINFO_RESPONSE_CODE, &status);
	if (rc != CURLE_OK || status != 200 || !o->first_ns)
		fail_outcome(o, "direct: %s, status %ld", curl_easy_strerror(rc), status);
	curl_slist_free_all(headers);
	curl_easy_cleanup(e);
}

int
cold_worker(void)
{
	struct order order;
	struct outcome o = { .failed = 0 };
	if (!next_order(&order))
		return 0;
	if (order.to[0] == '/')
		ask_agent(&order, &o);
	else
		ask_provider(&order, &o);
	answer(&o);
	return 0;
}
