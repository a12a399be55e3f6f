/** Starts ./aisix and the rig's processes for the tools, sets the gateway up over its admin API, and looks at it from outside. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

const ROOT = resolve(import.meta.dir, '../..')
const EXECUTABLE = join(ROOT, 'aisix')
const ADMIN_KEY = 'rig-admin-key'
export const CALLER_KEY = 'sk-rig-caller'
const START_MS = 10_000
const STOP_MS = 15_000

export type Process = {
  pid: number
  /** Sends a signal and waits for the end. returns: the exit status, 128 + n for a signal */
  stop(signal?: NodeJS.Signals): Promise<number>
}

export type RunningGateway = Process & {
  folder: string
  port: number
  proxyUrl: string
  /** What the gateway has logged so far. */
  log(): string
  /** Calls the admin API: status and body, whatever they are. */
  admin(method: string, path: string, document?: unknown): Promise<{ status: number; body: Record<string, unknown> }>
  /** The scrape page. */
  metrics(): Promise<string>
  /** The entries of a kind, by its path. */
  list(path: string): Promise<{ id: string; value: Record<string, unknown> }[]>
}

/** A folder for this run, removed when it ends well: after a failure what is left in it helps to find out why. */
export function scratchFolder(name: string): string {
  const folder = mkdtempSync(join(tmpdir(), `aisix-${name}-`))
  process.on('exit', status => {
    if (status === 0) rmSync(folder, { recursive: true, force: true })
    else console.error(`left for a look: ${folder}`)
  })
  return folder
}

export type StartOptions = {
  folder: string
  /** Lines of YAML after the rig's own. */
  config?: string
  /** Where the store is, from `folder`. */
  storePath?: string
  /** Whether there is a scrape page, on a port of its own. */
  hasMetrics?: boolean
}

/**
 * Starts the executable on free ports with a configuration and a store in `folder`, and waits until it serves.
 * throws: Error with what the gateway said when it does not
 */
export async function startGateway({
  folder,
  config = '',
  storePath = 'aisix.db',
  hasMetrics = false,
}: StartOptions): Promise<RunningGateway> {
  if (!existsSync(EXECUTABLE)) throw new Error('there is no ./aisix: run `make build`')
  const configPath = join(folder, 'config.yaml')
  await Bun.write(
    configPath,
    `proxy:
  addr: "127.0.0.1:0"
admin:
  addr: "127.0.0.1:0"
  admin_keys: ["${ADMIN_KEY}"]
store:
  path: "${storePath}"
shutdown:
  min_drain_secs: 0
observability:
  log_level: "warn,aisix=info"
  metrics:
    prometheus:
      enabled: ${hasMetrics}
      addr: "127.0.0.1:0"
${config}`,
  )
  const child = Bun.spawn([EXECUTABLE, '--config', configPath], {
    cwd: folder,
    env: { PATH: process.env.PATH ?? '' },
    stdin: 'ignore',
    stdout: 'ignore',
    stderr: 'pipe',
  })
  const log = collect(child.stderr)
  const started = await log.waitFor(
    /gateway started .*proxy="[^"]*:(\d+)" admin="[^"]*:(\d+)"(?: metrics="[^"]*:(\d+)")?/,
    START_MS,
    child.exited,
  )
  const [proxyPort, adminPort] = [Number(started[1]), Number(started[2])]
  const call = async (method: string, path: string, document?: unknown) => {
    const response = await fetch(`http://127.0.0.1:${adminPort}/admin/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${ADMIN_KEY}`, 'content-type': 'application/json' },
      ...(document === undefined ? {} : { body: JSON.stringify(document) }),
    })
    const body: unknown = await response.json()
    return { status: response.status, body }
  }
  return {
    ...processOf(child),
    folder,
    port: proxyPort,
    proxyUrl: `http://127.0.0.1:${proxyPort}`,
    log: log.text,
    async admin(method, path, document) {
      const { status, body } = await call(method, path, document)
      return { status, body: isRecord(body) ? body : {} }
    },
    async metrics() {
      return await (await fetch(`http://127.0.0.1:${started[3]}/metrics`)).text()
    },
    async list(path) {
      const { body } = await call('GET', path)
      if (!Array.isArray(body)) throw new Error(`GET ${path} gave no list`)
      return body
    },
  }
}

export type SetUp = { alias: string; upstreamModel: string; apiBase: string }

async function write(gateway: RunningGateway, path: string, document: unknown): Promise<string> {
  const { status, body } = await gateway.admin('POST', path, document)
  if (status !== 200) throw new Error(`POST ${path} was answered with ${status}: ${JSON.stringify(body)}`)
  return String(body.id)
}

