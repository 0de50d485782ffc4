/* The handlers, by file. Each answers its request now or later (request.h). */
#ifndef LK_API_H
#define LK_API_H

struct request;

void api_chat_completions(struct request *r); /* api_chat.c */

void api_chat_count(struct request *r); /* api_count.c */

void api_messages(struct request *r); /* api_anthropic.c */
void api_count_tokens(struct request *r);

void api_ollama_chat(struct request *r); /* api_ollama.c */
void api_ollama_generate(struct request *r);
void api_ollama_tags(struct request *r); /* api_ollama_models.c */
void api_ollama_ps(struct request *r);
void api_ollama_show(struct request *r);
void api_ollama_version(struct request *r);
void api_ollama_refused(struct request *r); /* 501 */
void api_root(struct request *r);

void api_responses(struct request *r); /* api_responses.c */
void api_responses_count(struct request *r);
void api_response_get(struct request *r); /* api_kept_responses.c */
void api_response_input(struct request *r);
void api_response_delete(struct request *r);

void api_embeddings(struct request *r); /* api_embeddings.c */
void api_llama_embeddings(struct request *r);
void api_ollama_embed(struct request *r);
void api_ollama_embeddings(struct request *r);

void api_llama_completion(struct request *r); /* api_llama.c */
void api_llama_infill(struct request *r);
void api_llama_props(struct request *r);
void api_llama_slots(struct request *r);

void api_completions(struct request *r); /* api_completions.c */

void api_models(struct request *r); /* api_models.c */
void api_model(struct request *r);

void api_tokenize(struct request *r); /* api_text.c */
void api_detokenize(struct request *r);
void api_apply_template(struct request *r);

void api_adapter_load(struct request *r); /* api_adapters.c */
void api_adapter_unload(struct request *r);
void api_adapter_list(struct request *r);

void api_lora_list(struct request *r); /* api_lora.c */
void api_lora_set(struct request *r);

void api_sglang_load(struct request *r); /* api_sglang.c */
void api_sglang_unload(struct request *r);

void api_admin_list(struct request *r); /* api_admin.c */
void api_admin_get(struct request *r);
void api_admin_patch(struct request *r);
void api_admin_delete(struct request *r);
void api_admin_versions(struct request *r);
void api_admin_effect(struct request *r);
void api_admin_shadow(struct request *r);
void api_admin_get_traffic(struct request *r);
void api_admin_put_traffic(struct request *r);
void api_admin_rollback(struct request *r);
void api_admin_promote(struct request *r);
void api_admin_load(struct request *r);
void api_admin_unload(struct request *r);
void api_admin_pin(struct request *r);
void api_admin_merge(struct request *r);
void api_admin_rescan(struct request *r);
void api_admin_put(struct request *r); /* api_admin_put.c */
void api_admin_reload(struct request *r);
void api_admin_events(struct request *r); /* admin_events.c */

void api_tenants_list(struct request *r); /* api_admin_tenants.c */
void api_tenants_get(struct request *r);
void api_tenants_put(struct request *r);
void api_tenants_delete(struct request *r);
void api_keys_list(struct request *r);
void api_keys_make(struct request *r);
void api_keys_rotate(struct request *r);
void api_keys_revoke(struct request *r);
void api_usage(struct request *r); /* api_admin_usage.c */
void api_audit(struct request *r);
void api_served(struct request *r);

void api_openapi(struct request *r); /* openapi.c */

void api_livez(struct request *r); /* api_health.c */
void api_readyz(struct request *r);
void api_health(struct request *r);
void api_version(struct request *r);
void api_metrics(struct request *r);

#endif
