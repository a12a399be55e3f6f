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
