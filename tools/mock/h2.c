/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/2 over TLS, by libnghttp2 as a sans-I/O codec.
 *
 * nghttp2 must not be entered from its own callbacks, so callbacks only note
 * things: a request that is whole goes on the `ready` list and is dispatched
 * after the input was eaten; a closed stream ends its exchange, which touches
 * no session.  Answer bytes wait in the stream until nghttp2 asks for them.
 *
 * An exchange that ends lets go of its stream before the session is pumped:
 * pumping may close the stream.
 */
#include "tools/mock/dialect.h"

#include <nghttp2/nghttp2.h>
#include <stdlib.h>

#define STREAMS_MAX 1000                  /* SETTINGS_MAX_CONCURRENT_STREAMS */
#define WINDOW_BYTES (1 << 20)            /* for request bodies */
#define HEADER_BLOCK_MAX ((size_t)2 << 20) /* big-headers goes up to 1 MiB */
#define FIELD_MAX 65536                   /* of one request header value that we keep */

struct stream {
	struct stream *prev, *next;  /* all of the connection */
	struct stream *ready_next;   /* requests to be dispatched */
	struct mock_exchange *x;     /* NULL before dispatch and after its end */
	int32_t id;
	char *method, *path, *authorization, *idempotency_key; /* owned; NULL = absent */
	char *header[MOCK_REQUEST_HEADERS_MAX]; /* "name\0value", owned; those above included */
	size_t n_headers;
	struct mock_bytes in;        /* request body */
	struct mock_bytes out;       /* answer body that nghttp2 has not taken */
	size_t split;                /* largest DATA frame; 0 = no limit of ours */
	bool eof;                    /* `out` is all there will be */
	bool is_ready;
};

struct mock_h2 {
	nghttp2_session *session;
	struct stream *streams;
	struct stream *ready;        /* newest last */
};

static const struct mock_transport_ops h2_ops;

static struct mock_span span_of(const char *text)
{
	return (struct mock_span){ text, text == NULL ? 0 : strlen(text) };
}

/* ---- callbacks of nghttp2: note, do nothing ------------------------------------ */

static struct stream *stream_of(nghttp2_session *session, int32_t id)
{
	return nghttp2_session_get_stream_user_data(session, id);
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	struct mock_conn *conn = arg;
	struct stream *st;

	if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	st = calloc(1, sizeof(*st));
	if (st == NULL)
		return NGHTTP2_ERR_CALLBACK_FAILURE;
	st->id = frame->hd.stream_id;
	st->next = conn->h2->streams;
	if (st->next != NULL)
		st->next->prev = st;
	conn->h2->streams = st;
	(void)nghttp2_session_set_stream_user_data(session, st->id, st);
	return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t n_name,
    const uint8_t *value, size_t n_value, uint8_t flags, void *arg)
{
	static const struct {
		const char *name;
		size_t offset;
	} kept[] = {
		{ ":method", offsetof(struct stream, method) },
		{ ":path", offsetof(struct stream, path) },
		{ "authorization", offsetof(struct stream, authorization) },
		{ "idempotency-key", offsetof(struct stream, idempotency_key) },
	};
	struct stream *st = stream_of(session, frame->hd.stream_id);

	(void)flags;
	(void)arg;
	if (st == NULL || n_value > FIELD_MAX)
		return st == NULL ? 0 : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
		char **member = (char **)(void *)((char *)st + kept[i].offset);

		if (strlen(kept[i].name) != n_name || memcmp(kept[i].name, name, n_name) != 0)
			continue;
		free(*member);
		*member = strndup((const char *)value, n_value);
	}
	if (st->n_headers < MOCK_REQUEST_HEADERS_MAX && n_name > 0 && *name != ':') {
		char *line = malloc(n_name + n_value + 2);

		if (line == NULL)
			return NGHTTP2_ERR_CALLBACK_FAILURE;
		memcpy(line, name, n_name);
		line[n_name] = '\0';
		memcpy(line + n_name + 1, value, n_value);
		line[n_name + 1 + n_value] = '\0';
		st->header[st->n_headers++] = line;
	}
	return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *at, size_t n, void *arg)
{
	struct stream *st = stream_of(session, id);

	(void)flags;
	(void)arg;
	if (st == NULL)
		return 0;
	if (st->in.n + n > MOCK_REQUEST_BODY_MAX)
		return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, id, NGHTTP2_ENHANCE_YOUR_CALM);
	mock_bytes_put(&st->in, at, n);
	return 0;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
	struct mock_conn *conn = arg;
	struct stream **last = &conn->h2->ready;
	struct stream *st;

	if ((frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) ||
	    !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
		return 0;
	st = stream_of(session, frame->hd.stream_id);
	if (st == NULL || st->is_ready || st->x != NULL)
		return 0;
	st->is_ready = true;
	while (*last != NULL)
		last = &(*last)->ready_next;
	*last = st;
	return 0;
}

