/* What requests have in them, for /openapi.json: each field that something here acts on, with the types that
 * its reader takes. tests/api/test_openapi_fields.py asks for each of them with types that aren't declared,
 * and wants a 400. A field that may be of any type, and is only looked at where it is of use, has a
 * description alone. */
#include "openapi_schemas.h"

#define TOKENS "{'type':'array', 'minItems':1, 'items':" COUNT "}"

/* A text, token ids, or several of either. */
#define TEXTS                                                                                                \
    "{'anyOf':[" TEXT "," TOKENS ", {'type':'array', 'minItems':1, 'items':" EITHER(TEXT, TOKENS) "}]}"

/* ---- fields, in groups that several bodies have */

static const struct field voice[] = {
    {"model", "{'type':['string', 'null'], 'description':'the voice: a name, name@version, a sum like "
              "pt+0.5*safety, auto'}"},
    {"adapters",
     "{'type':['array', 'null'], 'maxItems':8, 'items':{'type':'object', 'required':['name'], "
     "'additionalProperties':false, 'properties':{'name':" TEXT ", 'scale':" NUMBER("-100", "100") "}}}"},
    {"lora", "{'type':['array', 'null'], 'items':{'type':'object', 'required':['id', 'scale'], "
             "'additionalProperties':false, 'properties':{'id':" COUNT
             ", 'scale':{'type':'number', 'minimum':-100, 'maximum':100}}}}"},
    {"user", ANY("where traffic is split a text chooses the version")},
    {"safety_identifier", ANY("goes before user")},
    {NULL, NULL}};

static const struct field sampling[] = {
    {"temperature", NUMBER("0", "100")},
    {"top_p", NUMBER("0", "1")},
    {"top_k", WHOLE("-1", INT_MAX_TEXT)},
    {"min_p", NUMBER("0", "1")},
    {"typical_p", NUMBER("0", "1")},
    {"min_keep", WHOLE("0", INT_MAX_TEXT)},
    {"repeat_penalty", NUMBER("0.01", "100")},
    {"repeat_last_n", WHOLE("-1", INT_MAX_TEXT)},
    {"presence_penalty", NUMBER("-2", "2")},
    {"frequency_penalty", NUMBER("-2", "2")},
    {"xtc_probability", NUMBER("0", "1")},
    {"xtc_threshold", NUMBER("0", "1")},
    {"mirostat", WHOLE("0", "2")},
    {"mirostat_tau", NUMBER("0", "1000")},
    {"mirostat_eta", NUMBER("0", "1000")},
    {"dry_multiplier", NUMBER("0", "1000")},
    {"dry_base", NUMBER("1", "1000")},
    {"dry_allowed_length", WHOLE("1", INT_MAX_TEXT)},
    {"dry_penalty_last_n", WHOLE("-1", INT_MAX_TEXT)},
    {"dry_sequence_breakers", LIST("{'type':'string', 'minLength':1}")},
    {"samplers",
     "{'anyOf':[{'type':['string', 'null'], 'pattern':'^[edtskypmx]*$'}, {'type':'array', 'items':" TEXT
     "}]}"},
    {"seed", "{'type':['integer', 'null']}"},
    {"logit_bias", "{'anyOf':[{'type':'null'}, {'type':'object', 'propertyNames':{'pattern':'^[0-9]{1,9}$'}, "
                   "'additionalProperties':{'anyOf':[{'type':'number'}, {'const':false}]}}, {'type':'array', "
                   "'items':{'type':'array', 'minItems':2, 'maxItems':2, 'prefixItems':[{'type':['integer', "
                   "'string']}, {'anyOf':[{'type':'number'}, {'const':false}]}]}}]}"},
    {NULL, NULL}};

