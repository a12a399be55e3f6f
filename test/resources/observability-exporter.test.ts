import { describe, expect, test } from 'bun:test'
import { type Answer, entryOf, folderExporter, messageOf, openAdmin, otlpExporter, s3Exporter } from '../admin/harness.ts'

const PATH = '/admin/v1/observability_exporters'

/** A value that stands where a credential could have been pasted; no message may repeat it. */
const PASTED = 'sk-pasted-by-mistake'

async function refusal(document: unknown): Promise<string> {
  const admin = openAdmin()
  const answer = await admin.call('POST', PATH, document)
  const message = messageOf(answer)
  expect({ status: answer.status, message }).toEqual({ status: 400, message })
  expect(message).not.toContain(PASTED)
  expect(admin.lines.join('\n')).not.toContain(PASTED)
  expect((await admin.call('GET', PATH)).body).toEqual([])
  return message
}

const failed = (place: string, message: string) => `schema validation failed at ${place}: ${message}`

describe('what is accepted', () => {
  test('an OTLP exporter gets the defaults of the contract', async () => {
    expect(entryOf(await openAdmin().call('POST', PATH, otlpExporter())).value).toEqual({
      name: 'collector',
      enabled: true,
      kind: 'otlp_http',
      endpoint: 'http://127.0.0.1:4318/v1/traces',
      content_mode: 'metadata_only',
      content_max_bytes: 131_072,
    })
  })

  test('an S3 exporter and a folder get theirs', async () => {
    expect(entryOf(await openAdmin().call('POST', PATH, s3Exporter())).value).toMatchObject({
      enabled: true,
      compression: 'gzip',
      auth_mode: 'credential_ref',
    })
    expect(entryOf(await openAdmin().call('POST', PATH, folderExporter())).value).toEqual({
      name: 'usage files',
      enabled: true,
      kind: 'object_store',
      provider: 'file',
      endpoint: 'file:///var/log/aisix/usage',
      compression: 'gzip',
    })
  })

  const accepted: [string, Record<string, unknown>][] = [
    ['plain HTTP to any host', otlpExporter({ endpoint: 'http://collector.internal:4318/v1/traces' })],
    ['an address with a query', otlpExporter({ endpoint: 'https://collector/v1/traces?tenant=a' })],
    ['an address of IPv6 in capitals', otlpExporter({ endpoint: 'HTTP://[::1]:4318/v1/traces' })],
    ['a name of 120 characters', otlpExporter({ name: 'x'.repeat(120) })],
    ['the bounds of content', otlpExporter({ content_mode: 'full', content_max_bytes: 1_048_576 })],
    ['no request at all', otlpExporter({ sample_rate: 0 })],
    ['members that are null', otlpExporter({ sample_rate: null, headers: null, content_mode: null })],
    ['Amazon S3', s3Exporter({ endpoint: undefined, bucket: 'usage-of-2030', region: 'eu-central-1' })],
    ['a prefix between slashes', s3Exporter({ prefix: '/a/b/' })],
    ['no prefix', s3Exporter({ prefix: '/' })],
    ['a folder with folders below', folderExporter({ bucket: 'b', prefix: 'c/d', compression: 'none' })],
    ['a folder whose name has a blank', folderExporter({ endpoint: 'file:///var/log/my%20usage' })],
  ]
  test.each(accepted)('%s', async (_name, document) => {
    expect((await openAdmin().call('POST', PATH, document)).status).toBe(200)
  })
})

