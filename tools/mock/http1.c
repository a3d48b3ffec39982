/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.1 by hand, so that it can be broken at will.
 *
 * A request that arrives whole in one read is parsed where it was read and
 * copied nowhere but into the log; only what is left over is kept.  One answer
 * is under way at a time; pipelined requests wait in `in`.
 *
 * Parsing is as strict as the tests need: no obs-fold, no bare LF, one
 * Content-Length.  What this file does not do: compression, ranges, upgrades.
 */
#include "tools/mock/mock.h"

#include <stdlib.h>
#include <strings.h>

/* What a request head says; spans into the head. */
struct head_in {
	struct mock_request request;
	size_t head_bytes;  /* with the empty line */
	size_t body_bytes;  /* Content-Length; 0 = none */
	bool chunked;
	bool close;         /* Connection: close, or HTTP/1.0 without keep-alive */
	bool expect;        /* Expect: 100-continue */
};

struct mock_http1 {
	struct mock_exchange *x;      /* the answer under way; NULL = reading */
	struct mock_bytes in;         /* bytes not yet made into a request */
	struct mock_bytes chunked_in; /* decoded body of a chunked request */
	size_t chunked_at;            /* of `in`: raw chunk bytes read so far, after the head */
	size_t need;                  /* in.n below which there is no point in looking; 0 = look */
	bool continued;               /* 100 Continue was sent for the request being read */
	bool close_after;             /* the request under way asked for it */
	bool chunked_out;             /* framing of the answer under way */
	bool replying;                /* the control interface owes an answer */
};

static const char continue_line[] = "HTTP/1.1 100 Continue\r\n\r\n";

/* ---- requests in ------------------------------------------------------------ */

/* The next CR LF; memchr is an order faster than memmem on lines this short. */
static const char *find_crlf(const char *at, size_t n)
{
	const char *end = at + n;

	while ((at = memchr(at, '\r', (size_t)(end - at))) != NULL) {
		if (end - at < 2)
			return NULL;
		if (at[1] == '\n')
			return at;
		at++;
	}
	return NULL;
}

/* The empty line that ends a head or trailers: its first CR LF. */
static const char *find_end(const char *at, size_t n)
{
	const char *end = at + n;

	while ((at = find_crlf(at, (size_t)(end - at))) != NULL) {
		if (end - at >= 4 && at[2] == '\r' && at[3] == '\n')
			return at;
		at += 2;
	}
	return NULL;
}

static bool name_is(struct mock_span name, const char *want)
{
	return name.n == strlen(want) && strncasecmp(name.at, want, name.n) == 0;
}

static bool holds(struct mock_span value, const char *token)
{
	size_t n = strlen(token);

	for (size_t i = 0; i + n <= value.n; i++)
		if (strncasecmp(value.at + i, token, n) == 0)
			return true;
	return false;
}

static int take_header(struct head_in *head, struct mock_span name, struct mock_span value)
{
	if (head->request.n_headers < MOCK_REQUEST_HEADERS_MAX)
		head->request.header[head->request.n_headers++] = (struct mock_header){ name, value };
	switch (name.n) {
	case 6:
		if (name_is(name, "expect"))
			head->expect = holds(value, "100-continue");
		break;
	case 7:
		if (name_is(name, "api-key") && head->request.authorization.n == 0)
			head->request.authorization = value;
		break;
	case 9:
		if (name_is(name, "x-api-key") && head->request.authorization.n == 0)
			head->request.authorization = value;
		break;
	case 10:
		if (name_is(name, "connection")) {
			if (holds(value, "close"))
				head->close = true;
			else if (holds(value, "keep-alive"))
				head->close = false;
		}
		break;
	case 13:
		if (name_is(name, "authorization"))
			head->request.authorization = value;
		break;
	case 14:
		if (name_is(name, "content-length")) {
			size_t v = 0;

    for (size_t i = 0; i < value.n; i++) {
    if (value.at[i] < '0' || value.at[i] > '9' || v > MOCK_REQUEST_BODY_MAX)
    return v > MOCK_REQUEST_BODY_MAX ? 413 : 400;
    v = v * 10 + (size_t)(value.at[i] - '0');
    }
    head->body_bytes = v;
    return v > MOCK_REQUEST_BODY_MAX ? 413 : 0;
		}
		break;
	case 15:
		if (name_is(name, "idempotency-key"))
			head->request.idempotency_key = value;
		break;
	case 17:
		if (name_is(name, "transfer-encoding"))
			head->chunked = holds(value, "chunked");
		break;
	default:
		break;
	}
	return 0;
}

