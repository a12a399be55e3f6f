import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { AuditResponse } from '../../src/admin/audit-routes.ts'
import { inlineSchema } from '../../src/admin/schema.ts'
import { REGISTRY } from '../../src/resources/index.ts'
import { type Scratch, scratch } from '../store/scratch.ts'
import { ADMIN_KEY, type Answer, apiKey, entryOf, messageOf, openAdmin, providerKey, sha256 } from './harness.ts'
import { misfits } from './json-schema.ts'

const VIEWER_KEY = 'viewer-key-0001'
const ALICE_KEY = 'alice-key-0001'
const namedKeys = [
  { name: 'alice', key_hash: sha256(ALICE_KEY), role: 'admin' as const },
  { name: 'auditor', key_hash: sha256(VIEWER_KEY), role: 'viewer' as const },
]
const as = (key: string, more: Record<string, string> = {}) => ({ authorization: `Bearer ${key}`, ...more })

/** The entries of an answer, which must be what the reference says. */
function entriesOf({ status, body, text }: Answer): AuditResponse['entries'] {
  if (status !== 200) throw new Error(`expected entries, got ${status} ${text}`)
  expect(misfits({}, inlineSchema(AuditResponse), body)).toEqual([])
  return AuditResponse.parse(body).entries
}

describe('/admin/v1/audit', () => {
  let place: Scratch
  beforeEach(() => {
    place = scratch()
  })
  afterEach(() => place.clean())
  const open = () => openAdmin({ store: place.open(), namedKeys, addressOf: () => '192.0.2.7' })

  test('tells of changes by whom, from where and under which request, newest first', async () => {
    const admin = open()
    const created = await admin.call('POST', '/admin/v1/provider_keys', providerKey(), as(ALICE_KEY))
    const { id } = entryOf(created)
    const put = providerKey({ secret: '***', api_base: 'http://10.0.0.6:8000/v1' })
    await admin.call('PUT', `/admin/v1/provider_keys/${id}`, put, as(ADMIN_KEY, { 'x-aisix-request-id': 'ticket-4711' }))
    const [second, first, ...others] = entriesOf(await admin.call('GET', '/admin/v1/audit'))
    expect(others).toEqual([])
    expect(first).toMatchObject({ seq: 1, actor: 'alice', address: '192.0.2.7', action: 'create', outcome: 'applied', id })
    expect(first?.request_id).toBe(created.headers.get('x-aisix-request-id') ?? 'none')
    expect(first).toMatchObject({ name: 'vllm-private', after: { secret: '***', provider: 'vllm' } })
    expect(first).not.toHaveProperty('before')
    expect(second).toMatchObject({ actor: 'admin_keys[0]', action: 'replace', request_id: 'ticket-4711' })
    expect(second?.before).toEqual({ api_base: 'http://10.0.0.5:8000/v1' })
    expect(second?.after).toEqual({ api_base: 'http://10.0.0.6:8000/v1' })
  })

  test('tells of every refusal of a change with its status and message, and of no read', async () => {
    const admin = open()
    const { id } = entryOf(await admin.call('POST', '/admin/v1/apikeys', apiKey()))
    const refused: [string, string, unknown, number][] = [
      ['POST', '/admin/v1/apikeys', { key_hash: 'sk-pasted-plaintext' }, 400],
      ['POST', '/admin/v1/apikeys', '{"key_hash":', 400],
      ['POST', '/admin/v1/api_keys', apiKey(), 409],
      ['PUT', '/admin/v1/apikeys/none', apiKey(), 404],
      ['DELETE', '/admin/v1/apikeys/none', undefined, 404],
      ['POST', '/admin/v1/apikeys/none/rotate', undefined, 404],
    ]
    const messages: string[] = []
    for (const [method, path, body, status] of refused) {
      const answer = await admin.call(method, path, body)
      expect(answer.status).toBe(status)
      messages.push(messageOf(answer))
    }
    await admin.call('GET', '/admin/v1/apikeys/none')
    await admin.call('POST', `/admin/v1/apikeys/${id}/rotate`)
    const entries = entriesOf(await admin.call('GET', '/admin/v1/audit?kind=apikeys')).toReversed()
    expect(entries.map(({ action, outcome, status }) => [action, outcome, status])).toEqual([
      ['create', 'applied', undefined],
      ['create', 'refused', 400],
      ['create', 'refused', 400],
      ['create', 'refused', 409],
      ['replace', 'refused', 404],
      ['delete', 'refused', 404],
      ['rotate', 'refused', 404],
      ['rotate', 'applied', undefined],
    ])
    expect(entries.slice(1, 7).map(({ reason }) => reason)).toEqual(messages)
    expect(entries[4]).toMatchObject({ kind: 'api_keys', id: 'none' })
    expect(JSON.stringify(entries)).not.toContain('sk-pasted')
  })

  test('a failed authentication is no entry', async () => {
    const admin = open()
    expect((await admin.call('DELETE', '/admin/v1/models/x', undefined, as('sk-guessed'))).status).toBe(401)
    expect(entriesOf(await admin.call('GET', '/admin/v1/audit'))).toEqual([])
  })

  test('filters, and gives pages', async () => {
    const admin = open()
    for (let index = 0; index < 5; index++) {
      await admin.call(
        'POST',
        '/admin/v1/provider_keys',
        providerKey({ display_name: `k${index}` }),
        as(index < 3 ? ALICE_KEY : ADMIN_KEY),
      )
    }
    await admin.call('DELETE', '/admin/v1/models/none', undefined, as(ALICE_KEY))
    const names = async (query: string) =>
      entriesOf(await admin.call('GET', `/admin/v1/audit?${query}`)).map(({ name, id }) => name ?? id)
    expect(await names('actor=alice')).toEqual(['none', 'k2', 'k1', 'k0'])
    expect(await names('actor=alice&outcome=applied&limit=2')).toEqual(['k2', 'k1'])
    expect(await names('outcome=refused')).toEqual(['none'])
    expect(await names('kind=models,provider_keys&action=delete')).toEqual(['none'])
    expect(await names('from=2027-01-01')).toEqual([])
    expect(await names('from=2026-03-01&to=2026-03-02&limit=1')).toEqual(['none'])
    const seen: string[] = []
    let cursor: string | undefined = ''
    while (cursor !== undefined) {
      const answer: Answer = await admin.call('GET', `/admin/v1/audit?limit=4${cursor === '' ? '' : `&cursor=${cursor}`}`)
      seen.push(...entriesOf(answer).map(({ seq }) => String(seq)))
      cursor = AuditResponse.parse(answer.body).next_cursor
    }
    expect(seen).toEqual(['6', '5', '4', '3', '2', '1'])
  })

  test('names every parameter that is wrong', async () => {
    const answer = await open().call(
      'GET',
      '/admin/v1/audit?limit=0&cursor=x&action=drop&outcome=maybe&acto=bob&from=2026-02-02&to=2026-01-01',
    )
    expect(answer.status).toBe(400)
    for (const name of ['limit', 'cursor', 'action', 'outcome', 'acto', 'from']) expect(messageOf(answer)).toContain(`${name}: `)
    expect(messageOf(answer)).toContain('did you mean actor?')
  })

  test('says so where the store cannot be read, and where there is no audit log', async () => {
    const store = place.open()
    const admin = openAdmin({ store })
    place.other().run('PRAGMA user_version = 99')
    store.refresh()
    const answer = await admin.call('GET', '/admin/v1/audit')
    expect([answer.status, messageOf(answer)]).toEqual([503, expect.stringContaining('store error: ')])
    const none = await openAdmin().call('GET', '/admin/v1/audit')
    expect([none.status, messageOf(none)]).toEqual([404, expect.stringContaining('keeps no audit log')])
  })

  describe('a viewer', () => {
    test('reads what admins read, and may change nothing; the refusals are taken down', async () => {
      const admin = open()
      const { id } = entryOf(await admin.call('POST', '/admin/v1/apikeys', apiKey()))
      const reads = ['apikeys', `apikeys/${id}`, 'models', 'health', 'models/status', 'audit', 'requests', 'budgets/status']
      for (const path of reads)
        expect([path, (await admin.call('GET', `/admin/v1/${path}`, undefined, as(VIEWER_KEY))).status]).toEqual([path, 200])
      expect((await admin.call('HEAD', '/admin/v1/audit', undefined, as(VIEWER_KEY))).status).toBe(200)
      const writes = Object.values(REGISTRY).flatMap(({ paths }) =>
        paths.flatMap(path => [
          ['POST', `/admin/v1/${path}`],
          ['PUT', `/admin/v1/${path}/${id}`],
          ['DELETE', `/admin/v1/${path}/${id}`],
        ]),
      )
      writes.push(['POST', `/admin/v1/apikeys/${id}/rotate`], ['POST', `/admin/v1/api_keys/${id}/rotate`])
      for (const [method = '', path = ''] of writes) {
        const answer = await admin.call(method, path, method === 'DELETE' ? undefined : {}, as(VIEWER_KEY))
        expect([method, path, answer.status]).toEqual([method, path, 403])
        expect(messageOf(answer)).toBe('this admin key has the role viewer: it may read and change nothing')
      }
      expect(entryOf(await admin.call('GET', `/admin/v1/apikeys/${id}`)).revision).toBe(1)
      const entries = entriesOf(await admin.call('GET', '/admin/v1/audit?actor=auditor', undefined, as(VIEWER_KEY)))
      expect(entries).toHaveLength(writes.length)
      for (const entry of entries) expect(entry).toMatchObject({ outcome: 'refused', status: 403 })
      expect(new Set(entries.map(({ action }) => action))).toEqual(new Set(['create', 'replace', 'delete', 'rotate']))
    })

    test('is refused at the playground before its request goes anywhere', async () => {
      let asked = 0
      const playground = () => {
        asked += 1
        return new Response('{}')
      }
      const admin = openAdmin({ namedKeys, playground })
      expect((await admin.call('POST', '/playground/chat/completions', {}, as(VIEWER_KEY))).status).toBe(403)
      expect((await admin.call('POST', '/playground/chat/completions', {}, { 'x-api-key': VIEWER_KEY })).status).toBe(403)
      expect(asked).toBe(0)
      await admin.call('POST', '/playground/chat/completions', {}, as('sk-caller'))
      expect(asked).toBe(1)
    })
  })

  test('every answer names its request, taken over where that is a usable name', async () => {
    const admin = open()
    const idOf = async (given?: string) =>
      (
        await admin.call(
          'GET',
          '/admin/v1/health',
          undefined,
          as(ADMIN_KEY, given === undefined ? {} : { 'x-aisix-request-id': given }),
        )
      ).headers.get('x-aisix-request-id')
    expect(await idOf()).toMatch(/^[0-9a-f-]{36}$/)
    expect(await idOf('ticket-1')).toBe('ticket-1')
    expect(await idOf('with blank')).toMatch(/^[0-9a-f-]{36}$/)
  })
})
