import { z } from 'zod'
import { isTimeZone } from '../lib/time-zone.ts'
import { defaulted, optional, text } from './fields.ts'

export const BUDGET_SCOPES = ['api_key', 'team', 'user', 'model', 'all'] as const
export const BUDGET_PERIODS = ['day', 'week', 'month', 'total'] as const
export type BudgetPeriod = (typeof BUDGET_PERIODS)[number]

/** What may be spent in a period. Only this resource enforces: `cost` of a model is a price and no limit. */
export const Budget = z
  .strictObject({
    name: text().max(256).describe('Name of the budget, unique in this gateway.'),
    scope: z.enum(BUDGET_SCOPES).describe('What `scope_ref` is the id of; `all` is everything that passes the gateway.'),
    scope_ref: optional(text()).describe(
      'Id of a caller API key or model; `team_id` or `user_id` of caller API keys. Required, except with `all`.',
    ),
    limit_usd: optional(z.number().min(0.000001).max(1_000_000_000_000)).describe(
      'USD in a period, from the `cost` of models: a model without one costs nothing. At least one of `limit_usd` and `limit_tokens`.',
    ),
    limit_tokens: optional(z.int().min(1)).describe('Tokens in a period, prompt and completion together.'),
    period: z.enum(BUDGET_PERIODS).describe('When spending starts at zero again; weeks start on Monday. `total`: never.'),
    timezone: optional(z.string().refine(isTimeZone, 'must be a time zone of the IANA database, such as Europe/Berlin or UTC'))
      .describe('Zone at whose midnight periods begin.')
      .meta({ default: 'UTC' }),
    action: defaulted(z.enum(['block', 'warn']), 'block').describe(
      '`block` refuses requests once a limit is reached (429); `warn` only tells.',
    ),
    warn_at: optional(z.array(z.int().min(1).max(100)).max(16)).describe(
      'Percentages of the limit, in any order, at which a warning is logged and counted, once a period each. `warn` warns at 100 besides.',
    ),
  })
  .superRefine(({ scope, scope_ref, limit_usd, limit_tokens }, context) => {
    if (limit_usd === undefined && limit_tokens === undefined) {
      context.addIssue({ code: 'custom', message: 'at least one of `limit_usd` and `limit_tokens` is required' })
    }
    if ((scope === 'all') === (scope_ref === undefined)) return
    const message =
      scope === 'all' ? 'has no meaning with `scope` `all`: leave it out' : `is required with \`scope\` \`${scope}\``
    context.addIssue({ code: 'custom', path: ['scope_ref'], message })
  })
  .meta({
    id: 'Budget',
    allOf: [
      { anyOf: [{ required: ['limit_usd'] }, { required: ['limit_tokens'] }] },
      { oneOf: [{ properties: { scope: { const: 'all' } } }, { required: ['scope_ref'] }] },
    ],
    examples: [{ name: 'search team', scope: 'team', scope_ref: 'search', limit_usd: 250, period: 'month', warn_at: [80, 95] }],
  })
export type Budget = z.output<typeof Budget>
