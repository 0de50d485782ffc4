/* Whether an adapter has been written to its end. Reads configuration and headers, no weights: a safetensors
 * or GGUF header says where its data ends, an index which shards there must be. */
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "loader.h"

#define CONFIG_BYTES_MAX ((size_t)16 << 20)

static bool weights_are_whole(int dir_fd, const char *path, const char *name)
{
    const struct tensors_limits limits = {.header_bytes = ADAPTER_HEADER_BYTES_MAX,
                                          .n_tensors = ADAPTER_TENSORS_MAX};
    struct tensors *t = NULL;
    enum status s = tensors_open_folder(dir_fd, path, name, &limits, &t, NULL);
    tensors_close(t);
    /* What is well-formed but none of ours is complete all the same: the load says what is wrong. */
    return s == STATUS_OK || s == STATUS_UNSUPPORTED || s == STATUS_TOO_LARGE;
}

static bool folder_is_complete(const char *path)
{
    int fd;
    json_t *config = NULL;
    if (folder_open(-1, path, &fd, NULL) != STATUS_OK)
        return false;
    bool whole =
        json_read_at(fd, path, "adapter_config.json", CONFIG_BYTES_MAX, &config, NULL) == STATUS_OK &&
        (weights_are_whole(fd, path, "adapter_model") || weights_are_whole(fd, path, "adapters"));
    json_decref(config);
    close(fd);
    return whole;
}

bool adapter_is_complete(const char *path)
{
    const struct tensors_limits limits = {.header_bytes = ADAPTER_HEADER_BYTES_MAX,
                                          .n_tensors = ADAPTER_TENSORS_MAX};
    struct gguf *g = NULL;
    if (path_is_folder(path))
        return folder_is_complete(path);
    enum status s = gguf_open(path, &limits, &g, NULL);
    gguf_close(g);
    return s == STATUS_OK || s == STATUS_UNSUPPORTED || s == STATUS_TOO_LARGE;
}
