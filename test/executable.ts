/** The compiled gateway as its users start it: a process of its own, in a folder of its own, on free ports. */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

export const ADMIN_KEY = 'admin-test-key-0001'

/** AISIX_EXECUTABLE, or the one that `make build` puts at the root of the repository. */
export const EXECUTABLE = resolve(process.env.AISIX_EXECUTABLE ?? join(import.meta.dir, '..', 'aisix'))

export type ExecutableOptions = {
  /** Sections of config.yaml that differ from the usual ones. */
  config?: Record<string, Record<string, unknown>>
  env?: Record<string, string>
  /** A folder that is there already, as after a stop; otherwise a new one is made and removed at the end. */
  folder?: string
  /** `log`: believes the log that it has started, and asks it nothing. `livez`: waits until a health probe is answered. */
  ready?: 'livez' | 'log'
  /** A command that starts the executable, which it is given as its last arguments. */
  through?: readonly string[]
}

export type Executable = {
  proxyUrl: string
  adminUrl: string
  statusUrl: string
  pid: number
  folder: string
  /** What it wrote to stderr so far. */
  stderr(): string
  /** SIGTERM, then the exit code. */
  stop(): Promise<number>
  /** SIGKILL. */
  kill(): Promise<void>
  signal(name: NodeJS.Signals): void
  exited: Promise<number>
  /** Kills what still runs and removes the folder. */
  dispose(): Promise<void>
}

/** Ports that nobody listens on, all different. */
export function freePorts(count: number): number[] {
  const holders = Array.from({ length: count }, () => Bun.listen({ hostname: '127.0.0.1', port: 0, socket: { data() {} } }))
  const ports = holders.map(({ port }) => port)
  for (const holder of holders) holder.stop(true)
  return ports
}

/**
 * Starts the gateway and waits until it is ready.
 * throws: Error with what it wrote when it ended or was not ready within 20 s
 */
export async function startExecutable({
  config = {},
  env = {},
  folder,
  ready = 'livez',
  through = [],
}: ExecutableOptions = {}): Promise<Executable> {
  if (!existsSync(EXECUTABLE)) throw new Error(`${EXECUTABLE} is not there: run \`make build\` first`)
  const home = folder ?? mkdtempSync(join(tmpdir(), 'aisix-test-'))
  mkdirSync(home, { recursive: true })
  const [proxyPort = 0, adminPort = 0, statusPort = 0] = freePorts(3)
  const observability = { ...config.observability }
  const document = {
    ...config,
    proxy: { addr: `127.0.0.1:${proxyPort}`, ...config.proxy },
    admin: { addr: `127.0.0.1:${adminPort}`, admin_keys: [ADMIN_KEY], ...config.admin },
    observability: { metrics: { prometheus: { addr: `127.0.0.1:${statusPort}` } }, ...observability },
    shutdown: { min_drain_secs: 0, ...config.shutdown },
  }
  // JSON is YAML too.
  writeFileSync(join(home, 'config.yaml'), JSON.stringify(document, null, 2))
  const child = Bun.spawn([...through, EXECUTABLE, '--config', 'config.yaml'], {
    cwd: home,
    env: { PATH: process.env.PATH ?? '', HOME: home, ...env },
    stdin: 'ignore',
    stdout: 'ignore',
    stderr: 'pipe',
  })
  let written = ''
  const decoder = new TextDecoder()
  const reading = (async () => {
    for await (const piece of child.stderr) written += decoder.decode(piece, { stream: true })
  })()
  const proxyUrl = `http://127.0.0.1:${proxyPort}`
  const executable: Executable = {
    proxyUrl,
    adminUrl: `http://127.0.0.1:${adminPort}`,
    statusUrl: `http://127.0.0.1:${statusPort}`,
    pid: child.pid,
    folder: home,
    stderr: () => written,
    async stop() {
      child.kill('SIGTERM')
      const code = await child.exited
      await reading
      return code
    },
    async kill() {
      child.kill('SIGKILL')
      await child.exited
      await reading
    },
    signal: name => child.kill(name),
    exited: child.exited,
    async dispose() {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
      await child.exited
      await reading
      if (folder === undefined) rmSync(home, { recursive: true, force: true })
    },
  }
  const giveUpAt = Date.now() + 20_000
  for (;;) {
    if (child.exitCode !== null || Date.now() > giveUpAt) {
      await executable.dispose()
      throw new Error(`the gateway did not become ready; it wrote:\n${written}`)
    }
    if (ready === 'log' ? written.includes('gateway started') : await isAlive(proxyUrl)) return executable
    await Bun.sleep(10)
  }
}

async function isAlive(proxyUrl: string): Promise<boolean> {
  const answer = await fetch(`${proxyUrl}/livez`).catch(() => undefined)
  return answer?.ok === true
}
