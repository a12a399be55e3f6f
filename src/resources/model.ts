import { z } from 'zod'
import { isHeaderName } from '../lib/headers.ts'
import { STRATEGY_NAMES } from '../routing/names.ts'
import { count, optional, text } from './fields.ts'
import { type Form, isGiven } from './form.ts'
import { RateLimit } from './rate-limit.ts'

const price = () => z.number().min(0).max(1_000_000)
const seconds = (least: number) => z.int().min(least).max(31_536_000)
const status = (least: number) => z.int().min(least).max(599)

const alias = () =>
  text().describe('Alias that callers send in `model`, unique in this gateway. One `*` makes it a pattern: `vllm/*`.')
const allowedCidrs = () =>
  optional(z.array(text())).describe('Networks or addresses of callers that may use this model. Empty: all.')

/** source: proxy-05 §5, control-resources §2.3 */
export const Cooldown = z
  .strictObject({
    enabled: optional(z.boolean()).describe('`false`: failures never take the model out of its groups.').meta({ default: true }),
    default_seconds: optional(seconds(0))
      .describe('Seconds that the model is left out after a failure without `Retry-After`. 0: not at all.')
      .meta({ default: 30 }),
    max_seconds: optional(seconds(1)).describe('Longest `Retry-After` that is followed, in seconds.').meta({ default: 600 }),
    honor_retry_after: optional(z.boolean())
      .describe('Whether a `Retry-After` of the upstream in whole seconds replaces `default_seconds`.')
      .meta({ default: true }),
    trigger_statuses: optional(z.array(status(100)))
      .describe('Statuses of the upstream that count as its failure.')
      .meta({ default: [401, 408, 429, 500, 502, 503, 504] }),
    trigger_on_timeout: optional(z.boolean()).describe('Whether a deadline that passed counts.').meta({ default: true }),
    trigger_on_transport: optional(z.boolean())
      .describe('Whether a connection that failed, a cut stream or an unreadable answer counts.')
      .meta({ default: true }),
  })
  .describe('When failures leave the model out of its groups for a while. Requests for the model itself are not affected.')
export type Cooldown = z.output<typeof Cooldown>

/** source: proxy-05 §5, control-resources §2.3; `mode` and what it makes optional are ours */
export const BackgroundModelCheck = z
  .strictObject({
    enabled: z.boolean().describe('`false` keeps the settings and checks nothing.'),
    mode: optional(z.enum(['endpoint', 'completion'])).describe(
      "`endpoint` asks for `GET {api_base}/models` and the server's own `/health`, and costs no token. `completion` sends `prompt` as a chat request. Default: `completion` where there is a `prompt`, `endpoint` otherwise.",
    ),
    interval_seconds: seconds(5).describe('Seconds from one check to the next.'),
    timeout_seconds: seconds(1).describe('Seconds after which a check without an answer has failed.'),
    prompt: optional(text()).describe('User message of a `completion` check.'),
    max_tokens: optional(z.int().min(1).max(4_294_967_295)).describe('`max_tokens` of a `completion` check.'),
    stale_after_seconds: seconds(1).describe('Seconds after which a failed check no longer leaves the model out of its groups.'),
    ignore_statuses: optional(z.array(status(100))).describe(
      'Statuses that are recorded as `ignored_transient_error` and leave the model healthy.',
    ),
  })
  .superRefine((check, context) => {
    if (checkMode(check) === 'endpoint') return
    for (const member of ['prompt', 'max_tokens'] as const) {
      if (check[member] === undefined) {
        context.addIssue({ code: 'custom', path: [member], message: 'is required where `mode` is `completion`' })
      }
    }
  })
  .meta({
    anyOf: [
      { required: ['prompt', 'max_tokens'] },
      { properties: { mode: { const: 'endpoint' } }, required: ['mode'] },
      { not: { anyOf: [{ required: ['mode'] }, { required: ['prompt'] }] } },
    ],
  })
  .describe('Checks in the background. While they fail, groups leave the model out.')
export type BackgroundModelCheck = z.output<typeof BackgroundModelCheck>

