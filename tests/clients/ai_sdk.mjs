// The Vercel AI SDK against a server: one JSON object on standard output, which test_ai_sdk.py looks at.
//   node ai_sdk.mjs BIRD_URL VOICES_URL
import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { embedMany, generateObject, generateText, stepCountIs, streamText, tool } from 'ai';
import { z } from 'zod';

const [bird, voices] = process.argv.slice(2);
const compatible = createOpenAICompatible({ name: 'lorikeet', baseURL: bird + '/v1', apiKey: 'none', includeUsage: true,
                                            supportsStructuredOutputs: true });
const openai = createOpenAI({ baseURL: bird + '/v1', apiKey: 'none' });
const anthropic = createAnthropic({ baseURL: bird + '/v1', apiKey: 'none' });
const tiny = createOpenAICompatible({ name: 'lorikeet', baseURL: voices + '/v1', apiKey: 'none', supportsStructuredOutputs: true });
const models = { chat: compatible('parrot'), openai: openai.chat('parrot'), responses: openai.responses('parrot'),
                 messages: anthropic('parrot') };
const get_weather = tool({ description: 'Weather of a city', inputSchema: z.object({ city: z.string(), days: z.number().optional() }),
                           execute: async ({ city }) => '21 degrees in ' + city });
const common = { maxRetries: 0, maxOutputTokens: 200, temperature: 0 };
const out = {};

for (const [name, model] of Object.entries(models)) {
  const whole = await generateText({ ...common, model, prompt: 'Please #plain' });
  const stream = streamText({ ...common, model, prompt: 'Please #plain' });
  let streamed = '';
  for await (const part of stream.textStream) streamed += part;
  const round = await generateText({ ...common, model, prompt: 'Please #weather', tools: { get_weather }, stopWhen: stepCountIs(2) });
  out[name] = { text: whole.text, finish: whole.finishReason, usage: whole.usage.outputTokens, streamed, after: round.text,
                calls: round.steps.flatMap((s) => s.toolCalls.map((c) => [c.toolName, c.input])),
                results: round.steps.flatMap((s) => s.toolResults.map((r) => r.output)) };
}
out.thought = (await generateText({ ...common, model: models.chat, prompt: 'Please #think' })).reasoningText;
const bike = z.object({ colour: z.enum(['red', 'blue']), gears: z.union([z.literal(1), z.literal(3)]), electric: z.boolean() });
out.object = (await generateObject({ ...common, model: tiny('shows_A'), schema: bike, prompt: 'Describe a bicycle.' })).object;
const embedded = await embedMany({ model: tiny.textEmbeddingModel('qv_r4'), values: ['a bird', 'a bicycle'], maxRetries: 0 });
out.lengths = embedded.embeddings.map((v) => v.reduce((sum, x) => sum + x * x, 0));
console.log(JSON.stringify(out));