/* What Ollama has not among its options. */
static const struct field more_sampling[] = {
    {"repetition_penalty", NUMBER("0.01", "100")},
    {"penalty_last_n", WHOLE("-1", INT_MAX_TEXT)},
    {"top_n_sigma", NUMBER("-1e9", "1e9")},
    {"dynatemp_range", NUMBER("0", "100")},
    {"dynatemp_exponent", NUMBER("0", "100")},
    {"bad_words", LIST("{'type':'string', 'minLength':1}")},
    {"allowed_token_ids", "{'type':['array', 'null'], 'minItems':1, 'items':" COUNT "}"},
    {NULL, NULL}};

/* Where an answer ends, and what it must follow. */
static const struct field form[] = {
    {"stop_token_ids", "{'type':['array', 'null'], 'maxItems':64, 'items':" COUNT "}"},
    {"min_tokens", WHOLE("0", INT_MAX_TEXT)},
    {"ignore_eos", FLAG},
    {"t_max_predict_ms", WHOLE("-1", INT_MAX_TEXT)},
    {"include_stop_str_in_output", FLAG},
    {"skip_special_tokens", FLAG},
    {"json_schema", EITHER(OBJECT_OR_NULL, "{'type':'boolean'}")},
    {"guided_json", EITHER("{'type':['object', 'string', 'null']}", "{'type':'boolean'}")},
    {"guided_choice", LIST(TEXT)},
    {"guided_grammar", TEXT_OR_NULL},
    {"guided_regex", TEXT_OR_NULL},
    {"grammar", TEXT_OR_NULL},
    {"regex", TEXT_OR_NULL},
    {"ebnf", TEXT_OR_NULL},
    {"structured_outputs",
     "{'type':['object', 'null'], 'properties':{'json':{'type':['object', 'string', 'boolean', 'null']}, "
     "'regex':" TEXT_OR_NULL
     ", 'choice':" LIST(TEXT) ", 'grammar':" TEXT_OR_NULL
                              ", 'structural_tag':{'type':['object', 'string', 'null']}, 'json_object':" FLAG
                              ", 'disable_any_whitespace':" FLAG "}}"},
    {"priority", WHOLE("-2147483648", INT_MAX_TEXT)},
    {"cache_prompt", FLAG},
    {"cache_salt", "{'type':['string', 'null'], 'minLength':1}"},
    {"n_probs", WHOLE("0", "20")},
    {"timings_per_token", FLAG},
    {"timings", FLAG},
    {NULL, NULL}};

#define STOP                                                                                                 \
    "{'anyOf':[{'type':'null'}, {'type':'string', 'minLength':1}, {'type':'array', 'maxItems':16, 'items':"  \
    "{'type':'string', 'minLength':1}}]}"
#define RESPONSE_FORMAT                                                                                      \
    "{'type':['object', 'null'], 'required':['type'], 'properties':{'type':{'enum':['text', 'json_object',"  \
    "'json_schema', 'structural_tag']}, 'json_schema':" OBJECT_OR_NULL "}}"
#define STREAM_OPTIONS                                                                                       \
    "{'type':['object', 'null'], "                                                                           \
    "'properties':{'include_usage':" FLAG ", 'continuous_usage_stats':" FLAG "}}"

/* What OpenAI's own endpoints and llama-server's have, and the other APIs don't. */
static const struct field openai[] = {
    {"stop", STOP},
    {"response_format", RESPONSE_FORMAT},
    {"stream_options", STREAM_OPTIONS},
    {"return_token_ids", FLAG},
    {"prompt_logprobs", WHOLE("0", "20")},
    {"modalities", "{'type':['array', 'null'], 'maxItems':1, 'items':{'const':'text'}}"},
    {NULL, NULL}};

/* How many answers and whether in pieces: where tokens are counted nobody looks at them. */
static const struct field answers[] = {{"stream", FLAG},
                                       {"n", WHOLE("1", "1024")},
                                       {"n_cmpl", WHOLE("1", "1024")},
                                       {"best_of", WHOLE("1", "1024")},
                                       {NULL, NULL}};

