/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_anthropic.c -- any bytes as an answer of Anthropic's, as a client's request, and as a request between the dialects.
 *
 * The first byte chooses how: status, streamed or not, and the sizes of the pieces. The events must be the same for one piece as for many,
 * nothing may follow END or ERROR, COMPLETE comes at most once, and what is written for a client out of them must be read as whole
 * again. What a translation writes must be JSON that the other one takes.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <signalbox/errors.h>

#include "agent/dialect/anthropic.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define LOG_MAX_BYTES (256u << 20)

struct run {
	struct sbx_buf out;          /* of all events */
	struct sbx_encoder *again;   /* NULL = nobody writes them */
	unsigned n_complete;
	bool over;
};

static struct sbx_json_scratch scratch;
static const struct sbx_dialect *const dialect = &sbx_dialect_anthropic;

static void
note_span(struct sbx_buf *out, struct sbx_span s)
{
	(void)sbx_buf_append(out, &s.n, sizeof s.n);
	(void)sbx_buf_append(out, s.at, s.n);
}

static void
note(void *arg, const struct sbx_hub_event *ev)
{
	struct run *run = arg;
	assert(!run->over);
	run->over = ev->kind == SBX_HUB_END || ev->kind == SBX_HUB_ERROR;
	run->n_complete += ev->kind == SBX_HUB_COMPLETE;
	assert(run->n_complete <= 1);
	(void)sbx_buf_append(&run->out, &ev->kind, sizeof ev->kind);
	(void)sbx_buf_append(&run->out, &ev->index, sizeof ev->index);
	(void)sbx_buf_append(&run->out, &ev->flags, sizeof ev->flags);
	note_span(&run->out, ev->text);
	note_span(&run->out, ev->id);
	note_span(&run->out, ev->name);
	note_span(&run->out, ev->finish_raw);
	if (ev->kind == SBX_HUB_DETAIL)
		assert(sbx_json_type(sbx_json_root(ev->text.at, ev->text.n)) == SBX_JSON_OBJECT);
	if (ev->kind == SBX_HUB_USAGE)
		assert(ev->usage->cached_tokens <= ev->usage->prompt_tokens);
	if (run->again)
		assert(sbx_anthropic_encoder_event(run->again, ev) == 0);
}

static void
decode(const uint8_t *data, size_t bytes, unsigned how, bool pieces, struct run *run)
{
	static const int statuses[] = { 200, 200, 429, 500 };
	const struct sbx_decode_opts opts = { .op = SBX_OP_CHAT, .choices = 1, .stream = how & 4, .want_text = !(how & 8), .stream_only = how & 16 };
	unsigned seed = how;
	run->n_complete = 0;
	run->over = false;
	sbx_buf_init(&run->out, LOG_MAX_BYTES);
	struct sbx_decoder *d = dialect->decoder_new(&opts, &scratch, note, run);
	if (!d)
		return;
	dialect->decoder_head(d, statuses[how & 3], "");
	for (size_t at = 0, n; at < bytes; at += n) {
		seed = seed * 1103515245u + 12345u;
		n = pieces ? 1 + (seed >> 16) % 17 : bytes;
		if (n > bytes - at)
			n = bytes - at;
		char *piece = malloc(n);
		if (!piece)
			break;
		memcpy(piece, data + at, n);
		dialect->decoder_feed(d, piece, n);
		free(piece);
	}
	dialect->decoder_end(d);
	(void)dialect->decoder_malformed(d);
	dialect->decoder_free(d);
}