describe('what is refused, by place and rule', () => {
  const later = (value: string, instead: string) => `\`${value}\` is not supported by this version: use ${instead}`
  const clouds: [string, Record<string, unknown>, string][] = [
    ['aliyun_sls', { kind: 'aliyun_sls', project: 'p' }, failed('/kind', later('aliyun_sls', '"otlp_http" or "object_store"'))],
    ['datadog', { kind: 'datadog', site: 's' }, failed('/kind', later('datadog', '"otlp_http" or "object_store"'))],
    ['gcs', s3Exporter({ provider: 'gcs' }), failed('/provider', later('gcs', '"s3" or "file"'))],
    ['azure_blob', s3Exporter({ provider: 'azure_blob' }), failed('/provider', later('azure_blob', '"s3" or "file"'))],
    [
      'cloud_identity',
      s3Exporter({ auth_mode: 'cloud_identity' }),
      failed('/auth_mode', later('cloud_identity', '"credential_ref"')),
    ],
  ]
  test.each(clouds)('%s is told to be of a later version, and nothing else is', async (_name, document, expected) => {
    expect(await refusal({ name: 'e', ...document })).toBe(expected)
  })

  const cases: [string, Record<string, unknown>, string][] = [
    ['no kind', otlpExporter({ kind: undefined }), failed('/kind', 'is required')],
    ['another kind', otlpExporter({ kind: PASTED }), failed('/kind', 'must be one of "otlp_http", "object_store"')],
    ['no provider', s3Exporter({ provider: undefined }), failed('/provider', 'is required')],
    ['another provider', s3Exporter({ provider: 'ftp' }), failed('/provider', 'must be one of "s3", "file"')],
    ['no name', otlpExporter({ name: undefined }), failed('/name', 'is required')],
    ['a long name', otlpExporter({ name: 'x'.repeat(121) }), failed('/name', 'must be at most 120 characters long')],
    ['a typo', otlpExporter({ sample_rat: 1 }), 'unknown field `sample_rat` (did you mean `sample_rate`?)'],
    ['content to an object store', s3Exporter({ content_mode: 'full' }), 'unknown field `content_mode`'],
    ['a rate over 1', otlpExporter({ sample_rate: 1.5 }), failed('/sample_rate', 'must be at most 1')],
    ['a rate below 0', otlpExporter({ sample_rate: -0.1 }), failed('/sample_rate', 'must be at least 0')],
    ['no bytes of content', otlpExporter({ content_max_bytes: 0 }), failed('/content_max_bytes', 'must be at least 1')],
    ['too many bytes', otlpExporter({ content_max_bytes: 1_048_577 }), failed('/content_max_bytes', 'must be at most 1048576')],
    ['another mode', otlpExporter({ content_mode: 'all' }), 'failed at /content_mode: must be one of "metadata_only", "full"'],
    ['another scheme', otlpExporter({ endpoint: `grpc://${PASTED}:4317` }), failed('/endpoint', 'must start with http:// or')],
    ['no host', otlpExporter({ endpoint: 'http:///v1/traces' }), failed('/endpoint', 'must name a host')],
    [
      'user info',
      otlpExporter({ endpoint: `http://u:${PASTED}@collector/v1/traces` }),
      failed('/endpoint', 'must not carry user info; put the credential into `headers`'),
    ],
    ['a fragment', otlpExporter({ endpoint: 'http://c/v1/traces#a' }), failed('/endpoint', 'must not carry a fragment')],
    ['a blank', otlpExporter({ endpoint: 'http://c/v1 traces' }), failed('/endpoint', 'must not hold blanks')],
    ['port 0', otlpExporter({ endpoint: 'http://c:0/v1/traces' }), failed('/endpoint', 'must not name port 0')],
    [
      'a header that is a line',
      otlpExporter({ headers: { [`authorization: ${PASTED}`]: '' } }),
      'failed at /headers: the name of',
    ],
    [
      'a value with a line break',
      otlpExporter({ headers: { authorization: `Bearer ${PASTED}\nx: y` } }),
      failed('/headers/authorization', 'must hold only characters that a header can carry'),
    ],
    ['a header of ours', otlpExporter({ headers: { 'Content-Type': 'a' } }), failed('/headers/Content-Type', 'is set by the')],
    ['a header twice', otlpExporter({ headers: { a: '1', A: '2' } }), failed('/headers/A', 'names a header twice')],
    ['no bucket', s3Exporter({ bucket: undefined }), failed('/bucket', 'is required')],
    ['a bucket that is a path', s3Exporter({ bucket: '../etc' }), failed('/bucket', 'must be 1 to 255 letters')],
    [
      'a bucket that is no name of a host',
      s3Exporter({ endpoint: undefined, bucket: 'my.usage' }),
      failed('/bucket', 'must be 3 to 63 of a-z, 0-9 and "-" where there is no `endpoint`'),
    ],
    ['an empty prefix', s3Exporter({ prefix: '' }), failed('/prefix', 'must not be empty; `/` stands for none')],
    ['a prefix that climbs', s3Exporter({ prefix: 'a/../../b' }), failed('/prefix', 'must not hold `.` or `..` as parts')],
    ['a prefix with a gap', s3Exporter({ prefix: 'a//b' }), failed('/prefix', 'must not hold two slashes in a row')],
    ['a prefix with NUL', s3Exporter({ prefix: 'a\u0000b' }), failed('/prefix', 'must not hold control characters')],
    [
      'a region that is a host',
      s3Exporter({ region: 'x.evil.example/' }),
      failed('/region', 'must be a region such as us-east-1'),
    ],
    ['a store with a query', s3Exporter({ endpoint: 'http://minio:9000/?a=b' }), failed('/endpoint', 'must not carry a query')],
    ['a store that is a folder', s3Exporter({ endpoint: 'file:///var/log' }), failed('/endpoint', 'must start with http://')],
    ['no credential', s3Exporter({ credential_ref: undefined }), failed('/credential_ref', 'is required')],
    [
      'a credential for a folder',
      folderExporter({ credential_ref: PASTED }),
      '`credential_ref` belongs to `provider` `s3`, a folder has none: leave it out',
    ],
    ['a relative folder', folderExporter({ endpoint: 'file://logs' }), failed('/endpoint', 'must start with file:///')],
    ['the root', folderExporter({ endpoint: 'file:///' }), failed('/endpoint', 'must name a folder below the root')],
    ['a folder that climbs', folderExporter({ endpoint: 'file:///var/../etc' }), failed('/endpoint', 'must not hold `.` or')],
    [
      'one that climbs in code',
      folderExporter({ endpoint: 'file:///var/%2e%2E/etc' }),
      failed('/endpoint', 'must not hold `.` or'),
    ],
    ['a slash in code', folderExporter({ endpoint: 'file:///var%2fetc' }), failed('/endpoint', 'must be a URL such as')],
    ['a folder with NUL', folderExporter({ endpoint: 'file:///var/a%00b' }), failed('/endpoint', 'must not hold a query')],
    ['a folder below that climbs', folderExporter({ prefix: '..' }), failed('/prefix', 'must not hold `.` or `..` as parts')],
  ]
  test.each(cases)('%s', async (_name, document, expected) => {
    expect(await refusal(document)).toContain(expected)
  })

  test('all that is wrong is told at once', async () => {
    const message = await refusal(s3Exporter({ bucket: '/', prefix: '..', region: 'X', credential_ref: '' }))
    expect(message.split('; ').length).toBe(4)
  })
})