static const struct field in_stream[] = {{"stream", FLAG}, {NULL, NULL}};

#define NOT_ZERO "{'type':['integer', 'null'], 'minimum':-1, 'maximum':" INT_MAX_TEXT ", 'not':{'const':0}}"
static const struct field chat_limits[] = {
    {"max_tokens", NOT_ZERO}, {"max_completion_tokens", NOT_ZERO}, {"n_predict", NOT_ZERO}, {NULL, NULL}};
static const struct field text_limits[] = {{"max_tokens", WHOLE("-1", INT_MAX_TEXT)},
                                           {"max_completion_tokens", WHOLE("-1", INT_MAX_TEXT)},
                                           {NULL, NULL}};
static const struct field openai_limit[] = {{"n_predict", WHOLE("-1", INT_MAX_TEXT)}, {NULL, NULL}};

static const struct field chat_logprobs[] = {
    {"logprobs", FLAG}, {"top_logprobs", WHOLE("0", "20")}, {NULL, NULL}};

/* Of the template. */
static const struct field turns[] = {
    {"messages", "{'type':'array', 'minItems':1, 'maxItems':4096, 'items':" REF("Message") "}"},
    {"tools", "{'type':['array', 'null'], 'maxItems':128, 'items':" REF("Tool") "}"},
    {"functions", "{'type':['array', 'null'], 'maxItems':128, 'items':" REF("Function") "}"},
    {"parallel_tool_calls", FLAG},
    {"tool_choice", EITHER(ONE_OF("'none', 'auto', 'required'"),
                           "{'type':'object', 'required':['type'], 'properties':{'type':{'enum':['function', "
                           "'allowed_tools']}}}")},
    {"function_call", EITHER(ONE_OF("'none', 'auto'"),
                             "{'type':'object', 'required':['name'], 'properties':{'name':" TEXT "}}")},
    {"documents",
     "{'type':['array', 'null'], 'description':'refused where the template has no use for them'}"},
    {"reasoning_effort", TEXT_OR_NULL},
    {"chat_template_kwargs", OBJECT_OR_NULL},
    {"add_generation_prompt", FLAG},
    {"continue_final_message", FLAG},
    {NULL, NULL}};

static const struct field replies[] = {{"reasoning_format", ONE_OF("'auto', 'deepseek', 'none'")},
                                       {"include_reasoning", FLAG},
                                       {"parse_tool_calls", FLAG},
                                       {NULL, NULL}};

static const struct field echo[] = {{"echo", FLAG}, {NULL, NULL}};

static const struct field prompt[] = {{"prompt", TEXTS},
                                      {"logprobs", EITHER(FLAG, WHOLE("0", "20"))},
                                      {"top_logprobs", WHOLE("0", "20")},
                                      {"return_tokens_as_token_ids", FLAG},
                                      {"add_special_tokens", FLAG},
                                      {NULL, NULL}};
static const struct field suffix[] = {{"suffix", TEXT_OR_NULL}, {NULL, NULL}};

static const struct field llama[] = {{"n_predict", WHOLE("-2", INT_MAX_TEXT)},
                                     {"return_tokens", FLAG},
                                     {"response_fields", LIST(TEXT)},
                                     {NULL, NULL}};

static const struct field infill[] = {
    {"input_prefix", TEXT},
    {"input_suffix", TEXT},
    {"input_extra", LIST("{'type':'object', 'required':['text'], 'properties':{'text':" TEXT "}}")},
    {"prompt", TEXT_OR_NULL},
    {NULL, NULL}};

static const struct field vectors[] = {{"pooling", ONE_OF("'mean', 'last'")},
                                       {"dimensions", "{'type':['integer', 'null'], 'minimum':1}"},
                                       {"normalize", FLAG},
                                       {NULL, NULL}};
static const struct field openai_vectors[] = {
    {"input", TEXTS}, {"encoding_format", ONE_OF("'float', 'base64'")}, {NULL, NULL}};