static void free_stream(struct mock_h2 *h, struct stream *st)
{
	for (struct stream **at = &h->ready; *at != NULL; at = &(*at)->ready_next)
		if (*at == st) {
			*at = st->ready_next;
			break;
		}
	if (st->prev != NULL)
		st->prev->next = st->next;
	else
		h->streams = st->next;
	if (st->next != NULL)
		st->next->prev = st->prev;
	free(st->method);
	free(st->path);
	free(st->authorization);
	free(st->idempotency_key);
	for (size_t i = 0; i < st->n_headers; i++)
		free(st->header[i]);
	mock_bytes_fini(&st->in);
	mock_bytes_fini(&st->out);
	free(st);
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error_code, void *arg)
{
	struct mock_conn *conn = arg;
	struct stream *st = stream_of(session, id);

	(void)error_code;
	if (st == NULL)
		return 0;
	if (st->x != NULL)
		mock_exchange_end(st->x, MOCK_CLIENT_CLOSED);
	(void)nghttp2_session_set_stream_user_data(session, id, NULL);
	free_stream(conn->h2, st);
	return 0;
}

static ssize_t read_body(nghttp2_session *session, int32_t id, uint8_t *into, size_t n, uint32_t *flags,
    nghttp2_data_source *source, void *arg)
{
	struct stream *st = source->ptr;

	(void)session;
	(void)id;
	(void)arg;
	if (n > st->out.n)
		n = st->out.n;
	if (st->split > 0 && n > st->split)
		n = st->split;
	if (n == 0 && !st->eof)
		return NGHTTP2_ERR_DEFERRED;
	if (n > 0) {
		memcpy(into, mock_bytes_at(&st->out), n);
		mock_bytes_eat(&st->out, n);
	}
	if (st->eof && st->out.n == 0)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)n;
}

/* ---- session and wire ------------------------------------------------------------ */

/* Session to conn->out to the kernel; each frame in a write of its own when split= wants it. */
static void pump(struct mock_conn *conn, bool frame_by_frame)
{
	nghttp2_session *session = conn->h2->session;

	while (conn->closing != MOCK_CLOSE_GONE && !(conn->write_blocked && conn->out.n > MOCK_BACKLOG_HIGH)) {
		const uint8_t *at;
		ssize_t n = nghttp2_session_mem_send(session, &at);

		if (n < 0)
			mock_conn_close(conn, MOCK_CLOSE_FIN);
		if (n <= 0)
			break;
		mock_bytes_put(&conn->out, at, (size_t)n);
		if (frame_by_frame || conn->out.n > MOCK_BACKLOG_HIGH)
			mock_conn_flush(conn);
	}
	mock_conn_flush(conn);
	if (!nghttp2_session_want_read(session) && !nghttp2_session_want_write(session))
		mock_conn_close(conn, MOCK_CLOSE_FIN);
}

/* Exchanges that waited for room and have it now. */
static void resume_blocked(struct mock_conn *conn)
{
	bool again = true;

	while (again && conn->closing == MOCK_CLOSE_NO) {
		again = false;
		for (struct stream *st = conn->h2->streams; st != NULL && !again; st = st->next)
			if (st->x != NULL && st->x->blocked && st->out.n + conn->out.n <= MOCK_BACKLOG_HIGH / 2) {
				mock_exchange_resume(st->x); /* may free streams: look from the start again */
				again = true;
			}
	}
}

