import type { GatewayError } from '../errors.ts'
import type { Clock } from '../gateway.ts'
import type { Log } from '../lib/log.ts'
import { usdText } from '../pricing/price.ts'
import type { CallerKey, Snapshot } from '../store/snapshot.ts'
import type { Entry } from '../store/store.ts'
import type { Registry } from '../telemetry/registry.ts'
import { type UsageRecord, usdOf, wholeSeconds } from '../telemetry/usage-record.ts'
import type { BudgetStatus, Budgets, PastPeriod } from './budget.ts'
import { budgetExceeded } from './refusal.ts'
import type { Exchanged, Place, Spend, Warning } from './spend-file.ts'
import { SpendThread } from './spend-thread.ts'
import { Book, moneyOf, picoOfMoney, type Tally, type TallyWarning } from './tally.ts'
import { type Watch, WatchSet } from './watch.ts'

export type BudgetsOptions = {
  /** The file with what has been spent: `budgets.path`. */
  path: string
  /** Which budgets there are. */
  store: { readonly snapshot: Snapshot }
  log: Log
  registry: Registry
  clock: Clock
  /** Milliseconds from one look at the file to the next. */
  everyMs?: number
}

/** Twice in this time, ours and that of another gateway, is less than the second after which they see each other's spending. */
const EVERY_MS = 400
/** The start of the gateway does not wait longer for a disk, nor does its end. */
const WAIT_MS = 5_000
const CLOSE_MS = 2_000
/** A thread that is silent for so long waits for its disk. */
const SILENCE_MS = 10_000
const PRUNE_EVERY_MS = 86_400_000
const HISTORY_MAX = 60

/** What was sent to be written. It stays as it is, under its number, until it is known to be written. */
type Batch = { number: number; charges: Spend[]; warnings: Warning[]; tallies: Tally[] }

/**
 * Opens the budgets. The file and its thread are there once the first budget is; where there is one already, what is spent of
 * it is known when this resolves, or the file cannot be used and `health` says why.
 */
export async function createBudgets(options: BudgetsOptions): Promise<Budgets> {
  const keeper = new BudgetKeeper(options)
  if (options.store.snapshot.entries.budgets.size > 0) await keeper.load()
  return keeper
}

class BudgetKeeper implements Budgets {
  private readonly book = new Book()
  private readonly watches = new WeakMap<Entry<'budgets'>, Watch>()
  private readonly sets = new WeakMap<object, WatchSet>()
  private newestRows: ReadonlyMap<string, Entry<'budgets'>> | undefined
  private newest: WatchSet
  private readonly refused = new WeakMap<GatewayError, Watch>()
  private readonly log: Log
  private readonly thread: SpendThread

  private readonly writer: string = crypto.randomUUID()
  private batches = 0
  private batch: Batch | undefined
  private dueWarnings: { tally: Tally; percent: number; warning: TallyWarning }[] = []
  private fileId: string | undefined
  private since = 0
  private problem: string | undefined
  private asking: Promise<boolean> | undefined
  private askedAt = 0
  private timer: Timer | undefined
  private isHurrying = false
  private isClosed = false
  private prunedAtMs = Number.NEGATIVE_INFINITY
  private collectedRows: object | undefined

  constructor(private readonly options: BudgetsOptions) {
    this.log = options.log.as('budgets')
    this.thread = new SpendThread(options.path)
    this.newest = new WatchSet(new Map(), this.book, this.watches)
  }

  async load(): Promise<void> {
    this.thread.prepare()
    this.present()
    await within(WAIT_MS, this.flush())
  }

  refusal(snapshot: Snapshot, caller: CallerKey, modelId: string, nowMs: number): GatewayError | undefined {
    const rows = snapshot.entries.budgets
    if (rows.size === 0) return undefined
    const set = this.seen(rows)
    const worst = later(worstOf(set.ofCaller(caller), nowMs), worstOf(set.ofModel(modelId), nowMs), nowMs)
    if (!worst) return undefined
    const refusal = this.refuse(worst, nowMs)
    this.reject(refusal)
    return refusal
  }

  memberRefusal(snapshot: Snapshot, modelId: string, nowMs: number): GatewayError | undefined {
    const rows = snapshot.entries.budgets
    if (rows.size === 0) return undefined
    const worst = worstOf(this.seen(rows).ofModel(modelId), nowMs)
    return worst && this.refuse(worst, nowMs)
  }

