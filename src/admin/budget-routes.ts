/** Where budgets stand: what has been spent of them, when they start again, what was warned of. */
import { z } from 'zod'
import type { Budgets } from '../budgets/budget.ts'
import type { Clock } from '../gateway.ts'
import { BUDGET_PERIODS, BUDGET_SCOPES } from '../resources/budget.ts'
import type { Store } from '../store/store.ts'
import { AdminError, json } from './error.ts'
import type { Route } from './route.ts'
import { inlineSchema } from './schema.ts'

export type BudgetRoutesOptions = {
  store: Store
  clock: Clock
  budgets: Pick<Budgets, 'status' | 'statuses' | 'history'>
}

const usd = () => z.number().min(0)
const tokens = () => z.int().min(0)
const time = () => z.iso.datetime()

const BudgetStatusSchema = z.strictObject({
  id: z.string().describe('Id of the budget.'),
  name: z.string().describe('Its name.'),
  state: z
    .enum(['ok', 'warning', 'exceeded'])
    .describe('`exceeded`: a limit is reached. `warning`: a mark of `warn_at` was reached in this period.'),
  action: z.enum(['block', 'warn']).describe('Whether requests are refused while the state is `exceeded`.'),
  scope: z.enum(BUDGET_SCOPES).describe('What is counted.'),
  scope_ref: z.string().optional().describe('Which one of these; absent for `all`.'),
  period: z.enum(BUDGET_PERIODS).describe('When spending starts at zero again.'),
  period_started_at: time().optional().describe('Absent for `total`.'),
  period_resets_at: time().optional().describe('Absent for `total`.'),
  limit_usd: usd().optional().describe('The limit in USD, where there is one.'),
  spent_usd: usd().describe('USD in this period.'),
  remaining_usd: usd().optional().describe('What is left of `limit_usd`.'),
  limit_tokens: tokens().optional().describe('The limit in tokens, where there is one.'),
  spent_tokens: tokens().describe('Tokens in this period.'),
  remaining_tokens: tokens().optional().describe('What is left of `limit_tokens`.'),
  used_percent: z.number().min(0).describe('The larger of both shares, rounded down; 100 is the limit.'),
  warnings: z
    .array(
      z.strictObject({
        at_percent: z.int().min(1).max(100).describe('The mark.'),
        warned_at: time().describe('When it was reached.'),
        spent_usd: usd().describe('What was spent by then.'),
        spent_tokens: tokens().describe('Likewise in tokens.'),
      }),
    )
    .describe('Marks that were reached in this period, in the order of time.'),
})

const HistorySchema = z
  .array(
    z.strictObject({
      period_started_at: time().describe('When the period began.'),
      period_ended_at: time().describe('When it ended.'),
      spent_usd: usd().describe('USD in it.'),
      spent_tokens: tokens().describe('Tokens in it.'),
    }),
  )
  .optional()
  .describe(
    'The latest 60 periods that are over and in which something was spent, newest first, of the last 400 days. Absent while the file of budgets cannot be read.',
  )

const EXAMPLE = {
  id: '5e7b4a0c-9a47-4c0e-8a54-3f7d1f1f6a10',
  name: 'search team',
  state: 'warning',
  action: 'block',
  scope: 'team',
  scope_ref: 'search',
  period: 'month',
  period_started_at: '2030-03-01T00:00:00Z',
  period_resets_at: '2030-04-01T00:00:00Z',
  limit_usd: 250,
  spent_usd: 203.5,
  remaining_usd: 46.5,
  spent_tokens: 81400000,
  used_percent: 81.4,
  warnings: [{ at_percent: 80, warned_at: '2030-03-21T09:14:05Z', spent_usd: 200.000875, spent_tokens: 80000350 }],
}

/** `/admin/v1/budgets/status` and `/admin/v1/budgets/{id}/status`. */
export function budgetRoutes({ store, clock, budgets }: BudgetRoutesOptions): Route[] {
  return [
    {
      method: 'GET',
      path: '/admin/v1/budgets/status',
      auth: 'admin',
      handle: () => json(200, budgets.statuses(store.snapshot, clock.now())),
      describe: {
        operationId: 'getBudgetsStatus',
        tag: 'Budgets',
        summary: 'Where all budgets stand',
        success: {
          description: 'One row for each budget, in the order of creation.',
          schema: { type: 'array', items: inlineSchema(BudgetStatusSchema) },
          example: [EXAMPLE],
        },
        errors: [],
      },
    },
    {
      method: 'GET',
      path: '/admin/v1/budgets/{id}/status',
      auth: 'admin',
      handle: async ({ id }) => {
        const { snapshot } = store
        const nowMs = clock.now()
        const status = budgets.status(snapshot, id, nowMs)
        if (!status) throw new AdminError(404, 'resource not found')
        const history = await budgets.history(snapshot, id, nowMs)
        return json(200, { ...status, ...(history === undefined ? {} : { history }) })
      },
      describe: {
        operationId: 'getBudgetStatus',
        tag: 'Budgets',
        summary: 'Where a budget stands',
        description: 'What this gateway has charged counts at once; what others on the same file have, within a second.',
        success: {
          description: 'The budget in its present period, and the periods before.',
          schema: inlineSchema(BudgetStatusSchema.extend({ history: HistorySchema })),
          example: {
            ...EXAMPLE,
            history: [
              {
                period_started_at: '2030-02-01T00:00:00Z',
                period_ended_at: '2030-03-01T00:00:00Z',
                spent_usd: 187.25,
                spent_tokens: 74900000,
              },
            ],
          },
        },
        errors: [404],
      },
    },
  ]
}
