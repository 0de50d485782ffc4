/* What answers have in them, for /openapi.json: every field that they may have; required is what they always
 * have. tests/api/test_openapi_fields.py compares. Events of streams aren't described. */
#include "openapi_schemas.h"

static const struct field usage[] = {
    {"prompt_tokens", INT},
    {"completion_tokens", INT},
    {"total_tokens", INT},
    {"prompt_tokens_details", "{'type':'object', 'properties':{'cached_tokens':" INT "}}"},
    {"completion_tokens_details", "{'type':'object', 'properties':{'reasoning_tokens':" INT "}}"},
    {NULL, NULL}};
static const struct field timings[] = {{"cache_n", INT},
                                       {"prompt_n", INT},
                                       {"prompt_ms", REAL},
                                       {"prompt_per_token_ms", REAL},
                                       {"prompt_per_second", REAL},
                                       {"predicted_n", INT},
                                       {"predicted_ms", REAL},
                                       {"predicted_per_token_ms", REAL},
                                       {"predicted_per_second", REAL},
                                       {"draft_n", INT},
                                       {"draft_n_accepted", INT},
                                       {NULL, NULL}};
/* Of chats and completions; beside it are the choices. */
static const struct field completion[] = {{"id", TEXT},
                                          {"created", INT},
                                          {"model", TEXT},
                                          {"system_fingerprint", TEXT},
                                          {"usage", REF("Usage")},
                                          {"timings", REF("Timings")},
                                          {NULL, NULL}};
static const struct field chat_completion[] = {{"object", CONST("chat.completion")},
                                               {"choices", OF(REF("ChatChoice"))},
                                               {"prompt_token_ids", OF(INT)},
                                               {"prompt_logprobs", OF(OBJECT_OR_NULL)},
                                               {NULL, NULL}};
static const struct field text_completion[] = {
    {"object", CONST("text_completion")}, {"choices", OF(REF("TextChoice"))}, {NULL, NULL}};
static const struct field choice[] = {
    {"index", INT},
    {"logprobs", OBJECT_OR_NULL},
    {"finish_reason", "{'enum':['stop', 'length', 'tool_calls', 'function_call']}"},
    {"stop_reason", "{'type':['string', 'integer', 'null']}"},
    {"token_ids", OF(INT)},
    {"prompt_token_ids", OF(INT)},
    {NULL, NULL}};
static const struct field chat_choice[] = {{"message", REF("ChatAnswer")}, {NULL, NULL}};
static const struct field text_choice[] = {
    {"text", TEXT}, {"prompt_logprobs", OF(OBJECT_OR_NULL)}, {NULL, NULL}};
static const struct field chat_answer[] = {
    {"role", CONST("assistant")},
    {"content", TEXT_OR_NULL},
    {"refusal", TEXT_OR_NULL},
    {"reasoning_content", TEXT},
    {"tool_calls", OF(REF("Call"))},
    {"function_call", "{'type':'object', 'properties':{'name':" TEXT ", 'arguments':" TEXT "}}"},
    {NULL, NULL}};
static const struct field token_count[] = {{"input_tokens", INT}, {NULL, NULL}};
static const struct field openai_count[] = {{"object", CONST("response.input_tokens")}, {NULL, NULL}};

static const struct field llama_completion[] = {{"index", INT},
                                                {"content", TEXT},
                                                {"tokens", OF(INT)},
                                                {"completion_probabilities", OF(OBJECT)},
                                                {"id_slot", INT},
                                                {"tokens_predicted", INT},
                                                {"tokens_evaluated", INT},
                                                {"stop", BOOL},
                                                {"model", TEXT},
                                                {"generation_settings", OBJECT},
                                                {"prompt", TEXT},
                                                {"has_new_line", BOOL},
                                                {"stop_type", "{'enum':['limit', 'word', 'eos']}"},
                                                {"stopping_word", TEXT},
                                                {"truncated", BOOL},
                                                {"tokens_cached", INT},
                                                {"timings", REF("Timings")},
                                                {NULL, NULL}};
static const struct field props[] = {
    {"default_generation_settings", OBJECT},
    {"total_slots", INT},
    {"model_alias", TEXT},
    {"model_path", TEXT},
    {"chat_template", TEXT},
    {"bos_token", TEXT_OR_NULL},
    {"eos_token", TEXT_OR_NULL},
    {"modalities", "{'type':'object', 'properties':{'vision':" BOOL ", 'audio':" BOOL "}}"},
    {"build_info", TEXT},
    {"is_sleeping", BOOL},
    {NULL, NULL}};

