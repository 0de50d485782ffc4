/* The chat templates of a model: where they stand and which one is for what. Inner header of core/text. */
#ifndef LK_TEXT_TEMPLATES_H
#define LK_TEXT_TEMPLATES_H

#include "text.h"

/* Of a folder whose tokenizer_config.json is `config` (or NULL), into m; none anywhere: m has none. */
enum status templates_from_folder(struct text_model *m, const struct model_files *files,
                                  const struct json_t *config, struct error *err);
enum status templates_from_gguf(struct text_model *m, const struct gguf *g, const char *shown,
                                struct error *err);

#endif
