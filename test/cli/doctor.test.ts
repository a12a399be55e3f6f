/** The doctor beside real files, ports and servers. */
import { Database } from 'bun:sqlite'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Finding } from '../../src/cli/doctor/finding.ts'
import { examine } from '../../src/cli/doctor/run.ts'
import { runtimeFetch } from '../../src/lib/fetch.ts'
import { type Executable, startExecutable } from '../executable.ts'
import { chatAnswer, type FakeUpstream, fakeUpstream, type UpstreamRequest } from '../fake-upstream.ts'
import { operatorOf } from '../operator.ts'
import { aisix } from './aisix.ts'
import { testIo } from './io.ts'

const fixture = (name: string) => join(import.meta.dir, '../fixtures/tls', name)

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'aisix-doctor-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

/** The configuration of a gateway that nobody has started yet. */
function configure(sections: Record<string, unknown> = {}): string {
  const path = join(folder, 'config.json')
  const document = {
    proxy: { addr: '127.0.0.1:0' },
    admin: { addr: '127.0.0.1:0', admin_keys: ['admin-doctor-key'] },
    observability: { metrics: { prometheus: { addr: '127.0.0.1:0' } } },
    ...sections,
  }
  writeFileSync(path, JSON.stringify(document), { mode: 0o600 })
  return path
}
const io = (members: Parameters<typeof testIo>[0] = {}) => testIo({ fetch: runtimeFetch, now: () => new Date(), ...members })
const find = (findings: readonly Finding[], check: string, subject?: string) =>
  findings.filter(finding => finding.check === check && (subject === undefined || finding.subject?.includes(subject)))
const all = (findings: readonly Finding[]) => findings.map(({ severity, message }) => `${severity} ${message}`)

describe('a gateway that never ran', () => {
  test('has nothing to do, and nothing is made beside its configuration', async () => {
    const path = configure()
    const { stdout, stderr, exit } = await aisix(['doctor', '--config', path])
    expect({ stderr, exit }).toEqual({ stderr: '', exit: 0 })
    expect(stdout).toMatch(/^note +database .*aisix\.db: is not there yet/m)
    expect(readdirSync(folder)).toEqual(['config.json'])
  })

  test('a configuration with mistakes is told with their places, and ends it with 2', async () => {
    const path = join(folder, 'config.yaml')
    writeFileSync(path, 'proxy: {addr: "localhost:1"}\nadmin: {admin_keys: []}\n')
    const { stdout, exit } = await aisix(['doctor', '--config', path, '--json'])
    expect(exit).toBe(2)
    const { severity, findings } = JSON.parse(stdout)
    expect(severity).toBe('error')
    expect(all(find(findings, 'config'))).toEqual([
      expect.stringContaining('error ' + path + ':1:9: proxy.addr: expected an address'),
      expect.stringContaining('error ' + path + ':2:'),
      expect.stringContaining('note nothing else was looked at'),
    ])
  })

  test('files that others may read or write', async () => {
    const path = configure()
    for (const [mode, severity] of [
      [0o640, 'note'],
      [0o644, 'warning'],
      [0o666, 'error'],
      [0o600, 'ok'],
    ] as const) {
      chmodSync(path, mode)
      const [finding] = find(await examine(path, io(), { mayProbe: false }), 'file mode')
      expect(finding?.severity).toBe(severity)
    }
    // Keys that come from the environment are not in the file.
    writeFileSync(path, readFileSync(path, 'utf8').replace('admin-doctor-key', '${ADMIN_KEY}'))
    chmodSync(path, 0o644)
    const findings = await examine(path, io({ env: { ADMIN_KEY: 'admin-doctor-key' } }), { mayProbe: false })
    expect(find(findings, 'file mode')).toEqual([expect.objectContaining({ severity: 'ok' })])
  })

  test('a clock that is wrong: a year that cannot be, a time before that of its own files', async () => {
    const path = configure()
    for (const [now, severity] of [
      ['2016-01-01', 'error'],
      ['2026-01-01', 'warning'],
      ['2199-01-01', 'error'],
    ] as const) {
      const [finding] = find(await examine(path, io({ now: () => new Date(now) }), { mayProbe: false }), 'clock')
      expect(finding?.severity).toBe(severity)
    }
  })

  test('a folder that is not there', async () => {
    const path = configure({ store: { path: 'nowhere/aisix.db' } })
    const [finding] = find(await examine(path, io(), { mayProbe: false }), 'disk space', 'nowhere')
    expect(finding).toMatchObject({
      severity: 'error',
      message: expect.stringContaining('does not exist'),
      advice: expect.stringContaining('create it'),
    })
  })

  test('a certificate that has expired, and one whose key is another', async () => {
    const tls = (cert: string, key: string) => ({
      proxy: { addr: '127.0.0.1:0', tls: { cert_file: fixture(cert), key_file: fixture(key) } },
    })
    const expired = await examine(configure(tls('expired.crt', 'server.key')), io(), { mayProbe: false })
    expect(find(expired, 'certificate')).toEqual([
      expect.objectContaining({
        severity: 'error',
        subject: fixture('expired.crt'),
        message: expect.stringContaining('expired on 2021-'),
      }),
    ])
    const other = await examine(configure(tls('server.crt', 'other.key')), io(), { mayProbe: false })
    expect(all(find(other, 'config'))[0]).toContain('the key is not that of the first certificate')
    const good = await examine(configure(tls('server.crt', 'server.key')), io(), { mayProbe: false })
    expect(find(good, 'certificate')).toEqual([expect.objectContaining({ severity: 'ok' })])
  })

  test('ports that another program has, and addresses of other machines', async () => {
    const other = Bun.listen({ hostname: '127.0.0.1', port: 0, socket: { data() {}, open: socket => void socket.end() } })
    try {
      const path = configure({
        proxy: { addr: `127.0.0.1:${other.port}` },
        admin: { addr: '203.0.113.1:3001', admin_keys: ['k'] },
      })
      const findings = await examine(path, io(), { mayProbe: false })
      expect(all(find(findings, 'port', 'proxy.addr'))).toEqual(['error is taken by another program'])
      expect(all(find(findings, 'port', 'admin.addr'))).toEqual(['error is no address of this machine'])
    } finally {
      other.stop(true)
    }
  })
})

