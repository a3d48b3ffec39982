/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wire.h -- the codec of <signalbox/wire.h>: frames to bytes and bytes to frames. Pure; used by the library and the agent.
 *
 * Packing goes through msgpack-c into an sbx_buf. Reading never builds objects: sbx_frame_check() walks the bytes once
 * (depth, elements, lengths against what is left, UTF-8 of str, keys that are str and unique in their map), and cursors
 * then walk checked bytes and cannot fail on their form. msgpack-c's own unpacker is not used: eight bytes that claim a
 * huge array make it allocate gigabytes.
 */
#ifndef SBX_CLIENT_WIRE_H
#define SBX_CLIENT_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <msgpack.h>

#include <signalbox/errors.h>
#include <signalbox/wire.h>

#include "client/buf.h"
#include "client/span.h"

/* ---- packing ---- */
struct sbx_packer {
	struct sbx_buf *out;
	size_t frame_at;     /* offset of the length word of the frame being built */
	msgpack_packer pk;
	int rc;              /* first failure; checked once, in sbx_frame_end() */
};
/* Starts a frame at the end of `out`: length word, array head, kind, id, and the head of a map of n_keys. */
void sbx_frame_begin(struct sbx_packer *p, struct sbx_buf *out, enum sbx_frame_kind kind, uint64_t id, uint32_t n_keys);
/* Fills in the length. 0, -SBX_ENOMEM, or -SBX_ETOOBIG; on failure `out` is as before sbx_frame_begin(). */
int sbx_frame_end(struct sbx_packer *p);
/* Keys with their values; a key is a string literal or other NUL-terminated text. */
void sbx_pack_key(struct sbx_packer *p, const char *key);
void sbx_pack_uint(struct sbx_packer *p, const char *key, uint64_t value);
void sbx_pack_int(struct sbx_packer *p, const char *key, int64_t value);
void sbx_pack_bool(struct sbx_packer *p, const char *key, bool value);
void sbx_pack_nil(struct sbx_packer *p, const char *key);
void sbx_pack_str(struct sbx_packer *p, const char *key, struct sbx_span text); /* invalid UTF-8 is replaced by U+FFFD */
void sbx_pack_bin(struct sbx_packer *p, const char *key, struct sbx_span bytes);
void sbx_pack_map(struct sbx_packer *p, const char *key, uint32_t n_keys);      /* key NULL: an item of an array */
void sbx_pack_array(struct sbx_packer *p, const char *key, uint32_t n_items);

/* ---- taking frames off a stream of bytes ---- */
/* How many bytes the first frame in data[0..n) has, head included: > 0 when it is all there, 0 when more is needed,
 * -SBX_ETOOBIG when its length is beyond max_bytes, -SBX_EPROTO when it is below the smallest frame. */
int64_t sbx_frame_size(const uint8_t *data, size_t n, size_t max_bytes);

/* ---- reading ---- */
enum sbx_value_type { SBX_NIL, SBX_BOOL, SBX_UINT, SBX_INT /* negative */, SBX_FLOAT, SBX_STR, SBX_BIN, SBX_ARRAY, SBX_MAP, SBX_EXT };
struct sbx_value {
	enum sbx_value_type type;
	bool truth;               /* BOOL */
	uint64_t u;               /* UINT; INT: the two's complement */
	double f;
	struct sbx_span bytes;    /* STR, BIN: the content; ARRAY, MAP: the encoded items */
	uint32_t n_items;         /* ARRAY: items; MAP: pairs */
};
struct sbx_frame {
	uint32_t kind;
	uint64_t id;
	struct sbx_value map;
};
/* Check one frame (without its length word) and open it. 0; -SBX_EPROTO with a sentence in why (at least 128 bytes). */
int sbx_frame_check(const uint8_t *data, size_t n, struct sbx_frame *ret_frame, char *why, size_t why_bytes);

/* Walk a checked array or map: `struct sbx_cursor c = sbx_cursor(v); while (sbx_next_pair(&c, &k, &v)) ...` */
struct sbx_cursor {
	const uint8_t *at, *end;
	uint32_t left;
};
struct sbx_cursor sbx_cursor_of(const struct sbx_value *container);
bool sbx_next_item(struct sbx_cursor *c, struct sbx_value *ret_item);
bool sbx_next_pair(struct sbx_cursor *c, struct sbx_span *ret_key, struct sbx_value *ret_value);
bool sbx_map_get(const struct sbx_value *map, const char *key, struct sbx_value *ret_value); /* nil counts as absent */

const char *sbx_code_word(enum sbx_code code);   /* "unknown_model" */
int sbx_code_status(enum sbx_code code);         /* 404 */
enum sbx_code sbx_code_find(struct sbx_span word); /* SBX_CODE_NONE when unknown */

#endif
