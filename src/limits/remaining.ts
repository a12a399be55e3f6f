/** What a key had left of its own limits when it was last answered. source: proxy-06 §7 */
export type Remaining = {
  apiKeyId: string
  /** Alias or pattern of the row that was asked for. */
  model: string
  requests: number | undefined
  tokens: number | undefined
}

/** Pairs of key and model that are remembered; the oldest go first. */
const REMEMBERED_MAX = 10_000

/** The newest reading for each pair of key and model: what the gauges show. */
export class RemainingLimits {
  private readonly rows = new Map<string, Map<string, Remaining>>()
  private size = 0

  note(apiKeyId: string, model: string, requests: number | undefined, tokens: number | undefined): void {
    let models = this.rows.get(apiKeyId)
    if (!models) {
      models = new Map()
      this.rows.set(apiKeyId, models)
    }
    const row = models.get(model)
    if (row) {
      row.requests = requests
      row.tokens = tokens
      return
    }
    models.set(model, { apiKeyId, model, requests, tokens })
    this.size += 1
    if (this.size > REMEMBERED_MAX) this.dropOldest()
  }

  /** in: whether a reading still means something; what is told of keys, limits and models that are gone would stay for ever */
  list(isCurrent: (row: Remaining) => boolean): Remaining[] {
    for (const [apiKeyId, models] of this.rows) {
      for (const [model, row] of models) {
        if (isCurrent(row)) continue
        models.delete(model)
        this.size -= 1
      }
      if (models.size === 0) this.rows.delete(apiKeyId)
    }
    return Array.from(this.rows.values()).flatMap(models => [...models.values()])
  }

  private dropOldest(): void {
    for (const [apiKeyId, models] of this.rows) {
      for (const model of models.keys()) {
        models.delete(model)
        this.size -= 1
        if (models.size === 0) this.rows.delete(apiKeyId)
        return
      }
    }
  }
}
