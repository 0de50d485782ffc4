"""Bodies of each API with every field that /openapi.json declares: (path, body). MODEL is the model's name."""
TURN = {"role": "user", "content": "hello"}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
FUNCTION = {"name": "sing", "description": "It sings.", "parameters": SCHEMA, "strict": False}
TOOL = {"type": "function", "function": FUNCTION}
CALL = {"id": "call_1", "type": "function", "function": {"name": "sing", "arguments": '{"n": 1}'}}
TALK = [{"role": "system", "content": "Short."}, {"role": "developer", "content": [{"type": "text", "text": "Very."}]},
        {"role": "user", "content": ["a", {"type": "input_text", "text": "b"}], "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "call_1", "content": "la"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "c"}, {"type": "refusal", "refusal": "d"}]}, TURN]

VOICE = {"model": "MODEL", "user": "ann", "safety_identifier": "a1", "adapters": [], "lora": []}
VOICES = [{"adapters": [{"name": "qv_r4", "scale": 0.5}]}, {"lora": [{"id": 0, "scale": 0.5}]}]
SAMPLING = {"temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "typical_p": 0.9, "min_keep": 1,
            "repeat_penalty": 1.1, "repeat_last_n": 64, "presence_penalty": 0.1, "frequency_penalty": 0.1,
            "xtc_probability": 0.1, "xtc_threshold": 0.2,
            "mirostat": 0, "mirostat_tau": 5, "mirostat_eta": 0.1, "dry_multiplier": 0.5, "dry_base": 1.75, "dry_allowed_length": 2,
            "dry_penalty_last_n": -1, "dry_sequence_breakers": ["\n"], "samplers": ["top_k", "temperature"], "seed": 1,
            "logit_bias": {"7": -1, "8": False}}
# What isn't among Ollama's options.
MORE = {"repetition_penalty": 1.1, "penalty_last_n": 64, "top_n_sigma": 2, "dynatemp_range": 0.1, "dynatemp_exponent": 1,
        "bad_words": ["bad"], "allowed_token_ids": [7, 8, 9, 10]}
OTHER_SAMPLING = {"samplers": "kt", "logit_bias": [[7, -1], ["a", False]], "seed": None, "temperature": None, "top_k": -1}
FORM = {"stop_token_ids": [11], "min_tokens": 1, "ignore_eos": False, "t_max_predict_ms": 1000, "include_stop_str_in_output": True,
        "skip_special_tokens": True, "priority": 1, "cache_prompt": True, "cache_salt": "s", "n_probs": 1,
        "timings_per_token": True, "timings": True}
GRAMMARS = [{"json_schema": SCHEMA}, {"guided_json": SCHEMA}, {"guided_json": '{"type": "integer"}'}, {"guided_choice": ["a", "b"]},
            {"guided_grammar": 'root ::= "a"'}, {"guided_regex": "a+"}, {"grammar": 'root ::= "a"'}, {"regex": "a+"},
            {"ebnf": 'root ::= "a"'}, {"structured_outputs": {"json": SCHEMA, "disable_any_whitespace": True}},
            {"structured_outputs": {"regex": "a+"}}, {"structured_outputs": {"choice": ["a"]}},
            {"structured_outputs": {"grammar": 'root ::= "a"'}}, {"structured_outputs": {"json_object": True}},
            {"structured_outputs": {"structural_tag": {"format": {"type": "any_text"}}}}]
FORMATS = [{"response_format": {"type": "text"}}, {"response_format": {"type": "json_object"}},
           {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}}}]
OPENAI = {"stop": "zz", "return_token_ids": True, "prompt_logprobs": 1, "modalities": ["text"]}
ANSWERS = {"stream": False, "n": 2, "n_cmpl": 1, "best_of": 2}
STREAM = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}, "stop": ["zz", "yy"]}
LIMITS = [{"max_tokens": 3}, {"max_completion_tokens": 3}, {"n_predict": 3}]
TURNS = {"tools": [TOOL], "parallel_tool_calls": False, "tool_choice": "auto", "documents": [{"text": "a"}], "reasoning_effort": "low",
         "chat_template_kwargs": {"a": 1}, "add_generation_prompt": True, "continue_final_message": False}
REPLIES = {"reasoning_format": "auto", "include_reasoning": True, "parse_tool_calls": True}
NAMED = {"type": "function", "function": {"name": "sing"}}


