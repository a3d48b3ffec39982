/* SPDX-License-Identifier: Apache-2.0 */
/*
 * table.c -- columns that line up, for people. The last column is never padded, and so may be long. Where there is not room for
 * all, whole columns are left out, by a rank that the caller gives them; see cli.h.
 */
#include "tools/signalbox/cli.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_MIN 16 /* columns: less of a name tells nothing */

void
table_init(struct table *t, const char *const *head)
{
	*t = (struct table){ .n_columns = 0 };
	while (head[t->n_columns] && t->n_columns < TABLE_COLUMNS_MAX) {
		t->head[t->n_columns] = head[t->n_columns];
		t->n_columns++;
	}
}

void
table_row(struct table *t, enum style style)
{
	while (t->n_cells % t->n_columns)
		table_cell(t, "%s", "");
	if (t->n_cells + t->n_columns > t->room_cells) {
		t->room_cells = t->room_cells ? t->room_cells * 2 : 8 * t->n_columns;
		t->cell = must(reallocarray(t->cell, t->room_cells, sizeof *t->cell));
		t->style = must(reallocarray(t->style, t->room_cells / t->n_columns, sizeof *t->style));
	}
	t->style[t->n_cells / t->n_columns] = style;
}

void
table_cell(struct table *t, const char *fmt, ...)
{
	va_list ap;
	char *text;
	va_start(ap, fmt);
	int n = vasprintf(&text, fmt, ap);
	va_end(ap);
	must(n < 0 ? NULL : text);
	for (char *at = text; (at = strpbrk(at, "\n\t"));)
		*at = ' '; /* a row is a line, whatever a provider's message holds */
	t->cell[t->n_cells++] = text;
}

