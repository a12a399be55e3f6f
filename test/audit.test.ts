/** The audit log of the executable, as an operator and somebody with a hand on its file meet it. */
import { Database } from 'bun:sqlite'
import { afterEach, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { AuditResponse } from '../src/admin/audit-routes.ts'
import { EXECUTABLE, type Executable, startExecutable } from './executable.ts'
import { operatorOf } from './operator.ts'

const AUDITOR_KEY = 'auditor-key-0001'
const sha256 = (text: string) => new Bun.CryptoHasher('sha256').update(text).digest('hex')
const admin = { keys: [{ name: 'auditor', key_hash: sha256(AUDITOR_KEY), role: 'viewer' }] }
const apiKey = (index: number) => ({ key_hash: sha256(`sk-${index}`), allowed_models: ['*'], display_name: `key ${index}` })

async function verify(...args: string[]) {
  const child = Bun.spawn([EXECUTABLE, 'audit', 'verify', ...args], { stdout: 'pipe', stderr: 'pipe', env: {} })
  const [stdout, stderr, exit] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ])
  return { stdout, stderr, exit }
}

describe('the audit log of the executable', () => {
  let gateway: Executable | undefined
  const folders: Executable[] = []
  afterEach(async () => {
    for (const each of folders.splice(0)) await each.dispose()
  })
  const start = async (folder?: string) => {
    gateway = await startExecutable({ config: { admin }, ...(folder !== undefined && { folder }) })
    folders.push(gateway)
    return gateway
  }

  async function everything(of: Executable): Promise<AuditResponse['entries']> {
    const entries: AuditResponse['entries'] = []
    let cursor: string | undefined = ''
    while (cursor !== undefined) {
      const answer: Response = await fetch(
        `${of.adminUrl}/admin/v1/audit?limit=1000${cursor === '' ? '' : `&cursor=${cursor}`}`,
        {
          headers: { authorization: `Bearer ${AUDITOR_KEY}` },
        },
      )
      expect(answer.status).toBe(200)
      const page = AuditResponse.parse(await answer.json())
      entries.push(...page.entries)
      cursor = page.next_cursor
    }
    return entries
  }

  test('five rounds of kill -9 in the middle of writes: every answered one is in it once, and the chain holds', async () => {
    const first = await start()
    const answered = new Map<string, string>()
    let current = first
    let number = 0
    for (let round = 0; round < 5; round++) {
      const { ask } = operatorOf(current)
      const killAt = answered.size + 10 + 3 * round
      const write = async () => {
        for (;;) {
          const response = await ask('POST', 'apikeys', apiKey(number++)).catch(() => undefined)
          const body: unknown = await response?.json().catch(() => undefined)
          if (!response || typeof body !== 'object' || body === null || !('id' in body)) return
          answered.set(String(body.id), response.headers.get('x-aisix-request-id') ?? '')
          // Each round ends at another point.
          if (answered.size >= killAt) void current.kill()
        }
      }
      await Promise.all([write(), write(), write(), write()])
      await current.exited
      expect(await verify('--db', join(first.folder, 'aisix.db'))).toMatchObject({ exit: 0, stderr: '' })
      current = await start(first.folder)
    }
    const entries = await everything(current)
    const byId = Map.groupBy(entries, ({ id }) => id)
    for (const [id, requestId] of answered) {
      expect(byId.get(id)).toMatchObject([
        { action: 'create', outcome: 'applied', actor: 'admin_keys[0]', request_id: requestId },
      ])
    }
    expect(answered.size).toBeGreaterThanOrEqual(80)
    // What is stored and what the log says are the same, also where nobody was told.
    const stored: unknown = await (await operatorOf(current).ask('GET', 'apikeys')).json()
    expect(Array.isArray(stored) ? stored.length : 0).toBe(entries.length)
    expect(await verify('--config', join(first.folder, 'config.yaml'))).toMatchObject({ exit: 0 })
  }, 60_000)

  test('kill -9 in the middle of rotations: the key that was answered last works, or the one that was under way', async () => {
    const first = await start()
    const { ask, write } = operatorOf(first)
    const id = await write('apikeys', apiKey(1))
    const answered: string[] = []
    for (;;) {
      const response = await ask('POST', `apikeys/${id}/rotate`).catch(() => undefined)
      const body: unknown = await response?.json().catch(() => undefined)
      if (typeof body !== 'object' || body === null || !('plaintext' in body)) break
      answered.push(sha256(String(body.plaintext)))
      if (answered.length === 12) setTimeout(() => void first.kill(), 5)
    }
    await first.exited
    const current = await start(first.folder)
    const rotations = (await everything(current)).filter(({ action }) => action === 'rotate').toReversed()
    const hashes = rotations.map(({ after }) => after?.key_hash)
    expect(hashes.slice(0, answered.length)).toEqual(answered)
    expect(hashes.length - answered.length).toBeLessThanOrEqual(1)
    const entry = await (await operatorOf(current).ask('GET', `apikeys/${id}`)).json()
    expect(entry).toMatchObject({ value: { key_hash: hashes.at(-1) }, revision: hashes.length + 1 })
    expect(await verify('--db', join(first.folder, 'aisix.db'))).toMatchObject({ exit: 0 })
  })

  test('verify runs beside the gateway, prints the last entry, and names the row that somebody changed', async () => {
    const running = await start()
    const { ask, write } = operatorOf(running)
    const id = await write('apikeys', apiKey(1))
    await ask('POST', `apikeys/${id}/rotate`)
    const db = join(running.folder, 'aisix.db')
    const sound = await verify('--db', db)
    expect(sound).toMatchObject({ exit: 0, stderr: '' })
    const [, last = ''] = /last entry (\S+)/.exec(sound.stdout) ?? []
    await write('apikeys', apiKey(2))
    expect(await verify('--db', db, '--known', last)).toMatchObject({ exit: 0 })
    const other = new Database(db)
    other.run("UPDATE audit SET actor = 'nobody' WHERE seq = 2")
    other.close()
    expect(await verify('--db', db)).toEqual({
      stdout: '',
      stderr: `BROKEN: ${db}: entry 2 is not what was written, or does not follow the entry before it\n`,
      exit: 1,
    })
    expect((await everything(running)).map(({ action }) => action)).toEqual(['create', 'rotate', 'create'])
  })
})
