/**
 * PromQL as far as our dashboards and alerts use it: which labels the answer of an expression has, and whether every metric
 * and label that it names exists. What it does not know is an error, so that nothing passes unseen.
 * source: Prometheus, "Querying basics" and "Operators"; whether the syntax is right beyond that is for promtool to say
 */
import type { Family } from '../src/telemetry/registry.ts'

/** Label names of an answer; undefined of a scalar. */
export type Answer = ReadonlySet<string> | undefined

/** What Prometheus adds to every series that it scrapes. */
const SCRAPED = ['job', 'instance']

const AGGREGATIONS = ['sum', 'min', 'max', 'avg', 'count', 'topk', 'bottomk']
const RANGE_FUNCTIONS = ['rate', 'increase', 'changes']
const COMPARISONS = ['==', '!=', '>', '<', '>=', '<=']
/** Operators by how tightly they bind, loosest first. */
const LEVELS = [['or'], ['and', 'unless'], COMPARISONS, ['+', '-'], ['*', '/']]

type Token = { kind: 'name' | 'number' | 'string' | 'sign'; text: string }

/** Label names by the names that the series of families have. */
export function seriesOf(families: readonly Family[]): Map<string, readonly string[]> {
  const series = new Map<string, readonly string[]>([['up', []]])
  for (const { name, type, labels } of families) {
    if (type === 'counter' || type === 'gauge') series.set(name, labels)
    else {
      series.set(`${name}_sum`, labels)
      series.set(`${name}_count`, labels)
      if (type === 'histogram') series.set(`${name}_bucket`, [...labels, 'le'])
    }
  }
  return series
}

/**
 * returns: the labels that the answer has
 * throws: Error naming the metric or label that there is not, or what is not understood
 */
export function answerOf(expression: string, series: ReadonlyMap<string, readonly string[]>): Answer {
  return new Reader(tokensOf(expression), series).whole()
}

function tokensOf(text: string): Token[] {
  const tokens: Token[] = []
  const pattern =
    /\s+|([a-zA-Z_:][\w:]*)|(\d+(?:\.\d+)?(?:e\d+)?[smhdw]?)|("(?:[^"\\]|\\.)*")|(=~|!~|!=|==|>=|<=|[-+*/(){}[\],=<>])/gy
  let at = 0
  while (at < text.length) {
    pattern.lastIndex = at
    const match = pattern.exec(text)
    if (!match) throw new Error(`not understood: ${text.slice(at, at + 20)}`)
    at = pattern.lastIndex
    const [, name, number, string, sign] = match
    if (name !== undefined) tokens.push({ kind: 'name', text: name })
    else if (number !== undefined) tokens.push({ kind: 'number', text: number })
    else if (string !== undefined) tokens.push({ kind: 'string', text: JSON.parse(string) })
    else if (sign !== undefined) tokens.push({ kind: 'sign', text: sign })
  }
  return tokens
}

class Reader {
  private at = 0

  constructor(
    private readonly tokens: readonly Token[],
    private readonly series: ReadonlyMap<string, readonly string[]>,
  ) {}

  whole(): Answer {
    const answer = this.binary(0)
    if (this.at < this.tokens.length) throw new Error(`not understood from "${this.peek()}" on`)
    return answer
  }

  private peek(): string | undefined {
    return this.tokens[this.at]?.text
  }

  private take(text?: string): Token {
    const token = this.tokens[this.at]
    if (!token || (text !== undefined && token.text !== text)) throw new Error(`expected ${text ?? 'more'}, found ${token?.text}`)
    this.at += 1
    return token
  }

  private binary(level: number): Answer {
    const operators = LEVELS[level]
    if (!operators) return this.single()
    let left = this.binary(level + 1)
    for (let sign = this.peek(); sign !== undefined && operators.includes(sign); sign = this.peek()) {
      this.take()
      left = joined(left, this.binary(level + 1), sign)
    }
    return left
  }

  private single(): Answer {
    const token = this.take()
    if (token.kind === 'number') return undefined
    if (token.text === '(') {
      const answer = this.binary(0)
      this.take(')')
      return answer
    }
    if (token.kind !== 'name') throw new Error(`not understood: ${token.text}`)
    if (AGGREGATIONS.includes(token.text)) return this.aggregation(token.text)
    if (this.peek() === '(') return this.call(token.text)
    return this.selector(token.text)
  }

  private aggregation(name: string): Answer {
    let kept: string[] = []
    if (this.peek() === 'by') {
      this.take()
      kept = this.names()
    }
    this.take('(')
    if (name === 'topk' || name === 'bottomk') {
      this.binary(0)
      this.take(',')
    }
    const inner = this.vector(name)
    this.take(')')
    for (const label of kept) {
      if (!inner.has(label)) throw new Error(`${name} by ${label}: there is no such label, only ${[...inner].join(', ')}`)
    }
    return name === 'topk' || name === 'bottomk' ? inner : new Set(kept)
  }

  private call(name: string): Answer {
    this.take('(')
    let answer: Answer
    if (RANGE_FUNCTIONS.includes(name)) {
      answer = this.selector(this.take().text, true)
    } else if (name === 'histogram_quantile') {
      this.binary(0)
      this.take(',')
      const inner = this.vector(name)
      if (!inner.has('le')) throw new Error('histogram_quantile needs the label le')
      answer = new Set([...inner].filter(label => label !== 'le'))
    } else if (name === 'absent') {
      this.vector(name)
      // Only of matchers with `=` is something left: what rules use of them is theirs to know.
      answer = new Set(SCRAPED)
    } else if (name === 'time') {
      answer = undefined
    } else throw new Error(`the function ${name} is not known here`)
    this.take(')')
    return answer
  }

  private vector(who: string): ReadonlySet<string> {
    const answer = this.binary(0)
    if (!answer) throw new Error(`${who} of a number`)
    return answer
  }

  private selector(name: string, isRange = false): ReadonlySet<string> {
    const own = this.series.get(name)
    if (!own) throw new Error(`there is no series ${name}`)
    const labels = new Set([...own, ...SCRAPED])
    if (this.peek() === '{') {
      this.take()
      while (this.peek() !== '}') {
        const label = this.take().text
        if (!labels.has(label)) throw new Error(`${name} has no label ${label}`)
        const sign = this.take().text
        if (!['=', '!=', '=~', '!~'].includes(sign)) throw new Error(`no matcher: ${label}${sign}`)
        if (this.take().kind !== 'string') throw new Error(`no value of ${label}`)
        if (this.peek() === ',') this.take()
      }
      this.take('}')
    }
    const hasRange = this.peek() === '['
    if (hasRange) {
      this.take()
      this.take()
      this.take(']')
    }
    if (hasRange !== isRange) throw new Error(`${name}: ${isRange ? 'a range is missing' : 'a range where none belongs'}`)
    if (this.peek() === 'offset') {
      this.take()
      this.take()
    }
    return labels
  }

  private names(): string[] {
    const names: string[] = []
    this.take('(')
    while (this.peek() !== ')') {
      names.push(this.take().text)
      if (this.peek() === ',') this.take()
    }
    this.take(')')
    return names
  }
}

/** Both sides of an operator must have the same labels, or nothing on one side would match anything on the other. */
function joined(left: Answer, right: Answer, sign: string): Answer {
  if (!left || !right) return left ?? right
  const differ = [...left].filter(label => !right.has(label)).concat([...right].filter(label => !left.has(label)))
  if (differ.length > 0) throw new Error(`the sides of "${sign}" differ in ${differ.join(', ')}`)
  return left
}
