import type { Labels } from '../exchange.ts'
import { picoOf } from '../pricing/price.ts'
import type { Budget } from '../resources/budget.ts'
import type { CallerKey } from '../store/snapshot.ts'
import type { Entry } from '../store/store.ts'
import type { Account, Book, Tally } from './tally.ts'

/** Where a warning is due. A limit that the budget does not have is undefined. */
type Mark = { percent: number; pico: bigint | undefined; tokens: number | undefined }

/** One budget as it is configured, and the account that it looks at. */
export class Watch {
  readonly limitPico: bigint | undefined
  readonly limitTokens: number | undefined
  readonly isBlocking: boolean
  private marks: readonly Mark[] | undefined
  private judged: Tally | undefined
  private judgedVersion = 0
  private wasReached = false

  constructor(
    readonly entry: Entry<'budgets'>,
    readonly account: Account,
  ) {
    const { limit_usd, limit_tokens, action } = entry.value
    this.limitPico = limit_usd === undefined ? undefined : picoOf(limit_usd)
    this.limitTokens = limit_tokens
    this.isBlocking = action === 'block'
  }

  get value(): Budget {
    return this.entry.value
  }

  /** Whether the limit is reached in the period of an instant; between charges it costs a comparison. */
  isReached(nowMs: number): boolean {
    const tally = this.account.at(nowMs)
    if (tally !== this.judged || tally.version !== this.judgedVersion) {
      this.judged = tally
      this.judgedVersion = tally.version
      this.wasReached = reaches(tally, { pico: this.limitPico, tokens: this.limitTokens })
    }
    return this.wasReached
  }

  /** Percentages that are reached and that nobody was warned of in this period. */
  dueMarks(tally: Tally): number[] {
    const due: number[] = []
    // Nothing is due of what nobody has used, as most of many budgets are: their marks are not worked out.
    if (tally.version === 0) return due
    this.marks ??= marksOf(this.value, this.limitPico, this.limitTokens)
    for (const mark of this.marks) {
      // They ascend: where one is not reached the others are not.
      if (!reaches(tally, mark)) break
      if (!tally.warnings.has(mark.percent)) due.push(mark.percent)
    }
    return due
  }

  /** The larger of both shares, in percent, two decimals, rounded down: 100 is not said before the limit is reached. */
  usedPercent({ spentPico, spentTokens }: Tally): number {
    const { limitPico, limitTokens } = this
    const ofMoney = limitPico === undefined ? 0 : Number((spentPico * 10_000n) / limitPico) / 100
    const ofTokens = limitTokens === undefined ? 0 : Math.floor((spentTokens / limitTokens) * 10_000) / 100
    return Math.max(ofMoney, ofTokens)
  }
}

function reaches({ spentPico, spentTokens }: Tally, { pico, tokens }: { pico: bigint | undefined; tokens: number | undefined }) {
  return (pico !== undefined && spentPico >= pico) || (tokens !== undefined && spentTokens >= tokens)
}

function marksOf({ warn_at = [], action }: Budget, limitPico: bigint | undefined, limitTokens: number | undefined): Mark[] {
  // Of a budget that refuses nothing, the limit itself is the last thing to be warned of.
  const percentages = new Set(action === 'warn' ? [...warn_at, 100] : warn_at)
  return [...percentages]
    .sort((a, b) => a - b)
    .map(percent => ({
      percent,
      pico: limitPico === undefined ? undefined : (limitPico * BigInt(percent) + 99n) / 100n,
      tokens: limitTokens === undefined ? undefined : Math.ceil((limitTokens * percent) / 100),
    }))
}

const NONE: readonly Watch[] = []

/** All budgets of one state of the configuration. Which of them a request falls under is worked out once for each caller. */
export class WatchSet {
  readonly byId = new Map<string, Watch>()
  private readonly byScope: Record<Budget['scope'], Map<string, Watch[]>> = {
    api_key: new Map(),
    team: new Map(),
    user: new Map(),
    model: new Map(),
    all: new Map(),
  }
  private readonly byCaller = new WeakMap<CallerKey, readonly Watch[]>()
  private readonly byLabels = new WeakMap<Labels, readonly Watch[]>()

  constructor(rows: ReadonlyMap<string, Entry<'budgets'>>, book: Book, known: WeakMap<Entry<'budgets'>, Watch>) {
    for (const entry of rows.values()) {
      const account = book.account(entry)
      let watch = known.get(entry)
      // The account of a budget that was gone for a while is another one.
      if (watch?.account !== account) {
        watch = new Watch(entry, account)
        known.set(entry, watch)
      }
      this.byId.set(entry.id, watch)
      const { scope, scope_ref = '' } = entry.value
      const watches = this.byScope[scope].get(scope_ref)
      if (watches) watches.push(watch)
      else this.byScope[scope].set(scope_ref, [watch])
    }
  }

  /** Budgets of a caller, whatever it asks for. */
  ofCaller(caller: CallerKey): readonly Watch[] {
    let watches = this.byCaller.get(caller)
    if (!watches) {
      const { id, value } = caller.entry
      watches = this.of(id, value.team_id ?? '', value.user_id ?? '')
      this.byCaller.set(caller, watches)
    }
    return watches
  }

  /** Budgets of a model or group. */
  ofModel(modelId: string): readonly Watch[] {
    return this.byScope.model.get(modelId) ?? NONE
  }

  /** Budgets that an attempt falls under, except those of the group that was asked for. */
  ofLabels(labels: Labels): readonly Watch[] {
    let watches = this.byLabels.get(labels)
    if (!watches) {
      const { apiKeyId, teamId, userId, modelId } = labels
      watches = [...this.of(apiKeyId, teamId, userId), ...this.ofModel(modelId)]
      this.byLabels.set(labels, watches)
    }
    return watches
  }

  private of(apiKeyId: string, teamId: string, userId: string): Watch[] {
    const { api_key, team, user, all } = this.byScope
    // A scope_ref is never empty, so that an absent team is no team.
    return [
      ...(api_key.get(apiKeyId) ?? NONE),
      ...(team.get(teamId) ?? NONE),
      ...(user.get(userId) ?? NONE),
      ...(all.get('') ?? NONE),
    ]
  }
}
