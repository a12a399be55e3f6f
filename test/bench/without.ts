/**
 * The other side of a paired measurement: the gateway without the resources of one kind that the set-up makes. Starts an
 * executable, waits until there are some, and deletes them.
 *
 *   bun test/bench/without.ts EXECUTABLE KIND --config FILE
 */
import { YAML } from 'bun'
import { z } from 'zod'

const [executable, kind, ...args] = process.argv.slice(2)
const configPath = args[args.indexOf('--config') + 1]
if (executable === undefined || kind === undefined || configPath === undefined) {
  throw new Error('usage: bun test/bench/without.ts EXECUTABLE KIND --config FILE')
}
const Config = z.looseObject({ admin: z.looseObject({ addr: z.string(), admin_keys: z.array(z.string()) }) })
const { admin } = Config.parse(YAML.parse(await Bun.file(configPath).text()))
const Rows = z.array(z.looseObject({ id: z.string() }))

const call = (method: string, path: string) =>
  fetch(`http://${admin.addr}/admin/v1/${path}`, { method, headers: { authorization: `Bearer ${admin.admin_keys[0]}` } })

async function takeOut(): Promise<void> {
  for (let tries = 0; tries < 400; tries += 1) {
    await Bun.sleep(50)
    const answer = await call('GET', `${kind}`).catch(() => undefined)
    const rows = answer?.ok ? Rows.parse(await answer.json()) : []
    for (const { id } of rows) await call('DELETE', `${kind}/${id}`)
    if (rows.length > 0) return
  }
}

const child = Bun.spawn([executable, ...args], { stdio: ['ignore', 'inherit', 'inherit'] })
process.on('SIGTERM', () => child.kill('SIGTERM'))
await Promise.race([takeOut(), child.exited])
process.exit(await child.exited)
