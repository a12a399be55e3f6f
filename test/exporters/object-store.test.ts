import { describe, expect, test } from 'bun:test'
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { gunzipSync } from 'node:zlib'
import { sha256, sign } from '../../src/exporters/sigv4.ts'
import { usageJson } from '../../src/telemetry/usage-record.ts'
import { type Answerer, eventually, openExporters, openServer, QUICK, type Received, snapshotOf } from './harness.ts'
import { AT_MS, failover, record, report } from './reports.ts'

const CREDENTIAL = { accessKeyId: 'minio-key', secretAccessKey: 'minio-secret', sessionToken: undefined }
const ENV = {
  OBJSTORE_CRED_ON_PREM_1_AWS_ACCESS_KEY_ID: 'minio-key',
  OBJSTORE_CRED_ON_PREM_1_AWS_SECRET_ACCESS_KEY: 'minio-secret',
}
const bucket = (url: string, more: Record<string, unknown> = {}) => ({
  name: 'objects',
  kind: 'object_store',
  provider: 's3',
  bucket: 'aisix',
  prefix: '/usage/eu 1/',
  endpoint: url,
  credential_ref: 'on-prem.1',
  ...more,
})

/** Verifies a request as a store does: from what arrived, by its own signature. */
function isSigned({ method, path, headers, body }: Received, credential = CREDENTIAL, region = 'us-east-1'): boolean {
  const time = headers['x-amz-date'] ?? ''
  const nowMs = Date.parse(time.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, '$1-$2-$3T$4:$5:$6Z'))
  const expected = sign({
    method,
    url: new URL(`http://${headers.host}${path}`),
    headers: { 'content-type': headers['content-type'] ?? '' },
    bodyHash: sha256(body),
    region,
    credential,
    nowMs,
  })
  return expected.authorization === headers.authorization && headers['x-amz-content-sha256'] === sha256(body)
}

/** A store that refuses what is not signed, as S3 does. */
const store: Answerer = received =>
  isSigned(received)
    ? new Response(null, { status: 200 })
    : new Response('<?xml version="1.0"?><Error><Code>SignatureDoesNotMatch</Code><Message>m</Message></Error>', { status: 403 })

/** The records of an object. */
const recordsOf = (bytes: Uint8Array): unknown[] =>
  new TextDecoder()
    .decode(bytes)
    .trimEnd()
    .split('\n')
    .map(line => JSON.parse(line))
const unzipped = ({ body }: Received) => recordsOf(gunzipSync(body))

const expected = (each = report()) => each.records.map(record => ({ ...usageJson(record), schema_version: '1.0' }))

