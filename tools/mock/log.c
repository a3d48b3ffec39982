/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log of requests, and what is counted over them.
 *
 * An entry is one allocation with its texts behind it.  The log is a ring: past
 * its limits of entries or bytes it forgets the oldest, so that a bench of
 * millions of requests does not fill the memory; a forgotten entry that is
 * still open lives until its exchange ends.  Counts per state are kept beside,
 * so that a waiting test costs nothing per request.
 */
#include "tools/mock/mock.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <strings.h>

#define ENTRIES_MAX 65536u                   /* a power of two: place = n & (max - 1) */
#define ENTRIES_BYTES_MAX ((size_t)64 << 20) /* bodies included */
#define MODELS_MAX 256                       /* counted by name; the rest together */
#define STATUS_MAX 1000

static const char *const state_names[] = { "open", "answered", "client-closed", "cut" };

struct model_count {
	char *name; /* owned */
	size_t n_name;
	uint64_t posts;
};

struct mock_log {
	struct mock *mock;
	struct mock_entry *ring[ENTRIES_MAX];
	uint64_t first, next;    /* places [first, next) of the ring are in use */
	size_t bytes;            /* of the kept entries */
	uint64_t total;          /* requests since start: never cleared */
	uint64_t warm_ups;       /* likewise; they are in none of the other counts */
	uint64_t by_state[MOCK_STATE__COUNT]; /* since the last clear */
	uint64_t by_status[STATUS_MAX];       /* since start; [0] = none was sent */
	struct model_count models[MODELS_MAX];
	size_t n_models;
	uint64_t other_posts;
	uint64_t epoch;          /* number of the last entry that a clear forgot */
	FILE *file;              /* --log; NULL = none */
	char last_key[256];      /* the hash is known for this one */
	size_t n_last_key;
	char last_hash[9];
};

const char *mock_state_name(enum mock_state state)
{
	return state_names[state];
}

enum mock_state mock_state_of(const char *name, size_t n)
{
	for (int i = 0; i < MOCK_STATE__COUNT; i++)
		if (strlen(state_names[i]) == n && memcmp(state_names[i], name, n) == 0)
			return (enum mock_state)i;
	return MOCK_STATE__COUNT;
}

static void forget_first(struct mock_log *log)
{
	struct mock_entry *entry = log->ring[log->first++ & (ENTRIES_MAX - 1)];

	log->bytes -= entry->bytes;
	entry->kept = false;
	if (entry->state != MOCK_OPEN)
		free(entry);
}

static void count_model(struct mock_log *log, struct mock_span model)
{
	struct model_count *count;

	for (size_t i = 0; i < log->n_models; i++) {
		count = &log->models[i];
		if (count->n_name == model.n && memcmp(count->name, model.at, model.n) == 0) {
			count->posts++;
			return;
		}
	}
	if (log->n_models == MODELS_MAX) {
		log->other_posts++;
		return;
	}
	count = &log->models[log->n_models];
	count->name = strndup(model.at, model.n);
	if (count->name == NULL)
		return;
	count->n_name = model.n;
	count->posts = 1;
	log->n_models++;
}

static void hash_key(struct mock_log *log, struct mock_span authorization, char ret_hash[9])
{
	ret_hash[0] = '\0';
	if (authorization.n >= 7 && strncasecmp(authorization.at, "Bearer ", 7) == 0) {
		authorization.at += 7;
		authorization.n -= 7;
	}
	if (authorization.n == 0)
		return;
	if (authorization.n != log->n_last_key || memcmp(authorization.at, log->last_key, log->n_last_key) != 0) {
		mock_tls_hash(authorization, log->last_hash);
		log->n_last_key = 0;
		if (authorization.n <= sizeof(log->last_key)) {
			memcpy(log->last_key, authorization.at, authorization.n);
			log->n_last_key = authorization.n;
		}
	}
	memcpy(ret_hash, log->last_hash, sizeof(log->last_hash));
}

static struct mock_span store(char **at, struct mock_span from)
{
	struct mock_span to = { *at, from.n };

	if (from.n > 0)
		memcpy(*at, from.at, from.n);
	*at += from.n;
	return to;
}

