/* The scales of F8_E4M3 weights, found beside them in the file. Inner wall of core/model. */
#ifndef LK_MODEL_WEIGHTS_F8_H
#define LK_MODEL_WEIGHTS_F8_H

#include "format.h"
#include "kernels.h"

#define F8_SCALE_COLS 128U /* values of a packed row that share a scale (packed_set_scales) */

/* tensor NULL: none, all are 1. values: [n_values of the tensor] after f8_scales_read, owned. */
struct f8_scales {
    const struct tensor *tensor;
    uint64_t block_rows, block_cols; /* of the weight that share a scale; columns all or whole 128s */
    uint64_t n_cols;                 /* scales of a row of blocks */
    float *values;
};

/* Finds them and checks type and shape; other weights than F8 have none. Refuses by name. */
LK_MUST_USE enum status f8_scales_find(struct f8_scales *s, const struct model_config *c,
                                       const struct tensors *tensors, const struct tensor *weight,
                                       struct error *err);
/* Reads their values; each must be finite and positive. f8_scales_fini also after a failure. */
LK_MUST_USE enum status f8_scales_read(struct f8_scales *s, const struct tensors *tensors, struct error *err);
void f8_scales_fini(struct f8_scales *s);

/* The scales of the tensor's row `row` to a packed row. scratch: [ceil(w->cols / 128)]. Thread: any. */
void f8_scales_pack(const struct f8_scales *s, uint64_t row, const struct packed *w, uint32_t packed_row,
                    float *scratch);
/* values[0, cols) of the tensor's row, times their scales. Thread: any. */
void f8_scales_multiply(const struct f8_scales *s, uint64_t row, uint32_t cols, float *values);

/* For a tensor that the model doesn't name: STATUS_OK if it belongs to an F8 weight (its scales, or those of
 * activations, which we don't round), STATUS_NOT_FOUND if it is something else, STATUS_UNSUPPORTED if it
 * scales a weight that isn't there or isn't F8. */
LK_MUST_USE enum status f8_check_companion(const struct model_config *c, const struct tensors *tensors,
                                           const char *name, struct error *err);

/* The element type of a tensor that was kept aside because we don't read that type, or NULL. */
const char *foreign_type(const struct tensors *tensors, const char *name);

#endif
