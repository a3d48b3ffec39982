/* SPDX-License-Identifier: Apache-2.0 */
/* table.c -- columns that line up, for people. The last column is never padded, and so may be long. See cli.h. */
#include "tools/signalbox/cli.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

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

static void
print_cell(const struct term *to, const char *text, size_t width, bool right, bool last)
{
	size_t blanks = width - width_of(text);
	if (right)
		(void)fprintf(to->file, "%*s", (int)blanks, "");
	term_put(to, text, strlen(text));
	if (!last)
		(void)fprintf(to->file, "%*s", (int)(right ? 2 : blanks + 2), "");
}

void
table_print(const struct table *t, const struct term *to)
{
	size_t width[TABLE_COLUMNS_MAX] = { 0 };
	for (size_t k = 0; k < t->n_columns; k++)
		width[k] = strlen(t->head[k]) - (t->head[k][0] == '>');
	for (size_t i = 0; i < t->n_cells; i++) {
		size_t w = width_of(t->cell[i]), k = i % t->n_columns;
		width[k] = w > width[k] ? w : width[k];
	}
	term_style(to, STYLE_DIM);
	for (size_t k = 0; k < t->n_columns; k++) {
		bool right = t->head[k][0] == '>';
		print_cell(to, t->head[k] + right, width[k], right, k + 1 == t->n_columns);
	}
	term_style(to, STYLE_PLAIN);
	(void)putc('\n', to->file);
	for (size_t i = 0; i < t->n_cells; i++) {
		size_t k = i % t->n_columns;
		if (k == 0)
			term_style(to, t->style[i / t->n_columns]);
		print_cell(to, t->cell[i], width[k], t->head[k][0] == '>', k + 1 == t->n_columns);
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