  reject(refusal: GatewayError): void {
    const watch = this.refused.get(refusal)
    if (!watch) return
    this.refused.delete(refusal)
    const { name, scope } = watch.value
    this.options.registry.series('aisix_budget_rejections_total', [watch.entry.id, name, scope]).value += 1
  }

  charge(record: UsageRecord, groupId: string | undefined): void {
    const { costPico, labels, occurredAtMs } = record
    const tokens = record.promptTokens + record.completionTokens
    if (tokens === 0 && costPico === 0) return
    const set = this.present()
    if (set.byId.size === 0) return
    for (const watch of set.ofLabels(labels)) this.chargeOne(watch, occurredAtMs, costPico, tokens)
    if (groupId === undefined || groupId === labels.modelId) return
    for (const watch of set.ofModel(groupId)) this.chargeOne(watch, occurredAtMs, costPico, tokens)
  }

  status(snapshot: Snapshot, id: string, nowMs: number): BudgetStatus | undefined {
    const watch = this.seen(snapshot.entries.budgets).byId.get(id)
    return watch && statusOf(watch, nowMs)
  }

  statuses(snapshot: Snapshot, nowMs: number): BudgetStatus[] {
    return Array.from(this.seen(snapshot.entries.budgets).byId.values(), watch => statusOf(watch, nowMs))
  }

  async history(snapshot: Snapshot, id: string, nowMs: number): Promise<PastPeriod[] | undefined> {
    const watch = this.seen(snapshot.entries.budgets).byId.get(id)
    if (!watch) return undefined
    try {
      const past = await this.thread.past({ budgetId: id, measure: watch.account.prefix, nowMs, limit: HISTORY_MAX })
      return past.map(({ startMs, endMs, tokens, ...money }) => ({
        period_started_at: wholeSeconds(startMs),
        period_ended_at: wholeSeconds(endMs),
        spent_usd: usdOf(picoOfMoney(money)),
        spent_tokens: tokens,
      }))
    } catch {
      // Why the file cannot be read is told by `health`, which looks at it all the time.
      return undefined
    }
  }

  collect(registry: Registry, snapshot: Snapshot, nowMs: number): void {
    const rows = snapshot.entries.budgets
    if (rows !== this.collectedRows) {
      this.collectedRows = rows
      registry.drop('budget_id', id => rows.has(id))
    }
    for (const name of GAUGES) registry.clear(name)
    for (const { entry, value, limitPico, account } of this.seen(rows).byId.values()) {
      const { name, scope, scope_ref = '' } = value
      const ref = (of: string) => (scope === of ? scope_ref : '')
      const labels = [entry.id, name, scope, ref('api_key'), ref('team'), ref('user')]
      const set = (gauge: (typeof GAUGES)[number], to: number) => {
        registry.series(gauge, labels).value = to
      }
      const { spentPico, period } = account.at(nowMs)
      set('aisix_budget_details_present', limitPico === undefined ? 0 : 1)
      set('aisix_budget_spent_usd', usdOf(spentPico))
      if (period.endMs !== Number.POSITIVE_INFINITY) set('aisix_budget_reset_seconds', Math.ceil((period.endMs - nowMs) / 1_000))
      if (limitPico === undefined) continue
      set('aisix_budget_limit_usd', usdOf(limitPico))
      set('aisix_budget_remaining_usd', usdOf(spentPico < limitPico ? limitPico - spentPico : 0n))
    }
  }

  get health(): Budgets['health'] {
    const isSilent = this.asking !== undefined && this.options.clock.monotonic() - this.askedAt > SILENCE_MS
    const silence = `the disk of ${this.options.path} does not answer; look at the disk`
    const problem = isSilent ? silence : this.problem
    return { state: problem === undefined ? 'ok' : 'degraded', problem: problem && `${problem}. ${GOES_ON}` }
  }

  async flush(): Promise<boolean> {
    if (!this.hasWork()) return true
    // What is being asked now does not yet know of what was charged since.
    await this.asking
    return await this.ask()
  }