static void put_text(struct mock_bytes *out, const char *name, struct mock_span text)
{
	mock_bytes_fmt(out, ",\"%s\":", name);
	if (text.n == 0) {
		mock_bytes_lit(out, "null");
		return;
	}
	mock_bytes_putc(out, '"');
	mock_bytes_json(out, text.at, text.n);
	mock_bytes_putc(out, '"');
}

static void put_entry(struct mock_bytes *out, const struct mock_entry *entry, bool bodies)
{
	mock_bytes_fmt(out, "{\"n\":%llu,\"time_ns\":%llu,\"connection\":%llu,\"index\":%llu",
	    (unsigned long long)entry->n, (unsigned long long)entry->time_ns,
	    (unsigned long long)entry->conn_id, (unsigned long long)entry->conn_index);
	put_text(out, "method", entry->method);
	put_text(out, "path", entry->path);
	put_text(out, "model", entry->model);
	mock_bytes_fmt(out, ",\"stream\":%s,\"status\":", entry->stream ? "true" : "false");
	if (entry->status != 0)
		mock_bytes_u64(out, (uint64_t)entry->status);
	else
		mock_bytes_lit(out, "null");
	mock_bytes_fmt(out, ",\"state\":\"%s\",\"request_bytes\":%zu,\"body_bytes\":%llu,\"tokens_sent\":%llu",
	    state_names[entry->state], entry->body.n, (unsigned long long)entry->body_bytes,
	    (unsigned long long)entry->tokens_sent);
	if (entry->state != MOCK_OPEN)
		mock_bytes_fmt(out, ",\"closed_after_ns\":%llu", (unsigned long long)(entry->end_ns - entry->time_ns));
	else
		mock_bytes_lit(out, ",\"closed_after_ns\":null");
	put_text(out, "authorization", (struct mock_span){ entry->key_hash, strlen(entry->key_hash) });
	put_text(out, "idempotency_key", entry->idempotency_key);
	if (bodies)
		put_text(out, "body", entry->body);
	mock_bytes_putc(out, '}');
}

struct mock_log *mock_log_new(struct mock *mock)
{
	struct mock_log *log = calloc(1, sizeof(*log));

	if (log != NULL)
		log->mock = mock;
	return log;
}

void mock_log_free(struct mock_log *log)
{
	if (log == NULL)
		return;
	while (log->first < log->next)
		forget_first(log);
	for (size_t i = 0; i < log->n_models; i++)
		free(log->models[i].name);
	if (log->file != NULL)
		(void)fclose(log->file);
	free(log);
}

int mock_log_open_file(struct mock_log *log, const char *path)
{
	log->file = fopen(path, "ae");
	if (log->file == NULL)
		return -errno;
	(void)setvbuf(log->file, NULL, _IOLBF, 0);
	return 0;
}

static struct mock_entry *entry_new(struct mock_log *log, const struct mock_conn *conn, uint64_t conn_index,
    const struct mock_request *request, struct mock_span model, bool stream)
{
	size_t bytes = sizeof(struct mock_entry) + request->method.n + request->path.n + model.n +
	    request->idempotency_key.n + request->body.n;
	struct mock_entry *entry = malloc(bytes);
	char *at;

	if (entry == NULL) {
		fputs("signalbox-mock: out of memory\n", stderr);
		exit(70);
	}
	*entry = (struct mock_entry){ .time_ns = mock_loop_clock(&log->mock->loop),
	    .conn_id = conn->id, .conn_index = conn_index, .stream = stream, .bytes = bytes };
	at = entry->text;
	entry->method = store(&at, request->method);
	entry->path = store(&at, request->path);
	entry->model = store(&at, model);
	entry->idempotency_key = store(&at, request->idempotency_key);
	entry->body = store(&at, request->body);
	hash_key(log, request->authorization, entry->key_hash);
	return entry;
}

struct mock_entry *mock_log_add_warm(struct mock_log *log, const struct mock_conn *conn, const struct mock_request *request)
{
	log->warm_ups++;
	return entry_new(log, conn, conn->n_requests, request, (struct mock_span){ 0 }, false);
}

