/* quantization_config of a Hugging Face folder: which of its schemes are F8 weights with scales that we read.
 *
 *     fp8                 DeepSeek's and Qwen's: a scale a block of weight_block_size, in X.weight_scale_inv;
 *                         without weight_block_size (AutoFP8) one a tensor, in X.weight_scale
 *     compressed-tensors  8-bit floats with a scale a tensor, row (channel) or block, in X.weight_scale
 *     modelopt            quant_algo FP8, a scale a tensor or row, in X.weight_scale
 *
 * What they say of activations and of the KV cache is not used: we compute with the weights' values and don't
 * round activations. Which modules are quantised is told by the tensors. Everything else is refused by name.
 */
#include <jansson.h>
#include <string.h>

#include "model_config.h"

#define BLOCK_MAX (1U << 20)
#define BLOCK_COLS_STEP 128U /* packed weights have a scale for 128 values of a row */

static bool is_one_of(const char *text, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(text, list[i]) == 0)
            return true;
    return false;
}

/* [rows, columns] that share a scale. */
static void read_block(struct fields *f, const char *key, struct model_config *c)
{
    const json_t *block = field_get(f, key), *rows = json_array_get(block, 0),
                 *cols = json_array_get(block, 1);
    if (!block)
        return;
    if (json_array_size(block) != 2 || json_integer_value(rows) < 1 || json_integer_value(cols) < 1 ||
        json_integer_value(rows) > BLOCK_MAX || json_integer_value(cols) > BLOCK_MAX) {
        field_fail(f, STATUS_FORMAT, key, "is not a pair of sizes like [128, 128]");
        return;
    }
    uint32_t n_rows = (uint32_t)json_integer_value(rows), n_cols = (uint32_t)json_integer_value(cols);
    if (n_cols % BLOCK_COLS_STEP)
        field_fail(f, STATUS_UNSUPPORTED, key, "is [%u, %u]: the columns must be a multiple of %u", n_rows,
                   n_cols, BLOCK_COLS_STEP);
    else if (c->f8_block_rows && (c->f8_block_rows != n_rows || c->f8_block_cols != n_cols))
        field_fail(f, STATUS_UNSUPPORTED, key,
                   "is [%u, %u] here and [%u, %u] in another group: one size only", n_rows, n_cols,
                   c->f8_block_rows, c->f8_block_cols);
    c->f8_block_rows = n_rows;
    c->f8_block_cols = n_cols;
}

static void read_fp8(struct fields *f, struct model_config *c)
{
    const char *format = field_text(f, "fmt", "e4m3");
    if (strcmp(format, "e4m3") != 0)
        field_fail(f, STATUS_UNSUPPORTED, "fmt", "is '%.40s', expected e4m3", format);
    read_block(f, "weight_block_size", c);
}

/* How a group of compressed-tensors stores its weights. */
static void read_group(struct fields *f, const json_t *group, struct model_config *c)
{
    static const char *const strategies[] = {"tensor", "channel", "block"};
    const json_t *weights = json_object_get(group, "weights");
    struct fields w = {.object = weights,
                       .shown = f->shown,
                       .section = "quantization_config.config_groups.weights.",
                       .status = f->status,
                       .err = f->err};
    if (!json_is_object(weights)) {
        field_fail(f, STATUS_UNSUPPORTED, "config_groups", "has a group without weights");
        return;
    }
    const char *type = field_text(&w, "type", "int"), *strategy = field_text(&w, "strategy", "tensor");
    uint32_t n_bits = field_u32(&w, "num_bits", 8, 1, 64);
    if (strcmp(type, "float") != 0 || n_bits != 8)
        field_fail(
            &w, STATUS_UNSUPPORTED, "type",
            "is '%.20s' of %u bits, expected float of 8 bits: use the unquantised folder or a GGUF file",
            type, n_bits);
    if (!is_one_of(strategy, strategies, sizeof strategies / sizeof *strategies))
        field_fail(&w, STATUS_UNSUPPORTED, "strategy", "is '%.40s', expected tensor, channel or block",
                   strategy);
    if (!field_bool(&w, "symmetric", true))
        field_fail(&w, STATUS_UNSUPPORTED, "symmetric", "is false: zero points are not supported");
    if (strcmp(strategy, "block") == 0)
        read_block(&w, "block_structure", c);
    f->status = w.status;
}

static void read_compressed(struct fields *f, struct model_config *c)
{
    static const char *const formats[] = {"float-quantized", "naive-quantized"};
    const char *format = field_text(f, "format", "float-quantized");
    const json_t *sparsity = field_get(f, "sparsity_config"), *transform = field_get(f, "transform_config");
    const char *sparse = json_string_value(json_object_get(sparsity, "format")), *name;
    json_t *group, *groups = (json_t *)(uintptr_t)field_get(f, "config_groups");
    if (!is_one_of(format, formats, sizeof formats / sizeof *formats))
        field_fail(f, STATUS_UNSUPPORTED, "format",
                   "is '%.40s', expected float-quantized: use the unquantised folder or a GGUF file", format);
    if (json_object_size(sparsity) && (!sparse || strcmp(sparse, "dense") != 0))
        field_fail(f, STATUS_UNSUPPORTED, "sparsity_config", "is '%.40s', expected dense",
                   sparse ? sparse : "no format");
    if (json_object_size(transform))
        field_fail(f, STATUS_UNSUPPORTED, "transform_config", "is not supported");
    if (json_object_size(groups) == 0)
        field_fail(f, STATUS_FORMAT, "config_groups", "is missing or empty");
    json_object_foreach(groups, name, group)
    {
        read_group(f, group, c);
    }
}

static void read_modelopt(struct fields *f)
{
    static const char *const algorithms[] = {"FP8", "FP8_PER_CHANNEL_PER_TOKEN"};
    const char *algorithm = field_text(f, "quant_algo", "(none)");
    if (!is_one_of(algorithm, algorithms, sizeof algorithms / sizeof *algorithms))
        field_fail(f, STATUS_UNSUPPORTED, "quant_algo",
                   "is '%.40s', expected FP8: use the unquantised folder or a GGUF file", algorithm);
}

void model_config_read_quantization(struct fields *f, struct model_config *c)
{
    const char *key = field_get(f, "quantization_config") ? "quantization_config" : "compression_config";
    const json_t *q = field_get(f, key);
    struct fields in = {.object = q,
                        .shown = f->shown,
                        .section = "quantization_config.",
                        .status = f->status,
                        .err = f->err};
    if (!q)
        return;
    const char *method = json_string_value(json_object_get(q, "quant_method"));
    if (method && strcmp(method, "fp8") == 0)
        read_fp8(&in, c);
    else if (method && strcmp(method, "compressed-tensors") == 0)
        read_compressed(&in, c);
    else if (method && strcmp(method, "modelopt") == 0)
        read_modelopt(&in);
    else
        field_fail(
            f, STATUS_UNSUPPORTED, key,
            "(%.40s) is not supported, only F8 weights of fp8, compressed-tensors and modelopt: use the "
            "unquantised folder or a GGUF file",
            method ? method : "no quant_method");
    c->f8 = true;
    if (f->status == STATUS_OK)
        f->status = in.status;
}
