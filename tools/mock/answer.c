/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the double answers to a request: which status, which kind of body, which
 * head.  How it is written is the dialect's business (dialect.h), the order of
 * a stream's events events.c's; faults of time and of the wire are played in
 * exchange.c and the transports.
 *
 * The text is deterministic: the words of text= (or "hello from NAME"), then
 * " t4 t5 ..." up to tokens=.  Two doubles of one --name say the same.
 */
#include "tools/mock/dialect.h"

#include <string.h>

#define BIG_HEADER_BYTES ((size_t)16 << 10) /* of one line of big-headers: 64 of them make 1 MiB */

/* The first that takes a path speaks; where none does, the first of all says so. */
static const struct mock_dialect *const dialects[] = { &mock_openai, &mock_anthropic };

static const struct mock_faults *healthy(void)
{
	static struct mock_faults none;
	static bool ready;

	if (!ready) {
		mock_faults_init(&none);
		ready = true;
	}
	return &none;
}

static const char *type_of_text(const struct mock_text *text)
{
	if (text->n > 0 && (text->at[0] == '{' || text->at[0] == '['))
		return "application/json";
	if (text->n > 5 && (memcmp(text->at, "data:", 5) == 0 || memcmp(text->at, "event", 5) == 0))
		return "text/event-stream";
	if (text->n > 0 && text->at[0] == '<')
		return "text/html";
	return "text/plain";
}

/* The answer is this error, whatever the rules say. */
static void refuse(struct mock_exchange *x, int status, const char *message)
{
	x->answer.stage = MOCK_STAGE_END;
	x->answer.status = status;
	x->answer.content_type = "application/json";
	x->dialect->fmt_error(&x->body, status, message);
}

/* Known once the request is read; the rest of x->answer is set by its kind. */
static void choose_fixed(struct mock_exchange *x)
{
	const struct mock_faults *f = x->faults;
	struct mock_answer *a = &x->answer;

	a->stage = MOCK_STAGE_END;
	a->status = f->status >= 0 ? (int)f->status : 200;
	a->content_type = "application/json";
	if (f->file.at != NULL) {
		size_t n = f->file.n;

		mock_bytes_put(&x->body, f->content.at, f->content.n);
		if (n > 4 && memcmp(f->file.at + n - 4, ".sse", 4) == 0)
			a->content_type = "text/event-stream";
		else if (n <= 5 || memcmp(f->file.at + n - 5, ".json", 5) != 0)
			a->content_type = "application/octet-stream";
	} else if (f->body.at != NULL) {
		mock_bytes_put(&x->body, f->body.at, f->body.n);
		a->content_type = type_of_text(&f->body);
	} else if (f->html) {
		mock_bytes_lit(&x->body, "<!DOCTYPE html>\n<html><head><title>Bad gateway</title></head>"
		    "<body><h1>502 Bad gateway</h1></body></html>\n");
		a->content_type = "text/html; charset=utf-8";
	} else if (f->json_error) {
		x->dialect->fmt_error(&x->body, f->error_status >= 0 ? (int)f->error_status : 503, NULL);
	} else if (f->empty) {
		a->content_type = NULL;
	} else if (f->gzip) {
		const struct mock_bytes *packed = mock_body_bomb();

		mock_bytes_put(&x->body, mock_bytes_at(packed), packed->n);
	} else if (a->status >= 400) {
		x->dialect->fmt_error(&x->body, a->status, NULL);
	} else {
		x->dialect->body(x);
	}
}

static bool wants_fixed(const struct mock_faults *f)
{
	return f->file.at != NULL || (f->body.at != NULL && f->error_after < 0 && !f->error_first) || f->html ||
		   f->json_error || f->empty || f->gzip || f->status >= 400;
}

