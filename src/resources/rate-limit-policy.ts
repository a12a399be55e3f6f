import { z } from 'zod'
import { compilePattern, PatternError } from '../lib/pattern.ts'
import { isTimeZone } from '../lib/time-zone.ts'
import { optional, text } from './fields.ts'
import { type Form, isGiven } from './form.ts'
import { RateLimit } from './rate-limit.ts'

/** What a condition looks at, and what buckets can be told apart by. source: proxy-06 §5 */
export const DIMENSIONS = ['team', 'member', 'api_key', 'model', 'model_name', 'provider'] as const
export type Dimension = (typeof DIMENSIONS)[number]
export const GROUP_BY = ['team', 'member', 'api_key', 'model', 'provider'] as const
export type GroupBy = (typeof GROUP_BY)[number]

const OPERATORS = ['==', '~=', '~~', '~*', 'in'] as const
/** Kept for later versions. source: control-resources §5 */
const RESERVED: readonly unknown[] = ['has', '>', '>=', '<', '<=', 'ipmatch']

export const PATTERN_BYTES_MAX = 256
export const DEPTH_MAX = 3
export const LEAVES_MAX = 16
const VALUES_MAX = 64
/** Callers are told the name, in a message where more is cut off. source: README of the contract, row 6 */
const NAME_CHARACTERS_MAX = 256

/** One comparison. */
export const Leaf = z
  .strictObject({
    dimension: z.enum(DIMENSIONS).describe('`model` is the id of the model, `model_name` the alias that was asked for.'),
    operator: z
      .enum(OPERATORS, {
        // Only our own words are repeated.
        error: ({ input }) =>
          RESERVED.includes(input)
            ? `\`${input}\` is reserved for later versions: use one of ${OPERATORS.map(each => `"${each}"`).join(', ')}`
            : undefined,
      })
      .describe('`~=`: not equal. `~~`: regular expression (RE2), unanchored. `~*`: the same, upper and lower case alike.'),
    value: z.union([text(), z.array(text()).min(1).max(VALUES_MAX)]).describe('A string; with `in` a list of 1 to 64 strings.'),
    negate: optional(z.boolean()).describe('Turns the outcome round. A request without the dimension never matches.'),
  })
  .superRefine(({ dimension, operator, value }, context) => {
    const refuse = (member: string, message: string) => context.addIssue({ code: 'custom', path: [member], message })
    if (operator === 'in') {
      if (!Array.isArray(value)) refuse('value', 'must be a list of strings with the operator `in`')
      return
    }
    if (Array.isArray(value)) return refuse('value', `must be one string with the operator \`${operator}\``)
    if (operator !== '~~' && operator !== '~*') return
    if (dimension !== 'model_name' && dimension !== 'provider') {
      return refuse('operator', 'regular expressions are for `model_name` and `provider` alone')
    }
    if (Buffer.byteLength(value) > PATTERN_BYTES_MAX) return refuse('value', `must be at most ${PATTERN_BYTES_MAX} bytes long`)
    try {
      compilePattern(value, { ignoreCase: operator === '~*' })
    } catch (error) {
      if (!(error instanceof PatternError)) throw error
      refuse(
        'value',
        error.isTooLarge
          ? 'is too large a regular expression once its repetitions are written out: use smaller ones, or `*`'
          : 'is no regular expression of RE2: no look-around, no back references, at most 1000 repetitions',
      )
    }
  })
  .meta({
    title: 'Comparison',
    anyOf: [
      { properties: { operator: { enum: ['==', '~='] }, value: { type: 'string' } } },
      {
        properties: {
          dimension: { enum: ['model_name', 'provider'] },
          operator: { enum: ['~~', '~*'] },
          value: { type: 'string', maxLength: PATTERN_BYTES_MAX },
        },
      },
      { properties: { operator: { const: 'in' }, value: { type: 'array' } } },
    ],
  })
export type Leaf = z.output<typeof Leaf>

export type Branch = { logic: 'and' | 'or'; children: Condition[]; negate?: boolean | undefined }
export type Condition = Leaf | Branch

const branchOf = <T extends z.ZodType>(child: T) =>
  z
    .strictObject({
      logic: z.enum(['and', 'or']).describe('Whether all children must hold, or one.'),
      children: z
        .array(child)
        .min(1)
        .describe(`Comparisons, and groups of them as long as there are at most ${DEPTH_MAX} levels.`),
      negate: optional(z.boolean()).describe('Turns the outcome round.'),
    })
    .meta({ title: 'Group' })