/**
 * A provider key and a model that it reaches; `more` are further members of the model.
 * returns: the id of the provider key
 * throws: Error with the answer that was no 200
 */
export async function addModel(gateway: RunningGateway, { alias, upstreamModel, apiBase }: SetUp, more: object = {}) {
  const providerKeyId = await write(gateway, '/provider_keys', {
    display_name: `${alias}-server`,
    provider: 'vllm',
    adapter: 'openai',
    secret: 'not-used',
    api_base: apiBase,
  })
  await write(gateway, '/models', {
    display_name: alias,
    provider: 'vllm',
    model_name: upstreamModel,
    provider_key_id: providerKeyId,
    cost: { input_per_1k: 0, output_per_1k: 0 },
    ...more,
  })
  return providerKeyId
}

/** The caller key of the drills, which may use every model. */
export async function addCallerKey(gateway: RunningGateway, more: object = {}): Promise<void> {
  const key_hash = new Bun.CryptoHasher('sha256').update(CALLER_KEY).digest('hex')
  await write(gateway, '/apikeys', { key_hash, allowed_models: ['*'], ...more })
}

/** Provider key, model and caller key, as the guide makes them. */
export async function setUp(gateway: RunningGateway, target: SetUp): Promise<string> {
  const providerKeyId = await addModel(gateway, target)
  await addCallerKey(gateway)
  return providerKeyId
}

export type Upstream = Process & { url: string; stats(): Promise<UpstreamStats> }
export type UpstreamStats = {
  requests: number
  open: number
  finished: number
  cut: number
  /** Tokens that it told. */
  prompt: number
  completion: number
}

export async function startUpstream(flags: readonly string[]): Promise<Upstream> {
  const child = Bun.spawn([process.execPath, join(import.meta.dir, 'upstream.ts'), ...flags], {
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'inherit',
  })
  const started = await collect(child.stdout).waitFor(/"port":(\d+)/, START_MS, child.exited)
  const url = `http://127.0.0.1:${started[1]}`
  return {
    ...processOf(child),
    url,
    async stats() {
      const stats: unknown = await (await fetch(`${url}/stats`)).json()
      const count = (name: string) => Number(isRecord(stats) ? stats[name] : Number.NaN)
      return {
        requests: count('requests'),
        open: count('open'),
        finished: count('finished'),
        cut: count('cut'),
        prompt: count('prompt'),
        completion: count('completion'),
      }
    },
  }
}

export function processOf(child: Bun.Subprocess): Process {
  return {
    pid: child.pid,
    async stop(signal = 'SIGTERM') {
      if (child.exitCode === null) child.kill(signal)
      const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS)
      await child.exited
      clearTimeout(timer)
      return child.exitCode ?? 137
    },
  }
}

/** Reads a process's output as it comes, so that the process never waits for a reader. */
export function collect(stream: ReadableStream<Uint8Array>) {
  let text = ''
  let wake: (() => void) | undefined
  const read = async () => {
    const decoder = new TextDecoder()
    for await (const piece of stream) {
      text += decoder.decode(piece, { stream: true })
      wake?.()
    }
    wake?.()
  }
  const reading = read()
  return {
    text: () => text,
    async waitFor(pattern: RegExp, ms: number, exited: Promise<number>): Promise<RegExpExecArray> {
      const deadline = performance.now() + ms
      let isOver = false
      exited.then(async () => {
        await reading
        isOver = true
        wake?.()
      })
      for (;;) {
        const found = pattern.exec(text)
        if (found) return found
        if (isOver || performance.now() > deadline) throw new Error(`it did not start:\n${text}`)
        const { promise, resolve } = Promise.withResolvers<void>()
        wake = resolve
        await Promise.race([promise, Bun.sleep(100)])
      }
    },
  }
}

/** Microseconds of CPU that a process and all its threads have used. Linux only: NaN elsewhere. */
export function cpuMicroseconds(pid: number): number {
  try {
    // proc(5): fields 14 and 15 are utime and stime in clock ticks, 100 a second; the name in field 2 may hold spaces.
    const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]?.split(' ') ?? []
    return (Number(fields[11]) + Number(fields[12])) * 10_000
  } catch {
    return Number.NaN
  }
}

/** Mebibytes of a process that are in memory, now and at most. Linux only: NaN elsewhere. */
export function memoryMib(pid: number): { now: number; peak: number } {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'latin1')
    const kib = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1])
    return { now: kib('VmRSS') / 1024, peak: kib('VmHWM') / 1024 }
  } catch {
    return { now: Number.NaN, peak: Number.NaN }
  }
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