static const struct field embedding[] = {
    {"object", CONST("embedding")},
    {"index", INT},
    {"embedding", EITHER(OF(REAL), "{'type':'string', 'description':'floats in base64'}")},
    {NULL, NULL}};
static const struct field embeddings[] = {{"object", CONST("list")},
                                          {"id", TEXT},
                                          {"created", INT},
                                          {"model", TEXT},
                                          {"data", OF(REF("Embedding"))},
                                          {"usage", REF("Usage")},
                                          {NULL, NULL}};
static const struct field llama_embedding[] = {{"index", INT}, {"embedding", OF(OF(REAL))}, {NULL, NULL}};

static const struct field response[] = {
    {"id", TEXT},
    {"object", CONST("response")},
    {"created_at", INT},
    {"status", "{'enum':['completed', 'incomplete', 'failed', 'in_progress']}"},
    {"model", TEXT},
    {"error", OBJECT_OR_NULL},
    {"incomplete_details", OBJECT_OR_NULL},
    {"instructions", TEXT_OR_NULL},
    {"metadata", OBJECT_OR_NULL},
    {"parallel_tool_calls", BOOL},
    {"temperature", "{'type':['number', 'null']}"},
    {"tool_choice", "{'type':['string', 'object']}"},
    {"tools", OF(OBJECT)},
    {"top_p", "{'type':['number', 'null']}"},
    {"max_output_tokens", "{'type':['integer', 'null']}"},
    {"max_tool_calls", "{'type':['integer', 'null']}"},
    {"previous_response_id", TEXT_OR_NULL},
    {"reasoning", OBJECT_OR_NULL},
    {"text", OBJECT},
    {"top_logprobs", "{'type':['integer', 'null']}"},
    {"truncation", TEXT_OR_NULL},
    {"user", "{}"},
    {"safety_identifier", "{}"},
    {"prompt_cache_key", "{}"},
    {"background", BOOL},
    {"service_tier", TEXT},
    {"store", BOOL},
    {"output", OF(REF("ResponseItem"))},
    {"usage", EITHER("{'type':'null'}", REF("ResponseUsage"))},
    {NULL, NULL}};
static const struct field response_item[] = {
    {"id", TEXT},
    {"type", "{'enum':['message', 'function_call', 'reasoning']}"},
    {"status", "{'enum':['completed', 'incomplete', 'in_progress']}"},
    {"role", CONST("assistant")},
    {"content", OF("{'type':'object', 'required':['type', 'text']}")},
    {"summary", OF(OBJECT)},
    {"call_id", TEXT},
    {"name", TEXT},
    {"namespace", TEXT},
    {"arguments", TEXT},
    {NULL, NULL}};
static const struct field response_usage[] = {{"input_tokens", INT},  {"input_tokens_details", OBJECT},
                                              {"output_tokens", INT}, {"output_tokens_details", OBJECT},
                                              {"total_tokens", INT},  {NULL, NULL}};
static const struct field items_page[] = {{"object", CONST("list")}, {"data", OF(OBJECT)},
                                          {"has_more", BOOL},        {"first_id", TEXT_OR_NULL},
                                          {"last_id", TEXT_OR_NULL}, {NULL, NULL}};
static const struct field deleted[] = {
    {"id", TEXT}, {"object", TEXT}, {"deleted", "{'const':true}"}, {NULL, NULL}};

static const struct field anthropic[] = {
    {"id", TEXT},
    {"type", CONST("message")},
    {"role", CONST("assistant")},
    {"model", TEXT},
    {"content", OF("{'type':'object', 'required':['type'], 'properties':{'type':{'enum':['text', "
                   "'thinking', 'tool_use']}, 'text':" TEXT ", 'thinking':" TEXT ", 'signature':" TEXT
                   ", 'id':" TEXT ", 'name':" TEXT ", 'input':" OBJECT "}}")},
    {"stop_reason", "{'enum':['end_turn', 'max_tokens', 'stop_sequence', 'tool_use']}"},
    {"stop_sequence", TEXT_OR_NULL},
    {"usage", "{'type':'object', 'properties':{'input_tokens':" INT ", 'cache_creation_input_tokens':" INT
              ", 'cache_read_input_tokens':" INT ", 'output_tokens':" INT "}}"},
    {NULL, NULL}};

