import { expect, test } from 'bun:test'
import fc from 'fast-check'
import { ApiKey } from '../../src/resources/api-key.ts'
import { NameTaken } from '../../src/store/store.ts'
import { createTable } from '../../src/store/table.ts'

const clock = { now: () => 0 }
const hashOf = (name: number) => String(name).padStart(64, '0')

const write = fc.record({
  id: fc.integer({ min: 0, max: 5 }).map(each => `id-${each}`),
  name: fc.integer({ min: 0, max: 5 }),
  models: fc.constantFrom<string[][]>([], ['*'], ['a', 'b-*']),
  isRemoval: fc.boolean(),
})

test('one write after the other comes to what a full load of the same rows comes to', () => {
  fc.assert(
    fc.property(fc.array(write, { maxLength: 30 }), fc.boolean(), (writes, hasBadRow) => {
      const table = createTable(clock)
      const rows = new Map<string, { kind: string; id: string; document: string; revision: number }>()
      // A row that is not served takes the way by which all rows are looked at.
      if (hasBadRow) rows.set('bad', { kind: 'api_keys', id: 'bad', document: '{"key_hash":5}', revision: 1 })
      table.load(1, rows.values())
      for (const [at, { id, name, models, isRemoval }] of writes.entries()) {
        if (isRemoval) {
          table.remove('api_keys', id, at + 2)
          rows.delete(id)
          continue
        }
        const value = ApiKey.parse({ key_hash: hashOf(name), allowed_models: models })
        try {
          const draft = table.draft('api_keys', id, value, at + 2)
          const before = table.snapshot
          const keysBefore = [...before.apiKeys.keys()]
          table.put(draft, at + 2)
          rows.set(id, { kind: 'api_keys', id, document: draft.document, revision: at + 2 })
          // Whoever works on an older snapshot sees nothing of it.
          expect([...before.apiKeys.keys()]).toEqual(keysBefore)
        } catch (error) {
          if (!(error instanceof NameTaken)) throw error
        }
      }
      const fresh = createTable(clock)
      fresh.load(1, rows.values())
      const seen = ({ snapshot }: typeof table) => ({
        entries: [...snapshot.entries.api_keys],
        keys: [...snapshot.apiKeys]
          .map(([hash, { entry, allows }]) => [hash, entry.id, entry.revision, allows('a'), allows('b-1'), allows('c')])
          .toSorted(),
      })
      expect(seen(table)).toEqual(seen(fresh))
      expect(
        table.status({ connected: true, problem: undefined, writeProblem: undefined, confirmedAt: undefined }).configHash,
      ).toBe(fresh.status({ connected: true, problem: undefined, writeProblem: undefined, confirmedAt: undefined }).configHash)
      // Names that were given up can be taken again, and no other.
      for (let name = 0; name < 6; name += 1) {
        const take = (of: typeof table) => {
          try {
            of.draft('api_keys', 'other', ApiKey.parse({ key_hash: hashOf(name), allowed_models: [] }), 99)
            return true
          } catch {
            return false
          }
        }
        expect(take(table)).toBe(take(fresh))
      }
    }),
    { numRuns: 500 },
  )
})

const step = fc.record({
  id: fc.integer({ min: 0, max: 5 }).map(each => `id-${each}`),
  name: fc.integer({ min: 0, max: 4 }),
  models: fc.constantFrom<string[][]>([], ['*'], ['a', 'b-*']),
  what: fc.constantFrom('write', 'write', 'write', 'remove', 'break', 'unknown member', 'move behind'),
})

test('one load after the other serves what a table serves that saw the same, and names to the same rows', () => {
  fc.assert(
    fc.property(fc.array(fc.array(step, { maxLength: 4 }), { maxLength: 8 }), loads => {
      const table = createTable(clock)
      const rows = new Map<string, { kind: string; id: string; document: string; revision: number }>()
      let revision = 0
      for (const steps of loads) {
        for (const { id, name, models, what } of steps) {
          revision += 1
          const document = JSON.stringify({
            ...{ key_hash: what === 'break' ? 5 : hashOf(name), allowed_models: models },
            ...(what === 'unknown member' ? { later: 1 } : {}),
          })
          if (what === 'remove' || what === 'move behind') rows.delete(id)
          if (what !== 'remove') rows.set(id, { kind: 'api_keys', id, document, revision })
        }
        const before = table.snapshot
        const keysBefore = [...before.apiKeys.keys()]
        table.load(revision, rows.values())
        expect([...before.apiKeys.keys()]).toEqual(keysBefore)
        const { snapshot } = table
        // The look-ups are those of the entries, whatever way they were made by.
        expect([...snapshot.apiKeys.values()].map(({ entry }) => entry.id).toSorted()).toEqual(
          [...snapshot.entries.api_keys.keys()].toSorted(),
        )
        for (const [hash, { entry, allows }] of snapshot.apiKeys) {
          expect(snapshot.entries.api_keys.get(entry.id)).toBe(entry)
          expect(entry.value.key_hash).toBe(hash)
          expect(allows('a')).toBe(entry.value.allowed_models.length > 0)
        }
        // Where all rows are good, and no two have one name, all are served as they stand, in their order.
        const documents = [...rows.values()].map(({ document }): { key_hash: unknown } => JSON.parse(document))
        const isPlain = new Set(documents.map(({ key_hash }) => key_hash)).size === documents.length
        if (!isPlain || documents.some(({ key_hash }) => typeof key_hash !== 'string')) continue
        const fresh = createTable(clock)
        fresh.load(revision, rows.values())
        expect([...snapshot.entries.api_keys]).toEqual([...fresh.snapshot.entries.api_keys])
        expect(table.rejected()).toEqual([])
      }
    }),
    { numRuns: 1_000 },
  )
})