describe('a bucket', () => {
  test('gets an object of compressed lines, signed, under a key of its hour and its content', async () => {
    await using server = openServer(store)
    const { exporters, lines } = openExporters({ env: ENV })
    exporters.sync(snapshotOf(bucket(server.url)))
    exporters.offer(failover())
    exporters.offer(report({ requestId: 'request-2' }))
    await server.until(1)
    await eventually(() => exporters.status()[0]?.delivered === 3)
    await exporters.close(1_000)
    const [received] = server.received
    if (!received) throw new Error('expected an object')
    expect(received.method).toBe('PUT')
    const hash = sha256(received.body).slice(0, 32)
    expect(received.path).toBe(`/aisix/usage/eu%201/dt%3D2030-01-31/hh%3D23/${hash}.ndjson.gz`)
    expect(received.headers['content-type']).toBe('application/gzip')
    expect(unzipped(received)).toEqual([...expected(failover()), ...expected(report({ requestId: 'request-2' }))])
    expect(lines).toEqual([])
  })

  test('gets what few requests have, under the names of the contract', async () => {
    await using server = openServer(store)
    const { exporters } = openExporters({ env: ENV })
    exporters.sync(snapshotOf(bucket(server.url, { compression: 'none' })))
    const extra = { authType: 'anonymous', passthroughRoute: 'files', clientIdentity: 'ada', audioSeconds: 12.5 } as const
    exporters.offer(report({ records: [record({ extra })] }))
    await exporters.close(1_000)
    const [received] = server.received
    expect(received && recordsOf(received.body)).toMatchObject([
      { auth_type: 'anonymous', passthrough_route_name: 'files', client_identity: 'ada', audio_duration_seconds: 12.5 },
    ])
  })

  test('gets plain lines without compression, and no prefix where there is none', async () => {
    await using server = openServer(store)
    const { exporters } = openExporters({ env: ENV })
    exporters.sync(snapshotOf(bucket(`${server.url}/`, { compression: 'none', prefix: '/' })))
    exporters.offer(report())
    await exporters.close(1_000)
    const [received] = server.received
    expect(received?.path).toMatch(/^\/aisix\/dt%3D2030-01-31\/hh%3D23\/[0-9a-f]{32}\.ndjson$/)
    expect(received && recordsOf(received.body)).toEqual(expected())
    expect(received?.body.at(-1)).toBe(0x0a)
  })

  test('has no content, and every request', async () => {
    await using server = openServer(store)
    const { exporters } = openExporters({ env: ENV })
    exporters.sync(snapshotOf(bucket(server.url)))
    expect([exporters.contentBytesMax('r'), exporters.wants('r')]).toEqual([0, true])
    exporters.offer(report({ content: { prompt: 'private prompt', response: 'r', isTruncated: false } }))
    await exporters.close(1_000)
    expect(JSON.stringify(server.received.map(unzipped))).not.toContain('private prompt')
  })

  test('gets the same object under the same key when a delivery is tried again, signed for its time', async () => {
    await using server = openServer((received, count) =>
      count === 1 ? new Response(null, { status: 503 }) : store(received, count),
    )
    let nowMs = AT_MS
    const clock = { now: () => (nowMs += 60_000) }
    const { exporters } = openExporters({ env: ENV, clock })
    exporters.sync(snapshotOf(bucket(server.url)))
    exporters.offer(report())
    await exporters.close(1_000)
    const [first, second] = server.received
    expect(server.received.length).toBe(2)
    expect(second?.path).toBe(first?.path ?? '')
    expect(second?.body).toEqual(first?.body ?? new Uint8Array())
    expect(second?.headers['x-amz-date']).not.toBe(first?.headers['x-amz-date'] ?? '')
  })

  test('is given the token of a session', async () => {
    await using server = openServer(() => new Response(null))
    const { exporters } = openExporters({ env: { ...ENV, OBJSTORE_CRED_ON_PREM_1_AWS_SESSION_TOKEN: 'token' } })
    exporters.sync(snapshotOf(bucket(server.url, { region: 'eu-central-1' })))
    exporters.offer(report())
    await exporters.close(1_000)
    expect(server.received[0]?.headers).toMatchObject({ 'x-amz-security-token': 'token' })
    expect(server.received[0]?.headers.authorization).toContain('/eu-central-1/s3/aws4_request')
  })

  test('without an endpoint is one of Amazon, by its own host over TLS', async () => {
    const urls: string[] = []
    const { exporters } = openExporters({
      env: ENV,
      fetch: async url => {
        urls.push(url)
        return new Response(null)
      },
    })
    exporters.sync(snapshotOf(bucket('', { endpoint: undefined, region: 'eu-central-1', prefix: 'p' })))
    exporters.offer(report())
    await exporters.close(1_000)
    expect(urls.length).toBe(1)
    expect(urls[0]).toStartWith('https://aisix.s3.eu-central-1.amazonaws.com/p/dt%3D2030-01-31/hh%3D23/')
  })

  test('a credential that is missing fails the delivery of this exporter alone and names the variables', async () => {
    await using server = openServer(store)
    const env: Record<string, string> = {}
    const { exporters, drops, lines } = openExporters({ env })
    exporters.sync(snapshotOf(bucket(server.url), bucket(server.url, { name: 'other', credential_ref: 'second' })))
    env.OBJSTORE_CRED_SECOND_AWS_ACCESS_KEY_ID = CREDENTIAL.accessKeyId
    env.OBJSTORE_CRED_SECOND_AWS_SECRET_ACCESS_KEY = CREDENTIAL.secretAccessKey
    exporters.offer(report())
    await eventually(() => drops('objects', 'delivery_failed') === 1 && exporters.status()[1]?.delivered === 1)
    expect(exporters.status()[0]?.problem).toBe(
      'no credential: set the variables OBJSTORE_CRED_ON_PREM_1_AWS_ACCESS_KEY_ID and OBJSTORE_CRED_ON_PREM_1_AWS_SECRET_ACCESS_KEY of the gateway',
    )
    // Read at delivery time: set now, the next batch goes well.
    Object.assign(env, ENV)
    exporters.offer(report())
    await eventually(() => exporters.status()[0]?.delivered === 1)
    await exporters.close(1_000)
    expect(lines.join('\n')).not.toContain('minio-secret')
  })

  const refusals: [string, Answerer, Record<string, string>, string][] = [
    [
      'a wrong credential',
      store,
      { ...ENV, OBJSTORE_CRED_ON_PREM_1_AWS_SECRET_ACCESS_KEY: 'x' },
      'the answer was 403: SignatureDoesNotMatch',
    ],
    ['a page of HTML', () => new Response('<html>minio-secret</html>', { status: 404 }), ENV, 'the answer was 404'],
    [
      'a redirect',
      () => new Response(null, { status: 301, headers: { location: 'http://127.0.0.1:1/' } }),
      ENV,
      'the answer was 301: redirects are not followed; check endpoint',
    ],
    [
      'a credential that no header carries',
      store,
      { ...ENV, OBJSTORE_CRED_ON_PREM_1_AWS_ACCESS_KEY_ID: 'a\nb' },
      'the credential in OBJSTORE_CRED_ON_PREM_1_AWS_… holds characters that no header can carry',
    ],
  ]
  test.each(refusals)('%s drops the batch with a reason', async (_name, answer, env, problem) => {
    await using server = openServer(answer)
    const { exporters, drops, lines } = openExporters({ env })
    exporters.sync(snapshotOf(bucket(server.url)))
    exporters.offer(report())
    await eventually(() => drops('objects', 'delivery_failed') === 1)
    expect(exporters.status()[0]?.problem).toBe(problem)
    expect(lines.join('\n')).not.toContain('minio-secret')
    await exporters.close(1_000)
  })
})

