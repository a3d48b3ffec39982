/* SPDX-License-Identifier: Apache-2.0 */
/*
 * direct_call.c -- one HTTP call by libcurl, and into what class its end belongs. See direct.h.
 *
 * What the agent holds to holds here too: the key goes to the URL that the configuration named and nowhere else (no redirect, no
 * .netrc, TLS checked, plain HTTP only where the agent's configuration has it so, which is why the URL says it), and an error that
 * repeats the key is printed without it. Our copies of the key are wiped; libcurl's go with its handle, unwiped. A proxy of the environment is used for https alone, which it cannot read.
 *
 * Nothing is given out of an answer before its status is known to be good; a body beyond its limit ends the call.
 */
#include "tools/signalbox/direct.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <curl/curl.h>

#define CONNECT_MS 5000L
#define SILENT_STREAM_S 60L              /* a stream that says nothing for so long is given up for the next target */
#define SILENT_WHOLE_S 300L              /* a whole answer may be thought over for minutes */
#define BODY_MAX_BYTES (64u << 20)       /* as much as the library keeps of an answer */
#define ERROR_BODY_MAX_BYTES (64u << 10) /* the words of an error stand at its beginning */

struct transfer {
	CURL *easy;
	struct direct_answer *answer;
	char *body;              /* owned: a whole answer, or an error's beginning */
	size_t n_body;
	bool streams;            /* the answer is a stream */
	bool too_large;
	char why[CURL_ERROR_SIZE];
};

static bool
is_good(const struct transfer *t, long *ret_status)
{
	*ret_status = 0;
	(void)curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, ret_status);
	return *ret_status >= 200 && *ret_status < 300;
}

static size_t
on_bytes(char *bytes, size_t size, size_t n, void *arg)
{
	struct transfer *t = arg;
	long status;
	const char *type = NULL;
	(void)size; /* always 1 */
	const bool good = is_good(t, &status);
	if (good && !t->n_body) {
		(void)curl_easy_getinfo(t->easy, CURLINFO_CONTENT_TYPE, &type);
		t->streams = type && strncasecmp(type, "text/event-stream", 17) == 0;
	}
	if (t->streams) {
		direct_answer_stream(t->answer, bytes, n);
		return t->answer->bad ? 0 : n;
	}
	const size_t room = (good ? BODY_MAX_BYTES : ERROR_BODY_MAX_BYTES) - t->n_body, take = n < room ? n : room;
	if (take < n && good) {
		t->too_large = true;
		return 0;
	}
	t->body = must(realloc(t->body, t->n_body + take + 1));
	memcpy(t->body + t->n_body, bytes, take);
	t->n_body += take;
	return n; /* the rest of an error is let go by */
}

static void
hide(char *text, size_t n, const struct direct_key *key)
{
	const size_t key_bytes = key ? strlen(key->at) : 0;
	for (char *at; key_bytes && (at = memmem(text, n, key->at, key_bytes));)
		memset(at, '*', key_bytes);
}

/* ---- setting up ---- */

/* A header that is wiped before it is freed. */
static struct curl_slist *
add_header(struct curl_slist *list, const char *name, const char *value, size_t room)
{
	char *line = must(malloc(room));
	(void)snprintf(line, room, "%s: %s", name, value);
	struct curl_slist *longer = must(curl_slist_append(list, line));
	explicit_bzero(line, room);
	free(line);
	return longer;
}

static struct curl_slist *
headers_of(const struct direct_call *c)
{
	struct curl_slist *list = must(curl_slist_append(NULL, "Content-Type: application/json"));
	list = must(curl_slist_append(list, c->stream ? "Accept: text/event-stream" : "Accept: application/json"));
	list = must(curl_slist_append(list, "Expect:"));
	if (!c->key)
		return list;
	const size_t room = strlen(c->key->at) + 64;
	if (strcmp(c->auth, "api-key") == 0)
		return add_header(list, "api-key", c->key->at, room);
	char *bearer = must(malloc(room));
	(void)snprintf(bearer, room, "Bearer %s", c->key->at);
	list = add_header(list, "Authorization", bearer, room + 16);
	explicit_bzero(bearer, room);
	free(bearer);
	return list;
}

static void
free_headers(struct curl_slist *list)
{
	for (struct curl_slist *at = list; at; at = at->next)
		explicit_bzero(at->data, strlen(at->data));
	curl_slist_free_all(list);
}

#define SET(option, value) must(curl_easy_setopt(e, option, value) == CURLE_OK ? e : NULL)

static void
set_up(struct transfer *t, const struct direct_call *c, struct curl_slist *headers)
{
	CURL *e = t->easy;
	const bool https = strncmp(c->url, "https://", 8) == 0;
	const char *ca = getenv("SSL_CERT_FILE");
	SET(CURLOPT_URL, c->url);
	SET(CURLOPT_PROTOCOLS_STR, https ? "https" : "http");
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
	if (!https)
		SET(CURLOPT_PROXY, ""); /* a proxy would read the key */
	SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	if (ca && *ca)
		SET(CURLOPT_CAINFO, ca);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_HTTP09_ALLOWED, 0L);
	SET(CURLOPT_USERAGENT, "signalbox/" SBX_VERSION);
	SET(CURLOPT_HTTPHEADER, headers);
	SET(CURLOPT_POSTFIELDS, c->body);
	SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)c->body_bytes);
	SET(CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
	SET(CURLOPT_TIMEOUT_MS, (long)c->timeout_ms);
	SET(CURLOPT_LOW_SPEED_LIMIT, 1L);
	SET(CURLOPT_LOW_SPEED_TIME, c->stream ? SILENT_STREAM_S : SILENT_WHOLE_S);
	SET(CURLOPT_WRITEFUNCTION, on_bytes);
	SET(CURLOPT_WRITEDATA, t);
	SET(CURLOPT_ERRORBUFFER, t->why);
}