/* 1 = parsed, 0 = not whole yet, else the status of the refusal, negative. */
static int parse_head(const char *at, size_t n, struct head_in *ret)
{
	const char *end = find_end(at, n);
	const char *line_end, *space, *space2;

	if (end == NULL)
		return n > MOCK_HEAD_MAX ? -431 : 0;
	*ret = (struct head_in){ .head_bytes = (size_t)(end - at) + 4 };
	if (ret->head_bytes > MOCK_HEAD_MAX)
		return -431;
	line_end = find_crlf(at, ret->head_bytes);
	space = memchr(at, ' ', (size_t)(line_end - at));
	if (space == NULL)
		return -400;
	space2 = memchr(space + 1, ' ', (size_t)(line_end - space - 1));
	if (space2 == NULL || line_end - space2 != 9 || memcmp(space2, " HTTP/1.", 8) != 0)
		return -400;
	ret->request.method = (struct mock_span){ at, (size_t)(space - at) };
	ret->request.path = (struct mock_span){ space + 1, (size_t)(space2 - space - 1) };
	ret->close = space2[8] == '0';
	for (const char *line = line_end + 2; line < end + 2;) {
		struct mock_span name, value;
		const char *colon;
		int rc;

		line_end = find_crlf(line, (size_t)(end + 2 - line));
		colon = memchr(line, ':', (size_t)(line_end - line));
		if (colon == NULL)
			return -400;
		name = (struct mock_span){ line, (size_t)(colon - line) };
		value = (struct mock_span){ colon + 1, (size_t)(line_end - colon - 1) };
		while (value.n > 0 && (*value.at == ' ' || *value.at == '\t')) {
			value.at++;
			value.n--;
		}
		while (value.n > 0 && (value.at[value.n - 1] == ' ' || value.at[value.n - 1] == '\t'))
			value.n--;
		rc = take_header(ret, name, value);
		if (rc != 0)
			return -rc;
		line = line_end + 2;
	}
	return 1;
}

/* Decodes what is there of a chunked body behind the head; 1 = whole, 0 = more to come, else -status. */
static int decode_chunked(struct mock_http1 *h, size_t head_bytes)
{
	for (;;) {
		const char *at = mock_bytes_at(&h->in) + head_bytes + h->chunked_at;
		size_t n = h->in.n - head_bytes - h->chunked_at;
		const char *line_end = find_crlf(at, n);
		size_t line, size = 0;
		char *hex_end;

		if (line_end == NULL)
			return n > 256 ? -400 : 0;
		line = (size_t)(line_end - at) + 2;
		size = strtoul(at, &hex_end, 16); /* stops at the CR at the latest */
		if (hex_end == at || size > MOCK_REQUEST_BODY_MAX - h->chunked_in.n)
			return hex_end == at ? -400 : -413;
		if (size == 0) {
			/* trailers end with an empty line; the last-chunk line's own CRLF may be its first half */
			const char *end = find_end(at + line - 2, n - line + 2);

    if (end == NULL)
    return 0;
    h->chunked_at += (size_t)(end + 4 - at);
    return 1;
		}
		if (n < line + size + 2)
			return 0;
		mock_bytes_put(&h->chunked_in, at + line, size);
		h->chunked_at += line + size + 2;
	}
}

static void refuse(struct mock_conn *conn, int status)
{
	struct mock_bytes body = { 0 };

	mock_answer_fmt_error(&body, status, NULL);
	conn->http1->close_after = true;
	mock_http1_reply(conn, status, "application/json", mock_bytes_at(&body), body.n);
	mock_bytes_fini(&body);
}

static const struct mock_transport_ops http1_ops;

static void dispatch(struct mock_conn *conn, const struct head_in *head, struct mock_span body)
{
	struct mock_http1 *h = conn->http1;
	struct mock_request request = head->request;

	request.body = body;
	h->continued = false;
	h->close_after = head->close;
	if (mock_control(conn, &request))
		return;
	if (conn->control_only) {
		refuse(conn, 404);
		return;
	}
	conn->n_requests++;
	h->x = mock_exchange_new(conn, &http1_ops, NULL);
	h->x->close_after = head->close;
	mock_exchange_begin(h->x, &request);
}

static bool answering(const struct mock_http1 *h)
{
	return h->x != NULL || h->replying;
}

/* Takes one request off the front of [at, at+n), which is `in` or the bytes just read.
 * Returns bytes eaten; 0 = it is not whole yet, or the connection ends. */