describe('a gateway that serves a resources file', () => {
  const write = (name: string, text: string) => writeFileSync(join(folder, name), text, { mode: 0o600 })
  const FILE = `_format_version: "1"
provider_keys:
  - {display_name: here, provider: vllm, adapter: openai, secret: "\${UPSTREAM_KEY}", api_base: BASE}
models:
  - {display_name: private, provider: vllm, model_name: m, provider_key: here}
`

  test('has that looked at in place of a store, and the servers that it names', async () => {
    const upstream = await fakeUpstream()
    upstream.answer((_request, connection) => connection.json(200, { object: 'list', data: [{ id: 'm', object: 'model' }] }))
    write('resources.yaml', FILE.replace('BASE', upstream.url))
    const path = configure({ resources_file: 'resources.yaml' })
    const findings = await examine(path, io({ env: { UPSTREAM_KEY: 'upstream-secret-doctor' } }), { mayProbe: false })
    expect(all(find(findings, 'resources file', 'resources.yaml'))).toEqual(['ok can be used: 2 entries'])
    expect(find(findings, 'database', 'aisix.db')).toEqual([])
    expect(all(find(findings, 'resource'))).toEqual([expect.stringContaining('1 provider keys, 1 models')])
    expect(upstream.requests.map(({ path }) => path)).toContain('/v1/models')
    expect(JSON.stringify(findings)).not.toContain('upstream-secret-doctor')
    upstream.stop()
  })

  test('is told what is wrong with it', async () => {
    write('resources.yaml', FILE.replace('BASE', 'http://127.0.0.1:1/v1'))
    const findings = await examine(configure({ resources_file: 'resources.yaml' }), io(), { mayProbe: false })
    expect(all(find(findings, 'resources file'))).toEqual([expect.stringMatching(/^error provider_keys\[0\].*UPSTREAM_KEY/)])
    expect(find(findings, 'resource')).toEqual([])
  })
})

