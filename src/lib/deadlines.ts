/**
 * Timers for deadlines that are set with every request and every token and nearly never come: a queue for each length of
 * time, in which entries stand in the order of their end, and one timer of the runtime a queue. Setting and cancelling are
 * a few pointer writes; `setTimeout` and `clearTimeout` cost about a microsecond each on a busy loop.
 */
export interface Expiring {
  /** The time is up. */
  onDeadline(ms: number): void
}

/** A deadline that was set; `cancel` may be called at any time, also after it has passed. */
export class Deadline {
  previous: Deadline | undefined
  next: Deadline | undefined

  constructor(
    private readonly queue: Queue,
    readonly dueAt: number,
    readonly owner: Expiring,
  ) {}

  cancel(): void {
    this.queue.remove(this)
  }
}

/** Longest time that a timer of the runtime can be set to; a longer one would fire at once. */
const TIMER_MS_MAX = 2_147_483_647

class Queue {
  private head: Deadline | undefined
  private tail: Deadline | undefined
  private isArmed = false

  constructor(private readonly ms: number) {}

  start(owner: Expiring): Deadline {
    const deadline = new Deadline(this, performance.now() + this.ms, owner)
    if (this.tail) {
      deadline.previous = this.tail
      this.tail.next = deadline
    } else this.head = deadline
    this.tail = deadline
    if (!this.isArmed) this.arm(this.ms)
    return deadline
  }

  remove(deadline: Deadline): void {
    const { previous, next } = deadline
    if (previous) previous.next = next
    else if (this.head === deadline) this.head = next
    else return
    if (next) next.previous = previous
    else this.tail = previous
    deadline.previous = undefined
    deadline.next = undefined
  }

  private arm(ms: number): void {
    this.isArmed = true
    setTimeout(() => this.fire(), Math.min(Math.max(ms, 1), TIMER_MS_MAX)).unref()
  }

  private fire(): void {
    this.isArmed = false
    const now = performance.now()
    // A timer of the runtime may come a fraction of a millisecond early.
    while (this.head && this.head.dueAt <= now + 1) {
      const { head } = this
      this.remove(head)
      head.owner.onDeadline(this.ms)
    }
    if (this.head && !this.isArmed) this.arm(this.head.dueAt - now)
  }
}

const queues = new Map<number, Queue>()

/** Calls `owner.onDeadline` in `ms` milliseconds, unless the returned deadline is cancelled before. */
export function startDeadline(ms: number, owner: Expiring): Deadline {
  let queue = queues.get(ms)
  if (!queue) {
    queue = new Queue(ms)
    queues.set(ms, queue)
  }
  return queue.start(owner)
}