  async close(): Promise<void> {
    if (this.isClosed) return
    clearInterval(this.timer)
    await within(WAIT_MS, this.flush())
    this.isClosed = true
    if (this.batch !== undefined || this.book.unwritten.size > 0) {
      this.log.error('the last of what was spent on budgets is lost: it could not be written', { path: this.options.path })
    }
    await this.thread.close(CLOSE_MS)
  }

  /** The budgets as they are configured now. */
  private present(): WatchSet {
    const rows = this.options.store.snapshot.entries.budgets
    if (rows !== this.newestRows) this.adopt(rows)
    return this.newest
  }

  private adopt(rows: ReadonlyMap<string, Entry<'budgets'>>): void {
    this.newestRows = rows
    this.newest = this.setOf(rows)
    const nowMs = this.options.clock.now()
    const accounts = new Set<Tally['account']>()
    for (const watch of this.newest.byId.values()) {
      accounts.add(watch.account)
      // A mark may lie below what is spent since it was edited.
      this.warn(watch, watch.account.at(nowMs))
    }
    this.book.keepOnly(accounts)
    if (rows.size === 0 || this.isClosed) return
    this.timer ??= setInterval(() => this.tick(), this.options.everyMs ?? EVERY_MS).unref()
    this.hurry()
  }

  /** The budgets of a snapshot, which may be older than the newest. */
  private seen(rows: ReadonlyMap<string, Entry<'budgets'>>): WatchSet {
    // Whoever asks first takes notice of what has changed: the file may know of it.
    const newest = this.present()
    return rows === this.newestRows ? newest : this.setOf(rows)
  }

  private setOf(rows: ReadonlyMap<string, Entry<'budgets'>>): WatchSet {
    let set = this.sets.get(rows)
    if (!set) {
      set = new WatchSet(rows, this.book, this.watches)
      this.sets.set(rows, set)
    }
    return set
  }

  private refuse(watch: Watch, nowMs: number): GatewayError {
    const refusal = budgetExceeded(watch, nowMs)
    this.refused.set(refusal, watch)
    return refusal
  }

  private chargeOne(watch: Watch, occurredAtMs: number, costPico: number, tokens: number): void {
    const tally = watch.account.at(occurredAtMs)
    this.book.charge(tally, costPico, tokens)
    this.warn(watch, tally)
  }

  /** Whoever gets the mark into the file first says so: gateways that share it say it once. */
  private warn(watch: Watch, tally: Tally): void {
    for (const percent of watch.dueMarks(tally)) {
      const { spentPico: pico, spentTokens: tokens } = tally
      const warning: TallyWarning = { atMs: this.options.clock.now(), pico, tokens, isSaid: false }
      tally.warnings.set(percent, warning)
      this.dueWarnings.push({ tally, percent, warning })
      this.hurry()
    }
  }

  private say(tally: Tally, percent: number, warning: TallyWarning): void {
    if (warning.isSaid) return
    warning.isSaid = true
    const watch = this.newest.byId.get(tally.place.budgetId)
    if (!watch) return
    const { name } = watch.value
    const { id } = watch.entry
    this.options.registry.series('aisix_budget_warnings_total', [id, name, String(percent)]).value += 1
    this.log.warn('budget warning', { budget: name, budget_id: id, percent, ...amounts(watch, warning) })
  }

  /** Looks at the file soon, not at the next tick. */
  private hurry(): void {
    if (this.isHurrying || this.isClosed) return
    this.isHurrying = true
    setTimeout(() => {
      this.isHurrying = false
      this.tick()
    }, 0)
  }

  private tick(): void {
    if (!this.isClosed && !this.asking && this.hasWork()) void this.ask()
  }

  private hasWork(): boolean {
    return this.present().byId.size > 0 || this.batch !== undefined || this.book.unwritten.size > 0
  }

  private prune(): void {
    const nowMs = this.options.clock.now()
    const { byId } = this.newest
    if (byId.size === 0 || nowMs - this.prunedAtMs < PRUNE_EVERY_MS) return
    this.prunedAtMs = nowMs
    // It waits its turn in the thread; where that ends before, the next day will do.
    this.thread.prune([...byId.keys()], nowMs).catch(() => undefined)
  }

  private ask(): Promise<boolean> {
    this.asking ??= this.exchange().finally(() => {
      this.asking = undefined
    })
    return this.asking
  }

