/* A tensor file on its way out: what the formats' writers share. Inner wall of core/format. */
#ifndef LK_FORMAT_TENSOR_WRITER_H
#define LK_FORMAT_TENSOR_WRITER_H

#include "base/buf.h"
#include "base/out.h"
#include "format.h"

#define WRITTEN_NAME_MAX 256            /* as the readers have it */
#define WRITTEN_TENSORS_MAX 131072U     /* as the widest reader */
#define WRITTEN_HEADER_MAX (100U << 20) /* as the readers have it */

/* Where a file goes, what it will hold, and the multiple at which each tensor's data begins. */
struct tensor_writer_place {
    const struct out_place *place;
    const struct tensor_file *file;
    uint32_t alignment;
};
/* A writer whose file is open and has the bytes before the data. *out is NULL on failure. */
LK_MUST_USE enum status tensor_writer_begin(const struct tensor_writer_place *p, const struct buf *head,
                                            struct tensor_writer **out, struct error *err);

#endif
