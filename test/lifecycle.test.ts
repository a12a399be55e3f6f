/** The compiled executable from its start to its end: arguments, refused starts, signals, files and connections. */
import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ADMIN_KEY, EXECUTABLE, type Executable, type ExecutableOptions, freePorts, startExecutable } from './executable.ts'
import { type Connection, chatAnswer, chatChunk, type FakeUpstream, fakeUpstream } from './fake-upstream.ts'
import { sha256, until } from './gateway.ts'
import { openSession, type RealtimeUpstream, realtimeUpstream } from './realtime.ts'

const CALLER_KEY = 'sk-lifecycle-caller'
const ALIAS = 'lifecycle-model'

let folder: string
let stops: (() => unknown)[]
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'aisix-life-'))
  stops = []
})
afterEach(async () => {
  for (const stop of stops.reverse()) await stop()
  rmSync(folder, { recursive: true, force: true })
})

/** Runs the executable, or a shell line, to its end in the test's folder. */
async function run(command: string[], env: Record<string, string> = {}) {
  const child = Bun.spawn(command, {
    cwd: folder,
    env: { PATH: process.env.PATH ?? '', EXECUTABLE, ...env },
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
  })
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()])
  return { exit: await child.exited, stdout, stderr }
}

const aisix = (...args: string[]) => run([EXECUTABLE, ...args])

async function start(options: ExecutableOptions = {}): Promise<Executable> {
  const gateway = await startExecutable(options)
  stops.push(gateway.dispose)
  return gateway
}

/** A gateway with a model, whose upstream does what `handler` says. */
async function startWithUpstream(options: ExecutableOptions = {}): Promise<{ gateway: Executable; upstream: FakeUpstream }> {
  const upstream = await fakeUpstream()
  stops.push(upstream.stop)
  return { gateway: await startInFrontOf(upstream.url, options), upstream }
}

async function startWithRealtime(options: ExecutableOptions): Promise<{ gateway: Executable; upstream: RealtimeUpstream }> {
  const upstream = realtimeUpstream()
  stops.push(upstream.stop)
  return { gateway: await startInFrontOf(upstream.url, options), upstream }
}

async function startInFrontOf(api_base: string, options: ExecutableOptions): Promise<Executable> {
  const gateway = await start(options)
  await addModel(gateway, ALIAS, api_base)
  await write(gateway, 'apikeys', { key_hash: sha256(CALLER_KEY), allowed_models: ['*'] })
  return gateway
}

async function addModel(gateway: Executable, display_name: string, api_base: string): Promise<void> {
  const provider_key_id = await write(gateway, 'provider_keys', {
    display_name: `of ${display_name}`,
    provider: 'vllm',
    adapter: 'openai',
    secret: 'none',
    api_base,
  })
  await write(gateway, 'models', { display_name, provider: 'vllm', model_name: 'm', provider_key_id })
}

/** Writes a resource. returns: its id */
async function write(gateway: Executable, path: string, document: unknown): Promise<unknown> {
  const response = await fetch(`${gateway.adminUrl}/admin/v1/${path}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${ADMIN_KEY}`, 'content-type': 'application/json' },
    body: JSON.stringify(document),
  })
  expect(response.status).toBe(200)
  const body: unknown = await response.json()
  return typeof body === 'object' && body !== null && 'id' in body ? body.id : undefined
}