static size_t take_request(struct mock_conn *conn, const char *at, size_t n, bool in_buffer)
{
	struct mock_http1 *h = conn->http1;
	struct head_in head;
	int rc = parse_head(at, n, &head);

	if (rc < 0) {
		refuse(conn, -rc);
		return 0;
	}
	if (rc == 0)
		return 0;
	if (head.chunked) {
		if (!in_buffer)
			return 0; /* the decoder works on `in` */
		rc = decode_chunked(h, head.head_bytes);
		if (rc < 0)
			refuse(conn, -rc);
		if (rc > 0) {
			size_t eaten = head.head_bytes + h->chunked_at;

    dispatch(conn, &head, (struct mock_span){ mock_bytes_at(&h->chunked_in), h->chunked_in.n });
    mock_bytes_eat(&h->chunked_in, h->chunked_in.n);
    h->chunked_at = 0;
    return eaten;
		}
	} else if (n >= head.head_bytes + head.body_bytes) {
		dispatch(conn, &head, (struct mock_span){ at + head.head_bytes, head.body_bytes });
		return head.head_bytes + head.body_bytes;
	} else {
		h->need = head.head_bytes + head.body_bytes;
	}
	if (head.expect && !h->continued && conn->closing == MOCK_CLOSE_NO && !answering(h)) {
		h->continued = true;
		mock_bytes_puts(&conn->out, continue_line);
		mock_conn_flush(conn);
	}
	return 0;
}

/* Requests out of `in`, as long as no answer is under way. */
static void take_kept(struct mock_conn *conn)
{
	struct mock_http1 *h = conn->http1;

	while (h->in.n > 0 && h->in.n >= h->need && !answering(h) && conn->closing == MOCK_CLOSE_NO) {
		size_t eaten;

		h->need = 0;
		eaten = take_request(conn, mock_bytes_at(&h->in), h->in.n, /* in_buffer= */ true);
		if (eaten == 0)
			return;
		mock_bytes_eat(&h->in, eaten);
	}
}

static void on_input(struct mock_conn *conn)
{
	struct mock_http1 *h = conn->http1;
	char *scratch = conn->mock->scratch;
	size_t got;

	while ((got = mock_conn_read(conn, scratch, sizeof(conn->mock->scratch))) > 0) {
		size_t at = 0;

		while (at < got && h->in.n == 0 && !answering(h) && conn->closing == MOCK_CLOSE_NO) {
			size_t eaten = take_request(conn, scratch + at, got - at, /* in_buffer= */ false);

    if (eaten == 0)
    break;
    at += eaten;
		}
		if (at < got && h->in.n > 2 * MOCK_REQUEST_BODY_MAX) {
			mock_conn_close(conn, MOCK_CLOSE_FIN); /* pipelines without end */
		} else if (at < got) {
			mock_bytes_put(&h->in, scratch + at, got - at);
			take_kept(conn);
		}
		if (got < sizeof(conn->mock->scratch) && conn->ssl == NULL)
			break; /* the edge is spent; a FIN behind these bytes is told by EPOLLRDHUP */
	}
}

static void on_drained(struct mock_conn *conn)
{
	if (conn->http1->x != NULL && conn->http1->x->blocked)
		mock_exchange_resume(conn->http1->x);
}

static void on_close(struct mock_conn *conn)
{
	struct mock_http1 *h = conn->http1;

	if (h->x != NULL)
		mock_exchange_end(h->x, conn->closing == MOCK_CLOSE_GONE ? MOCK_CLIENT_CLOSED : MOCK_CUT);
	mock_bytes_fini(&h->in);
	mock_bytes_fini(&h->chunked_in);
	free(h);
	conn->http1 = NULL;
}

static bool is_idle(const struct mock_conn *conn)
{
	return !answering(conn->http1) && conn->http1->in.n == 0 && conn->out.n == 0;
}

const struct mock_protocol mock_http1_protocol = {
	.on_input = on_input,
	.on_drained = on_drained,
	.on_idle = take_kept,
	.on_close = on_close,
	.is_idle = is_idle,
};

/* ---- answers out ------------------------------------------------------------- */

static const char *reason_of(int status)
{
	switch (status) {
	case 200: return "OK";
	case 400: return "Bad Request";
	case 401: return "Unauthorized";
	case 402: return "Payment Required";
	case 403: return "Forbidden";
	case 404: return "Not Found";
	case 405: return "Method Not Allowed";
	case 408: return "Request Timeout";
	case 409: return "Conflict";
	case 413: return "Content Too Large";
	case 422: return "Unprocessable Content";
	case 429: return "Too Many Requests";
	case 431: return "Request Header Fields Too Large";
	case 500: return "Internal Server Error";
	case 502: return "Bad Gateway";
	case 503: return "Service Unavailable";
	case 504: return "Gateway Timeout";
	default: return "Status";
	}
}