static const struct field llama_vectors[] = {
    {"input", TEXTS}, {"content", TEXTS}, {"embd_normalize", ONE_OF("-1,2")}, {NULL, NULL}};
static const struct field ollama_vectors[] = {{"input", TEXTS}, {"truncate", FLAG}, {NULL, NULL}};
static const struct field ollama_vector[] = {{"prompt", TEXTS}, {"truncate", FLAG}, {NULL, NULL}};

static const struct field subject[] = {{"content", TEXT_OR_NULL},   {"prompt", TEXT_OR_NULL},
                                       {"add_special", FLAG},       {"add_special_tokens", FLAG},
                                       {"parse_special", FLAG},     {"with_pieces", FLAG},
                                       {"return_token_strs", FLAG}, {NULL, NULL}};

static const struct field tokens[] = {{"tokens", "{'type':'array', 'items':" COUNT "}"}, {NULL, NULL}};

static const struct field responses[] = {
    {"input", EITHER(TEXT, "{'type':'array', 'items':" OBJECT "}")},
    {"instructions", TEXT_OR_NULL},
    {"previous_response_id", TEXT_OR_NULL},
    {"max_output_tokens", NOT_ZERO},
    {"store", FLAG},
    {"truncation", ONE_OF("'auto', 'disabled'")},
    {"include", LIST("{}")},
    {"text", "{'type':['object', 'null'], 'properties':{'format':" OBJECT_OR_NULL "}}"},
    {"reasoning", "{'type':['object', 'null'], 'properties':{'effort':" TEXT_OR_NULL "}}"},
    {"tools",
     "{'type':['array', 'null'], 'items':{'type':'object', 'required':['type'], 'properties':{'type':" TEXT
     "}}}"},
    {"tool_choice", EITHER(ONE_OF("'none', 'auto', 'required'"),
                           "{'type':'object', 'required':['type'], 'properties':{'type':{'enum':['function', "
                           "'allowed_tools']}}}")},
    {"parallel_tool_calls", FLAG},
    {"top_logprobs", WHOLE("0", "20")},
    {"stop", STOP},
    {"metadata", OBJECT_OR_NULL},
    {"max_tool_calls", WHOLE("0", INT_MAX_TEXT)},
    {"prompt_cache_key", ANY("repeated")},
    {"chat_template_kwargs", OBJECT_OR_NULL},
    {NULL, NULL}};

#define BLOCKS                                                                                               \
    "{'type':'array', 'items':{'type':'object', 'required':['type'], 'properties':{'type':" TEXT "}}}"
static const struct field messages[] = {
    {"messages",
     "{'type':'array', 'minItems':1, 'items':{'type':'object', 'required':['role', 'content'], "
     "'properties':{'role':{'enum':['user', 'assistant', 'system']}, 'content':" EITHER(TEXT, BLOCKS) "}}}"},
    {"system", "{'anyOf':[{'type':['string', 'null']}," BLOCKS "]}"},
    {"stop_sequences", STOP},
    {"metadata", "{'type':['object', 'null'], 'properties':{'user_id':" ANY("as user elsewhere") "}}"},
    {"thinking", "{'type':['object', 'null'], 'required':['type'], 'properties':{'type':{'enum':['enabled', "
                 "'disabled', 'adaptive']}}}"},
    {"output_config", "{'type':['object', 'null'], 'properties':{'format':" OBJECT_OR_NULL "}}"},
    {"output_format", OBJECT_OR_NULL},
    {"tools", "{'type':['array', 'null'], 'maxItems':128, 'items':{'type':'object', 'required':['name', "
              "'input_schema'], 'properties':{'name':" TEXT ", 'description':" TEXT_OR_NULL
              ", 'input_schema':" OBJECT ", 'strict':" FLAG "}}}"},
    {"tool_choice",
     "{'type':['object', 'null'], 'required':['type'], 'properties':{'type':{'enum':['auto', 'any', 'none', "
     "'tool']}, 'name':" TEXT ", 'disable_parallel_tool_use':" ANY("true: one call at most") "}}"},
    {"chat_template_kwargs", OBJECT_OR_NULL},
    {NULL, NULL}};