static void dispatch_ready(struct mock_conn *conn)
{
	struct mock_h2 *h = conn->h2;

	while (h->ready != NULL && conn->closing == MOCK_CLOSE_NO) {
		struct stream *st = h->ready;
		struct mock_request request = {
			.method = span_of(st->method),
			.path = span_of(st->path),
			.authorization = span_of(st->authorization),
			.idempotency_key = span_of(st->idempotency_key),
			.body = { mock_bytes_at(&st->in), st->in.n },
			.n_headers = st->n_headers,
		};

		for (size_t i = 0; i < st->n_headers; i++)
			request.header[i] = (struct mock_header){ span_of(st->header[i]), span_of(st->header[i] + strlen(st->header[i]) + 1) };
		if (st->authorization == NULL)
			request.authorization = mock_request_header(&request, "x-api-key");

		h->ready = st->ready_next;
		st->ready_next = NULL;
		conn->n_requests++;
		st->x = mock_exchange_new(conn, &h2_ops, st);
		mock_exchange_begin(st->x, &request);
	}
}

static void on_input(struct mock_conn *conn)
{
	struct mock *mock = conn->mock;
	size_t got;

	while ((got = mock_conn_read(conn, mock->scratch, sizeof(mock->scratch))) > 0) {
		ssize_t eaten = nghttp2_session_mem_recv(conn->h2->session, (const uint8_t *)mock->scratch, got);

		if (eaten < 0) {
			mock_conn_close(conn, MOCK_CLOSE_FIN);
			return;
		}
		dispatch_ready(conn);
	}
	if (conn->closing == MOCK_CLOSE_NO) {
		pump(conn, false);
		resume_blocked(conn);
	}
}

static void on_idle(struct mock_conn *conn)
{
	pump(conn, false);
	resume_blocked(conn);
}

static void on_close(struct mock_conn *conn)
{
	struct mock_h2 *h = conn->h2;

	while (h->streams != NULL) {
		struct stream *st = h->streams;

		if (st->x != NULL)
			mock_exchange_end(st->x, conn->closing == MOCK_CLOSE_GONE ? MOCK_CLIENT_CLOSED : MOCK_CUT);
		free_stream(h, st);
	}
	nghttp2_session_del(h->session); /* calls no callback */
	free(h);
	conn->h2 = NULL;
}

static bool is_idle(const struct mock_conn *conn)
{
	return conn->h2->streams == NULL && conn->out.n == 0;
}

const struct mock_protocol mock_h2_protocol = {
	.on_input = on_input,
	.on_drained = on_idle,
	.on_idle = on_idle,
	.on_close = on_close,
	.is_idle = is_idle,
};

/* ---- answers ----------------------------------------------------------------------- */

static nghttp2_nv field(const char *name, size_t n_name, const char *value, size_t n_value)
{
	return (nghttp2_nv){ .name = (uint8_t *)(uintptr_t)name, .namelen = n_name,
	    .value = (uint8_t *)(uintptr_t)value, .valuelen = n_value };
}

static void send_head(struct mock_exchange *x, const struct mock_head *head)
{
	nghttp2_session *session = x->conn->h2->session;
	struct stream *st = x->stream;
	nghttp2_nv fields[MOCK_HEADERS_MAX + 2];
	nghttp2_data_provider provider = { .source.ptr = st, .read_callback = read_body };
	struct mock_bytes names = { 0 };
	char status[16], length[24];
	size_t n = 0, n_names = 0;

	for (int64_t i = 0; i < head->interim; i++) {
		nghttp2_nv interim = field(":status", 7, i % 2 == 0 ? "100" : "103", 3);

		(void)nghttp2_submit_headers(session, NGHTTP2_FLAG_NONE, st->id, NULL, &interim, 1, NULL);
	}
	fields[n++] = field(":status", 7, status, (size_t)snprintf(status, sizeof(status), "%d", head->status));
	for (size_t i = 0; i < head->n_headers; i++)
		n_names += head->headers[i].name.n;
	(void)mock_bytes_reserve(&names, n_names + 1); /* from here on it does not move */
	for (size_t i = 0; i < head->n_headers; i++) {
		const struct mock_header *header = &head->headers[i];
		size_t at = names.n;

		for (size_t j = 0; j < header->name.n; j++) {
			char c = header->name.at[j];

    mock_bytes_putc(&names, c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c);
		}
		fields[n++] = field(mock_bytes_at(&names) + at, header->name.n, header->value.at, header->value.n);
	}
	if (head->length >= 0)
		fields[n++] = field("content-length", 14, length,
		    (size_t)snprintf(length, sizeof(length), "%lld", (long long)head->length));
	st->split = x->faults->split > 0 ? (size_t)x->faults->split : 0;
	(void)nghttp2_submit_response(session, st->id, fields, n, &provider);
	mock_bytes_fini(&names);
}

