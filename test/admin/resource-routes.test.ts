import { afterAll, describe, expect, test } from 'bun:test'
import { openMemoryStore } from '../../src/store/memory.ts'
import { type Store, StoreUnavailable } from '../../src/store/store.ts'
import { putRow, scratch } from '../store/scratch.ts'
import {
  ADMIN_KEY,
  apiKey,
  budget,
  entryOf,
  isRecord,
  messageOf,
  model,
  openAdmin,
  otlpExporter,
  passthroughRoute,
  policy,
  providerKey,
  sha256,
} from './harness.ts'

const KINDS: [string, (more?: Record<string, unknown>) => Record<string, unknown>, Record<string, unknown>][] = [
  ['provider_keys', providerKey, { display_name: 'other' }],
  ['models', more => model('pk', more), { display_name: 'other' }],
  ['apikeys', apiKey, { key_hash: sha256('other') }],
  ['api_keys', apiKey, { key_hash: sha256('other') }],
  ['rate_limit_policies', policy, { name: 'other' }],
  ['budgets', budget, { name: 'other' }],
  ['observability_exporters', otlpExporter, { name: 'other' }],
  ['passthrough_routes', passthroughRoute, { name: 'other' }],
]

/** A member that a document may leave out, of kinds other than caller keys. */
const OPTIONAL: Record<string, Record<string, unknown>> = {
  provider_keys: { tls: { verify: false } },
  models: { retries: 3 },
  rate_limit_policies: { group_by: ['team'] },
  budgets: { warn_at: [80] },
  observability_exporters: { sample_rate: 0.5 },
  passthrough_routes: { timeout_ms: 5 },
}

