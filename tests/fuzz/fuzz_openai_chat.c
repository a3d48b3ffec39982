/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_openai_chat.c -- any bytes as a provider's answer, and as a request.
 *
 * The first byte chooses how: status, streamed or not, quirks, and the sizes of the pieces. The events must be the same
 * for one piece as for many, nothing may follow END or ERROR, COMPLETE comes at most once. A request that is accepted must
 * still be JSON after its edits.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "agent/dialect/hub.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define LOG_MAX_BYTES (256u << 20)

struct run {
	struct sbx_buf out;
	unsigned n_complete;
	bool over;
};

static struct sbx_json_scratch scratch;

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
	assert(ev->choice < SBX_CHOICES_MAX);
	(void)sbx_buf_append(&run->out, &ev->kind, sizeof ev->kind);
	(void)sbx_buf_append(&run->out, &ev->choice, sizeof ev->choice);
	(void)sbx_buf_append(&run->out, &ev->index, sizeof ev->index);
	(void)sbx_buf_append(&run->out, &ev->flags, sizeof ev->flags);
	note_span(&run->out, ev->text);
	note_span(&run->out, ev->id);
	note_span(&run->out, ev->name);
	note_span(&run->out, ev->finish_raw);
	if (ev->kind == SBX_HUB_USAGE)
		assert(ev->usage->cached_tokens <= ev->usage->prompt_tokens || ev->usage->prompt_tokens < 0);
	if (ev->kind == SBX_HUB_ERROR) {
		assert(strlen(ev->error->message) < sizeof ev->error->message && strlen(ev->error->code) < sizeof ev->error->code);
		note_span(&run->out, sbx_span_of(ev->error->message));
	}
}

static void
decode(const uint8_t *data, size_t bytes, unsigned how, bool pieces, struct run *run)
{
	static const int statuses[] = {200, 200, 429, 500};
	const struct sbx_dialect *dialect = sbx_dialect_find("openai-chat");
	struct sbx_decode_opts opts = {
		.op = (enum sbx_op)(bytes % SBX_OP_COUNT_TOKENS), /* the one that the dialect has not */
		.quirks = {.no_finish = how & 4, .reasoning_apart = how & 8},
		.choices = 1 + (how >> 4 & 1),
		.stream = how & 32,
		.want_text = !(how & 64),
		.drop_usage = how & 128,
	};
	unsigned seed = how;
	memset(run, 0, sizeof *run);
	sbx_buf_init(&run->out, LOG_MAX_BYTES);
	struct sbx_decoder *d = dialect->decoder_new(&opts, &scratch, note, run);
	if (!d)
		return;
	dialect->decoder_head(d, statuses[how & 3], "text/event-stream");
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
edit_request(const uint8_t *data, size_t bytes, unsigned how)
{
	const struct sbx_dialect *dialect = sbx_dialect_find("openai-chat");
	struct sbx_quirks quirks = {.no_stream_options = how & 1};
	struct sbx_ask ask;
	struct sbx_pieces pieces;
	struct sbx_buf out;
	struct sbx_fault fault;
	struct sbx_routing routing, *as_http = how & 64 ? &routing : NULL;
	enum sbx_op op = (enum sbx_op)((how >> 2) % SBX_OP__COUNT);
	if (dialect->read_request(op, (struct sbx_span){(const char *)data, bytes}, &scratch, as_http, &ask, &fault)) {
		assert(fault.why[0] && strlen(fault.why) < sizeof fault.why && strlen(fault.param) < sizeof fault.param);
		return;
	}
	bool stream = ask.can_stream && how & 2;
	dialect->write_request(&ask, "a \"model\"", stream, &quirks, &pieces);
	sbx_buf_init(&out, LOG_MAX_BYTES);
	for (uint32_t i = 0; i < pieces.n; i++)
		(void)sbx_buf_append(&out, pieces.piece[i].at, pieces.piece[i].n);
	assert(out.n == pieces.bytes);
	int rc = dialect->read_request(op, (struct sbx_span){(const char *)out.data, out.n}, &scratch, as_http, &ask, &fault);
	assert(rc == 0 && ask.body_stream == stream && ask.n_taken == 0 && ask.cut.n == 0); /* what was for us is gone */
	assert(ask.body_include_usage == (stream && !quirks.no_stream_options));
	assert(sbx_json_string_eq(ask.model, "a \"model\""));
	sbx_buf_fini(&out);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	struct run whole, pieces;
	if (bytes == 0)
		return 0;
	sbx_json_scratch_init(&scratch);
	decode(data + 1, bytes - 1, data[0], false, &whole);
	decode(data + 1, bytes - 1, data[0], true, &pieces);
	assert(whole.out.n == pieces.out.n && (whole.out.n == 0 || memcmp(whole.out.data, pieces.out.data, whole.out.n) == 0));
	sbx_buf_fini(&whole.out);
	sbx_buf_fini(&pieces.out);
	edit_request(data + 1, bytes - 1, data[0]);
	return 0;
}
