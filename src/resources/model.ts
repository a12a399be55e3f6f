import { z } from 'zod'
import { count, optional, text } from './fields.ts'

const price = () => z.number().min(0).max(1_000_000)

/**
 * A model that names one upstream model: its alias, or a pattern with one `*`, and where it is served.
 * Groups (`routing`), `ensemble` and `semantic` models are kinds of their own.
 */
export const DirectModel = z
  .strictObject({
    display_name: text().describe(
      'Alias that callers send in `model`, unique in this gateway. One `*` makes it a pattern: `vllm/*`.',
    ),
    provider: z
      .string()
      .regex(/^[a-z0-9][a-z0-9._-]{0,63}$/, 'must be 1 to 64 of a-z, 0-9, ".", "_", "-", a letter or digit first')
      .describe('Label of the vendor or server for logs, metrics and usage, such as `vllm`. Does not choose the dialect.'),
    model_name: text().describe(
      'Upstream model id: the served model name of vLLM and SGLang, the tag of Ollama. A `*` takes what the `*` of a pattern matched.',
    ),
    provider_key_id: text().describe('Id of the provider key that reaches the server.'),
    timeout: optional(count()).describe(
      'Milliseconds for a whole answer that is not streamed. 0: no deadline. Default: `upstream.timeout_ms`.',
    ),
    stream_timeout: optional(count()).describe('Milliseconds of silence between chunks of a stream. 0: as if it were not set.'),
    retries: optional(count()).describe('Further attempts after a failure that may pass. Default: `upstream.retries`.'),
    allowed_cidrs: optional(z.array(text())).describe('Networks or addresses of callers that may use this model. Empty: all.'),
    cost: optional(
      z.strictObject({
        input_per_1k: price().describe('USD per 1,000 prompt tokens.'),
        output_per_1k: price().describe('USD per 1,000 completion tokens.'),
      }),
    ).describe('Price metadata. Both numbers, or none.'),
  })
  .meta({
    id: 'Model',
    examples: [
      {
        display_name: 'llama-3-private',
        provider: 'vllm',
        model_name: 'meta-llama/Llama-3.1-8B-Instruct',
        provider_key_id: '0b9f6a52-6f0e-4f0b-9d53-0c9b1a7e4c11',
        cost: { input_per_1k: 0, output_per_1k: 0 },
      },
    ],
  })

export const Model = DirectModel
export type Model = z.output<typeof Model>
