import { describe, expect, test } from 'bun:test'
import { type Answer, entryOf, type Harness, messageOf, openAdmin, providerKey } from './harness.ts'

const SECRET = 'sk-upstream-secret'
const HEADERS = { 'x-team': 'team-secret', 'x-zone': 'zone-secret' }
const withHeaders = (default_headers: Record<string, string>, more: Record<string, unknown> = {}) =>
  providerKey({ request: { default_headers }, ...more })

async function written(admin: Harness, document: Record<string, unknown>) {
  return entryOf(await admin.call('POST', '/admin/v1/provider_keys', document))
}
const put = (admin: Harness, id: string, document: Record<string, unknown>): Promise<Answer> =>
  admin.call('PUT', `/admin/v1/provider_keys/${id}`, document)

const stored = (admin: Harness, id: string) => admin.store.get('provider_keys', id)?.value

describe('reads', () => {
  test('no answer shows a credential or a header value, whichever way it is asked for', async () => {
    const admin = openAdmin()
    const created = await admin.call('POST', '/admin/v1/provider_keys', withHeaders(HEADERS))
    const { id, value } = entryOf(created)
    expect(value).toMatchObject({ secret: '***', request: { default_headers: { 'x-team': '***', 'x-zone': '***' } } })
    expect(value).not.toHaveProperty('api_key')
    const answers = [
      created,
      await admin.call('GET', '/admin/v1/provider_keys'),
      await admin.call('GET', `/admin/v1/provider_keys/${id}`),
      await put(admin, id, withHeaders(HEADERS)),
      await admin.call('GET', '/admin/v1/health'),
      await admin.call('DELETE', `/admin/v1/provider_keys/${id}`),
    ]
    for (const { status, text } of answers) {
      expect(status).toBe(200)
      expect(text).not.toMatch(/sk-upstream|-secret"/)
    }
  })

  test('masking changes what is shown and not what is stored', async () => {
    const admin = openAdmin()
    const { id } = await written(admin, withHeaders(HEADERS))
    await admin.call('GET', '/admin/v1/provider_keys')
    expect(stored(admin, id)).toMatchObject({ secret: SECRET, request: { default_headers: HEADERS } })
  })
})

describe('a document that is read, changed and put back', () => {
  test('keeps its credential and its header values', async () => {
    const admin = openAdmin()
    const { id, value } = await written(admin, withHeaders(HEADERS))
    const answer = entryOf(await put(admin, id, { ...value, api_base: 'http://10.0.0.6:8000/v1' }))
    expect(answer.revision).toBe(2)
    expect(stored(admin, id)).toMatchObject({
      secret: SECRET,
      api_base: 'http://10.0.0.6:8000/v1',
      request: { default_headers: HEADERS },
    })
  })

  test('may spell the kept credential `api_key`', async () => {
    const admin = openAdmin()
    const { id } = await written(admin, providerKey())
    expect((await put(admin, id, providerKey({ secret: undefined, api_key: '***' }))).status).toBe(200)
    expect(stored(admin, id)?.secret).toBe(SECRET)
  })

  test('keeps header values by name: one kept, one new, one gone', async () => {
    const admin = openAdmin()
    const { id } = await written(admin, withHeaders(HEADERS))
    expect((await put(admin, id, withHeaders({ 'x-zone': '***', 'x-new': 'v' }))).status).toBe(200)
    expect(stored(admin, id)?.request?.default_headers).toEqual({ 'x-zone': 'zone-secret', 'x-new': 'v' })
  })

  test('between blanks keeps what is stored just the same, and blanks around a credential are not kept', async () => {
    const admin = openAdmin()
    const { id } = await written(admin, withHeaders(HEADERS))
    expect((await put(admin, id, withHeaders({ 'x-zone': ' ***\t' }, { secret: '\t*** \n' }))).status).toBe(200)
    expect(stored(admin, id)).toMatchObject({ secret: SECRET, request: { default_headers: { 'x-zone': 'zone-secret' } } })
    await put(admin, id, providerKey({ secret: ' sk-second\n' }))
    expect(stored(admin, id)?.secret).toBe('sk-second')
  })

  test('takes a new credential', async () => {
    const admin = openAdmin()
    const { id } = await written(admin, providerKey())
    expect((await put(admin, id, providerKey({ secret: 'sk-second' }))).status).toBe(200)
    expect(stored(admin, id)?.secret).toBe('sk-second')
  })
})

describe('*** that stands for nothing is refused', () => {
  test('in a header that is not stored, and nothing is changed', async () => {
    const admin = openAdmin()
    const { id } = await written(admin, withHeaders(HEADERS))
    for (const name of ['x-other', 'toString', 'X-TEAM']) {
      const answer = await put(admin, id, withHeaders({ [name]: '***' }, { secret: 'sk-second' }))
      expect(answer.status).toBe(400)
      expect(messageOf(answer)).toStartWith(
        `schema validation failed at /request/default_headers/${name}: *** keeps a stored value`,
      )
    }
    expect(admin.store.get('provider_keys', id)).toMatchObject({ revision: 1, value: { secret: SECRET } })
  })

  test('on creation, under both spellings and in headers', async () => {
    const admin = openAdmin()
    const documents = [
      providerKey({ secret: '***' }),
      providerKey({ secret: undefined, api_key: '***' }),
      withHeaders({ a: '***' }),
    ]
    for (const document of documents) {
      const answer = await admin.call('POST', '/admin/v1/provider_keys', document)
      expect(answer.status).toBe(400)
      expect(messageOf(answer)).toContain('*** keeps a stored value, and here is none')
    }
    expect((await admin.call('GET', '/admin/v1/provider_keys')).body).toEqual([])
  })

  test('but is an ordinary value where nothing is secret, and asterisks of another number are a credential', async () => {
    const admin = openAdmin()
    const { value } = await written(admin, providerKey({ display_name: '***', secret: '****' }))
    expect(value).toMatchObject({ display_name: '***', secret: '***' })
    expect(admin.store.list('provider_keys')[0]?.value.secret).toBe('****')
  })
})