/** A caller on a plain socket: `fetch` of this process runs no more than 256 requests at once, and hides connections. */
async function rawCaller(gateway: Executable) {
  const { port, host } = new URL(gateway.proxyUrl)
  let received = ''
  let isClosed = false
  const socket = await Bun.connect({
    hostname: '127.0.0.1',
    port: Number(port),
    socket: {
      data(_socket, bytes) {
        received += bytes.toString()
      },
      close() {
        isClosed = true
      },
      error() {},
    },
  })
  stops.push(() => socket.terminate())
  return {
    received: () => received,
    isClosed: () => isClosed,
    ask(members: Record<string, unknown>) {
      const body = JSON.stringify({ model: ALIAS, messages: [{ role: 'user', content: 'Hi' }], ...members })
      socket.write(
        `POST /v1/chat/completions HTTP/1.1\r\nhost: ${host}\r\nauthorization: Bearer ${CALLER_KEY}\r\n` +
          `content-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
      )
    },
  }
}

/** Streams that give one token and then wait for `finish`. */
function heldStreams(upstream: FakeUpstream) {
  const gate = Promise.withResolvers<void>()
  upstream.answer(async (_request, connection: Connection) => {
    await connection.streamHead()
    await connection.chunk(`data: ${JSON.stringify(chatChunk({ content: 'first' }))}\n\n`)
    await Promise.race([gate.promise, connection.closed])
    await connection.chunk(`data: ${JSON.stringify(chatChunk({ content: 'last' }))}\n\ndata: [DONE]\n\n`)
    await connection.endChunks()
  })
  return { finish: gate.resolve }
}

/** Starts a held stream and returns once its first token is with the caller. */
async function openStream(gateway: Executable) {
  const caller = await rawCaller(gateway)
  caller.ask({ stream: true })
  await until('the first token', () => caller.received().includes('"first"'))
  return caller
}

describe('the command line', () => {
  test('--version prints the version and ends with 0', async () => {
    expect(await aisix('--version')).toEqual({
      exit: 0,
      stdout: expect.stringMatching(/^aisix \d+\.\d+\.\d+\n$/),
      stderr: '',
    })
  })

  test('--help goes to stdout and ends with 0', async () => {
    const { exit, stdout, stderr } = await aisix('--help')
    expect({ exit, stderr }).toEqual({ exit: 0, stderr: '' })
    expect(stdout).toContain('Usage: aisix')
  })

  for (const args of [['--no-such-option'], ['no-such-command'], ['--config'], []]) {
    test(`a usage error (${args.join(' ') || 'no configuration anywhere'}) ends with 2 and says so on stderr alone`, async () => {
      const { exit, stdout, stderr } = await aisix(...args)
      expect({ exit, stdout }).toEqual({ exit: 2, stdout: '' })
      expect(stderr).toStartWith('aisix: ')
    })
  }

  test('what is appended to a file keeps what stands there', async () => {
    const { exit } = await run([
      'sh',
      '-c',
      'echo kept > out; "$EXECUTABLE" --version >> out 2>> out; "$EXECUTABLE" --bad 2>> out',
    ])
    expect(exit).toBe(2)
    expect(readFileSync(join(folder, 'out'), 'utf8')).toMatch(/^kept\naisix \d+\.\d+\.\d+\naisix: unknown option/)
  })
})

describe('a start that is refused', () => {
  test('a configuration that is not there: 1, and words that name the file', async () => {
    const { exit, stderr } = await aisix('--config', 'nowhere.yaml')
    expect(exit).toBe(1)
    expect(stderr).toMatch(/^config load failed: .*nowhere\.yaml/)
  })

  test('its words are appended to a log file, not put in place of it', async () => {
    await run(['sh', '-c', 'echo kept > log; "$EXECUTABLE" --config nowhere.yaml 2>> log'])
    expect(readFileSync(join(folder, 'log'), 'utf8')).toMatch(/^kept\nconfig load failed: /)
  })

  test('a port that is taken: 1, and words that name listener and address', async () => {
    const holder = Bun.listen({ hostname: '127.0.0.1', port: 0, socket: { data() {} } })
    stops.push(() => holder.stop(true))
    writeConfig(`proxy: { addr: "127.0.0.1:${holder.port}" }\n`)
    const { exit, stderr } = await aisix('--config', 'config.yaml')
    expect(exit).toBe(1)
    expect(stderr).toContain(`proxy listener bind 127.0.0.1:${holder.port} failed: address already in use`)
  })

  test('a port that another gateway has: 1, and that gateway goes on', async () => {
    const gateway = await start()
    writeConfig(`proxy: { addr: "${new URL(gateway.proxyUrl).host}" }\n`)
    const { exit, stderr } = await aisix('--config', 'config.yaml')
    expect(exit).toBe(1)
    expect(stderr).toContain('failed: address already in use')
    expect((await fetch(`${gateway.proxyUrl}/livez`)).status).toBe(200)
  })

  test('what was to be warned of is said before', async () => {
    writeConfig('proxy: { addr: "127.0.0.1:0" }\nstore: { path: nowhere/store.db }\nupstream: { tls: { verify: false } }\n')
    const { exit, stderr } = await aisix('--config', 'config.yaml')
    expect(exit).toBe(1)
    expect(stderr).toMatch(/WARN config: .*upstream\.tls\.verify: .*\nstore open failed: /)
  })

  test('a store that is damaged: 1, and not a byte of it is changed', async () => {
    const page = Buffer.alloc(8192, 0xa5)
    page.write('SQLite format 3\0', 0, 'latin1')
    for (const [name, bytes] of Object.entries({ damaged: page, text: Buffer.from('not a database at all') })) {
      writeConfig(`proxy: { addr: "127.0.0.1:0" }\nstore: { path: ${name}.db }\n`)
      writeFileSync(join(folder, `${name}.db`), bytes)
      const { exit, stderr } = await aisix('--config', 'config.yaml')
      expect(exit).toBe(1)
      expect(stderr).toContain('store open failed: ')
      expect(readFileSync(join(folder, `${name}.db`)).equals(bytes)).toBe(true)
    }
    expect(readdirSync(folder).sort()).toEqual(['config.yaml', 'damaged.db', 'text.db'])
  })
})

function writeConfig(head: string): void {
  const rest = 'admin: { enabled: false }\nobservability: { metrics: { prometheus: { enabled: false } } }\n'
  writeFileSync(join(folder, 'config.yaml'), head + rest)
}

test('callers without a key whose API key is not there: the start and the health say so', async () => {
  const anonymous = { api_key_id: 'b569cd19-498b-43dc-8ea6-510628b28d6f', source_cidrs: ['127.0.0.0/8'], paths: ['/api/*'] }
  const gateway = await start({ config: { proxy: { anonymous } } })
  const warning = `proxy.anonymous.api_key_id: "${anonymous.api_key_id}" is the id of no API key`
  await until('the warning', () => gateway.stderr().includes(warning))
  const health = await fetch(`${gateway.adminUrl}/admin/v1/health`, { headers: { authorization: `Bearer ${ADMIN_KEY}` } })
  expect(await health.json()).toMatchObject({ dangling: [{ kind: 'config', missing: anonymous.api_key_id }] })
})

describe('the end', () => {
  test('SIGTERM waits for a stream under way, whose caller gets all of it, and ends with 0', async () => {
    const { gateway, upstream } = await startWithUpstream()
    const { finish } = heldStreams(upstream)
    const caller = await openStream(gateway)
    gateway.signal('SIGTERM')
    await until('the drain', () => gateway.stderr().includes('draining signal="SIGTERM" in_flight=1'))
    finish()
    expect(await gateway.exited).toBe(0)
    expect(caller.received()).toContain('"last"')
    expect(caller.received()).toContain('data: [DONE]')
    expect(gateway.stderr()).toContain('drain complete')
  })

  test('SIGTERM waits for a caller that is slow to read a whole answer, and it gets all of it', async () => {
    const { gateway, upstream } = await startWithUpstream()
    const content = 'x'.repeat(16 * 1024 * 1024)
    upstream.answer((_request, connection) => connection.json(200, chatAnswer(content)))
    const { port, hostname } = new URL(gateway.proxyUrl)
    const body = JSON.stringify({ model: ALIAS, messages: [{ role: 'user', content: 'hello' }] })
    let bytes = 0
    const { promise: ended, resolve } = Promise.withResolvers<void>()
    const { promise: begun, resolve: begin } = Promise.withResolvers<void>()
    const socket = connect({ host: hostname, port: Number(port) })
    socket.on('data', piece => {
      bytes += piece.length
      // What the kernel's buffers hold is far less than the answer: the rest is still the gateway's.
      if (bytes === piece.length) {
        socket.pause()
        begin()
      }
    })
    socket.on('close', () => resolve())
    socket.write(
      `POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${CALLER_KEY}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    )
    await begun
    gateway.signal('SIGTERM')
    await until('the drain', () => gateway.stderr().includes('draining signal="SIGTERM"'))
    expect(gateway.stderr()).not.toContain('drain complete')
    socket.resume()
    await ended
    expect(bytes).toBeGreaterThan(content.length)
    expect(await gateway.exited).toBe(0)
  })

  test('SIGTERM leaves realtime sessions alone until load balancers had their time, then sends both sides away', async () => {
    const { gateway, upstream } = await startWithRealtime({ config: { shutdown: { min_drain_secs: 1 } } })
    const url = `${gateway.proxyUrl}/v1/realtime?model=${ALIAS}`
    const open = () => openSession(url, { headers: { authorization: `Bearer ${CALLER_KEY}` } })
    const first = await open()
    const session = await upstream.session()
    gateway.signal('SIGTERM')
    await until('the drain', () => gateway.stderr().includes('draining signal="SIGTERM" in_flight=1'))
    // Until then all is as ever, also for whoever comes now.
    const second = await open()
    first.socket.send('still served')
    await until('a frame', () => session.received.length > 0)
    const end = { code: 1001, reason: 'the gateway is shutting down' }
    expect(await Promise.all([first.closed, second.closed])).toEqual([end, end])
    expect((await session.closed).code).toBe(1001)
    expect(await gateway.exited).toBe(0)
    expect(gateway.stderr()).toContain('drain complete')
  })

  test('SIGINT at an idle gateway ends it at once, however long the drain', async () => {
    const gateway = await start({ config: { shutdown: { min_drain_secs: 3600 } } })
    gateway.signal('SIGINT')
    expect(await gateway.exited).toBe(0)
  })

  for (const [signal, code] of [
    ['SIGTERM', 143],
    ['SIGINT', 130],
  ] as const) {
    test(`a second signal, ${signal}, ends a drain at once with ${code}`, async () => {
      const { gateway, upstream } = await startWithUpstream()
      heldStreams(upstream)
      await openStream(gateway)
      gateway.signal('SIGTERM')
      await until('the drain', () => gateway.stderr().includes('draining signal='))
      gateway.signal(signal)
      expect(await gateway.exited).toBe(code)
    })
  }

  test('SIGHUP is said and changes nothing', async () => {
    const gateway = await start()
    gateway.signal('SIGHUP')
    await until('a line about it', () => gateway.stderr().includes('SIGHUP'))
    expect((await fetch(`${gateway.proxyUrl}/livez`)).status).toBe(200)
    expect(await gateway.stop()).toBe(0)
  })
})