  /** Sends what is new, and takes in how things stand. */
  private async exchange(): Promise<boolean> {
    let remembered: { spends: Spend[]; warnings: Warning[] } | undefined
    // A damaged file that was moved away, and then a new one: three questions are the most that one answer takes.
    for (let turn = 0; turn < 3; turn += 1) {
      this.batch ??= this.pack()
      const { batch, since } = this
      const wanted = since === 0 ? [...this.book.tallies.values()] : [...this.book.unread]
      this.askedAt = this.options.clock.monotonic()
      const answer = await this.thread.exchange({
        writer: this.writer,
        batch: batch?.number ?? 0,
        charges: batch?.charges ?? [],
        warnings: batch?.warnings ?? [],
        fileId: this.fileId,
        since,
        wanted: wanted.map(({ place }) => place),
        remembered,
        nowMs: this.options.clock.now(),
      })
      if (answer.kind === 'done') {
        this.take(answer, wanted)
        this.prune()
        return true
      }
      if (answer.kind === 'stale') {
        remembered = this.fileId === answer.fileId ? undefined : this.rememberAll()
        this.since = 0
        this.fileId = answer.fileId
        const what = remembered
          ? 'was replaced or removed; what this process knows is written to the new one'
          : 'went back to an older state'
        this.log.warn(`the file with spending on budgets ${what}`, { path: this.options.path })
      } else {
        this.fail(answer)
        if (answer.movedTo === undefined) return false
      }
    }
    return false
  }

  private pack(): Batch | undefined {
    const { unwritten } = this.book
    if (unwritten.size === 0 && this.dueWarnings.length === 0) return undefined
    const tallies = [...unwritten]
    unwritten.clear()
    const warnings = this.dueWarnings.map(({ tally, percent, warning }) => warningRow(tally, percent, warning))
    this.dueWarnings = []
    this.batches += 1
    return { number: this.batches, charges: tallies.map(tally => tally.send()), warnings, tallies }
  }

  private take(answer: Exchanged & { kind: 'done' }, wanted: readonly Tally[]): void {
    const { batch, book } = this
    this.batch = undefined
    this.fileId = answer.fileId
    this.since = answer.until
    if (this.problem !== undefined) this.log.info('spending on budgets reaches the disk again', { path: this.options.path })
    this.problem = undefined

    for (const tally of batch?.tallies ?? []) tally.settle()
    const absent = new Set(wanted)
    const changed = new Set<Tally>()
    for (const { budgetId, measure, tokens, ...money } of answer.spends) {
      const tally = book.tally({ budgetId, measure })
      if (!tally) continue
      tally.read(money, tokens)
      absent.delete(tally)
      changed.add(tally)
    }
    for (const tally of absent) tally.read({ usd: 0, pico: 0 }, 0)
    for (const tally of wanted) book.unread.delete(tally)
    for (const row of answer.warnings) this.takeWarning(row)
    for (const tally of changed) {
      const watch = this.newest.byId.get(tally.place.budgetId)
      if (watch?.account === tally.account) this.warn(watch, tally)
    }
    for (const tally of batch?.tallies ?? []) book.letGo(tally)
  }

  private takeWarning(row: Warning & { writer: string }): void {
    const tally = this.book.tally(row)
    if (!tally) return
    const { percent, atMs, tokens, writer } = row
    const own = tally.warnings.get(percent)
    if (own && writer === this.writer) this.say(tally, percent, own)
    else tally.warnings.set(percent, { atMs, pico: picoOfMoney(row), tokens, isSaid: true })
  }

  /** Everything that was read from a file that is gone. */
  private rememberAll(): { spends: Spend[]; warnings: Warning[] } {
    const spends: Spend[] = []
    const warnings: Warning[] = []
    for (const tally of this.book.tallies.values()) {
      const spend = tally.remembered()
      if (spend.usd > 0 || spend.pico > 0 || spend.tokens > 0) spends.push(spend)
      for (const [percent, warning] of tally.warnings) if (warning.isSaid) warnings.push(warningRow(tally, percent, warning))
    }
    return { spends, warnings }
  }