// The levels are written out: a schema that names itself would hide the members from the reference.
const Level3 = z.preprocess((value, context) => {
  if (typeof value === 'object' && value !== null && ('logic' in value || 'children' in value)) {
    context.addIssue({ code: 'custom', message: `must be a comparison: conditions are at most ${DEPTH_MAX} levels deep` })
  }
  return value
}, Leaf)
const Level2 = z.union([Leaf, branchOf(Level3)])
const Level1 = z.union([Leaf, branchOf(Level2)])

export function leavesOf(conditions: readonly Condition[]): Leaf[] {
  return conditions.flatMap(each => ('logic' in each ? leavesOf(each.children) : [each]))
}

const MINUTE = /^(?:[01]\d|2[0-3]):[0-5]\d$/
const MINUTE_OR_END = /^(?:(?:[01]\d|2[0-3]):[0-5]\d|24:00)$/
export const DAYS = ['mon', 'tue', 'wed', 'thu', 'fri', 'sat', 'sun'] as const

/** A time of the week or of a date in which a policy is suspended. source: proxy-06 §5, control-resources §5 */
export const Schedule = z
  .strictObject({
    timezone: z
      .string()
      .refine(isTimeZone, 'must be a time zone of the IANA database, such as Europe/Berlin or UTC')
      .describe('Name of the IANA time zone database, such as `Europe/Berlin`.'),
    days_of_week: optional(z.array(z.enum(DAYS)).min(1)).describe(
      'Days on which the window starts. Exactly one of `days_of_week` and `dates`.',
    ),
    dates: optional(z.array(z.iso.date('must be a date such as 2030-12-24')).min(1)).describe(
      'Dates on which the window starts.',
    ),
    start_time: z.string().regex(MINUTE, 'must be a time such as 08:30').describe('`HH:MM`, from which the policy is suspended.'),
    end_time: z
      .string()
      .regex(MINUTE_OR_END, 'must be a time such as 18:00, or 24:00')
      .describe('`HH:MM` or `24:00`, from which it applies again. Before `start_time`: on the next day. Equal: never suspended.'),
  })
  .superRefine(({ days_of_week, dates }, context) => {
    if ((days_of_week === undefined) !== (dates === undefined)) return
    context.addIssue({ code: 'custom', message: 'exactly one of `days_of_week` and `dates` is required' })
  })
  .meta({ oneOf: [{ required: ['days_of_week'] }, { required: ['dates'] }] })
export type Schedule = z.output<typeof Schedule>

const name = () =>
  text()
    .max(NAME_CHARACTERS_MAX)
    .describe('Name of the policy, unique in this gateway; callers are told it when it refuses them.')
const schedules = () => optional(z.array(Schedule)).describe('Windows of time in which the policy is suspended.')

export const ClassicPolicy = z
  .strictObject({
    name: name(),
    scope: z
      .enum(['api_key', 'model', 'team', 'member', 'team_member'])
      .describe('What `scope_ref` is the id of. `team_member`: every user of the team has counters of their own.'),
    scope_ref: text().describe('Id of a caller API key or model; `team_id` or `user_id` of caller API keys.'),
    window: z.enum(['second', 'minute', 'hour', 'day']).describe('Fixed windows of the wall clock in UTC.'),
    max_requests: optional(z.int().min(1)).describe('Requests in a window. At least one of `max_requests` and `max_tokens`.'),
    max_tokens: optional(z.int().min(1)).describe('Tokens in a window; only with `minute` and `day`.'),
    schedules: schedules(),
  })
  .superRefine(({ max_requests, max_tokens }, context) => {
    if (max_requests !== undefined || max_tokens !== undefined) return
    context.addIssue({ code: 'custom', message: 'at least one of `max_requests` and `max_tokens` is required' })
  })
  .meta({
    id: 'ClassicPolicy',
    anyOf: [{ required: ['max_requests'] }, { required: ['max_tokens'] }],
    examples: [
      { name: 'search team', scope: 'team', scope_ref: 'search', window: 'minute', max_requests: 600, max_tokens: 200000 },
    ],
  })
export type ClassicPolicy = z.output<typeof ClassicPolicy>