describe('databases', () => {
  let gateway: Executable
  beforeEach(async () => {
    gateway = await startExecutable()
    await operatorOf(gateway).write('apikeys', { key_hash: 'a'.repeat(64), allowed_models: ['nobody'] })
  })
  afterEach(() => gateway.dispose())
  const config = () => join(gateway.folder, 'config.json')
  const database = async (name: string) => {
    writeFileSync(config(), readFileSync(join(gateway.folder, 'config.yaml')), { mode: 0o600 })
    return find(await examine(config(), io(), { mayProbe: false }), 'database', name)
  }

  test('are sound, under a running gateway and after it, and are left as they lie', async () => {
    const running = await aisix(['doctor', '--config', join(gateway.folder, 'config.yaml'), '--json'])
    const { findings } = JSON.parse(running.stdout)
    expect(all(find(findings, 'database'))).toEqual([
      expect.stringMatching(/^ok sound/),
      expect.stringMatching(/^ok sound/),
      'note is not there yet: the gateway makes it (budgets.path)',
    ])
    expect(all(find(findings, 'port')).every(text => text.startsWith('ok a gateway runs here (AISIX/'))).toBe(true)
    expect(all(find(findings, 'resource'))).toEqual(['warning names what is not there: allowed_models "nobody"'])
    // The look left no lock behind, and took no file from under the gateway.
    await operatorOf(gateway).write('apikeys', { key_hash: 'b'.repeat(64), allowed_models: [] })
    expect(
      await operatorOf(gateway)
        .ask('GET', 'health')
        .then(response => response.json()),
    ).toMatchObject({ store: { connected: true } })
    await gateway.stop()
    const look = () => readdirSync(gateway.folder).map(name => `${name} ${statSync(join(gateway.folder, name)).mtimeMs}`)
    const before = look()
    const stopped = await aisix(['doctor', '--config', join(gateway.folder, 'config.yaml')])
    expect(stopped.stdout).toMatch(/^ok +database .*aisix\.db: sound/m)
    expect(stopped.stdout).toMatch(/^ok +port .*: is free/m)
    expect(look()).toEqual(before)
  })

  test('that are damaged, empty, of another program, of a newer version', async () => {
    await gateway.stop()
    const path = join(gateway.folder, 'aisix.db')
    const sound = readFileSync(path)
    const change = (sql: string) => {
      const db = new Database(path)
      db.run(sql)
      db.run('PRAGMA wal_checkpoint(TRUNCATE)')
      db.close()
    }
    change('PRAGMA user_version = 99')
    expect(all(await database('aisix.db'))).toEqual([expect.stringContaining('error has format 99, of a newer version')])
    writeFileSync(path, sound)
    change('PRAGMA application_id = 7')
    expect(all(await database('aisix.db'))).toEqual(['error is a database of another program'])
    writeFileSync(path, 'no database at all, and longer than a header of one would be: '.repeat(20))
    expect(all(await database('aisix.db'))).toEqual(['error is not an SQLite database'])
    truncateSync(path)
    expect(all(await database('aisix.db'))).toEqual(['error is empty'])
    // Pages behind the first, overwritten.
    writeFileSync(path, Buffer.concat([sound.subarray(0, 4096), Buffer.alloc(sound.length - 4096, 0x5a)]))
    expect(all(await database('aisix.db'))).toEqual(['error is damaged'])
    writeFileSync(path, sound)
    expect((await database('aisix.db'))[0]?.severity).toBe('ok')
  })
})

