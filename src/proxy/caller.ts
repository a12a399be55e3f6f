/** The program that asked, as long as it waits for its answer. */
export class Caller {
  isGone = false
  private onGone: (() => void) | undefined

  constructor(signal: AbortSignal) {
    if (signal.aborted) this.isGone = true
    else {
      signal.addEventListener('abort', () => {
        this.isGone = true
        this.onGone?.()
      })
    }
  }

  /** What to do at the moment the caller leaves; one thing at a time, undefined for nothing. */
  whenGone(action: (() => void) | undefined): void {
    this.onGone = action
    if (this.isGone) action?.()
  }
}
