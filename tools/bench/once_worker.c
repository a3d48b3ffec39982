/* SPDX-License-Identifier: Apache-2.0 */
/* once_worker.c -- the floor of the start: the least program that loads libcurl, makes one call and ends. */
#include "tools/bench/bench.h"

#include <stdlib.h>

#include <curl/curl.h>

static size_t
on_body(char *bytes, size_t size, size_t n, void *arg)
{
	(void)bytes;
	(void)arg;
	return size * n;
}

int
once_worker(const char *base_url)
{
	char url[256];
	long status = 0;
	if (curl_global_init(CURL_GLOBAL_DEFAULT))
		return 1;
	CURL *e = curl_easy_init();
	struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
	if (!e || !headers)
		return 1;
	(void)snprintf(url, sizeof url, "%s/chat/completions", base_url);
	(void)curl_easy_setopt(e, CURLOPT_URL, url);
	(void)curl_easy_setopt(e, CURLOPT_HTTPHEADER, headers);
	(void)curl_easy_setopt(e, CURLOPT_POSTFIELDS, request_body("call", false, BODY_UP_BYTES));
	(void)curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
	CURLcode rc = curl_easy_perform(e);
	(void)curl_easy_getinfo(e, CURLINFO_RESPONSE_CODE, &status);
	curl_slist_free_all(headers);
	curl_easy_cleanup(e);
	return rc == CURLE_OK && status == 200 ? 0 : 1;
}