describe('servers', () => {
  let gateway: Executable
  const upstreams: FakeUpstream[] = []
  let vllm: FakeUpstream
  let strict: FakeUpstream
  let secure: FakeUpstream
  let bare: FakeUpstream
  let hanging: FakeUpstream
  const json = (body: unknown) => JSON.stringify(body)

  beforeAll(async () => {
    gateway = await startExecutable()
    const start = async (
      answer: (request: UpstreamRequest) => [number, unknown, Record<string, string>?],
      tls?: { cert: string; key: string },
    ) => {
      const upstream = await fakeUpstream(tls ? { tls } : {})
      upstreams.push(upstream)
      upstream.answer((request, connection) => {
        const [status, body, headers = {}] = answer(request)
        return connection.json(status, body, headers)
      })
      return upstream
    }
    const models = (owned_by: string, ...ids: string[]) => ({
      object: 'list',
      data: ids.map(id => ({ id, object: 'model', owned_by })),
    })
    vllm = await start(({ path, method }) => {
      if (method === 'POST') return [200, chatAnswer()]
      if (path === '/v1/models') return [200, models('vllm', 'org/llama', 'org/extra')]
      return path === '/version' ? [200, { version: '0.11.0' }] : [404, {}]
    })
    strict = await start(({ path }) => (path === '/v1/models' ? [401, { error: { message: 'bad key' } }] : [404, {}]))
    bare = await start(({ path }) => {
      if (path === '/v1/models') return [200, models('library', 'llama3:latest')]
      return path === '/api/version' ? [200, { version: '0.12.3' }] : [404, {}]
    })
    secure = await start(({ path }) => (path === '/v1/models' ? [200, models('x', 'm')] : [404, {}]), {
      cert: readFileSync(fixture('server.crt'), 'utf8'),
      key: readFileSync(fixture('server.key'), 'utf8'),
    })
    hanging = await fakeUpstream()
    upstreams.push(hanging)
    hanging.answer((_request, connection) => connection.stall())

    const operator = operatorOf(gateway)
    const key = (display_name: string, api_base: string, more: Record<string, unknown> = {}) =>
      operator.write('provider_keys', {
        display_name,
        provider: 'private',
        adapter: 'openai',
        secret: 'server-secret-0001',
        api_base,
        ...more,
      })
    const vllmId = await key('vllm', vllm.url)
    const model = (display_name: string, model_name: string) =>
      operator.write('models', { display_name, provider: 'private', model_name, provider_key_id: vllmId })
    await model('served', 'org/llama')
    await model('not served', 'org/gone')
    await key('strict', strict.url)
    await key('bare', bare.origin)
    await key('refused', 'http://127.0.0.1:1/v1')
    await key('nameless', 'http://no-such-host.invalid/v1')
    await key('untrusted', secure.url)
    await key('trusted', secure.url.replace('127.0.0.1', 'localhost'), {
      tls: { ca_cert: readFileSync(fixture('server.crt'), 'utf8') },
    })
  })
  afterAll(async () => {
    await gateway.dispose()
    for (const upstream of upstreams) upstream.stop()
  })
  const seen = () => [vllm, strict, bare, secure].flatMap(({ requests }) => requests)

  test('are told one by one, without a token and without a credential outside their API', async () => {
    const { stdout, exit } = await aisix(['doctor', '--config', join(gateway.folder, 'config.yaml'), '--json'])
    expect(exit).toBe(2)
    expect(stdout).not.toContain('server-secret-0001')
    const { findings } = JSON.parse(stdout)
    expect(all(find(findings, 'server', 'vllm'))).toEqual([
      `ok ${vllm.origin} can be reached; it seems to be vLLM 0.11.0`,
      'warning model "not served" asks for "org/gone", which it does not serve',
      'note serves what no model uses: org/extra',
    ])
    expect(all(find(findings, 'server', 'strict'))).toContain('error refuses the secret (401 for GET /models)')
    expect(find(findings, 'server', 'bare')).toContainEqual(
      expect.objectContaining({ severity: 'error', message: 'its api_base lacks /v1', advice: `set api_base to ${bare.url}` }),
    )
    expect(all(find(findings, 'server', 'refused'))).toEqual(['error http://127.0.0.1:1 connection refused'])
    expect(all(find(findings, 'server', 'nameless'))).toEqual([
      'error http://no-such-host.invalid cannot be found: the name no-such-host.invalid does not resolve here',
    ])
    expect(all(find(findings, 'server', 'untrusted'))).toContainEqual(
      expect.stringMatching(/^error its certificate is not trusted \(/),
    )
    expect(all(find(findings, 'server', 'trusted')).filter(text => text.startsWith('error its certificate'))).toHaveLength(1)
    expect(all(findings.filter(({ subject }: Finding) => subject === 'trusted')).find(text => text.startsWith('ok'))).toContain(
      'its certificate is valid until 21',
    )

    expect(secure.requests.map(({ header }) => header('host'))).toEqual(
      secure.requests.map(() => expect.stringContaining('localhost')),
    )
    const asked = seen()
    expect(asked.length).toBeGreaterThan(10)
    for (const request of asked) {
      expect(request.method).toBe('GET')
      const isOwn = request.path.endsWith('/models')
      expect(`${request.path} ${request.header('authorization') ?? 'no key'}`).toBe(
        `${request.path} ${isOwn ? 'Bearer server-secret-0001' : 'no key'}`,
      )
    }
  })

  test('with --probe a sound one is sent one request of one token, one with errors none', async () => {
    const before = seen().length
    const { stdout } = await aisix(['doctor', '--config', join(gateway.folder, 'config.yaml'), '--probe'])
    expect(stdout).toMatch(/^ok +server vllm: model "served" answered a probing request$/m)
    const posts = seen()
      .slice(0)
      .filter(({ method }) => method === 'POST')
    expect(seen().length).toBeGreaterThan(before)
    expect(posts.map(({ path }) => path)).toEqual(['/v1/chat/completions'])
    expect(posts[0]?.json()).toMatchObject({ model: 'org/llama', max_tokens: 1 })
  })

  test('one that takes the connection and is silent is given up, and its connections are closed', async () => {
    await gateway.stop()
    const path = join(gateway.folder, 'config.yaml')
    const db = new Database(join(gateway.folder, 'aisix.db'))
    const document = { display_name: 'hanging', provider: 'private', adapter: 'openai', secret: 's', api_base: hanging.url }
    db.run("INSERT INTO resources (kind, id, document) VALUES ('provider_keys', 'h', ?)", [json(document)])
    db.run("INSERT INTO resources (kind, id, document) VALUES ('provider_keys', 'broken', '{}')")
    db.close()
    const findings = await examine(path, io(), { mayProbe: false, hostMs: 1_000 })
    expect(all(find(findings, 'server', 'hanging'))).toEqual([`error ${hanging.origin} did not answer within 1 s`])
    await hanging.whenCut(1)
    expect(find(findings, 'resource', 'broken')[0]).toMatchObject({
      severity: 'error',
      message: expect.stringContaining('is not served: '),
    })
  })
})