/* Columns on the screen, taking each character for one: names of targets are ASCII in practice. */
static size_t
width_of(const char *text)
{
	size_t n = 0;
	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

/* ">over|name": a head in its parts. */
struct head {
	const char *over, *name;
	size_t over_bytes; /* 0 = none */
	bool right;
};

static struct head
head_of(const struct table *t, size_t k)
{
	const bool right = t->head[k][0] == '>';
	const char *text = t->head[k] + right, *bar = strchr(text, '|');
	return (struct head){ .over = text, .name = bar ? bar + 1 : text, .over_bytes = bar ? (size_t)(bar - text) : 0, .right = right };
}

static bool
shown(const struct table *t, size_t k)
{
	return !(t->hidden >> k & 1);
}

static void
measure(const struct table *t, size_t *ret_width)
{
	for (size_t k = 0; k < t->n_columns; k++) {
		struct head h = head_of(t, k);
		ret_width[k] = width_of(h.name) > h.over_bytes ? width_of(h.name) : h.over_bytes;
	}
	for (size_t i = 0; i < t->n_cells; i++) {
		size_t w = width_of(t->cell[i]), k = i % t->n_columns;
		ret_width[k] = w > ret_width[k] ? w : ret_width[k];
	}
	if (t->first_max && ret_width[0] > t->first_max)
		ret_width[0] = t->first_max;
}

static size_t
line_width(const struct table *t, const size_t *width)
{
	size_t sum = 0;
	for (size_t k = 0; k < t->n_columns; k++)
		if (shown(t, k))
			sum += width[k] + (sum ? 2 : 0);
	return sum;
}

void
table_fit(struct table *t, const uint8_t *rank, size_t width)
{
	size_t of[TABLE_COLUMNS_MAX], wide;
	measure(t, of);
	const size_t whole = of[0], part = width / 3 > FIRST_MIN ? width / 3 : FIRST_MIN;
	if (line_width(t, of) > width && whole > part) /* long names give way before columns do */
		of[0] = part;
	for (uint8_t highest = 1; highest && (wide = line_width(t, of)) > width;) {
		highest = 0;
		for (size_t k = 0; k < t->n_columns; k++)
			if (shown(t, k) && rank[k] > highest)
				highest = rank[k];
		for (size_t k = 0; highest && k < t->n_columns; k++)
			if (rank[k] == highest)
				t->hidden |= 1u << k;
	}
	wide = line_width(t, of);
	size_t room = wide <= width ? of[0] + (width - wide) : of[0] > wide - width + FIRST_MIN ? of[0] - (wide - width) : FIRST_MIN;
	t->first_max = room < whole ? room : 0;
}

/* A name that is too long keeps its two ends: these tell it from its neighbours. */
static void
print_cut(const struct term *to, const char *text, size_t width)
{
	const size_t bytes = strlen(text), tail = (width - 1) / 2, head = width - 1 - tail;
	if (bytes != width_of(text)) { /* beyond ASCII a byte is no column: it stays whole */
		term_put(to, text, bytes);
		return;
	}
	term_put(to, text, head);
	(void)fputs("…", to->file);
	term_put(to, text + bytes - tail, tail);
}

static void
print_cell(const struct term *to, const char *text, size_t width, bool right, bool last)
{
	const size_t own = width_of(text);
	const size_t blanks = own < width ? width - own : 0;
	if (right)
		(void)fprintf(to->file, "%*s", (int)blanks, "");
	if (own > width)
		print_cut(to, text, width);
	else
		term_put(to, text, strlen(text));
	if (!last)
		(void)fprintf(to->file, "%*s", (int)(right ? 2 : blanks + 2), "");
}

/* What stands above several heads, once over the first of them. */
static void
print_over(const struct table *t, const struct term *to, const size_t *width, size_t last)
{
	const char *text[TABLE_COLUMNS_MAX] = { NULL };
	char room[TABLE_COLUMNS_MAX][16];
	struct head before = { .over = "", .over_bytes = 0 };
	size_t end = 0;
	for (size_t k = 0; k <= last; k++) {
		const struct head h = head_of(t, k);
		if (!shown(t, k))
			continue;
		const bool again = h.over_bytes == before.over_bytes && strncmp(h.over, before.over, h.over_bytes) == 0;
		(void)snprintf(room[k], sizeof room[k], "%.*s", again ? 0 : (int)h.over_bytes, h.over);
		text[k] = room[k];
		end = room[k][0] ? k + 1 : end;
		before = h;
	}
	for (size_t k = 0; k < end; k++)
		if (text[k])
			print_cell(to, text[k], width[k], head_of(t, k).right, k + 1 == end);
	if (end)
		(void)putc('\n', to->file);
}

void
table_print(const struct table *t, const struct term *to)
{
	size_t width[TABLE_COLUMNS_MAX], last = 0;
	measure(t, width);
	for (size_t k = 0; k < t->n_columns; k++)
		last = shown(t, k) ? k : last;
	term_style(to, STYLE_DIM);
	print_over(t, to, width, last);
	for (size_t k = 0; k <= last; k++)
		if (shown(t, k))
			print_cell(to, head_of(t, k).name, width[k], head_of(t, k).right, k == last);
	term_style(to, STYLE_PLAIN);
	(void)putc('\n', to->file);
	for (size_t i = 0; i < t->n_cells; i++) {
		const size_t k = i % t->n_columns;
		if (k == 0)
			term_style(to, t->style[i / t->n_columns]);
		if (shown(t, k))
			print_cell(to, t->cell[i], width[k], head_of(t, k).right, k == last);
		else if (k + 1 == t->n_columns && t->cell[i][0])
			term_say(to, STYLE_PLAIN, "\n    %s", t->cell[i]);
		if (k + 1 == t->n_columns) {
			term_style(to, STYLE_PLAIN);
			(void)putc('\n', to->file);
		}
	}
}

void
table_fini(struct table *t)
{
	for (size_t i = 0; i < t->n_cells; i++)
		free(t->cell[i]);
	free(t->cell);
	free(t->style);
	*t = (struct table){ .n_columns = 0 };
}
