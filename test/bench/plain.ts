/**
 * The other side of a paired measurement: the gateway with the same rows as `traffic.json` makes, but for what is measured.
 * Starts an executable, waits until the group of that file is there, then puts a direct model in its place and takes the
 * limits off its key.
 *
 *   bun test/bench/plain.ts EXECUTABLE --config FILE
 */
import { YAML } from 'bun'
import { z } from 'zod'

const [executable, ...args] = process.argv.slice(2)
const configPath = args[args.indexOf('--config') + 1]
if (executable === undefined || configPath === undefined)
  throw new Error('usage: bun test/bench/plain.ts EXECUTABLE --config FILE')
const Config = z.looseObject({ admin: z.looseObject({ addr: z.string(), admin_keys: z.array(z.string()) }) })
const config = Config.parse(YAML.parse(await Bun.file(configPath).text()))

const Rows = z.array(z.looseObject({ id: z.string(), value: z.record(z.string(), z.unknown()) }))

async function admin(method: string, path: string, document?: unknown): Promise<unknown> {
  const response = await fetch(`http://${config.admin.addr}/admin/v1${path}`, {
    method,
    headers: { authorization: `Bearer ${config.admin.admin_keys[0]}`, 'content-type': 'application/json' },
    ...(document === undefined ? {} : { body: JSON.stringify(document) }),
  })
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`)
  return await response.json()
}

/** The entries of a kind; none while the gateway is not there yet. */
async function list(path: string) {
  return Rows.parse(await admin('GET', path).catch(() => []))
}

async function takeOut(): Promise<void> {
  for (;;) {
    await Bun.sleep(50)
    const keys = await list('/apikeys')
    const models = await list('/models')
    const key = keys.find(({ value }) => value.rate_limit !== undefined)
    const group = models.find(({ value }) => value.routing !== undefined)
    const direct = models.find(({ value }) => value.display_name === 'bench')
    if (!key || !group || !direct) continue
    const { rate_limit, ...unlimited } = key.value
    await admin('PUT', `/apikeys/${key.id}`, unlimited)
    await admin('PUT', `/models/${group.id}`, { ...direct.value, display_name: group.value.display_name })
    return
  }
}

const child = Bun.spawn([executable, ...args], { stdio: ['ignore', 'inherit', 'inherit'] })
process.on('SIGTERM', () => child.kill('SIGTERM'))
await Promise.race([takeOut(), child.exited])
process.exit(await child.exited)
