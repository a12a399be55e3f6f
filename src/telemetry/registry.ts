/**
 * Counters, gauges, summaries and histograms, and their page in Prometheus' text format. Recording is an addition to a
 * series that its user holds on to; names and labels are looked at only when a series is first asked for.
 * source: Prometheus, "Exposition formats", text format 0.0.4
 */
export type FamilyType = 'counter' | 'gauge' | 'summary' | 'histogram'

export type Family = {
  readonly name: string
  readonly type: FamilyType
  readonly help: string
  readonly labels: readonly string[]
  /** Upper bounds of a histogram, in its unit, ascending; `+Inf` is implied. */
  readonly bounds?: readonly number[]
  /** What the reference says besides `help`: when it counts, and what its label values are. */
  readonly note?: string
}

/** One set of label values. Counters and gauges have a `value`, the others the rest. */
export class Series {
  value = 0
  sum = 0
  count = 0
  readonly counts: Float64Array | undefined

  constructor(
    readonly labels: readonly string[],
    /** The labels as they stand in the page, without braces. */
    readonly text: string,
    private readonly bounds: readonly number[] | undefined,
  ) {
    this.counts = bounds && new Float64Array(bounds.length + 1)
  }

  observe(value: number): void {
    this.sum += value
    this.count += 1
    const { bounds, counts } = this
    if (!bounds || !counts) return
    let bucket = 0
    while (bucket < bounds.length && value > (bounds[bucket] ?? 0)) bucket += 1
    counts[bucket] = (counts[bucket] ?? 0) + 1
  }
}

/** Label value of everything that came after the last series that there was room for. */
export const OVERFLOW = 'other'

type Shelf = { family: Family; series: Map<string, Series> }

export class Registry {
  private readonly shelves = new Map<string, Shelf>()
  private held = 0
  /** Grows whenever series go: whoever holds on to some asks anew. */
  epoch = 0
  /** Times that a series was asked for and there was no room for it. */
  overflows = 0

  constructor(
    private readonly seriesMax: number,
    families: readonly Family[],
  ) {
    for (const family of families) this.shelves.set(family.name, { family, series: new Map() })
  }

  /** Number of series; a histogram counts as one for each of its lines. */
  get size(): number {
    return this.held
  }

  /**
   * The series with these label values, which are in the family's order; '' becomes `unknown`. Where there is no room for
   * another one, all values are `other`.
   */
  series(name: string, labels: readonly string[]): Series {
    const shelf = this.shelves.get(name)
    if (!shelf) throw new Error(`no metric family ${name}`)
    const { family, series } = shelf
    const text = labelText(family, labels)
    const known = series.get(text)
    if (known) return known
    const lines = linesOf(family)
    if (this.held + lines > this.seriesMax && labels.length > 0) {
      this.overflows += 1
      const others = family.labels.map(() => OVERFLOW)
      const rest = labelText(family, others)
      return series.get(rest) ?? this.add(shelf, rest, others)
    }
    return this.add(shelf, text, labels)
  }

  private add({ family, series }: Shelf, text: string, labels: readonly string[]): Series {
    const made = new Series(labels, text, family.bounds)
    series.set(text, made)
    this.held += linesOf(family)
    return made
  }

  /** The values that a label has among the series of a family. */
  values(name: string, label: string): Set<string> {
    const shelf = this.shelves.get(name)
    const at = shelf?.family.labels.indexOf(label) ?? -1
    const values = new Set<string>()
    if (shelf && at >= 0) for (const { labels } of shelf.series.values()) values.add(labels[at] ?? '')
    return values
  }

  /** Drops the series whose label `label` has a value that is not to be kept. */
  drop(label: string, keeps: (value: string) => boolean): void {
    let hasDropped = false
    for (const { family, series } of this.shelves.values()) {
      const at = family.labels.indexOf(label)
      if (at < 0) continue
      for (const [text, each] of series) {
        const value = each.labels[at] ?? ''
        if (value === OVERFLOW || value === '' || keeps(value)) continue
        series.delete(text)
        this.held -= linesOf(family)
        hasDropped = true
      }
    }
    if (hasDropped) this.epoch += 1
  }

  /** Forgets all series of a family: what follows from a state is told anew at each scrape. */
  clear(name: string): void {
    const shelf = this.shelves.get(name)
    if (!shelf) return
    this.held -= shelf.series.size * linesOf(shelf.family)
    shelf.series.clear()
  }

  /** The page in pieces, so that a large one can be sent while requests go on. Families without series are left out. */
  *pages(): Generator<string> {
    let page = ''
    for (const { family, series } of this.shelves.values()) {
      if (series.size === 0) continue
      page += familyHead(family)
      // As they are now: between two pieces another page may clear a family and tell it anew.
      for (const each of Array.from(series.values())) {
        page += lineOf(family, each)
        if (page.length > PIECE_CHARACTERS) {
          yield page
          page = ''
        }
      }
    }
    if (page !== '') yield page
  }

  render(): string {
    let page = ''
    for (const piece of this.pages()) page += piece
    return page
  }
}

/** The HELP and TYPE lines of a family. */
export function familyHead({ name, type, help }: Pick<Family, 'name' | 'type' | 'help'>): string {
  return `# HELP ${name} ${help.replace(/\\/g, '\\\\').replace(/\n/g, '\\n')}\n# TYPE ${name} ${type}\n`
}

const PIECE_CHARACTERS = 64 * 1024

function linesOf({ type, bounds }: Family): number {
  if (type === 'histogram') return (bounds?.length ?? 0) + 3
  return type === 'summary' ? 2 : 1
}

function lineOf({ name, type, bounds = [] }: Family, { text, value, sum, count, counts }: Series): string {
  const braces = text === '' ? '' : `{${text}}`
  if (type === 'counter' || type === 'gauge') return `${name}${braces} ${numberText(value)}\n`
  const ends = `${name}_sum${braces} ${numberText(sum)}\n${name}_count${braces} ${count}\n`
  if (type === 'summary') return ends
  const comma = text === '' ? '' : ','
  let lines = ''
  let below = 0
  for (const [bucket, bound] of bounds.entries()) {
    below += counts?.[bucket] ?? 0
    lines += `${name}_bucket{${text}${comma}le="${bound}"} ${below}\n`
  }
  return `${lines}${name}_bucket{${text}${comma}le="+Inf"} ${count}\n${ends}`
}

/** source: Prometheus, "Exposition formats": as Go's ParseFloat reads it */
function numberText(value: number): string {
  if (Number.isFinite(value)) return String(value)
  return Number.isNaN(value) ? 'NaN' : value > 0 ? '+Inf' : '-Inf'
}

function labelText({ labels }: Family, values: readonly string[]): string {
  let text = ''
  for (const [at, name] of labels.entries()) {
    const value = values[at] || 'unknown'
    text += `${at === 0 ? '' : ','}${name}="${escapeLabel(value)}"`
  }
  return text
}

/** Backslash, double quote and newline are escaped in label values. */
export function escapeLabel(text: string): string {
  return text.replace(/\\/g, '\\\\').replace(/"/g, '\\"').replace(/\n/g, '\\n')
}