export const ConditionalPolicy = z
  .strictObject({
    name: name(),
    limits: RateLimit.describe('At least one limit.')
      .superRefine((limits, context) => {
        if (Object.values(limits).some(each => each !== undefined)) return
        context.addIssue({ code: 'custom', message: 'must set at least one limit' })
      })
      .meta({ minProperties: 1 }),
    conditions: optional(
      z.array(Level1).superRefine((conditions, context) => {
        const { length } = leavesOf(conditions)
        if (length > LEAVES_MAX) {
          context.addIssue({ code: 'custom', message: `must hold at most ${LEAVES_MAX} comparisons, not ${length}` })
        }
      }),
    ).describe(
      'All must hold for the policy to apply: comparisons, or groups of them, three levels deep at most. Empty: always.',
    ),
    group_by: optional(
      z.array(z.enum(GROUP_BY)).superRefine((dimensions, context) => {
        if (new Set(dimensions).size < dimensions.length) context.addIssue({ code: 'custom', message: 'must not name one twice' })
      }),
    )
      .describe('A bucket of its own for each combination of these; requests that lack one of them are not limited.')
      .meta({ uniqueItems: true }),
    action: optional(z.enum(['reject']))
      .describe('What happens over the limit.')
      .meta({ default: 'reject' }),
    schedules: schedules(),
  })
  .meta({
    id: 'ConditionalPolicy',
    examples: [
      {
        name: 'each key on the large models',
        limits: { rpm: 30, concurrency: 4 },
        conditions: [{ dimension: 'model_name', operator: '~~', value: '-70b$' }],
        group_by: ['api_key'],
      },
    ],
  })
export type ConditionalPolicy = z.output<typeof ConditionalPolicy>

/** Two forms, of which a document has one: a scope with one limit, or conditions with a limit object. */
export const RateLimitPolicy = z.union([ClassicPolicy, ConditionalPolicy]).meta({
  id: 'RateLimitPolicy',
  description:
    'Either the classic form, a scope and what may pass in a window, or the conditional one, limits for requests that meet conditions.',
})
export type RateLimitPolicy = z.output<typeof RateLimitPolicy>

export function isClassic(policy: RateLimitPolicy): policy is ClassicPolicy {
  return 'scope' in policy
}

const CLASSIC_MEMBERS: readonly string[] = ['scope', 'scope_ref', 'window', 'max_requests', 'max_tokens']
const CONDITIONAL_MEMBERS: readonly string[] = ['limits', 'conditions', 'group_by', 'action']

const given = (document: Readonly<Record<string, unknown>>, members: readonly string[]) =>
  members.filter(member => isGiven(document, member))

/**
 * A document of neither form, or of both. It knows the members of both, so that a typo is told with the member that was
 * meant, and judges none of them by its value: what is wrong first of all is the form.
 */
const UndecidedPolicy = z
  .strictObject({
    name: name(),
    ...Object.fromEntries([...CLASSIC_MEMBERS, ...CONDITIONAL_MEMBERS].map(member => [member, z.unknown().optional()])),
    schedules: schedules(),
  })
  .superRefine(
    (document, context) => context.addIssue({ code: 'custom', message: formWanted(document) }),
    // Also when other members are wrong: an operator should hear of everything at once.
    { when: () => true },
  )
  .transform((): RateLimitPolicy => z.NEVER)

function formWanted(document: Readonly<Record<string, unknown>>): string {
  const [classic, conditional] = [given(document, CLASSIC_MEMBERS), given(document, CONDITIONAL_MEMBERS)]
  if (classic.length === 0 && conditional.length === 0) {
    return 'one of two forms is needed: either `scope`, `scope_ref` and `window` with `max_requests` or `max_tokens`, or `limits`, with `conditions` and `group_by` as needed'
  }
  return `the two forms of a policy exclude each other: leave out either ${listed(classic)} of the classic form or ${listed(conditional)} of the conditional one`
}

const listed = (members: readonly string[]) => members.map(member => `\`${member}\``).join(', ')

const nothingForeign = () => undefined
const classicForm: Form<RateLimitPolicy> = {
  schema: ClassicPolicy,
  foreignMember: nothingForeign,
  absentMembers: CONDITIONAL_MEMBERS,
  deadMembers: [],
}
const conditionalForm: Form<RateLimitPolicy> = {
  schema: ConditionalPolicy,
  foreignMember: nothingForeign,
  absentMembers: CLASSIC_MEMBERS,
  deadMembers: [],
}
const undecidedForm: Form<RateLimitPolicy> = { schema: UndecidedPolicy, foreignMember: nothingForeign, deadMembers: [] }

/** The form that a document has members of; a document of neither or of both is refused as such. */
export function formOfPolicy(document: Readonly<Record<string, unknown>>): Form<RateLimitPolicy> {
  const isClassicForm = given(document, CLASSIC_MEMBERS).length > 0
  if (isClassicForm === given(document, CONDITIONAL_MEMBERS).length > 0) return undecidedForm
  return isClassicForm ? classicForm : conditionalForm
}
