/* SPDX-License-Identifier: Apache-2.0 */
/*
 * buf.h -- a growable byte buffer that cannot grow without a limit.
 *
 * Every buffer says at init how large it may ever become; going past that is -SBX_ETOOBIG, a normal answer, and leaves the
 * content as it was. Bytes are appended at the end and consumed at the front; the front space is reclaimed lazily, so that
 * consuming in small pieces costs O(1) a byte. Content is data[0..n).
 */
#ifndef SBX_CLIENT_BUF_H
#define SBX_CLIENT_BUF_H

#include <stddef.h>
#include <stdint.h>

struct sbx_buf {
	uint8_t *data;      /* first byte of the content; NULL while nothing was ever stored */
	size_t n;           /* bytes of content */
	uint8_t *base;      /* the allocation, owned */
	size_t cap_bytes;   /* its size */
	size_t max_bytes;   /* most that n may become */
};

void sbx_buf_init(struct sbx_buf *b, size_t max_bytes);
void sbx_buf_fini(struct sbx_buf *b);  /* frees; the buffer may be used again as after init */
void sbx_buf_clear(struct sbx_buf *b); /* n = 0, keeps the memory */
void sbx_buf_trim(struct sbx_buf *b, size_t keep_bytes); /* frees the memory if empty and larger than keep_bytes */
/* Room for `bytes` more after the content; NULL when that would pass the maximum or memory is out. */
uint8_t *sbx_buf_reserve(struct sbx_buf *b, size_t bytes);
void sbx_buf_commit(struct sbx_buf *b, size_t bytes); /* bytes of the reserve that are content now */
int sbx_buf_append(struct sbx_buf *b, const void *bytes_at, size_t bytes); /* 0, -SBX_ETOOBIG, -SBX_ENOMEM */
int sbx_buf_printf(struct sbx_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void sbx_buf_consume(struct sbx_buf *b, size_t bytes); /* bytes <= n, from the front */
/* Hands the allocation over: content at the returned address, free() it. NULL when empty. The buffer is as after init. */
uint8_t *sbx_buf_take(struct sbx_buf *b, size_t *ret_bytes);

#endif
