/* SPDX-License-Identifier: Apache-2.0 */
/*
 * swar.h -- looking for a byte eight at a time, in a 64-bit word.
 *
 * The words of JSON and of event streams are short: a call of memchr, let alone one for each of several characters, costs
 * more than it finds. Used by the two scanners that see every byte of an answer.
 */
#ifndef SBX_DIALECT_SWAR_H
#define SBX_DIALECT_SWAR_H

#include <stdint.h>
#include <string.h>

#define SBX_SWAR_EVERY(byte) (UINT64_C(0x0101010101010101) * (byte))

/* Eight bytes with the first in the low end, whatever the machine. */
static inline uint64_t
sbx_swar_load(const char *p)
{
	uint64_t w;
	memcpy(&w, p, sizeof w);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
	w = __builtin_bswap64(w);
#endif
	return w;
}

/* High bit of each byte that is below `limit` (1..128) and ASCII. A borrow can also mark bytes above a true one, so only
 * the lowest mark is to be trusted; marks may be or-ed before that. */
static inline uint64_t
sbx_swar_below(uint64_t w, uint64_t limit)
{
	return (w - SBX_SWAR_EVERY(limit)) & ~w & SBX_SWAR_EVERY(0x80);
}

/* High bit of each byte that is `byte`; the same caution. */
static inline uint64_t
sbx_swar_is(uint64_t w, char byte)
{
	return sbx_swar_below(w ^ SBX_SWAR_EVERY((uint64_t)(unsigned char)byte), 1);
}

/* Which byte the lowest mark is of; marks is not 0. */
static inline unsigned
sbx_swar_first(uint64_t marks)
{
	return (unsigned)__builtin_ctzll(marks) / 8;
}

#endif