struct mock_entry *mock_log_add(struct mock_log *log, const struct mock_conn *conn, uint64_t conn_index,
    const struct mock_request *request, struct mock_span model, bool stream)
{
	struct mock_entry *entry = entry_new(log, conn, conn_index, request, model, stream);

	while (log->first < log->next &&
	    (log->next - log->first == ENTRIES_MAX || log->bytes + entry->bytes > ENTRIES_BYTES_MAX))
		forget_first(log);
	entry->n = ++log->total;
	entry->kept = true;
	log->ring[log->next++ & (ENTRIES_MAX - 1)] = entry;
	log->bytes += entry->bytes;
	log->by_state[MOCK_OPEN]++;
	if (request->method.n == 4 && memcmp(request->method.at, "POST", 4) == 0)
		count_model(log, model);
	return entry;
}

void mock_log_end(struct mock_log *log, struct mock_entry *entry, enum mock_state state)
{
	assert(entry->state == MOCK_OPEN && state != MOCK_OPEN);
	entry->state = state;
	entry->end_ns = mock_loop_clock(&log->mock->loop);
	if (entry->n > log->epoch) {
		log->by_state[MOCK_OPEN]--;
		log->by_state[state]++;
	}
	if (entry->n > 0)
		log->by_status[entry->status > 0 && entry->status < STATUS_MAX ? entry->status : 0]++;
	if (log->file != NULL) {
		struct mock_bytes line = { 0 };

		put_entry(&line, entry, false);
		mock_bytes_putc(&line, '\n');
		(void)fwrite(mock_bytes_at(&line), 1, line.n, log->file);
		mock_bytes_fini(&line);
	}
	if (!entry->kept)
		free(entry);
}

void mock_log_clear(struct mock_log *log)
{
	while (log->first < log->next)
		forget_first(log);
	memset(log->by_state, 0, sizeof(log->by_state));
	log->epoch = log->total;
}

uint64_t mock_log_count(const struct mock_log *log, enum mock_state state)
{
	uint64_t n = 0;

	for (int i = 0; i < MOCK_STATE__COUNT; i++)
		if (state == MOCK_STATE__COUNT || (int)state == i)
			n += log->by_state[i];
	return n;
}

void mock_log_fmt(const struct mock_log *log, bool bodies, struct mock_bytes *out)
{
	mock_bytes_putc(out, '[');
	for (uint64_t i = log->first; i < log->next; i++) {
		if (i > log->first)
			mock_bytes_lit(out, ",\n");
		put_entry(out, log->ring[i & (ENTRIES_MAX - 1)], bodies);
	}
	mock_bytes_lit(out, "]\n");
}

void mock_log_fmt_stats(const struct mock_log *log, struct mock_bytes *out)
{
	const struct mock *mock = log->mock;
	bool first = true;

	mock_bytes_lit(out, "{\"name\":\"");
	mock_bytes_json(out, mock->name, strlen(mock->name));
	mock_bytes_fmt(out, "\",\"connections\":{\"open\":%llu,\"total\":%llu,\"refused\":%llu}"
	    ",\"tls_handshakes\":%llu",
	    (unsigned long long)mock->n_conns_open, (unsigned long long)mock->n_conns_total,
	    (unsigned long long)mock->n_conns_refused, (unsigned long long)mock->n_tls_handshakes);
	mock_bytes_fmt(out, ",\"warm_ups\":%llu,\"requests\":{\"total\":%llu", (unsigned long long)log->warm_ups,
	    (unsigned long long)log->total);
	for (int i = 0; i < MOCK_STATE__COUNT; i++)
		mock_bytes_fmt(out, ",\"%s\":%llu", state_names[i], (unsigned long long)log->by_state[i]);
	mock_bytes_lit(out, ",\"by_status\":{");
	for (int i = 0; i < STATUS_MAX; i++) {
		if (log->by_status[i] == 0)
			continue;
		mock_bytes_puts(out, first ? "\"" : ",\"");
		if (i == 0)
			mock_bytes_lit(out, "none");
		else
			mock_bytes_u64(out, (uint64_t)i);
		mock_bytes_fmt(out, "\":%llu", (unsigned long long)log->by_status[i]);
		first = false;
	}
	mock_bytes_lit(out, "}},\"posts\":{");
	for (size_t i = 0; i < log->n_models; i++) {
		mock_bytes_puts(out, i > 0 ? ",\"" : "\"");
		mock_bytes_json(out, log->models[i].name, log->models[i].n_name);
		mock_bytes_fmt(out, "\":%llu", (unsigned long long)log->models[i].posts);
	}
	mock_bytes_fmt(out, "},\"other_posts\":%llu}\n", (unsigned long long)log->other_posts);
}