/* ---- the end ---- */

static enum direct_outcome
class_of_status(long status)
{
	switch (status) {
	case 400:
	case 413:
	case 415:
	case 422:
		return DIRECT_BAD_REQUEST;
	case 401:
		return DIRECT_AUTH;
	case 402:
		return DIRECT_QUOTA;
	case 403:
		return DIRECT_FORBIDDEN;
	case 404:
	case 410:
		return DIRECT_NOT_THERE;
	case 429:
	case 503:
	case 529: /* "overloaded" of some */
		return DIRECT_REFUSED;
	default:
		return DIRECT_FAILED;
	}
}

/* libcurl's verdict on a call that has no whole answer. */
static enum direct_outcome
class_of_failure(const struct transfer *t, CURLcode code)
{
	curl_off_t sent_at_us = 0;
	if (t->answer->content)
		return DIRECT_MIDSTREAM;
	switch (code) {
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_CONNECT:
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_URL_MALFORMAT:
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_PROXY:
		return DIRECT_NOT_SENT;
	default: /* a time-out, a cut: was it before the request left? */
		(void)curl_easy_getinfo(t->easy, CURLINFO_PRETRANSFER_TIME_T, &sent_at_us);
		return sent_at_us > 0 ? DIRECT_UNCERTAIN : DIRECT_NOT_SENT;
	}
}

static void
judge(struct transfer *t, const struct direct_call *c, CURLcode code, struct direct_end *end)
{
	struct direct_answer *a = t->answer;
	long status;
	curl_off_t retry_after_s = 0;
	const bool good = is_good(t, &status);
	end->status = (int)status;
	if (t->body)
		hide(t->body, t->n_body, c->key);
	if (code == CURLE_OK && good && !t->streams)
		direct_answer_whole(a, t->body ? t->body : "", t->n_body);
	if (good && (a->complete || (code == CURLE_OK && t->streams && a->finished)) && !a->bad) {
		end->outcome = DIRECT_OK;
	} else if (a->bad || t->too_large) {
		end->outcome = a->content ? DIRECT_MIDSTREAM : DIRECT_FAILED;
		hide(a->error_message, strlen(a->error_message), c->key);
		(void)snprintf(end->message, sizeof end->message, "%s", t->too_large ? "the answer is larger than 64 MiB" : a->error_message);
	} else if (code == CURLE_OK && good) { /* a stream that ends in the middle, in an orderly way */
		end->outcome = a->content ? DIRECT_MIDSTREAM : DIRECT_UNCERTAIN;
		(void)snprintf(end->message, sizeof end->message, "the stream ended before the answer did");
	} else if (status && !good) { /* also where its body was cut */
		end->outcome = class_of_status(status);
		direct_answer_error(a, t->body ? t->body : "", t->n_body);
		(void)curl_easy_getinfo(t->easy, CURLINFO_RETRY_AFTER, &retry_after_s);
		end->retry_after_ms = retry_after_s > 0 && retry_after_s < 86400 * 366 ? (int64_t)retry_after_s * 1000 : -1;
		(void)snprintf(end->message, sizeof end->message, "HTTP %ld%s%s", status, a->error_message[0] ? ": " : "", a->error_message);
	} else {
		end->outcome = class_of_failure(t, code);
		(void)snprintf(end->message, sizeof end->message, "%s", t->why[0] ? t->why : curl_easy_strerror(code));
	}
}

/* Runs it. False = interrupted. */
static bool
run(CURLM *multi, const struct transfer *t, CURLcode *ret_code)
{
	for (int running = 1; running && !t->answer->complete;) {
		struct curl_waitfd signal = { .fd = interrupt_fd(), .events = CURL_WAIT_POLLIN };
		CURLMcode rc = curl_multi_perform(multi, &running);
		if (rc == CURLM_OK && running && !t->answer->complete) {
			(void)fflush(stdout); /* what was said is seen before we wait; a failure is found at the end */
			rc = curl_multi_poll(multi, &signal, signal.fd >= 0 ? 1 : 0, 1000, NULL);
		}
		if (interrupt_signal())
			return false;
		must(rc == CURLM_OK ? multi : NULL); /* all that is left with valid arguments */
	}
	int left;
	const CURLMsg *msg = curl_multi_info_read(multi, &left);
	*ret_code = msg && msg->msg == CURLMSG_DONE ? msg->data.result : CURLE_OK; /* none: "[DONE]" came, and the provider lingers */
	return true;
}

void
direct_call(const struct direct_call *c, struct direct_answer *a, struct direct_end *ret_end)
{
	struct transfer t = { .answer = a, .easy = must(curl_easy_init()) };
	CURLM *multi = must(curl_multi_init());
	struct curl_slist *headers = headers_of(c);
	CURLcode code = CURLE_OK;
	*ret_end = (struct direct_end){ .outcome = DIRECT_CANCELLED, .retry_after_ms = -1 };
	set_up(&t, c, headers);
	const uint64_t began_ms = monotonic_ms();
	must(curl_multi_add_handle(multi, t.easy) == CURLM_OK ? multi : NULL);
	if (run(multi, &t, &code))
		judge(&t, c, code, ret_end);
	ret_end->timed_out = code == CURLE_OPERATION_TIMEDOUT && monotonic_ms() - began_ms >= c->timeout_ms;
	(void)curl_multi_remove_handle(multi, t.easy);
	curl_easy_cleanup(t.easy);
	(void)curl_multi_cleanup(multi);
	free_headers(headers);
	free(t.body);
}
