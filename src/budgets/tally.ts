import { PICO_PER_USD } from '../pricing/price.ts'
import type { Budget } from '../resources/budget.ts'
import type { Entry } from '../store/store.ts'
import { type Calendar, calendarOf, type Period } from './calendar.ts'
import type { Money, Place, Spend } from './spend-file.ts'

export type TallyWarning = { atMs: number; pico: bigint; tokens: number; isSaid: boolean }

/**
 * What was charged to one budget in one period: what the file said when it was last read, which all gateways have added to,
 * and what this process has charged and does not yet know to be written.
 */
export class Tally {
  spentPico = 0n
  spentTokens = 0
  /** Grows whenever what is spent changes. */
  version = 0
  /** By their percentage. */
  readonly warnings = new Map<number, TallyWarning>()
  private filePico = 0n
  private fileTokens = 0
  private sentPico = 0n
  private sentTokens = 0
  private newPico = 0n
  private newTokens = 0

  constructor(
    readonly account: Account,
    readonly place: Place,
    readonly period: Period,
  ) {}

  get isNew(): boolean {
    return this.newPico > 0n || this.newTokens > 0
  }

  get isWritten(): boolean {
    return !this.isNew && this.sentPico === 0n && this.sentTokens === 0
  }

  /** in: whole picodollars */
  charge(pico: number, tokens: number): void {
    if (pico !== 0) this.newPico += BigInt(pico)
    this.newTokens += tokens
    this.count()
  }

  /** What is new, to be added to the file. It counts as sent until `settle`. */
  send(): Spend {
    const { newPico, newTokens } = this
    this.sentPico += newPico
    this.sentTokens += newTokens
    this.newPico = 0n
    this.newTokens = 0
    return this.spend(newPico, newTokens)
  }

  /** What was sent is part of the file. */
  settle(): void {
    this.filePico += this.sentPico
    this.fileTokens += this.sentTokens
    this.sentPico = 0n
    this.sentTokens = 0
    this.count()
  }

  /** What the file says; nothing that was sent is part of it, or all. */
  read(money: Money, tokens: number): void {
    this.filePico = picoOfMoney(money)
    this.fileTokens = tokens
    this.count()
  }

  /** What is known to have been in the file. */
  remembered(): Spend {
    return this.spend(this.filePico, this.fileTokens)
  }

  private spend(pico: bigint, tokens: number): Spend {
    const { startMs, endMs } = this.period
    return { ...this.place, ...moneyOf(pico), tokens, startMs, endMs }
  }

  private count(): void {
    this.spentPico = this.filePico + this.sentPico + this.newPico
    this.spentTokens = this.fileTokens + this.sentTokens + this.newTokens
    this.version += 1
  }
}

export function moneyOf(pico: bigint): Money {
  return { usd: Number(pico / PICO_PER_USD), pico: Number(pico % PICO_PER_USD) }
}

export function picoOfMoney({ usd, pico }: Money): bigint {
  return BigInt(usd) * PICO_PER_USD + BigInt(pico)
}

/** Tallies of an account that are kept at hand: the present one, and those that a late request or a clock may ask for. */
const RECENT = 3

/**
 * What one budget counts: where its scope, its period or its time zone is changed, another account begins. Limits, marks and
 * the name are no part of it, so that editing them keeps what is spent.
 */
export class Account {
  readonly recent: Tally[] = []
  private readonly calendar: Calendar

  constructor(
    readonly budgetId: string,
    /** What `measure` of every period begins with. */
    readonly prefix: string,
    { period, timezone = 'UTC' }: Budget,
    private readonly open: (tally: Tally) => void,
    private readonly letGo: (tally: Tally) => void,
  ) {
    this.calendar = calendarOf(period, timezone)
  }

  /** The tally of the period that an instant lies in, epoch milliseconds. */
  at(ms: number): Tally {
    const latest = this.recent[0]
    if (latest !== undefined && ms >= latest.period.startMs && ms < latest.period.endMs) return latest
    return this.find(ms)
  }

  private find(ms: number): Tally {
    const { recent, prefix, budgetId } = this
    for (const tally of recent) if (ms >= tally.period.startMs && ms < tally.period.endMs) return tally
    const period = this.calendar.at(ms)
    const tally = new Tally(this, { budgetId, measure: `${prefix}${JSON.stringify(period.firstDay)}]` }, period)
    this.open(tally)
    // The last that was come to goes first, and is what every request asks for; that holds for a clock that is set back, too.
    recent.unshift(tally)
    if (recent.length > RECENT) {
      const oldest = recent.pop()
      if (oldest !== undefined) this.letGo(oldest)
    }
    return tally
  }
}

/** All accounts and tallies of this process, and what of them is still to be written or read. */
export class Book {
  /** By the place of their row. */
  readonly tallies = new Map<string, Tally>()
  /** Tallies of which the file has not been asked yet. */
  readonly unread = new Set<Tally>()
  readonly unwritten = new Set<Tally>()
  private readonly accounts = new Map<string, Account>()

  /** The account of a budget as it is now. */
  account({ id, value }: Entry<'budgets'>): Account {
    const { scope, scope_ref = '', period, timezone = 'UTC' } = value
    const prefix = `${JSON.stringify([scope, scope_ref, period, timezone]).slice(0, -1)},`
    const name = `${id} ${prefix}`
    let account = this.accounts.get(name)
    if (!account) {
      account = new Account(
        id,
        prefix,
        value,
        tally => this.add(tally),
        tally => this.letGo(tally),
      )
      this.accounts.set(name, account)
    }
    return account
  }

  tally({ budgetId, measure }: Place): Tally | undefined {
    return this.tallies.get(`${budgetId} ${measure}`)
  }

  charge(tally: Tally, pico: number, tokens: number): void {
    tally.charge(pico, tokens)
    this.unwritten.add(tally)
  }

  /** Forgets tallies that nothing asks for any more and that are written. */
  letGo(tally: Tally): void {
    const { account, place } = tally
    const isHeld = this.accounts.get(`${account.budgetId} ${account.prefix}`) === account && account.recent.includes(tally)
    if (isHeld || !tally.isWritten) return
    this.tallies.delete(`${place.budgetId} ${place.measure}`)
    this.unread.delete(tally)
  }

  /** Forgets all accounts but these; what of them is not written stays until it is. */
  keepOnly(accounts: ReadonlySet<Account>): void {
    for (const [name, account] of this.accounts) {
      if (accounts.has(account)) continue
      this.accounts.delete(name)
      for (const tally of account.recent) this.letGo(tally)
    }
  }

  private add(tally: Tally): void {
    const { budgetId, measure } = tally.place
    this.tallies.set(`${budgetId} ${measure}`, tally)
    this.unread.add(tally)
  }
}
