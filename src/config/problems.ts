/** What is wrong with a configuration, and where the values come from. */

/** Where a value was given. Lines and columns count from 1; columns count UTF-16 units. */
export type Origin =
  | { from: 'default' }
  | { from: 'file'; path: string; line: number; column: number }
  | { from: 'environment'; variable: string }

/** Origins by path: `proxy.addr`, `admin.admin_keys[0]`. */
export type Origins = Map<string, Origin>

/** One fault. `path` is empty where the file as a whole is meant. The text never repeats a value that was submitted. */
export type Problem = { origin: Origin | undefined; path: string; text: string }

/** The configuration cannot be used. The message is complete for stderr: with several problems, each has its own line. */
export class ConfigError extends Error {
  override name = 'ConfigError'
  constructor(readonly problems: readonly string[]) {
    super(problems.length === 1 ? problems[0] : `${problems.length} problems:\n${problems.map(each => `  ${each}`).join('\n')}`)
  }
}

/** `config.yaml:12:5: proxy.addr: expected …`, `AISIX_PROXY__ADDR: proxy.addr: expected …` */
export function renderProblem({ origin, path, text }: Problem): string {
  return [place(origin), path, text].filter(part => part !== '').join(': ')
}

function place(origin: Origin | undefined): string {
  if (origin?.from === 'file') return `${origin.path}:${origin.line}:${origin.column}`
  return origin?.from === 'environment' ? origin.variable : ''
}

/** More problems than this have one cause, and are told by it. */
const PROBLEMS_SHOWN_MAX = 100

/** All problems as one error: those of the file from top to bottom, then the others. */
export function toConfigError(problems: readonly Problem[]): ConfigError {
  const rank = ({ origin }: Problem) => (origin?.from === 'file' ? origin.line * 1e6 + origin.column : Number.POSITIVE_INFINITY)
  const sorted = problems.map((problem, i) => ({ problem, i, rank: rank(problem) }))
  sorted.sort((a, b) => (a.rank === b.rank ? a.i - b.i : a.rank - b.rank))
  const lines = [...new Set(sorted.map(({ problem }) => renderProblem(problem)))]
  const more = lines.length - PROBLEMS_SHOWN_MAX
  return new ConfigError(more > 0 ? [...lines.slice(0, PROBLEMS_SHOWN_MAX), `and ${more} more problems`] : lines)
}

/** The path of a member: `admin.admin_keys[0]` out of its segments. */
export function joinPath(segments: readonly PropertyKey[]): string {
  let path = ''
  for (const segment of segments) {
    path += typeof segment === 'number' ? `[${segment}]` : path === '' ? String(segment) : `.${String(segment)}`
  }
  return path
}

/** Where a member comes from: its own place, or that of the nearest thing around it that has one. */
export function originOf(origins: Origins, segments: readonly PropertyKey[]): Origin | undefined {
  for (let end = segments.length; end >= 0; end--) {
    const origin = origins.get(joinPath(segments.slice(0, end)))
    if (origin) return origin
  }
  return undefined
}