/* What is generated. */
static void choose_chat(struct mock_exchange *x, const struct mock_ask *ask)
{
	const struct mock_faults *f = x->faults;
	struct mock_answer *a = &x->answer;

	a->text = (struct mock_span){ mock_bytes_at(&x->mock->greeting), x->mock->greeting.n };
	if (f->text.at != NULL)
		a->text = (struct mock_span){ f->text.at, f->text.n };
	a->n_tokens = f->tokens >= 0 ? f->tokens : mock_say_count_words(a);
	a->n_choices = f->choices > 0 ? f->choices : ask->n_choices;
	if (!ask->stream || wants_fixed(f)) {
		choose_fixed(x);
		return;
	}
	a->sse = true;
	a->status = f->status >= 0 ? (int)f->status : 200;
	a->content_type = x->dialect->stream_type;
	a->stage = MOCK_STAGE_ROLE;
}

/* HEAD of a list of models: a head, as it is for those with a key and those without, and no body. */
static void choose_warm(struct mock_exchange *x, bool key_fits_it)
{
	x->answer.stage = MOCK_STAGE_END;
	x->answer.status = x->faults->status >= 0 ? (int)x->faults->status : key_fits_it ? 200 : 401;
	x->answer.content_type = "application/json";
}

/* A fault that the transport, or the kind of answer, cannot play must not pass for a healthy answer. */
static const char *misfit(const struct mock_exchange *x, const struct mock_faults *f)
{
	if (!x->ops->is_h2 && (f->goaway != 0 || f->refused_stream || f->rst_stream >= 0))
		return "goaway, refused-stream and rst-stream need HTTP/2.";
	if (x->ops->is_h2 && (f->te_cl || f->drip_headers > 0))
		return "te-cl and drip-headers need HTTP/1.1.";
	return x->dialect->misfit != NULL ? x->dialect->misfit(x, f) : NULL;
}

/* The dialect of a path, which loses its query; false = it is nobody's. */
static bool find_dialect(struct mock_exchange *x, struct mock_span path)
{
	const char *query = memchr(path.at, '?', path.n);

	if (query != NULL)
		path.n = (size_t)(query - path.at);
	for (size_t i = 0; i < sizeof(dialects) / sizeof(dialects[0]); i++) {
		x->dialect = dialects[i];
		if (x->dialect->takes(path, &x->answer.op))
			return true;
	}
	x->dialect = dialects[0];
	return false;
}

void mock_answer_decide(struct mock_exchange *x, const struct mock_request *request)
{
	struct mock *mock = x->mock;
	bool known = find_dialect(x, request->path);
	bool models = known && x->answer.op == MOCK_OP_MODELS, post = mock_span_is(request->method, "POST");
	bool warm = models && mock_span_is(request->method, "HEAD"), fits = x->dialect->key_fits(x, request);
	struct mock_ask ask;
	char error[256];
	int status = 0;

	ask.model[0] = '\0';
	ask.n_model = 0;
	ask.n_choices = 1;
	ask.n_inputs = 0;
	ask.stream = false;
	if (models)
		ask.n_model = (size_t)snprintf(ask.model, sizeof(ask.model), "%s", warm ? MOCK_WARM : "/models");
	else if (known && post)
		status = x->dialect->read(x, request, &ask, error, sizeof(error));
	(void)mock_date(mock);
	x->faults = healthy();
	x->entry = warm ? mock_log_add_warm(mock->log, x->conn, request)
			: mock_log_add(mock->log, x->conn, x->conn->n_requests, request,
			      (struct mock_span){ models ? NULL : ask.model, models ? 0 : ask.n_model }, ask.stream);
	if (!warm && !fits) {
		refuse(x, 401, NULL);
	} else if (!known) {
		refuse(x, 404, "Unknown path.");
	} else if (!warm && mock_span_is(request->method, models ? "GET" : "POST") == false) {
		refuse(x, 405, NULL);
	} else if (status != 0) {
		refuse(x, status, error);
	} else if (mock_rules_find(mock->rules, ask.model, x->conn->n_requests > 1, &x->rule, error,
	    sizeof(error)) < 0) {
		refuse(x, 400, error);
	} else if (x->rule != NULL && misfit(x, &x->rule->faults) != NULL) {
		refuse(x, 400, misfit(x, &x->rule->faults));
	} else {
		if (x->rule != NULL)
			x->faults = &x->rule->faults;
		x->answer.n_choices = ask.n_choices;
		if (warm)
			choose_warm(x, fits);
		else if (x->answer.op == MOCK_OP_CHAT || x->answer.op == MOCK_OP_COMPLETION)
			choose_chat(x, &ask);
		else
			choose_fixed(x);
	}
}

