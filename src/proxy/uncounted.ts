/** A server may get a tokenizer, or a model another server: it is asked again after this long. */
const REMEMBERED_MS = 600_000
/** Names of models are the callers' own where a pattern serves them. */
const MODELS_MAX = 1_000

/** Models of a provider key whose server has said that it does not count their tokens. Times are `clock.monotonic()`. */
export class Uncounted {
  private readonly saidAt = new Map<string, number>()

  has(model: string, now: number): boolean {
    const saidAt = this.saidAt.get(model)
    return saidAt !== undefined && now - saidAt < REMEMBERED_MS
  }

  add(model: string, now: number): void {
    // A map keeps its order: the one that said so longest ago is the first.
    this.saidAt.delete(model)
    this.saidAt.set(model, now)
    const [oldest] = this.saidAt.keys()
    if (this.saidAt.size > MODELS_MAX && oldest !== undefined) this.saidAt.delete(oldest)
  }
}
