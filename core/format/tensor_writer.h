/* A tensor file on its way out: what the formats' writers share. Inner wall of core/format. */
#ifndef LK_FORMAT_TENSOR_WRITER_H
#define LK_FORMAT_TENSOR_WRITER_H

#include "base/out.h"
#include "format.h"

#define WRITTEN_NAME_MAX 256            /* as the readers have it */
#define WRITTEN_TENSORS_MAX 131072U     /* as the widest reader */
#define WRITTEN_HEADER_MAX (100U << 20) /* as the readers have it */

/* A writer whose file is open and empty; each tensor's data will begin at a multiple of `alignment`. */
LK_MUST_USE enum status tensor_writer_create(const struct out_place *o, const struct tensor_file *f,
                                             uint32_t alignment, struct tensor_writer **out,
                                             struct error *err);
/* The bytes before the data, all at once. */
LK_MUST_USE enum status tensor_writer_head(struct tensor_writer *w, const void *bytes, size_t n,
                                           struct error *err);

#endif