static const struct field ollama_said[] = {{"model", TEXT},
                                           {"created_at", TEXT},
                                           {"logprobs", OF(OBJECT)},
                                           {"done", BOOL},
                                           {"done_reason", "{'enum':['stop', 'length', 'load', 'unload']}"},
                                           {"total_duration", INT},
                                           {"load_duration", INT},
                                           {"prompt_eval_count", INT},
                                           {"prompt_eval_duration", INT},
                                           {"eval_count", INT},
                                           {"eval_duration", INT},
                                           {NULL, NULL}};
static const struct field ollama_turn[] = {
    {"message", "{'type':'object', 'required':['role', 'content'], 'properties':{'role':" CONST(
                    "assistant") ", 'content':" TEXT ", 'thinking':" TEXT ", 'tool_calls':" OF(OBJECT) "}}"},
    {NULL, NULL}};
static const struct field ollama_text[] = {{"response", TEXT}, {"thinking", TEXT}, {NULL, NULL}};
static const struct field ollama_embeddings[] = {
    {"model", TEXT},        {"embeddings", OF(OF(REAL))}, {"total_duration", INT},
    {"load_duration", INT}, {"prompt_eval_count", INT},   {NULL, NULL}};
static const struct field ollama_embedding[] = {{"embedding", OF(REAL)}, {NULL, NULL}};
static const struct field ollama_model[] = {
    {"name", TEXT},          {"model", TEXT},       {"digest", TEXT},     {"size", INT},
    {"details", OBJECT},     {"modified_at", TEXT}, {"expires_at", TEXT}, {"size_vram", INT},
    {"context_length", INT}, {NULL, NULL}};
static const struct field ollama_models[] = {{"models", OF(REF("OllamaModel"))}, {NULL, NULL}};
static const struct field ollama_shown[] = {
    {"modelfile", TEXT},        {"parameters", TEXT},  {"template", TEXT},
    {"system", TEXT},           {"details", OBJECT},   {"model_info", OBJECT},
    {"capabilities", OF(TEXT)}, {"modified_at", TEXT}, {NULL, NULL}};
static const struct field ollama_version[] = {{"version", TEXT}, {"lorikeet", TEXT}, {NULL, NULL}};

static const struct field model[] = {{"id", TEXT},
                                     {"object", CONST("model")},
                                     {"created", INT},
                                     {"owned_by", TEXT},
                                     {"type", CONST("model")},
                                     {"display_name", TEXT},
                                     {"created_at", TEXT},
                                     {"root", TEXT},
                                     {"parent", TEXT_OR_NULL},
                                     {"max_model_len", INT},
                                     {"meta", OBJECT},
                                     {"generation", INT},
                                     {"digest", TEXT},
                                     {"blend", TEXT},
                                     {NULL, NULL}};
static const struct field models[] = {{"object", CONST("list")}, {"data", OF(REF("Model"))},
                                      {"has_more", BOOL},        {"first_id", TEXT_OR_NULL},
                                      {"last_id", TEXT_OR_NULL}, {NULL, NULL}};

static const struct field tokenized[] = {
    {"count", INT},
    {"max_model_len", INT},
    {"tokens", OF(EITHER(INT, "{'type':'object', 'required':['id', 'piece'], 'properties':{'id':" INT
                              ", 'piece':" EITHER(TEXT, OF(INT)) "}}"))},
    {"token_strs", OF(TEXT)},
    {NULL, NULL}};
static const struct field text_of_tokens[] = {{"content", TEXT}, {"prompt", TEXT}, {NULL, NULL}};
static const struct field template_text[] = {{"prompt", TEXT}, {NULL, NULL}};
static const struct field adapter_number[] = {
    {"id", INT}, {"name", TEXT}, {"path", TEXT}, {"scale", REAL}, {NULL, NULL}};
static const struct field health[] = {{"status", TEXT}, {NULL, NULL}};
static const struct field version[] = {{"name", TEXT}, {"version", TEXT}, {"isa", TEXT}, {NULL, NULL}};

/* ---- schemas */