static void send_body(struct mock_exchange *x, const char *at, size_t n, bool broken)
{
	struct stream *st = x->stream;

	mock_bytes_put(&st->out, at, broken ? n / 2 : n);
	(void)nghttp2_session_resume_data(x->conn->h2->session, st->id);
}

static void flush_answer(struct mock_exchange *x)
{
	pump(x->conn, x->faults->split > 0);
}

/* The stream outlives the exchange; nothing below may look for the exchange in it. */
static struct stream *let_go(struct mock_exchange *x)
{
	struct stream *st = x->stream;

	if (st != NULL)
		st->x = NULL;
	x->stream = NULL;
	return st;
}

static void finish(struct mock_exchange *x)
{
	struct stream *st = let_go(x);

	st->eof = true;
	(void)nghttp2_session_resume_data(x->conn->h2->session, st->id);
	pump(x->conn, st->split > 0);
}

static void abort_answer(struct mock_exchange *x, enum mock_abort how)
{
	nghttp2_session *session = x->conn->h2->session;
	const struct mock_faults *f = x->faults;
	struct stream *st = let_go(x);
	int32_t last_id = st->id;

	switch (how) {
	case MOCK_ABORT_STREAM:
		(void)nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, st->id,
		    f->refused_stream ? NGHTTP2_REFUSED_STREAM : (uint32_t)f->rst_stream);
		pump(x->conn, false);
		break;
	case MOCK_ABORT_GOAWAY:
		if (f->goaway == MOCK_GOAWAY_BELOW)
			last_id = st->id > 2 ? st->id - 2 : 0;
		(void)nghttp2_submit_goaway(session, NGHTTP2_FLAG_NONE, last_id, NGHTTP2_NO_ERROR, NULL, 0);
		pump(x->conn, false);
		mock_conn_close(x->conn, f->how == MOCK_HOW_RST ? MOCK_CLOSE_RST : MOCK_CLOSE_FIN);
		break;
	case MOCK_ABORT_FIN:
		mock_conn_close(x->conn, MOCK_CLOSE_FIN);
		break;
	case MOCK_ABORT_RST:
		mock_conn_close(x->conn, MOCK_CLOSE_RST);
		break;
	}
}

static size_t backlog(struct mock_exchange *x)
{
	const struct stream *st = x->stream;

	return st->out.n + x->conn->out.n;
}

static void detach(struct mock_exchange *x)
{
	(void)let_go(x);
}

static const struct mock_transport_ops h2_ops = {
	.is_h2 = true,
	.head = send_head,
	.body = send_body,
	.finish = finish,
	.abort = abort_answer,
	.flush = flush_answer,
	.backlog = backlog,
	.detach = detach,
};

void mock_h2_open(struct mock_conn *conn)
{
	const nghttp2_settings_entry settings[] = {
		{ NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, STREAMS_MAX },
		{ NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW_BYTES },
	};
	nghttp2_session_callbacks *callbacks = NULL;
	nghttp2_option *option = NULL;
	struct mock_h2 *h = calloc(1, sizeof(*h));

	conn->h2 = h;
	if (h == NULL || nghttp2_session_callbacks_new(&callbacks) != 0 || nghttp2_option_new(&option) != 0)
		goto fail;
	nghttp2_option_set_max_send_header_block_length(option, HEADER_BLOCK_MAX);
	nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
	if (nghttp2_session_server_new2(&h->session, callbacks, conn, option) != 0)
		goto fail;
	nghttp2_session_callbacks_del(callbacks);
	nghttp2_option_del(option);
	(void)nghttp2_submit_settings(h->session, NGHTTP2_FLAG_NONE, settings, 2);
	(void)nghttp2_session_set_local_window_size(h->session, NGHTTP2_FLAG_NONE, 0, WINDOW_BYTES);
	conn->protocol = &mock_h2_protocol;
	pump(conn, false);
	return;
fail:
	nghttp2_session_callbacks_del(callbacks);
	nghttp2_option_del(option);
	free(h);
	conn->h2 = NULL;
	mock_conn_close(conn, MOCK_CLOSE_GONE);
}