describe('a folder', () => {
  const folder = (path: string, more: Record<string, unknown> = {}) => ({
    name: 'files',
    kind: 'object_store',
    provider: 'file',
    endpoint: pathToFileURL(path).href,
    ...more,
  })
  const filesOf = (path: string) => readdirSync(path, { recursive: true, withFileTypes: true }).filter(each => each.isFile())

  test('gets files that only their owner reads, in folders by bucket, prefix, date and hour', async () => {
    using scratch = openScratch()
    const root = join(scratch.path, 'my usage')
    const { exporters, lines } = openExporters()
    exporters.sync(snapshotOf(folder(root, { bucket: 'b', prefix: '/p/q/' })))
    exporters.offer(failover())
    await exporters.close(1_000)
    const [file, ...others] = filesOf(root)
    expect(others).toEqual([])
    expect(file?.parentPath).toBe(join(root, 'b/p/q/dt=2030-01-31/hh=23'))
    const place = join(file?.parentPath ?? '', file?.name ?? '')
    const bytes = readFileSync(place)
    expect(file?.name).toBe(`${sha256(new Uint8Array(bytes)).slice(0, 32)}.ndjson.gz`)
    expect(recordsOf(gunzipSync(bytes))).toEqual(expected(failover()))
    expect(statSync(place).mode & 0o777).toBe(0o600)
    expect(statSync(root).mode & 0o077).toBe(0)
    expect(lines).toEqual([])
  })

  test('gets one file of one batch, however often it is delivered', async () => {
    using scratch = openScratch()
    for (let run = 0; run < 3; run += 1) {
      const { exporters } = openExporters()
      exporters.sync(snapshotOf(folder(scratch.path, { compression: 'none' })))
      exporters.offer(report())
      await exporters.close(1_000)
    }
    expect(filesOf(scratch.path).length).toBe(1)
  })

  test('that cannot be written to is tried again, told and counted; no part of a file is left', async () => {
    using scratch = openScratch()
    const root = join(scratch.path, 'usage')
    writeFileSync(root, 'a file where a folder should be')
    const { exporters, drops, failures, lines } = openExporters()
    exporters.sync(snapshotOf(folder(root)))
    exporters.offer(report())
    await eventually(() => drops('files', 'delivery_failed') === 1)
    expect(failures('files')).toBe(5)
    expect(exporters.status()[0]?.problem).toBe('cannot write to the folder: a part of its path is no folder')
    expect(lines.filter(line => line.includes(' WARN ')).length).toBe(1)
    rmSync(root)
    exporters.offer(report())
    await eventually(() => exporters.status()[0]?.delivered === 1)
    await exporters.close(1_000)
    expect(filesOf(root).map(({ name }) => name.endsWith('.ndjson.gz'))).toEqual([true])
  })

  test('what stands in the way of a file is told, and the half-written one is gone', async () => {
    using scratch = openScratch()
    const { exporters, drops } = openExporters()
    exporters.sync(snapshotOf(folder(scratch.path, { compression: 'none' })))
    // A folder of the name that the file will have.
    const lines = expected()
      .map(each => `${JSON.stringify(each)}\n`)
      .join('')
    const hour = join(scratch.path, 'dt=2030-01-31/hh=23')
    mkdirSync(join(hour, `${sha256(lines).slice(0, 32)}.ndjson`), { recursive: true })
    exporters.offer(report())
    await eventually(() => drops('files', 'delivery_failed') === 1)
    await exporters.close(1_000)
    expect(filesOf(scratch.path)).toEqual([])
  })

  test('a key stays in its folder whatever the prefix', async () => {
    using scratch = openScratch()
    const root = join(scratch.path, 'usage')
    const { exporters } = openExporters()
    exporters.sync(snapshotOf(folder(root, { prefix: '%2e%2e/..a/ü' })))
    exporters.offer(report())
    await exporters.close(1_000)
    expect(readdirSync(scratch.path)).toEqual(['usage'])
    expect(existsSync(join(root, '%2e%2e/..a/ü/dt=2030-01-31'))).toBe(true)
  })

  test('a full batch is written at once', async () => {
    using scratch = openScratch()
    const { exporters } = openExporters({ pace: { ...QUICK, batch: 3_600_000 } })
    exporters.sync(snapshotOf(folder(scratch.path)))
    for (let index = 0; index < 100; index += 1) exporters.offer(report({ requestId: `request-${index}` }))
    await eventually(() => exporters.status()[0]?.delivered === 100)
    await exporters.close(1_000)
    expect(filesOf(scratch.path).length).toBe(1)
  })
})

function openScratch() {
  const path = join(tmpdir(), `aisix-exporters-${crypto.randomUUID()}`)
  mkdirSync(path)
  return {
    path,
    [Symbol.dispose]() {
      chmodSync(path, 0o700)
      rmSync(path, { recursive: true, force: true })
    },
  }
}
