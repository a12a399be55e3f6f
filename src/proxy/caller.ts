/** What is under way for a caller and ends when it leaves. */
export interface Waiting {
  onCallerGone(): void
}

/** The program that asked, as long as it waits for its answer. */
export class Caller {
  isGone = false
  private waiting: Waiting | undefined

  constructor(signal: AbortSignal) {
    if (signal.aborted) this.isGone = true
    else signal.addEventListener('abort', () => this.leave())
  }

  leave(): void {
    this.isGone = true
    this.waiting?.onCallerGone()
  }

  /** Who is told at the moment the caller leaves; one at a time, undefined for nobody. */
  tell(waiting: Waiting | undefined): void {
    this.waiting = waiting
    if (this.isGone) waiting?.onCallerGone()
  }
}