  private fail({ problem, movedTo }: Exchanged & { kind: 'failed' }): void {
    // No disk, no second gateway that could say it: warnings do not wait.
    for (const row of this.batch?.warnings ?? []) {
      const tally = this.book.tally(row)
      const warning = tally?.warnings.get(row.percent)
      if (tally && warning) this.say(tally, row.percent, warning)
    }
    if (movedTo !== undefined) {
      const from = this.fileId === undefined ? 'zero, because nothing was read of it' : 'what this process remembers'
      this.log.error(`the file with spending on budgets was damaged: spending goes on from ${from}`, { moved_to: movedTo })
      return
    }
    if (problem !== this.problem) this.log.error('spending on budgets does not reach the disk; it is kept in memory', { problem })
    this.problem = problem
  }
}

const GOES_ON = 'Budgets are enforced from memory meanwhile, and what is spent is written when the file can be used again'

const GAUGES = [
  'aisix_budget_details_present',
  'aisix_budget_limit_usd',
  'aisix_budget_spent_usd',
  'aisix_budget_remaining_usd',
  'aisix_budget_reset_seconds',
] as const

/** The exhausted budget that is free again last. */
function worstOf(watches: readonly Watch[], nowMs: number): Watch | undefined {
  let worst: Watch | undefined
  for (const watch of watches) {
    if (watch.isBlocking && watch.isReached(nowMs)) worst = later(worst, watch, nowMs)
  }
  return worst
}

function later(one: Watch | undefined, other: Watch | undefined, nowMs: number): Watch | undefined {
  if (!one || !other) return one ?? other
  return other.account.at(nowMs).period.endMs > one.account.at(nowMs).period.endMs ? other : one
}

function statusOf(watch: Watch, nowMs: number): BudgetStatus {
  const { entry, value, account, limitPico, limitTokens } = watch
  const { name, action, scope, scope_ref, period, limit_usd } = value
  const tally = account.at(nowMs)
  const { spentPico, spentTokens, warnings } = tally
  const { startMs, endMs } = tally.period
  return {
    id: entry.id,
    name,
    state: watch.isReached(nowMs) ? 'exceeded' : warnings.size > 0 ? 'warning' : 'ok',
    action,
    scope,
    ...(scope_ref === undefined ? {} : { scope_ref }),
    period,
    ...(period === 'total' ? {} : { period_started_at: wholeSeconds(startMs), period_resets_at: wholeSeconds(endMs) }),
    ...(limit_usd === undefined ? {} : { limit_usd }),
    spent_usd: usdOf(spentPico),
    ...(limitPico === undefined ? {} : { remaining_usd: usdOf(spentPico < limitPico ? limitPico - spentPico : 0n) }),
    ...(limitTokens === undefined ? {} : { limit_tokens: limitTokens }),
    spent_tokens: spentTokens,
    ...(limitTokens === undefined ? {} : { remaining_tokens: Math.max(0, limitTokens - spentTokens) }),
    used_percent: watch.usedPercent(tally),
    warnings: [...warnings]
      .sort(([a, one], [b, other]) => one.atMs - other.atMs || a - b)
      .map(([at_percent, { atMs, pico, tokens }]) => ({
        at_percent,
        warned_at: wholeSeconds(atMs),
        spent_usd: usdOf(pico),
        spent_tokens: tokens,
      })),
  }
}

function warningRow({ place }: { place: Place }, percent: number, { atMs, pico, tokens }: TallyWarning): Warning {
  return { ...place, percent, atMs, ...moneyOf(pico), tokens }
}

/** What was spent, and of what, in the unit of the limit that is nearer. */
function amounts({ limitPico, limitTokens }: Watch, { pico, tokens }: TallyWarning): { spent: string; limit: string } {
  const ofMoney = limitPico === undefined ? -1 : Number(pico) / Number(limitPico)
  const ofTokens = limitTokens === undefined ? -1 : tokens / limitTokens
  return ofMoney >= ofTokens
    ? { spent: `${usdText(pico)} USD`, limit: `${usdText(limitPico ?? 0n)} USD` }
    : { spent: `${tokens} tokens`, limit: `${limitTokens} tokens` }
}

/** Waits for a promise, but not for ever. */
async function within(ms: number, promise: Promise<unknown>): Promise<void> {
  const { promise: late, resolve } = Promise.withResolvers<void>()
  const timer = setTimeout(resolve, ms)
  await Promise.race([promise, late])
  clearTimeout(timer)
}