describe('the surroundings', () => {
  test('.env and bunfig.toml of the folder it is started in are not read', async () => {
    // The variable would be refused at the start, and the preloaded file would leave a mark.
    writeFileSync(join(folder, '.env'), 'AISIX_PROXY__ADDR=not-an-address\nAISIX_NO_SUCH_KEY=1\n')
    writeFileSync(join(folder, 'bunfig.toml'), 'preload = ["./preload.ts"]\n')
    writeFileSync(join(folder, 'preload.ts'), `require('node:fs').writeFileSync('preloaded', 'yes')\n`)
    const gateway = await start({ folder })
    expect((await fetch(`${gateway.proxyUrl}/livez`)).status).toBe(200)
    expect(gateway.stderr()).not.toContain('AISIX_')
    expect(existsSync(join(folder, 'preloaded'))).toBe(false)
  })

  test('the variable that .env would have set is one that the gateway obeys', async () => {
    writeConfig('proxy: { addr: "127.0.0.1:0" }\n')
    const { exit, stderr } = await run([EXECUTABLE, '--config', 'config.yaml'], { AISIX_PROXY__ADDR: 'not-an-address' })
    expect(exit).toBe(1)
    expect(stderr).toContain('AISIX_PROXY__ADDR')
  })

  test('only its owner can read the store, whatever the umask', async () => {
    const before = process.umask(0)
    try {
      await start({ folder })
    } finally {
      process.umask(before)
    }
    const modes = readdirSync(folder)
      .filter(name => name.startsWith('aisix.db'))
      .map(name => `${name} ${(statSync(join(folder, name)).mode & 0o777).toString(8)}`)
    expect(modes.sort()).toEqual(['aisix.db 600', 'aisix.db-shm 600', 'aisix.db-wal 600'])
  })

  test('a log that nobody reads does not stop it', async () => {
    writeConfig('proxy: { addr: "127.0.0.1:0" }\n')
    const holder = Bun.listen({ hostname: '127.0.0.1', port: 0, socket: { data() {} } })
    const { port } = holder
    holder.stop(true)
    // The reader of the pipe holds it open and never reads: 64 KiB fit in.
    const line = 'exec "$EXECUTABLE" --config config.yaml 2> >(echo $BASHPID > reader.pid; exec sleep 600)'
    const child = Bun.spawn(['bash', '-c', line], {
      cwd: folder,
      env: {
        PATH: process.env.PATH ?? '',
        EXECUTABLE,
        AISIX_PROXY__ADDR: `127.0.0.1:${port}`,
        AISIX_SHUTDOWN__MIN_DRAIN_SECS: '0',
      },
      stdin: 'ignore',
      stdout: 'ignore',
      stderr: 'ignore',
    })
    stops.push(() => process.kill(Number(readFileSync(join(folder, 'reader.pid'), 'utf8'))))
    stops.push(() => child.kill('SIGKILL'))
    const url = `http://127.0.0.1:${port}`
    const giveUpAt = Date.now() + 20_000
    while (!(await fetch(`${url}/livez`).catch(() => undefined))?.ok && Date.now() < giveUpAt) await Bun.sleep(20)
    // Each leaves a line of more than 300 bytes: 300 KiB in all.
    for (let i = 0; i < 1_000; i += 1) {
      const response = await fetch(`${url}/v1/nowhere`, { headers: { 'x-aisix-request-id': `${i}-`.padEnd(250, 'x') } })
      expect(response.status).toBe(404)
    }
    child.kill('SIGTERM')
    expect(await child.exited).toBe(0)
  })

  test('a full disk under the log costs its lines, not the gateway', async () => {
    const [port = 0] = freePorts(1)
    writeConfig('proxy: { addr: "127.0.0.1:0" }\n')
    const child = Bun.spawn(['bash', '-c', 'exec "$EXECUTABLE" --config config.yaml 2> /dev/full'], {
      cwd: folder,
      env: {
        PATH: process.env.PATH ?? '',
        EXECUTABLE,
        AISIX_PROXY__ADDR: `127.0.0.1:${port}`,
        AISIX_SHUTDOWN__MIN_DRAIN_SECS: '0',
      },
      stdin: 'ignore',
      stdout: 'ignore',
    })
    stops.push(() => child.kill('SIGKILL'))
    const url = `http://127.0.0.1:${port}`
    const giveUpAt = Date.now() + 20_000
    while (!(await fetch(`${url}/livez`).catch(() => undefined))?.ok && Date.now() < giveUpAt) await Bun.sleep(20)
    for (let i = 0; i < 20; i += 1) expect((await fetch(`${url}/v1/nowhere`)).status).toBe(404)
    child.kill('SIGTERM')
    expect(await child.exited).toBe(0)
  })
})

