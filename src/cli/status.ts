/** `aisix status`: how the gateway is, in one look. */
import { VERSION } from '../version.ts'
import { CONNECTION, connect, JSON_OUTPUT, printJson } from './admin-client.ts'
import { type Command, done, type Io } from './command.ts'
import { isRecord, textOf, unexpected } from './entries.ts'
import { type Column, paint, properties, table } from './table.ts'
import { shownLength } from './time.ts'

export const status: Command = {
  words: ['status'],
  summary: 'how the gateway is: health, requests under way, what dangles',
  about: `Tells how the gateway is: its health, version and store, models that are not healthy, requests that are under way, and resources that
name something which is not there. Ends with 0 whenever the gateway answers: \`aisix doctor\` is the one that judges.`,
  options: [JSON_OUTPUT, ...CONNECTION],
  examples: ['aisix status', 'aisix status --config /etc/aisix/config.yaml --json'],
  async run(given, io) {
    const client = await connect(given, io)
    const [health, inFlight] = await Promise.all([client.ask('GET', 'health'), client.ask('GET', 'in_flight?limit=20')])
    if (!isRecord(health.body) || typeof health.body.status !== 'string' || !isRecord(inFlight.body)) throw unexpected(client)
    if (given.flag('json'))
      return done(printJson({ url: client.url, cli_version: VERSION, health: health.body, in_flight: inFlight.body }))
    return done(statusText(client.url, health.body, inFlight.body, io))
  },
}

type Json = Readonly<Record<string, unknown>>

/** in: answers of `/admin/v1/health` and `/admin/v1/in_flight` */
export function statusText(url: string, health: Json, inFlight: Json, io: Pick<Io, 'columns' | 'hasColour'>): string {
  const models = recordsOf(health.models)
  const unwell = models.filter(({ status, health }) => health !== 0 || status === 'unhealthy' || status === 'cooldown')
  const store = recordOf(health.store)
  const requests = recordsOf(inFlight.in_flight)
  const dangling = recordsOf(health.dangling)
  const exporters = recordsOf(health.exporters).filter(({ problem }) => problem !== undefined)
  const version = textOf(health.version)
  const state = textOf(health.status)
  const sections = [
    properties([
      ['gateway', url],
      ['version', `${version} (${textOf(health.commit)})${version === VERSION ? '' : `, this command is ${VERSION}`}`],
      ['up', shownLength(Number(health.uptime_seconds))],
      [
        'store',
        store.connected === true
          ? `revision ${textOf(recordOf(health.config).snapshot_revision)}`
          : `NOT CONNECTED: ${textOf(store.problem)}`,
      ],
      [
        'rejected',
        Number(health.rejected) > 0
          ? `${health.rejected} stored resources are not served as they stand: see /status/config`
          : undefined,
      ],
      ['usage', stateOf(health.usage)],
      ['budgets', stateOf(health.budgets)],
      [
        'models',
        `${models.length}, of which ${unwell.length === 0 ? 'none is' : unwell.length === 1 ? '1 is' : `${unwell.length} are`} unwell`,
      ],
      ['in flight', textOf(inFlight.total)],
    ]).replace(
      /^/,
      `${'health:'.padEnd(11)}${paint(state, state === 'ok' ? 'green' : state === 'degraded' ? 'yellow' : 'red', io)}\n`,
    ),
    unwell.length > 0 && table(UNWELL, unwell, io),
    requests.length > 0 && table(IN_FLIGHT, requests, io),
    dangling.length > 0 && table(DANGLING, dangling, io),
    exporters.length > 0 && table(EXPORTERS, exporters, io),
  ]
  return sections.filter(section => section !== false).join('\n')
}

function stateOf(part: unknown): string {
  const { state, problem } = recordOf(part)
  return problem === undefined ? textOf(state) : `${textOf(state)}: ${textOf(problem)}`
}

const text = (title: string, member: string, min?: number): Column<Json> => ({
  title,
  value: row => textOf(row[member]),
  ...(min === undefined ? {} : { min }),
})

const UNWELL = [
  text('MODEL', 'name', 12),
  text('STATUS', 'status'),
  text('REASON', 'status_reason', 12),
  { ...text('HEALTH', 'health'), isRight: true },
]
const IN_FLIGHT: readonly Column<Json>[] = [
  text('REQUEST', 'request_id', 9),
  { title: 'AGE S', value: row => (Number(row.age_ms) / 1000).toFixed(1), isRight: true },
  text('MODEL', 'requested_model', 12),
  text('KEY', 'api_key_name', 8),
  text('SERVER', 'provider_key_name', 8),
]
const DANGLING: readonly Column<Json>[] = [
  { title: 'DANGLES', value: row => `${textOf(row.kind)} ${textOf(row.name) || textOf(row.id)}`, min: 16 },
  text('FIELD', 'field', 10),
  text('NAMES WHAT IS NOT THERE', 'missing', 16),
]
const EXPORTERS = [text('EXPORTER', 'name', 12), { ...text('LOST', 'dropped'), isRight: true }, text('PROBLEM', 'problem', 16)]

function recordOf(value: unknown): Json {
  return isRecord(value) ? value : {}
}

function recordsOf(value: unknown): Json[] {
  return Array.isArray(value) ? value.filter(isRecord) : []
}