static const struct field message_limit[] = {
    {"max_tokens", "{'type':'integer', 'minimum':1, 'maximum':" INT_MAX_TEXT "}"}, {NULL, NULL}};

static const struct field ollama[] = {
    {"name", "{'type':['string', 'null'], 'description':'the older word for model'}"},
    {"stream", "{'type':['boolean', 'null'], 'default':true}"},
    {"options", EITHER("{'type':'null'}", REF("OllamaOptions"))},
    {"format", EITHER(OBJECT, "{'enum':['json', '', null]}")},
    {"think", "{'type':['boolean', 'string', 'null']}"},
    {"truncate", FLAG},
    {"keep_alive", ANY("the number 0 beside no prompt: an answer that says unload")},
    {NULL, NULL}};
static const struct field ollama_chat[] = {
    {"messages", LIST(REF("OllamaMessage"))},
    {"tools", "{'type':['array', 'null'], 'maxItems':128, 'items':" REF("Tool") "}"},
    {NULL, NULL}};
static const struct field ollama_generate[] = {{"prompt", TEXT_OR_NULL},
                                               {"system", TEXT_OR_NULL},
                                               {"suffix", TEXT_OR_NULL},
                                               {"raw", FLAG},
                                               {NULL, NULL}};
static const struct field ollama_options[] = {{"num_predict", "{'type':['integer', 'null']}"},
                                              {"num_ctx", WHOLE("0", INT_MAX_TEXT)},
                                              {"num_keep", WHOLE("-1", INT_MAX_TEXT)},
                                              {"stop", STOP},
                                              {NULL, NULL}};
static const struct field name[] = {{"name", TEXT_OR_NULL}, {"model", TEXT_OR_NULL}, {NULL, NULL}};

/* ---- what stands in lists */

#define ROLES "{'enum':['system', 'developer', 'user', 'assistant', 'tool', 'function']}"
static const struct field message[] = {
    {"role", ROLES},
    {"content", EITHER("{'type':'null'}", REF("Content"))},
    {"tool_calls", LIST(REF("Call"))},
    {"tool_call_id", TEXT_OR_NULL},
    {"adapter", "{'type':['string', 'null'], 'minLength':1, 'description':'the voice from this turn on'}"},
    {"name", ANY("the template has it")},
    {"reasoning_content", ANY("the template has it")},
    {"reasoning", ANY("a text is reasoning_content")},
    {"function_call", ANY("an object of the assistant: the older form of tool_calls")},
    {NULL, NULL}};
static const struct field call[] = {{"id", TEXT_OR_NULL},
                                    {"type", TEXT_OR_NULL},
                                    {"function",
                                     "{'type':'object', 'required':['name'], 'properties':{'name':" TEXT
                                     ", 'arguments':{'type':['string', 'object', 'null']}}}"},
                                    {NULL, NULL}};
static const struct field function[] = {{"name", "{'type':'string', 'minLength':1}"},
                                        {"description", TEXT_OR_NULL},
                                        {"parameters", OBJECT_OR_NULL},
                                        {"strict", FLAG},
                                        {NULL, NULL}};
static const struct field tool[] = {
    {"type", "{'const':'function'}"}, {"function", REF("Function")}, {NULL, NULL}};
static const struct field ollama_message[] = {{"role", ROLES},
                                              {"content", EITHER("{'type':'null'}", REF("Content"))},
                                              {"tool_calls", LIST(OBJECT)},
                                              {"tool_name", TEXT_OR_NULL},
                                              {"thinking", ANY("of the assistant")},
                                              {NULL, NULL}};

