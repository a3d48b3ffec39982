/* SPDX-License-Identifier: Apache-2.0 */
/* body_edit.c -- see body_edit.h. */
#include "agent/dialect/body_edit.h"

#include <assert.h>

static void
add_text(struct sbx_body_edits *e, const char *bytes, size_t n)
{
	assert(n <= sizeof e->ret->text - e->text_n);
	memcpy(e->ret->text + e->text_n, bytes, n);
	e->text_n += n;
}

static void
add_piece(struct sbx_pieces *p, const char *at, size_t n)
{
	if (n == 0)
		return;
	assert(p->n < SBX_PIECES_MAX);
	p->piece[p->n++] = (struct sbx_span){at, n};
	p->bytes += n;
}

void
sbx_body_edit_begin(struct sbx_body_edits *e, const struct sbx_ask *ask, struct sbx_pieces *ret)
{
	e->ask = ask;
	e->ret = ret;
	e->n = e->text_n = e->front = 0;
	ret->n = 0;
	ret->bytes = 0;
}

void
sbx_body_edit_add(struct sbx_body_edits *e, const char *at, size_t drop_bytes, struct sbx_span insert)
{
	size_t i = e->n++;
	assert(e->n <= SBX_BODY_EDITS_MAX);
	for (; i > 0 && e->edit[i - 1].at >= at; i--)
		e->edit[i] = e->edit[i - 1];
	e->edit[i] = (struct sbx_body_edit){at, drop_bytes, insert};
}

/* Those that stand before the needed member, which stays, take the comma behind them along, and the others the one before them: so
 * no two of them want the same, however many go. */
void
sbx_body_edit_drop(struct sbx_body_edits *e, struct sbx_span value)
{
	const char *from = value.at, *to = value.at + value.n;
	while (*--from != '"') /* the name's closing quote */
		;
	while (*--from != '"') /* and its opening one: no name that is dropped has a quote in it */
		;
	if (value.at < e->ask->needed.at) {
		while (*to++ != ',')
			;
	} else {
		while (*--from != ',')
			;
	}
	sbx_body_edit_add(e, from, (size_t)(to - from), (struct sbx_span){NULL, 0});
}

void
sbx_body_edit_put_front(struct sbx_body_edits *e, struct sbx_span member)
{
	add_text(e, member.at, member.n);
}

/* A control character, which no name has, becomes '?': the provider knows none such. */
static void
add_name(struct sbx_body_edits *e, const char *model)
{
	size_t model_n = strlen(model);
	assert(model_n <= SBX_MODEL_MAX_BYTES);
	add_text(e, "\"", 1);
	for (size_t i = 0; i < model_n; i++) {
		char c = model[i];
		if (c == '"' || c == '\\')
			add_text(e, "\\", 1);
		add_text(e, (unsigned char)c < 0x20 || c == 0x7f ? "?" : &c, 1);
	}
	add_text(e, "\"", 1);
}

void
sbx_body_edit_model(struct sbx_body_edits *e, const char *model)
{
	if (e->ask->model.n) {
		add_name(e, model);
		sbx_body_edit_add(e, e->ask->model.at, e->ask->model.n, (struct sbx_span){e->ret->text, e->text_n});
		e->front = e->text_n;
	} else {
		add_text(e, "\"model\":", 8);
		add_name(e, model);
		add_text(e, ",", 1);
	}
}

void
sbx_body_edit_stream(struct sbx_body_edits *e, bool stream)
{
	const struct sbx_ask *ask = e->ask;
	if (stream && !ask->stream.n)
		sbx_body_edit_put_front(e, SBX_SPAN("\"stream\":true,"));
	else if (stream != ask->body_stream)
		sbx_body_edit_add(e, ask->stream.at, ask->stream.n, stream ? SBX_SPAN("true") : SBX_SPAN("false"));
}

void
sbx_body_edit_taken(struct sbx_body_edits *e)
{
	if (e->ask->cut.n)
		sbx_body_edit_add(e, e->ask->cut.at, e->ask->cut.n, (struct sbx_span){NULL, 0});
	for (uint32_t i = 0; i < e->ask->n_taken; i++)
		sbx_body_edit_drop(e, e->ask->taken[i]);
}

void
sbx_body_edit_end(struct sbx_body_edits *e)
{
	struct sbx_span root = sbx_json_root(e->ask->body.at, e->ask->body.n);
	const char *at = e->ask->body.at, *end = e->ask->body.at + e->ask->body.n;
	if (e->text_n > e->front)
		sbx_body_edit_add(e, root.at + 1, 0, (struct sbx_span){e->ret->text + e->front, e->text_n - e->front});
	for (size_t i = 0; i < e->n; i++) {
		add_piece(e->ret, at, (size_t)(e->edit[i].at - at));
		add_piece(e->ret, e->edit[i].insert.at, e->edit[i].insert.n);
		at = e->edit[i].at + e->edit[i].drop_bytes;
	}
	add_piece(e->ret, at, (size_t)(end - at));
}