describe.each(KINDS)('/admin/v1/%s', (kind, document, other) => {
  const path = `/admin/v1/${kind}`

  test('is an empty array at first, then a bare array of entries in the order of their creation', async () => {
    const admin = openAdmin()
    expect((await admin.call('GET', path)).body).toEqual([])
    const first = entryOf(await admin.call('POST', path, document()))
    const second = entryOf(await admin.call('POST', path, document(other)))
    entryOf(await admin.call('PUT', `${path}/${first.id}`, document()))
    expect((await admin.call('GET', path)).body).toEqual([{ ...first, revision: 2 }, second])
  })

  test('POST gives an id of its own, a revision of 1 and no Location', async () => {
    const answer = await openAdmin().call('POST', path, document())
    const entry = entryOf(answer)
    expect(entry.id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
    expect(entry.revision).toBe(1)
    expect(answer.headers.has('location')).toBe(false)
  })

  test('an id in the body is an unknown field', async () => {
    const answer = await openAdmin().call('POST', path, document({ id: 'mine' }))
    expect(answer.status).toBe(400)
    expect(messageOf(answer)).toContain('unknown field `id`')
  })

  test('what is written is what is read', async () => {
    const admin = openAdmin()
    const written = entryOf(await admin.call('POST', path, document()))
    expect(entryOf(await admin.call('GET', `${path}/${written.id}`))).toEqual(written)
  })

  test('PUT replaces the whole document, raises the revision and may keep its own name', async () => {
    const admin = openAdmin()
    const optional = OPTIONAL[kind] ?? { team_id: 't' }
    const { id, value } = entryOf(await admin.call('POST', path, document(optional)))
    expect(value).toMatchObject(optional)
    const replaced = entryOf(await admin.call('PUT', `${path}/${id}`, document()))
    expect(replaced.revision).toBe(2)
    expect(Object.keys(replaced.value)).not.toContain(Object.keys(optional)[0])
  })

  test('DELETE answers the id, and from then on there is nothing', async () => {
    const admin = openAdmin()
    const { id } = entryOf(await admin.call('POST', path, document()))
    const deleted = await admin.call('DELETE', `${path}/${id}`)
    expect([deleted.status, deleted.body]).toEqual([200, { deleted: true, id }])
    for (const method of ['GET', 'DELETE']) {
      const answer = await admin.call(method, `${path}/${id}`)
      expect([answer.status, messageOf(answer)]).toEqual([404, 'resource not found'])
    }
    expect((await admin.call('GET', path)).body).toEqual([])
  })

  test.each(['unknown', '%2e%2e%2fx', '%zz', 'a%20b', '__proto__', '0'])('the id %s is not stored: 404', async id => {
    const admin = openAdmin()
    for (const method of ['GET', 'PUT', 'DELETE']) {
      const answer = await admin.call(method, `${path}/${id}`, method === 'PUT' ? document() : undefined)
      expect([answer.status, messageOf(answer)]).toEqual([404, 'resource not found'])
    }
    expect((await admin.call('GET', path)).body).toEqual([])
  })

  test('PUT on an unknown id is 404 before the document is judged, and after it was read', async () => {
    const admin = openAdmin()
    expect((await admin.call('PUT', `${path}/unknown`, {})).status).toBe(404)
    expect((await admin.call('PUT', `${path}/unknown`, '{')).status).toBe(400)
  })

  test('a name that is taken is 409, on POST and on PUT, and changes nothing', async () => {
    const admin = openAdmin()
    await admin.call('POST', path, document())
    const second = entryOf(await admin.call('POST', path, document(other)))
    const created = await admin.call('POST', path, document())
    const replaced = await admin.call('PUT', `${path}/${second.id}`, document())
    for (const answer of [created, replaced]) {
      expect(answer.status).toBe(409)
      expect(messageOf(answer)).toMatch(/^name ".+" already in use by another resource$/)
    }
    expect(entryOf(await admin.call('GET', `${path}/${second.id}`))).toEqual(second)
  })

  test('a write without a key changes nothing', async () => {
    const admin = openAdmin()
    expect((await admin.call('POST', path, document(), {})).status).toBe(401)
    expect((await admin.call('GET', path)).body).toEqual([])
  })

  test('each write logs one line: who, what, how it ended, and no value', async () => {
    const admin = openAdmin({ addressOf: () => '192.0.2.7' })
    const { id } = entryOf(await admin.call('POST', path, document()))
    await admin.call('POST', path, document())
    await admin.call('PUT', `${path}/${id}`, document())
    await admin.call('DELETE', `${path}/${id}`)
    await admin.call('DELETE', `${path}/${id}`)
    await admin.call('GET', path)
    const lines = admin.lines
      .filter(line => line.includes('admin write'))
      .map(line => line.slice(line.indexOf('actor=')).replace(/ request_id="[0-9a-f-]{36}"/, ''))
    const who = 'actor="admin_keys[0]" address="192.0.2.7"'
    const stored = kind === 'apikeys' ? 'api_keys' : kind
    expect(lines).toEqual([
      `${who} method="POST" kind="${stored}" id="${id}" outcome="created"`,
      `${who} method="POST" kind="${stored}" outcome="refused with 409"`,
      `${who} method="PUT" kind="${stored}" id="${id}" outcome="replaced"`,
      `${who} method="DELETE" kind="${stored}" id="${id}" outcome="deleted"`,
      `${who} method="DELETE" kind="${stored}" id="${id}" outcome="refused with 404"`,
    ])
    expect(admin.lines.join('\n')).not.toContain('sk-upstream-secret')
  })

  test('a store that cannot write answers 500 with its reason, and nothing is there', async () => {
    const memory = openMemoryStore()
    const failing: Store = {
      ...memory,
      get snapshot() {
        return memory.snapshot
      },
      get status() {
        return memory.status
      },
      create: () => Promise.reject(new StoreUnavailable('the disk is full; free some space')),
    }
    const admin = openAdmin({ store: failing })
    const answer = await admin.call('POST', path, document())
    expect(answer.status).toBe(500)
    expect(messageOf(answer)).toBe('store error: the disk is full; free some space')
    expect((await admin.call('GET', path)).body).toEqual([])
  })
})

describe('the guide', () => {
  test('its three writes answer as it says, under each spelling of key, path and credential', async () => {
    const spellings: { headers: Record<string, string>; keys: string; credential: string }[] = [
      { headers: { authorization: `Bearer ${ADMIN_KEY}` }, keys: 'apikeys', credential: 'secret' },
      { headers: { 'x-api-key': ADMIN_KEY }, keys: 'api_keys', credential: 'api_key' },
    ]
    for (const { headers, keys, credential } of spellings) {
      const admin = openAdmin()
      const body = `{
"display_name": "vllm-private",
"provider": "vllm",
"adapter": "openai",
"${credential}": "not-used-by-vllm",
"api_base": "http://10.0.0.5:8000/v1"
}`
      const created = await admin.call('POST', '/admin/v1/provider_keys', body, headers)
      const key = entryOf(created)
      expect(created.headers.has('x-aisix-warning')).toBe(false)
      expect(key).toEqual({
        id: key.id,
        revision: 1,
        value: {
          display_name: 'vllm-private',
          provider: 'vllm',
          adapter: 'openai',
          secret: '***',
          api_base: 'http://10.0.0.5:8000/v1',
          telemetry_tags: { featured: false },
          strip_headers: ['authorization', 'cookie', 'set-cookie', 'x-api-key'],
        },
      })

      const document = {
        display_name: 'llama-3-private',
        provider: 'vllm',
        model_name: 'meta-llama/Llama-3.1-8B-Instruct',
        provider_key_id: key.id,
      }
      const cost = { input_per_1k: 0.0, output_per_1k: 0.0 }
      const answer = await admin.call('POST', '/admin/v1/models', { ...document, cost }, headers)
      expect(answer.headers.has('x-aisix-warning')).toBe(false)
      expect(entryOf(answer)).toMatchObject({ revision: 1, value: { ...document, cost } })
      const plain = { ...document, display_name: 'without-cost' }
      expect(entryOf(await admin.call('POST', '/admin/v1/models', plain, headers)).value).toEqual(plain)

      const caller = { key_hash: sha256('sk-byo-caller'), allowed_models: ['llama-3-private'] }
      const written = await admin.call('POST', `/admin/v1/${keys}`, caller, headers)
      expect(entryOf(written)).toMatchObject({ revision: 1, value: caller })
      expect(written.headers.has('x-aisix-warning')).toBe(false)
      // In force before the answer is sent: the proxy reads this very snapshot.
      expect(admin.store.snapshot.apiKeys.get(caller.key_hash)?.allows('llama-3-private')).toBe(true)
      expect(admin.store.snapshot.models.get('llama-3-private')).toMatchObject({ value: { provider_key_id: key.id } })
      expect(admin.store.snapshot.providerKeys.get(key.id)?.value.secret).toBe('not-used-by-vllm')
    }
  })

  test('a key is disabled by replacing it, and enabled again by leaving the member out', async () => {
    const admin = openAdmin()
    const document = { key_hash: sha256('k'), allowed_models: ['*'] }
    const { id } = entryOf(await admin.call('POST', '/admin/v1/apikeys', document))
    const disabled = entryOf(await admin.call('PUT', `/admin/v1/apikeys/${id}`, { ...document, disabled: true }))
    expect(disabled).toEqual({ id, value: { ...document, disabled: true }, revision: 2 })
    const enabled = entryOf(await admin.call('PUT', `/admin/v1/apikeys/${id}`, { ...document, disabled: false }))
    expect(enabled).toEqual({ id, value: document, revision: 3 })
  })

  test('both paths of caller keys show the same entries', async () => {
    const admin = openAdmin()
    const entry = entryOf(await admin.call('POST', '/admin/v1/api_keys', apiKey()))
    expect((await admin.call('GET', '/admin/v1/apikeys')).body).toEqual([entry])
    expect(entryOf(await admin.call('GET', `/admin/v1/apikeys/${entry.id}`))).toEqual(entry)
  })
})

describe('documents are normalised', () => {
  test('a hash is lower-cased, a time becomes UTC, null is absent', async () => {
    const admin = openAdmin()
    const hash = sha256('k').toUpperCase()
    const written = await admin.call('POST', '/admin/v1/apikeys', {
      key_hash: hash,
      allowed_models: [],
      expires_at: '2031-05-01T12:00:00+02:00',
      team_id: null,
      rate_limit: null,
    })
    expect(entryOf(written).value).toEqual({
      key_hash: hash.toLowerCase(),
      allowed_models: [],
      expires_at: '2031-05-01T10:00:00.000Z',
    })
  })

  test('header names to strip are trimmed, lower-cased and freed of blanks and duplicates', async () => {
    const { value } = entryOf(
      await openAdmin().call('POST', '/admin/v1/provider_keys', providerKey({ strip_headers: [' X-A ', 'x-a', '', 'Y'] })),
    )
    expect(value.strip_headers).toEqual(['x-a', 'y'])
  })

  test('names differ by case and by blanks', async () => {
    const admin = openAdmin()
    for (const display_name of ['a', 'A', 'a ']) {
      expect((await admin.call('POST', '/admin/v1/models', model('pk', { display_name }))).status).toBe(200)
    }
  })

  test('one name may serve in two kinds', async () => {
    const admin = openAdmin()
    expect((await admin.call('POST', '/admin/v1/models', model('pk', { display_name: 'same' }))).status).toBe(200)
    expect((await admin.call('POST', '/admin/v1/provider_keys', providerKey({ display_name: 'same' }))).status).toBe(200)
  })
})

describe('rotate', () => {
  test.each(['apikeys', 'api_keys'])(
    'POST /admin/v1/%s/{id}/rotate gives a new plaintext and changes the hash alone',
    async kind => {
      const admin = openAdmin()
      const before = entryOf(await admin.call('POST', `/admin/v1/${kind}`, apiKey({ team_id: 't1', display_name: 'ci' })))
      const answer = await admin.call('POST', `/admin/v1/${kind}/${before.id}/rotate`)
      expect(answer.status).toBe(200)
      if (!isRecord(answer.body) || typeof answer.body.plaintext !== 'string') throw new Error(`got ${answer.text}`)
      const { entry, plaintext, ...rest } = answer.body
      expect(rest).toEqual({})
      expect(plaintext).toMatch(/^sk-[0-9a-f]{32}$/)
      const key_hash = sha256(plaintext)
      expect(entry).toEqual({ id: before.id, value: { ...before.value, key_hash }, revision: 2 })
      expect(admin.store.snapshot.apiKeys.has(key_hash)).toBe(true)
      expect(admin.store.snapshot.apiKeys.has(sha256('sk-byo-caller'))).toBe(false)
      expect((await admin.call('GET', `/admin/v1/${kind}`)).text).not.toContain(plaintext)
      expect(admin.lines.join('\n')).not.toContain(plaintext)
    },
  )

  test('gives another plaintext each time', async () => {
    const admin = openAdmin()
    const { id } = entryOf(await admin.call('POST', '/admin/v1/apikeys', apiKey()))
    const first = await admin.call('POST', `/admin/v1/apikeys/${id}/rotate`)
    const second = await admin.call('POST', `/admin/v1/apikeys/${id}/rotate`)
    expect(isRecord(first.body) && isRecord(second.body) && first.body.plaintext !== second.body.plaintext).toBe(true)
  })

  test('ignores a body, whatever it is', async () => {
    const admin = openAdmin()
    const { id } = entryOf(await admin.call('POST', '/admin/v1/apikeys', apiKey()))
    expect((await admin.call('POST', `/admin/v1/apikeys/${id}/rotate`, '{"key_hash":')).status).toBe(200)
  })

  test('of an unknown id is 404, without a key 401', async () => {
    const admin = openAdmin()
    expect((await admin.call('POST', '/admin/v1/apikeys/unknown/rotate')).status).toBe(404)
    expect((await admin.call('POST', '/admin/v1/apikeys/unknown/rotate', undefined, {})).status).toBe(401)
  })
})

describe('a stored row that was broken by hand', () => {
  const place = scratch()
  afterAll(() => place.clean())
  const admin = openAdmin({ store: place.open() })
  const path = '/admin/v1/provider_keys/broken'
  putRow(place.other(), 'provider_keys', 'broken', { display_name: 'pk', adapter: 'openai' }, 3)
  admin.store.refresh()

  test('is not read, is judged like any other write, and has no credential that `***` could keep', async () => {
    expect((await admin.call('GET', path)).status).toBe(404)
    const rejected = await admin.call('PUT', path, { display_name: 'pk' })
    expect([rejected.status, messageOf(rejected)]).toEqual([400, expect.stringContaining('/secret: is required')])
    const masked = await admin.call('PUT', path, providerKey({ secret: '***' }))
    expect([masked.status, messageOf(masked)]).toEqual([
      400,
      expect.stringContaining('/secret: *** keeps a stored value, and here is none'),
    ])
    expect(admin.store.status.rejected).toHaveLength(1)
  })

  test('is repaired by PUT, under its id and with the next revision', async () => {
    const entry = entryOf(await admin.call('PUT', path, providerKey()))
    expect([entry.id, entry.revision]).toEqual(['broken', 4])
    expect(entryOf(await admin.call('GET', path))).toEqual(entry)
    expect(admin.store.status.rejected).toEqual([])
  })
})

describe('two writers at once', () => {
  test('of two creations under one name one wins and one gets 409', async () => {
    const admin = openAdmin()
    const answers = await Promise.all([1, 2].map(() => admin.call('POST', '/admin/v1/provider_keys', providerKey())))
    expect(answers.map(({ status }) => status).sort()).toEqual([200, 409])
  })
})