static void put_status_line(struct mock_bytes *out, int status)
{
	mock_bytes_lit(out, "HTTP/1.1 ");
	mock_bytes_u64(out, (uint64_t)status);
	mock_bytes_putc(out, ' ');
	mock_bytes_puts(out, reason_of(status));
	mock_bytes_lit(out, "\r\n");
}

static void send_head(struct mock_exchange *x, const struct mock_head *head)
{
	struct mock_bytes *out = &x->conn->out;

	for (int64_t i = 0; i < head->interim; i++)
		mock_bytes_puts(out, i % 2 == 0 ? continue_line : "HTTP/1.1 103 Early Hints\r\nlink: </mock>\r\n\r\n");
	put_status_line(out, head->status);
	for (size_t i = 0; i < head->n_headers; i++) {
		mock_bytes_put(out, head->headers[i].name.at, head->headers[i].name.n);
		mock_bytes_lit(out, ": ");
		mock_bytes_put(out, head->headers[i].value.at, head->headers[i].value.n);
		mock_bytes_lit(out, "\r\n");
	}
	if (head->length >= 0) {
		mock_bytes_lit(out, "content-length: ");
		mock_bytes_u64(out, (uint64_t)head->length);
		mock_bytes_lit(out, "\r\n");
	}
	if (head->chunked)
		mock_bytes_lit(out, "transfer-encoding: chunked\r\n");
	if (x->close_after)
		mock_bytes_lit(out, "connection: close\r\n");
	mock_bytes_lit(out, "\r\n");
	x->conn->http1->chunked_out = head->chunked;
}

static void send_body(struct mock_exchange *x, const char *at, size_t n, bool broken)
{
	struct mock_bytes *out = &x->conn->out;
	bool chunked = x->conn->http1->chunked_out;

	if (chunked)
		mock_bytes_fmt(out, "%zx\r\n", n);
	mock_bytes_put(out, at, broken ? n / 2 : n);
	if (chunked && !broken)
		mock_bytes_lit(out, "\r\n");
}

static void finish(struct mock_exchange *x)
{
	if (x->conn->http1->chunked_out)
		mock_bytes_lit(&x->conn->out, "0\r\n\r\n");
	mock_conn_flush(x->conn);
	if (x->close_after)
		mock_conn_close(x->conn, MOCK_CLOSE_FIN);
}

static void abort_answer(struct mock_exchange *x, enum mock_abort how)
{
	mock_conn_close(x->conn, how == MOCK_ABORT_RST ? MOCK_CLOSE_RST : MOCK_CLOSE_FIN);
}

static void flush_answer(struct mock_exchange *x)
{
	mock_conn_flush(x->conn);
}

static size_t backlog(struct mock_exchange *x)
{
	return x->conn->out.n;
}

static void detach(struct mock_exchange *x)
{
	struct mock_http1 *h = x->conn->http1;

	h->x = NULL;
	if (h->in.n > 0)
		mock_conn_wake(x->conn);
}

static const struct mock_transport_ops http1_ops = {
	.is_h2 = false,
	.head = send_head,
	.body = send_body,
	.finish = finish,
	.abort = abort_answer,
	.flush = flush_answer,
	.backlog = backlog,
	.detach = detach,
};

void mock_http1_open(struct mock_conn *conn)
{
	conn->http1 = calloc(1, sizeof(*conn->http1));
	if (conn->http1 == NULL) {
		mock_conn_close(conn, MOCK_CLOSE_GONE);
		return;
	}
	conn->protocol = &mock_http1_protocol;
}

void mock_http1_hold(struct mock_conn *conn)
{
	conn->http1->replying = true;
}

void mock_http1_reply(struct mock_conn *conn, int status, const char *content_type, const char *at, size_t n)
{
	struct mock_http1 *h = conn->http1;

	put_status_line(&conn->out, status);
	mock_bytes_fmt(&conn->out, "content-type: %s\r\ncontent-length: %zu\r\n%s\r\n", content_type, n,
	    h->close_after ? "connection: close\r\n" : "");
	mock_bytes_put(&conn->out, at, n);
	mock_conn_flush(conn);
	h->replying = false;
	if (h->close_after)
		mock_conn_close(conn, MOCK_CLOSE_FIN);
	else if (h->in.n > 0)
		mock_conn_wake(conn);
}
