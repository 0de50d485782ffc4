/* A model by scalar kernels and f32 activations, as adapters are built against it in tests. */
#ifndef LK_TESTS_PLAIN_MODEL_H
#define LK_TESTS_PLAIN_MODEL_H

#include "format.h"
#include "model.h"

static inline struct model *open_model(const char *path)
{
    struct error err = {0};
    struct model_files *files;
    struct model_options options = {0};
    struct model *m = NULL;
    assert_int_equal(kernels_select("scalar", ACT_MODE_F32, &options.kernels, &err), STATUS_OK);
    if (model_files_open(path, &files, &err) != STATUS_OK ||
        model_open(files, &options, &m, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    model_files_close(files);
    return m;
}

#endif
