import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { NameTaken, type Store, StoreUnavailable } from '../../src/store/store.ts'
import { actor, apiKey, budget, group, hashOf, model, policy, providerKey, SECRET, testClock } from './documents.ts'

const SCHEDULE = { timezone: 'Europe/Berlin', days_of_week: ['sat', 'sun'], start_time: '22:00', end_time: '24:00' }
const CLASSIC = { scope: 'team', scope_ref: 'search', window: 'day', max_tokens: 1_000_000, schedules: [SCHEDULE] }
const COMPARISON = { dimension: 'model_name', operator: 'in', value: ['a', 'b'], negate: true }
const CONDITIONAL = {
  limits: { rpm: 5, concurrency: 2 },
  conditions: [COMPARISON, { logic: 'or', children: [{ logic: 'and', children: [COMPARISON] }] }],
  group_by: ['api_key', 'model'],
  action: 'reject',
}

/** What every backend does alike. `open` gives an empty store. */
export function storeContract(name: string, open: (clock: ReturnType<typeof testClock>) => Store): void {
  describe(`the store contract, ${name}`, () => {
    let store: Store
    let clock: ReturnType<typeof testClock>

    beforeEach(() => {
      clock = testClock()
      store = open(clock)
    })
    afterEach(() => store.close())

    test('an empty store is loaded, connected and serves nothing', () => {
      const { status } = store
      expect(store.list('models')).toEqual([])
      expect(store.get('models', 'nothing')).toBeUndefined()
      expect(status).toMatchObject({ connected: true, problem: undefined, applySeq: 1, rejected: [], partiallyCompatible: [] })
      expect(status).toMatchObject({ lastFailure: null, reloads: 1, reloadFailures: {}, confirmedAt: clock.ms })
      expect(status.appliedAt).toBe('2026-03-01T12:00:00Z')
      expect(status.lastReload).toEqual({ successful: true, at: '2026-03-01T12:00:00Z' })
      expect(status.configHash).toMatch(/^[0-9a-f]{64}$/)
    })

    test('a created resource has a UUID, revision 1, and is visible before the promise resolves', async () => {
      const created = await store.create('provider_keys', providerKey('vllm-private'), actor)
      expect(created.id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
      expect(created.revision).toBe(1)
      expect(created.value.secret).toBe(SECRET)
      expect(store.get('provider_keys', created.id)).toEqual(created)
      expect(store.snapshot.providerKeys.get(created.id)).toEqual(created)
      expect(store.snapshot.entries.provider_keys.get(created.id)).toEqual(created)
    })

    test('the snapshot finds models by alias, patterns apart, and callers by hash', async () => {
      const direct = await store.create('models', model('llama-3-private'), actor)
      const pattern = await store.create('models', model('vllm/*', { model_name: '*' }), actor)
      const key = await store.create('api_keys', apiKey('sk-one', { allowed_models: ['vllm/*'] }), actor)
      const { snapshot } = store
      expect([...snapshot.models.keys()]).toEqual(['llama-3-private'])
      expect(snapshot.models.get('llama-3-private')).toEqual(direct)
      expect<unknown>(snapshot.wildcards.match('vllm/qwen')).toEqual({ model: pattern, captured: 'qwen' })
      const caller = snapshot.apiKeys.get(hashOf('sk-one'))
      expect(caller?.entry).toEqual(key)
      expect(caller?.allows('vllm/qwen')).toBe(true)
      expect(caller?.allows('llama-3-private')).toBe(false)
    })

    test('a group is found by its alias, a star in it means nothing, and its targets are as they were written', async () => {
      const routing = {
        strategy: 'round_robin',
        targets: [
          { model: 'a', weight: 70, tags: ['eu'] },
          { model: 'b', priority: -1 },
        ],
      }
      const created = await store.create('models', group('g/*', [], { routing, rate_limit: { rpm: 5 } }), actor)
      expect(store.snapshot.models.get('g/*')).toEqual(created)
      expect(store.snapshot.wildcards.match('g/x')).toBeUndefined()
      expect(JSON.parse(JSON.stringify(created.value))).toEqual({ display_name: 'g/*', routing, rate_limit: { rpm: 5 } })
      const replaced = await store.replace('models', created.id, () => model('g'), actor)
      expect(store.get('models', created.id)).toEqual(replaced)
      expect([...store.snapshot.models.keys()]).toEqual(['g'])
    })

    test('policies of both forms are kept, found by id, and unique by name', async () => {
      const classic = await store.create('rate_limit_policies', policy('p', CLASSIC), actor)
      const conditional = await store.create('rate_limit_policies', policy('q', CONDITIONAL), actor)
      expect(store.list('rate_limit_policies')).toEqual([classic, conditional])
      expect(store.snapshot.entries.rate_limit_policies.get(conditional.id)).toEqual(conditional)
      expect(JSON.parse(JSON.stringify(classic.value))).toEqual({ name: 'p', ...CLASSIC })
      expect(JSON.parse(JSON.stringify(conditional.value))).toEqual({ name: 'q', ...CONDITIONAL })
      await expect(store.create('rate_limit_policies', policy('p'), actor)).rejects.toThrow(new NameTaken('p'))
      // A policy may change its form.
      expect((await store.replace('rate_limit_policies', classic.id, () => policy('p'), actor))?.revision).toBe(2)
      expect(await store.remove('rate_limit_policies', classic.id, actor)).toBe(true)
      expect(store.list('rate_limit_policies')).toEqual([conditional])
    })

    test('budgets are kept as they were written, found by id, and unique by name', async () => {
      const more = { limit_usd: 0.1, limit_tokens: 7, timezone: 'Asia/Tokyo', warn_at: [95, 80], action: 'warn' }
      const created = await store.create('budgets', budget('b', more), actor)
      expect(store.snapshot.entries.budgets.get(created.id)).toEqual(created)
      expect(JSON.parse(JSON.stringify(created.value))).toEqual({
        name: 'b',
        scope: 'team',
        scope_ref: 't',
        period: 'month',
        ...more,
      })
      await expect(store.create('budgets', budget('b'), actor)).rejects.toThrow(new NameTaken('b'))
      expect((await store.replace('budgets', created.id, () => budget('c'), actor))?.revision).toBe(2)
      expect(await store.remove('budgets', created.id, actor)).toBe(true)
      expect(store.list('budgets')).toEqual([])
    })

    test('a snapshot that a request holds does not change under it', async () => {
      const created = await store.create('models', model('first'), actor)
      const held = store.snapshot
      await store.create('models', model('second'), actor)
      await store.replace('models', created.id, now => ({ ...now, display_name: 'renamed' }), actor)
      await store.remove('models', created.id, actor)
      expect([...held.models.keys()]).toEqual(['first'])
      expect([...held.entries.models.keys()]).toEqual([created.id])
      expect([...store.snapshot.models.keys()]).toEqual(['second'])
    })

    test('rows are listed in the order of their creation, also after one was replaced', async () => {
      const ids: string[] = []
      for (const name of ['c', 'a', 'b']) ids.push((await store.create('models', model(name), actor)).id)
      await store.replace('models', ids[0] ?? '', now => ({ ...now, display_name: 'z' }), actor)
      expect(store.list('models').map(({ value }) => value.display_name)).toEqual(['z', 'a', 'b'])
      expect(store.list('models').map(({ id }) => id)).toEqual(ids)
    })

    test('a replacement keeps the id, adds 1 to the revision and is looked up under its new name only', async () => {
      const { id } = await store.create('models', model('old-name'), actor)
      const replaced = await store.replace('models', id, () => model('new-name', { retries: 3 }), actor)
      expect(replaced).toMatchObject({ id, revision: 2, value: { display_name: 'new-name', retries: 3 } })
      expect(store.snapshot.models.has('old-name')).toBe(false)
      expect(store.snapshot.models.get('new-name')).toEqual(replaced)
      expect((await store.replace('models', id, now => now, actor))?.revision).toBe(3)
    })

    test('a replacement computes from what is stored when its turn comes, and may not alter it in place', async () => {
      const { id } = await store.create('models', model('counted', { timeout: 0 }), actor)
      await Promise.all(
        Array.from({ length: 20 }, () =>
          store.replace('models', id, now => ({ ...now, timeout: (now.timeout ?? 0) + 1 }), actor),
        ),
      )
      expect(store.get('models', id)).toMatchObject({ revision: 21, value: { timeout: 20 } })
      const held = store.get('models', id)
      await store.replace('models', id, now => Object.assign(now, { display_name: 'altered' }), actor)
      expect(held?.value.display_name).toBe('counted')
    })

    test('an id is held from its creation to its removal, by its own kind', async () => {
      const { id } = await store.create('models', model('m'), actor)
      expect(store.holds('models', id)).toBe(true)
      expect(store.holds('api_keys', id)).toBe(false)
      await store.remove('models', id, actor)
      expect(store.holds('models', id)).toBe(false)
    })

    test('an id that is not stored is not replaced and not removed, and nothing changes', async () => {
      const before = store.status
      let computed = 0
      const replaced = await store.replace(
        'models',
        'nothing',
        now => {
          computed += 1
          return now
        },
        actor,
      )
      expect(replaced).toBeUndefined()
      expect(computed).toBe(0)
      expect(await store.remove('models', 'nothing', actor)).toBe(false)
      expect(store.status).toEqual(before)
    })

    test('an id of one kind is unknown to the others', async () => {
      const { id } = await store.create('models', model('only-a-model'), actor)
      expect(store.get('api_keys', id)).toBeUndefined()
      expect(await store.remove('provider_keys', id, actor)).toBe(false)
      expect(store.get('models', id)).toBeDefined()
    })

    test('a removed resource is gone before the promise resolves, and its name is free again', async () => {
      const { id } = await store.create('models', model('short-lived'), actor)
      expect(await store.remove('models', id, actor)).toBe(true)
      expect(store.get('models', id)).toBeUndefined()
      expect(store.snapshot.models.size).toBe(0)
      expect(await store.remove('models', id, actor)).toBe(false)
      expect((await store.create('models', model('short-lived'), actor)).revision).toBe(1)
    })

    test('a taken name is refused on create and on replace, and nothing changes', async () => {
      const first = await store.create('models', model('taken'), actor)
      const second = await store.create('models', model('free'), actor)
      const before = store.status
      const message = 'name "taken" already in use by another resource'
      await expect(store.create('models', model('taken'), actor)).rejects.toThrow(new NameTaken('taken'))
      await expect(store.replace('models', second.id, () => model('taken'), actor)).rejects.toThrow(message)
      expect(store.status).toEqual(before)
      expect(store.list('models')).toEqual([first, second])
    })

    test('a resource may keep its own name, names differ by case, and kinds do not share them', async () => {
      const { id } = await store.create('models', model('same'), actor)
      expect((await store.replace('models', id, () => model('same', { retries: 1 }), actor))?.revision).toBe(2)
      await store.create('models', model('Same'), actor)
      await store.create('provider_keys', providerKey('same'), actor)
      expect(store.list('models')).toHaveLength(2)
    })

    test('two creations of one name at once: the first wins, the other is refused', async () => {
      const outcomes = await Promise.allSettled([model('race'), model('race')].map(each => store.create('models', each, actor)))
      expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected'])
      expect(store.list('models')).toHaveLength(1)
    })

    test('a taken key hash is refused without telling the hash; labels of keys may repeat', async () => {
      await store.create('api_keys', apiKey('sk-one', { display_name: 'label' }), actor)
      await store.create('api_keys', apiKey('sk-two', { display_name: 'label' }), actor)
      const refused = await store.create('api_keys', apiKey('sk-one'), actor).catch((error: unknown) => error)
      expect(refused).toBeInstanceOf(NameTaken)
      expect(String(refused)).toContain('"key_hash"')
      expect(String(refused)).not.toContain(hashOf('sk-one'))
    })

    test('an error of the computation reaches the caller as it is, and the store goes on', async () => {
      const { id } = await store.create('models', model('kept'), actor)
      const fault = new TypeError('not today')
      const refused = await store
        .replace(
          'models',
          id,
          () => {
            throw fault
          },
          actor,
        )
        .catch((error: unknown) => error)
      expect(refused).toBe(fault)
      expect(store.get('models', id)).toMatchObject({ revision: 1, value: { display_name: 'kept' } })
      expect((await store.replace('models', id, () => model('changed'), actor))?.revision).toBe(2)
    })

    test('a document that would not read back is never written', async () => {
      const broken = { ...apiKey('sk-one'), key_hash: 'not a hash' }
      await expect(store.create('api_keys', broken, actor)).rejects.toThrow('key_hash')
      expect(store.list('api_keys')).toEqual([])
    })

    test('each change moves the revision, the sequence and the hash on; equal content gives the equal hash', async () => {
      const seen = [store.status]
      const note = () => seen.push(store.status)
      const { id } = await store.create('models', model('hashed'), actor)
      note()
      await store.replace('models', id, () => model('hashed', { retries: 5 }), actor)
      note()
      await store.replace('models', id, () => model('hashed'), actor)
      note()
      await store.remove('models', id, actor)
      note()
      expect(seen.map(({ applySeq }) => applySeq)).toEqual([1, 2, 3, 4, 5])
      const revisions = seen.map(({ appliedRevision }) => appliedRevision)
      expect(revisions).toEqual([...new Set(revisions)].sort((a, b) => a - b))
      expect(seen.map(({ observedRevision }) => observedRevision)).toEqual(revisions)
      expect(store.snapshot.revision).toBe(revisions[4] ?? -1)
      const [empty, first, second, third, last] = seen.map(({ configHash }) => configHash)
      expect(third).toBe(first)
      expect(last).toBe(empty)
      expect(new Set([empty, first, second]).size).toBe(3)
      expect(store.status.reloads).toBe(1)
    })

    test('the time of the last change is told in whole seconds', async () => {
      clock.ms += 61_000
      await store.create('models', model('later'), actor)
      expect(store.status).toMatchObject({ appliedAt: '2026-03-01T12:01:01Z', observedAt: '2026-03-01T12:01:01Z' })
    })

    test('a closed store refuses writes in words, goes on reading, and may be closed twice', async () => {
      const { id } = await store.create('models', model('last'), actor)
      await store.close()
      await store.close()
      const refused = await store.create('models', model('too-late'), actor).catch((error: unknown) => error)
      expect(refused).toBeInstanceOf(StoreUnavailable)
      expect(String(refused)).toContain('the store is closed')
      expect(store.get('models', id)).toBeDefined()
      expect(store.status.connected).toBe(false)
    })
  })
}