def spread(path, base, *lists):
    return [(path, {**base, **more}) for fields in lists for more in fields]


def with_chat(path, counts):
    base = {"messages": TALK, "model": "MODEL", "max_tokens": 3}
    asked = {} if counts else ANSWERS
    return spread(path, base, [
        {**VOICE, **TURNS, **REPLIES, "echo": False, **asked, "logprobs": True, "top_logprobs": 2, **OPENAI, **SAMPLING, **MORE, **FORM},
        OTHER_SAMPLING, {"functions": [FUNCTION], "function_call": "auto"}, {"functions": [FUNCTION], "function_call": {"name": "sing"}},
        {"tools": [TOOL], "tool_choice": NAMED}, {"tools": [TOOL], "tool_choice": "required"},
        {"stream_options": STREAM["stream_options"]} if counts else STREAM, {"tools": None, "stop": None, "max_tokens": None, "n_predict": 3}],
        GRAMMARS, FORMATS, LIMITS)


def with_text(path, base, own):
    return spread(path, {"model": "MODEL", "max_tokens": 3, **base}, [
        {**VOICE, **ANSWERS, **OPENAI, **SAMPLING, **MORE, **FORM, **own}, OTHER_SAMPLING, STREAM], GRAMMARS, FORMATS, LIMITS)


PROMPTS = {"logprobs": True, "top_logprobs": 2, "return_tokens_as_token_ids": True, "add_special_tokens": False}
LLAMA = {"return_tokens": True, "response_fields": ["content"], "n_predict": 3}
HOLE = {"input_prefix": "a", "input_suffix": "b"}
VECTORS = {"pooling": "last", "dimensions": 2, "normalize": False}
BLOCK = {"type": "text", "text": "hello"}
ANTHROPIC = {"messages": [{"role": "user", "content": [BLOCK]}, {"role": "assistant", "content": "hm"}, {"role": "user", "content": "go on"}],
             "model": "MODEL"}
OWN_TOOL = {"name": "sing", "description": "It sings.", "input_schema": SCHEMA, "strict": False}
OLLAMA = {**VOICE, "stream": False, "think": False, "truncate": True, "keep_alive": "5m", "logprobs": True, "top_logprobs": 1, "format": ""}
OPTIONS = {"num_predict": 3, "num_ctx": 256, "num_keep": 4, "stop": ["zz"], **SAMPLING}


def with_messages(path, counts):
    base = {**ANTHROPIC, **({} if counts else {"max_tokens": 3})}
    return spread(path, base, [
        {**VOICE, "system": "Short.", "stop_sequences": ["zz"], "metadata": {"user_id": "ann"}, "thinking": {"type": "disabled"},
         "tools": [OWN_TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}, "chat_template_kwargs": {"a": 1},
         **REPLIES, **SAMPLING, **MORE, **FORM, **({} if counts else {"stream": False})},
        {"system": [BLOCK], **OTHER_SAMPLING, **({} if counts else {"stream": True})},
        {"tools": [OWN_TOOL], "tool_choice": {"type": "tool", "name": "sing"}},
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}, {"output_format": {"type": "json_schema", "schema": SCHEMA}}],
        GRAMMARS)


def with_responses(path, counts):
    own = {**FUNCTION, "type": "function"}
    return spread(path, {"model": "MODEL", "input": "hello", "max_output_tokens": 3}, [
        {**VOICE, "instructions": "Short.", "previous_response_id": None, "store": False, "truncation": "disabled", "top_logprobs": 1,
         "include": ["message.output_text.logprobs"], "reasoning": {"effort": "low"}, "text": {"format": {"type": "text"}}, "tools": [own],
         "tool_choice": "auto", "parallel_tool_calls": True, "stop": "zz", "chat_template_kwargs": {"a": 1}, **REPLIES, **SAMPLING, **MORE, **FORM,
         "metadata": {"a": "1"}, "max_tool_calls": 4, "prompt_cache_key": "k", **({} if counts else {"stream": False})},
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}], **OTHER_SAMPLING},
        {"tools": [own], "tool_choice": {"type": "function", "name": "sing"}},
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}}}], GRAMMARS)