describe('headers are credentials', () => {
  const headers = { authorization: 'Bearer collector-secret', 'x-tenant': 'tenant-secret' }
  const stored = (admin: ReturnType<typeof openAdmin>, id: string) => admin.store.get('observability_exporters', id)?.value

  test('no answer shows a value', async () => {
    const admin = openAdmin()
    const created = await admin.call('POST', PATH, otlpExporter({ headers }))
    const { id, value } = entryOf(created)
    expect(value.headers).toEqual({ authorization: '***', 'x-tenant': '***' })
    const answers: Answer[] = [
      created,
      await admin.call('GET', PATH),
      await admin.call('GET', `${PATH}/${id}`),
      await admin.call('PUT', `${PATH}/${id}`, otlpExporter({ headers })),
      await admin.call('GET', '/admin/v1/health'),
      await admin.call('DELETE', `${PATH}/${id}`),
    ]
    for (const { text, status } of answers) {
      expect(status).toBe(200)
      expect(text).not.toContain('-secret')
    }
    expect(admin.lines.join('\n')).not.toContain('-secret')
  })

  test('`***` keeps the stored value of the same name; others are replaced or go', async () => {
    const admin = openAdmin()
    const { id, value } = entryOf(await admin.call('POST', PATH, otlpExporter({ headers })))
    const next = { ...value, headers: { authorization: '***', 'x-new': 'n' }, sample_rate: 0.5 }
    expect((await admin.call('PUT', `${PATH}/${id}`, next)).status).toBe(200)
    expect(stored(admin, id)).toMatchObject({
      sample_rate: 0.5,
      headers: { authorization: 'Bearer collector-secret', 'x-new': 'n' },
    })
  })

  test('`***` with nothing to stand for is refused', async () => {
    expect(await refusal(otlpExporter({ headers: { authorization: '***' } }))).toBe(
      failed('/headers/authorization', '*** keeps a stored value, and here is none; send the value itself'),
    )
  })
})
