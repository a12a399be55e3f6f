/** OpenAI's own clients for the Realtime API, against a real gateway behind TLS: they speak `wss` alone. */
import { afterEach, beforeEach, expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import OpenAI from 'openai'
import { OpenAIRealtimeWS } from 'openai/realtime/ws'
import { ALIAS, CALLER_KEY, startGateway, UPSTREAM_MODEL } from '../gateway.ts'
import { realtimeUpstream } from '../realtime.ts'

const fixture = (name: string) => readFileSync(join(import.meta.dir, '..', 'fixtures', 'tls', name), 'utf8')

let stops: (() => unknown)[]
beforeEach(() => {
  stops = []
})
afterEach(async () => {
  for (const stop of stops.reverse()) await stop()
})

/** Takes TLS off in front of a port. returns: its own port */
function tlsBefore(port: number): number {
  type Onward = { socket: Promise<Bun.Socket> }
  const server = Bun.listen<Onward>({
    hostname: '127.0.0.1',
    port: 0,
    tls: { cert: fixture('server.crt'), key: fixture('server.key') },
    socket: {
      open(near) {
        const socket = Bun.connect({
          hostname: '127.0.0.1',
          port,
          socket: { data: (_far, bytes) => void near.write(bytes), close: () => void near.end(), error() {} },
        })
        near.data = { socket }
      },
      data: async ({ data }, bytes) => void (await data.socket).write(Buffer.from(bytes)),
      close: async ({ data }) => void (await data.socket).end(),
      error() {},
    },
  })
  stops.push(() => server.stop(true))
  return server.port
}

async function start() {
  const upstream = realtimeUpstream({
    onOpen: ({ socket }) => void socket.send(JSON.stringify({ type: 'session.created', event_id: 'e1', session: { id: 's1' } })),
    onFrame({ socket }, frame) {
      if (JSON.parse(String(frame)).type !== 'response.create') return
      socket.send(JSON.stringify({ type: 'response.output_text.delta', event_id: 'e2', delta: 'Hello' }))
      const usage = { input_tokens: 3, output_tokens: 2, total_tokens: 5 }
      socket.send(JSON.stringify({ type: 'response.done', event_id: 'e3', response: { id: 'r1', usage } }))
    },
  })
  stops.push(upstream.stop)
  const gateway = await startGateway({ upstream: upstream.url })
  stops.push(gateway.stop)
  const port = tlsBefore(gateway.port)
  const client = (apiKey: string) => new OpenAI({ apiKey, baseURL: `https://127.0.0.1:${port}/v1` })
  return { upstream, gateway, client }
}

test('a conversation', async () => {
  const { upstream, gateway, client } = await start()
  const realtime = new OpenAIRealtimeWS({ model: ALIAS, options: { tls: { rejectUnauthorized: false } } }, client(CALLER_KEY))
  const told: string[] = []
  const { promise: done, resolve, reject } = Promise.withResolvers<void>()
  realtime.on('error', reject)
  realtime.on('session.created', event => {
    told.push(event.type)
    realtime.send({ type: 'response.create' })
  })
  realtime.on('response.output_text.delta', event => told.push(event.delta))
  realtime.on('response.done', event => {
    told.push(`${event.response.usage?.total_tokens}`)
    resolve()
  })
  await done
  expect(told).toEqual(['session.created', 'Hello', '5'])
  realtime.close({ code: 1000, reason: 'OK' })
  const session = await upstream.session()
  expect(await session.closed).toEqual({ code: 1000, reason: 'OK' })
  expect(session.target).toBe(`/v1/realtime?model=${encodeURIComponent(UPSTREAM_MODEL)}`)
  await gateway.idle()
  expect(gateway.telemetry.records).toMatchObject([{ promptTokens: 3, completionTokens: 2, status: 200 }])
})

test('a refusal is an error that names the status', async () => {
  const { client } = await start()
  const realtime = new OpenAIRealtimeWS({ model: ALIAS, options: { tls: { rejectUnauthorized: false } } }, client('sk-wrong'))
  const error = await new Promise<Error>(resolve => realtime.on('error', resolve))
  expect(error.message).toContain('401')
})