#define REQUIRED(name) "'required':['" name "']"
static const struct schema schemas[] = {
    {"Error",
     "{'type':'object', 'required':['error'], 'properties':{'error':{'type':['object', 'string'], "
     "'properties':{'message':" TEXT ", 'type':" TEXT ", 'param':" TEXT_OR_NULL
     ", 'code':{'type':['string', 'integer', 'null']}}}}}",
     {0}},
    {"Usage", "'required':['prompt_tokens', 'total_tokens']", {usage}},
    {"Timings", "'required':['prompt_n', 'predicted_n']", {timings}},
    {"ChatCompletion",
     "'required':['id', 'object', 'created', 'model', 'system_fingerprint', 'choices', 'usage']",
     {completion, chat_completion}},
    {"TextCompletion",
     "'required':['id', 'object', 'created', 'model', 'system_fingerprint', 'choices', 'usage']",
     {completion, text_completion}},
    {"ChatChoice",
     "'required':['index', 'message', 'logprobs', 'finish_reason', 'stop_reason']",
     {choice, chat_choice}},
    {"TextChoice",
     "'required':['index', 'text', 'logprobs', 'finish_reason', 'stop_reason']",
     {choice, text_choice}},
    {"ChatAnswer", "'required':['role', 'content', 'refusal']", {chat_answer}},
    {"TokenCount", "'required':['object', 'input_tokens']", {openai_count, token_count}},
    {"MessagesCount", REQUIRED("input_tokens"), {token_count}},
    {"LlamaCompletion", "", {llama_completion}}, /* response_fields may leave out any */
    {"LlamaCompletions", EITHER(REF("LlamaCompletion"), OF(REF("LlamaCompletion"))), {0}},
    {"Props", "'required':['default_generation_settings', 'total_slots', 'chat_template']", {props}},
    {"Slots",
     "{'type':'array', 'items':{'type':'object', 'required':['id', 'n_ctx', 'is_processing']}}",
     {0}},
    {"Embedding", "'required':['object', 'index', 'embedding']", {embedding}},
    {"Embeddings", "'required':['object', 'model', 'data', 'usage']", {embeddings}},
    {"LlamaEmbedding", "'required':['index', 'embedding']", {llama_embedding}},
    {"LlamaEmbeddings", OF(REF("LlamaEmbedding")), {0}},
    {"Response",
     "'required':['id', 'object', 'created_at', 'status', 'model', 'error', 'incomplete_details', "
     "'output', 'tools', 'tool_choice', 'parallel_tool_calls', 'usage']",
     {response}},
    {"ResponseItem", "'required':['id', 'type', 'status']", {response_item}},
    {"ResponseUsage", "'required':['input_tokens', 'output_tokens', 'total_tokens']", {response_usage}},
    {"ResponseItems", "'required':['object', 'data', 'has_more', 'first_id', 'last_id']", {items_page}},
    {"Deleted", "'required':['id', 'object', 'deleted']", {deleted}},
    {"AnthropicMessage",
     "'required':['id', 'type', 'role', 'model', 'content', 'stop_reason', 'stop_sequence', 'usage']",
     {anthropic}},
    {"OllamaChat", "'required':['model', 'created_at', 'message', 'done']", {ollama_said, ollama_turn}},
    {"OllamaGenerated", "'required':['model', 'created_at', 'response', 'done']", {ollama_said, ollama_text}},
    {"OllamaEmbeddings", "'required':['model', 'embeddings']", {ollama_embeddings}},
    {"OllamaEmbedding", REQUIRED("embedding"), {ollama_embedding}},
    {"OllamaModel", "'required':['name', 'model', 'digest', 'size', 'details']", {ollama_model}},
    {"OllamaModels", REQUIRED("models"), {ollama_models}},
    {"OllamaShown", "'required':['details', 'model_info', 'capabilities', 'template']", {ollama_shown}},
    {"OllamaVersion", REQUIRED("version"), {ollama_version}},
    {"Model", "'required':['id', 'object', 'created', 'owned_by']", {model}},
    {"Models", "'required':['object', 'data']", {models}},
    {"Tokenized", "'required':['count', 'max_model_len', 'tokens']", {tokenized}},
    {"Detokenized", "'required':['content', 'prompt']", {text_of_tokens}},
    {"Template", REQUIRED("prompt"), {template_text}},
    {"Adapter", "'required':['id', 'path', 'scale']", {adapter_number}},
    {"Adapters", OF(REF("Adapter")), {0}},
    {"Health", REQUIRED("status"), {health}},
    {"Version", "'required':['name', 'version', 'isa']", {version}},
    {"Any", OBJECT, {0}},
};

const struct schema *openapi_answer_schema(size_t index)
{
    return index < sizeof schemas / sizeof schemas[0] ? &schemas[index] : NULL;
}