describe('connections', () => {
  test('320 streams at once all have their first token before any of them ends', async () => {
    const { gateway, upstream } = await startWithUpstream()
    const { finish } = heldStreams(upstream)
    const callers = await Promise.all(Array.from({ length: 320 }, () => rawCaller(gateway)))
    for (const caller of callers) caller.ask({ stream: true })
    // No stream ends before `finish`: with 256 at once, 64 callers would wait for ever.
    await until('320 first tokens', () => callers.every(caller => caller.received().includes('"first"')))
    expect(callers.filter(caller => caller.received().includes('"last"')).length).toBe(0)
    finish()
    await until('320 ends', () => callers.every(caller => caller.received().includes('[DONE]')))
    expect(await gateway.stop()).toBe(0)
  })

  test('downstream.idle_timeout_secs closes idle connections, and neither silent streams nor slow answers', async () => {
    const { gateway, upstream } = await startWithUpstream({
      config: { downstream: { idle_timeout_secs: 1, sse_keepalive_interval_secs: 0 } },
    })
    const { finish } = heldStreams(upstream)
    const stream = await openStream(gateway)
    const gate = Promise.withResolvers<void>()
    upstream.answer(async (_request, connection) => {
      await gate.promise
      await connection.json(200, { object: 'chat.completion', choices: [] })
    })
    const slow = await rawCaller(gateway)
    slow.ask({})
    await upstream.arrived(2)
    const realtime = realtimeUpstream()
    stops.push(realtime.stop)
    await addModel(gateway, 'realtime', realtime.url)
    const session = await openSession(`${gateway.proxyUrl}/v1/realtime?model=realtime`, {
      headers: { authorization: `Bearer ${CALLER_KEY}` },
    })
    // Twice: when the second has been closed, the others have been silent for more than twice the time.
    for (let round = 0; round < 2; round += 1) {
      upstream.answer((_request, connection) => connection.json(200, { object: 'chat.completion', choices: [] }))
      const idle = await rawCaller(gateway)
      idle.ask({})
      await until('an answer', () => idle.received().includes('"choices"'))
      expect(idle.isClosed()).toBe(false)
      await until('the end of an idle connection', () => idle.isClosed())
    }
    expect([stream.isClosed(), slow.isClosed(), session.socket.readyState]).toEqual([false, false, WebSocket.OPEN])
    session.socket.close()
    finish()
    gate.resolve()
    await until('the end of the stream', () => stream.received().includes('[DONE]'))
    await until('the slow answer', () => slow.received().includes('"choices"'))
    // From here on they are idle, too.
    await until('their ends', () => stream.isClosed() && slow.isClosed())
    expect(slow.received()).toStartWith('HTTP/1.1 200')
  }, 60_000)

  test('an idle_timeout_secs beyond what the runtime can wait is said at the start', async () => {
    const gateway = await start({ config: { downstream: { idle_timeout_secs: 300 } } })
    await until('the warning', () => gateway.stderr().includes('idle connections are closed after 255 s'))
    expect((await fetch(`${gateway.proxyUrl}/livez`)).status).toBe(200)
  })
})
