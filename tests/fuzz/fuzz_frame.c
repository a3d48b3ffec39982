/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_frame.c -- any bytes as a stream of frames: taken off, checked, walked, read as pieces and replies, packed again.
 *
 * What must hold: no byte is read outside a frame; a frame that passed the check can be walked to its exact end; what the
 * library makes of it fits its own limits; and what is packed from the frame's values passes the check again.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "client/reply.h"
#include "client/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define STREAM_FRAME_MAX_BYTES (1u << 20) /* keeps a run quick */

static void
repack(struct sbx_packer *p, const char *key, const struct sbx_value *v)
{
	struct sbx_cursor c = sbx_cursor_of(v);
	struct sbx_value item;
	struct sbx_span name;
	switch (v->type) {
	case SBX_NIL:
	case SBX_EXT: /* never packed by us */
		sbx_pack_nil(p, key);
		break;
	case SBX_BOOL:
		sbx_pack_bool(p, key, v->truth);
		break;
	case SBX_UINT:
		sbx_pack_uint(p, key, v->u);
		break;
	case SBX_INT:
		assert((int64_t)v->u < 0);
		sbx_pack_int(p, key, (int64_t)v->u);
		break;
	case SBX_FLOAT:
		sbx_pack_key(p, key);
		msgpack_pack_double(&p->pk, v->f);
		break;
	case SBX_STR:
		sbx_pack_str(p, key, v->bytes);
		break;
	case SBX_BIN:
		sbx_pack_bin(p, key, v->bytes);
		break;
	case SBX_ARRAY:
		sbx_pack_array(p, key, v->n_items);
		while (sbx_next_item(&c, &item))
			repack(p, NULL, &item);
		assert(c.at == c.end);
		break;
	case SBX_MAP:
		sbx_pack_map(p, key, v->n_items);
		while (sbx_next_pair(&c, &name, &item)) {
			sbx_pack_str(p, NULL, name); /* a key may hold a NUL */
			repack(p, NULL, &item);
		}
		assert(c.at == c.end);
		break;
	}
}

static void
check_repacked(const struct sbx_frame *frame)
{
	struct sbx_buf b;
	struct sbx_packer p;
	struct sbx_frame again;
	char why[128];
	sbx_buf_init(&b, 8 * STREAM_FRAME_MAX_BYTES);
	sbx_frame_begin(&p, &b, SBX_FRAME_EVENT, frame->id, 1);
	repack(&p, "map", &frame->map);
	if (sbx_frame_end(&p) == 0) {
		assert(sbx_frame_size(b.data, b.n, SBX_FRAME_MAX_BYTES) == (int64_t)b.n);
		int rc = sbx_frame_check(b.data + SBX_FRAME_HEAD_BYTES, b.n - SBX_FRAME_HEAD_BYTES, &again, why, sizeof why);
		assert(rc == 0 || strstr(why, "deep") || strstr(why, "elements")); /* one level and one pair were added */
	}
	sbx_buf_fini(&b);
}

static void
use_reply(const struct sbx_reply *r)
{
	size_t n = strlen(sbx_reply_code_word(r)) + strlen(sbx_reply_message(r)) + strlen(sbx_reply_target(r));
	struct sbx_attempt_info a;
	struct sbx_tool_call call;
	const char *name, *text;
	int64_t number;
	for (uint32_t i = 0; sbx_reply_attempt(r, i, &a); i++)
		n += strlen(a.target) + strlen(a.outcome) + strlen(a.connection) + strlen(a.message);
	for (uint32_t i = 0; sbx_reply_tool_call(r, i, &call); i++)
		n += strlen(call.id) + strlen(call.name) + strlen(call.arguments);
	for (uint32_t i = 0; sbx_reply_field(r, i, &name, &text, &number); i++)
		n += strlen(name) + (text ? strlen(text) : 0);
	for (uint32_t i = 0; i < sbx_reply_choices(r); i++)
		n += strlen(sbx_reply_text(r, i, NULL)) + strlen(sbx_reply_finish(r, i));
	assert(n <= 2u * SBX_REPLY_TEXT_MAX_BYTES);
}

static void
use_frame(const struct sbx_frame *frame, struct sbx_reply *r)
{
	struct sbx_piece piece;
	check_repacked(frame);
	if (frame->kind == SBX_FRAME_RESET) {
		sbx_reply_drop(r);
	} else if (frame->kind == SBX_FRAME_EVENT) {
		if (sbx_piece_read(frame, &piece) == 1)
			(void)sbx_reply_gather(r, &piece);
	} else if (frame->kind >= SBX_FRAME_DONE || frame->kind == SBX_FRAME_STATS) {
		if (sbx_reply_read(r, frame) < 0)
			sbx_reply_clear(r);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct sbx_reply *r = sbx_reply_new(true);
	char why[128];
	assert(r);
	while (n > 0) {
		int64_t size = sbx_frame_size(data, n, STREAM_FRAME_MAX_BYTES);
		if (size <= 0)
			break;
		size_t frame_bytes = (size_t)size - SBX_FRAME_HEAD_BYTES;
		uint8_t *exact = malloc(frame_bytes); /* so that one byte too far is seen */
		assert(exact);
		memcpy(exact, data + SBX_FRAME_HEAD_BYTES, frame_bytes);
		struct sbx_frame frame;
		int rc = sbx_frame_check(exact, frame_bytes, &frame, why, sizeof why);
		assert(rc == 0 || rc == -SBX_EPROTO);
		if (rc == 0)
			use_frame(&frame, r);
		free(exact);
		data += size;
		n -= (size_t)size;
	}
	use_reply(r);
	sbx_reply_free(r);
	return 0;
}
