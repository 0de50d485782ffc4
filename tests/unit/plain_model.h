/* A model by scalar kernels and f32 activations, as adapters are built against it in tests; or as a server
 * opens it, in another weight type. */
#ifndef LK_TESTS_PLAIN_MODEL_H
#define LK_TESTS_PLAIN_MODEL_H

#include "format.h"
#include "model.h"

static inline struct model *open_with(const char *path, const char *isa, enum act_mode mode, enum quant quant)
{
    struct error err = {0};
    struct model_files *files;
    struct model_options options = {.quant = quant};
    struct model *m = NULL;
    assert_int_equal(kernels_select(isa, mode, &options.kernels, &err), STATUS_OK);
    if (model_files_open(path, &files, &err) != STATUS_OK ||
        model_open(files, &options, &m, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    model_files_close(files);
    return m;
}

static inline struct model *open_model(const char *path)
{
    return open_with(path, "scalar", ACT_MODE_F32, QUANT_AUTO);
}

static inline struct model *open_as(const char *path, enum quant quant)
{
    return open_with(path, "auto", ACT_MODE_INT8, quant);
}

#endif