static void
write_again(const uint8_t *data, size_t bytes, unsigned how)
{
	const struct sbx_encode_opts opts = { .op = SBX_OP_CHAT, .stream = how & 32, .model = "m", .id = "msg" };
	struct sbx_buf out;
	struct run run = { .over = false }, back = { .over = false };
	sbx_buf_init(&out, LOG_MAX_BYTES);
	run.again = sbx_anthropic_encoder_new(&opts, &out);
	decode(data, bytes, how & ~8u, false, &run);
	if (run.again && run.n_complete && sbx_anthropic_encoder_end(run.again) == 0) {
		decode(out.data, out.n, (unsigned)(opts.stream ? 4 : 0), true, &back);
		assert(back.n_complete == 1 && back.over);
		sbx_buf_fini(&back.out);
	}
	sbx_anthropic_encoder_free(run.again);
	sbx_buf_fini(&run.out);
	sbx_buf_fini(&out);
}

static void
must_be_json(const struct sbx_buf *b)
{
	assert(sbx_json_check((const char *)b->data, b->n, &scratch, NULL) != -SBX_ESYNTAX); /* too deep it may be */
}

static void
translate(struct sbx_span body, unsigned how)
{
	const struct sbx_translation t = { .model = how & 64 ? "claude-opus-4-6" : "x", .stream = how & 1, .drop_params = how & 2 };
	struct sbx_buf hub, own;
	struct sbx_fault fault;
	sbx_buf_init(&hub, LOG_MAX_BYTES);
	sbx_buf_init(&own, LOG_MAX_BYTES);
	if (sbx_anthropic_from_hub(SBX_OP_CHAT, body, &t, &own, &fault) == 0)
		must_be_json(&own);
	sbx_buf_clear(&own);
	if (sbx_anthropic_to_hub(SBX_OP_CHAT, body, &hub, &fault) == 0) {
		must_be_json(&hub);
		(void)sbx_anthropic_from_hub(SBX_OP_CHAT, (struct sbx_span){ (const char *)hub.data, hub.n }, &t, &own, &fault);
	}
	sbx_buf_fini(&hub);
	sbx_buf_fini(&own);
}

static void
edit_request(struct sbx_span body, unsigned how)
{
	struct sbx_ask ask;
	struct sbx_pieces pieces;
	struct sbx_buf out;
	struct sbx_fault fault;
	struct sbx_routing routing, *as_http = how & 64 ? &routing : NULL;
	if (dialect->read_request(SBX_OP_CHAT, body, &scratch, as_http, &ask, &fault)) {
		assert(fault.why[0]);
		return;
	}
	dialect->write_request(&ask, "a \"model\"", how & 2, &(struct sbx_quirks){ .no_finish = false }, &pieces);
	sbx_buf_init(&out, LOG_MAX_BYTES);
	for (uint32_t i = 0; i < pieces.n; i++)
		(void)sbx_buf_append(&out, pieces.piece[i].at, pieces.piece[i].n);
	assert(out.n == pieces.bytes);
	int rc = dialect->read_request(SBX_OP_CHAT, (struct sbx_span){ (const char *)out.data, out.n }, &scratch, as_http, &ask, &fault);
	assert(rc == 0 && ask.body_stream == ((how & 2) != 0) && ask.n_taken == 0 && sbx_json_string_eq(ask.model, "a \"model\""));
	sbx_buf_fini(&out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct run whole = { .over = false }, pieces = { .over = false };
	if (bytes == 0)
		return 0;
	const struct sbx_span body = { (const char *)data + 1, bytes - 1 };
	sbx_json_scratch_init(&scratch);
	decode(data + 1, bytes - 1, data[0], false, &whole);
	decode(data + 1, bytes - 1, data[0], true, &pieces);
	assert(whole.out.n == pieces.out.n && (whole.out.n == 0 || memcmp(whole.out.data, pieces.out.data, whole.out.n) == 0));
	sbx_buf_fini(&whole.out);
	sbx_buf_fini(&pieces.out);
	write_again(data + 1, bytes - 1, data[0]);
	edit_request(body, data[0]);
	if (sbx_json_check(body.at, body.n, &scratch, NULL) == 0)
		translate(body, data[0]);
	sbx_json_scratch_fini(&scratch);
	return 0;
}