/* ---- schemas */

#define REQUIRED(name) "'required':['" name "']"
#define EITHER_REQUIRED(a, b) "'anyOf':[{'required':['" a "']}, {'required':['" b "']}]"
static const struct schema schemas[] = {
    {"Content",
     EITHER(TEXT, "{'type':'array', 'items':{'anyOf':[" TEXT
                  ", {'type':'object', 'required':['type'], 'properties':{'type':{'enum':['text', "
                  "'input_text', 'output_text', 'refusal']}, 'text':" TEXT ", 'refusal':" TEXT "}}]}}"),
     {0}},
    {"Message",
     "'required':['role'], 'anyOf':[{'properties':{'role':{'const':'assistant'}}}, "
     "{'required':['content'], 'properties':{'content':{'not':{'type':'null'}}}}]",
     {message}},
    {"Call", REQUIRED("function"), {call}},
    {"Function", REQUIRED("name"), {function}},
    {"Tool", "'required':['type', 'function']", {tool}},
    {"OllamaMessage", REQUIRED("role"), {ollama_message}},
    {"ChatRequest",
     REQUIRED("messages"),
     {voice, turns, replies, echo, answers, chat_limits, chat_logprobs, openai, sampling, more_sampling,
      form}},
    {"ChatCountRequest",
     REQUIRED("messages"),
     {voice, turns, replies, echo, chat_limits, chat_logprobs, openai, sampling, more_sampling, form}},
    {"TemplateRequest", REQUIRED("messages"), {turns}},
    {"CompletionRequest",
     REQUIRED("prompt"),
     {voice, prompt, suffix, echo, answers, text_limits, openai_limit, openai, sampling, more_sampling,
      form}},
    {"LlamaCompletionRequest",
     REQUIRED("prompt"),
     {voice, prompt, llama, answers, text_limits, openai, sampling, more_sampling, form}},
    {"InfillRequest",
     "'required':['input_prefix', 'input_suffix']",
     {voice, infill, llama, answers, text_limits, openai, sampling, more_sampling, form}},
    {"TokenizeRequest",
     "'anyOf':[{'required':['content']}, {'required':['prompt']}, {'required':['messages']}]",
     {subject, turns}},
    {"DetokenizeRequest", REQUIRED("tokens"), {tokens}},
    {"EmbeddingRequest", REQUIRED("input"), {voice, openai_vectors, vectors}},
    {"LlamaEmbeddingRequest", EITHER_REQUIRED("content", "input"), {voice, llama_vectors, vectors}},
    {"ResponseRequest",
     REQUIRED("input"),
     {voice, responses, replies, in_stream, sampling, more_sampling, form}},
    {"ResponseCountRequest", REQUIRED("input"), {voice, responses, replies, sampling, more_sampling, form}},
    {"MessagesRequest",
     "'required':['messages', 'max_tokens']",
     {voice, messages, replies, message_limit, in_stream, sampling, more_sampling, form}},
    {"MessagesCountRequest", REQUIRED("messages"), {voice, messages, replies, sampling, more_sampling, form}},
    {"OllamaOptions", "", {ollama_options, sampling}},
    {"OllamaChatRequest",
     "",
     {voice, ollama, ollama_chat, replies, chat_logprobs, sampling, more_sampling, form}},
    {"OllamaGenerateRequest",
     "",
     {voice, ollama, ollama_generate, chat_logprobs, sampling, more_sampling, form}},
    {"OllamaEmbedRequest", REQUIRED("input"), {voice, ollama_vectors, vectors}},
    {"OllamaEmbeddingRequest", REQUIRED("prompt"), {voice, ollama_vector, vectors}},
    {"OllamaShowRequest", EITHER_REQUIRED("model", "name"), {name}},
};

const struct schema *openapi_request_schema(size_t index)
{
    return index < sizeof schemas / sizeof schemas[0] ? &schemas[index] : NULL;
}