uint64_t mock_answer_work_ns(const struct mock_exchange *x)
{
	const struct mock_faults *f = x->faults;
	uint64_t gaps = x->answer.n_tokens > 1 ? (uint64_t)x->answer.n_tokens - 1 : 0;

	return x->answer.sse ? 0 : f->first + f->gap * gaps;
}

static void add_header(struct mock_head *head, const char *name, const char *value, size_t n_value)
{
	if (head->n_headers == MOCK_HEADERS_MAX)
		return;
	head->headers[head->n_headers++] = (struct mock_header){ { name, strlen(name) }, { value, n_value } };
}

static void add_text_header(struct mock_head *head, const char *name, const struct mock_text *value)
{
	if (value->at != NULL)
		add_header(head, name, value->at, value->n);
}

static void add_big_headers(struct mock_head *head, size_t bytes)
{
	static char block[BIG_HEADER_BYTES];

	memset(block, 'h', sizeof(block));
	while (bytes > 0) {
		size_t n = bytes < sizeof(block) ? bytes : sizeof(block);

		add_header(head, "x-mock-big", block, n);
		bytes -= n;
	}
}

void mock_answer_head(struct mock_exchange *x, struct mock_head *ret_head)
{
	const struct mock_faults *f = x->faults;
	struct mock_answer *a = &x->answer;
	bool none = f->content_type.at != NULL && strcmp(f->content_type.at, "none") == 0;

	ret_head->status = a->status;
	ret_head->interim = f->interim > 0 ? f->interim : 0;
	ret_head->n_headers = 0;
	if (f->date.at == NULL)
		add_header(ret_head, "date", mock_date(x->mock), strlen(mock_date(x->mock)));
	else if (strcmp(f->date.at, "none") != 0)
		add_text_header(ret_head, "date", &f->date);
	if (f->content_type.at != NULL && !none)
		add_text_header(ret_head, "content-type", &f->content_type);
	else if (a->content_type != NULL && !none)
		add_header(ret_head, "content-type", a->content_type, strlen(a->content_type));
	add_text_header(ret_head, "retry-after", &f->retry_after);
	add_text_header(ret_head, "retry-after-ms", &f->retry_after_ms);
	if (f->gzip)
		add_header(ret_head, "content-encoding", "gzip", 4);
	else
		add_text_header(ret_head, "content-encoding", &f->encoding);
	for (size_t i = 0; i < f->n_headers; i++) {
		if (ret_head->n_headers == MOCK_HEADERS_MAX)
			break;
		ret_head->headers[ret_head->n_headers++] =
			(struct mock_header){ { f->headers[i].name.at, f->headers[i].name.n },
			    { f->headers[i].value.at, f->headers[i].value.n } };
	}
	if (f->big_headers > 0)
		add_big_headers(ret_head, (size_t)f->big_headers);

	/* a length that is told, rightly or wrongly, needs the whole body now */
	if (a->sse && (f->wrong_length != 0 || f->te_cl))
		while (mock_answer_next(x))
			;
	ret_head->chunked = (a->sse && f->wrong_length == 0) || f->replay || f->bad_chunk || f->te_cl;
	ret_head->length = ret_head->chunked && !f->te_cl ? -1 : (int64_t)x->body.n + f->wrong_length;
	if (ret_head->length < -1)
		ret_head->length = 0;
	if (!a->sse || f->wrong_length != 0 || f->te_cl)
		a->last_chunk = true;
}