/** How a check is made: a document without `mode` is the contract's own when it has a prompt. */
export function checkMode({ mode, prompt }: { mode?: 'endpoint' | 'completion' | undefined; prompt?: string | undefined }) {
  return mode ?? (prompt === undefined ? 'endpoint' : 'completion')
}

/** A model that names one upstream model: its alias, or a pattern with one `*`, and where it is served. */
export const DirectModel = z
  .strictObject({
    display_name: alias(),
    provider: z
      .string()
      .regex(/^[a-z0-9][a-z0-9._-]{0,63}$/, 'must be 1 to 64 of a-z, 0-9, ".", "_", "-", a letter or digit first')
      .describe('Label of the vendor or server for logs, metrics and usage, such as `vllm`. Does not choose the dialect.'),
    model_name: text().describe(
      'Upstream model id: the served model name of vLLM and SGLang, the tag of Ollama. A `*` takes what the `*` of a pattern matched.',
    ),
    provider_key_id: text().describe('Id of the provider key that reaches the server.'),
    timeout: optional(count()).describe(
      'Milliseconds for a whole answer that is not streamed. 0: no deadline. Default: that of the group, then `upstream.timeout_ms`.',
    ),
    stream_timeout: optional(count()).describe('Milliseconds of silence between chunks of a stream. 0: as if it were not set.'),
    retries: optional(count()).describe(
      'Further attempts after a failure that may pass. Default: `routing.retries` of the group, then `upstream.retries`; none while the group has another target to go to.',
    ),
    rate_limit: optional(RateLimit).describe('Limits of this model, over all callers, directly and through groups.'),
    allowed_cidrs: allowedCidrs(),
    cost: optional(
      z.strictObject({
        input_per_1k: price().describe('USD per 1,000 prompt tokens.'),
        output_per_1k: price().describe('USD per 1,000 completion tokens.'),
      }),
    ).describe('Price metadata, and the order of `least_cost`. Both numbers, or none.'),
    background_model_check: optional(BackgroundModelCheck),
    cooldown: optional(Cooldown),
  })
  .meta({
    id: 'DirectModel',
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
export type DirectModel = z.output<typeof DirectModel>

const HashSource = z
  .strictObject({
    type: z.enum(['header', 'cookie', 'api_key', 'client_ip']).describe('Where the value comes from.'),
    name: optional(text()).describe('Name of the header or cookie; only with these two.'),
  })
  .superRefine(({ type, name }, context) => {
    if ((type === 'header' || type === 'cookie') && name !== undefined && !isHeaderName(name)) {
      // A cookie's name is a token as a header's is (RFC 6265 §4.1.1).
      context.addIssue({ code: 'custom', path: ['name'], message: `is no name that a ${type} can have` })
    }
    const isNamed = type === 'header' || type === 'cookie'
    if (isNamed === (name !== undefined)) return
    const message = isNamed ? `is required with \`type\` \`${type}\`` : `has no meaning with \`type\` \`${type}\`: leave it out`
    context.addIssue({ code: 'custom', path: ['name'], message })
  })
  .meta({
    anyOf: [
      { properties: { type: { enum: ['header', 'cookie'] } }, required: ['name'] },
      { properties: { type: { enum: ['api_key', 'client_ip'] } }, not: { required: ['name'] } },
    ],
  })

/** source: proxy-05 §1, control-resources §2.4 */
export const Routing = z
  .strictObject({
    strategy: optional(z.enum(STRATEGY_NAMES))
      .describe('Which target is tried first, among those of the same priority.')
      .meta({ default: 'failover' }),
    targets: z
      .array(
        z.strictObject({
          model: text().describe('Alias of a direct model; patterns and other groups are no targets.'),
          weight: optional(count())
            .describe('Share of `round_robin`, `consistent_hash` and `least_busy`. 0 counts as 1.')
            .meta({ default: 1 }),
          priority: optional(z.int().min(-2_147_483_648).max(2_147_483_647))
            .describe('Targets of a higher number are tried before all of a lower one.')
            .meta({ default: 0 }),
          tags: optional(z.array(text())).describe(
            'Requests choose targets by the header `x-aisix-routing-tags`; `default` marks those for requests without a match.',
          ),
        }),
      )
      .min(1, 'must name at least one target')
      .max(1024)
      .describe('The models that may answer, at least one.'),
    retries: optional(count()).describe('Further attempts at one target before the next one is tried.'),
    max_fallbacks: optional(count()).describe('How many targets may be tried after the first. Default: all.'),
    retry_on_429: optional(z.boolean())
      .describe('Whether a 429 of a target is tried again and goes on to the next target, instead of being relayed.')
      .meta({ default: false }),
    fallback_on_statuses: optional(z.array(status(400)))
      .describe('Further statuses of a target that are tried again and go on to the next target.')
      .meta({ default: [] }),
    when_all_unavailable: optional(z.enum(['fail', 'try_anyway']))
      .describe('When background checks fail for all targets: `fail` answers 503 at once, `try_anyway` tries them.')
      .meta({ default: 'fail' }),
    hash_on: optional(z.array(HashSource).min(1, 'must name at least one source')).describe(
      'Only with `consistent_hash`: where the key comes from; the first source with a value wins. Default: the header `x-aisix-routing-key`, then the API key.',
    ),
  })
  .superRefine(({ strategy = 'failover', hash_on }, context) => {
    if (hash_on === undefined || strategy === 'consistent_hash') return
    context.addIssue({ code: 'custom', path: ['hash_on'], message: 'has no meaning without `strategy` `consistent_hash`' })
  })
  .meta({
    anyOf: [
      { properties: { strategy: { const: 'consistent_hash' } }, required: ['strategy'] },
      { not: { required: ['hash_on'] } },
    ],
  })
export type Routing = z.output<typeof Routing>

/** One alias in front of several direct models. */
export const ModelGroup = z
  .strictObject({
    display_name: text().describe('Alias that callers send in `model`, unique in this gateway.'),
    routing: Routing.describe('The targets, and how one is chosen.'),
    timeout: optional(count()).describe('As of a direct model, for targets that do not say.'),
    stream_timeout: optional(count()).describe('As of a direct model, for targets that do not say.'),
    rate_limit: optional(RateLimit).describe('Limits of the group, over all callers.'),
    allowed_cidrs: allowedCidrs(),
  })
  .meta({
    id: 'ModelGroup',
    examples: [
      {
        display_name: 'llama-3',
        routing: {
          strategy: 'round_robin',
          targets: [
            { model: 'llama-3-a', weight: 70 },
            { model: 'llama-3-b', weight: 30 },
          ],
        },
      },
    ],
  })
export type ModelGroup = z.output<typeof ModelGroup>

/** What operators write under `models`: the kinds have nothing but the alias in common, and a document is of one kind. */
export const Model = z.union([DirectModel, ModelGroup]).meta({
  id: 'Model',
  description:
    'Either a direct model, which is served by one provider key, or a group: one alias in front of several direct models.',
})
export type Model = z.output<typeof Model>

export function isGroup(model: Model): model is ModelGroup {
  return 'routing' in model
}

/** What a group has not, in the contract's words. source: control-resources §2.1 */
const DIRECT_FIELDS: readonly string[] = ['provider', 'model_name', 'provider_key_id']
const DIRECT_KNOBS: readonly string[] = [
  'background_model_check',
  'cooldown',
  'embedding',
  'retries',
  'auto_prompt_caching',
  'cost',
]

const MIXED = 'belongs to a direct model and `routing` to a model group: leave out one of the two'

const directForm: Form<Model> = {
  schema: DirectModel,
  foreignMember: member => (member === 'routing' ? `\`routing\` belongs to a model group, not to a direct model` : undefined),
  deadMembers: [],
}
const groupForm: Form<Model> = {
  schema: ModelGroup,
  foreignMember(member) {
    if (DIRECT_KNOBS.includes(member)) return `\`${member}\` not accepted on a model group`
    if (!DIRECT_FIELDS.includes(member)) return undefined
    return `\`${member}\` ${MIXED}`
  },
  deadMembers: DIRECT_KNOBS,
}

export function formOfModel(document: Readonly<Record<string, unknown>>): Form<Model> {
  return isGiven(document, 'routing') ? groupForm : directForm
}