BODIES = [
    *with_chat("/v1/chat/completions", False), *with_chat("/v1/chat/completions/input_tokens", True),
    ("/chat/completions", {"messages": [TURN], "max_tokens": 2}),
    ("/v1/chat/completions", {"messages": [*TALK, {"role": "assistant", "content": "It"}], "echo": True, "continue_final_message": True,
                              "add_generation_prompt": False, "max_tokens": 3}),
    *spread("/apply-template", {"messages": TALK}, [TURNS, {"functions": [FUNCTION], "function_call": "none"}]),
    ("/v1/apply-template", {"messages": TALK}),
    *with_text("/v1/completions", {"prompt": "a"}, {**PROMPTS, "echo": True}),
    *spread("/v1/completions", {"max_tokens": 2}, [{"prompt": ["a", "b"]}, {"prompt": [7, 8]}, {"prompt": [[7], [8, 9]]}, {"prompt": ["a", [7]]},
                                                   {"prompt": "a", "suffix": "b"}, {"prompt": "a", "suffix": None, "logprobs": 2}]),
    *with_text("/completion", {"prompt": "a"}, {**PROMPTS, **LLAMA}), ("/completions", {"prompt": [7, 8], "n_predict": 2}),
    *with_text("/infill", HOLE, {**LLAMA, "prompt": "x"}), ("/infill", {**HOLE, "input_extra": [{"text": "c"}], "n_predict": 2}),
    *spread("/tokenize", {}, [{"content": "a", "add_special": True, "add_special_tokens": True, "parse_special": True, "with_pieces": True,
                               "return_token_strs": True}, {"prompt": "a"}, {"messages": TALK, **TURNS},
                              {"messages": TALK, "functions": [FUNCTION], "function_call": "none"}]),
    ("/v1/tokenize", {"content": ""}), ("/detokenize", {"tokens": [7, 8]}), ("/v1/detokenize", {"tokens": []}),
    *spread("/v1/embeddings", {"model": "MODEL"}, [{"input": "a", "encoding_format": "base64", **VOICE, **VECTORS}, {"input": ["a", "b"]},
                                                   {"input": [7, 8]}, {"input": [[7], [8]]}]),
    *spread("/embedding", {"model": "MODEL"}, [{"content": "a", "embd_normalize": -1, **VOICE, **VECTORS}, {"input": ["a", "b"]}, {"content": [7]}]),
    ("/embeddings", {"content": "a", "embd_normalize": 2}),
    *with_responses("/v1/responses", False), *with_responses("/v1/responses/input_tokens", True),
    *with_messages("/v1/messages", False), *with_messages("/v1/messages/count_tokens", True),
    *spread("/api/chat", {"model": "MODEL:latest", "stream": False, "options": {"num_predict": 3}}, [
        {"messages": [TURN], **SAMPLING, **MORE, **FORM},
        {"messages": [{"role": "system", "content": "Short."}, {"role": "user", "content": "a"},
                      {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [{"function": {"name": "sing", "arguments": {"n": 1}}}]},
                      {"role": "tool", "content": "la", "tool_name": "sing"}, TURN],
         "tools": [TOOL], **OLLAMA, "options": OPTIONS, **REPLIES},
        {"messages": []}, {}, {"messages": [TURN], "stream": True}, {"messages": [TURN], "format": SCHEMA}, {"messages": [TURN], "format": "json"},
        {"messages": [TURN], "think": "low", "options": None}]),
    ("/api/chat", {"name": "MODEL", "messages": [TURN], "options": {"num_predict": 2}}),
    *spread("/api/chat", {"model": "MODEL", "messages": [TURN], "stream": False}, GRAMMARS),
    *spread("/api/generate", {"model": "MODEL", "stream": False, "options": {"num_predict": 3}}, [
        {"prompt": "a", **SAMPLING, **MORE, **FORM}, {"prompt": "a", "system": "Short.", **OLLAMA, "options": OPTIONS},
        {"prompt": "a", "raw": True}, {"prompt": "a", "suffix": "b"}, {"prompt": ""}, {}, {"prompt": "a", "stream": True}]),
    ("/api/generate", {"name": "MODEL", "prompt": "a", "options": {"num_predict": 2}}),
    *spread("/api/generate", {"model": "MODEL", "prompt": "a", "stream": False}, GRAMMARS),
    *spread("/api/embed", {"model": "MODEL"}, [{"input": "a", "truncate": True, **VOICE, **VECTORS}, {"input": ["a", "b"]}]),
    ("/api/embeddings", {"model": "MODEL", "prompt": "a", "truncate": True, **VOICE, **VECTORS}),
    ("/api/show", {"model": "MODEL"}), ("/api/show", {"name": "MODEL"}),
]
